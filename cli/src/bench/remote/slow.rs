//! Peers that cost a server without using it: as many as told at any time, each dialled anew when the node has ended it.
//!
//! | every fourth | does |
//! |---|---|
//! | first | connects and says nothing |
//! | second | begins a TLS handshake, a byte at a time |
//! | third | proves a session, then sends one request a byte at a time |
//! | fourth | proves a session, asks for more than its socket holds, and never takes any of it |

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use caps::error::Result;
use caps::key::SigningKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use transport::Credentials;

use super::child::Guest;
use super::session::Session;
use super::{idle, stack};
use crate::identity;

/// How often each says its next byte.
const BEAT: Duration = Duration::from_millis(200);
/// Peers that are dialled anew in a beat, at most: they are to be slow, not a flood of handshakes.
const ANEW_MAX: usize = 20;
/// What a peer that never reads asks for, and how often.
const BYTES: u64 = 1 << 20;
const TIMES: usize = 16;
/// The beginning of a TLS record that holds a handshake of 512 bytes, and of its first message.
const RECORD: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

enum Peer {
    Silent(TcpStream),
    Handshaking(TcpStream, usize),
    Asking(Box<Session>, Vec<u8>, usize),
    Deaf(Box<Session>),
}

/// Keeps them up until the benchmark hangs up. `stand` is told once they all stand.
pub fn keep(guest: &Guest, peers: usize, stand: impl FnOnce(usize) -> Result<()>) -> Result<()> {
    idle::raise(peers as u64 + 256)?;
    let (credentials, key) = (guest.paper.load()?, identity::key_of_seed(&guest.seed)?);
    let mut held: Vec<_> =
        (0..peers).map(|n| Peer::dial(n, guest, &credentials, &key)).collect::<Result<_>>()?;
    stand(held.len())?;
    // Nothing more is said: whatever comes, or the input's end, is the end.
    while !says(std::io::stdin().as_fd(), PollFlags::IN, BEAT) {
        let mut anew = 0;
        for (n, peer) in held.iter_mut().enumerate() {
            if peer.beat() || anew == ANEW_MAX {
                continue;
            }
            anew += 1;
            // A node that lets nobody in at present is asked again at the next beat.
            if let Ok(next) = Peer::dial(n, guest, &credentials, &key) {
                *peer = next;
            }
        }
    }
    Ok(())
}

impl Peer {
    fn dial(n: usize, guest: &Guest, credentials: &Arc<Credentials>, key: &SigningKey) -> Result<Self> {
        let socket = || -> Result<TcpStream> {
            let socket = stack::dial(guest.address)?;
            socket.set_nonblocking(true).map_err(super::papers::failed("cannot set up a socket"))?;
            Ok(socket)
        };
        match n % 4 {
            0 => socket().map(Self::Silent),
            1 => socket().map(|socket| Self::Handshaking(socket, 0)),
            which => {
                let mut session = Session::open(guest.address, credentials, key)?;
                let right = session.open_right(&guest.token()?)?;
                let frame = session.frame(right)?;
                if which == 3 {
                    session.ask(right, BYTES, TIMES)?;
                }
                session.set_nonblocking()?;
                let session = Box::new(session);
                Ok(if which == 2 { Self::Asking(session, frame, 0) } else { Self::Deaf(session) })
            }
        }
    }

    /// Says its next byte. Whether the node still has it.
    fn beat(&mut self) -> bool {
        match self {
            Self::Silent(socket) => is_open(socket),
            Self::Handshaking(socket, said) => {
                let byte = RECORD.get(*said).copied().unwrap_or_default();
                *said += 1;
                is_open(socket) && socket.write_all(&[byte]).is_ok()
            }
            Self::Asking(session, frame, said) => {
                // The last byte is kept back: then it would be a request.
                let byte = frame[..frame.len() - 1].get(*said).copied();
                *said += 1;
                byte.is_none_or(|byte| session.say(&[byte]).is_ok()) && is_up(session)
            }
            Self::Deaf(session) => is_up(session),
        }
    }
}

/// Whether the other side has not hung up. What it says is thrown away.
fn is_open(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0; 64]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// The same, without taking anything off its socket.
fn is_up(session: &Session) -> bool {
    !says(session.socket(), PollFlags::RDHUP, Duration::ZERO)
}

/// Whether a descriptor says this, or is at its end, within a time.
fn says(descriptor: BorrowedFd<'_>, what: PollFlags, within: Duration) -> bool {
    let mut descriptor = [PollFd::from_borrowed_fd(descriptor, what)];
    let within = Timespec::try_from(within).ok();
    // Interrupted: asked again at the next beat.
    poll(&mut descriptor, within.as_ref()).is_ok_and(|many| many > 0)
}
