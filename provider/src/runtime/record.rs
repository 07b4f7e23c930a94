//! The provider's entries in its log.

use std::sync::PoisonError;

use audit::{Draft, Event as Entry, Recorded};
use caps::error::{Code, Error, Result};
use tokio::sync::oneshot;

use super::summary::Summary;
use super::{Provider, Shared};

/// An entry on its way to the device.
pub(super) struct Pending(oneshot::Receiver<Result<Recorded>>);

impl Pending {
    /// Waits until it is durable.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if it never will be.
    pub(super) async fn durable(self) -> Result<Recorded> {
        self.0.await.unwrap_or(Err(Error::new(Code::AuditUnavailable, "the recorder stopped")))
    }
}

impl Provider {
    /// Records one entry of the gate's and waits until it is durable: before an answer that depends on it.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if no device records, `E_BUSY` if the queue is full.
    pub(crate) async fn record(&self, entry: Draft) -> Result<Recorded> {
        self.0.record(entry).await
    }
}

impl Shared {
    /// Records one entry and waits until it is durable.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if no device records, `E_BUSY` if the queue is full.
    pub(super) async fn record(&self, entry: Draft) -> Result<Recorded> {
        self.submit(entry)?.durable().await
    }

    /// Hands one entry over and does not wait.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(super) fn submit(&self, entry: Draft) -> Result<Pending> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |recorded| {
            let _ = sender.send(recorded); // who gave up waiting needs no answer
        });
        self.recorder.submit(vec![entry], self.clock.unix(), done)?;
        Ok(Pending(receiver))
    }

    /// Records what has happened already and cannot be refused any more. It waits in memory while no device records.
    /// After the log was closed it is dropped: what ends with the node itself is told by `log.stop`.
    pub(super) fn record_regardless(&self, entry: Draft) {
        let closed = self.log_closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return;
        }
        self.recorder.submit_regardless(vec![entry], self.clock.unix(), Box::new(|_| {}));
    }

    /// Writes the log's last checkpoint. Nothing is recorded after it.
    pub(super) fn close_log(&self) {
        *self.log_closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        if let Err(error) = self.recorder.shutdown() {
            tracing::error!(%error, "the provider's log could not be closed");
        }
    }

    /// The summaries of rights, each at the end of the right or of its session.
    pub(super) fn record_closes(&self, summaries: Vec<Summary>) {
        for Summary { right, holder, cause, sums } in summaries {
            let entry = Draft::ok(Entry::LeaseClose)
                .subject(holder)
                .maybe(right.grant, Draft::grant)
                .lease(right.lease)
                .rights(right.rights)
                .cause(cause.name())
                .count(sums.opens)
                .ops(sums.operations)
                .bytes(sums.bytes);
            self.record_regardless(entry);
        }
    }

    /// Somebody set the machine's clock.
    pub(super) fn record_clock_step(&self, step_us: i64) {
        self.record_regardless(Draft::ok(Entry::TimeStep).step_us(step_us));
    }
}
