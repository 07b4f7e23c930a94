//! The questions of the other side that are being worked on: numbered without a gap, and not more at a time than there may
//! be.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::limits::LINK_WINDOW_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those of one link.
pub(crate) struct Work {
    next: u64,
    places: Arc<Semaphore>,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self { next: 1, places: Arc::new(Semaphore::new(LINK_WINDOW_MAX)) }
    }

    /// A question came. It is worked on while the place is held.
    ///
    /// # Errors
    /// `E_PROTOCOL` for a number out of its order, and one question too many.
    pub(crate) fn asked(&mut self, number: u64) -> Result<OwnedSemaphorePermit> {
        if number != self.next {
            return Err(Error::new(Code::Protocol, "questions are numbered from 1 on, without a gap"));
        }
        self.next += 1;
        let many = |_| Error::new(Code::Protocol, "too many questions without an answer");
        self.places.clone().try_acquire_owned().map_err(many)
    }
}
