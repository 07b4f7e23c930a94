//! `bench map`: how long until a lease that exists is mapped?
//!
//! *Again*: a session that has proven its key opens and maps a lease of 64 MiB whose opening is on record. *Cold*: a
//! new session connects, proves, presents a token of one block and maps; what the audit device took to record that
//! opening, which the node says in its answer, is subtracted and printed beside it. The client process is warm in
//! both. Beside them, in turns: `mmap` of a memfd of the same size, and one message to and fro over a Unix socket
//! with a descriptor in the answer, from a thread that does nothing else.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use caps::error::{Code, Error, Result};
use caps::rights::Rights;
use caps::token::{Token, seal};
use libmem::{Client, LeaseOptions, Lifetime};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::crew::{LEASE_TTL, Member};
use super::numbers::{Times, micros, timed};
use super::report::{Bound, Report};
use crate::node::Spawned;

/// Turns of opening again; a cold start has one for each [`COLD_EVERY`] of them.
pub const ROUNDS: u32 = 1_000;
const COLD_EVERY: u32 = 4;
/// Bytes of the lease.
const BYTES: u64 = 64 << 20;
/// Bytes of the message and of its answer in the baseline: about what an open takes.
const MESSAGE_BYTES: usize = 512;
/// Open and map again, p50 in microseconds.
const AGAIN: Bound = Bound::AtMost(150.0);
/// Cold, without the audit device, p50 in microseconds.
const COLD: Bound = Bound::AtMost(600.0);

pub fn bench(scratch: &Path, rounds: u32) -> Result<Report> {
    let mut report = Report::new("map");
    let node = Spawned::start(scratch, "bench", 2 * BYTES, None)?;
    let member = Member::join(&node, "mapper")?;
    let options = LeaseOptions::new(BYTES, LEASE_TTL).lifetime(Lifetime::Detached);
    // Sealed once, as the documentation of `open_mapped` advises to programs that open a token often.
    let token = seal(&member.client.lease(options)?.token)?;
    let memfd = memfd()?;
    let echo = Echo::start(memfd.as_fd().try_clone_to_owned().map_err(no_memory)?)?;
    drop(member.client.open_mapped(&token, Rights::READ)?);
    cold(&node, &member, &token)?;

    let [mut again, mut colds, mut audits, mut totals, mut mmaps, mut messages] = [const { Vec::new() }; 6];
    for round in 0..rounds {
        again.push(timed_ok(|| member.client.open_mapped(&token, Rights::READ))?);
        mmaps.push(timed_ok(|| map(&memfd))?);
        messages.push(timed_ok(|| echo.ask())?);
        if round % COLD_EVERY == 0 {
            let (took, audit) = cold(&node, &member, &token)?;
            totals.push(took);
            colds.push(took - audit);
            audits.push(audit);
        }
    }
    let [again, colds, audits, totals, mmaps, messages] =
        [again, colds, audits, totals, mmaps, messages].map(Times::of);
    report.param("rounds", rounds);
    report.param("bytes", BYTES);
    report.param("token_bytes", token.as_bytes().len());
    report.param("tier", crate::output::json::word(&member.client.welcome().tier));
    report.param("audit_file_system", super::machine::file_system(&node.dirs().audit()));
    report.headline(&again);
    report.ours("again", again.json(), again.text());
    report.ours("cold", colds.json(), colds.text());
    report.ours("cold_audit", audits.json(), audits.text());
    report.ours("cold_total", totals.json(), totals.text());
    report.theirs("mmap_memfd", mmaps.json(), mmaps.text());
    report.theirs("socket_with_descriptor", messages.json(), messages.text());
    report.ratio("time_vs_socket_and_mmap", again.p50() / (messages.p50() + mmaps.p50()), None);
    report.ratio("time_vs_socket_and_mmap_cold", colds.p50() / (messages.p50() + mmaps.p50()), None);
    report.bound("again_p50_us", again.p50(), AGAIN);
    report.bound("cold_p50_us", colds.p50(), COLD);
    tracing::debug!(again = micros(again.p50()), "measured");
    Ok(report)
}

/// The microseconds of `work`, whose result is dropped outside of them.
fn timed_ok<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let (took, done) = timed(work);
    done.map(|_| took)
}

/// A new session, from connecting to a mapping: microseconds, and those of the audit device among them.
fn cold(node: &Spawned, member: &Member, token: &Token) -> Result<(f64, f64)> {
    let endpoint = node.endpoint();
    let (took, opened) = timed(|| {
        let client = Client::connect(&endpoint, &member.key)?;
        client.open_mapped(token, Rights::READ)
    });
    Ok((took, super::numbers::of(opened?.facts().audit)))
}

fn no_memory(_: std::io::Error) -> Error {
    Error::new(Code::NoMemory, "no memory to compare with")
}

fn memfd() -> Result<OwnedFd> {
    let make = || {
        let file = rustix::fs::memfd_create("leasehold-bench", MemfdFlags::CLOEXEC)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES)?;
        Ok(file)
    };
    make().map_err(|errno: rustix::io::Errno| no_memory(errno.into()))
}

fn map(file: &OwnedFd) -> Result<memmap2::MmapRaw> {
    memmap2::MmapOptions::new().len(BYTES as usize).map_raw(file).map_err(no_memory)
}

/// A thread that answers each message with a descriptor.
struct Echo {
    socket: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(file: OwnedFd) -> Result<Self> {
        let failed = |_| Error::new(Code::System, "no sockets to compare with");
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::SEQPACKET);
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).map_err(failed)?;
        let thread = std::thread::spawn(move || {
            let mut packet = [0; MESSAGE_BYTES];
            // An error or an empty packet: the benchmark is over.
            while matches!(rustix::net::recv(&theirs, &mut packet[..], RecvFlags::empty()), Ok((1.., _))) {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [file.as_fd()];
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                let packet = [std::io::IoSlice::new(&packet)];
                if rustix::net::sendmsg(&theirs, &packet, &mut control, SendFlags::NOSIGNAL).is_err() {
                    return;
                }
            }
        });
        Ok(Self { socket: Some(ours), thread: Some(thread) })
    }

    fn ask(&self) -> Result<OwnedFd> {
        let gone = Error::new(Code::System, "the socket to compare with is gone");
        let socket = self.socket.as_ref().ok_or(gone.clone())?;
        let mut packet = [0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::net::send(socket, &packet, SendFlags::NOSIGNAL).map_err(|_| gone.clone())?;
        let mut into = [std::io::IoSliceMut::new(&mut packet)];
        rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|_| gone.clone())?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        descriptor.ok_or(gone)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.socket = None; // ends the thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and if it did it has said so
        }
    }
}
