//! A mapper that survives: it writes its stripes in a thread and says how long it was held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use super::mapper::Held;
use super::message::Answer;
use super::stripes::Stripes;

/// Writes between two looks at whether to stop.
const BATCH: u64 = 1024;
/// Longer than any rotation that is not stuck.
const WAIT: Duration = Duration::from_secs(30);

/// What is written to, and how far that came.
pub struct Writer {
    held: Arc<Held>,
    stripes: Stripes,
    running: Option<Running>,
}

struct Running {
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    /// The longest since it was last asked for, in nanoseconds.
    pause: Arc<AtomicU64>,
    thread: JoinHandle<Stripes>,
}

impl Writer {
    /// Writer number `writer` of `writers`. It does not write yet.
    pub fn new(held: Held, writer: u8, writers: u8) -> Result<Self> {
        let stripes = Stripes::new(writer, writers, held.mapping().len())?;
        Ok(Self { held: Arc::new(held), stripes, running: None })
    }

    /// Goes on from where it was.
    pub fn go(&mut self) {
        let (stop, steps, pause) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (held, mut stripes) = (self.held.clone(), self.stripes);
        let (to_stop, so_far, longest) = (stop.clone(), steps.clone(), pause.clone());
        so_far.store(stripes.steps(), Ordering::Relaxed);
        let thread = std::thread::spawn(move || {
            // Ends with the memory: what is left of it is judged by how many steps were done.
            while !to_stop.load(Ordering::Relaxed) && stripes.write(held.mapping(), BATCH).is_ok() {
                so_far.store(stripes.steps(), Ordering::Relaxed);
                longest.fetch_max(stripes.take_pause().as_nanos() as u64, Ordering::Relaxed);
            }
            stripes
        });
        self.running = Some(Running { stop, steps, pause, thread });
    }

    /// Waits until it has written, and says what its longest pause was since this was last asked.
    pub fn advance(&self) -> Result<Answer> {
        let Running { steps, pause, thread, .. } =
            self.running.as_ref().ok_or(Error::new(Code::Protocol, "this mapper does not write"))?;
        // The batch that is under way, and one more, so that the pause of the first is told.
        let (target, started) = (steps.load(Ordering::Relaxed) + 2 * BATCH, Instant::now());
        while steps.load(Ordering::Relaxed) < target {
            if thread.is_finished() {
                return Err(Error::new(Code::Revoked, "a survivor lost its memory"));
            }
            if started.elapsed() > WAIT {
                return Err(Error::new(Code::Timeout, "a survivor does not go on"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(Answer::Advanced { pause_ns: pause.swap(0, Ordering::Relaxed) })
    }

    /// Stops writing.
    pub fn halt(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::Relaxed);
            let panicked = |_| Error::new(Code::Internal, "a writer panicked");
            self.stripes = running.thread.join().map_err(panicked)?;
        }
        Ok(())
    }

    /// Judges every write so far.
    pub fn judge(&mut self) -> Result<Answer> {
        self.halt()?;
        let found = self.stripes.verify(self.held.mapping())?;
        Ok(Answer::Judged { steps: self.stripes.steps(), found })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.halt(); // a writer that panicked has said so
    }
}
