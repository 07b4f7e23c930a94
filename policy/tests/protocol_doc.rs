//! The times that `docs/protocol.md` states are those of the code. (Its bytes and tables are `caps/tests/protocol_doc.rs`.)

use policy::limits;

#[test]
fn the_times_in_the_document_are_ours() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    for (what, ms) in [
        ("TLS handshake", limits::HANDSHAKE_MS_MAX),
        ("from there to the welcome", limits::HELLO_MS_MAX),
        ("a frame, from its first byte to its last", limits::REMOTE_FRAME_MS_MAX),
        ("an answer that the client does not take", limits::SEND_MS_MAX),
        ("data verbs without a deadline", limits::REMOTE_REQUEST_MS_DEFAULT),
        ("data verbs with any", limits::REMOTE_REQUEST_MS_MAX),
        ("CONTROL, CREATE and DELETE without a deadline", limits::REQUEST_MS_DEFAULT),
        ("a connection without requests", limits::SESSION_IDLE_MS_MAX),
    ] {
        let row = format!("| {what} | {} s |", ms / 1_000);
        assert_eq!(ms % 1_000, 0);
        assert_eq!(page.lines().filter(|line| *line == row).count(), 1, "{row}");
    }
}
