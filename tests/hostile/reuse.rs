//! An attacker that dies and leaves its session to a child, while its number becomes another process'.

use std::fs;

use caps::wire::Request;
use libmem::Rights;
use serde::{Deserialize, Serialize};

use super::common::{Actor, Ask, SMALL, Said, USERS, until};
use super::scene::{Scene, Setting, not_run};
use super::stage::Stage;
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// The process that connected ends; its child has the socket, the descriptor and the mapping.
    LeftToAChild,
}

/// Where the kernel notes the number that it gave last. Whoever may write it chooses the next.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

attacks! {
    both {
        a_reused_pid_inherits_nothing_and_suffers_nothing => reused;
    }
}

fn reused(setting: Setting) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    if !is_possible() {
        let _: Option<()> = not_run(&format!("{LAST_PID} cannot be written here"));
        return;
    }
    let mut villain = scene.villain(Crime::Reuse(Row::LeftToAChild));
    let pid = villain.pid();
    assert_eq!(villain.gone(), None, "it ends by itself");
    // Somebody else, honest, gets the number: with a session, a lease and a mapping of its own.
    let key = scene.world.register();
    let mut heir = until("a process gets the number", || {
        choose(pid);
        let actor = Actor::start(USERS[2]);
        (actor.pid() == pid).then_some(actor)
    });
    let socket = scene.world.node.endpoint().path().expect("a socket").to_owned();
    let said = heir.ask(&Ask::Begin { socket, seed: *key.seed() });
    assert!(matches!(said, Said::Ready), "{said:?}");
    let (lease, token) = heir.lease(SMALL, 60_000, false);
    let memory = heir.open(&token, Rights::READ_WRITE, true);
    let write = Ask::Write { memory, offset: 0, bytes: b"mine".to_vec() };
    assert!(matches!(heir.ask(&write), Said::Done));

    villain.ready();
    scene.take_back();
    scene.judge(villain.after());
    assert_eq!(heir.read(memory, 0, 4), b"mine");
    assert!(matches!(heir.ask(&write), Said::Done));
    heir.release(lease.id);
    heir.leave();
    scene.end(villain);
}

/// Whether the next number can be chosen here.
pub fn is_possible() -> bool {
    fs::OpenOptions::new().write(true).open(LAST_PID).is_ok()
}

/// Has the next process get this number, if it is free and nobody is faster.
pub fn choose(pid: u32) {
    fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
}

pub fn play(row: Row, stage: &mut Stage) {
    let Row::LeftToAChild = row;
    let mut held = stage.open();
    // SAFETY: no other thread of this process holds a lock now; the parent ends at once, and the child goes on in its
    // place, until the test hangs up or the alarm rings.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child > 0 {
        // SAFETY: ends this process with nothing between.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a signal to this process in 60 seconds.
    unsafe { libc::alarm(60) };
    stage.acknowledged();
    let asked = match held.session.ask(&Request::Status) {
        Ok(_) => Outcome::Done,
        Err(_) => Outcome::Errno(libc::EPIPE),
    };
    stage.tried("the session of the dead", asked);
    stage.touch("the inherited mapping", held.start, held.bare.bytes);
}
