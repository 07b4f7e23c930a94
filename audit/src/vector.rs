//! The format's test vector, through the log itself: the same files, byte for byte.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::hash::Hash;
use crate::key::{LogKey, Origin, Vkey};
use crate::log::{Identity, Log};
use crate::note::Note;
use crate::recover::Opening;
use crate::store::memory::Memory;
use crate::store::{Files, Store};
use crate::{proof, verify};

const NAME: &str = "memb.example/audit/broker-1";
const VKEY: &str = "memb.example/audit/broker-1+8e01b6cc+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
const WITNESS_VKEY: &str = "memb.example/witness/1+d35e448a+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X";
const WITNESS: &str = "\u{2014} memb.example/witness/1 015EigAAAABrABog992WjisVSUBlL8Byd1xf4xxzTx1W3RrXNh3RBN+1qP5mIzkEj9SEtiPbUK1BAvriyNuW3b2+xUZUxzKr1QniCg==\n";
const CHECKPOINT: &str = "memb.example/audit/broker-1
300
SZGYr8BlHcKgv66gg65ueq4u8522hPk9O0cmDR8YnKc=

\u{2014} memb.example/audit/broker-1 jgG2zIRMaQzn9rfE+HJUfRD2kqO0IzTU7Zfrms+dtTSWQeRoTsT33/eSlvYxxFXPotHI1IoRMidxerkkEnh5P+vv6gg=
";
const INCLUSION_150: &str = "Yu69v6ozL4uImqyTJob1ammk1MbpyNc8U6Lc6Bkv5Gw=
lkQkrIg+g+WMC5DNCtBKzDb6/nTPUnNCfI31W8gO2Pk=
TWoYLHBn1DA0hp/kXpMvteY7lcaTUwJwcr/qOpbGrY8=
jQD/3edX6WuKvaeVsYR/u14/ZfRJ6dkeASZaREtohZ4=
aip6FZzrqH+gW/RsqCgETN4XSSQEbpXippfh4wYqtdk=
McHUetJ/YS8OZS7WctuatlCWwxwGGAJ48Zpv/Cc8M4I=
NDEAOkSL4ma/79ruIgIYECtF0i57MkRLWPpX+h8KlFY=
msBR6CYy34U65B7hnDgMbhJoAB3vlB8LwHpaie2l2mY=
XWcZARgepoVVXnOvUiAKQIDwoWd0JyXnwWzhWzcacqI=
";
const ROOT_100: &str = "lenXrCGkIqTeSxEciPW1uI/OJ8cIMUse9ZAVoxW5B4o=";
const CONSISTENCY_100: &str = "ulZB8hEy3yZpBJOEOqiPR48XWoOPRAJF38obXPQM4Nw=
eLVb0L/hlhzZg3i6ZJ5ryNQzRratMxB/0bwOmOlFtO4=
JlCZThLjuu+goOGEPaTPcFEFsN6ulVGfZhrt+6tsHIs=
SUUKpiEZ3rmj2PtpWMYVHOp5wc/CyO1lcOUPaq3P7Y0=
QY1KxFrCcvx114HEMmGtCCWSj4tpeki+pGlIQvovgP8=
vx3qeh70T8tZfO30r1+llPsydmUxkVyihObqw5yjlus=
aR09aijD+SghCF2fJzyFLW19fLMHUFfadau9nayjEkA=
XWcZARgepoVVXnOvUiAKQIDwoWd0JyXnwWzhWzcacqI=
";

fn key() -> LogKey {
    LogKey::from_seed(&std::array::from_fn(|i| i as u8))
}

/// Entry `i` of the vector, whose `subject` no draft of ours would write.
fn entry(i: usize, prev: Hash) -> String {
    let event = ["lease.grant", "lease.open", "lease.revoke", "token.reject"][i % 4];
    let (outcome, code) = if i % 4 == 3 { ("deny", "E_TOKEN_SIG") } else { ("ok", "OK") };
    format!(
        "{{\"code\":\"{code}\",\"event\":\"{event}\",\"node\":\"{NAME}\",\"outcome\":\"{outcome}\",\
         \"prev\":\"{prev}\",\"seq\":\"{i}\",\"subject\":\"spiffe://memb.example/team/a\",\
         \"time\":\"2026-11-20T10:00:{:02}.{:06}Z\",\"v\":1}}",
        i / 100 % 60,
        i % 1_000_000
    )
}

/// The vector's log, checkpointed at each of `sizes`.
fn build(sizes: &[usize]) -> Memory {
    let store = Memory::new();
    let identity = Arc::new(Identity::new(Origin::parse(NAME).unwrap(), key()));
    let mut log = Log::open_on(Arc::new(store.clone()), identity, Opening::default()).unwrap();
    let mut i = 0;
    for size in sizes {
        while i < *size {
            let bytes = entry(i, log.last);
            let start = log.stream.len();
            log.stream.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            log.stream.extend_from_slice(bytes.as_bytes());
            log.stage(start);
            i += 1;
        }
        log.publish().unwrap();
    }
    store
}

fn sha256(store: &Memory, path: &str) -> String {
    let bytes = store.read(path, 1 << 24).unwrap().unwrap();
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

#[test]
fn every_file_is_the_vector_s() {
    let first = entry(0, Hash::ZERO);
    assert_eq!(first.len(), 255);
    assert_eq!(
        Hash::leaf(first.as_bytes()).to_string(),
        "108ae3afc1ff8e9b3e3dedb07cdb80e9923d277549adc1d35922c8da5e0ecb1d"
    );
    let store = build(&[300]);
    let read = |path| String::from_utf8(store.read(path, 1 << 16).unwrap().unwrap()).unwrap();
    assert_eq!(read("checkpoint"), CHECKPOINT);
    for (path, hash) in [
        // The format's text lost the first digit of this one; the checkpoint's own bytes are above.
        ("checkpoint", "9a50e077521711090c389f96f0286e6c2369406d1a1a46a3b2c3d6c1350277fa"),
        ("tile/entries/000", "b50fa9fa7bb4437e796bce4d996bdea58ae4be50c1ef01b31dbb04a89e6b1b15"),
        ("tile/0/000", "887cbdc9a6009f83afa89d16f50f03d47fe877e2c4c1be95563d555420b31787"),
        ("tile/1/000.p/1", "02bfb8120e005095b002f87de540bd09d7eab3feaca82bacc6bd5b3a762700ec"),
    ] {
        assert_eq!(sha256(&store, path), hash, "{path}");
    }
    let names: Vec<_> = store.contents().into_keys().collect();
    assert_eq!(
        names,
        [
            "acked",
            "checkpoint",
            "journal",
            "tile/0/000",
            "tile/0/001.p/44",
            "tile/1/000.p/1",
            "tile/entries/000",
            "tile/entries/001.p/44"
        ]
    );
    assert_eq!(key().vkey(&Origin::parse(NAME).unwrap()).to_string(), VKEY);
}

#[test]
fn the_files_do_not_depend_on_when_checkpoints_were_made() {
    let often: Vec<_> = (0..=300).collect();
    let (once, often) = (build(&[300]).contents(), build(&often).contents());
    for (path, bytes) in once {
        assert_eq!(often.get(&path), Some(&bytes), "{path}");
    }
    let extra: Vec<_> = often.keys().filter(|path| path.contains(".p/43")).collect();
    assert_eq!(
        extra,
        ["tile/0/001.p/43", "tile/entries/001.p/43"],
        "the checkpoint before is kept, older ones go"
    );
    assert_eq!(often.len(), 10);
}

#[test]
fn proofs_and_witness_are_the_vector_s() {
    let store = build(&[100, 300]);
    let vkeys = [Vkey::parse(VKEY).unwrap(), Vkey::parse(WITNESS_VKEY).unwrap()];
    let inclusion = proof::prove_on(&store, 150).unwrap();
    assert_eq!(inclusion.proof, format!("c2sp.org/tlog-proof@v1\nindex 150\n{INCLUSION_150}\n{CHECKPOINT}"));
    let included = proof::check(inclusion.proof.as_bytes(), &inclusion.entry, &vkeys).unwrap();
    assert_eq!(included.index, 150);
    let young = proof::prove_on(&store, u64::MAX).unwrap_err();
    assert_eq!(young.code(), caps::Code::Range);
    assert!(young.detail().starts_with("entry 18446744073709551615 is not among the "), "{young}");
    assert!(proof::check(inclusion.proof.as_bytes(), &inclusion.entry[1..], &vkeys).is_err());
    let extra = inclusion.proof.replacen("index", "extra aGVsbG8=\nindex", 1);
    assert!(proof::check(extra.as_bytes(), &inclusion.entry, &vkeys).is_ok());
    for (from, to) in
        [("index 150", "index 151"), ("index 150", "index 0150"), ("@v1", "@v2"), ("Yu69", "Yu68")]
    {
        let bad = inclusion.proof.replacen(from, to, 1);
        assert!(proof::check(bad.as_bytes(), &inclusion.entry, &vkeys).is_err(), "{to}");
    }

    let consistency = format!("old 100\n{CONSISTENCY_100}\n{CHECKPOINT}");
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in store.contents() {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(proof::prove_consistency(dir.path(), 100).unwrap(), consistency);
    let root = Hash::from_base64(ROOT_100).unwrap();
    let identity = Identity::new(Origin::parse(NAME).unwrap(), key());
    let old = identity.sign(100, root);
    proof::check_consistency(old.as_bytes(), consistency.as_bytes(), &vkeys).unwrap();
    let forked = identity.sign(100, Hash::ZERO);
    let error = proof::check_consistency(forked.as_bytes(), consistency.as_bytes(), &vkeys).unwrap_err();
    assert_eq!(error.code(), caps::Code::Fork);

    let note = format!("{CHECKPOINT}{WITNESS}");
    let signed = Note::parse(note.as_bytes()).unwrap().verify(&vkeys).unwrap();
    assert_eq!(signed.witnesses(), [(WITNESS_VKEY.to_owned(), 1_795_168_800)]);
    let later = note.replacen("015EigAAAABr", "015EigAAAABs", 1);
    assert!(Note::parse(later.as_bytes()).unwrap().verify(&vkeys).is_err(), "the time is signed");
    assert!(Note::parse(WITNESS.as_bytes()).is_err());
}

#[test]
fn the_vector_verifies_and_a_full_tile_serves_for_a_partial_one() {
    let store = build(&[300]);
    let options = verify::Options { vkeys: vec![Vkey::parse(VKEY).unwrap()], against: Vec::new() };
    let summary = verify::log(&store, &options).unwrap();
    assert_eq!((summary.signed.checkpoint().size, summary.unsigned, summary.torn_bytes), (300, 0, 0));
    // Only the standard's files: what a copy fetched from a server has.
    store.tamper("journal", None);
    store.tamper("acked", None);
    verify::log(&store, &options).unwrap();
    // A log that grew, of which an old checkpoint is presented: its partial tiles may be gone.
    let grown = build(&[300, 512]);
    let old = store.read("checkpoint", 1 << 16).unwrap().unwrap();
    grown.put(&[("checkpoint".to_owned(), old)]).unwrap();
    for path in ["tile/0/001.p/44", "tile/entries/001.p/44", "acked", "journal", "tile/1/000.p/2"] {
        grown.tamper(path, None);
    }
    let error = verify::log(&grown, &options).unwrap_err();
    assert!(error.detail.contains("neither signed nor in the journal"), "{error}");
    assert_eq!(error.index, Some(300), "everything up to there was accepted");
}
