//! Whoever changes a file of the log is found out, with the file's name and the entry's index.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use audit::hash::Hash;
use audit::journal::record;
use audit::key::{LogKey, Origin};
use audit::log::Log;
use audit::note::Checkpoint;
use audit::store::memory::Memory;
use audit::tile::{Kind, TILE_WIDTH, Tile};
use audit::tree::{Tree, tile_bytes};
use audit::verify::{self, Damage, Options, verify_dir, verify_dir_with};
use audit::{Draft, Event};
use caps::error::Code;
use common::{draft, export, grow, key, open, options, origin, time, vkeys};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

type FilesOf = BTreeMap<String, Vec<u8>>;

/// A log with full and partial tiles, partial tiles of the checkpoint before, and an unsigned tail.
fn sample() -> Memory {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    for n in [200, 60, 50] {
        grow(&mut log, n).unwrap();
        log.publish().unwrap();
    }
    grow(&mut log, 9).unwrap();
    store
}

/// One way to change some bytes.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    Flip(u8),
    Insert(u8),
    Delete,
    Truncate,
}

fn mutate(bytes: &mut Vec<u8>, at: usize, mutation: Mutation) {
    match mutation {
        Mutation::Flip(bit) => bytes[at] ^= 1 << (bit % 8),
        Mutation::Insert(byte) => bytes.insert(at, byte),
        Mutation::Delete => {
            bytes.remove(at);
        }
        Mutation::Truncate => bytes.truncate(at),
    }
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => any::<u8>().prop_map(Mutation::Flip),
        2 => any::<u8>().prop_map(Mutation::Insert),
        2 => Just(Mutation::Delete),
        1 => Just(Mutation::Truncate),
    ]
}

#[test]
fn thousands_of_single_mutations_are_refused_and_named() {
    let store = sample();
    let files = store.contents();
    common::verified(&store, 319);
    let paths: Vec<_> =
        files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path.clone()).collect();
    assert_eq!(paths.len(), 10, "{paths:?}");
    let mut runner = TestRunner::new(Config { cases: 4_000, ..Config::default() });
    let strategy = (prop::sample::select(paths), any::<prop::sample::Index>(), any_mutation());
    runner
        .run(&strategy, |(path, at, mutation)| {
            let mut bytes = files[&path].clone();
            let at = at.index(bytes.len());
            mutate(&mut bytes, at, mutation);
            store.tamper(&path, Some(bytes));
            let outcome = verify::log(&store, &options());
            store.tamper(&path, Some(files[&path].clone()));
            let damage = outcome.expect_err("a changed file was accepted");
            // The journal's tail is unsigned: what is missing there is named by the mark or the journal.
            let named = damage.file == path || (path == "journal" && damage.file == "acked");
            // A changed hash can make its neighbour in the tree look wrong: same level or entry, same place.
            prop_assert!(named || path.starts_with("tile/"), "{path} was changed at {at}, and {damage}");
            let indexed = damage.index.is_some() || ["checkpoint", "acked"].contains(&&damage.file[..]);
            prop_assert!(indexed, "{damage}");
            Ok(())
        })
        .unwrap();
    common::verified(&store, 319);
}

#[test]
fn a_flipped_entry_or_hash_is_named_exactly() {
    let store = sample();
    let files = store.contents();
    let check = |path: &str, at: usize, code: Code, index: u64| {
        let mut bytes = files[path].clone();
        bytes[at] ^= 1;
        store.tamper(path, Some(bytes));
        let damage = verify::log(&store, &options()).unwrap_err();
        assert_eq!((damage.code, &damage.file[..], damage.index), (code, path, Some(index)), "{damage}");
        store.tamper(path, Some(files[path].clone()));
    };
    // Where each entry of the first bundle begins.
    let (mut rest, mut starts) = (&files["tile/entries/000"][..], Vec::new());
    while let Some((_, after)) = record(rest) {
        starts.push(files["tile/entries/000"].len() - rest.len());
        rest = after;
    }
    check("tile/entries/000", starts[0] + 20, Code::AuditEntry, 0);
    check("tile/entries/000", starts[77] + 20, Code::AuditEntry, 77);
    check("tile/0/000", 77 * 32 + 5, Code::TileMismatch, 77);
    check("tile/0/001.p/54", 3 * 32, Code::TileMismatch, 259);
    check("tile/1/000.p/1", 0, Code::TileMismatch, 0);
    check("journal", 30, Code::AuditEntry, 310);
    check("tile/0/001.p/4", 2 * 32, Code::TileMismatch, 258);
}

#[test]
fn every_missing_file_is_named() {
    let store = sample();
    let files = store.contents();
    let kept_for_readers = ["tile/0/001.p/4", "tile/entries/001.p/4"];
    for (path, bytes) in &files {
        // A mark that is not there knows nothing; partial tiles of an older checkpoint may go.
        if path == "acked" || kept_for_readers.contains(&&path[..]) {
            continue;
        }
        store.tamper(path, None);
        let damage = verify::log(&store, &options()).unwrap_err();
        assert_eq!((damage.code, &damage.file), (Code::AuditFile, path), "{damage}");
        store.tamper(path, Some(bytes.clone()));
    }
    store.tamper("tile/0/hidden", Some(vec![1]));
    assert_eq!(verify::log(&store, &options()).unwrap_err().file, "tile/0/hidden");
}

/// The entries of a log, in order.
fn entries(files: &FilesOf, size: u64) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for number in 0..size.div_ceil(TILE_WIDTH) {
        let tile = Tile::of(Kind::Entries, number * TILE_WIDTH, size).unwrap();
        let mut rest = &files[&tile.path()][..];
        while let Some((entry, after)) = record(rest) {
            found.push(entry.to_vec());
            rest = after;
        }
    }
    found
}

/// All bundles and tiles of these entries.
fn rebuilt(entries: &[Vec<u8>]) -> FilesOf {
    let (mut files, mut tree) = (FilesOf::new(), Tree::new());
    for entry in entries {
        tree.push(Hash::leaf(entry), |full| {
            files.insert(full.tile.path(), tile_bytes(&full.hashes));
        });
    }
    for tile in Tile::partials(tree.size()) {
        if let Kind::Hashes(level) = tile.kind {
            files.insert(tile.path(), tile_bytes(tree.edge(level.into())));
        }
    }
    for (number, bundle) in entries.chunks(TILE_WIDTH as usize).enumerate() {
        let tile = Tile { kind: Kind::Entries, number: number as u64, width: bundle.len() as u16 };
        let records = bundle.iter().flat_map(|e| [&(e.len() as u16).to_be_bytes()[..], &e[..]].concat());
        files.insert(tile.path(), records.collect());
    }
    files
}

fn verify_files(files: &FilesOf, options: &Options) -> Result<verify::Summary, Damage> {
    let store = Memory::new();
    for (path, bytes) in files {
        store.tamper(path, Some(bytes.clone()));
    }
    verify::log(&store, options)
}

#[test]
fn a_consistent_rebuild_under_the_old_checkpoint_is_found() {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    grow(&mut log, 300).unwrap();
    log.publish().unwrap();
    let files = store.contents();
    let good = entries(&files, 300);
    let with = |entries: &[Vec<u8>]| {
        let mut all = rebuilt(entries);
        all.insert("checkpoint".into(), files["checkpoint"].clone());
        verify_files(&all, &options())
    };
    with(&good).unwrap();
    let mut swapped = good.clone();
    swapped.swap(40, 41);
    let mut repeated = good.clone();
    repeated[41] = repeated[40].clone();
    let mut removed = good.clone();
    removed.remove(40);
    removed.push(good[299].clone());
    for (name, changed, index) in
        [("swapped", swapped, 40), ("repeated", repeated, 41), ("removed", removed, 40)]
    {
        let damage = with(&changed).unwrap_err();
        assert_eq!(damage.code, Code::RootMismatch, "{name}: {damage}");
        assert_eq!(damage.index, Some(index), "{name}: {damage}");
    }
    // Fewer entries than were signed.
    let mut fewer = good.clone();
    fewer.remove(40);
    assert_eq!(with(&fewer).unwrap_err().code, Code::AuditFile);
    // Every hash of the changed history is right, and `prev` and `seq` too.
    let other = Memory::new();
    let mut log = open(&other).unwrap();
    log.append(&draft(1_000), time(0)).unwrap();
    grow(&mut log, 299).unwrap();
    log.publish().unwrap();
    let mut all = other.contents();
    all.insert("checkpoint".into(), files["checkpoint"].clone());
    let damage = verify_files(&all, &options()).unwrap_err();
    assert_eq!((damage.code, &damage.file[..]), (Code::RootMismatch, "checkpoint"), "{damage}");
    // Signed again with the stolen key: an older checkpoint that somebody kept shows it.
    let mut against = options();
    against.against.push(files["checkpoint"].clone());
    assert_eq!(verify_files(&other.contents(), &options()).unwrap().signed.checkpoint().size, 300);
    assert_eq!(verify_files(&other.contents(), &against).unwrap_err().code, Code::Fork);
    verify_files(&files, &against).unwrap();
}

#[test]
fn a_signed_entry_that_is_none_is_named() {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    grow(&mut log, 20).unwrap();
    log.publish().unwrap();
    let mut bad = entries(&store.contents(), 20);
    bad[13] = b"{ }".to_vec();
    let mut all = rebuilt(&bad);
    let mut tree = Tree::new();
    bad.iter().for_each(|entry| tree.push(Hash::leaf(entry), |_| ()));
    let note = Checkpoint { origin: origin(), size: 20, root: tree.root() }.sign([&key()]);
    all.insert("checkpoint".into(), note.into_bytes());
    let damage = verify_files(&all, &options()).unwrap_err();
    assert_eq!((damage.code, damage.index), (Code::AuditEntry, Some(13)), "{damage}");
}

#[test]
fn checkpoints_of_others_are_refused() {
    let store = sample();
    let code = |note: String| {
        store.tamper("checkpoint", Some(note.into_bytes()));
        verify::log(&store, &options()).unwrap_err().code
    };
    let elsewhere = Origin::parse("other.example/audit").unwrap();
    let checkpoint = |origin: Origin| Checkpoint { origin, size: 310, root: Hash::ZERO };
    let other = LogKey::from_seed(&[8; 32]);
    assert_eq!(code(checkpoint(elsewhere).sign([&key()])), Code::CheckpointUnsigned);
    assert_eq!(code(checkpoint(origin()).sign([&other])), Code::CheckpointUnsigned, "other key, same name");
    assert_eq!(code(checkpoint(origin()).sign([])), Code::CheckpointBody, "no signature at all");
    let extended = checkpoint(origin()).sign([&key()]).replacen("\n\n", "\nextension\n\n", 1);
    assert_eq!(code(extended), Code::CheckpointBody);
    let huge = Checkpoint { origin: origin(), size: u64::MAX >> 1, root: Hash::ZERO }.sign([&key()]);
    assert_eq!(code(huge), Code::AuditFile, "no loop over entries that are not there");
}

fn two_logs(dir: &Path) -> [audit::Vkey; 2] {
    let provider = Origin::parse("test.example/audit/provider-1").unwrap();
    let keys = [key().vkey(&origin()), key().vkey(&provider)];
    std::fs::create_dir_all(dir.join("audit")).unwrap();
    for (name, origin) in [("broker", origin()), ("provider-1", provider)] {
        let mut log = Log::open(&dir.join("audit").join(name), origin, key()).unwrap();
        grow(&mut log, 300).unwrap();
        log.publish().unwrap();
        grow(&mut log, 2).unwrap();
    }
    keys
}

#[test]
fn every_log_below_a_directory_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let keys = two_logs(dir.path());
    let report = verify_dir(dir.path(), &keys).unwrap();
    assert_eq!(report.damage(), None);
    let paths: Vec<_> = report.logs.iter().map(|log| &log.path[..]).collect();
    assert_eq!(paths, ["audit/broker", "audit/provider-1"]);
    assert_eq!(report.logs[0].outcome.as_ref().unwrap().unsigned, 2);
    assert_eq!(verify_dir(&dir.path().join("audit/broker"), &keys).unwrap().damage(), None, "one log alone");
    // One key is not enough for two logs.
    let report = verify_dir(dir.path(), &keys[..1]).unwrap();
    let (path, damage) = report.damage().unwrap();
    assert_eq!((path, damage.code), ("audit/provider-1", Code::CheckpointUnsigned));
    assert!(report.logs[0].outcome.is_ok(), "the rest still verifies");
    // A log of a given key is gone.
    std::fs::remove_dir_all(dir.path().join("audit/provider-1")).unwrap();
    let report = verify_dir(dir.path(), &keys).unwrap();
    assert_eq!(report.damage().unwrap().1.code, Code::AuditFile);
    assert_eq!(verify_dir(&dir.path().join("none"), &keys).unwrap_err().code(), Code::ConfigIo);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify_dir(empty.path(), &keys).unwrap_err().code(), Code::AuditFile);
}

#[test]
fn mutations_of_a_real_directory_are_refused_by_the_verifier_and_by_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    export(&sample(), &dir);
    assert_eq!(verify_dir(&dir, &vkeys()).unwrap().damage(), None);
    let files = sample().contents();
    let paths: Vec<_> =
        files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path.clone()).collect();
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let strategy = (prop::sample::select(paths), any::<prop::sample::Index>(), any_mutation());
    runner
        .run(&strategy, |(path, at, mutation)| {
            let mut bytes = files[&path].clone();
            let at = at.index(bytes.len());
            mutate(&mut bytes, at, mutation);
            std::fs::write(dir.join(&path), bytes).unwrap();
            let report = verify_dir_with(&dir, &options()).unwrap();
            let opened = Log::open(&dir, origin(), key());
            std::fs::write(dir.join(&path), &files[&path]).unwrap();
            prop_assert!(report.damage().is_some(), "{path} at {at}");
            let error = opened.err().expect("the node started on a changed log");
            prop_assert_eq!(error.code().blame(), caps::Blame::Tampering);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_log_can_be_verified_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Log::open(&path, origin(), key()).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.try_recv().is_err() {
            for n in [1, 40, 300] {
                for i in 0..n {
                    log.append(&Draft::ok(Event::LeaseOpen).count(i), time(i)).unwrap();
                }
                log.sync().unwrap();
            }
            log.publish().unwrap();
            if log.size() > 20_000 {
                break;
            }
        }
        log.size()
    });
    let mut largest = 0;
    for _ in 0..40 {
        let report = verify_dir(&path, &vkeys()).unwrap();
        assert_eq!(report.damage(), None);
        let summary = report.logs[0].outcome.as_ref().unwrap();
        largest = largest.max(summary.signed.checkpoint().size + summary.unsigned);
    }
    drop(stop);
    let size = writer.join().unwrap();
    assert!(largest > 0 && largest <= size);
    assert_eq!(verify_dir(&path, &vkeys()).unwrap().damage(), None);
}
