//! Words that are read and changed in one step, under the slot.
//!
//! A change is an effect that cannot be made twice, so it is always known whether it was made: until it is, everything
//! that refuses it or puts it off comes first, and from then on the answer goes to `send` whatever happens to the right
//! meanwhile. A revoke waits for that, because the slot is held.

use std::sync::atomic::Ordering;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, SlotHandle};
use caps::rights::Rights;

use super::Provider;
use super::access::{Progress, Refused, interrupted};
use super::cells::Known;
use super::meters::Charge;
use crate::kernel::RegionKey;
use crate::mem::{Change, WORD_BYTES};

impl Provider {
    /// Changes the word at `offset` and hands what it was before to `send`, while the slot is held. It takes a right to
    /// read and to write: the answer is of what was read. `send` must not wait, and is called once if the word was
    /// changed, else never. Unless the answer is [`Progress::Done`] nothing was changed and the caller comes again, to
    /// be judged again.
    ///
    /// # Errors
    /// As [`Self::write`] but `E_CHECKSUM`; `E_RANGE` for a word that does not stand at a multiple of 8. Nothing was
    /// changed then.
    pub(crate) fn change_word(
        &self,
        session: u64,
        handle: SlotHandle,
        offset: u64,
        change: Change,
        send: impl FnOnce(u64),
    ) -> Result<Progress, Refused> {
        if !offset.is_multiple_of(WORD_BYTES as u64) {
            return Err(Error::new(Code::Range, "a word has 8 bytes and stands at a multiple of 8").into());
        }
        let key = RegionKey { index: handle.slot, generation: handle.epoch };
        let gone = || self.gone(session, handle);
        let (inside, right) = self.0.cells.enter(key).ok_or_else(gone)?;
        self.judge(session, handle, &right, Rights::READ_WRITE, offset, WORD_BYTES as u64)?;
        if right.is_superseded() {
            return Ok(Progress::Full);
        }
        let charge = Charge::take(&right.meters, WORD_BYTES as u64, || self.0.clock.boot())?;
        let version = right.memory.version();
        // Asked last, because making a page present can take a while: a fence or a narrowing that came meanwhile is met.
        let stands = || match inside.still_open() && !right.is_superseded() {
            true => Ok(()),
            false => {
                Err(Error::new(Code::Revoked, "the right ended or was narrowed before the word was changed"))
            }
        };
        let before = match right.memory.change_word(offset, change, stands) {
            Ok(before) => before,
            Err(_) if inside.still_open() && right.is_superseded() => return Ok(Progress::Full),
            Err(error) => return interrupted(gone, error, &inside, &right, version),
        };
        charge.kept();
        right.operations.fetch_add(1, Ordering::Relaxed);
        right.bytes.fetch_add(WORD_BYTES as u64, Ordering::Relaxed);
        send(before);
        Ok(Progress::Done)
    }

    /// Calls `send` while the slot of a right is held that allows changing the word at `offset`: what it sends of that
    /// word has left, or is known to be under way, before a revoke or a narrowing of the right is acknowledged. It must
    /// not wait.
    ///
    /// # Errors
    /// What changing the word by the right would be refused with, or the error of `send`.
    pub(crate) fn while_word_open(
        &self,
        session: u64,
        handle: SlotHandle,
        offset: u64,
        send: impl FnOnce() -> Result<()>,
    ) -> Result<(), Refused> {
        let key = RegionKey { index: handle.slot, generation: handle.epoch };
        loop {
            let (inside, right) = self.0.cells.enter(key).ok_or_else(|| self.gone(session, handle))?;
            // By what it is open for now, which may be less than what the word was changed by.
            self.judge(session, handle, &right, Rights::READ_WRITE, offset, WORD_BYTES as u64)?;
            if !inside.still_open() || right.is_superseded() {
                continue; // ended or narrowed meanwhile: it is judged again, and told so
            }
            return Ok(send()?);
        }
    }

    /// Of which lease a session has, or last had, a right by this handle: a request is the same one after its right ended.
    pub(crate) fn lease_of(&self, session: u64, handle: SlotHandle) -> Option<LeaseId> {
        match self.0.cells.known(RegionKey { index: handle.slot, generation: handle.epoch }) {
            Known::Open(owner, terms) if owner == session => Some(terms.lease),
            Known::Ended(last) if last.session == session => Some(last.terms.lease),
            _ => None,
        }
    }
}
