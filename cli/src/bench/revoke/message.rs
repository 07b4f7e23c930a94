//! What the benchmark and its mappers say to each other: one packet of JSON each, over the socket that is the mapper's
//! standard input. An order may carry a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use caps::error::{Code, Error, Result};
use caps::id::GrantId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::stripes::Found;

/// Most bytes of a packet: a path and a seed in hexadecimal are the longest things in one.
const PACKET_BYTES_MAX: usize = 1024;

/// To a mapper. A seed is in one of them: it passes through a socket between the benchmark and its own child.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Connect to the node as the principal of this seed.
    Begin { socket: std::path::PathBuf, seed: String },
    /// Accept the grant, map the lease, touch every page.
    MapGrant { grant: GrantId, write: bool },
    /// Map the file whose descriptor comes along, touch every page.
    MapFile { bytes: u64, write: bool },
    /// Accept the grant, map the lease, and be ready to write stripes of it.
    SurviveGrant { grant: GrantId, writer: u8, writers: u8 },
    /// Map the file whose descriptor comes along, and be ready to write stripes of it.
    SurviveFile { bytes: u64, writer: u8, writers: u8 },
    /// Write without pause.
    Go { side: Side },
    /// Say the longest pause since this was last asked, once more was written.
    Advance,
    /// Write no more.
    Halt { side: Side },
    /// Write no more to the lease, and judge what was written.
    Judge,
    /// Touch the last page over and over until it is gone.
    Touch,
    /// The same, but the memory should be gone already.
    Probe,
    /// Unmap.
    Forget,
}

/// What a survivor writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The lease, whose stripes last.
    Lease,
    /// A file of the baseline, which is forgotten.
    File,
}

/// From a mapper.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    Ready,
    /// Every page is there; this many bytes of them are in huge pages.
    Mapped {
        huge_bytes: u64,
    },
    /// The last page was touched, and is being touched.
    Touching,
    /// It is gone.
    Dead(Death),
    /// It writes, or does not write any more.
    Done,
    Advanced {
        pause_ns: u64,
    },
    Judged {
        steps: u64,
        found: Found,
    },
    Forgotten,
    Failed {
        code: String,
    },
}

/// When a mapping ended, as its process saw it. Nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Before the last touch that succeeded; `None` if the first one failed.
    pub alive_ns: Option<u64>,
    /// After the first touch that failed.
    pub dead_ns: u64,
}

/// Now, on the clock that all processes share, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither is negative: the clock counts from the machine's start.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn gone() -> Error {
    Error::new(Code::Unreachable, "the other end of a mapper's socket is gone")
}

/// Sends one packet.
///
/// # Errors
/// `E_UNREACHABLE` if nobody is there to take it.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let packet = serde_json::to_vec(message)
        .ok()
        .filter(|packet| packet.len() <= PACKET_BYTES_MAX)
        .ok_or(Error::new(Code::Internal, "a message to a mapper does not encode"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|_| gone())
}

/// Takes one packet.
///
/// # Errors
/// `E_UNREACHABLE` if none comes any more or in time; `E_PROTOCOL` if it is not understood.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Option<OwnedFd>)> {
    let mut packet = [0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut packet)];
    let received = rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
        .ok()
        .filter(|received| received.bytes > 0)
        .ok_or_else(gone)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let message = serde_json::from_slice(&packet[..received.bytes])
        .map_err(|_| Error::new(Code::Protocol, "a mapper's message is not understood"))?;
    Ok((message, descriptor))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_packet_arrives_whole_with_its_descriptor_and_a_hang_up_is_an_error() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let death = Answer::Dead(Death { alive_ns: Some(now_ns()), dead_ns: now_ns() });
        send(ours.as_fd(), &death, Some(ours.as_fd())).unwrap();
        send(ours.as_fd(), &Answer::Touching, None).unwrap();
        let (first, descriptor) = receive::<Answer>(theirs.as_fd()).unwrap();
        assert_eq!((first, descriptor.is_some()), (death, true));
        drop(descriptor); // the other end, once more
        let (second, none) = receive::<Answer>(theirs.as_fd()).unwrap();
        assert_eq!((second, none.is_none()), (Answer::Touching, true));
        drop(ours);
        assert_eq!(receive::<Answer>(theirs.as_fd()).unwrap_err().code(), Code::Unreachable);
    }
}
