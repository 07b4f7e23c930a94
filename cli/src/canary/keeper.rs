//! The node's side: starts the canary, listens to it, keeps its numbers.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::time::Micros;
use caps::wire::Name;
use caps::wire::row::{CanaryRow, CanaryState};
use policy::limits;
use policy::quota::Quota;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::line::{Order, Said};

/// The names of its two principals, which nobody else gets while it runs.
pub(crate) const NAMES: [&str; 2] = ["canary-owner", "canary-receiver"];

/// What its owner may have: one lease, a second while the first is taken back, few grants, and few open rights, which
/// its receiver pays for by itself.
pub(crate) const fn quota(bytes: u64) -> Quota {
    Quota {
        leases: 2,
        leased_bytes: 2 * bytes,
        resident_bytes: 4 * bytes,
        shared_bytes: 4 * bytes,
        grants: 4,
        opens: 16,
        mappings: 16,
    }
}

/// A canary that was started and knows nothing yet. Dropping it ends it.
pub(crate) struct Canary {
    stdin: ChildStdin,
    stdout: OwnedFd,
    death: OwnedFd,
}

impl Canary {
    /// Starts the process. Call it before the node gives up the calls that this needs.
    ///
    /// # Errors
    /// `E_SYSTEM`.
    pub(crate) fn start() -> Result<Self> {
        let failed = |_| Error::new(Code::System, "the canary cannot be started");
        let mut child = Command::new("/proc/self/exe")
            .arg0("leasehold-canary")
            .arg("canary")
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(Code::Internal, "a pipe is missing"));
        };
        let death = pidfd_open(Pid::from_child(&child), PidfdFlags::NONBLOCK)
            .map_err(|_| Error::new(Code::System, "the canary cannot be watched"))?;
        Ok(Self { stdin, stdout: stdout.into(), death })
    }
}

/// Listens to a canary. Dropping it ends the canary; nobody waits for it.
pub(crate) struct Keeper {
    stdin: ChildStdin,
    heard: Heard,
    death: AsyncFd<OwnedFd>,
}

impl Keeper {
    /// Takes a canary into its care and hears its two public keys, the owner's and the receiver's.
    ///
    /// # Errors
    /// `E_SYSTEM`; `E_TIMEOUT` or `E_UNREACHABLE` if it does not say them.
    pub(crate) async fn of(canary: Canary) -> Result<(Self, [PrincipalKey; 2])> {
        let failed = |_| Error::new(Code::System, "the canary cannot be listened to");
        let Canary { stdin, stdout, death } = canary;
        let mut heard = Heard { pipe: Receiver::from_owned_fd(stdout).map_err(failed)?, line: Vec::new() };
        let death = provider::watch(death).map_err(failed)?;
        let span = Duration::from_millis(limits::CANARY_START_MS_MAX);
        match timeout(span, heard.next()).await {
            Ok(Some(Said::Keys { owner, receiver })) => Ok((Self { stdin, heard, death }, [owner, receiver])),
            Ok(_) => Err(Error::new(Code::Unreachable, "the canary ended when it was started")),
            Err(_) => Err(Error::new(Code::Timeout, "the canary does not start")),
        }
    }

    /// Has it connect and begin. `near` is where its lease should be, if there is a choice: what it cannot map, it cannot try.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if it is gone.
    pub(crate) fn begin(
        &mut self,
        socket: &Path,
        every: Micros,
        ttl: Micros,
        bytes: u64,
        near: Option<Name>,
    ) -> Result<()> {
        let order = Order::Begin {
            socket: socket.to_owned(),
            every_ms: every.as_millis(),
            ttl_ms: ttl.as_millis(),
            bytes,
            near,
        };
        let text = serde_json::to_string(&order)
            .map_err(|_| Error::new(Code::Internal, "a line does not encode"))?;
        writeln!(self.stdin, "{text}").map_err(|_| Error::new(Code::Unreachable, "the canary is gone"))
    }

    /// Listens until it ends, and then has nothing to say any more.
    pub(crate) async fn listen(mut self, health: Arc<Health>) {
        let most = health.silence_max();
        loop {
            match timeout(most, self.heard.next()).await {
                Ok(Some(said)) => health.note(&said),
                Ok(None) => break,
                Err(_) => tracing::error!("the revocation canary is silent"),
            }
        }
        health.stopped();
        // The kernel keeps a dead child until its parent has looked.
        if self.death.readable().await.is_ok() {
            let _ = waitid(WaitId::PidFd(self.death.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Its lines, each of bounded length.
struct Heard {
    pipe: Receiver,
    line: Vec<u8>,
}

impl Heard {
    /// `None` once it ended, or said what it never says. May be dropped and called again.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.line.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            let left = limits::CANARY_LINE_BYTES_MAX.checked_sub(self.line.len()).filter(|left| *left > 0)?;
            self.pipe.readable().await.ok()?;
            let mut part = [0; limits::CANARY_LINE_BYTES_MAX];
            match self.pipe.try_read(&mut part[..left]) {
                Ok(0) => return None,
                Ok(read) => self.line.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }
}

/// The numbers, as `leasehold status` asks for them.
pub(crate) struct Health {
    every: Micros,
    /// Held for an addition, or for a sort of the newest runs.
    numbers: Mutex<Numbers>,
}

struct Numbers {
    started: Instant,
    heard: Option<Instant>,
    /// Of the newest runs, in microseconds, the newest last.
    dead: VecDeque<u64>,
    receipt: u64,
    runs: u64,
    failures: u64,
    skipped: u64,
    state: CanaryState,
    said: String,
}

impl Health {
    pub(crate) fn new(every: Micros) -> Self {
        let numbers = Numbers {
            started: Instant::now(),
            heard: None,
            dead: VecDeque::with_capacity(limits::CANARY_RUNS_KEPT),
            receipt: 0,
            runs: 0,
            failures: 0,
            skipped: 0,
            state: CanaryState::Waiting,
            said: String::new(),
        };
        Self { every, numbers: Mutex::new(numbers) }
    }

    /// After so long without a word it counts as stopped.
    fn silence_max(&self) -> Duration {
        Duration::from_micros(self.every.0) + Duration::from_millis(limits::CANARY_LATE_MS_MAX)
    }

    fn note(&self, said: &Said) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = numbers.state;
        numbers.heard = Some(Instant::now());
        match said {
            Said::Keys { .. } => {}
            Said::Measured { dead_us, receipt_us } => {
                if numbers.dead.len() == limits::CANARY_RUNS_KEPT {
                    numbers.dead.pop_front();
                }
                numbers.dead.push_back(*dead_us);
                numbers.receipt = *receipt_us;
                numbers.runs += 1;
                numbers.become_unless_failed(CanaryState::Ok, "");
            }
            Said::Skipped { code } => {
                numbers.skipped += 1;
                numbers.become_unless_failed(CanaryState::CouldNotRun, code);
                if before != CanaryState::CouldNotRun {
                    tracing::warn!(%code, "the revocation canary could not run");
                }
            }
            Said::Failed { what } => {
                numbers.failures += 1;
                numbers.runs += 1;
                numbers.state = CanaryState::Failed;
                numbers.said.clone_from(what);
                tracing::error!(%what, "REVOCATION FAILED: the canary found that a revocation did not do what its receipt says");
            }
        }
    }

    /// It is gone, or never came.
    pub(crate) fn stopped(&self) {
        tracing::error!("the revocation canary has stopped; start the node again to have one");
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.become_unless_failed(CanaryState::Stopped, "its process ended");
    }

    /// How it is now.
    pub(crate) fn row(&self) -> CanaryRow {
        self.row_at(Instant::now())
    }

    fn row_at(&self, now: Instant) -> CanaryRow {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = numbers.dead.iter().copied().collect();
        sorted.sort_unstable();
        let silent = now.saturating_duration_since(numbers.heard.unwrap_or(numbers.started));
        let is_silent = silent > self.silence_max() && numbers.state != CanaryState::Failed;
        CanaryRow {
            state: if is_silent { CanaryState::Stopped } else { numbers.state },
            every: self.every,
            last: Micros(numbers.dead.back().copied().unwrap_or_default()),
            p50: Micros(percentile(&sorted, 50)),
            p99: Micros(percentile(&sorted, 99)),
            receipt: Micros(numbers.receipt),
            runs: numbers.runs,
            failures: numbers.failures,
            skipped: numbers.skipped,
            age: numbers.heard.map(|heard| {
                let age = now.saturating_duration_since(heard).as_micros();
                Micros(u64::try_from(age).unwrap_or(u64::MAX))
            }),
            said: if is_silent && numbers.said.is_empty() {
                "it is silent".to_owned()
            } else {
                numbers.said.clone()
            },
        }
    }
}

impl Numbers {
    /// What was found once is not forgotten because later runs are well.
    fn become_unless_failed(&mut self, state: CanaryState, said: &str) {
        if self.state != CanaryState::Failed {
            self.state = state;
            said.clone_into(&mut self.said);
        }
    }
}

/// The smallest number that `percent` of them do not exceed; zero of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Micros::from_millis(10_000))
    }

    fn measured(dead_us: u64) -> Said {
        Said::Measured { dead_us, receipt_us: dead_us + 1 }
    }

    #[test]
    fn it_waits_and_then_has_numbers() {
        let health = health();
        assert_eq!((health.row().state, health.row().age), (CanaryState::Waiting, None));
        (1..=1_000).for_each(|us| health.note(&measured(us)));
        let row = health.row();
        assert_eq!(
            (row.state, row.runs, row.last, row.receipt),
            (CanaryState::Ok, 1_000, Micros(1_000), Micros(1_001))
        );
        // Of the newest: 745 to 1,000.
        assert_eq!((row.p50, row.p99), (Micros(872), Micros(998)));
        assert_eq!((percentile(&[], 99), percentile(&[7], 50)), (0, 7));
    }

    #[test]
    fn what_it_could_not_do_is_shown_and_passes() {
        let health = health();
        health.note(&Said::Skipped { code: "E_BUSY".into() });
        let row = health.row();
        assert_eq!((row.state, row.skipped, &row.said[..]), (CanaryState::CouldNotRun, 1, "E_BUSY"));
        health.note(&measured(5));
        let row = health.row();
        assert_eq!((row.state, row.skipped, &row.said[..]), (CanaryState::Ok, 1, ""));
    }

    #[test]
    fn a_failure_stays() {
        let health = health();
        health.note(&Said::Failed { what: "it lives".into() });
        health.note(&measured(5));
        health.stopped();
        let row = health.row_at(Instant::now() + Duration::from_secs(3_600));
        assert_eq!((row.state, row.failures, &row.said[..]), (CanaryState::Failed, 1, "it lives"));
    }

    #[test]
    fn who_is_silent_has_stopped() {
        let health = health();
        let late = Duration::from_millis(10_000 + limits::CANARY_LATE_MS_MAX);
        assert_eq!(health.row_at(Instant::now() + late / 2).state, CanaryState::Waiting);
        assert_eq!(health.row_at(Instant::now() + 2 * late).state, CanaryState::Stopped);
        health.note(&measured(5));
        assert_eq!(health.row_at(Instant::now() + late / 2).state, CanaryState::Ok);
        assert_eq!(health.row_at(Instant::now() + 2 * late).state, CanaryState::Stopped);
    }

    /// Bytes as a canary's pipe brings them, in pieces and without end.
    #[tokio::test]
    async fn what_is_no_line_of_its_ends_the_listening() {
        for (bytes, expected) in [
            (&b"{\"skipped\":{\"code\":\"E_BUSY\"}}\n"[..], Some(Said::Skipped { code: "E_BUSY".into() })),
            (b"{\"skipped\":{\"code\":\"E_BUSY\"}}", None),
            (b"nonsense\n", None),
            (&[b'x'; 2 * limits::CANARY_LINE_BYTES_MAX], None),
        ] {
            let (read, write) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&write, bytes).unwrap();
            drop(write);
            let mut heard = Heard { pipe: Receiver::from_owned_fd(read).unwrap(), line: Vec::new() };
            assert_eq!(heard.next().await, expected);
        }
    }
}
