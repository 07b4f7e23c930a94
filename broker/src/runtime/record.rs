//! Entries in the broker's log about what is the node's and stands in no book here.

use caps::error::Result;

use super::{Handle, recorded_index};

impl Handle {
    /// Puts an entry into the broker's log, about something that is the node's and not in the broker's books. Returns
    /// when it is durable.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE`, `E_BUSY`: it is not in the log and never will be.
    pub async fn record(&self, entry: audit::Draft) -> Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome: Result<audit::Recorded>| {
            let _ = tell.send(outcome.map(|recorded| recorded.first())); // who gave up waiting needs no answer
        });
        self.shared.recorder.submit(vec![entry], self.now(), done)?;
        recorded_index(told).await.map(drop)
    }

    /// The same for what has happened already, whether or not it can be recorded now.
    pub fn record_regardless(&self, entry: audit::Draft) {
        self.shared.recorder.submit_regardless(vec![entry], self.now(), Box::new(|_| {}));
    }
}
