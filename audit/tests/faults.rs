//! Each write of a log's life fails once, in each way; then the log is opened again.
//!
//! The rule for every row: what was acknowledged is there, what was not may or may not be, and the log goes on.

mod common;

use std::sync::Arc;

use audit::log::Log;
use audit::recover::Opening;
use audit::store::memory::{Fault, Memory, Survivors};
use caps::error::Code;
use common::{draft, grow, identity, open, time, verified};

const FAULTS: [Fault; 4] = [Fault::NotStored, Fault::Stored, Fault::Half, Fault::Crash];
const SURVIVORS: [Survivors; 6] = [
    Survivors::None,
    Survivors::All,
    Survivors::Prefix(1),
    Survivors::Prefix(300),
    Survivors::Hole(100),
    Survivors::Hole(1_000),
];

/// A life: opened, three commits, a checkpoint, more commits, a checkpoint across a tile's border. Returns how many
/// entries were acknowledged before something failed.
fn live(store: &Memory) -> (u64, bool) {
    let Ok(mut log) = open(store) else { return (0, true) };
    let mut acknowledged = log.durable();
    let steps: [(u64, bool); 7] =
        [(1, false), (5, false), (250, true), (3, false), (0, true), (20, true), (2, false)];
    for (entries, publish) in steps {
        let outcome = grow(&mut log, entries).and_then(|()| if publish { log.publish() } else { Ok(()) });
        acknowledged = log.durable();
        if let Err(error) = outcome {
            assert_eq!(error.code(), Code::AuditUnavailable);
            // Lost is lost: nothing works on it any more, and nothing more is acknowledged.
            assert_eq!(log.append(&draft(0), time(0)).unwrap_err().code(), Code::AuditUnavailable);
            assert!(log.sync().is_err() && log.publish().is_err());
            assert_eq!(log.durable(), acknowledged);
            return (acknowledged, true);
        }
    }
    (acknowledged, false)
}

/// How many writing calls a life has when nothing fails.
fn calls() -> u64 {
    let store = Memory::new();
    assert_eq!(live(&store), (281, false));
    store.calls()
}

#[test]
fn every_write_fails_in_every_way_and_the_next_opening_goes_on() {
    let calls = calls();
    assert!(calls > 25, "the table would be short: {calls}");
    for call in 0..calls {
        for fault in FAULTS {
            for survivors in SURVIVORS {
                let row = format!("call {call}, {fault:?}, {survivors:?}");
                let store = Memory::new();
                store.fail(call, fault);
                let (acknowledged, failed) = live(&store);
                assert!(failed, "{row}: a failed write was not noticed");
                store.crash(survivors);
                if store.contents().contains_key("checkpoint") {
                    // What a crash leaves is no damage, before recovery as after it.
                    let summary = audit::verify::log(&store, &common::options());
                    let summary = summary.unwrap_or_else(|damage| panic!("{row}: {damage}"));
                    assert!(summary.signed.checkpoint().size + summary.unsigned >= acknowledged, "{row}");
                }
                let mut log = open(&store).unwrap_or_else(|error| panic!("{row}: {error}"));
                assert!(log.size() >= acknowledged, "{row}: lost {} of {acknowledged}", log.size());
                assert_eq!(log.published(), log.size(), "{row}: recovery publishes");
                grow(&mut log, 3).unwrap_or_else(|error| panic!("{row}: {error}"));
                log.publish().unwrap_or_else(|error| panic!("{row}: {error}"));
                verified(&store, log.size());
            }
        }
    }
}

/// The process lives on after the failure and knows what it has acknowledged: the rest is cut.
#[test]
fn every_write_fails_and_the_same_process_opens_again() {
    for call in 0..calls() {
        for fault in [Fault::NotStored, Fault::Stored, Fault::Half] {
            let row = format!("call {call}, {fault:?}");
            let store = Memory::new();
            store.fail(call, fault);
            let (acknowledged, failed) = live(&store);
            assert!(failed, "{row}");
            let opening = Opening { verify_all: false, acknowledged: Some(acknowledged) };
            let mut log = Log::open_on(Arc::new(store.reopen()), Arc::new(identity()), opening)
                .unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(log.size(), acknowledged, "{row}: what was answered with an error is not there");
            grow(&mut log, 2).unwrap();
            // A power cut right after: what the reopened log acknowledged is on the device, not in a cache.
            store.crash(Survivors::None);
            let log = open(&store).unwrap_or_else(|error| panic!("{row}: {error}"));
            assert_eq!(log.size(), acknowledged + 2, "{row}");
            verified(&store, log.size());
        }
    }
}

/// A crash within recovery itself, at each of its writes.
#[test]
fn recovery_fails_at_each_write_and_is_repeated() {
    let prepare = || {
        let store = Memory::new();
        let mut log = open(&store).unwrap();
        grow(&mut log, 200).unwrap();
        log.publish().unwrap();
        grow(&mut log, 80).unwrap();
        store.fail(0, Fault::Crash); // the append of what follows: half of it is written
        let _ = grow(&mut log, 10);
        store.crash(Survivors::All);
        store
    };
    let store = prepare();
    let before = store.calls();
    let log = open(&store).unwrap();
    let recovered = log.size();
    assert!(recovered >= 280 && log.recovery().cut_bytes > 0, "{:?}", log.recovery());
    assert_eq!(log.recovery().recovered, recovered - 200);
    for call in 0..store.calls() - before {
        for fault in FAULTS {
            for survivors in [Survivors::None, Survivors::All] {
                let store = prepare();
                store.fail(call, fault);
                assert!(open(&store).is_err(), "call {call}, {fault:?}");
                store.crash(survivors);
                let log = open(&store).unwrap_or_else(|error| panic!("call {call}, {fault:?}: {error}"));
                assert_eq!(log.size(), recovered, "call {call}, {fault:?}");
                verified(&store, recovered);
            }
        }
    }
}

#[test]
fn a_torn_tail_that_was_acknowledged_is_a_rollback() {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    grow(&mut log, 5).unwrap();
    grow(&mut log, 5).unwrap();
    let journal = store.contents().remove("journal").unwrap();
    for cut in [journal.len() - 1, journal.len() / 2, 1, 0] {
        store.tamper("journal", Some(journal[..cut].to_vec()));
        let error = open(&store).err().unwrap();
        assert_eq!(error.code(), Code::AuditRollback, "cut at {cut}: {error}");
    }
    let mut hole = journal.clone();
    hole[journal.len() - 50..].fill(0);
    store.tamper("journal", Some(hole));
    assert_eq!(open(&store).err().unwrap().code(), Code::AuditRollback);
    store.tamper("journal", None);
    assert_eq!(open(&store).err().unwrap().code(), Code::AuditFile);
    store.tamper("journal", Some(journal));
    assert_eq!(open(&store).unwrap().size(), 10);
}

#[test]
fn yesterday_s_copy_is_a_rollback() {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    grow(&mut log, 20).unwrap();
    log.publish().unwrap();
    let yesterday = store.contents();
    grow(&mut log, 300).unwrap();
    log.publish().unwrap();
    let today = store.contents();
    // Everything but the mark.
    for path in today.keys().filter(|path| *path != "acked") {
        store.tamper(path, yesterday.get(path).cloned());
    }
    assert_eq!(open(&store).err().unwrap().code(), Code::AuditRollback);
    // The mark too: only a checkpoint kept elsewhere can tell.
    store.tamper("acked", yesterday.get("acked").cloned());
    let mut options = common::options();
    options.against.push(today["checkpoint"].clone());
    let damage = audit::verify::log(&store, &options).unwrap_err();
    assert_eq!(damage.code, Code::AuditRollback, "{damage}");
    // And a process that knows what it acknowledged.
    let opening = Opening { verify_all: false, acknowledged: Some(320) };
    let error = Log::open_on(Arc::new(store.reopen()), Arc::new(identity()), opening).err().unwrap();
    assert_eq!(error.code(), Code::AuditRollback);
    // Without a checkpoint at all.
    store.tamper("checkpoint", None);
    assert_eq!(open(&store).err().unwrap().code(), Code::AuditRollback);
}

#[test]
fn another_writer_s_checkpoint_is_not_overwritten() {
    let store = Memory::new();
    let mut log = open(&store).unwrap();
    grow(&mut log, 5).unwrap();
    log.publish().unwrap();
    grow(&mut log, 5).unwrap();
    let other = Memory::new();
    let mut second = open(&other).unwrap();
    second.append(&draft(99), time(99)).unwrap();
    second.publish().unwrap();
    let theirs = other.contents()["checkpoint"].clone();
    store.tamper("checkpoint", Some(theirs.clone()));
    assert_eq!(log.publish().unwrap_err().code(), Code::Fork);
    assert_eq!(store.contents()["checkpoint"], theirs);
    // An auditor with both checkpoints has the proof of two histories.
    let mut options = common::options();
    options.against.push(theirs);
    let first = Memory::new();
    let mut log = open(&first).unwrap();
    grow(&mut log, 5).unwrap();
    log.publish().unwrap();
    assert_eq!(audit::verify::log(&first, &options).unwrap_err().code, Code::Fork);
}
