//! The hostile process from inside: what its attacks have in common.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use libmem::{Rights, SigningKey, Token};

use super::common::actor::CLIENT;
use super::common::attack::{self, Bare};
use super::common::pass;
use super::common::raw::Raw;
use super::villain::{Brief, Crime, Outcome, Tried, Word};
use super::{die, flood, keep, map, pin, reuse, rotate, send, stall};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Where an attack stands: the line to the test, and what it was given.
pub struct Stage {
    line: BufReader<UnixStream>,
    pub socket: PathBuf,
    pub key: SigningKey,
    pub token: Token,
    tried: Vec<Tried>,
}

/// A right in use: the session, the descriptor and a mapping of the whole region for reading and writing.
pub struct Held {
    pub session: Raw,
    pub bare: Bare,
    pub start: *mut u8,
}

/// Plays the attack that the test names. Does nothing in a process that no test started.
pub fn play() {
    if std::env::var_os(CLIENT).is_none() {
        return;
    }
    // SAFETY: whoever starts a hostile process makes its standard input one end of a socket pair, and nothing else in
    // this process uses descriptor 0.
    let line = unsafe { UnixStream::from(OwnedFd::from_raw_fd(0)) };
    let mut line = BufReader::new(line);
    let mut text = String::new();
    line.read_line(&mut text).unwrap();
    let Brief { crime, socket, seed, token } = serde_json::from_str(&text).unwrap();
    let (key, token) = (SigningKey::from_seed(&seed), Token::parse_text(&token).unwrap());
    let mut stage = Stage { line, socket, key, token, tried: Vec::new() };
    match crime {
        Crime::Keep(row) => keep::play(row, &mut stage),
        Crime::Pin(row) => pin::play(row, &mut stage),
        Crime::Stall(row) => stall::play(row, &mut stage),
        Crime::Map(row) => map::play(row, &mut stage),
        Crime::Send(row) => send::play(row, &mut stage),
        Crime::Die(row) => die::play(row, &mut stage),
        Crime::Flood(row) => flood::play(row, &mut stage),
        Crime::Reuse(row) => reuse::play(row, &mut stage),
        Crime::Rotate(row) => rotate::play(row, &mut stage),
    }
    let over = Word::Over(std::mem::take(&mut stage.tried));
    stage.say(&over);
    // It keeps whatever it has until the test lets it go.
    let _ = stage.line.read_line(&mut String::new());
}

impl Stage {
    fn say(&mut self, word: &Word) {
        writeln!(self.line.get_mut(), "{}", serde_json::to_string(word).unwrap()).unwrap();
    }

    fn wait(&mut self) {
        let mut text = String::new();
        let heard = self.line.read_line(&mut text).unwrap_or(0);
        if heard == 0 {
            std::process::exit(0); // the test is gone
        }
    }

    /// One more session of the attacker's.
    pub fn connect(&self) -> Raw {
        Raw::connect(&self.socket, &self.key).unwrap()
    }

    /// Opens the right by hand and maps all of it.
    pub fn open(&self) -> Held {
        let mut session = self.connect();
        let bare = session.open_mapped(&self.token, Rights::READ_WRITE).unwrap();
        let start = attack::map(&bare.descriptor, bare.bytes, libc::PROT_READ | libc::PROT_WRITE).unwrap();
        Held { session, bare, start }
    }

    /// Says that everything is prepared, and returns once the take-back was acknowledged.
    pub fn acknowledged(&mut self) {
        self.ready();
        self.wait();
    }

    /// Says that everything is prepared.
    pub fn ready(&mut self) {
        self.say(&Word::Ready);
    }

    /// Returns once the take-back was acknowledged.
    pub fn await_acknowledgement(&mut self) {
        self.wait();
    }

    /// Waits for a descriptor from the test.
    pub fn take(&mut self) -> OwnedFd {
        self.say(&Word::Descriptor);
        pass::receive(self.line.get_ref().as_fd())
    }

    /// Passes a descriptor on.
    pub fn give(&mut self, descriptor: &OwnedFd) {
        self.say(&Word::Descriptor);
        self.wait();
        pass::send(self.line.get_ref().as_fd(), descriptor.as_fd());
    }

    /// Notes what a try came to.
    pub fn tried(&mut self, what: impl Into<String>, outcome: Outcome) {
        self.tried.push(Tried { what: what.into(), outcome });
    }

    /// Reads and writes first, middle and last page of a mapping, each in a child of its own.
    pub fn touch(&mut self, what: &str, start: *mut u8, bytes: usize) {
        for offset in [0, bytes / 2 / PAGE * PAGE, bytes - PAGE] {
            // SAFETY: `offset` is inside the mapping of `bytes` bytes at `start`.
            let place = unsafe { start.add(offset) };
            self.tried(format!("{what}: read at {offset}"), read(place));
            self.tried(format!("{what}: write at {offset}"), write(place));
        }
    }
}

/// Does something in a child process, which the kernel ends with its parent.
///
/// `act` runs in a copy of a process that may have had other threads: it may use memory and system calls, and nothing
/// that takes a lock or allocates.
pub fn fork(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child does nothing but what `act` does, which keeps to the rule above, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: plain system calls about this process; `_exit` runs no destructor of the parent's values.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::_exit(act());
        }
    }
    child
}

/// Waits for a child: the signal that ended it, or the code that it ended with.
pub fn reap(child: i32) -> Result<i32, i32> {
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(reaped, child);
    if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
}

/// Reads a byte in a child.
pub fn read(place: *const u8) -> Outcome {
    // SAFETY: a mapping of ours; that it faults is what this is about, and then only the child ends.
    match reap(fork(|| i32::from(unsafe { place.read_volatile() } != 0))) {
        Err(signal) => Outcome::Signal(signal),
        Ok(0) => Outcome::Zeros,
        Ok(_) => Outcome::Leak,
    }
}

/// Writes a byte in a child.
pub fn write(place: *mut u8) -> Outcome {
    let child = fork(|| {
        // SAFETY: as in `read`.
        unsafe { place.write_volatile(0xee) };
        0
    });
    match reap(child) {
        Err(signal) => Outcome::Signal(signal),
        Ok(_) => Outcome::Done,
    }
}

/// What a system call came to whose success breaks the promise.
pub fn refused(result: i64) -> Outcome {
    if result < 0 {
        Outcome::Errno(std::io::Error::last_os_error().raw_os_error().unwrap())
    } else {
        Outcome::Done
    }
}

/// What bytes that came from leased memory say.
pub fn judge(bytes: &[u8]) -> Outcome {
    if bytes.iter().all(|byte| *byte == 0) { Outcome::Zeros } else { Outcome::Leak }
}
