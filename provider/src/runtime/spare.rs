//! The spare: one segment's memory, filled, pinned and with its descriptors made before anybody needs it.
//!
//! The pool keeps room for one fresh segment, the largest that may have to be rotated (the kernel's headroom). The spare
//! is that room, made ready while nothing is urgent: survivors of a rotation then wait for the copy alone, and not for
//! the kernel to zero as many bytes first. A segment of another size gets fresh memory made on the spot. Where that has
//! no room, because the spare has it, the spare gives way.

use std::sync::{Arc, Mutex};

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
pub(super) struct Spare(Mutex<State>);

impl Spare {
    /// Memory of exactly `bytes`: the spare if it is of that size, else fresh.
    ///
    /// # Errors
    /// Those of [`Store::region`].
    pub(super) fn region(&self, store: &Store, bytes: u64) -> Result<Region> {
        let fitting = lock(&self.0).ready.take_if(|spare| spare.len() == bytes);
        match fitting {
            Some(spare) => Ok(spare),
            None => self.make(store, bytes),
        }
    }

    /// Fresh memory. If there is no room for it, the spare gives way.
    ///
    /// # Errors
    /// Those of [`Store::region`].
    pub(super) fn make(&self, store: &Store, bytes: u64) -> Result<Region> {
        match store.region(bytes) {
            Err(error) if error.code() == Code::NoMemory => {
                let Some(spare) = lock(&self.0).ready.take() else { return Err(error) };
                spare.close();
                store.region(bytes)
            }
            made => made,
        }
    }

    /// The spare, if it is larger than it need be.
    fn excess(&self, bytes: u64) -> Option<Region> {
        lock(&self.0).ready.take_if(|spare| spare.len() > bytes)
    }

    /// Whether a spare of `bytes` has to be made, by the caller: the next one is told no until [`Self::put`].
    fn wants(&self, bytes: u64) -> bool {
        let mut state = lock(&self.0);
        let wants =
            bytes > 0 && !state.making && state.ready.as_ref().is_none_or(|spare| spare.len() != bytes);
        state.making |= wants;
        wants
    }

    /// Ends what [`Self::wants`] began.
    fn put(&self, made: Option<Region>) {
        let mut state = lock(&self.0);
        state.making = false;
        let old = std::mem::replace(&mut state.ready, made);
        drop(state);
        drop(old); // closed without the lock
    }

    /// Lets the spare go, for the end of the node.
    pub(super) fn close(&self) {
        self.put(None);
    }
}

impl Shared {
    /// Makes the spare that `headroom` asks for, if it is not there, and lets one go that is larger, on a rotation's
    /// thread. Best effort: without one a rotation takes longer.
    pub(super) fn keep_spare(self: &Arc<Self>, headroom: u64) {
        if let Some(excess) = self.spare.excess(headroom) {
            self.rotations.submit(move || excess.close());
        }
        if !self.spare.wants(headroom) {
            return;
        }
        let shared = self.clone();
        self.rotations.submit(move || {
            // The old one goes first: the room is for one.
            let old = lock(&shared.spare.0).ready.take();
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
        });
    }
}
