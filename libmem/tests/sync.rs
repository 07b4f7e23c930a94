//! Words and rings between processes that are killed, stopped, or lie. Each process maps the memory for itself.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caps::error::Code;
use common::{map, memfd};
use libmem::sync::ring::mpsc::{self, Arrival};
use libmem::sync::ring::{Lane, Shape, spsc};
use libmem::sync::{Event, Lock};
use libmem::{Access, Mapping};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const PAGES: usize = 4;
const LONG: Duration = Duration::from_secs(60);
/// Short, so that the tests are: its length decides nothing, because the owners here are dead or stopped.
const PATIENCE: Duration = Duration::from_millis(30);

// Where things lie.
const LOCK: usize = 0;
const READY: usize = 64;
const GO: usize = 128;
const LANES: usize = 1024;

const FILE: &str = "LIBMEM_SYNC_FILE";
const FIRST: &str = "LIBMEM_SYNC_FIRST";

/// The memory, and processes that map it.
struct World {
    file: OwnedFd,
    mapping: Mapping,
}

impl World {
    fn new() -> Self {
        let file = memfd(PAGES);
        let mapping = map(&file, PAGES, Access::ReadWrite);
        Self { file, mapping }
    }

    /// Starts this test again as a process of its own, where [`inside`] says so.
    fn spawn(&self, test: &str, first: u64) -> Running {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(FILE, path)
            .env(FIRST, first.to_string())
            .stdout(Stdio::null()) // its "test result" is not one of this run's; what fails goes to stderr
            .spawn()
            .unwrap();
        Running(child)
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Stops it, and returns when the kernel says that it stands.
    fn stop(&self) {
        self.signal(Signal::STOP);
        waitpid(Some(Pid::from_child(&self.0)), WaitOptions::UNTRACED).unwrap();
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn ends_well(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a process that a test started: the memory, and the number it was given.
fn inside() -> Option<(Mapping, u64)> {
    let file = File::options().read(true).write(true).open(std::env::var(FILE).ok()?).unwrap();
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    Some((map(&OwnedFd::from(file), PAGES, Access::ReadWrite), first))
}

fn shape() -> Shape {
    Shape::new(512, 200).unwrap()
}

fn lane(mapping: &Mapping, number: usize) -> Lane<&Mapping> {
    Lane::in_one(mapping, LANES + number * shape().lane_bytes(), shape())
}

/// A message that tells its number by its first bytes, its length and every other byte.
fn message(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + number as usize % 190, number as u8);
    bytes
}

/// Sends message upon message, from `first` on, until it is killed.
fn send_for_ever(mapping: &Mapping, number: usize, first: u64) -> ! {
    let mut sender = spsc::Sender::new(lane(mapping, number), shape()).unwrap();
    let mut number = first;
    loop {
        sender.send(&message(number), LONG).unwrap();
        number += 1;
    }
}

#[test]
fn events_cross_processes() {
    const ROUNDS: u64 = 2_000;
    if let Some((mapping, _)) = inside() {
        let (ready, go) = (Event::new(&mapping, READY).unwrap(), Event::new(&mapping, GO).unwrap());
        for round in 0..ROUNDS {
            ready.notify_all().unwrap();
            assert_eq!(go.wait(round, LONG).unwrap(), round + 1);
        }
        return;
    }
    let world = World::new();
    let (ready, go) = (Event::new(&world.mapping, READY).unwrap(), Event::new(&world.mapping, GO).unwrap());
    let child = world.spawn("events_cross_processes", 0);
    let mut began = None;
    for round in 0..ROUNDS {
        assert_eq!(ready.wait(round, LONG).unwrap(), round + 1);
        began.get_or_insert_with(Instant::now);
        go.notify_one().unwrap();
    }
    child.ends_well();
    // Were the wake-ups lost, each round would cost a look, 50 ms: 100 s in all.
    assert!(began.unwrap().elapsed() < Duration::from_secs(50));
}

#[test]
fn a_killed_owner_is_followed() {
    if let Some((mapping, _)) = inside() {
        let lock = Lock::new(&mapping, LOCK, PATIENCE).unwrap();
        let guard = lock.lock(LONG).unwrap();
        Event::new(&mapping, READY).unwrap().notify_all().unwrap();
        std::mem::forget(guard);
        Event::new(&mapping, GO).unwrap().wait(0, LONG).unwrap();
        unreachable!("killed before");
    }
    let world = World::new();
    let lock = Lock::new(&world.mapping, LOCK, PATIENCE).unwrap();
    let ready = Event::new(&world.mapping, READY).unwrap();
    let mut token = 0;
    for round in 0..5 {
        let child = world.spawn("a_killed_owner_is_followed", 0);
        ready.wait(round, LONG).unwrap();
        assert_eq!(lock.try_lock().unwrap_err().code(), Code::Busy);
        child.kill();
        let mut guard = lock.lock(LONG).unwrap();
        assert!(guard.is_recovered() && guard.token() > token);
        token = guard.token();
        guard.repaired();
        guard.release().unwrap();
        assert!(!lock.try_lock().unwrap().is_recovered());
    }
}

#[test]
fn a_stopped_owner_learns_that_it_is_none() {
    if let Some((mapping, _)) = inside() {
        let lock = Lock::new(&mapping, LOCK, PATIENCE).unwrap();
        let mut guard = lock.lock(LONG).unwrap();
        Event::new(&mapping, READY).unwrap().notify_all().unwrap();
        Event::new(&mapping, GO).unwrap().wait(0, LONG).unwrap();
        assert_eq!(guard.check().unwrap_err().code(), Code::Timeout);
        assert_eq!(guard.renew().unwrap_err().code(), Code::Timeout);
        assert_eq!(guard.release().unwrap_err().code(), Code::Timeout);
        return;
    }
    let world = World::new();
    let lock = Lock::new(&world.mapping, LOCK, PATIENCE).unwrap();
    let child = world.spawn("a_stopped_owner_learns_that_it_is_none", 0);
    Event::new(&world.mapping, READY).unwrap().wait(0, LONG).unwrap();
    child.stop();
    let mut guard = lock.lock(LONG).unwrap();
    assert!(guard.is_recovered());
    Event::new(&world.mapping, GO).unwrap().notify_all().unwrap();
    child.signal(Signal::CONT);
    child.ends_well();
    // It gave back nothing that was not its own.
    guard.renew().unwrap();
    guard.release().unwrap();
}

#[test]
fn a_sender_killed_at_any_point_leaves_whole_messages() {
    if let Some((mapping, first)) = inside() {
        send_for_ever(&mapping, 0, first);
    }
    let world = World::new();
    let mut receiver = spsc::Receiver::new(lane(&world.mapping, 0), shape()).unwrap();
    let mut next = 0;
    for round in 0..10u64 {
        let child = world.spawn("a_sender_killed_at_any_point_leaves_whole_messages", next);
        // Some hundred messages, so that it is killed at another point each time.
        for _ in 0..200 + round * 37 {
            assert_eq!(receiver.receive(LONG).unwrap(), message(next));
            next += 1;
        }
        child.kill();
        // What was sent is there, in order; what was not is not, and holds nobody up.
        while let Some(bytes) = receiver.try_receive().unwrap() {
            assert_eq!(bytes, message(next));
            next += 1;
        }
    }
}

#[test]
fn a_killed_receiver_is_followed_without_a_gap() {
    if let Some((mapping, _)) = inside() {
        let mut receiver = spsc::Receiver::new(lane(&mapping, 0), shape()).unwrap();
        let mut next = None;
        loop {
            let bytes = receiver.receive(LONG).unwrap();
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, message(number));
            assert!(next.is_none_or(|next| next == number));
            next = Some(number + 1);
        }
    }
    let world = World::new();
    let mut sender = spsc::Sender::new(lane(&world.mapping, 0), shape()).unwrap();
    let mut sent = 0;
    for round in 0..10u64 {
        let child = world.spawn("a_killed_receiver_is_followed_without_a_gap", 0);
        for _ in 0..200 + round * 37 {
            sender.send(&message(sent), LONG).unwrap();
            sent += 1;
        }
        child.kill();
    }
    // What nobody took is still there, up to the last.
    let mut receiver = spsc::Receiver::new(lane(&world.mapping, 0), shape()).unwrap();
    let mut last = None;
    while let Some(bytes) = receiver.try_receive().unwrap() {
        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(bytes, message(number));
        assert!(last.is_none_or(|last| last + 1 == number));
        last = Some(number);
    }
    assert!(last.is_none_or(|last| last + 1 == sent));
}

#[test]
fn one_of_many_senders_dies_or_stands_and_the_others_go_on() {
    const TEST: &str = "one_of_many_senders_dies_or_stands_and_the_others_go_on";
    if let Some((mapping, number)) = inside() {
        send_for_ever(&mapping, number as usize, 0);
    }
    let world = World::new();
    let lanes = (0..4).map(|number| lane(&world.mapping, number)).collect();
    let mut receiver = mpsc::Receiver::new(lanes, shape()).unwrap();
    let mut children: Vec<_> = (0..4).map(|number| Some(world.spawn(TEST, number))).collect();
    let mut next = [0; 4];
    // Receives until each of these lanes brought so many more.
    let mut receive = |lanes: &[usize], more: u64| {
        let goal = next.map(|next| next + more);
        while lanes.iter().any(|&lane| next[lane] < goal[lane]) {
            match receiver.receive(LONG).unwrap() {
                Arrival::Message { lane, message: bytes } => {
                    assert_eq!(bytes, message(next[lane]));
                    next[lane] += 1;
                }
                ended @ Arrival::Ended { .. } => panic!("{ended:?}"),
            }
        }
    };
    receive(&[0, 1, 2, 3], 200);
    children[1].take().unwrap().kill();
    receive(&[0, 2, 3], 500);
    children[3].as_ref().unwrap().stop();
    receive(&[0, 2], 500);
    children[3].as_ref().unwrap().signal(Signal::CONT);
    receive(&[0, 2, 3], 500);
}

#[test]
fn a_process_that_writes_anything_gets_codes_and_no_more() {
    if let Some((mapping, _)) = inside() {
        Event::new(&mapping, READY).unwrap().notify_all().unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        loop {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let value = if random >> 40 & 1 == 0 { random >> 48 & 0x78 } else { random };
            mapping.store_u64(random as usize % (mapping.len() / 8) * 8, value).unwrap();
        }
    }
    let world = World::new();
    let child = world.spawn("a_process_that_writes_anything_gets_codes_and_no_more", 0);
    Event::new(&world.mapping, READY).unwrap().wait(0, LONG).unwrap();
    let wait = Duration::from_millis(1);
    let began = Instant::now();
    let lock = Lock::new(&world.mapping, LOCK, PATIENCE).unwrap();
    let event = Event::new(&world.mapping, GO).unwrap();
    for _ in 0..500 {
        let lanes = (0..4).map(|number| lane(&world.mapping, number)).collect();
        let results = [
            lock.lock(wait).and_then(|guard| guard.check().and(guard.release())),
            event.wait(event.count().unwrap(), wait).map(drop),
            event.notify_all(),
            spsc::Sender::new(lane(&world.mapping, 0), shape()).and_then(|mut end| end.send(&[1; 200], wait)),
            spsc::Receiver::new(lane(&world.mapping, 0), shape())
                .and_then(|mut end| end.receive(wait))
                .map(drop),
            mpsc::Receiver::new(lanes, shape()).and_then(|mut end| end.receive(wait)).map(drop),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(error.code(), Code::Timeout | Code::Protocol), "{error}");
        }
    }
    // 2,500 waits of at most 1 ms.
    assert!(began.elapsed() < LONG);
    child.kill();
}
