//! Pieces of an audit log: entries, checkpoints, proofs, journals.

use audit::hash::Hash;
use audit::journal::Mark;
use audit::key::{LogKey, Origin, Vkey};
use audit::note::Checkpoint;
use audit::{Draft, Event, proof};
use caps::Code;
use caps::id::LeaseId;
use caps::time::UnixMicros;

/// Bytes that the proof's target takes as the entry.
const ENTRY_BYTES: usize = 16;

fn origin() -> Origin {
    Origin::parse("fuzz.example/audit").expect("a good name")
}

/// A key that the targets do not trust.
fn key() -> LogKey {
    LogKey::from_seed(&[1; 32])
}

/// Entries 0 to 2 of a log, each chained to the one before.
pub fn entries() -> Vec<Vec<u8>> {
    let drafts = [
        Draft::ok(Event::LeaseClaim).lease(LeaseId([7; 16])).bytes(65_536),
        Draft::deny(Event::TokenReject, Code::TokenSignature),
        Draft::ok(Event::LeaseRevoke).lease(LeaseId([7; 16])).reason("a \"reason\" \\ \u{e4}"),
    ];
    let mut last = Hash::ZERO;
    let chain = drafts.iter().zip(0..).map(|(draft, seq)| {
        let mut entry = Vec::new();
        draft.encode(&mut entry, seq, last, UnixMicros(1_800_000_000_000_000 + seq), &origin());
        last = Hash::leaf(&entry);
        entry
    });
    chain.collect()
}

/// Checkpoints of an empty, a small and a large log, with one and with two signatures.
pub fn notes() -> Vec<Vec<u8>> {
    let note = |size, keys: &[LogKey]| {
        Checkpoint { origin: origin(), size, root: Hash::leaf(b"root") }.sign(keys).into_bytes()
    };
    vec![
        note(0, &[key()]),
        note(300, &[key()]),
        note(u64::from(u32::MAX), &[key(), LogKey::from_seed(&[2; 32])]),
    ]
}

/// A log's key and a witness's, as text.
pub fn vkeys() -> Vec<Vec<u8>> {
    const WITNESS: &str = "memb.example/witness/1+d35e448a+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X";
    assert!(Vkey::parse(WITNESS).is_ok());
    vec![key().vkey(&origin()).to_string().into_bytes(), WITNESS.into()]
}

/// An entry and its inclusion proof, and a consistency proof, in form but under a key that is not trusted.
pub fn proofs() -> Vec<Vec<u8>> {
    let (entry, other) = ([b'e'; ENTRY_BYTES], Hash::leaf(b"other"));
    let root = Hash::node(Hash::leaf(&entry), other);
    let note = Checkpoint { origin: origin(), size: 2, root }.sign(&[key()]);
    let inclusion = format!("{}\nindex 0\n{}\n\n{note}", proof::PROOF_HEADER, other.base64());
    let extra = format!("{}\nextra text\nindex 0\n{}\n\n{note}", proof::PROOF_HEADER, other.base64());
    let consistency = format!("old 1\n{}\n\n{note}", other.base64());
    [inclusion, extra, consistency].iter().map(|proof| [&entry, proof.as_bytes()].concat()).collect()
}

/// Trees, leaves and prefixes, with honest and with edited proofs.
pub fn paths() -> Vec<Vec<u8>> {
    let honest = |size: u16, index: u16, old: u16| {
        [(size - 1).to_be_bytes(), index.to_be_bytes(), (old - 1).to_be_bytes()].concat()
    };
    let with = |mut honest: Vec<u8>, rest: &[u8]| {
        honest.extend_from_slice(rest);
        honest
    };
    vec![
        with(honest(1, 0, 1), &[0]),
        with(honest(7, 6, 4), &[0]),
        with(honest(300, 256, 255), &[0]),
        with(honest(300, 150, 100), &[1]),
        with(honest(8, 3, 6), &[0, 0, 1, 9]),
        with(honest(9, 8, 8), &[0, 1, 0, 0, 2, 0, 3]),
    ]
}

/// The entries with their lengths; the same with a torn end; a mark; paths of tiles.
pub fn journals() -> Vec<Vec<u8>> {
    let entries = entries();
    let whole: Vec<u8> = entries
        .iter()
        .flat_map(|entry| {
            [&u16::try_from(entry.len()).expect("a short entry").to_be_bytes()[..], entry].concat()
        })
        .collect();
    let torn = whole[..whole.len() - 9].to_vec();
    let mark = Mark { size: 3, last: Hash::leaf(&entries[2]) }.encode().to_vec();
    vec![whole, torn, mark, b"tile/0/x001/234.p/5".to_vec(), b"tile/entries/000".to_vec()]
}

/// A size, two cuts, and the bytes of files.
pub fn directories() -> Vec<Vec<u8>> {
    let journal = journals().swap_remove(0);
    let hashes: Vec<u8> = entries().iter().flat_map(|entry| Hash::leaf(entry).0).collect();
    let files = [&journal[..], &journal, &hashes].concat();
    let cut = |at: usize| u8::try_from((at * 256).div_ceil(files.len())).expect("below the end");
    let head = |size: u16, a, b| [&size.to_be_bytes()[..], &[a, b]].concat();
    let (first, second) = (cut(journal.len()), cut(2 * journal.len()));
    vec![
        [head(3, first, second), files.clone()].concat(),
        [head(0, u8::MAX, u8::MAX), journal].concat(),
        [head(300, 0, first), files].concat(),
    ]
}
