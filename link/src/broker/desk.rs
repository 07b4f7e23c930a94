//! What a provider may say, and only of its own leases: a provider that was taken over by somebody must be able to harm
//! what it has, and nothing else. Whatever else it says is refused and recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use audit::{Draft, Event};
use broker::runtime::{Caller, Handle};
use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId, PrincipalKey, ProviderId};
use caps::token::Cut;
use caps::wire::cluster::{BrokerSays, ProviderAsks};
use caps::wire::link::Notice;
use caps::wire::row::{EndCause, GrantState, LeaseState, Revocation, Target};
use caps::wire::{Reason, Reply, Request};
use policy::limits::LINK_BAD_NOTICES_MAX;

use super::registry::Life;
use super::remote::Asked;

/// The desk of one link.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) handle: Handle,
    /// In whose name the node itself asks.
    pub(super) admin: PrincipalKey,
    pub(super) life: Arc<Life>,
    pub(super) asked: Arc<Asked>,
    /// Notices over this link that were about nothing of its own.
    bad: Arc<AtomicUsize>,
}

impl Desk {
    pub(super) fn new(handle: Handle, admin: PrincipalKey, life: Arc<Life>, asked: Arc<Asked>) -> Self {
        Self { handle, admin, life, asked, bad: Arc::default() }
    }

    fn id(&self) -> ProviderId {
        self.life.registration.id
    }

    const fn node(&self) -> Caller {
        Caller { holder: self.admin, uid: Some(0), session: 0 }
    }

    /// Answers one question.
    ///
    /// # Errors
    /// What the provider is told.
    pub(super) async fn answer(&self, ask: ProviderAsks) -> Result<BrokerSays> {
        match ask {
            ProviderAsks::Notices { first, notices } => self.notices(first, &notices).await,
            ProviderAsks::RevokeToken { holder, cut, reason } => {
                self.revoke_token(holder, *cut, reason).await
            }
            ProviderAsks::RevokeHolder { holder } => self.revoke_holder(holder).await,
        }
    }

    /// The provider says that it has nothing any more. It is believed: what is told is its own, and one that lies about its
    /// own memory can do so in every answer to a take. Says why the link is over.
    pub(super) async fn gone(&self) -> Error {
        match self.handle.provider_gone(self.id()).await {
            Ok(()) => Error::new(Code::Epoch, "the provider has stopped, and this life of it is over"),
            // It is found out by its silence.
            Err(error) => error,
        }
    }

    /// Notes what happened, each once.
    async fn notices(&self, first: u64, notices: &[Notice]) -> Result<BrokerSays> {
        let _one = self.life.noting.lock().await;
        let mut noted = self.life.noted();
        if first > noted {
            tracing::warn!(provider = %self.life.registration.name, missing = first - noted, "notices are lost");
            noted = first;
            // Before they count as noted, or a link that is cut here would leave nobody to look.
            self.life.losses.fetch_add(1, Ordering::AcqRel);
            self.life.note(noted);
        }
        self.look();
        let known = usize::try_from(noted - first).unwrap_or(usize::MAX);
        for notice in notices.iter().skip(known) {
            match self.handle.provider_notice(self.id(), *notice).await {
                Ok(()) => {}
                // It is told again, with all after it.
                Err(error) if matches!(error.code(), Code::Busy | Code::Unreachable) => break,
                Err(error) if error.code() == Code::Epoch => {
                    self.asked.end.close(error.clone());
                    return Err(error);
                }
                // The books have recorded it, as far as it was about another's.
                Err(error) => self.bad_notice(&error),
            }
            noted += 1;
            self.life.note(noted);
        }
        Ok(BrokerSays::Noted { next: noted })
    }

    /// One notice was about what is not there, or not its own. It may be late; a flood of them is none of that.
    fn bad_notice(&self, error: &Error) {
        let before = self.bad.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            let name = &self.life.registration.name;
            tracing::warn!(provider = %name, %error, "a notice was about what is not there, or not its own");
        }
        if before + 1 >= LINK_BAD_NOTICES_MAX {
            let detail = "too many notices about what is not there, or not the provider's own";
            self.asked.end.close(Error::new(Code::Protocol, detail));
        }
    }

    /// Somebody showed a token at the provider, and wants a part of it taken back.
    async fn revoke_token(&self, holder: PrincipalKey, cut: Cut, reason: Reason) -> Result<BrokerSays> {
        let lease = cut.lease;
        self.own(lease).await?;
        // Its session is the provider's: here it has none.
        let caller = Caller { holder, uid: None, session: 0 };
        match self.handle.revoke_token(caller, cut, reason).await {
            Ok(reply) => Ok(BrokerSays::Revoked(Box::new(reply))),
            Err(error) => {
                if error.code() == Code::GrantUnknown {
                    self.refused(&error, lease);
                }
                Err(error)
            }
        }
    }

    /// A principal broke a rule at the provider, whose operator wants all taken back that it has there.
    async fn revoke_holder(&self, holder: PrincipalKey) -> Result<BrokerSays> {
        let reason = Reason::new("the operator's reaction to a fault")?;
        let mut failed = None;
        for lease in self.leases().await? {
            if lease.1 == holder {
                failed = self.revoke(Target::Lease(lease.0), &reason).await.err().or(failed);
            }
        }
        for grant in self.grants_to(holder).await? {
            failed = self.revoke(Target::Grant(grant), &reason).await.err().or(failed);
        }
        failed.map_or(Ok(BrokerSays::Done), Err)
    }

    async fn revoke(&self, target: Target, reason: &Reason) -> Result<()> {
        let request = Request::Revoke(Revocation { target, reason: reason.clone() });
        match self.handle.request(self.node(), request).await {
            Ok(_) => Ok(()),
            // It ended meanwhile.
            Err(error) if matches!(error.code(), Code::LeaseUnknown | Code::GrantUnknown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Notices were lost: which leases ended? One such look at a time, and again until one of after the last loss was whole.
    pub(super) fn look(&self) {
        if self.life.losses.load(Ordering::Acquire) == 0 {
            return;
        }
        let desk = self.clone();
        tokio::spawn(async move {
            let losses = &desk.life.losses;
            loop {
                let Ok(mut looked) = desk.life.asking.try_lock() else { return };
                let upto = losses.load(Ordering::Acquire);
                if *looked != upto {
                    if !desk.look_for_ends().await {
                        return;
                    }
                    *looked = upto;
                }
                drop(looked);
                // Who lost something while the lock was held has not looked.
                if losses.load(Ordering::Acquire) == upto {
                    return;
                }
            }
        });
    }

    /// Looks once, and says whether it saw everything. Grants of leases that ended end at their time.
    async fn look_for_ends(&self) -> bool {
        let Ok(leases) = self.leases().await else { return false };
        for (lease, _) in leases {
            match self.asked.memory(lease).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let ended = Notice::LeaseEnded { lease, cause: EndCause::Expired };
                    // One that is being claimed is no lease yet, and says so.
                    if let Err(error) = self.handle.provider_notice(self.id(), ended).await {
                        tracing::warn!(%error, %lease, "the end of a lease could not be noted; it ends at its time");
                    }
                }
                // The rest ends at its time, or when it is taken, unless another look finds it out before.
                Err(_) => return false,
            }
        }
        true
    }

    /// The leases that live here, and whose they are.
    async fn leases(&self) -> Result<Vec<(LeaseId, PrincipalKey)>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let Reply::Leases(page) = self.handle.request(self.node(), Request::LeaseList { after }).await?
            else {
                return Err(Code::Internal.into());
            };
            let here =
                page.rows.iter().filter(|row| row.provider == self.id() && row.state == LeaseState::Live);
            found.extend(here.map(|row| (row.id, row.owner)));
            after = page.rows.last().map(|row| row.id);
            if !page.more || after.is_none() {
                return Ok(found);
            }
        }
    }

    /// The grants of leases here that `receiver` has.
    async fn grants_to(&self, receiver: PrincipalKey) -> Result<Vec<GrantId>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let Reply::Grants(page) = self.handle.request(self.node(), Request::ShareList { after }).await?
            else {
                return Err(Code::Internal.into());
            };
            for row in &page.rows {
                let lives = row.receiver == receiver && row.state != GrantState::Ended;
                if lives && self.handle.placed_on(row.lease).await.is_ok_and(|at| at == self.id()) {
                    found.push(row.id);
                }
            }
            after = page.rows.last().map(|row| row.id);
            if !page.more || after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Whether a lease is this provider's.
    async fn own(&self, lease: LeaseId) -> Result<()> {
        if self.handle.placed_on(lease).await.is_ok_and(|at| at == self.id()) {
            return Ok(());
        }
        let error = Error::new(Code::LeaseUnknown, "no such lease is at this provider");
        self.refused(&error, lease);
        Err(error)
    }

    /// A provider asked for something about a lease that is not its own. Recorded, as often as one may be.
    fn refused(&self, error: &Error, lease: LeaseId) {
        let Some(left_out) = self.life.refusals.count(self.handle.now()) else { return };
        let name = &self.life.registration.name;
        tracing::warn!(provider = %name, %error, "a provider spoke of what is not there, or not its own");
        let entry =
            Draft::deny(Event::LeaseDeny, error.code()).provider(self.id()).name(name.as_str()).lease(lease);
        self.handle.record_regardless(if left_out > 0 { entry.suppressed(left_out) } else { entry });
    }
}
