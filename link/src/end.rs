//! That a link is over, and why. Whoever finds out first says it; everybody else is told.

use caps::error::Error;
use tokio::sync::watch;

/// The end of one link. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct End(watch::Sender<Option<Error>>);

impl End {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Ends the link. Only the first reason counts.
    pub(crate) fn close(&self, why: Error) {
        self.0.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(why);
            first
        });
    }

    /// Why it is over, if it is.
    pub(crate) fn why(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    /// Waits until it is over.
    pub(crate) async fn over(&self) -> Error {
        let mut end = self.0.subscribe();
        // The sender is `self`, so the wait ends with a reason.
        let why = end.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or(Error::new(caps::Code::Internal, "the link ended"))
    }
}

impl End {
    /// Whether both are of one link.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}
