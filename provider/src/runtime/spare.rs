//! The spare: one segment's memory, filled, pinned and with its descriptors made before anybody needs it.
//!
//! The pool keeps room for one fresh segment, the largest that may have to be rotated (the kernel's headroom). The spare
//! is that room, made ready while nothing is urgent: survivors of a rotation then wait for the copy alone, and not for
//! the kernel to zero as many bytes first. A segment of another size gets fresh memory made on the spot. Where that has
//! no room, because the spare has it, the spare gives way.
//!
//! When the last right ends that may need it, the spare stays for [`SPARE_LINGER_MS`]: who shares, revokes and shares again
//! would otherwise have the kernel zero a segment anew each time, beside the next one's cut. It takes nothing from anybody
//! then: it gives way to whatever needs its room, or what it has pinned.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use caps::error::{Code, Result};
use policy::limits::SPARE_LINGER_MS;

use super::{Shared, lock};
use crate::mem::{Access, Memory as Store, Region};

#[derive(Default)]
struct State {
    ready: Option<Region>,
    /// Whether one is being made.
    making: bool,
    /// The headroom that was last asked for.
    wanted: u64,
    /// Whether a thread waits to let an unneeded one go.
    lingering: bool,
}

/// The one spare of a provider.
#[derive(Default)]
pub(super) struct Spare {
    /// Guards what there is; held for a move.
    state: Mutex<State>,
    /// Told when one was made, or could not be, or is wanted again.
    changed: Condvar,
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
                // How much may be pinned can be limited, and a spare that nobody needs has some of it.
                Ok(made) if !made.coverage().is_complete() => match self.unneeded() {
                    Some(spare) => {
                        made.close();
                        spare.close();
                    }
                    None => return Ok(made),
                },
                made => return made,
            }
        }
    }

    /// Takes the spare, waiting for one that is being made. That is done by a thread that waits for nobody here.
    fn give_way(&self) -> Option<Region> {
        let mut state = lock(&self.state);
        while state.ready.is_none() && state.making {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ready.take()
    }

    /// The spare, if nobody wants it.
    fn unneeded(&self) -> Option<Region> {
        let mut state = lock(&self.state);
        if state.wanted == 0 { state.ready.take() } else { None }
    }

    /// Remembers how much is wanted, and says whether that leaves a spare that nobody needs. Who is told so calls
    /// [`Self::linger`]; the next one is told no until that has returned.
    fn want(&self, bytes: u64) -> bool {
        let mut state = lock(&self.state);
        state.wanted = bytes;
        let unneeded = bytes == 0 && state.ready.is_some() && !state.lingering;
        state.lingering |= unneeded;
        let again = bytes > 0 && state.lingering;
        drop(state);
        if again {
            self.changed.notify_all();
        }
        unneeded
    }

    /// Waits until the spare is wanted again, is gone, or nobody wanted it for long. Then it is let go.
    fn linger(&self, long: Duration) {
        let until = Instant::now() + long;
        let mut state = lock(&self.state);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.wanted > 0 || state.ready.is_none() || left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.lingering = false;
        let unneeded = if state.wanted == 0 { state.ready.take() } else { None };
        drop(state);
        drop(unneeded); // closed without the lock
    }

    /// The spare, if it is larger than a rotation wants.
    fn excess(&self, bytes: u64) -> Option<Region> {
        lock(&self.state).ready.take_if(|spare| bytes > 0 && spare.len() > bytes)
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
        self.changed.notify_all();
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
        self.let_spare_go(headroom);
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
            shared.let_spare_go(headroom);
        });
    }

    /// What [`Self::keep_spare`] does where less is wanted than there is: at once where something is, later where nothing is.
    fn let_spare_go(self: &Arc<Self>, headroom: u64) {
        if self.spare.want(headroom) {
            let shared = self.clone();
            let lingering = thread::Builder::new().name("lh-spare".into()).stack_size(256 << 10);
            if lingering.spawn(move || shared.spare.linger(Duration::from_millis(SPARE_LINGER_MS))).is_err() {
                self.spare.linger(Duration::ZERO); // no thread to be had: better no spare than one for ever
            }
        }
        if let Some(excess) = self.spare.excess(headroom) {
            self.wipes.submit(move || excess.close());
        }
    }
}
