//! A client process, as the test that started it sees it.
//!
//! It is this very test binary once more, started as the one test `client_process`, which is ignored otherwise. Its
//! standard input is a socket pair, over which both sides speak; so what the test framework prints is in nobody's way.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use libmem::{LeaseId, LeaseRow, Rights, SigningKey};
use rustix::process::{Pid, Signal, kill_process};

use super::node::Node;
use super::script::{Ask, Said};
use super::writer::{By, Wrote};
use super::{PATIENCE, is_root, pass, until};

/// Set in client processes, so that running the ignored test by hand does nothing.
pub const CLIENT: &str = "LEASEHOLD_TEST_CLIENT";

/// Starts this binary as the ignored test `test`; as root, of the user `uid`. Its standard input is the other end.
pub fn spawn(test: &str, uid: u32) -> (Child, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    // /proc/self/exe can be executed whatever the directories on the way to the binary allow another user.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .current_dir("/")
        .env_clear()
        .env(CLIENT, "1")
        .stdin(OwnedFd::from(far))
        .stdout(Stdio::null());
    if is_root() {
        command.uid(uid).gid(uid);
    }
    (command.spawn().unwrap(), near)
}

/// A client process. Dropping it kills it.
pub struct Actor {
    child: Child,
    line: BufReader<UnixStream>,
}

impl Actor {
    /// Starts a client process with a session at `node`.
    #[track_caller]
    pub fn enter(node: &Node, key: &SigningKey, uid: u32) -> Self {
        let mut actor = Self::start(uid);
        let socket = node.endpoint().path().expect("a node here has a socket").to_owned();
        match actor.ask(&Ask::Begin { socket, seed: *key.seed() }) {
            Said::Ready => actor,
            other => panic!("a client could not begin: {other:?}"),
        }
    }

    /// Starts a process without a session.
    pub fn start(uid: u32) -> Self {
        let (child, near) = spawn("client_process", uid);
        Self { child, line: BufReader::new(near) }
    }

    /// Says a line.
    pub fn tell(&mut self, ask: &Ask) {
        let text = serde_json::to_string(ask).unwrap();
        writeln!(self.line.get_mut(), "{text}").unwrap();
    }

    /// Hears a line, or `None` if the process is gone.
    #[track_caller]
    pub fn hear(&mut self) -> Option<Said> {
        let mut text = String::new();
        match self.line.read_line(&mut text) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&text).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("a client did not answer: {error}"),
        }
    }

    /// Says a line and hears the answer.
    #[track_caller]
    pub fn ask(&mut self, ask: &Ask) -> Said {
        self.tell(ask);
        self.hear().unwrap_or_else(|| panic!("a client died at {ask:?}"))
    }

    /// Leases memory.
    #[track_caller]
    pub fn lease(&mut self, bytes: u64, ttl_ms: u64, detached: bool) -> (LeaseRow, String) {
        match self.ask(&Ask::Lease { bytes, ttl_ms, name: None, detached }) {
            Said::Leased { lease, token } => (lease, token),
            other => panic!("no lease: {other:?}"),
        }
    }

    /// Opens a token.
    #[track_caller]
    pub fn open(&mut self, token: &str, rights: Rights, mapped: bool) -> usize {
        match self.ask(&Ask::Open { token: token.to_owned(), rights, mapped }) {
            Said::Opened { memory } => memory,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Offers and has accepted; the receiver's token.
    #[track_caller]
    pub fn share(
        &mut self,
        lease: &LeaseRow,
        receiver: &mut Self,
        to: &SigningKey,
        rights: Rights,
    ) -> String {
        let ask = Ask::Offer { lease: lease.clone(), to: to.public(), rights, range: None };
        let Said::Offered { grant } = self.ask(&ask) else { panic!("not offered") };
        match receiver.ask(&Ask::Accept { grant, detached: true }) {
            Said::Accepted { token } => token,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Reads bytes.
    #[track_caller]
    pub fn read(&mut self, memory: usize, offset: u64, length: usize) -> Vec<u8> {
        match self.ask(&Ask::Read { memory, offset, length }) {
            Said::Bytes { bytes } => bytes,
            other => panic!("not read: {other:?}"),
        }
    }

    /// Has the process use memory until that ends; returns when it has begun.
    #[track_caller]
    pub fn start_using(&mut self, memory: usize, writing: bool, raw: bool) {
        let said = self.ask(&Ask::Use { memory, writing, raw });
        assert!(matches!(said, Said::Started), "{said:?}");
    }

    /// Has the process count in the word at `offset` of each page until that fails.
    #[track_caller]
    pub fn start_counting(&mut self, memory: usize, offset: u64) {
        let said = self.ask(&Ask::Count { memory, offset });
        assert!(matches!(said, Said::Started), "{said:?}");
    }

    /// Has the process write stripes in a thread.
    #[track_caller]
    pub fn start_writing(&mut self, memory: usize, bytes: u64, (writer, writers): (u8, u8), by: By) {
        let said = self.ask(&Ask::StartWriting { memory, bytes, writer, writers, by });
        assert!(matches!(said, Said::Started), "{said:?}");
    }

    /// Waits until it has written so much more. `false` if it has ended.
    #[track_caller]
    pub fn advance(&mut self, more: u64) -> bool {
        match self.ask(&Ask::Advance { more }) {
            Said::Advanced { writing } => writing,
            other => panic!("it does not write: {other:?}"),
        }
    }

    /// Stops its writing, or waits until that has ended by itself.
    #[track_caller]
    pub fn stop_writing(&mut self, by_itself: bool) -> Wrote {
        match self.ask(if by_itself { &Ask::WaitForEnd } else { &Ask::StopWriting }) {
            Said::Wrote(wrote) => wrote,
            other => panic!("it did not write: {other:?}"),
        }
    }

    /// Hears that guarded use ended, and with which code.
    #[track_caller]
    pub fn hear_stopped(&mut self) -> String {
        match self.hear() {
            Some(Said::Stopped { code }) => code,
            other => panic!("use did not stop: {other:?}"),
        }
    }

    /// Gives the process a descriptor.
    pub fn give(&mut self, descriptor: BorrowedFd<'_>) {
        pass::send(self.line.get_ref().as_fd(), descriptor);
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.wait();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("a client ends", || child.try_wait().unwrap())
    }

    /// Waits until a signal has ended it.
    #[track_caller]
    pub fn wait_for_signal(&mut self) -> i32 {
        let status = self.wait();
        status.signal().unwrap_or_else(|| panic!("a client was to die of a signal and ended with {status}"))
    }

    /// Lets it end, as it does when nobody has anything more to say.
    #[track_caller]
    pub fn leave(mut self) {
        self.line.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(self.wait().success());
    }

    /// Releases a lease of its own.
    #[track_caller]
    pub fn release(&mut self, lease: LeaseId) {
        let said = self.ask(&Ask::Release { lease });
        assert!(matches!(said, Said::Done), "{said:?}");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ours, and perhaps gone already
        let _ = self.child.wait();
    }
}
