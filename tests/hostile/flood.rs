//! Attackers that ask as fast as they can and read nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caps::wire::Request;
use caps::wire::request::Path;
use libmem::Rights;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use super::common::raw::Raw;
use super::common::{SMALL, log, until};
use super::scene::{Scene, Setting};
use super::stage::Stage;
use super::villain::Crime;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// Questions that the node answers by itself.
    Status,
    /// Rights, each of which is verified, judged and recorded.
    Open,
}

/// Sessions that ask at the same time.
const SESSIONS: usize = 4;
/// Requests that must be on their way before the right is taken back.
const ASKED: u64 = 400;

attacks! {
    both {
        a_flood_of_opens_holds_up_nobody => |setting| floods(setting, Row::Open);
    }
    whole("the flood of opens is the heavier one, and asks for what is rotated") {
        a_flood_of_questions_holds_up_nobody => |setting| floods(setting, Row::Status);
    }
}

fn floods(setting: Setting, row: Row) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    let mut villain = scene.villain(Crime::Flood(row));
    let pid = villain.pid();
    villain.ready();
    scene.take_back();
    log::await_provider(&scene.world.node.audit(), "who does not read is ended, on record", |entry| {
        entry["event"] == "fault.protocol" && entry["code"] == "E_TIMEOUT" && entry["peer_pid"] == pid
    });
    scene.judge(villain.after());
    scene.end(villain);
}

pub fn play(row: Row, stage: &mut Stage) {
    let held = stage.open();
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut session = Raw::connect(&stage.socket, &stage.key).unwrap();
            let request = match row {
                Row::Status => Request::Status,
                Row::Open => Request::Open {
                    token: stage.token.clone(),
                    rights: Rights::READ_WRITE,
                    path: Path::Mediated,
                },
            };
            let (over, asked) = (over.clone(), asked.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let packet = session.packet(&request);
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    match rustix::net::send(session.as_fd(), &packet, flags) {
                        Ok(_) => drop(asked.fetch_add(1, Ordering::SeqCst)),
                        // Full, for now; or for good, if the node has ended it.
                        Err(_) => std::thread::yield_now(),
                    }
                }
            })
        })
        .collect();
    until("the flood has risen", || (asked.load(Ordering::SeqCst) >= ASKED).then_some(()));
    stage.acknowledged();
    over.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    stage.touch("the old mapping", held.start, held.bare.bytes);
    drop(held.session);
}
