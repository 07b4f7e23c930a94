//! Many sessions that read, in one thread: each asks again as soon as it was answered, or refused.
//!
//! The thread waits for all sockets at once, so that an answer is seen when it comes and not when its session has its
//! turn, and the client costs about what the bytes cost it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use serde::{Deserialize, Serialize};

use super::child::Guest;
use super::idle;
use super::session::{Came, Session};
use crate::identity;

/// Events that are taken at once.
const EVENTS: usize = 256;
/// How long nothing may come before the crowd gives up.
const SILENCE: Duration = Duration::from_secs(10);
/// A waiting crowd looks at the time so often.
const LOOK: Duration = Duration::from_millis(100);

/// What came of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    /// Reads answered with their bytes.
    pub good: u64,
    /// Reads answered with `E_BUSY`.
    pub busy: u64,
    /// Reads answered with another failure.
    pub failed: u64,
    /// Sessions that the node ended.
    pub ended: u64,
    /// How long it was asked and answered, in microseconds.
    pub took_us: f64,
    /// The longest and the median time from asking to `E_BUSY`; 0 if there was none.
    pub busy_max_us: f64,
    pub busy_p50_us: f64,
    /// The median, the 99th of a hundred and the longest of the times to a good answer.
    pub good_p50_us: f64,
    pub good_p99_us: f64,
    pub good_max_us: f64,
}

impl Loaded {
    /// Good answers a second.
    pub fn goodput(&self) -> f64 {
        self.good as f64 / (self.took_us / 1e6).max(f64::MIN_POSITIVE)
    }
}

/// One session with what it waits for.
struct Member {
    session: Session,
    right: SlotHandle,
    /// When each unanswered request was sent, oldest first: answers come in that order.
    sent: std::collections::VecDeque<Instant>,
    ended: bool,
}

/// All of them.
pub struct Crowd {
    members: Vec<Member>,
    poll: std::os::fd::OwnedFd,
}

fn failed(errno: rustix::io::Errno) -> Error {
    Error::with(Code::System, format!("cannot wait for sockets: {errno}"))
}

impl Crowd {
    /// Proves so many sessions and opens the right in each.
    pub fn gather(guest: &Guest, sessions: usize) -> Result<Self> {
        idle::raise(sessions as u64 + 256)?;
        let (credentials, key) = (guest.paper.load()?, identity::key_of_seed(&guest.seed)?);
        let poll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let (token, mut members) = (guest.token()?, Vec::with_capacity(sessions));
        for n in 0..sessions {
            let mut session = Session::open(guest.address, &credentials, &key)?;
            let right = session.open_right(&token)?;
            epoll::add(&poll, session.socket(), EventData::new_u64(n as u64), EventFlags::IN)
                .map_err(failed)?;
            members.push(Member { session, right, sent: Default::default(), ended: false });
        }
        Ok(Self { members, poll })
    }

    /// Reads so many bytes over and over for `ms`, with `unanswered` requests under way on each session, and then takes
    /// what is still to come.
    pub fn load(&mut self, bytes: u64, unanswered: usize, ms: u64) -> Result<Loaded> {
        let (started, time) = (Instant::now(), Duration::from_millis(ms));
        let (mut found, mut good, mut busy) = (Loaded::default(), Vec::new(), Vec::new());
        for member in self.members.iter_mut().filter(|member| !member.ended) {
            member.ask(bytes, unanswered)?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        let mut heard = Instant::now();
        while self.members.iter().any(|member| !member.sent.is_empty()) {
            let wait = rustix::event::Timespec::try_from(LOOK).ok();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if !events.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                return Err(Error::new(Code::Timeout, "the node does not answer the crowd any more"));
            }
            for event in events.drain(..) {
                let event: Event = event;
                let Some(member) = self.members.get_mut(event.data.u64() as usize) else { continue };
                let again = started.elapsed() < time;
                if member.hear(&mut found, &mut good, &mut busy, again.then_some(bytes)).is_err() {
                    found.ended += 1;
                    member.end(&self.poll);
                }
            }
        }
        found.took_us = started.elapsed().as_secs_f64() * 1e6;
        let (good, busy) = (crate::bench::numbers::Times::of(good), crate::bench::numbers::Times::of(busy));
        (found.good_p50_us, found.good_p99_us, found.good_max_us) = (good.p50(), good.p99(), good.max());
        (found.busy_p50_us, found.busy_max_us) = (busy.p50(), busy.max());
        Ok(found)
    }
}

impl Member {
    fn ask(&mut self, bytes: u64, times: usize) -> Result<()> {
        self.session.ask(self.right, bytes, times)?;
        self.sent.extend(std::iter::repeat_n(Instant::now(), times));
        Ok(())
    }

    /// Takes what came, and asks again for as many answers as it has got if it is to.
    fn hear(
        &mut self,
        found: &mut Loaded,
        good: &mut Vec<f64>,
        busy: &mut Vec<f64>,
        again: Option<u64>,
    ) -> Result<()> {
        self.session.wait()?;
        let mut answered = 0;
        while let Some(came) = self.session.came()? {
            if matches!(came, Came::Part(_)) {
                continue;
            }
            answered += 1;
            let asked = self.sent.pop_front().ok_or(Error::new(Code::Protocol, "an answer to nothing"))?;
            let micros = crate::bench::numbers::of(asked.elapsed());
            match came {
                Came::Refused(Code::Busy) => {
                    found.busy += 1;
                    busy.push(micros);
                }
                Came::Refused(_) => found.failed += 1,
                Came::Part(_) | Came::Whole(_) => {
                    found.good += 1;
                    good.push(micros);
                }
            }
        }
        match again {
            Some(bytes) if answered > 0 => self.ask(bytes, answered),
            _ => Ok(()),
        }
    }

    /// The node has ended it: nothing is waited for any more.
    fn end(&mut self, poll: &std::os::fd::OwnedFd) {
        let _ = epoll::delete(poll.as_fd(), self.session.socket()); // its socket is ours until this is dropped
        self.sent.clear();
        self.ended = true;
    }
}
