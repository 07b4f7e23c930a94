//! An open right that is opened again, from its token, when its connection was lost.

use std::sync::{Arc, Mutex, PoisonError};

use caps::error::{Code, Error, Result};
use caps::id::{ProviderId, SlotHandle};
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::reply::Opened;
use caps::wire::request::Path;
use caps::wire::{Reply, Request};

use super::failure::Failure;
use super::session::Session;
use crate::calls;
use crate::region::reaches;

/// An open right. Dropping it closes it at the node, without waiting.
pub(crate) struct Right {
    pub(super) session: Arc<Session>,
    /// Sealed: what is sent and kept cannot be extended.
    token: Token,
    rights: Rights,
    /// As it was opened first.
    opened: Opened,
    /// The connection that it is open on, and its name there.
    held: Mutex<(u64, SlotHandle)>,
    /// The life of the node that has the memory.
    node: ProviderId,
}

impl Right {
    /// Opens what the token gives.
    pub(crate) fn open(session: Arc<Session>, token: &Token, rights: Rights) -> Result<Self> {
        let call = calls::open(token, rights, Path::Mediated);
        let Request::Open { token, .. } = &call.request else { return Err(Code::Internal.into()) };
        let token = token.clone();
        let (opened, over) = session.control(call)?;
        let held = Mutex::new((over.generation, opened.handle));
        Ok(Self { session, token, rights, opened, held, node: over.node })
    }

    pub(crate) const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Its name on a connection, if it is open there.
    pub(super) fn handle(&self, generation: u64) -> Option<SlotHandle> {
        let (opened_on, handle) = *self.held();
        (opened_on == generation).then_some(handle)
    }

    /// Whether its memory is there in this life of the node.
    ///
    /// # Errors
    /// `E_EPOCH`: it went with an earlier one, or is another node's.
    pub(super) fn check_life(&self, node: ProviderId) -> Result<()> {
        if self.node == node {
            return Ok(());
        }
        Err(Error::new(Code::Epoch, "the right is to memory of an earlier life of the node, which is gone"))
    }

    /// What opens it again.
    pub(super) fn request(&self) -> Request {
        Request::Open { token: self.token.clone(), rights: self.rights, path: Path::Mediated }
    }

    /// It was opened again.
    ///
    /// # Errors
    /// `E_PROTOCOL` if something else was.
    pub(super) fn opened_again(&self, reply: Reply, generation: u64) -> Result<SlotHandle, Failure> {
        let Reply::Opened(opened) = reply else {
            return Err(Failure::lied("the node's answer does not belong to the question"));
        };
        if opened.region_bytes != self.opened.region_bytes {
            return Err(Failure::lied("the right was opened again and is of another region"));
        }
        *self.held() = (generation, opened.handle);
        Ok(opened.handle)
    }

    /// Where `length` bytes from `offset` lie, if the right reaches all of them and has `needed`.
    pub(super) fn check(&self, needed: Rights, offset: u64, length: usize) -> Result<()> {
        self.allows(needed)?;
        reaches(&self.opened, offset, length)
    }

    /// Whether it was opened for this.
    pub(super) fn allows(&self, needed: Rights) -> Result<()> {
        if self.opened.rights.contains(needed) {
            return Ok(());
        }
        Err(Error::new(Code::Denied, "the right was not opened for this"))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, (u64, SlotHandle)> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner) // a pair is written as one
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        let (generation, handle) = *self.held();
        self.session.close(generation, handle);
    }
}
