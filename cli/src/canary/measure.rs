//! One revocation, measured from both ends.
//!
//! A thread touches without pause; this one revokes. What must hold, and is looked at:
//!
//! - after the receipt, no touch that begins succeeds;
//! - the touching thread is told, and does not hang.
//!
//! It knows nothing of sessions and memory: a touch and a revocation are functions, so that a test can hand in one
//! that does not do what it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The right died.
    Measured {
        /// From the call until the receiver was refused: how long the right was of use at most.
        dead: Duration,
        /// From the call until the receipt.
        receipt: Duration,
    },
    /// Somebody refused: nothing is known.
    Skipped(Code),
    /// The promise was broken.
    Failed(Broken),
}

/// How a revocation did not do what its receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A touch succeeded that began after the receipt had come.
    Outlived,
    /// The receiver was told nothing: its access hangs.
    Hangs,
    /// The receiver found other bytes than the owner had written.
    NotShared,
    /// The owner, whose right was not revoked, lost its bytes.
    Lost,
}

impl Broken {
    /// In words, for the operator.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Outlived => "a touch succeeded after the revocation was acknowledged",
            Self::Hangs => "an access hangs after the revocation was acknowledged",
            Self::NotShared => "the receiver did not see what the owner had written",
            Self::Lost => "the owner lost bytes when the receiver's right was revoked",
        }
    }
}

/// Touches until it is refused, while `revoke` is called once. `patience` is how long after the receipt the touching
/// thread may be without an answer.
pub(super) fn measure<T>(
    touch: T,
    revoke: impl FnOnce() -> Result<(), Error>,
    patience: Duration,
) -> Result<Run, Error>
where
    T: Fn() -> Result<(), Error> + Send + Sync + 'static,
{
    let touch = Arc::new(touch);
    touch()?;
    let toucher = Toucher::start(touch.clone())?;
    let started = Instant::now();
    if let Err(error) = revoke() {
        toucher.stop.store(true, Ordering::SeqCst);
        return Err(error);
    }
    let receipt = started.elapsed();
    toucher.acknowledged.store(true, Ordering::SeqCst);
    if touch().is_ok() {
        toucher.stop.store(true, Ordering::SeqCst);
        return Ok(Run::Failed(Broken::Outlived));
    }
    Ok(match toucher.told.recv_timeout(patience) {
        Ok(Touched::Refused { at, code: Code::Revoked }) => {
            Run::Measured { dead: at.saturating_duration_since(started), receipt }
        }
        Ok(Touched::Refused { code, .. }) => Run::Skipped(code),
        Ok(Touched::Outlived) => Run::Failed(Broken::Outlived),
        Err(_) => Run::Failed(Broken::Hangs),
    })
}

enum Touched {
    Refused { at: Instant, code: Code },
    Outlived,
}

/// A thread that touches without pause. It is not joined: one that hangs must not take the canary along.
struct Toucher {
    acknowledged: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    told: mpsc::Receiver<Touched>,
}

impl Toucher {
    /// Returns once it has touched.
    fn start(touch: Arc<impl Fn() -> Result<(), Error> + Send + Sync + 'static>) -> Result<Self, Error> {
        let (tell, told) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let [acknowledged, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (is_acknowledged, is_stopped) = (acknowledged.clone(), stop.clone());
        let work = move || {
            let mut begin = Some(begin);
            while !is_stopped.load(Ordering::SeqCst) {
                // Looked at first: only a touch that begins after the receipt breaks the promise.
                let after = is_acknowledged.load(Ordering::SeqCst);
                let touched = match touch() {
                    Ok(()) if !after => {
                        if let Some(begin) = begin.take() {
                            let _ = begin.send(()); // who started this thread waits for it
                        }
                        continue;
                    }
                    Ok(()) => Touched::Outlived,
                    Err(error) => Touched::Refused { at: Instant::now(), code: error.code() },
                };
                let _ = tell.send(touched); // the run may have ended with another finding
                return;
            }
        };
        std::thread::Builder::new()
            .name("canary".to_owned())
            .spawn(work)
            .map_err(|_| Error::new(Code::System, "no thread for the canary"))?;
        // An error means that its first touch was refused, which it tells.
        let _ = begun.recv();
        Ok(Self { acknowledged, stop, told })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    const fn revoked() -> Error {
        Error::new(Code::Revoked, "the lease was taken back")
    }

    /// A right, as a cut that works or does not leaves it.
    #[derive(Clone, Default)]
    struct Right {
        dead: Arc<AtomicBool>,
    }

    impl Right {
        fn touch(&self) -> Result<(), Error> {
            if self.dead.load(Ordering::SeqCst) { Err(revoked()) } else { Ok(()) }
        }

        fn run(&self, revoke: impl FnOnce() -> Result<(), Error>) -> Result<Run, Error> {
            let right = self.clone();
            measure(move || right.touch(), revoke, PATIENCE)
        }
    }

    #[test]
    fn a_cut_that_works_is_measured() {
        let right = Right::default();
        let cut = || {
            std::thread::sleep(Duration::from_millis(5)); // what is measured takes time
            right.dead.store(true, Ordering::SeqCst);
            Ok(())
        };
        let Ok(Run::Measured { dead, receipt }) = right.run(cut) else { panic!("measured") };
        assert!(
            receipt >= Duration::from_millis(5) && dead >= Duration::from_millis(5),
            "{dead:?} {receipt:?}"
        );
    }

    #[test]
    fn a_receipt_without_a_cut_is_a_failure() {
        assert_eq!(Right::default().run(|| Ok(())), Ok(Run::Failed(Broken::Outlived)));
    }

    /// The mapping of one thread is dead, that of another is not.
    #[test]
    fn a_cut_that_comes_late_for_one_thread_is_a_failure() {
        let here = std::thread::current().id();
        let acknowledged = Arc::new(AtomicBool::new(false));
        let is_acknowledged = acknowledged.clone();
        let touch = move || match std::thread::current().id() == here {
            true if is_acknowledged.load(Ordering::SeqCst) => Err(revoked()),
            _ => Ok(()),
        };
        let revoke = move || {
            acknowledged.store(true, Ordering::SeqCst);
            Ok(())
        };
        assert_eq!(measure(touch, revoke, Duration::from_secs(10)), Ok(Run::Failed(Broken::Outlived)));
    }

    #[test]
    fn an_access_that_never_returns_is_a_failure() {
        let here = std::thread::current().id();
        let (dead, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(())));
        let held = gate.lock().unwrap();
        let (is_dead, wait) = (dead.clone(), gate.clone());
        let touch = move || {
            if is_dead.load(Ordering::SeqCst) {
                if std::thread::current().id() != here {
                    drop(wait.lock());
                }
                return Err(revoked());
            }
            Ok(())
        };
        let revoke = || {
            dead.store(true, Ordering::SeqCst);
            Ok(())
        };
        assert_eq!(measure(touch, revoke, PATIENCE), Ok(Run::Failed(Broken::Hangs)));
        drop(held);
    }

    #[test]
    fn a_refused_revocation_says_nothing_and_leaves_no_thread_touching() {
        let touches = Arc::new(AtomicU32::new(0));
        let counted = touches.clone();
        let touch = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let refused = || Err(Error::new(Code::Busy, "full"));
        assert_eq!(measure(touch, refused, PATIENCE).map_err(|error| error.code()), Err(Code::Busy));
        // The thread holds the only other handle of the closure, and so of the counter.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&touches) > 1 {
            assert!(Instant::now() < deadline, "it still touches");
            std::thread::yield_now();
        }
    }
}
