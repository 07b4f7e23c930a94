//! Two processes that wait for one another by words in the memory they share: an event each, a lock, a ring.

use std::time::Duration;

use libmem::sync::ring::{Lane, Shape, spsc};
use libmem::sync::{Event, Lock};
use libmem::{Region, Result};

use super::PATIENCE;

const PING: usize = 0;
const PONG: usize = 64;
const LOCK: usize = 128;
/// Counted up by both, each time under the lock, by a load and a store that are two steps.
pub const COUNTER: usize = 192;
const RING: usize = 4096;
const RING_BYTES: usize = 1024;
/// An owner of the lock that is silent for longer counts as dead. Far above what a rotation takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Plays one side for so many rounds, after so many that were played before.
///
/// # Errors
/// Those of the words.
///
/// # Panics
/// If a message is not the next.
pub fn play(region: &Region, first: bool, from: u64, rounds: u64) -> Result<()> {
    let memory = region.mapping();
    let (mine, other) = if first { (PING, PONG) } else { (PONG, PING) };
    let (mine, other) = (Event::new(memory, mine)?, Event::new(memory, other)?);
    let lock = Lock::new(memory, LOCK, LOCK_PATIENCE)?;
    let shape = Shape::new(RING_BYTES, 64)?;
    let lane = || Lane::in_one(memory, RING, shape);
    let mut sender = if first { Some(spsc::Sender::new(lane(), shape)?) } else { None };
    let mut receiver = if first { None } else { Some(spsc::Receiver::new(lane(), shape)?) };
    for round in from..from + rounds {
        if first {
            mine.notify_one()?;
            other.wait(round, PATIENCE)?;
        } else {
            other.wait(round, PATIENCE)?;
            mine.notify_one()?;
        }
        let guard = lock.lock(PATIENCE)?;
        let count = memory.load_u64(COUNTER)?;
        memory.store_u64(COUNTER, count + 1)?;
        guard.release()?;
        if let Some(sender) = &mut sender {
            sender.send(&round.to_le_bytes(), PATIENCE)?;
        }
        if let Some(receiver) = &mut receiver {
            assert_eq!(receiver.receive(PATIENCE)?, round.to_le_bytes(), "messages keep their order");
        }
    }
    Ok(())
}
