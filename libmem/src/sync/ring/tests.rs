//! Both rings against a naive model, under rotation, and against a peer that writes anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caps::error::Code;
use proptest::prelude::*;

use super::mpsc::{self, Arrival};
use super::spsc::{Receiver, Sender};
use super::{Lane, Place, Shape};
use crate::mapping::{Access, Mapping};
use crate::sync::testing::{File, LONG, Sleeper, promptly};

fn ends(mapping: &Mapping, shape: Shape) -> (Sender<&Mapping>, Receiver<&Mapping>) {
    let lane = Lane::in_one(mapping, 64, shape);
    (Sender::new(lane, shape).unwrap(), Receiver::new(lane, shape).unwrap())
}

/// A message that tells its place in the stream by its length and every byte.
fn message(number: u64, length: usize) -> Vec<u8> {
    (0..length).map(|index| (number.wrapping_mul(31) as usize + index) as u8).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Send {
        lane: usize,
        length: usize,
    },
    Receive,
    /// The sender dies in the middle of a message of that length, and another attaches.
    SenderDies {
        lane: usize,
        length: usize,
    },
    /// The receiver dies, and another attaches.
    ReceiverDies,
    Rotate,
}

fn steps(lanes: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..lanes, 0usize..=60).prop_map(|(lane, length)| Step::Send { lane, length }),
        8 => Just(Step::Receive),
        1 => (0..lanes, 0usize..=60).prop_map(|(lane, length)| Step::SenderDies { lane, length }),
        1 => Just(Step::ReceiverDies),
        1 => Just(Step::Rotate),
    ];
    proptest::collection::vec(step, 0..200)
}

/// The lanes as queues, and whose turn it is.
struct Model {
    shape: Shape,
    queues: Vec<VecDeque<Vec<u8>>>,
    next: usize,
}

impl Model {
    fn has_room(&self, lane: usize, length: usize) -> bool {
        let used: u64 = self.queues[lane].iter().map(|message| Shape::taken_by(message.len())).sum();
        used + Shape::taken_by(length) <= self.shape.capacity()
    }

    fn receive(&mut self) -> Option<(usize, Vec<u8>)> {
        let lanes = self.queues.len();
        let lane =
            (0..lanes).map(|step| (self.next + step) % lanes).find(|&lane| !self.queues[lane].is_empty());
        self.next = lane.map_or(self.next, |lane| (lane + 1) % lanes);
        lane.and_then(|lane| self.queues[lane].pop_front().map(|message| (lane, message)))
    }
}

fn in_lockstep(lanes: usize, capacity: usize, start: u64, steps: Vec<Step>) {
    let shape = Shape::new(capacity, 40.min(capacity - 8)).unwrap();
    let mut file = File::new(2);
    let mapping = file.map(Access::ReadWrite);
    let lane = |number: usize| Lane::in_one(&mapping, number * shape.lane_bytes(), shape);
    for number in 0..lanes {
        // As after that many bytes: positions may be anywhere, the end of all numbers included.
        lane(number).sent.position().store(start).unwrap();
        lane(number).taken.position().store(start).unwrap();
    }
    let mut senders: Vec<_> = (0..lanes).map(|number| Sender::new(lane(number), shape).unwrap()).collect();
    let receive_all = || mpsc::Receiver::new((0..lanes).map(lane).collect(), shape).unwrap();
    let mut receiver = receive_all();
    let mut model = Model { shape, queues: vec![VecDeque::new(); lanes], next: 0 };

    for (number, step) in (0..).zip(steps) {
        match step {
            Step::Send { lane, length } => {
                let sent = senders[lane].try_send(&message(number, length)).map_err(|error| error.code());
                let expected = match length {
                    _ if length > shape.message_bytes_max() => Err(Code::Range),
                    _ if !model.has_room(lane, length) => Err(Code::Busy),
                    _ => {
                        model.queues[lane].push_back(message(number, length));
                        Ok(())
                    }
                };
                assert_eq!(sent, expected, "step {number}");
            }
            Step::Receive => match (receiver.try_receive().unwrap(), model.receive()) {
                (None, None) => {}
                (Some(Arrival::Message { lane, message }), Some(expected)) => {
                    assert_eq!((lane, message), expected, "step {number}");
                }
                (arrival, expected) => panic!("step {number}: {arrival:?} for {expected:?}"),
            },
            Step::SenderDies { lane: dies, length } => {
                let length = length.min(shape.message_bytes_max());
                if model.has_room(dies, length) {
                    let tail = lane(dies).sent.position().load().unwrap();
                    lane(dies).sent.write(tail, &message(number, length), shape).unwrap();
                    lane(dies).sent.header(tail, shape).store(length as u64).unwrap();
                }
                senders[dies] = Sender::new(lane(dies), shape).unwrap();
            }
            Step::ReceiverDies => {
                receiver = receive_all();
                model.next = 0;
            }
            Step::Rotate => file = std::mem::replace(&mut file, File::new(1)).rotate(&[&mapping]),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_is_a_queue(steps in steps(1), capacity in prop_oneof![Just(64), Just(128), Just(1024)], words in any::<u64>()) {
        in_lockstep(1, capacity, words & !7, steps);
    }

    #[test]
    fn lanes_are_queues_that_take_turns(steps in steps(3), back in 0u64..40) {
        // Just before the end of all numbers, so that positions wrap.
        in_lockstep(3, 128, (back * 8).wrapping_neg(), steps);
    }

    /// Whatever the shared words say: an end attaches or refuses, and then answers from what lies in its lane.
    #[test]
    fn no_words_lead_outside(
        head in prop_oneof![any::<u64>(), any::<u64>().prop_map(|head| head & !7)],
        tail in any::<u64>(),
        ahead in prop_oneof![1 => 0u64..200, 3 => (0u64..=9).prop_map(|words| words * 8)],
        close in prop::bool::weighted(0.9),
        length in prop_oneof![any::<u64>(), 0u64..100],
    ) {
        let shape = Shape::new(64, 40).unwrap();
        let mapping = File::new(1).map(Access::ReadWrite);
        let lane = Lane::in_one(&mapping, mapping.len() - shape.lane_bytes(), shape);
        let tail = if close { head.wrapping_add(ahead) } else { tail };
        lane.taken.position().store(head).unwrap();
        lane.sent.position().store(tail).unwrap();
        let plausible = head % 8 == 0 && tail % 8 == 0 && tail.wrapping_sub(head) <= 64;
        match Receiver::new(lane, shape) {
            Err(error) => prop_assert!(!plausible && error.code() == Code::Protocol),
            Ok(mut receiver) => {
                prop_assert!(plausible);
                lane.sent.header(head, shape).store(length).unwrap();
                let fits = length <= 40 && Shape::taken_by(length as usize) <= tail.wrapping_sub(head);
                let received = receiver.try_receive().map(|message| message.map(|bytes| bytes.len() as u64));
                prop_assert_eq!(received.map_err(|error| error.code()), match head == tail {
                    true => Ok(None),
                    false if fits => Ok(Some(length)),
                    false => Err(Code::Protocol),
                });
            }
        }
        match Sender::new(lane, shape) {
            Err(error) => prop_assert_eq!(error.code(), Code::Protocol),
            Ok(mut sender) => {
                lane.taken.position().store(length).unwrap();
                let result = sender.try_send(&[0; 40]).map_err(|error| error.code());
                prop_assert!(matches!(result, Ok(()) | Err(Code::Busy | Code::Protocol)));
            }
        }
    }
}

#[test]
fn the_bytes_lie_where_they_are_said_to() {
    let shape = Shape::new(64, 40).unwrap();
    let mapping = File::new(1).map(Access::ReadWrite);
    let (mut sender, mut receiver) = ends(&mapping, shape);
    sender.try_send(b"twelve bytes").unwrap();
    assert_eq!(mapping.load_u64(64).unwrap(), 24, "tail");
    assert_eq!(mapping.load_u64(64 + 128).unwrap(), 12, "the header");
    let mut bytes = [0; 12];
    mapping.read_at(64 + 128 + 8, &mut bytes).unwrap();
    assert_eq!(&bytes, b"twelve bytes");
    assert_eq!(receiver.try_receive().unwrap().unwrap(), b"twelve bytes");
    assert_eq!(mapping.load_u64(64 + 128 + 64).unwrap(), 24, "head, in the part after it");
}

#[test]
fn each_end_needs_to_write_its_own_part_only() {
    let shape = Shape::new(128, 100).unwrap();
    let (sent, taken) = (File::new(1), File::new(1));
    let lane = |sent_access, taken_access| Lane {
        sent: Place { memory: std::sync::Arc::new(sent.map(sent_access)), offset: 0 },
        taken: Place { memory: std::sync::Arc::new(taken.map(taken_access)), offset: 0 },
    };
    let mut sender = Sender::new(lane(Access::ReadWrite, Access::Read), shape).unwrap();
    let mut receiver = Receiver::new(lane(Access::Read, Access::ReadWrite), shape).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..2_000u64).for_each(|n| sender.send(&message(n, n as usize % 90), LONG).unwrap())
        });
        for n in 0..2_000u64 {
            assert_eq!(receiver.receive(LONG).unwrap(), message(n, n as usize % 90));
        }
    });
    let reversed = lane(Access::Read, Access::ReadWrite);
    assert_eq!(Sender::new(reversed.clone(), shape).unwrap_err().code(), Code::Denied);
    assert_eq!(Receiver::new(lane(Access::ReadWrite, Access::Read), shape).unwrap_err().code(), Code::Denied);
}

#[test]
fn positions_do_not_move_back() {
    let shape = Shape::new(64, 56).unwrap();
    let mapping = File::new(1).map(Access::ReadWrite);
    let (mut sender, mut receiver) = ends(&mapping, shape);
    for round in 0..3 {
        sender.try_send(&[round; 24]).unwrap();
        receiver.try_receive().unwrap().unwrap();
    }
    sender.try_send(&[3; 24]).unwrap();
    let (head, tail) = (mapping.load_u64(64 + 128 + 64).unwrap(), mapping.load_u64(64).unwrap());
    assert_eq!((head, tail), (96, 128));
    // Full for this one, so it looks and knows the head.
    assert_eq!(sender.try_send(&[4; 56]).unwrap_err().code(), Code::Busy);
    // Within a ring's length of the tail, but taken before; and past the tail.
    for wrong in [head - 8, tail + 8, head + 4] {
        mapping.store_u64(64 + 128 + 64, wrong).unwrap();
        assert_eq!(sender.try_send(&[4; 56]).unwrap_err().code(), Code::Protocol, "{wrong}");
    }
    assert_eq!(receiver.try_receive().unwrap().unwrap(), [3; 24]);
    for wrong in [head, tail + 72, tail + 4] {
        mapping.store_u64(64, wrong).unwrap();
        assert_eq!(receiver.try_receive().unwrap_err().code(), Code::Protocol, "{wrong}");
    }
}

#[test]
fn places_are_checked() {
    let shape = Shape::new(64, 40).unwrap();
    let mapping = File::new(1).map(Access::ReadWrite);
    for offset in [8, mapping.len() - shape.lane_bytes() + 64, mapping.len(), usize::MAX - 63, usize::MAX] {
        let lane = Lane::in_one(&mapping, offset, shape);
        assert_eq!(Sender::new(lane, shape).unwrap_err().code(), Code::Range, "{offset}");
        assert_eq!(Receiver::new(lane, shape).unwrap_err().code(), Code::Range, "{offset}");
    }
    let lane = Lane::in_one(&mapping, 0, shape);
    for lanes in [0, 65] {
        assert_eq!(mpsc::Receiver::new(vec![lane; lanes], shape).unwrap_err().code(), Code::Range);
    }
}

/// Sleeps end by a wake-up through the kernel: nobody looks in between.
fn without_looks(mapping: &Mapping, shape: Shape) -> (Sender<&Mapping>, Receiver<&Mapping>) {
    let (mut sender, mut receiver) = ends(mapping, shape);
    sender.set_recheck(LONG);
    receiver.set_recheck(LONG);
    (sender, receiver)
}

#[test]
fn sleepers_are_woken() {
    promptly(wake_both_ends);
}

fn wake_both_ends() {
    let shape = Shape::new(64, 56).unwrap();
    let mapping = File::new(1).map(Access::ReadWrite);
    let (mut sender, mut receiver) = without_looks(&mapping, shape);
    let asleep = Sleeper::new();
    std::thread::scope(|scope| {
        let receives = scope.spawn(|| asleep.run(|| receiver.receive(LONG)));
        asleep.wait_until_asleep();
        sender.try_send(b"wake up").unwrap();
        assert_eq!(receives.join().unwrap().unwrap(), b"wake up");
    });
    sender.try_send(&[1; 56]).unwrap();
    assert_eq!(sender.try_send(&[]).unwrap_err().code(), Code::Busy);
    assert_eq!(sender.send(&[], Duration::from_millis(5)).unwrap_err().code(), Code::Timeout);
    let asleep = Sleeper::new();
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| asleep.run(|| sender.send(&[2; 56], LONG)));
        asleep.wait_until_asleep();
        assert_eq!(receiver.try_receive().unwrap().unwrap(), [1; 56]);
        sends.join().unwrap().unwrap();
    });
    assert_eq!(receiver.receive(LONG).unwrap(), [2; 56]);
    assert_eq!(receiver.receive(Duration::from_millis(5)).unwrap_err().code(), Code::Timeout);
}

#[test]
fn a_rotation_loses_no_message_and_no_sleeper() {
    promptly(rotate_under_both_ends);
}

fn rotate_under_both_ends() {
    let shape = Shape::new(64, 56).unwrap();
    let mut file = File::new(1);
    let mapping = file.map(Access::ReadWrite);
    let (mut sender, mut receiver) = without_looks(&mapping, shape);
    for round in 0..20u64 {
        // One end sleeps for a message, the other for room.
        let asleep = Sleeper::new();
        std::thread::scope(|scope| {
            let receives = scope.spawn(|| asleep.run(|| receiver.receive(LONG)));
            asleep.wait_until_asleep();
            file = std::mem::replace(&mut file, File::new(1)).rotate(&[&mapping]);
            sender.send(&message(round, 50), LONG).unwrap();
            assert_eq!(receives.join().unwrap().unwrap(), message(round, 50));
        });
        sender.send(&message(round, 56), LONG).unwrap();
        let asleep = Sleeper::new();
        std::thread::scope(|scope| {
            let sends = scope.spawn(|| asleep.run(|| sender.send(&message(!round, 30), LONG)));
            asleep.wait_until_asleep();
            file = std::mem::replace(&mut file, File::new(1)).rotate(&[&mapping]);
            assert_eq!(receiver.receive(LONG).unwrap(), message(round, 56));
            sends.join().unwrap().unwrap();
        });
        assert_eq!(receiver.receive(LONG).unwrap(), message(!round, 30));
    }
}

#[test]
fn a_revoke_ends_both_ends() {
    let shape = Shape::new(64, 56).unwrap();
    let file = File::new(1);
    let mapping = file.map(Access::ReadWrite);
    let (mut sender, mut receiver) = ends(&mapping, shape);
    let asleep = Sleeper::new();
    std::thread::scope(|scope| {
        let receives = scope.spawn(|| asleep.run(|| receiver.receive(LONG)));
        asleep.wait_until_asleep();
        file.cut();
        assert_eq!(receives.join().unwrap().unwrap_err().code(), Code::Revoked);
    });
    assert_eq!(sender.send(b"too late", LONG).unwrap_err().code(), Code::Revoked);
}

#[test]
fn many_senders_each_keep_their_order() {
    const SENDERS: usize = 4;
    const MESSAGES: u64 = 3_000;
    let shape = Shape::new(256, 100).unwrap();
    let mapping = File::new(2).map(Access::ReadWrite);
    let lane = |number: usize| Lane::in_one(&mapping, number * shape.lane_bytes(), shape);
    let mut receiver = mpsc::Receiver::new((0..SENDERS).map(lane).collect(), shape).unwrap();
    std::thread::scope(|scope| {
        for number in 0..SENDERS {
            scope.spawn(move || {
                let mut sender = Sender::new(lane(number), shape).unwrap();
                (0..MESSAGES).for_each(|n| sender.send(&message(n, n as usize % 97), LONG).unwrap());
            });
        }
        let mut next = [0; SENDERS];
        for _ in 0..SENDERS as u64 * MESSAGES {
            match receiver.receive(LONG).unwrap() {
                Arrival::Message { lane, message: bytes } => {
                    assert_eq!(bytes, message(next[lane], next[lane] as usize % 97));
                    next[lane] += 1;
                }
                ended @ Arrival::Ended { .. } => panic!("{ended:?}"),
            }
        }
    });
    assert_eq!(receiver.receive(Duration::ZERO).unwrap_err().code(), Code::Timeout);
}

#[test]
fn a_lane_that_ends_harms_no_other() {
    let shape = Shape::new(64, 40).unwrap();
    let files = [File::new(1), File::new(1), File::new(1)];
    let mappings: Vec<_> = files.iter().map(|file| file.map(Access::ReadWrite)).collect();
    let lane = |number: usize| Lane::in_one(&mappings[number], 0, shape);
    let mut receiver = mpsc::Receiver::new((0..3).map(lane).collect(), shape).unwrap();
    mappings[0].store_u64(0, 3).unwrap();
    files[1].cut();
    Sender::new(lane(2), shape).unwrap().try_send(b"still here").unwrap();
    let mut ends = Vec::new();
    loop {
        match receiver.receive(LONG).unwrap() {
            Arrival::Ended { lane, error } => ends.push((lane, error.code())),
            Arrival::Message { lane, message } => {
                assert_eq!((lane, &message[..]), (2, &b"still here"[..]));
                break;
            }
        }
    }
    assert_eq!(ends, [(0, Code::Protocol), (1, Code::Revoked)]);
    assert_eq!(receiver.receive(Duration::from_millis(5)).unwrap_err().code(), Code::Timeout);

    // Another sender's lane takes the place of an ended one.
    let (file, place) = (File::new(1), 1);
    let mapping = file.map(Access::ReadWrite);
    let fresh = Lane::in_one(&mapping, 0, shape);
    assert_eq!(receiver.replace(3, fresh).unwrap_err().code(), Code::Range);
    receiver.replace(place, fresh).unwrap();
    Sender::new(fresh, shape).unwrap().try_send(b"new").unwrap();
    assert!(matches!(receiver.receive(LONG).unwrap(), Arrival::Message { lane: 1, .. }));

    file.cut();
    files[2].cut();
    let mut left = 2;
    while left > 0 {
        assert!(matches!(receiver.receive(LONG).unwrap(), Arrival::Ended { .. }));
        left -= 1;
    }
    assert_eq!(receiver.receive(LONG).unwrap_err().code(), Code::Revoked);
}

/// A peer writes anything anywhere in the lane while both ends work: they answer in time, with a message that has
/// the bounds, or a code.
#[test]
fn a_scribbling_peer_gets_codes_and_no_more() {
    let shape = Shape::new(64, 40).unwrap();
    let mapping = File::new(1).map(Access::ReadWrite);
    // At the very end: one byte too far would be a fault that no guard absorbs.
    let lane = Lane::in_one(&mapping, mapping.len() - shape.lane_bytes(), shape);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 0x9e37_79b9_7f4a_7c15u64;
            while !done.load(Ordering::Relaxed) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let offset = lane.sent.offset + (random as usize % (shape.lane_bytes() / 8)) * 8;
                // Half of it small multiples of 8, which look right more often.
                let value = if random & 1 << 40 == 0 { random >> 48 & 0x78 } else { random };
                mapping.store_u64(offset, value).unwrap();
            }
        });
        let mut codes = std::collections::BTreeSet::new();
        let wait = Duration::from_micros(300);
        for round in 0..4_000 {
            let sent = Sender::new(lane, shape).and_then(|mut sender| sender.send(&[7; 40], wait));
            let received = Receiver::new(lane, shape).and_then(|mut receiver| receiver.receive(wait));
            if let Ok(message) = &received {
                assert!(message.len() <= 40, "round {round}");
            }
            codes.extend([sent.err(), received.err()].into_iter().flatten().map(|error| error.code()));
        }
        done.store(true, Ordering::Relaxed);
        assert!(codes.contains(&Code::Protocol), "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Code::Protocol | Code::Timeout)), "{codes:?}");
    });
}
