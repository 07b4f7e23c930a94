//! The tables of the document that follow the code.

use caps::error::{Blame, Code};
use caps::limits;
use caps::wire::remote::Verb;

/// Every table by its name.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    vec![("verbs", verbs()), ("limits", limits()), ("codes", codes())]
}

/// A table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text.push('\n');
    text
}

/// A verb as the document writes it.
pub(crate) const fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Control => "CONTROL",
        Verb::Read => "READ",
        Verb::Write => "WRITE",
        Verb::Gather => "GATHER",
        Verb::Scatter => "SCATTER",
        Verb::Cas => "CAS",
        Verb::FetchAdd => "FETCH_ADD",
        Verb::Stat => "STAT",
        Verb::Create => "CREATE",
        Verb::Delete => "DELETE",
    }
}

fn verbs() -> String {
    let says = |verb: Verb| match verb {
        Verb::Control => ("a request in CBOR", "a reply in CBOR"),
        Verb::Read => ("span", "bytes, in one frame or several"),
        Verb::Write => ("span, bytes; the rest in frames that follow", "number: bytes written"),
        Verb::Gather => ("spans", "pieces, their bytes; in one frame or several"),
        Verb::Scatter => ("spans, their bytes; more in frames that follow", "pieces"),
        Verb::Cas => ("span, expected, desired", "number: the word before"),
        Verb::FetchAdd => ("span, addend", "number: the word before"),
        Verb::Stat => ("span", "standing"),
        Verb::Create => ("CBOR; first bytes in frames that follow", "CBOR"),
        Verb::Delete => ("CBOR", "CBOR"),
    };
    let rows: Vec<_> = Verb::ALL
        .iter()
        .map(|&verb| {
            let (asks, answers) = says(verb);
            vec![(verb as u8).to_string(), name(verb).to_owned(), asks.to_owned(), answers.to_owned()]
        })
        .collect();
    table(&["number", "verb", "body of the request", "body of the answer"], &rows)
}

fn limits() -> String {
    let rows = [
        ("a frame, header included", limits::FRAME_BYTES_MAX as u64, "bytes"),
        ("a body", caps::wire::remote::header::BODY_BYTES_MAX as u64, "bytes"),
        ("bytes of regions in one frame", limits::CHUNK_BYTES_MAX as u64, "bytes"),
        ("bytes that one item or one READ or WRITE moves", limits::VALUE_BYTES_MAX, "bytes"),
        ("items in one frame of a batch", limits::REMOTE_BATCH_ITEMS_MAX as u64, ""),
        ("requests of one connection without an answer", limits::REMOTE_WINDOW_MAX as u64, ""),
        ("leases in one CREATE or DELETE", limits::REMOTE_LEASES_MAX as u64, ""),
        ("least bytes of a lease in CREATE", limits::VALUE_BYTES_MIN, "bytes"),
        ("most bytes of a lease in CREATE", limits::VALUE_BYTES_MAX, "bytes"),
        ("a token", limits::TOKEN_BYTES_MAX as u64, "bytes"),
        ("a name", limits::NAME_BYTES_MAX as u64, "bytes"),
        ("rows in one page of a list", limits::PAGE_ROWS_MAX as u64, ""),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(what, number, unit)| {
            vec![(*what).to_owned(), format!("{number} {unit}").trim_end().to_owned()]
        })
        .collect();
    table(&["what", "bound"], &rows)
}

fn codes() -> String {
    let blame = |blame| match blame {
        Blame::Client => "the request",
        Blame::Refused => "refused",
        Blame::Unreachable => "not now",
        Blame::Tampering => "tampering",
        Blame::Operator => "the operator",
        Blame::Ours => "the node",
    };
    let rows: Vec<_> = Code::ALL
        .iter()
        .map(|&code| {
            let text = format!("`{}`", code.text());
            vec![(code as u16).to_string(), text, blame(code.blame()).to_owned(), code.help().to_owned()]
        })
        .collect();
    table(&["number", "text", "because of", "what to do"], &rows)
}
