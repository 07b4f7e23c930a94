//! `docs/protocol.md` against the code: every block of bytes and every generated table in it is made here again and
//! compared, and every frame of the example is read as the other side reads it.
//!
//! To write them anew, and say so in the release notes, since old clients may no longer be understood:
//! `LEASEHOLD_WRITE_PROTOCOL=1 cargo test -p caps --test protocol_doc`.

#[path = "protocol/lines.rs"]
mod lines;
#[path = "protocol/session.rs"]
mod session;
mod support;
#[path = "protocol/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::path::Path;

use caps::wire::remote::ask::Further;
use caps::wire::remote::leases::{Create, Creations, Delete, Deletions};
use caps::wire::remote::{Answer, Ask, Flags, Next, next};
use caps::wire::{Reply, Request, cbor};
use session::Side;

/// How a generated part begins and ends. A block of bytes is also fenced, so that a reader sees it as one.
const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

fn document() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md")
}

/// The document with every generated part replaced by what `make` gives for its name.
fn filled(text: &str, mut make: impl FnMut(&str) -> String) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines() {
        if inside && line != END {
            continue;
        }
        inside = false;
        out.push_str(line);
        out.push('\n');
        if let Some(name) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) {
            inside = true;
            out.push_str(&make(name));
        }
    }
    assert!(!inside, "a generated part has no end");
    out
}

/// Every part by its name: the tables, and the steps of the example.
fn parts() -> Vec<(String, String)> {
    let steps = session::steps();
    let blocks = steps.iter().map(|step| (step.name.to_owned(), format!("```text\n{}```\n", step.text())));
    tables::all().into_iter().map(|(name, text)| (name.to_owned(), text)).chain(blocks).collect()
}

#[test]
fn the_document_says_what_the_code_does() {
    let parts = parts();
    let text = std::fs::read_to_string(document()).unwrap();
    let mut missing: BTreeSet<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(missing.len(), parts.len(), "each part has a name of its own");
    let made = filled(&text, |name| {
        let (known, part) = parts.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}"));
        assert!(missing.remove(known.as_str()), "{name} stands there twice");
        part.clone()
    });
    assert!(missing.is_empty(), "the document leaves out {missing:?}");
    if std::env::var_os("LEASEHOLD_WRITE_PROTOCOL").is_some() {
        std::fs::write(document(), &made).unwrap();
        return;
    }
    for (number, (is, ought)) in text.lines().zip(made.lines()).enumerate() {
        assert_eq!(is, ought, "docs/protocol.md, line {}", number + 1);
    }
    assert_eq!(text.len(), made.len());
}

#[test]
fn each_frame_of_the_example_is_read_as_it_is_meant() {
    for step in session::steps() {
        let (Some(side), bytes) = (step.side, step.bytes()) else { continue };
        let mut stream = &bytes[..];
        let mut further = false;
        while !stream.is_empty() {
            let Next::Frame { header, body, rest } = next(stream).unwrap() else {
                panic!("{}: half a frame", step.name)
            };
            match side {
                Side::Client if further => drop(Further::decode(&header, body).unwrap()),
                Side::Client => match Ask::decode(&header, body).unwrap() {
                    Ask::Control(body) => drop(cbor::decode::<Request>(body).unwrap()),
                    Ask::Create(body) => drop(cbor::decode::<Create>(body).unwrap()),
                    Ask::Delete(body) => drop(cbor::decode::<Delete>(body).unwrap()),
                    _ => {}
                },
                Side::Node => match Answer::decode(&header, body).unwrap() {
                    Answer::Control(body) => drop(cbor::decode::<Reply>(body).unwrap()),
                    Answer::Leases(body) if step.name.starts_with("create") => {
                        drop(cbor::decode::<Creations>(body).unwrap());
                    }
                    Answer::Leases(body) => drop(cbor::decode::<Deletions>(body).unwrap()),
                    _ => {}
                },
            }
            assert_eq!(header.flags.contains(Flags::ANSWER), side == Side::Node, "{}", step.name);
            further = header.has_more();
            stream = rest;
        }
        assert!(!further, "{}: the message has no end", step.name);
    }
}
