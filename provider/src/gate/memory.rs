//! The requests about memory: open, read, write, close.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Draft, Event as Entry};
use caps::error::{Blame, Code, Error, Result};
use caps::id::{GrantId, LeaseId, RequestId, SlotHandle};
use caps::rights::Rights as RightsOf;
use caps::time::BootNanos;
use caps::token::{RevocationId, Token, VerifiedToken};
use caps::wire::Reply;
use caps::wire::frame::{self, FrameKind};
use caps::wire::request::Path;
use policy::fault::Reaction;
use policy::limits;
use tokio::time::timeout;

use super::fault::{Access, Fault};
use super::session::{Session, timed, unread};
use super::socket::{Socket, lost};
use super::verified::Verified;
use crate::runtime::{Misuse, Progress, Provider, Refused, Rotating, Terms, Violation};

/// What a request came to.
pub(super) enum Answer {
    /// Send this.
    Reply(Reply),
    /// Send this with a descriptor beside it.
    WithDescriptor(Reply, OwnedFd),
    /// The answer has left already.
    Sent,
}

/// A right that a session opened: its opening is on record, and with it by which token where the token was made of
/// another.
type Known = (LeaseId, Option<GrantId>, caps::rights::Rights, Path, Option<RevocationId>);

/// What a session remembers of its rights. Bounded, and gone with it.
#[derive(Default)]
pub(super) struct Rights {
    /// Tokens that were verified in this session. A hit is judged again for time, possession, epoch and revocation; only
    /// the signatures are not checked twice.
    verified: Verified<VerifiedToken>,
    /// Rights whose opening is on record.
    recorded: HashSet<Known>,
    /// The handles that it was given, the latest of each slot, and which were mapped.
    given: HashMap<u32, Given>,
    mapped: bool,
}

#[derive(Clone, Copy)]
struct Given {
    epoch: u32,
    mapped: bool,
}

impl Rights {
    /// Whether a mapping was ever handed to this session.
    pub(super) const fn mapped_ever(&self) -> bool {
        self.mapped
    }

    fn give(&mut self, SlotHandle { slot, epoch }: SlotHandle, mapped: bool) {
        if self.given.len() < limits::SESSION_HANDLES_KEPT_MAX || self.given.contains_key(&slot) {
            self.given.insert(slot, Given { epoch, mapped });
        }
    }

    /// Whether a handle that the provider has forgotten was this session's: its generation is compared with the one
    /// that the session was given.
    fn was_given(&self, SlotHandle { slot, epoch }: SlotHandle) -> bool {
        self.given.get(&slot).is_some_and(|given| given.epoch == epoch)
    }

    /// The mapped right that ended last, and when.
    pub(super) fn lost_last(&self, provider: &Provider) -> Option<(Terms, BootNanos)> {
        let mapped = self.given.iter().filter(|(_, given)| given.mapped);
        mapped
            .filter_map(|(&slot, given)| provider.ended(SlotHandle { slot, epoch: given.epoch }))
            .max_by_key(|&(_, fenced)| fenced)
    }
}

/// How long one request may still wait: a deadline of its own for each thing it waits for, however often it has to
/// wait for it again.
struct Patience {
    began: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Waits until an answer may fit the client's socket.
    async fn for_room(&mut self, socket: &Socket) -> Result<()> {
        let left = self.left(limits::SEND_MS_MAX).ok_or_else(unread)?;
        timeout(left, socket.writable()).await.map_err(|_| unread())?.map_err(lost)
    }

    /// Waits until a rotated segment is there again.
    async fn for_segment(&mut self, rotating: &Rotating) -> Result<()> {
        let busy = || Error::new(Code::Busy, "a segment of the region is being rotated; try again");
        let left = self.left(limits::ROTATION_WAIT_MS_MAX).ok_or_else(busy)?;
        timeout(left, rotating.over()).await.map_err(|_| busy())?;
        // Whether the client reads is judged from here on: it could not before.
        self.began = Instant::now();
        Ok(())
    }

    fn left(&self, bound_ms: u64) -> Option<Duration> {
        Duration::from_millis(bound_ms).checked_sub(self.began.elapsed())
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
            // Before anything is opened: a right whose descriptor cannot be sent would stay open without a handle.
            self.ready_for_descriptor().await?;
        }
        let verified = self.verified(token).await?;
        let terms = verified.terms();
        let made = verified.revocation_ids().get(1..).and_then(|made| made.last().copied());
        let known = (terms.lease, terms.grant, rights, path, made);
        let recorded = self.rights.recorded.contains(&known);
        // The token before the policy: whoever is not its holder learns that and nothing else.
        self.shared
            .provider
            .authorize(&verified, rights, self.opener.proven)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let bytes = verified.effective().range.map_or(0, |range| range.len());
        self.shared
            .control
            .may_open(self.caller(), bytes, rights, verified.effective().hops)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let quota = self.shared.control.quota(verified.chain().first_holder);
        let opened = self
            .shared
            .provider
            .open(&self.opener, token, &verified, rights, path, &quota, recorded)
            .await
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        if !recorded && self.rights.recorded.len() < limits::SESSION_RIGHTS_MAX {
            self.rights.recorded.insert(known);
        }
        self.rights.give(opened.reply.handle, opened.descriptor.is_some());
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
    pub(super) async fn verified(&mut self, token: &Token) -> Result<Arc<VerifiedToken>> {
        // Read before the token is verified: what is verified by a later set is merely verified once more.
        let roots = self.shared.provider.roots().number();
        if let Some(verified) = self.rights.verified.find(token, roots) {
            return Ok(verified);
        }
        let verified = Arc::new(self.verified_in_turn(token).await?);
        self.rights.verified.keep(&self.shared.tokens, self.opener.uid, token, roots, &verified);
        Ok(verified)
    }

    /// Verifies a token when it is this user's turn, and remembers nothing. Whatever has signatures checked comes here:
    /// it is what keeps a worker busy.
    pub(super) async fn verified_in_turn(&self, token: &Token) -> Result<VerifiedToken> {
        let _turn = self.shared.verifying.turn(self.opener.uid).await;
        self.shared.provider.verify(token).inspect_err(|error| self.denied(token, None, error))
    }

    pub(super) async fn read(
        &mut self,
        id: RequestId,
        handle: SlotHandle,
        offset: u64,
        length: u32,
    ) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            let socket = self.socket.clone();
            let progress = self.shared.provider.read(self.opener.session, handle, offset, length, |bytes| {
                let reply = Reply::Data { bytes: bytes.to_vec(), crc: crc32c::crc32c(bytes) };
                let packet = frame::encode(FrameKind::Reply, id, &reply)?;
                socket.try_send(&packet, None).map_err(lost)
            });
            let asked = Access { rights: RightsOf::READ, offset, bytes: length.into() };
            match progress.map_err(|refused| self.refused(handle, asked, refused))? {
                Progress::Done => return Ok(Answer::Sent),
                Progress::Full => patience.for_room(&self.socket).await?,
                Progress::Rotating(rotating) => patience.for_segment(&rotating).await?,
            }
        }
    }

    pub(super) async fn write(
        &mut self,
        handle: SlotHandle,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            let progress = self.shared.provider.write(self.opener.session, handle, offset, bytes, crc);
            let asked = Access { rights: RightsOf::WRITE, offset, bytes: bytes.len() as u64 };
            match progress.map_err(|refused| self.refused(handle, asked, refused))? {
                Progress::Done => return Ok(Answer::Reply(Reply::Done)),
                Progress::Full => tokio::task::yield_now().await,
                Progress::Rotating(rotating) => patience.for_segment(&rotating).await?,
            }
        }
    }

    /// The descriptor of one more segment of a mapped right.
    pub(super) async fn segment(&mut self, handle: SlotHandle, index: u32) -> Result<Answer> {
        self.ready_for_descriptor().await?;
        let descriptor = self
            .shared
            .provider
            .segment(self.opener.session, handle, index)
            .await
            .map_err(|error| self.no_such_handle(handle, error))?;
        Ok(Answer::WithDescriptor(Reply::Segment { index }, descriptor))
    }

    /// Waits until the client has read everything, so that the one descriptor that follows is the only one under way.
    /// A client that has just closed another right reads the answer to that while it waits for this one.
    pub(super) async fn ready_for_descriptor(&self) -> Result<()> {
        timed(self.socket.drained()).await.map_err(|error| match error.code() {
            Code::Timeout => Error::new(Code::Busy, "read the answers before asking for a descriptor"),
            _ => error,
        })
    }

    pub(super) fn close(&mut self, handle: SlotHandle) -> Result<Answer> {
        self.shared
            .provider
            .close(self.opener.session, handle)
            .map_err(|error| self.no_such_handle(handle, error))?;
        Ok(Answer::Reply(Reply::Done))
    }

    /// Records a token that was refused: before its signatures verified as a reject, after that as a denial with the
    /// chain of its holders.
    pub(super) fn denied(&self, token: &Token, verified: Option<&VerifiedToken>, error: &Error) {
        let event = if verified.is_some() { Entry::LeaseDeny } else { Entry::TokenReject };
        let mut entry = self
            .opener
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
    fn refused(&mut self, handle: SlotHandle, asked: Access, refused: Refused) -> Error {
        let Refused { error, violation } = refused;
        let fault = match violation {
            Some(violation) => {
                Fault::access(self.settled(violation, handle), error.code(), handle, Some(asked))
            }
            // Too long, or with a wrong checksum: what no client of ours sends.
            None if error.code().blame() == Blame::Client => Fault::malformed(&error, handle),
            None => return error,
        };
        self.fault(&fault, Reaction::Log);
        error
    }

    /// Records that a handle never was this session's. One that was may be closed, or asked for more, after its right
    /// has ended: nobody touches memory by that.
    fn no_such_handle(&mut self, handle: SlotHandle, error: Error) -> Error {
        if error.code() == Code::Revoked {
            let violation = self.shared.provider.misuse(self.opener.session, handle);
            let violation = self.settled(violation, handle);
            if violation.misuse != Misuse::AfterEnd {
                self.fault(&Fault::access(violation, error.code(), handle, None), Reaction::Log);
            }
        }
        error
    }

    /// What the session remembers of a handle that the provider has forgotten.
    fn settled(&self, violation: Violation, handle: SlotHandle) -> Violation {
        let own = violation.misuse == Misuse::Stale && self.rights.was_given(handle);
        Violation { misuse: if own { Misuse::AfterEnd } else { violation.misuse }, ..violation }
    }
}
