//! Attackers that end in the middle: at each step of the protocol a process sends itself SIGKILL.

use caps::time::Micros;
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::Lifetime;
use caps::wire::{Reply, Request};
use libmem::{LeaseRow, Rights};
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use super::common::raw::Raw;
use super::common::{SMALL, log};
use super::scene::{Exposed, Scene, Setting};
use super::stage::{PAGE, Stage};
use super::villain::Crime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Row {
    Connected,
    SaidHello,
    MidFrame,
    Proven,
    Leasing,
    OpenedNotReceived,
    Received,
    MappedAndWriting,
    Releasing,
}

attacks! {
    both {
        a_death_before_the_descriptor_is_received_leaves_nothing => |setting| dies(setting, Row::OpenedNotReceived);
        a_death_after_the_descriptor_is_received_leaves_nothing => |setting| dies(setting, Row::Received);
        a_death_while_writing_leaves_nothing => |setting| dies(setting, Row::MappedAndWriting);
    }
    whole("no descriptor of the shared region was asked for, so there is nothing to rotate") {
        a_death_after_connect_leaves_nothing => |setting| dies(setting, Row::Connected);
        a_death_after_hello_leaves_nothing => |setting| dies(setting, Row::SaidHello);
        a_death_in_mid_frame_leaves_nothing => |setting| dies(setting, Row::MidFrame);
        a_death_after_the_proof_leaves_nothing => |setting| dies(setting, Row::Proven);
        a_death_while_leasing_leaves_nothing => |setting| dies(setting, Row::Leasing);
        a_death_while_releasing_leaves_nothing => |setting| dies(setting, Row::Releasing);
    }
}

fn dies(setting: Setting, row: Row) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    if row == Row::OpenedNotReceived {
        scene.exposed = Exposed::Perhaps;
    }
    let mut villain = scene.villain(Crime::Die(row));
    let pid = villain.pid();
    assert_eq!(villain.gone(), Some(libc::SIGKILL));
    if row >= Row::Received {
        log::await_provider(&scene.world.node.audit(), "the entry of the holder's end", |entry| {
            entry["event"] == "holder.exit" && entry["signal"] == libc::SIGKILL && entry["peer_pid"] == pid
        });
    }
    scene.take_back();
    // What it leased for as long as it lives is gone as well: `end` sees that the books balance.
    let log = scene.end(villain);
    if row > Row::Leasing {
        let released = log::of(&log.provider, "lease.release");
        let exits = released.iter().filter(|entry| entry["cause"] == "holder_exit").count();
        // A release that was under way may have been faster than the death.
        assert!(exits == 1 || row == Row::Releasing, "{released:?}");
    }
}

pub fn play(row: Row, stage: &mut Stage) {
    let mut raw = Raw::silent(&stage.socket);
    if row == Row::Connected {
        die();
    }
    if row == Row::SaidHello {
        raw.hello(&stage.key).unwrap();
        die();
    }
    let mut raw = Raw::connect(&stage.socket, &stage.key).unwrap();
    if row == Row::Proven {
        die();
    }
    if row == Row::MidFrame {
        let packet = raw.packet(&open(stage));
        rustix::net::send(raw.as_fd(), &packet[..packet.len() / 2], SendFlags::NOSIGNAL).unwrap();
        die();
    }
    if row == Row::Leasing {
        raw.post(&lease()).unwrap();
        die();
    }
    let own: LeaseRow = match raw.ask(&lease()).unwrap() {
        Reply::Leased { lease, .. } => lease,
        other => panic!("{other:?}"),
    };
    if row == Row::Releasing {
        raw.post(&Request::LeaseRelease { lease: own.id }).unwrap();
        die();
    }
    if row == Row::OpenedNotReceived {
        raw.post(&open(stage)).unwrap();
        die();
    }
    let held = stage.open();
    if row == Row::Received {
        die();
    }
    let (start, bytes) = (held.start as usize, held.bare.bytes);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for round in 0..=u8::MAX {
            for offset in (0..bytes).step_by(PAGE) {
                // SAFETY: inside the mapping, in which no Rust object lies.
                unsafe { (start as *mut u8).add(offset + 3000).write_volatile(round) };
            }
            let _ = tell.send(()); // nobody listens after the first
        }
    });
    told.recv().unwrap();
    die();
}

fn open(stage: &Stage) -> Request {
    Request::Open { token: stage.token.clone(), rights: Rights::READ_WRITE, path: Path::Mapped }
}

fn lease() -> Request {
    Request::LeaseCreate(LeaseSpec {
        bytes: SMALL,
        ttl: Micros::from_millis(600_000),
        name: None,
        class: None,
        lifetime: Lifetime::Process,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    })
}

fn die() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!("SIGKILL cannot be survived")
}
