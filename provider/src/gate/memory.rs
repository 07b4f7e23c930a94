//! The requests about memory: open, read, write, close.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Draft, Event as Entry};
use caps::error::{Blame, Code, Error, Result};
use caps::id::{GrantId, LeaseId, RequestId, SlotHandle};
use caps::token::{Token, VerifiedToken};
use caps::wire::Reply;
use caps::wire::frame::{self, FrameKind};
use caps::wire::request::Path;
use policy::limits;
use tokio::time::timeout;

use super::session::{Session, timed, unread};
use super::socket::lost;
use super::verified::Verified;
use crate::runtime::{Refused, Violation};

/// What a request came to.
pub(super) enum Answer {
    /// Send this.
    Reply(Reply),
    /// Send this with a descriptor beside it.
    WithDescriptor(Reply, OwnedFd),
    /// The answer has left already.
    Sent,
}

/// A right that a session opened: its opening is on record.
type Known = (LeaseId, Option<GrantId>, caps::rights::Rights, Path);

/// What a session remembers of its rights. Bounded, and gone with it.
#[derive(Default)]
pub(super) struct Rights {
    /// Tokens that were verified in this session. A hit is judged again for time, possession, epoch and revocation; only
    /// the signatures are not checked twice.
    verified: Verified<VerifiedToken>,
    /// Rights whose opening is on record.
    recorded: HashSet<Known>,
    mapped: bool,
}

impl Rights {
    /// Whether a mapping was ever handed to this session.
    pub(super) const fn mapped_ever(&self) -> bool {
        self.mapped
    }
}

impl Session {
    pub(super) async fn open(
        &mut self,
        token: &Token,
        rights: caps::rights::Rights,
        path: Path,
    ) -> Result<Answer> {
        if path == Path::Mapped {
            // Before anything is opened: a right whose descriptor cannot be sent would stay open without a handle. A
            // client that has just closed another right reads the answer to that while it waits for this one.
            timed(self.socket.drained()).await.map_err(|error| match error.code() {
                Code::Timeout => Error::new(Code::Busy, "read the answers before asking for a descriptor"),
                _ => error,
            })?;
        }
        let verified = self.verified(token)?;
        let terms = verified.terms();
        let known = (terms.lease, terms.grant, rights, path);
        let recorded = self.rights.recorded.contains(&known);
        // The token before the policy: whoever is not its holder learns that and nothing else.
        self.shared
            .provider
            .authorize(&verified, rights, self.opener.proven)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let bytes = verified.effective().range.map_or(0, |range| range.len());
        self.shared
            .control
            .may_open(self.caller(), bytes, rights)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let opened = self
            .shared
            .provider
            .open(&self.opener, token, &verified, rights, path, recorded)
            .await
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        if !recorded && self.rights.recorded.len() < limits::SESSION_RIGHTS_MAX {
            self.rights.recorded.insert(known);
        }
        let reply = Reply::Opened(opened.reply);
        Ok(match opened.descriptor {
            Some(descriptor) => {
                self.rights.mapped = true;
                Answer::WithDescriptor(reply, descriptor)
            }
            None => Answer::Reply(reply),
        })
    }

    /// Verifies a token, or finds it among those this session has had verified.
    fn verified(&mut self, token: &Token) -> Result<Arc<VerifiedToken>> {
        if let Some(verified) = self.rights.verified.find(token) {
            return Ok(verified);
        }
        let verified =
            self.shared.provider.verify(token).inspect_err(|error| self.denied(token, None, error))?;
        let verified = Arc::new(verified);
        self.rights.verified.keep(&self.shared.tokens, self.opener.uid, token, &verified);
        Ok(verified)
    }

    pub(super) async fn read(
        &mut self,
        id: RequestId,
        handle: SlotHandle,
        offset: u64,
        length: u32,
    ) -> Result<Answer> {
        let began = Instant::now();
        loop {
            let socket = self.socket.clone();
            let sent = self.shared.provider.read(self.opener.session, handle, offset, length, |bytes| {
                let reply = Reply::Data { bytes: bytes.to_vec(), crc: crc32c::crc32c(bytes) };
                let packet = frame::encode(FrameKind::Reply, id, &reply)?;
                socket.try_send(&packet, None).map_err(lost)
            });
            match sent.map_err(|refused| self.refused(handle, refused))? {
                true => return Ok(Answer::Sent),
                // One deadline for all of it, however often there was room and then again was none.
                false => match Duration::from_millis(limits::SEND_MS_MAX).checked_sub(began.elapsed()) {
                    Some(left) => match timeout(left, self.socket.writable()).await {
                        Ok(writable) => writable.map_err(lost)?,
                        Err(_) => return Err(unread()),
                    },
                    None => return Err(unread()),
                },
            }
        }
    }

    pub(super) fn write(
        &mut self,
        handle: SlotHandle,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<Answer> {
        self.shared
            .provider
            .write(self.opener.session, handle, offset, bytes, crc)
            .map_err(|refused| self.refused(handle, refused))?;
        Ok(Answer::Reply(Reply::Done))
    }

    pub(super) fn close(&mut self, handle: SlotHandle) -> Result<Answer> {
        self.shared.provider.close(self.opener.session, handle)?;
        Ok(Answer::Reply(Reply::Done))
    }

    /// Records a token that was refused: before its signatures verified as a reject, after that as a denial with the
    /// chain of its holders.
    fn denied(&self, token: &Token, verified: Option<&VerifiedToken>, error: &Error) {
        let event = if verified.is_some() { Entry::LeaseDeny } else { Entry::TokenReject };
        let mut entry = self
            .identified(Draft::deny(event, error.code()))
            .token_hmac(self.shared.provider.salt().token(token.as_bytes()));
        if let Some(verified) = verified {
            let chain: Vec<_> = std::iter::once(verified.chain().first_holder)
                .chain(verified.chain().hops.iter().map(|hop| hop.to))
                .collect();
            entry =
                entry.lease(verified.terms().lease).maybe(verified.terms().grant, Draft::grant).chain(&chain);
        }
        self.shared.rejects.deny(self.opener.uid, entry);
    }

    /// Records a violation and gives back what the client is told.
    fn refused(&self, handle: SlotHandle, refused: Refused) -> Error {
        let event = match refused.violation {
            Some(Violation::UseAfterRevoke) => Entry::FaultAccess,
            Some(Violation::Right) => Entry::FaultRight,
            // Offsets past the end, wrong checksums: what no client of ours sends.
            None if refused.error.code().blame() == Blame::Client => Entry::FaultProtocol,
            None => return refused.error,
        };
        let entry = self
            .identified(Draft::deny(event, refused.error.code()))
            .method("mediated")
            .epoch(handle.epoch.into());
        self.shared.rejects.deny(self.opener.uid, entry);
        refused.error
    }
}
