//! The recorder under load, under failure, and at its end.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use audit::entry::Entry;
use audit::journal::{MARK_BYTES, record};
use audit::recorder::{Clock, Done, Recorded, Recorder, Settings};
use audit::store::memory::{Fault, Memory, Survivors};
use audit::store::{Files, Listed, Store};
use audit::tile::{Kind, TILE_WIDTH, Tile};
use audit::{Draft, Event};
use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;
use common::{draft, identity, options, time};

fn clock() -> Clock {
    let ticks = AtomicU64::new(0);
    Arc::new(move || UnixMicros(time(0).0 + ticks.fetch_add(1, Ordering::Relaxed)))
}

/// A device with a gate before each sync, so that tests decide when a sync goes on.
#[derive(Clone)]
struct Gated {
    memory: Memory,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: u64,
}

impl Gated {
    fn new(memory: Memory) -> Self {
        Self { memory, gate: Arc::default() }
    }

    fn shut(&self, shut: bool) {
        self.gate.0.lock().unwrap().shut = shut;
        self.gate.1.notify_all();
    }

    /// Waits until a sync stands before the gate.
    fn caught(&self) {
        drop(self.gate.1.wait_while(self.gate.0.lock().unwrap(), |gate| gate.waiting == 0).unwrap());
    }
}

impl Files for Gated {
    fn read(&self, path: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        self.memory.read(path, max)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Listed>> {
        self.memory.list(path)
    }
}

impl Store for Gated {
    fn put(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        self.memory.put(files)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.memory.remove(path)
    }

    fn journal_append(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.journal_append(at, bytes)
    }

    fn journal_sync(&self, length: u64) -> io::Result<()> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.waiting += 1;
        self.gate.1.notify_all();
        gate = self.gate.1.wait_while(gate, |gate| gate.shut).unwrap();
        gate.waiting -= 1;
        drop(gate);
        self.memory.journal_sync(length)
    }

    fn journal_replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.memory.journal_replace(bytes)
    }

    fn mark(&self, mark: &[u8; MARK_BYTES]) -> io::Result<()> {
        self.memory.mark(mark)
    }
}

/// A recorder that blames no device for a busy machine, and does not wait where tests would.
fn start(device: &Gated) -> Recorder {
    let settings = Settings {
        device_max: Duration::from_secs(3_600),
        publish_max: Duration::from_secs(3_600),
        checkpoint: Duration::from_millis(50),
        reopen: Duration::from_millis(20),
    };
    start_with(device, settings)
}

fn start_with(device: &Gated, settings: Settings) -> Recorder {
    let device = device.clone();
    let opener = Box::new(move || {
        Ok(Arc::new(Gated { memory: device.memory.reopen(), gate: Arc::clone(&device.gate) })
            as Arc<dyn Store>)
    });
    Recorder::start(opener, identity(), clock(), settings).unwrap()
}

/// A callback and where its answer arrives.
fn answer() -> (Done, Receiver<Result<Recorded>>) {
    let (sender, receiver) = channel();
    (Box::new(move |outcome| sender.send(outcome).unwrap()), receiver)
}

fn submit(recorder: &Recorder, n: u64) -> Result<Receiver<Result<Recorded>>> {
    let (done, receiver) = answer();
    recorder.submit(vec![draft(n)], time(n), done)?;
    Ok(receiver)
}

/// Waits for an answer that must be good.
fn good(receiver: &Receiver<Result<Recorded>>) {
    let _recorded = receiver.recv().unwrap().unwrap();
}

/// Waits for a condition that another thread will bring about.
fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Every entry of the log, in order, as text.
fn all(store: &Memory) -> Vec<String> {
    let summary = audit::verify::log(store, &options()).unwrap();
    let files: BTreeMap<_, _> = store.contents();
    let size = summary.signed.checkpoint().size;
    let mut found = Vec::new();
    for number in 0..size.div_ceil(TILE_WIDTH) {
        let tile = Tile::of(Kind::Entries, number * TILE_WIDTH, size).unwrap();
        let mut rest = &files[&tile.path()][..];
        while let Some((entry, after)) = record(rest) {
            found.push(String::from_utf8(entry.to_vec()).unwrap());
            rest = after;
        }
    }
    found
}

fn events(store: &Memory) -> Vec<Event> {
    all(store).iter().map(|text| Entry::parse(text.as_bytes()).unwrap().event()).collect()
}

#[test]
fn many_threads_each_get_their_own_places() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    let taken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (recorder, taken) = (&recorder, &taken);
            scope.spawn(move || {
                for n in 0..100 {
                    let (done, receiver) = answer();
                    let drafts =
                        vec![Draft::ok(Event::LeaseOpen).count(thread * 1_000 + n); 1 + (n % 3) as usize];
                    recorder.submit(drafts, time(n), done).unwrap();
                    let recorded = receiver.recv().unwrap().unwrap();
                    assert_eq!(recorded.last() - recorded.first(), n % 3);
                    taken.lock().unwrap().push((recorded.first(), recorded.last(), thread * 1_000 + n));
                }
            });
        }
    });
    recorder.shutdown().unwrap();
    recorder.shutdown().unwrap();
    let entries = all(&device.memory);
    let mut covered = 0;
    for (first, last, count) in taken.into_inner().unwrap() {
        for index in first..=last {
            assert!(entries[index as usize].contains(&format!("\"count\":\"{count}\"")));
            covered += 1;
        }
    }
    assert_eq!(entries.len(), covered + 2);
    let events = events(&device.memory);
    assert_eq!((events[0], *events.last().unwrap()), (Event::LogStart, Event::LogStop));
    assert_eq!(submit(&recorder, 0).err().unwrap().code(), Code::AuditUnavailable);
}

#[test]
fn one_sync_serves_all_that_gathered() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    device.shut(true);
    let first = submit(&recorder, 0).unwrap();
    device.caught();
    let rest: Vec<_> = (1..500).map(|n| submit(&recorder, n).unwrap()).collect();
    device.shut(false);
    good(&first);
    for (n, receiver) in rest.into_iter().enumerate() {
        assert_eq!(receiver.recv().unwrap().unwrap().first(), n as u64 + 2);
    }
    assert_eq!(recorder.status().syncs, 2);
}

#[test]
fn a_full_queue_is_busy_and_refuses_only_what_can_be_refused() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    device.shut(true);
    let first = submit(&recorder, 0).unwrap();
    device.caught();
    let chunk = || vec![draft(1); audit::recorder::BATCH_ENTRIES_MAX];
    let mut receivers = Vec::new();
    for _ in 0..audit::recorder::QUEUE_ENTRIES_MAX / audit::recorder::BATCH_ENTRIES_MAX {
        let (done, receiver) = answer();
        recorder.submit(chunk(), time(1), done).unwrap();
        receivers.push(receiver);
    }
    assert_eq!(submit(&recorder, 2).err().unwrap().code(), Code::Busy);
    let (done, receiver) = answer();
    recorder.submit_regardless(vec![draft(3)], time(3), done);
    receivers.push(receiver);
    let too_many = recorder.submit(vec![draft(1); 5_000], time(1), Box::new(|_| panic!("not called")));
    assert_eq!(too_many.err().unwrap().code(), Code::Range);
    assert_eq!(
        recorder.submit(Vec::new(), time(1), Box::new(|_| panic!())).err().unwrap().code(),
        Code::Range
    );
    device.shut(false);
    good(&first);
    for receiver in receivers {
        good(&receiver);
    }
    recorder.shutdown().unwrap();
    assert_eq!(all(&device.memory).len(), audit::recorder::QUEUE_ENTRIES_MAX + 4);
}

#[test]
fn a_failed_sync_answers_with_an_error_and_leaves_no_entry() {
    for fault in [Fault::NotStored, Fault::Stored, Fault::Half] {
        // The append, the sync, the mark.
        for call in 0..3 {
            let device = Gated::new(Memory::new());
            let recorder = start(&device);
            device.memory.fail(call, fault);
            let failed = submit(&recorder, 41).unwrap().recv().unwrap();
            assert_eq!(failed.unwrap_err().code(), Code::AuditUnavailable, "{fault:?} {call}");
            until(|| recorder.is_available());
            good(&submit(&recorder, 45).unwrap());
            recorder.shutdown().unwrap();
            let entries = all(&device.memory);
            let found =
                |n: u64| entries.iter().filter(|text| text.contains(&format!("\"bytes\":\"{n}\""))).count();
            assert_eq!((found(41), found(45)), (0, 1), "{fault:?} {call}");
            assert_eq!(entries.len(), 4, "{fault:?} {call}: start, gap, the second one, stop");
            assert!(
                entries[1].contains("\"count\":\"1\"") && entries[1].contains("audit.gap"),
                "{}",
                entries[1]
            );
        }
    }
}

#[test]
fn take_backs_wait_in_memory_and_follow_the_gap() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    let revoke = |n: u64| Draft::ok(Event::LeaseRevoke).mappings_closed(n);
    // The machine stops: nothing works until it comes back.
    device.memory.fail(0, Fault::Crash);
    let (done, first) = answer();
    recorder.submit_regardless(vec![revoke(1)], time(1), done);
    assert_eq!(first.recv().unwrap().unwrap_err().code(), Code::AuditUnavailable);
    until(|| !recorder.is_available());
    assert_eq!(submit(&recorder, 5).err().unwrap().code(), Code::AuditUnavailable);
    let (done, second) = answer();
    recorder.submit_regardless(vec![revoke(2), revoke(3)], time(2), done);
    assert!(second.recv().unwrap().is_err());
    let status = recorder.status();
    assert_eq!((status.held, status.refused, status.dropped), (3, 1, 0));
    assert!(status.failure.is_some());
    device.memory.crash(Survivors::None);
    until(|| recorder.is_available());
    let recorded = submit(&recorder, 6).unwrap().recv().unwrap().unwrap();
    assert_eq!(recorded.first(), 5);
    recorder.shutdown().unwrap();
    let entries = all(&device.memory);
    assert!(
        entries[1].contains("\"event\":\"audit.gap\"") && entries[1].contains("\"held\":\"3\""),
        "{}",
        entries[1]
    );
    for n in 1..=3 {
        assert!(entries[1 + n].contains(&format!("\"mappings_closed\":\"{n}\"")), "{}", entries[1 + n]);
    }
    assert_eq!(recorder.status().held, 0);
}

#[test]
fn take_backs_past_the_bound_are_counted() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    device.memory.fail(0, Fault::Crash);
    assert!(submit(&recorder, 0).unwrap().recv().unwrap().is_err());
    until(|| !recorder.is_available());
    for _ in 0..17 {
        let drafts = vec![Draft::ok(Event::LeaseExpire); 4_096];
        recorder.submit_regardless(drafts, time(1), Box::new(|outcome| drop(outcome.unwrap_err())));
    }
    let status = recorder.status();
    assert_eq!((status.held, status.dropped), (audit::recorder::HELD_ENTRIES_MAX, 4_096));
    device.memory.crash(Survivors::All);
    until(|| recorder.is_available());
    recorder.shutdown().unwrap();
    let entries = all(&device.memory);
    assert_eq!(entries.len(), audit::recorder::HELD_ENTRIES_MAX + 3);
    assert!(entries[1].contains("\"dropped\":\"4096\"") && entries[1].contains("\"held\":\"65536\""));
}

#[test]
fn a_device_that_blocks_has_failed() {
    let device = Gated::new(Memory::new());
    let recorder = start_with(&device, Settings::default());
    device.shut(true);
    let stuck = submit(&recorder, 1).unwrap();
    device.caught();
    let behind = submit(&recorder, 2).unwrap();
    let (done, revoke) = answer();
    recorder.submit_regardless(vec![Draft::ok(Event::LeaseRevoke).count(77)], time(3), done);
    // The gate is still shut: the answers come from the watchdog.
    for receiver in [stuck, behind, revoke] {
        assert_eq!(receiver.recv().unwrap().unwrap_err().code(), Code::AuditUnavailable);
    }
    assert!(!recorder.is_available());
    assert_eq!(submit(&recorder, 4).err().unwrap().code(), Code::AuditUnavailable);
    // The sync succeeds after all. Its submitter was told otherwise, so its entry must not be there.
    device.shut(false);
    until(|| recorder.is_available());
    recorder.shutdown().unwrap();
    let events = events(&device.memory);
    assert_eq!(events, [Event::LogStart, Event::AuditGap, Event::LeaseRevoke, Event::LogStop]);
}

#[test]
fn a_checkpoint_follows_without_further_submissions() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    good(&submit(&recorder, 1).unwrap());
    until(|| recorder.status().published == 2);
    let summary = audit::verify::log(&device.memory, &options()).unwrap();
    assert_eq!((summary.signed.checkpoint().size, summary.unsigned), (2, 0));
    assert!(device.memory.contents()["journal"].is_empty());
}

#[test]
fn a_publication_that_fails_loses_the_device_and_no_entry() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    // Append, sync and mark of this entry, then the tiles of its checkpoint.
    device.memory.fail(3, Fault::Half);
    good(&submit(&recorder, 1).unwrap());
    until(|| recorder.status().published >= 3);
    recorder.shutdown().unwrap();
    let events = events(&device.memory);
    assert_eq!(events.len(), 4);
    assert_eq!(events[2], Event::AuditGap);
}

#[test]
fn a_log_that_is_damaged_meanwhile_is_not_taken_up_again() {
    let device = Gated::new(Memory::new());
    let recorder = start(&device);
    good(&submit(&recorder, 1).unwrap());
    device.memory.fail(0, Fault::NotStored);
    device.memory.tamper("journal", Some(Vec::new()));
    assert!(submit(&recorder, 2).unwrap().recv().unwrap().is_err());
    until(|| recorder.status().failure.is_some_and(|error| error.code() == Code::AuditRollback));
    assert_eq!(submit(&recorder, 3).err().unwrap().code(), Code::AuditUnavailable);
    assert_eq!(recorder.shutdown().unwrap_err().code(), Code::AuditUnavailable);
}

#[test]
fn callbacks_may_submit() {
    let device = Gated::new(Memory::new());
    let recorder = Arc::new(start(&device));
    let (done, receiver) = answer();
    let (inner, again) = (Arc::clone(&recorder), draft(2));
    let chained: Done = Box::new(move |outcome| {
        let _first = outcome.unwrap();
        inner.submit(vec![again], time(2), done).unwrap();
    });
    recorder.submit(vec![draft(1)], time(1), chained).unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap().first(), 2);
}

#[test]
fn a_real_directory_is_recorded_in_and_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let recorder = Recorder::open(&path, identity(), clock()).unwrap();
    good(&submit(&recorder, 1).unwrap());
    assert_eq!(Recorder::open(&path, identity(), clock()).err().unwrap().code(), Code::Locked);
    // The directory goes away and comes back.
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    assert!(submit(&recorder, 2).unwrap().recv().unwrap().is_err());
    assert_eq!(submit(&recorder, 3).err().map(|error: Error| error.code()), Some(Code::AuditUnavailable));
    assert!(!path.exists(), "no empty log in its place");
    std::fs::rename(dir.path().join("away"), &path).unwrap();
    until(|| recorder.is_available());
    good(&submit(&recorder, 4).unwrap());
    drop(recorder);
    let report = audit::verify::verify_dir(&path, &common::vkeys()).unwrap();
    assert_eq!(report.damage(), None);
    let recorder = Recorder::open(&path, identity(), clock()).unwrap();
    assert_eq!((recorder.recovery().checkpoint, recorder.recovery().recovered), (5, 0));
}
