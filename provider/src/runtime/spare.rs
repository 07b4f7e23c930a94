//! The spare: one segment's memory, filled, pinned and with its descriptors made before anybody needs it.
//!
//! The pool keeps room for one fresh segment, the largest that may have to be rotated (the kernel's headroom). The spare
//! is that room, made ready while nothing is urgent: survivors of a rotation then wait for the copy alone, and not for
//! the kernel to zero as many bytes first. A segment of another size gets fresh memory made on the spot. Where that has
//! no room, because the spare has it, the spare gives way.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use caps::error::{Code, Result};

use super::{Shared, lock};
use crate::mem::{Access, Memory as Store, Region};

#[derive(Default)]
struct State {
    ready: Option<Region>,
    /// Whether one is being made.
    making: bool,
}

/// The one spare of a provider.
#[derive(Default)]
pub(super) struct Spare {
    /// Guards what there is; held for a move.
    state: Mutex<State>,
    /// Told when one was made, or could not be.
    made: Condvar,
}

impl Spare {
    /// Memory of exactly `bytes`: the spare if it is of that size, else fresh.
    ///
    /// # Errors
    /// Those of [`Store::region`].
    pub(super) fn region(&self, store: &Store, bytes: u64) -> Result<Region> {
        let fitting = lock(&self.state).ready.take_if(|spare| spare.len() == bytes);
        match fitting {
            Some(spare) => Ok(spare),
            None => self.make(store, bytes),
        }
    }

    /// Fresh memory. If there is no room for it, the spare gives way, also one that is being made just now.
    ///
    /// # Errors
    /// Those of [`Store::region`].
    pub(super) fn make(&self, store: &Store, bytes: u64) -> Result<Region> {
        loop {
            match store.region(bytes) {
                Err(error) if error.code() == Code::NoMemory => {
                    let Some(spare) = self.give_way() else { return Err(error) };
                    if spare.len() == bytes {
                        return Ok(spare);
                    }
                    spare.close();
                }
                made => return made,
            }
        }
    }

    /// Takes the spare, waiting for one that is being made. That is done by a thread that waits for nobody here.
    fn give_way(&self) -> Option<Region> {
        let mut state = lock(&self.state);
        while state.ready.is_none() && state.making {
            state = self.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ready.take()
    }

    /// The spare, if it is larger than it need be.
    fn excess(&self, bytes: u64) -> Option<Region> {
        lock(&self.state).ready.take_if(|spare| spare.len() > bytes)
    }

    /// Whether a spare of `bytes` has to be made, by the caller: the next one is told no until [`Self::put`].
    fn wants(&self, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        let wants =
            bytes > 0 && !state.making && state.ready.as_ref().is_none_or(|spare| spare.len() != bytes);
        state.making |= wants;
        wants
    }

    /// Ends what [`Self::wants`] began.
    fn put(&self, made: Option<Region>) {
        let mut state = lock(&self.state);
        state.making = false;
        let old = std::mem::replace(&mut state.ready, made);
        drop(state);
        self.made.notify_all();
        drop(old); // closed without the lock
    }

    /// Lets the spare go, for the end of the node.
    pub(super) fn close(&self) {
        self.put(None);
    }
}

impl Shared {
    /// Makes the spare that `headroom` asks for, if it is not there, and lets one go that is larger, on a wipe's
    /// thread. Best effort: without one a rotation takes longer.
    pub(super) fn keep_spare(self: &Arc<Self>, headroom: u64) {
        if let Some(excess) = self.spare.excess(headroom) {
            self.wipes.submit(move || excess.close());
        }
        // A rotation under way needs the room itself, segment by segment; its end comes here again.
        if self.rotations_under_way.load(Ordering::SeqCst) > 0 || !self.spare.wants(headroom) {
            return;
        }
        let shared = self.clone();
        // Not on a rotation's thread: those wait for the spare.
        self.wipes.submit(move || {
            // The old one goes first: the room is for one.
            let old = lock(&shared.spare.state).ready.take();
            drop(old); // wiped and closed without the lock
            let made = shared.store.region(headroom).and_then(|spare| {
                for access in [Access::ReadOnly, Access::ReadWrite] {
                    spare.prepare(access)?;
                }
                Ok(spare)
            });
            if let Err(error) = &made {
                tracing::debug!(%error, "no spare segment; a rotation will make its own");
            }
            shared.spare.put(made.ok());
            // The last region that may be rotated can have ended meanwhile, and found nothing to let go.
            let headroom = lock(&shared.kernel).headroom_bytes();
            drop(shared.spare.excess(headroom));
        });
    }
}
