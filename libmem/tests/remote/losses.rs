//! Connections that are lost: what is asked again, what is not, and for how long.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::{ClusterEpoch, ProviderId, SlotHandle};
use caps::rights::Rights;
use caps::wire::remote::{Add, Ask, Flags, Swap, Verb};
use caps::wire::{Request, cbor};
use libmem::Mediated;

use crate::node::{HANDLE, LIFE, World, token};

/// What a right is named on the second connection.
const AGAIN: SlotHandle = SlotHandle { slot: 5, epoch: 6 };
/// Another life of the same node.
const OTHER: (ClusterEpoch, ProviderId) = (LIFE.0, ProviderId([9; 16]));

#[test]
fn a_change_is_asked_again_under_its_number_and_with_the_same_content() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        let client = peer.client;
        peer.open(HANDLE);
        let first = peer.next();
        let Ask::Cas(swap) = Ask::decode(&first.header, &first.body).unwrap() else { panic!() };
        assert_eq!(*swap, Swap::new(HANDLE, 8, 1, 2));
        peer.cut();

        let mut peer = door.welcome();
        assert_eq!(peer.client, client, "it is the same program");
        peer.open(AGAIN);
        let second = peer.next();
        assert_eq!(second.header.request, first.header.request);
        let Ask::Cas(swap) = Ask::decode(&second.header, &second.body).unwrap() else { panic!() };
        assert_eq!(*swap, Swap::new(AGAIN, 8, 1, 2));
        peer.answer(&second, &1_u64.to_le_bytes());
        let next = peer.next();
        assert!(next.header.request > second.header.request, "a number is not used again");
        let Ask::FetchAdd(add) = Ask::decode(&next.header, &next.body).unwrap() else { panic!() };
        assert_eq!(*add, Add::new(AGAIN, 8, 3));
        peer.answer(&next, &2_u64.to_le_bytes());
    });
    let (_client, memory) = world.memory();
    assert_eq!(memory.compare_exchange_u64(8, 1, 2).unwrap(), 1);
    assert_eq!(memory.fetch_add_u64(8, 3).unwrap(), 2);
    world.finish();
}

#[test]
fn a_request_of_the_control_plane_is_asked_again_byte_by_byte() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        let (first, request) = peer.control();
        assert!(matches!(request, Request::RootRotate));
        peer.cut();
        let mut peer = door.welcome();
        let (second, _) = peer.control();
        assert_eq!((second.header.request, &second.body), (first.header.request, &first.body));
        peer.refuse(&second, Code::NotAdmin);
    });
    assert_eq!(world.client().root_rotate().unwrap_err().code(), Code::NotAdmin);
    world.finish();
}

#[test]
fn a_read_begins_again_and_a_write_goes_out_whole_again() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        let asked = peer.next();
        peer.frame(&asked, Flags::MORE, 0, b"old");
        peer.cut();
        let mut peer = door.welcome();
        peer.open(AGAIN);
        let asked = peer.next();
        peer.frame(&asked, Flags::MORE, 0, b"new");
        peer.answer(&asked, b"er");

        let first = peer.next();
        assert!(first.header.has_more());
        peer.cut();
        let mut peer = door.welcome();
        peer.open(HANDLE);
        let second = peer.next();
        assert_eq!((second.header.verb, second.header.request), (Verb::Write, first.header.request));
        assert_eq!(second.body[24..], first.body[24..], "all but the right's name there");
        let mut bytes = second.body.len() as u64 - 24;
        loop {
            let next = peer.next();
            bytes += next.body.len() as u64;
            if !next.header.has_more() {
                break;
            }
        }
        peer.answer(&second, &bytes.to_le_bytes());
    });
    let (_client, memory) = world.memory();
    let mut buffer = [0; 5];
    memory.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"newer");
    memory.write_at(0, &vec![3; 200_000]).unwrap();
    world.finish();
}

#[test]
fn of_a_pipeline_only_what_was_not_answered_is_asked_again() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        let asked: Vec<_> = (0..3).map(|_| peer.next()).collect();
        let answer = |peer: &mut crate::node::Peer, asked: &crate::node::Frame| {
            let pieces: Vec<_> =
                (0..asked.header.items).map(|index| caps::wire::remote::Piece::new(index, None, 0)).collect();
            peer.frame(asked, Flags::NONE, asked.header.items, zerocopy::IntoBytes::as_bytes(&pieces[..]));
        };
        answer(&mut peer, &asked[0]);
        peer.cut();
        let mut peer = door.welcome();
        peer.open(AGAIN);
        for before in &asked[1..] {
            let again = peer.next();
            assert_eq!(again.header.request, before.header.request);
            answer(&mut peer, &again);
        }
    });
    let (_client, memory) = world.memory();
    let mut nothing: Vec<[u8; 0]> = vec![[]; 3 * 512];
    let mut places: Vec<(u64, &mut [u8])> = nothing.iter_mut().map(|place| (0, &mut place[..])).collect();
    assert!(memory.gather(&mut places).unwrap().iter().all(|outcome| *outcome == Ok(0)));
    world.finish();
}

/// What `ask` comes to when its answer is lost with the node's life.
fn after_another_life(ask: impl FnOnce(&Mediated) -> libmem::Error) -> Code {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        let mut peer = door.welcome_of(OTHER);
        while let Some(frame) = peer.try_next() {
            let request: Request = cbor::decode(&frame.body).expect("nothing is asked again");
            match request {
                Request::Open { .. } => peer.refuse(&frame, Code::Epoch),
                other => panic!("{other:?}"),
            }
        }
    });
    let (client, memory) = world.memory();
    let code = ask(&memory).code();
    let after = memory.fetch_add_u64(0, 1).unwrap_err().code();
    assert_eq!(after, Code::Epoch, "the right went with the node's life");
    drop((memory, client));
    world.finish();
    code
}

#[test]
fn a_change_that_a_new_life_cannot_know_is_uncertain_and_a_read_is_not() {
    assert_eq!(after_another_life(|memory| memory.fetch_add_u64(0, 1).unwrap_err()), Code::Uncertain);
    assert_eq!(after_another_life(|memory| memory.write_at(0, b"x").unwrap_err()), Code::Uncertain);
    assert_eq!(after_another_life(|memory| memory.read_at(0, &mut [0]).unwrap_err()), Code::Epoch);
}

#[test]
fn a_change_whose_right_is_not_opened_again_is_uncertain() {
    for (write, code) in [(true, Code::Uncertain), (false, Code::TokenRevoked)] {
        let world = World::new(|door| {
            let mut peer = door.welcome();
            peer.open(HANDLE);
            peer.next();
            peer.cut();
            let mut peer = door.welcome();
            let (open, _) = peer.control();
            peer.refuse(&open, Code::TokenRevoked);
        });
        let (_client, memory) = world.memory();
        let outcome = if write { memory.write_at(0, b"x") } else { memory.read_at(0, &mut [0]) };
        assert_eq!(outcome.unwrap_err().code(), code);
        world.finish();
    }
}

#[test]
fn a_connection_that_ended_in_between_is_made_again_by_the_next_call() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        // As a node does with a session that was idle for too long.
        peer.fail(Verb::Control, caps::id::RequestId(0), Code::Timeout);
        peer.end();
        let mut peer = door.welcome();
        let (asked, _) = peer.control();
        peer.refuse(&asked, Code::NotAdmin);
    });
    assert_eq!(world.client().status().unwrap_err().code(), Code::NotAdmin);
    world.finish();
}

#[test]
fn a_dead_node_is_unreachable_in_time_and_uncertain_for_a_change_under_way() {
    for (write, code) in [(false, Code::Unreachable), (true, Code::Uncertain)] {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, (tell, told)) = (over.clone(), mpsc::channel());
        let world = World::new(move |door| {
            let mut peer = door.welcome();
            peer.open(HANDLE);
            peer.next();
            peer.cut();
            // Whoever comes is turned away.
            let mut attempts = 0;
            loop {
                drop(door.tcp());
                if stop.load(Ordering::SeqCst) {
                    break tell.send(attempts).unwrap();
                }
                attempts += 1;
            }
        });
        let endpoint = world.endpoint().reconnect(Duration::from_millis(1_000));
        let client = libmem::Client::connect(&endpoint, &crate::node::key()).unwrap();
        let memory = client.open_mediated(&token(), Rights::READ_WRITE).unwrap();
        let outcome = if write { memory.write_at(0, b"x") } else { memory.read_at(0, &mut [0]) };
        assert_eq!(outcome.unwrap_err().code(), code);
        over.store(true, Ordering::SeqCst);
        world.knock();
        // At once, then after at least 5, 10, 20, 40, 80, 160 and 320 ms: that is all that a second has room for.
        let attempts = told.recv().unwrap();
        assert!((2..=8).contains(&attempts), "{attempts}");
        world.finish();
    }
}

#[test]
fn a_node_that_comes_back_is_found_again() {
    let world = World::new(|door| {
        let mut peer = door.welcome();
        peer.open(HANDLE);
        peer.next();
        peer.cut();
        for _ in 0..3 {
            drop(door.tcp());
        }
        let mut peer = door.welcome();
        peer.open(AGAIN);
        let asked = peer.next();
        peer.answer(&asked, b"x");
    });
    let (_client, memory) = world.memory();
    let mut byte = [0];
    memory.read_at(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    world.finish();
}

#[test]
fn a_node_that_is_not_there_is_not_waited_for_when_connecting() {
    let world = World::new(|_| {});
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = Instant::now();
    let endpoint = libmem::Endpoint::tls(&gone, world.alice.clone());
    let error = libmem::Client::connect(&endpoint, &crate::node::key()).unwrap_err();
    assert_eq!(error.code(), Code::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(5));
    world.finish();
}

#[test]
fn a_node_that_does_not_answer_is_left_in_time_and_nothing_of_the_call_stays() {
    for (write, code) in [(false, Code::Timeout), (true, Code::Uncertain)] {
        let (late, done) = mpsc::channel::<()>();
        let world = World::new(move |door| {
            let mut silent = door.welcome();
            silent.open(HANDLE);
            let asked = silent.next();
            done.recv().unwrap();
            silent.answer(&asked, &1_u64.to_le_bytes()); // too late, to nobody
            let mut peer = door.welcome();
            peer.open(AGAIN);
            let asked = peer.next();
            peer.answer(&asked, b"x");
        });
        let endpoint = world.endpoint().timeout(Duration::from_millis(300));
        let client = libmem::Client::connect(&endpoint, &crate::node::key()).unwrap();
        let memory = client.open_mediated(&token(), Rights::READ_WRITE).unwrap();
        let outcome = if write { memory.write_at(0, b"x") } else { memory.read_at(0, &mut [0]) };
        assert_eq!(outcome.unwrap_err().code(), code);
        late.send(()).unwrap();
        let mut byte = [0];
        memory.read_at(0, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        world.finish();
    }
}

#[test]
fn a_node_without_room_to_remember_serves_and_leaves_a_lost_change_uncertain() {
    for full in [(true, false), (false, true), (true, true)] {
        let world = World::new(move |door| {
            let welcome = |full| if full { door.welcome_without_room() } else { door.welcome() };
            let mut peer = welcome(full.0);
            peer.open(HANDLE);
            let asked = peer.next();
            peer.answer(&asked, &1_u64.to_le_bytes());
            assert_eq!(peer.next().header.verb, Verb::FetchAdd);
            peer.cut();
            let mut peer = welcome(full.1);
            // What changes nothing is asked again, and what is new is asked.
            peer.open(AGAIN);
            assert_eq!(peer.next().header.verb, Verb::Read);
            peer.cut();
            let mut peer = welcome(full.1);
            peer.open(AGAIN);
            let read = peer.next();
            peer.answer(&read, b"all is well");
        });
        let (_client, memory) = world.memory();
        assert_eq!(memory.fetch_add_u64(8, 1).unwrap(), 1);
        assert_eq!(memory.fetch_add_u64(8, 1).unwrap_err().code(), Code::Uncertain, "{full:?}");
        let mut buffer = [0; 11];
        memory.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"all is well");
        world.finish();
    }
}
