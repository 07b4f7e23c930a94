//! Accesses on every path that a right has, over and over, while the right is taken back.
//!
//! A *way* is one path through one opening of one grant: a mapping of its own, a slot of its own, a descriptor of its own,
//! a child's own copy of a mapping. Whoever uses several takes turns, so that each is used every few microseconds.
//!
//! ```text
//!  the test          ──── gives ──── waits ──────── called ───────────── receipt, acknowledged ────────────
//!  a way             ───── opens ─── succeeds, succeeds, succeeds, ... fails, fails, ... │ fails, AFTERWARDS times
//!  what is kept                             before_ns ┘        last_ns ┘  during_ns           after
//! ```
//!
//! One race is one way that
//!
//! - succeeded before the revoke was called, and did not fail before that: nothing else had ended it;
//! - was tried after the call and before the acknowledgement: it was on its way while the right was taken back;
//! - was tried [`AFTERWARDS`] times by accesses that began after the acknowledgement.
//!
//! It is lost if any access that began after the acknowledgement succeeded. What is no race by these words is counted
//! apart, and judged all the same. An access that begins after it saw a time on the board began after that time:
//! all are of one clock.
//!
//! An access of a mapping is one by `libmem`, then one by the kernel, in turn, because `libmem` touches nothing once it knows.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use libmem::{Client, Endpoint, Mediated, Region, Result, Rights, SigningKey, Token};
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use super::attack::{self, Bare};
use super::board::{Board, now_ns};
use super::raw::Raw;

/// The paths: a mapping, the node's calls, a descriptor in a process that was not given it by the node and that maps it
/// anew each time, a mapping that a forked child inherited.
pub const PATHS: [&str; 4] = ["mapped", "mediated", "descriptor", "child"];
const MAPPED: usize = 0;
const MEDIATED: usize = 1;
const DESCRIPTOR: usize = 2;
const CHILD: usize = 3;
/// Accesses of each way that begin after the acknowledgement.
pub const AFTERWARDS: u32 = 16;
/// Pause between two turns when all ways have ended and nothing is acknowledged: the processors are for who takes back.
const PAUSE: Duration = Duration::from_micros(100);
const PAGE: usize = 4096;

/// What one way lived through. Times are those at which an access began; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Which of [`PATHS`].
    pub path: usize,
    /// Which of the grants.
    pub grant: usize,
    /// The last success that was over before the revoke was called; 0 again after a failure that was.
    pub before_ns: u64,
    /// The last success.
    pub last_ns: u64,
    /// The first access after the revoke was called.
    pub during_ns: u64,
    /// Accesses that began after the acknowledgement.
    pub after: u32,
}

/// What a [`Trace`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It was a race.
    pub raced: bool,
    /// The way still succeeded after the revoke was called.
    pub contested: bool,
    /// An access that began after the acknowledgement succeeded.
    pub late: bool,
}

impl Trace {
    /// Judges it by the times of its grant.
    pub fn judge(&self, board: &Board) -> Verdict {
        let (called, acknowledged) = (board.called_ns(self.grant), board.acknowledged_ns(self.grant));
        let meanwhile = self.during_ns > 0 && self.during_ns < acknowledged;
        Verdict {
            raced: self.before_ns > 0 && meanwhile && self.after >= AFTERWARDS,
            contested: self.last_ns > called,
            late: self.last_ns > acknowledged,
        }
    }
}

/// A process' part in races: its sessions, which stay, so that a race costs nothing but what is raced.
pub struct Racer {
    board: Board,
    maps: Client,
    calls: Client,
    bare: Raw,
}

enum Access<'a> {
    Mapped(&'a Region),
    Mediated(&'a Mediated),
    Descriptor(&'a OwnedFd),
    /// In a child that inherited it, to whom `libmem` means nothing.
    Child(&'a Region),
}

struct Way<'a> {
    access: Access<'a>,
    trace: Trace,
    turn: u64,
}

impl<'a> Way<'a> {
    fn new(grant: usize, access: Access<'a>) -> Self {
        let path = match access {
            Access::Mapped(_) => MAPPED,
            Access::Mediated(_) => MEDIATED,
            Access::Descriptor(_) => DESCRIPTOR,
            Access::Child(_) => CHILD,
        };
        Self { access, trace: Trace { path, grant, ..Trace::default() }, turn: 0 }
    }

    /// Reads and writes in turn; whether that succeeded.
    fn access(&mut self) -> bool {
        self.turn += 1;
        let (write, by_kernel) = (self.turn & 1 == 0, self.turn & 2 == 0);
        match self.access {
            Access::Mapped(region) if by_kernel => touch(region.mapping().as_ptr(), write),
            Access::Mapped(region) if write => region.store_u64(region.base(), self.turn).is_ok(),
            Access::Mapped(region) => region.load_u64(region.base()).is_ok(),
            Access::Mediated(mediated) => {
                let start = mediated.facts().range.start();
                let mut word = self.turn.to_le_bytes();
                if write { mediated.write_at(start, &word) } else { mediated.read_at(start, &mut word) }
                    .is_ok()
            }
            Access::Descriptor(descriptor) => {
                let Ok(page) = attack::map(descriptor, PAGE, libc::PROT_READ | libc::PROT_WRITE) else {
                    return false;
                };
                let found = touch(page, write);
                // SAFETY: just mapped, and nothing refers to it.
                unsafe { libc::munmap(page.cast(), PAGE) };
                found
            }
            Access::Child(region) => touch(region.mapping().as_ptr(), write),
        }
    }

    /// One access, and what it says.
    fn step(&mut self, board: &Board) -> bool {
        let grant = self.trace.grant;
        let (called, acknowledged) = (board.called_ns(grant) > 0, board.acknowledged_ns(grant) > 0);
        let began_ns = now_ns();
        let succeeded = self.access();
        let trace = &mut self.trace;
        if succeeded {
            trace.last_ns = began_ns;
        }
        if board.called_ns(grant) == 0 {
            trace.before_ns = if succeeded { began_ns } else { 0 };
        }
        if called && trace.during_ns == 0 {
            trace.during_ns = began_ns;
        }
        trace.after += u32::from(acknowledged);
        succeeded
    }
}

/// Whether a page of this process is there to be read, or written. The kernel copies a word, so that a page that is gone
/// is an answer and no signal; it takes the fault that a load or a store would.
fn touch(page: *mut u8, write: bool) -> bool {
    let mut word = 0_u64;
    let near = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size_of::<u64>() };
    let far = libc::iovec { iov_base: page.cast(), iov_len: size_of::<u64>() };
    // SAFETY: copies a word between `word` and a page that is leased memory, in which no Rust object lies.
    let copied = unsafe {
        let own = libc::getpid();
        if write {
            libc::process_vm_writev(own, &raw const near, 1, &raw const far, 1, 0)
        } else {
            libc::process_vm_readv(own, &raw const near, 1, &raw const far, 1, 0)
        }
    };
    copied == size_of::<u64>() as isize
}

/// Uses the ways in turn until each was used often enough after its acknowledgement, or for [`PATIENCE`]. Calls `begun`
/// once each has succeeded.
fn hammer(board: &Board, ways: &mut [Way<'_>], begun: impl FnOnce()) {
    let mut begun = Some(begun);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let (mut alive, mut acknowledged) = (false, true);
        for way in ways.iter_mut().filter(|way| way.trace.after < AFTERWARDS) {
            alive |= way.step(board);
            acknowledged &= way.trace.after > 0;
        }
        if begun.is_some() && ways.iter().all(|way| way.trace.last_ns > 0) {
            begun.take().expect("looked at just now")();
        }
        if ways.iter().all(|way| way.trace.after >= AFTERWARDS) {
            return;
        }
        if !alive && !acknowledged {
            std::thread::sleep(PAUSE);
        }
    }
}

fn traces(ways: &[Way<'_>]) -> Vec<Trace> {
    ways.iter().map(|way| way.trace).collect()
}

impl Racer {
    /// With sessions of its own.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn new(socket: &Path, key: &SigningKey, board: Board) -> Result<Self> {
        let connect = || Client::connect(&Endpoint::unix(socket), key);
        Ok(Self { board, maps: connect()?, calls: connect()?, bare: Raw::connect(socket, key)? })
    }

    /// Opens each token so many times on each path, and uses all of that until it is over. `started` is called when each
    /// way has succeeded.
    ///
    /// # Errors
    /// What the node refuses with. Then nothing was used.
    pub fn race(&mut self, tokens: &[Token], opens: usize, started: impl FnOnce()) -> Result<Vec<Trace>> {
        let Self { board, maps, calls, bare } = self;
        let each = || (0..tokens.len()).flat_map(|grant| std::iter::repeat_n(grant, opens));
        let rights = Rights::READ_WRITE;
        // Beside one another: each waits for what the node records.
        let (regions, mediated, leaked) = std::thread::scope(|scope| {
            let mapped =
                scope.spawn(|| each().map(|grant| maps.open_mapped(&tokens[grant], rights)).collect());
            let called =
                scope.spawn(|| each().map(|grant| calls.open_mediated(&tokens[grant], rights)).collect());
            let leaked: Result<Vec<Bare>> =
                each().map(|grant| bare.open_mapped(&tokens[grant], rights)).collect();
            let mapped: Result<Vec<Region>> = mapped.join().unwrap();
            let called: Result<Vec<Mediated>> = called.join().unwrap();
            Ok::<_, libmem::Error>((mapped?, called?, leaked?))
        })?;
        let board = &*board;
        let way = |(grant, access)| Way::new(grant, access);
        let mut by_call: Vec<_> = each().zip(mediated.iter().map(Access::Mediated)).map(way).collect();
        let mut by_map: Vec<_> = each().zip(regions.iter().map(Access::Mapped)).map(way).collect();
        let pages = regions.iter().map(Access::Child);
        let descriptors = leaked.iter().map(|bare| Access::Descriptor(&bare.descriptor));
        let stranger =
            Stranger::start(board, each().zip(pages).chain(each().zip(descriptors)).map(way).collect());
        let (tell, told) = std::sync::mpsc::channel();
        let begun = || tell.send(()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| hammer(board, &mut by_call, begun));
            scope.spawn(|| hammer(board, &mut by_map, begun));
            // Past the deadline it goes on: what never succeeded is no race, and its trace says so.
            stranger.begun();
            for _ in 0..2 {
                let _ = told.recv_timeout(PATIENCE);
            }
            started();
        });
        Ok([traces(&by_call), traces(&by_map), stranger.join()].concat())
    }
}

/// A forked child without a session: it has the mappings that it inherited, and the descriptors.
struct Stranger {
    pid: libc::pid_t,
    told: std::io::PipeReader,
    ways: usize,
}

/// What the child writes for each way.
type Record = [u64; 6];

impl Stranger {
    fn start(board: &Board, mut ways: Vec<Way<'_>>) -> Self {
        let (told, mut tell) = std::io::pipe().unwrap();
        // SAFETY: the child copies words, maps and unmaps, asks for the time, writes to a pipe and ends: nothing that needs
        // a lock which another thread of this process might have held at the fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            hammer(board, &mut ways, || drop((&tell).write_all(&[1])));
            for Way { trace, .. } in &ways {
                let numbers = [trace.path as u64, trace.grant as u64, trace.before_ns, trace.last_ns];
                for number in numbers.into_iter().chain([trace.during_ns, trace.after.into()]) {
                    let _ = tell.write_all(&number.to_le_bytes());
                }
            }
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
        Self { pid, told, ways: ways.len() }
    }

    fn begun(&self) {
        let mut ready = libc::pollfd { fd: self.told.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor of ours.
        let ready = unsafe { libc::poll(&raw mut ready, 1, PATIENCE.as_millis() as libc::c_int) };
        assert!(ready >= 0, "poll");
    }

    fn join(mut self) -> Vec<Trace> {
        let mut bytes = Vec::new();
        self.told.read_to_end(&mut bytes).unwrap();
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }, self.pid);
        assert_eq!(status, 0, "the child ended otherwise");
        let records = self.ways * size_of::<Record>();
        // One byte more, if each way succeeded once.
        let skip = bytes.len().checked_sub(records).expect("a record of each way");
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let trace = |record: &[u8]| {
            let numbers: Vec<_> = record.chunks(size_of::<u64>()).map(number).collect();
            let [path, grant, before_ns, last_ns, during_ns, after] = numbers[..] else { unreachable!() };
            let (path, grant, after) = (path as usize, grant as usize, after as u32);
            Trace { path, grant, before_ns, last_ns, during_ns, after }
        };
        bytes[skip..].chunks(size_of::<Record>()).map(trace).collect()
    }
}
