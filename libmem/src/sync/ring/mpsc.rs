//! Many senders, one receiver: a lane each.
//!
//! Senders do not share a ring, because then one that dies or lies between reserving and committing its place would hold up the
//! others, and one that is stopped there and goes on later would write into somebody else's message. With a lane
//! each, a sender can harm its own messages only; and if the lanes are leased one by one, it cannot even reach the others'. Then
//! the number of the lane says for certain who sent a message.
//!
//! Messages of one sender arrive in their order; lanes take turns, one message at a time. A sender is a
//! [`spsc::Sender`] of its lane.
//!
//! ```
//! # use std::time::Duration;
//! # use libmem::{Access, Mapping, Revocation, Segment};
//! use libmem::sync::ring::mpsc::{Arrival, Receiver};
//! use libmem::sync::ring::{Lane, Shape, spsc};
//! # let descriptor = rustix::fs::memfd_create("doc", rustix::fs::MemfdFlags::CLOEXEC)?;
//! # rustix::fs::ftruncate(&descriptor, 1 << 16)?;
//! # let mapping = Mapping::new(vec![Segment { descriptor, bytes: 1 << 16 }], Access::ReadWrite, Revocation::new())?;
//!
//! let shape = Shape::new(4096, 256)?;
//! let lane = |number| Lane::in_one(&mapping, number * shape.lane_bytes(), shape);
//! let mut receiver = Receiver::new((0..3).map(lane).collect(), shape)?;
//!
//! spsc::Sender::new(lane(2), shape)?.send(b"from the third", Duration::from_secs(1))?;
//! match receiver.receive(Duration::from_secs(1))? {
//!     Arrival::Message { lane, message } => assert_eq!((lane, &message[..]), (2, &b"from the third"[..])),
//!     Arrival::Ended { lane, error } => eprintln!("lane {lane}: {error}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use caps::error::{Code, Error, Result};

use super::shape::{Lane, Shape};
use super::spsc;
use crate::sync::Mapped;
use crate::sync::deadline::Deadline;
use crate::sync::limits::{RECHECK, RING_LANES_MAX, SPINS};
use crate::sync::{futex, rotation};

/// What came.
#[derive(Debug)]
pub enum Arrival {
    /// A message.
    Message {
        /// The number of its lane.
        lane: usize,
        /// Its bytes.
        message: Vec<u8>,
    },
    /// A lane will bring nothing more: its sender wrote nonsense (`E_PROTOCOL`), or its memory was taken back
    /// (`E_REVOKED`). Said once for each lane; [`Receiver::replace`] puts another in its place.
    Ended {
        /// The number of the lane.
        lane: usize,
        /// Why.
        error: Error,
    },
}

/// The end that receives from many.
#[derive(Debug)]
pub struct Receiver<M> {
    /// `None`: ended.
    lanes: Vec<Option<spsc::Receiver<M>>>,
    shape: Shape,
    /// Whose turn it is.
    next: usize,
    recheck: Duration,
}

impl<M: Mapped> Receiver<M> {
    /// Attaches to 1 to 64 lanes of one shape, numbered in this order.
    ///
    /// # Errors
    /// `E_RANGE` for none or too many; otherwise as [`spsc::Receiver::new`], for the first lane that fails.
    pub fn new(lanes: Vec<Lane<M>>, shape: Shape) -> Result<Self> {
        if lanes.is_empty() || lanes.len() > RING_LANES_MAX {
            return Err(Error::new(Code::Range, "a receiver has 1 to 64 lanes"));
        }
        let lanes = lanes
            .into_iter()
            .map(|lane| spsc::Receiver::new(lane, shape).map(Some))
            .collect::<Result<_>>()?;
        Ok(Self { lanes, shape, next: 0, recheck: RECHECK })
    }

    /// Puts another lane in the place of one, ended or not: another sender's.
    ///
    /// # Errors
    /// `E_RANGE` if there is no lane of this number; otherwise as [`spsc::Receiver::new`], and the old one stays.
    pub fn replace(&mut self, number: usize, lane: Lane<M>) -> Result<()> {
        let place =
            self.lanes.get_mut(number).ok_or(Error::new(Code::Range, "the receiver has no such lane"))?;
        *place = Some(spsc::Receiver::new(lane, self.shape)?);
        Ok(())
    }

    /// What comes next, if anything is there now. Looks at each lane once.
    ///
    /// # Errors
    /// `E_REVOKED` when every lane has ended (and that was said for each).
    pub fn try_receive(&mut self) -> Result<Option<Arrival>> {
        if self.lanes.iter().all(Option::is_none) {
            return Err(Error::new(Code::Revoked, "every lane of the receiver has ended"));
        }
        for _ in 0..self.lanes.len() {
            let number = self.next;
            self.next = (number + 1) % self.lanes.len();
            let Some(lane) = &mut self.lanes[number] else { continue };
            match lane.try_receive() {
                Ok(None) => {}
                Ok(Some(message)) => return Ok(Some(Arrival::Message { lane: number, message })),
                Err(error) => return Ok(Some(self.end(number, error))),
            }
        }
        Ok(None)
    }

    /// What comes next, waiting for it.
    ///
    /// # Errors
    /// `E_TIMEOUT` after `timeout` (at most a day); `E_REVOKED` when every lane has ended.
    pub fn receive(&mut self, timeout: Duration) -> Result<Arrival> {
        let deadline = Deadline::after(timeout);
        let mut spins = SPINS;
        loop {
            let rotations = rotation::count();
            if let Some(arrival) = self.try_receive()? {
                return Ok(arrival);
            }
            let left = deadline.left()?;
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if let Some(ended) = self.sleep(rotations, left)? {
                return Ok(ended);
            }
        }
    }

    /// Sleeps until any lane may have something.
    fn sleep(&mut self, rotations: u32, left: Duration) -> Result<Option<Arrival>> {
        let mut quiet = true;
        let mut words = Vec::with_capacity(self.lanes.len());
        for number in 0..self.lanes.len() {
            let Some(lane) = &self.lanes[number] else { continue };
            match lane.announce() {
                Ok(unchanged) => quiet &= unchanged,
                Err(error) => return Ok(Some(self.end(number, error))),
            }
            words.push(lane.watched());
        }
        if quiet {
            futex::sleep(&words, rotations, left.min(self.recheck))?;
        }
        for number in 0..self.lanes.len() {
            let Some(lane) = &self.lanes[number] else { continue };
            if let Err(error) = lane.withdraw() {
                return Ok(Some(self.end(number, error)));
            }
        }
        Ok(None)
    }

    /// Puts a lane aside. Flags that stay up because of it cost its neighbours' senders system calls until the next sleep.
    fn end(&mut self, lane: usize, error: Error) -> Arrival {
        self.lanes[lane] = None;
        Arrival::Ended { lane, error }
    }
}
