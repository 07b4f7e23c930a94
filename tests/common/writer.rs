//! Writing in a thread, beside what a process does otherwise, such that afterwards each write can be judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use libmem::{Mediated, Memory, Result};
use serde::{Deserialize, Serialize};

use super::stripes::{Found, Stripes, Words};
use super::within_patience;

/// Writes between two looks at whether it is to stop. A mediated one is a call of the node.
const BATCH_MAPPED: u64 = 1024;
const BATCH_MEDIATED: u64 = 8;

/// How memory is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// Calls that survive a revoke: guarded where mapped, mediated otherwise.
    Calls,
    /// Plain loads and stores of a mapping.
    Raw,
}

/// What a writer's end was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrote {
    /// `OK` if it was stopped, else what its last write failed with.
    pub code: String,
    /// Writes that were done.
    pub steps: u64,
    /// Each of them, judged; nothing if the writer can no longer look.
    pub found: Option<Found>,
    /// The longest pause between two of them, in microseconds.
    pub pause_us: u64,
}

/// A thread that writes.
pub struct Writer {
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    thread: JoinHandle<Wrote>,
}

impl Writer {
    /// Starts to write `stripes` to the memory.
    pub fn start(memory: Arc<Memory>, mut stripes: Stripes, by: By) -> Self {
        let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (to_stop, so_far) = (stop.clone(), steps.clone());
        let thread = std::thread::spawn(move || {
            let batch = |stripes: &mut Stripes| match (&*memory, by) {
                (Memory::Mapped(region), By::Calls) => stripes.write(region.mapping(), BATCH_MAPPED),
                (Memory::Mapped(region), By::Raw) => {
                    stripes.write(&region.mapping().volatile(), BATCH_MAPPED)
                }
                (Memory::Mediated(mediated), _) => stripes.write(&Part(mediated), BATCH_MEDIATED),
            };
            let mut ended = Ok(());
            while ended.is_ok() && !to_stop.load(Ordering::Relaxed) {
                ended = batch(&mut stripes);
                so_far.store(stripes.steps(), Ordering::Relaxed);
            }
            let found = match &*memory {
                Memory::Mapped(region) => stripes.verify(region.mapping()),
                Memory::Mediated(mediated) => stripes.verify(&Part(mediated)),
            };
            Wrote {
                code: super::code(&ended).into(),
                steps: stripes.steps(),
                found: found.ok(),
                pause_us: stripes.take_pause().as_micros() as u64,
            }
        });
        Self { stop, steps, thread }
    }

    /// Waits until so many more writes are done; `false` if the writer has ended.
    #[track_caller]
    pub fn advance(&self, more: u64) -> bool {
        self.reach(self.steps.load(Ordering::Relaxed) + more)
    }

    /// Waits until so many writes are done in all; `false` if the writer has ended.
    #[track_caller]
    pub fn reach(&self, steps: u64) -> bool {
        loop {
            let before = self.steps.load(Ordering::Relaxed);
            let moved = || {
                let (ended, now) = (self.thread.is_finished(), self.steps.load(Ordering::Relaxed));
                (ended || now > before || now >= steps).then_some((ended, now))
            };
            match within_patience(moved).expect("a writer neither writes nor ends") {
                (true, _) => return false,
                (false, now) if now >= steps => return true,
                _ => {}
            }
        }
    }

    /// Stops it, and judges what it wrote.
    pub fn stop(self) -> Wrote {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn ended(self) -> Wrote {
        let over = within_patience(|| self.thread.is_finished().then_some(()));
        assert!(over.is_some(), "a writer whose right has ended goes on writing");
        self.thread.join().unwrap()
    }
}

/// The words of a mediated right, counted from where it begins, as in a mapping.
struct Part<'a>(&'a Mediated);

impl Part<'_> {
    fn at(&self, offset: usize) -> u64 {
        self.0.facts().range.start() + offset as u64
    }
}

impl Words for Part<'_> {
    fn load(&self, offset: usize) -> Result<u64> {
        let mut word = [0; 8];
        self.0.read_at(self.at(offset), &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn store(&self, offset: usize, value: u64) -> Result<()> {
        self.0.write_at(self.at(offset), &value.to_le_bytes())
    }
}
