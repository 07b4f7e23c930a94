//! The blocking session over a node's socket: one request, one answer, threads in turns.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caps::error::Result;
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::wire::reply::Welcome;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::calls::{self, Call};
use crate::endpoint::{Endpoint, HANDSHAKE_SECONDS, REQUEST_SECONDS};
use crate::region::{chunks, take_chunk};
use crate::session::handshake;
use crate::session::link::{Link, Ticket};
use crate::session::protocol::Answer;
use crate::session::socket::{self, Failure};

/// What a client and everything that it opened share.
pub(crate) struct Local {
    pub(crate) link: Arc<Link>,
    /// Held from a request to its answer, so that one thread at a time reads from the socket.
    turn: Mutex<()>,
    /// Held by who asks for the rotation channel, which is given once.
    asking: Mutex<()>,
    timeout: Duration,
}

impl Local {
    /// Connects and proves possession of `key`.
    pub(crate) fn connect(path: &Path, endpoint: &Endpoint, key: &SigningKey) -> Result<(Self, Welcome)> {
        let timeout = endpoint.handshake_timeout();
        let link = Arc::new(Link::new(socket::connect(path, timeout)?, endpoint.rotation_bound()));
        let mut session = Self { link, turn: Mutex::new(()), asking: Mutex::new(()), timeout };
        let (hello, request) = handshake::hello(key);
        let (proving, request) = hello.prove(key, session.call(calls::raw(request))?)?;
        let welcome = proving.welcome(session.call(calls::raw(request))?)?;
        session.timeout = endpoint.request_timeout();
        Ok((session, welcome))
    }

    /// Goes on with a session that another program began.
    pub(crate) fn confined(link: Arc<Link>) -> Result<(Self, PrincipalKey, Welcome)> {
        let timeout = Duration::from_secs(HANDSHAKE_SECONDS);
        let mut session = Self { link, turn: Mutex::new(()), asking: Mutex::new(()), timeout };
        let (holder, welcome) = session.call(calls::confine())?;
        session.timeout = Duration::from_secs(REQUEST_SECONDS);
        Ok((session, holder, welcome))
    }

    /// Whether the node hung up.
    pub(crate) fn is_over(&self) -> bool {
        let mut sockets = [PollFd::new(&**self.link.socket(), PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked is found out by the next request.
        poll(&mut sockets, Some(&now)).is_ok()
            && sockets[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
    }

    pub(crate) fn call<T>(&self, call: Call<T>) -> Result<T> {
        call.read(self.ask(&call)?.take_reply()?)
    }

    /// Fills `buffer` from `offset` on with the answers to `call`, which asks for so many bytes at an offset.
    pub(crate) fn fill(
        &self,
        offset: u64,
        buffer: &mut [u8],
        call: impl Fn(u64, u32) -> Call<(Vec<u8>, u32)>,
    ) -> Result<()> {
        for (at, place) in chunks(offset, buffer.len()) {
            let place = &mut buffer[place];
            // A chunk's length fits 32 bits many times over.
            let (bytes, crc) = self.call(call(at, place.len() as u32))?;
            take_chunk(place, &bytes, crc)?;
        }
        Ok(())
    }

    /// Asks for the rotation channel, unless the session has it.
    pub(crate) fn channel(&self) -> Result<()> {
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner); // as in `ask`
        if self.link.has_channel() {
            return Ok(());
        }
        let call = calls::channel();
        let mut answer = self.ask(&call)?;
        self.link.keep_channel(&mut answer)?;
        call.read(answer.take_reply()?)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<T>(&self, call: &Call<T>) -> Result<Answer> {
        // The lock guards no data, so a panic under it breaks nothing.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Deadline::after(self.timeout);
        let mut ticket: Ticket<'_> = loop {
            if let Some(ticket) = self.link.send(&call.request)? {
                break ticket;
            }
            if !self.wait(PollFlags::OUT, deadline)? {
                return Err(Failure::NotNow.error()); // nothing was sent
            }
        };
        loop {
            if !self.wait(PollFlags::IN, deadline)? {
                return Err(ticket.give_up());
            }
            if let Some(answer) = ticket.answer()? {
                return Ok(answer);
            }
        }
    }

    /// Waits until the socket is ready; false if the time is over first.
    fn wait(&self, ready: PollFlags, deadline: Deadline) -> Result<bool> {
        loop {
            let mut sockets = [PollFd::new(&**self.link.socket(), ready)];
            match poll(&mut sockets, Some(&deadline.left())) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(Failure::System(errno).error()),
            }
        }
    }
}

/// When waiting ends. `None`: never, for a time-out past what a clock can count.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self::at(Instant::now(), timeout)
    }

    /// `timeout` after `start`.
    pub(crate) fn at(start: Instant, timeout: Duration) -> Self {
        Self(start.checked_add(timeout))
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn left(self) -> Timespec {
        Timespec::try_from(self.remaining()).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_counts_down_to_zero_and_can_be_never() {
        let now = Deadline::after(Duration::ZERO);
        assert_eq!((now.left().tv_sec, now.left().tv_nsec), (0, 0));
        assert_eq!(Deadline::after(Duration::MAX).left().tv_sec, i64::MAX);
    }
}
