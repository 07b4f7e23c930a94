//! What is said of changes that may have been done: a refusal is one only where nothing was done before.

use std::sync::mpsc;
use std::time::Duration;

use caps::error::Code;
use caps::id::{ProviderId, SlotHandle};
use caps::wire::remote::{Piece, Verb};
use caps::wire::{Reply, Request};
use libmem::{Client, Mediated, Rights};
use zerocopy::IntoBytes;

use crate::node::{Door, HANDLE, LIFE, Peer, World, key, token};

/// What a right is named on the second connection.
const AGAIN: SlotHandle = SlotHandle { slot: 5, epoch: 6 };

/// What `ask` comes to if its first answer is lost and `then` answers on the second connection, to a client that waits
/// for `patience`.
fn repeated<T>(
    patience: Duration,
    ask: impl FnOnce(&Mediated) -> T,
    then: impl FnOnce(&mut Peer) + Send + 'static,
) -> T {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        let mut peer = door.welcome();
        peer.open(AGAIN);
        then(&mut peer);
    });
    let client = Client::connect(&world.endpoint().timeout(patience), &key()).unwrap();
    let memory = client.open_mediated(&token(), Rights::READ_WRITE).unwrap();
    let outcome = ask(&memory);
    drop((memory, client));
    world.finish();
    outcome
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_change_that_the_node_is_still_at_is_asked_again_under_its_number() {
    let outcome = repeated(
        LONG,
        |memory| memory.fetch_add_u64(8, 5),
        |peer| {
            let first = peer.next();
            peer.refuse(&first, Code::Busy);
            for _ in 0..2 {
                let again = peer.next();
                assert_eq!((again.header.request, &again.body), (first.header.request, &first.body));
                peer.refuse(&again, Code::Busy);
            }
            let last = peer.next();
            assert_eq!(last.header.request, first.header.request);
            peer.answer(&last, &7_u64.to_le_bytes());
        },
    );
    assert_eq!(outcome.unwrap(), 7);
}

#[test]
fn a_change_that_the_node_stays_at_is_uncertain() {
    let outcome = repeated(
        Duration::from_millis(500),
        |memory| memory.fetch_add_u64(8, 5),
        |peer| {
            while let Some(frame) = peer.try_next() {
                peer.refuse(&frame, Code::Busy);
            }
        },
    );
    assert_eq!(outcome.unwrap_err().code(), Code::Uncertain);
}

#[test]
fn of_many_requests_those_behind_the_one_that_is_busy_are_asked_again_with_it() {
    fn answer(peer: &mut Peer, items: u32, frame: &crate::node::Frame) {
        let pieces: Vec<_> = (0..items).map(|index| Piece::new(index, None, 0)).collect();
        peer.frame(frame, caps::wire::remote::Flags::NONE, items, pieces.as_bytes());
    }
    let outcomes = repeated(
        LONG,
        |memory| memory.scatter(&vec![(0, &[][..]); 3 * 512]).unwrap(),
        |peer| {
            let asked: Vec<_> = (0..3).map(|_| peer.next()).collect();
            answer(peer, 512, &asked[0]);
            peer.refuse(&asked[1], Code::Busy);
            answer(peer, 512, &asked[2]);
            for before in &asked[1..] {
                let again = peer.next();
                assert_eq!(again.header.request, before.header.request);
                answer(peer, 512, &again);
            }
        },
    );
    assert_eq!(outcomes, vec![Ok(0); 3 * 512]);
}

#[test]
fn a_refusal_of_a_repeated_change_says_nothing_of_the_first_time() {
    for code in [Code::Revoked, Code::Denied, Code::FrameDuplicate] {
        let refuse = move |peer: &mut Peer| {
            let frame = peer.next();
            peer.refuse(&frame, code);
        };
        let outcome = repeated(LONG, |memory| memory.fetch_add_u64(8, 5), refuse);
        assert_eq!(outcome.unwrap_err().code(), Code::Uncertain, "{code}");
        let outcome = repeated(LONG, |memory| memory.read_at(0, &mut [0]), refuse);
        assert_eq!(outcome.unwrap_err().code(), code, "a read changes nothing");
    }
}

#[test]
fn the_first_refusal_of_a_change_is_what_it_says_unless_it_is_that_the_time_is_over() {
    for (said, told) in
        [(Code::Busy, Code::Busy), (Code::Revoked, Code::Revoked), (Code::Timeout, Code::Uncertain)]
    {
        let world = World::with(move |peer| {
            peer.open(HANDLE);
            let frame = peer.next();
            peer.refuse(&frame, said);
            let frame = peer.next();
            peer.refuse(&frame, said);
        });
        let (_client, memory) = world.memory();
        assert_eq!(memory.write_at(0, b"x").unwrap_err().code(), told);
        assert_eq!(memory.read_at(0, &mut [0]).unwrap_err().code(), said);
        world.finish();
    }
}

#[test]
fn what_is_carried_to_its_end_is_asked_once_more_when_its_time_was_over() {
    for (second, told) in [(Code::NotAdmin, Code::NotAdmin), (Code::Timeout, Code::Uncertain)] {
        let world = World::with(move |peer| {
            let (first, request) = peer.control();
            assert!(matches!(request, Request::RootRotate));
            peer.refuse(&first, Code::Timeout);
            let (again, _) = peer.control();
            assert_eq!((again.header.request, &again.body), (first.header.request, &first.body));
            peer.refuse(&again, second);
        });
        assert_eq!(world.client().root_rotate().unwrap_err().code(), told);
        world.finish();
    }
}

/// A change is uncertain whose answer was lost, if the node forgets the client and then `attempts` come before the
/// connection on which that is noticed.
fn is_uncertain_once_forgotten(attempts: impl FnOnce(&Door) + Send + 'static) {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        door.forget();
        attempts(door);
        let mut peer = door.welcome();
        assert!(peer.try_next().is_none(), "nothing is asked again");
    });
    let (client, memory) = world.memory();
    assert_eq!(memory.fetch_add_u64(8, 5).unwrap_err().code(), Code::Uncertain);
    drop((memory, client));
    world.finish();
}

#[test]
fn a_change_that_the_node_forgot_is_uncertain() {
    is_uncertain_once_forgotten(|_| {});
}

#[test]
fn that_it_was_named_in_an_attempt_that_was_lost_is_not_that_it_is_known() {
    is_uncertain_once_forgotten(|door| door.welcome_and_cut_at_resume());
}

#[test]
fn a_connection_that_leaves_nothing_in_doubt_is_that_of_a_new_program() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        let first = peer.client;
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        let mut peer = door.welcome();
        let second = peer.client;
        assert_ne!(first, second, "a read leaves nothing in doubt");
        peer.open(AGAIN);
        let asked = peer.next();
        peer.answer(&asked, b"x");
        peer.next();
        peer.cut();
        let mut peer = door.welcome();
        assert_eq!(peer.client, second, "a write does");
        peer.open(HANDLE);
        let asked = peer.next();
        peer.answer(&asked, &1_u64.to_le_bytes());
    });
    let (_client, memory) = world.memory();
    memory.read_at(0, &mut [0]).unwrap();
    memory.write_at(0, b"x").unwrap();
    world.finish();
}

#[test]
fn another_provider_does_not_take_the_place_of_the_first() {
    for (write, code) in [(false, Code::PeerIdentity), (true, Code::Uncertain)] {
        let world = World::beside("spiffe://mem.example/provider/node-2", |door, other| {
            let mut peer = door.welcome();
            peer.open(HANDLE);
            peer.next();
            peer.cut();
            door.turn_into(other);
            assert!(door.accept().try_next().is_none(), "it is asked nothing");
        });
        let (_client, memory) = world.memory();
        let outcome = if write { memory.write_at(0, b"x") } else { memory.read_at(0, &mut [0]) };
        assert_eq!(outcome.unwrap_err().code(), code);
        world.finish();
    }
}

#[test]
fn a_right_of_an_earlier_life_is_not_opened_in_another() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        let mut peer = door.welcome_of((LIFE.0, ProviderId([9; 16])));
        let (frame, request) = peer.control();
        assert!(matches!(request, Request::Status), "{request:?}");
        peer.refuse(&frame, Code::NotAdmin);
    });
    let (client, memory) = world.memory();
    assert_eq!(memory.read_at(0, &mut [0]).unwrap_err().code(), Code::Epoch);
    assert_eq!(client.status().unwrap_err().code(), Code::NotAdmin, "the session goes on");
    world.finish();
}

#[test]
fn what_comes_behind_a_farewell_is_not_looked_at() {
    let (gone, is_gone) = mpsc::channel();
    let world = World::new(move |door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.end_and_go_on();
        gone.send(()).unwrap();
        let mut peer = door.welcome();
        peer.open(AGAIN);
        let first = peer.next();
        let mut frame = first.clone();
        let mut bytes = frame.body.len() as u64 - 24;
        while frame.header.has_more() {
            frame = peer.next();
            bytes += frame.body.len() as u64;
        }
        peer.answer(&first, &bytes.to_le_bytes());
    });
    let (client, memory) = world.memory();
    is_gone.recv().unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        done.send(memory.write_at(0, &vec![1; 1 << 20])).unwrap();
        drop((memory, client));
    });
    is_done.recv_timeout(Duration::from_secs(30)).expect("the client does not spin").unwrap();
    world.finish();
}

#[test]
fn a_right_that_the_node_had_no_time_to_close_is_closed_again() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let closes = |request: &Request| matches!(request, Request::Close { handle } if *handle == HANDLE);
        let (close, request) = peer.control();
        assert!(closes(&request), "{request:?}");
        peer.refuse(&close, Code::Busy);
        let (status, _) = peer.control();
        peer.refuse(&status, Code::NotAdmin);
        let (close, request) = peer.control();
        assert!(closes(&request), "{request:?}");
        peer.reply(&close, &Reply::Done);
        let (status, _) = peer.control();
        assert_eq!(status.header.verb, Verb::Control);
        peer.refuse(&status, Code::NotAdmin);
    });
    let (client, memory) = world.memory();
    drop(memory);
    for _ in 0..2 {
        assert_eq!(client.status().unwrap_err().code(), Code::NotAdmin);
    }
    world.finish();
}
