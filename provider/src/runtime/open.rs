//! Opening a right: from a token's bytes to a slot and, for a mapping, a descriptor.
//!
//! ```text
//! token ─gate─verify─authorize─▶ evidence ─▶ kernel: Open ─▶ record ─▶ kernel: HandedOut ─▶ slot open ─▶ reply
//!                                                                 (durable)   (mapped only)
//! ```
//! The right counts as handed out before its descriptor is sent and only after it is recorded, so there is never a
//! mapping that nobody would cut or that no entry tells of.
//!
//! What the token limits of its use is counted from the kernel's yes on: an opening that fails after that, because it
//! could not be recorded or ended meanwhile, has been one of those that it allows.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::pop::Proven;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::{Authorized, Request, Token, Usage, VerifiedToken, gate};
use caps::wire::link::Notice;
use caps::wire::request::Path;
use caps::wire::row::Tier;
use policy::Quota;

use super::cells::{Handed, Right};
use super::hand_out::{revoked, segments};
use super::origin::Origin;
use super::{Provider, lock};
use crate::kernel::{Answer, By, Event, OpenRequest, Opening, SessionId};
use crate::mem::Holder;

/// Who opens: facts that the gate established.
#[derive(Clone, Copy, Debug)]
pub struct Opener {
    /// The session.
    pub session: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// The key that it proved.
    pub proven: Proven,
}

impl Opener {
    /// Who it is to the memory. A process of the node's own user, or root, gains nothing by saying that it is in the
    /// sandbox; one of another user would, so its word is not taken.
    fn holder(&self, node_uid: u32) -> Holder {
        match self.origin {
            Origin::Process { uid, sandboxed, .. } if uid == 0 || uid == node_uid => {
                if sandboxed {
                    Holder::Sandboxed
                } else {
                    Holder::SameUser
                }
            }
            Origin::Process { .. } | Origin::Network { .. } => Holder::OtherUser,
        }
    }
}

/// An opened right.
#[derive(Debug)]
pub struct Opened {
    /// For the client.
    pub reply: caps::wire::reply::Opened,
    /// For the client, if it asked for a mapping.
    pub descriptor: Option<OwnedFd>,
}

impl Provider {
    /// Gates and verifies a token with the keys in force.
    ///
    /// # Errors
    /// The codes of [`gate`] and of [`caps::token::Gated::verify`].
    pub fn verify(&self, token: &Token) -> Result<VerifiedToken> {
        gate(token.as_bytes())?.verify(self.roots().keys())
    }

    /// Asks a verified token for every operation of `rights` over all the bytes it reaches.
    ///
    /// # Errors
    /// The codes of [`VerifiedToken::authorize`]; `E_RANGE` for no rights, or a right that cannot be opened.
    pub fn authorize(
        &self,
        token: &VerifiedToken,
        rights: Rights,
        proven: Proven,
    ) -> Result<Vec<Authorized>> {
        if rights.is_empty() || !Rights::READ_WRITE.contains(rights) {
            return Err(Error::new(Code::Range, "a right is opened for r, w or rw"));
        }
        let (terms, config) = (token.terms(), self.config());
        let range = token.effective().range.ok_or(Error::new(Code::Denied, "the token reaches no byte"))?;
        rights
            .iter()
            .map(|operation| {
                token.authorize(&Request {
                    operation,
                    range,
                    now: self.0.clock.unix(),
                    proven,
                    lease: terms.lease,
                    region: terms.region,
                    cluster: config.cluster,
                    provider: config.provider,
                    // Opens are judged by the kernel as it opens, bytes by the cells of the right as it is used.
                    usage: Some(Usage::judged_by_meters()),
                })
            })
            .collect()
    }

    /// Opens a right. `known` says that this session opened the same right before, so that the opening is on record;
    /// `quota` is that of the token's first holder. An opening that the kernel counted stays counted if it fails after
    /// that.
    ///
    /// # Errors
    /// What [`Self::authorize`] and the kernel refuse, `E_QUOTA` among it; `E_AUDIT_UNAVAILABLE` if the opening could not be recorded;
    /// `E_REVOKED` if the right ended meanwhile.
    #[expect(clippy::too_many_arguments, reason = "who, what and by which right, none of which is optional")]
    pub async fn open(
        &self,
        opener: &Opener,
        token: &Token,
        verified: &VerifiedToken,
        rights: Rights,
        path: Path,
        quota: &Quota,
        known: bool,
    ) -> Result<Opened> {
        let shared = &self.0;
        let authorized = self.authorize(verified, rights, opener.proven)?;
        let epoch = self.config().epoch_current(verified)?;
        let by = By {
            session: SessionId(opener.session),
            uid: opener.origin.uid(),
            sandboxed: opener.holder(self.config().uid) == Holder::Sandboxed,
        };
        let (now, root) = (shared.clock.unix(), verified.root_key_id());
        let Answer::Opened(opening) = self.step_while_believed(root, |kernel| {
            let quota = kernel.within_quota(verified.chain().first_holder, quota, path)?;
            Ok(Event::Open(OpenRequest::new(&authorized, epoch, quota, by, now)?))
        })?
        else {
            return Err(Error::new(Code::Internal, "an opening was answered with something else"));
        };
        let handle = SlotHandle { slot: opening.open.index, epoch: opening.open.generation };
        match self.finish_open(opener, token, verified, &opening, known).await {
            Ok((audit, descriptor)) => Ok(Opened {
                reply: caps::wire::reply::Opened {
                    handle,
                    rights: opening.rights,
                    range: opening.range,
                    region_bytes: opening.region_bytes,
                    segment_bytes: opening.segment_bytes,
                    mapped: descriptor.is_some(),
                    tier: self.tier_of(opener),
                    expires_in: opening.deadline.since(shared.clock.boot()),
                    audit,
                },
                descriptor,
            }),
            Err(error) => {
                let session = SessionId(opener.session);
                let _ = shared.step(Event::Close { session, handle }); // it may have ended meanwhile: the same thing
                Err(error)
            }
        }
    }

    /// How strongly this client's mappings are held: what the machine allows, or, where that is the weakest, what the
    /// sandbox adds.
    pub(crate) fn tier_of(&self, opener: &Opener) -> Tier {
        let config = self.config();
        let confined = config.tier == Tier::Open && opener.holder(config.uid) == Holder::Sandboxed;
        if confined { Tier::Sandboxed } else { config.tier }
    }

    async fn finish_open(
        &self,
        opener: &Opener,
        token: &Token,
        verified: &VerifiedToken,
        opening: &Opening,
        known: bool,
    ) -> Result<(Micros, Option<OwnedFd>)> {
        let shared = &self.0;
        let memory = shared.cells.memory(opening.region).ok_or_else(revoked)?;
        let (until, unix, now) = (verified.terms().expires, shared.clock.unix(), shared.clock.boot());
        let meters = memory.meters.cells(verified.meters(), until, unix, now)?;
        let mut audit = Micros(0);
        if !known {
            let started = Instant::now();
            let recorded = shared.record(self.opening_entry(opener, token, verified, opening)).await?;
            tracing::trace!(entry = recorded.last(), "a right was opened");
            audit = Micros(started.elapsed().as_micros() as u64); // a wait of 584,000 years does not happen
        }
        let handed = Arc::new(match opening.path {
            Path::Mediated => Handed::default(),
            Path::Mapped => Handed::over(segments(&memory, opening.range)),
        });
        let kind = self.kind(opener);
        let descriptor = match opening.path {
            Path::Mediated => None,
            Path::Mapped => {
                let first = memory.segment_of(opening.range.start());
                Some(shared.hand_out(opening.open, &memory, &handed, kind, first).await?)
            }
        };
        if opening.first_of_grant
            && let Some(grant) = verified.terms().grant
        {
            shared.notify(Notice::GrantOpened { grant });
        }
        if matches!(opener.origin, Origin::Network { .. }) {
            memory.read_by(opener.session, |session| lock(&shared.sessions).contains_key(&session));
        }
        // The slot opens last. The index' previous right may still have an operation inside, for microseconds.
        loop {
            {
                let kernel = lock(&shared.kernel);
                let row = kernel.open_row(opening.open).ok_or_else(revoked)?;
                let generation = opening.open.generation;
                let (memory, handed, meters) = (memory.clone(), handed.clone(), meters.clone());
                let right = Arc::new(Right::new(row, generation, memory, kind, handed, meters));
                if shared.cells.open(opening.open, &right) {
                    return Ok((audit, descriptor));
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Which descriptors a client may have.
    fn kind(&self, opener: &Opener) -> Holder {
        opener.holder(self.config().uid)
    }

    fn opening_entry(
        &self,
        opener: &Opener,
        token: &Token,
        verified: &VerifiedToken,
        opening: &Opening,
    ) -> Draft {
        let terms = verified.terms();
        let event = if terms.grant.is_some() { Entry::ShareOpen } else { Entry::LeaseOpen };
        let chain: Vec<_> = std::iter::once(verified.chain().first_holder)
            .chain(verified.chain().hops.iter().map(|hop| hop.to))
            .collect();
        let path = match opening.path {
            Path::Mapped => "mapped",
            Path::Mediated => "mediated",
        };
        let confined = opener.holder(self.config().uid) == Holder::Sandboxed;
        let tier = confined.then(|| self.tier_of(opener).name());
        opener
            .identified(Draft::ok(event))
            .lease(terms.lease)
            .region(terms.region)
            .maybe(terms.grant, Draft::grant)
            .rights(opening.rights)
            .range(opening.range)
            .expires(verified.effective().expires)
            .chain(&chain)
            .token_hmac(self.0.salt.token(token.as_bytes()))
            .revocation_ids(verified.revocation_ids().iter().map(|id| &id.0))
            .method(path)
            .maybe(tier, Draft::tier)
    }
}
