//! A second client, which knows nothing of Leasehold but `docs/protocol.md`: what the page says is enough to speak to a
//! node, and is what a node understands.
//!
//! | file | idea |
//! |---|---|
//! | `client.rs` | frames, CBOR, the proof |
//! | `script.rs` | the page's example session as the other end |
//! | `tls.rs` | the transport, and an end of it that knows as little |

#[path = "remote_client/client.rs"]
mod client;
#[path = "remote_client/script.rs"]
mod script;
#[path = "remote_client/tls.rs"]
mod tls;

use std::io::Write;

use client::{Client, Failure, Handle};
use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use script::{Script, block, line};

/// The turns of the page up to the welcome.
const BEGINNING: [(&str, &str); 2] = [("hello", "challenge"), ("prove", "welcome")];

/// The key, the client's nonce and the exporter's bytes of the page.
fn given() -> (SigningKey, [u8; 32], [u8; 32]) {
    let array = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).unwrap();
    let key = SigningKey::from_bytes(&array(line("seed", 0, 32)));
    let nonce = array(line("signed", 21 + 16 + 32, 32));
    (key, nonce, array(line("seed", 64, 32)))
}

#[test]
fn the_key_and_the_signature_of_the_page_are_those_of_rfc_8032() {
    let (key, _, exporter) = given();
    assert_eq!(key.verifying_key().to_bytes()[..], line("seed", 32, 32));
    let signed = block("signed");
    assert_eq!(signed.len(), 21 + 16 + 4 * 32);
    assert!(signed.starts_with(b"leasehold-pop-tls-v1\0") && signed.ends_with(&exporter));
    assert!(
        block("prove").ends_with(&key.sign(&signed).to_bytes()),
        "the signature is the request's last field"
    );
}

#[test]
fn the_page_is_spoken_byte_by_byte() {
    let turns = [
        ("resume", "resumed"),
        ("lease-create", "leased"),
        ("open", "opened"),
        ("write", "written"),
        ("write-frames", "written-frames"),
        ("read", "data"),
        ("read-frames", "data-frames"),
        ("read-end", "data-end"),
        ("read-over", "revoked"),
        ("gather", "gathered"),
        ("scatter", "scattered"),
        ("cas", "swapped"),
        ("cas-late", "not-swapped"),
        ("fetch-add", "added"),
        ("stat", "standing"),
        ("create", "create-done"),
        ("delete", "deleted"),
        ("close", "closed"),
        ("lease-release", "released"),
    ];
    let (key, nonce, exporter) = given();
    let mut client = Client::new(Script::new(&[&BEGINNING[..], &turns].concat()));
    let welcome = client.begin(&key, nonce, exporter).unwrap();
    assert_eq!((welcome.provider, welcome.name.as_deref()), (vec![6; 16], Some("alice")));
    client.resume([8; 16]).unwrap();

    let leased = client.lease(65_536, 60_000_000, Some("frames")).unwrap();
    assert_eq!(leased.lease, [3; 16]);
    let opened = client.open(&leased.token, 3).unwrap();
    assert_eq!((opened.region_bytes, opened.rights), (65_536, 3));
    let at = opened.handle;
    let over = Handle { epoch: at.epoch - 1, ..at };

    client.checked = true;
    assert_eq!(client.write(at, 0, b"hello, world"), Ok(12));
    client.checked = false;
    client.chunks = vec![7, 8, 1];
    assert_eq!(client.write(at, 4_096, b"first, second, x"), Ok(16));
    client.deadline = 2_000;
    assert_eq!(client.read(at, 0, 12).unwrap(), b"hello, world");
    assert_eq!(client.read(at, 4_096, 16).unwrap(), b"first, second, x");
    assert_eq!(client.read(at, 65_532, 64).unwrap(), [0; 4]);
    client.deadline = 0;
    assert!(matches!(client.read(over, 0, 12), Err(Failure::Refused(500, _))));

    let gathered = client.gather(&[(at, 7, 5), (over, 0, 8), (at, 0, 5)]).unwrap();
    assert_eq!(gathered, [(b"world".to_vec(), 0), (vec![], 500), (b"hello".to_vec(), 0)]);
    let scattered = client.scatter(&[(at, 100, b"abc"), (at, 65_535, b"de")]).unwrap();
    assert_eq!(scattered, [(3, 0), (1, 0)]);

    assert_eq!(client.compare_exchange(at, 8_192, 0, 7), Ok(0));
    assert_eq!(client.compare_exchange(at, 8_192, 0, 9), Ok(7));
    assert_eq!(client.fetch_add(at, 8_192, 5), Ok(7));
    let standing = client.stat(at).unwrap();
    assert_eq!((standing.region_bytes, standing.range, standing.rights), (65_536, (0, 65_536), 3));
    assert_eq!(standing.left_us, 59_000_000);

    let created = client.create(&[(65_536, 60_000_000, b"begin"), (4_096, 60_000_000, b"")]).unwrap();
    let (made, written) = created[0].as_ref().unwrap();
    assert_eq!((&made.lease[..], *written), (&[9; 16][..], 5));
    assert!(matches!(created[1], Err(Failure::Refused(400, _))));
    let deleted = client.delete(&[&[9; 16], &[0xee; 16]]).unwrap();
    assert_eq!(deleted[0], Ok(()));
    assert!(matches!(deleted[1], Err(Failure::Refused(404, _))));

    client.close(at).unwrap();
    assert_eq!(client.release(&leased.lease), Ok(65_536));
    assert!(client.into_stream().is_over());
}

#[test]
fn an_error_of_the_connection_is_told_under_no_number() {
    let (key, nonce, exporter) = given();
    let mut client = Client::new(Script::new(&[("hello", "frame-error")]));
    assert!(matches!(client.begin(&key, nonce, exporter), Err(Failure::Refused(303, _))));
}

#[test]
fn the_exporter_gives_both_ends_what_is_signed() {
    let (key, nonce, _) = given();
    let authority = tls::Authority::new();
    let (client, node) =
        (authority.issue("principal/alice", false), authority.issue("provider/node-1", true));
    let theirs = tls::Listener::new(node, authority.roots());
    let address = theirs.address();
    // The other end plays the page's challenge, and looks at what was signed over its own exporter.
    let holder = key.verifying_key();
    let other = std::thread::spawn(move || {
        let (mut stream, exporter) = theirs.accept();
        let hello = tls::body(&mut stream);
        stream.write_all(&block("challenge")).unwrap();
        let prove = tls::body(&mut stream);
        assert!(block("hello").ends_with(&hello));
        let signed = block("signed");
        let signed = [&signed[..signed.len() - 32], &exporter].concat();
        let signature = prove.last_chunk::<64>().unwrap();
        let proven = VerifyingKey::verify(&holder, &signed, &ed25519_dalek::Signature::from_bytes(signature));
        assert!(proven.is_ok());
        stream.write_all(&block("welcome")).unwrap();
    });
    let (stream, exporter, name) = tls::connect(&address, client, authority.roots()).unwrap();
    assert_eq!(name, "spiffe://mem.example/provider/node-1");
    Client::new(stream).begin(&key, nonce, exporter).unwrap();
    other.join().unwrap();
}
