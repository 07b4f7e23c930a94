//! When a wait ends, on this process' own clock.
//!
//! `CLOCK_MONOTONIC`, which is `Instant`'s: it does not step, and a machine that slept has not kept anybody waiting.
//! No time is ever written to shared memory or read from there, so no peer can lie about it, and time namespaces,
//! which shift this clock, do not matter.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use super::limits::WAIT_MAX;

#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// `timeout` from now, or a day if that is less.
    pub(super) fn after(timeout: Duration) -> Self {
        // Cannot overflow: the clock counts from the start of the machine.
        Self(Instant::now() + timeout.min(WAIT_MAX))
    }

    /// What is left.
    ///
    /// # Errors
    /// `E_TIMEOUT`: nothing is.
    pub(super) fn left(self) -> Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::new(Code::Timeout, "the wait for a peer is over")) } else { Ok(left) }
    }
}
