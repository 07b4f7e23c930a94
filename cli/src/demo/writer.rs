//! A writer of the demo: adds to the words of its own third of a shared region, as fast as it can, until it is told to
//! stop or its right is gone.
//!
//! It adds, and never sets: at the end the words of a third sum up to what its writer counted, or a write was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use libmem::Region;

/// Writers, each with as large a part of the region.
pub(super) const WRITERS: u64 = 3;
/// Bytes of a part.
pub(super) const PART_BYTES: u64 = 1 << 20;
/// Bytes of the region: less than half of what an ordinary user may pin by default, so that it can be copied there.
pub(super) const BOARD_BYTES: u64 = WRITERS * PART_BYTES;
/// Words that a writer adds to after it was told to stop: so that it has gone on after the revocation.
const MORE: u64 = 10_000;

/// A writer at work.
pub(super) struct Writer {
    region: Arc<Region>,
    first: u64,
    /// Adds that returned.
    added: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

/// How a writer's work ended.
struct Ended {
    /// Longest time from one add's return to the next one's.
    longest: Duration,
    /// Why it could not go on.
    refused: Option<Code>,
}

/// What came of it.
pub(super) struct Wrote {
    pub(super) added: u64,
    /// The sum of its words, where they can still be read.
    pub(super) found: u64,
    pub(super) longest: Duration,
    pub(super) refused: Option<Code>,
}

impl Writer {
    /// Starts to write into the part of this number. Returns once it has written.
    pub(super) fn start(region: Region, part: u64) -> Result<Self> {
        let (region, first) = (Arc::new(region), part * PART_BYTES);
        let (added, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        region.fetch_add_u64(first, 1)?;
        added.store(1, Ordering::SeqCst);
        let (board, count, is_stopped) = (region.clone(), added.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let (mut longest, mut before) = (Duration::ZERO, Instant::now());
            for offset in (first..first + PART_BYTES).step_by(8).cycle() {
                if is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(error) = board.fetch_add_u64(offset, 1) {
                    return Ended { longest, refused: Some(error.code()) };
                }
                count.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now();
                longest = longest.max(now - before);
                before = now;
            }
            Ended { longest, refused: None }
        });
        Ok(Self { region, first, added, stop, thread })
    }

    /// Waits until it was refused.
    pub(super) fn wait(self) -> Result<Wrote> {
        self.end()
    }

    /// Lets it write on for a little, and stops it.
    pub(super) fn stop(self) -> Result<Wrote> {
        let enough = self.added.load(Ordering::Relaxed) + MORE;
        while self.added.load(Ordering::Relaxed) < enough && !self.thread.is_finished() {
            std::thread::yield_now();
        }
        self.stop.store(true, Ordering::Relaxed);
        self.end()
    }

    fn end(self) -> Result<Wrote> {
        let Ended { longest, refused } =
            self.thread.join().map_err(|_| Error::new(Code::Internal, "a writer died"))?;
        let added = self.added.load(Ordering::SeqCst);
        let found = if refused.is_none() { sum(&self.region, self.first)? } else { 0 };
        Ok(Wrote { added, found, longest, refused })
    }
}

fn sum(region: &Region, first: u64) -> Result<u64> {
    (first..first + PART_BYTES).step_by(8).try_fold(0, |sum, offset| Ok(sum + region.load_u64(offset)?))
}
