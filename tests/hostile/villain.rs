//! A hostile process, as the test sees it, and what the two say to each other: one line of JSON each.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::common::{actor, pass, until};
use super::{die, flood, keep, map, pin, reuse, rotate, send, stall};

/// What a hostile process does: a row of one of the tables.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Crime {
    Keep(keep::Row),
    Pin(pin::Row),
    Stall(stall::Row),
    Map(map::Row),
    Send(send::Row),
    Die(die::Row),
    Flood(flood::Row),
    Reuse(reuse::Row),
    Rotate(rotate::Row),
}

/// What it is told at the start. The token passes through a socket pair between a test and its own child.
#[derive(Debug, Serialize, Deserialize)]
pub struct Brief {
    pub crime: Crime,
    pub socket: PathBuf,
    pub seed: [u8; 32],
    pub token: String,
}

/// What one try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The process, or its child, died of this signal.
    Signal(i32),
    /// The call failed with this errno.
    Errno(i32),
    /// It read zeros, and only zeros.
    Zeros,
    /// It read something else.
    Leak,
    /// It was done, and must not have been.
    Done,
    /// It was done, to nothing that is anybody's. Whether that is true is seen elsewhere, in the fresh lease.
    Orphaned,
    /// The node answered as it does to anybody.
    Answered,
}

/// One thing that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tried {
    pub what: String,
    pub outcome: Outcome,
}

/// What a hostile process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// Everything is prepared.
    Ready,
    /// A descriptor comes next, or is wanted.
    Descriptor,
    /// It is through with this.
    Over(Vec<Tried>),
}

/// The process. Dropping it kills it.
pub struct Villain {
    child: Child,
    line: BufReader<UnixStream>,
}

impl Villain {
    /// Starts it as the user `uid`.
    pub fn start(uid: u32, brief: &Brief) -> Self {
        let (child, line) = actor::spawn("hostile_process", uid);
        let mut villain = Self { child, line: BufReader::new(line) };
        villain.tell(&serde_json::to_string(brief).unwrap());
        villain
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.line.get_mut(), "{line}").unwrap();
    }

    #[track_caller]
    fn hear(&mut self) -> Word {
        let mut text = String::new();
        let heard = self.line.read_line(&mut text);
        assert!(heard.as_ref().is_ok_and(|bytes| *bytes > 0), "a hostile process says nothing: {heard:?}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until everything is prepared.
    #[track_caller]
    pub fn ready(&mut self) {
        let word = self.hear();
        assert!(matches!(word, Word::Ready), "{word:?}");
    }

    /// Tells it that the right was taken back, and hears what it could do then.
    #[track_caller]
    pub fn after(&mut self) -> Vec<Tried> {
        self.tell("after");
        match self.hear() {
            Word::Over(tried) => tried,
            word => panic!("{word:?}"),
        }
    }

    /// Tells it that its memory was rotated, and waits until it is prepared again.
    #[track_caller]
    pub fn rotated(&mut self) {
        self.tell("rotated");
        self.ready();
    }

    /// Gives it a descriptor that it waits for.
    #[track_caller]
    pub fn give(&mut self, descriptor: BorrowedFd<'_>) {
        let word = self.hear();
        assert!(matches!(word, Word::Descriptor), "{word:?}");
        pass::send(self.line.get_ref().as_fd(), descriptor);
    }

    /// Takes the descriptor that it passes on.
    #[track_caller]
    pub fn take(&mut self) -> OwnedFd {
        let word = self.hear();
        assert!(matches!(word, Word::Descriptor), "{word:?}");
        self.tell("send");
        pass::receive(self.line.get_ref().as_fd())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has stopped itself.
    pub fn stopped(&self) {
        let path = format!("/proc/{}/stat", self.pid());
        until("a process stops", || {
            let stat = std::fs::read_to_string(&path).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
        });
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Waits until it is gone; the signal that ended it, if one did.
    #[track_caller]
    pub fn gone(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("a hostile process ends", || child.try_wait().unwrap()).signal()
    }
}

impl Drop for Villain {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ours, and perhaps gone already
        let _ = self.child.wait();
    }
}
