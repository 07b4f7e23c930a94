//! One sender, one receiver: a lane.
//!
//! ```
//! # use std::time::Duration;
//! # use libmem::{Access, Mapping, Revocation, Segment};
//! use libmem::sync::ring::{Lane, Shape, spsc};
//! # let descriptor = rustix::fs::memfd_create("doc", rustix::fs::MemfdFlags::CLOEXEC)?;
//! # rustix::fs::ftruncate(&descriptor, 1 << 16)?;
//! # let mapping = Mapping::new(vec![Segment { descriptor, bytes: 1 << 16 }], Access::ReadWrite, Revocation::new())?;
//!
//! let shape = Shape::new(4096, 256)?;
//! // As a rule each end is in a process of its own, with a mapping of its own.
//! let mut sender = spsc::Sender::new(Lane::in_one(&mapping, 0, shape), shape)?;
//! let mut receiver = spsc::Receiver::new(Lane::in_one(&mapping, 0, shape), shape)?;
//!
//! sender.send(b"the frames are ready", Duration::from_secs(1))?;
//! assert_eq!(receiver.receive(Duration::from_secs(1))?, b"the frames are ready");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use caps::error::{Code, Error, Result};

use super::shape::{BROKEN, Lane, Shape, plausible};
use crate::sync::Mapped;
use crate::sync::deadline::Deadline;
use crate::sync::doorbell;
use crate::sync::futex::Watched;
use crate::sync::limits::{RECHECK, SPINS};
use crate::sync::rotation;

/// The end that sends. A lane has one: two at once mix their messages (and break no memory).
#[derive(Debug)]
pub struct Sender<M> {
    lane: Lane<M>,
    shape: Shape,
    /// What we published. Only we move it, so it is never read again from the memory.
    tail: u64,
    /// What we know to have been taken. Read again only when there seems to be no room, so that the two ends do
    /// not pass a cache line to and fro for each message.
    head: u64,
    recheck: Duration,
}

impl<M: Mapped> Sender<M> {
    /// Attaches to a lane: a new one, all zero bytes, or one whose sender is gone.
    ///
    /// # Errors
    /// `E_RANGE` if the lane does not lie in its mappings; `E_PROTOCOL` if it holds what is no lane of this shape;
    /// `E_DENIED` if `sent` is read-only; `E_REVOKED`.
    pub fn new(lane: Lane<M>, shape: Shape) -> Result<Self> {
        lane.check(shape)?;
        let (head, tail) = (lane.taken.position().load()?, lane.sent.position().load()?);
        if !plausible(head, tail, shape) {
            return Err(BROKEN);
        }
        // The predecessor may have died asleep. Also says now whether we may write.
        doorbell::withdraw(&lane.sent.waits())?;
        Ok(Self { lane, shape, tail, head, recheck: RECHECK })
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// `E_BUSY` if there is none; `E_RANGE` if the message is longer than the shape says; `E_PROTOCOL` if
    /// the receiver wrote nonsense; `E_REVOKED`. In all of these nothing was sent, except that a revoke may
    /// come just after the message was published.
    pub fn try_send(&mut self, message: &[u8]) -> Result<()> {
        if message.len() > self.shape.message_bytes_max() {
            return Err(Error::new(Code::Range, "the message is longer than the ring's shape allows"));
        }
        let needed = Shape::taken_by(message.len());
        if self.room() < needed {
            self.look()?;
            if self.room() < needed {
                return Err(Error::new(Code::Busy, "the ring is full"));
            }
        }
        self.lane.sent.write(self.tail, message, self.shape)?;
        self.lane.sent.header(self.tail, self.shape).store(message.len() as u64)?; // at most 64 KiB
        let tail = self.tail.wrapping_add(needed);
        // Even if the wake-up fails: what may have been published is never written over.
        self.tail = tail;
        doorbell::publish(&self.lane.sent.position(), tail, &self.lane.taken.waits())
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// `E_TIMEOUT` after `timeout` (at most a day), with nothing sent; otherwise as [`Sender::try_send`], without `E_BUSY`.
    pub fn send(&mut self, message: &[u8], timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let mut spins = SPINS;
        loop {
            let rotations = rotation::count();
            match self.try_send(message) {
                Err(error) if error.code() == Code::Busy => {}
                result => return result,
            }
            let left = deadline.left()?;
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            let (head, waits) = (self.lane.taken.position(), self.lane.sent.waits());
            if doorbell::announce(&head, self.head, &waits)? {
                head.sleep(self.head, rotations, left.min(self.recheck))?;
            }
            doorbell::withdraw(&waits)?;
        }
    }

    /// The lane, for a successor in this process.
    pub fn into_lane(self) -> Lane<M> {
        self.lane
    }

    /// So that a test sees that a wake-up came, and not a look.
    #[cfg(test)]
    pub(super) const fn set_recheck(&mut self, recheck: Duration) {
        self.recheck = recheck;
    }

    const fn room(&self) -> u64 {
        // Never below 0: `head` was plausible when it was read, and each message fitted the room.
        self.shape.capacity() - self.tail.wrapping_sub(self.head)
    }

    /// Reads what was taken meanwhile.
    fn look(&mut self) -> Result<()> {
        let head = self.lane.taken.position().load()?;
        // Not past the tail, and not back: there is no more under way than we knew.
        if !plausible(head, self.tail, self.shape)
            || self.tail.wrapping_sub(head) > self.tail.wrapping_sub(self.head)
        {
            return Err(BROKEN);
        }
        self.head = head;
        Ok(())
    }
}

/// The end that receives. A lane has one: two at once take messages twice or not at all (and break no memory).
#[derive(Debug)]
pub struct Receiver<M> {
    lane: Lane<M>,
    shape: Shape,
    /// What we took. Only we move it.
    head: u64,
    /// What we know to have been published. Read again only when everything before it was taken.
    tail: u64,
    recheck: Duration,
}

impl<M: Mapped> Receiver<M> {
    /// Attaches to a lane: a new one, all zero bytes, or one whose receiver is gone.
    ///
    /// # Errors
    /// As [`Sender::new`], with `E_DENIED` if `taken` is read-only.
    pub fn new(lane: Lane<M>, shape: Shape) -> Result<Self> {
        lane.check(shape)?;
        let (head, tail) = (lane.taken.position().load()?, lane.sent.position().load()?);
        if !plausible(head, tail, shape) {
            return Err(BROKEN);
        }
        doorbell::withdraw(&lane.taken.waits())?;
        Ok(Self { lane, shape, head, tail, recheck: RECHECK })
    }

    /// Takes the next message into `message`, whose former content and length do not matter, if there is one now.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the sender wrote nonsense; `E_REVOKED`. Then what `message` holds is unspecified.
    pub fn try_receive_into(&mut self, message: &mut Vec<u8>) -> Result<bool> {
        if self.head == self.tail {
            self.look()?;
            if self.head == self.tail {
                return Ok(false);
            }
        }
        // Read once: what was checked is what is used.
        let length = self.lane.sent.header(self.head, self.shape).load()?;
        if length > self.shape.message_bytes_max() as u64 {
            return Err(BROKEN);
        }
        let length = length as usize; // at most 64 KiB
        let taken = Shape::taken_by(length);
        if taken > self.tail.wrapping_sub(self.head) {
            return Err(BROKEN);
        }
        message.resize(length, 0);
        self.lane.sent.read(self.head, message, self.shape)?;
        let head = self.head.wrapping_add(taken);
        self.head = head;
        doorbell::publish(&self.lane.taken.position(), head, &self.lane.sent.waits())?;
        Ok(true)
    }

    /// Takes the next message, if there is one now.
    ///
    /// # Errors
    /// As [`Receiver::try_receive_into`].
    pub fn try_receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.try_receive_into(&mut message)?.then_some(message))
    }

    /// Takes the next message, waiting for it.
    ///
    /// # Errors
    /// `E_TIMEOUT` after `timeout` (at most a day); otherwise as [`Receiver::try_receive_into`].
    pub fn receive(&mut self, timeout: Duration) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        self.receive_into(&mut message, timeout)?;
        Ok(message)
    }

    /// As [`Receiver::receive`], into a vector that can be used again.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub fn receive_into(&mut self, message: &mut Vec<u8>, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let mut spins = SPINS;
        loop {
            let rotations = rotation::count();
            if self.try_receive_into(message)? {
                return Ok(());
            }
            let left = deadline.left()?;
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if self.announce()? {
                let tail = self.lane.sent.position();
                tail.sleep(self.tail, rotations, left.min(self.recheck))?;
            }
            self.withdraw()?;
        }
    }

    /// The lane, for a successor in this process.
    pub fn into_lane(self) -> Lane<M> {
        self.lane
    }

    /// So that a test sees that a wake-up came, and not a look.
    #[cfg(test)]
    pub(super) const fn set_recheck(&mut self, recheck: Duration) {
        self.recheck = recheck;
    }

    /// Says that we are about to sleep. `true`: still nothing new.
    pub(super) fn announce(&self) -> Result<bool> {
        doorbell::announce(&self.lane.sent.position(), self.tail, &self.lane.taken.waits())
    }

    /// Says that we are up.
    pub(super) fn withdraw(&self) -> Result<()> {
        doorbell::withdraw(&self.lane.taken.waits())
    }

    /// What to sleep on.
    pub(super) fn watched(&self) -> Watched {
        self.lane.sent.position().watched(self.tail)
    }

    /// Reads what was published meanwhile.
    fn look(&mut self) -> Result<()> {
        let tail = self.lane.sent.position().load()?;
        // Nothing was left of what we knew, so any plausible tail is a step forward.
        if !plausible(self.head, tail, self.shape) {
            return Err(BROKEN);
        }
        self.tail = tail;
        Ok(())
    }
}
