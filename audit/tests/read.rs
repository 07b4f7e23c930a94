//! Reading and following.

mod common;

use std::time::Duration;

use audit::Log;
use audit::read::{Reader, entries};
use common::{draft, grow, key, origin, time};

#[test]
fn every_entry_is_read_once_from_bundles_and_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), origin(), key()).unwrap();
    grow(&mut log, 600).unwrap();
    log.publish().unwrap();
    grow(&mut log, 25).unwrap();
    for from in [0, 1, 255, 256, 511, 599, 600, 610, 625, 1_000] {
        let read: Vec<_> = entries(dir.path(), from).unwrap().map(Result::unwrap).collect();
        let indexes: Vec<_> = read.iter().map(|stored| stored.index).collect();
        assert_eq!(indexes, (from..625).collect::<Vec<_>>(), "from {from}");
        for stored in &read {
            assert_eq!(stored.entry().unwrap().time(), time(stored.index));
        }
    }
    assert_eq!(Reader::open(dir.path(), 0).unwrap().size().unwrap(), 625);
}

#[test]
fn what_was_not_acknowledged_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), origin(), key()).unwrap();
    grow(&mut log, 3).unwrap();
    // Bytes of a write that is under way.
    let journal = std::fs::read(dir.path().join("journal")).unwrap();
    let acked = std::fs::read(dir.path().join("acked")).unwrap();
    grow(&mut log, 2).unwrap();
    std::fs::write(dir.path().join("acked"), acked).unwrap();
    assert!(std::fs::read(dir.path().join("journal")).unwrap().len() > journal.len());
    assert_eq!(entries(dir.path(), 0).unwrap().count(), 3);
}

#[test]
fn a_follower_sees_every_entry_of_a_log_that_is_written_and_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut log = Log::open(&path, origin(), key()).unwrap();
    let total = 1_500;
    let follower = std::thread::spawn(move || {
        let mut reader = Reader::open(&path, 0).unwrap();
        let mut seen = Vec::new();
        while (seen.len() as u64) < total {
            let batch = reader.batch().unwrap();
            if batch.is_empty() {
                reader.wait(Duration::from_secs(60)).unwrap();
            }
            seen.extend(batch.into_iter().map(|stored| stored.entry().unwrap().seq()));
        }
        seen
    });
    let mut next = 0;
    while log.size() < total {
        log.append(&draft(next), time(next)).unwrap();
        log.sync().unwrap();
        next += 1;
        if next % 97 == 0 {
            log.publish().unwrap();
        }
    }
    assert_eq!(follower.join().unwrap(), (0..total).collect::<Vec<_>>());
}

#[test]
fn damage_is_an_error_not_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), origin(), key()).unwrap();
    grow(&mut log, 300).unwrap();
    log.publish().unwrap();
    drop(log);
    let bundle = dir.path().join("tile/entries/001.p/44");
    let bytes = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, &bytes[..bytes.len() - 1]).unwrap();
    let read: Vec<_> = entries(dir.path(), 0).unwrap().collect();
    assert!(read.last().unwrap().is_err());
    std::fs::remove_file(&bundle).unwrap();
    assert!(entries(dir.path(), 0).unwrap().last().unwrap().is_err());
    std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
    assert!(Reader::open(dir.path(), 0).unwrap().batch().is_err());
}
