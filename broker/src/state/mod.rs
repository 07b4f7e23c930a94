//! The state machine: `apply(command) -> answer, entries, effects`, with no clock, descriptor or thread inside.
//!
//! # Data flow
//!
//! ```text
//! Command { at, by, random, policy, kind }
//!    │ apply            one command at a time, in the order that was agreed on
//!    ├─▶ answer         to whoever asked, once the entries are durable
//!    ├─▶ entries        audit drafts: a function of the commands alone, so every replica's log is the same
//!    └─▶ effects        what a provider must do; each may be done twice
//! query(by, what, at) ─▶ rows, changing nothing
//! ```
//!
//! # Files
//!
//! | file | idea |
//! |---|---|
//! | `genesis.rs` | what a cluster begins with |
//! | `command.rs`, `answer.rs` | what goes in, what comes out |
//! | `lease.rs`, `grant.rs` | a life as states, each reached only from the one before |
//! | `table.rs`, `deadlines.rs` | rows of bounded number with their indices |
//! | `books.rs` | principals, and what each and all together use |
//! | `leasing.rs`, `sharing.rs` | reserve, commit, renew; offer, issue, accept, open |
//! | `ending.rs`, `revoke.rs`, `undo.rs` | every way in which a row ends |
//! | `narrow.rs` | taking back a part |
//! | `cut.rs` | taking back single tokens, by the marks of their blocks |
//! | `donation.rs` | quota that one principal lends another |
//! | `cosigning.rs` | the signature of a third party, between offer and issue |
//! | `transfer.rs`, `handing.rs` | offers to hand a lease over, and how its owner changes |
//! | `system.rs` | ticks, notices, a new policy |
//! | `provider.rs`, `membership.rs` | the table of providers; how they come, are heard, drain and are lost |
//! | `place.rs` | which provider gets a lease, and why |
//! | `untold.rs` | what a provider did not answer when it was told |
//! | `entry.rs`, `denials.rs` | what the log says, and how often it says no |
//! | `view.rs` | lists, page by page, of what concerns the one who asks |
//! | `snapshot.rs`, `invariants.rs` | the serialized form; what is always true |
//!
//! # Rules of the house
//!
//! Each operation first decides, where every refusal is and nothing changes, and then acts, where nothing is refused.
//! Collections are ordered (`BTreeMap`), never hashed: iteration is part of the outcome.

mod answer;
mod books;
mod command;
mod cosigning;
mod cut;
mod deadlines;
mod denials;
mod donation;
mod ending;
mod entry;
mod genesis;
mod grant;
mod invariants;
mod lease;
mod leasing;
mod narrow;
mod revoke;
mod sharing;
mod snapshot;
mod system;
mod table;
mod undo;
mod view;

mod handing;
mod membership;
mod place;
mod provider;
mod transfer;
mod untold;

use std::collections::BTreeSet;

use caps::id::PrincipalKey;
use caps::time::UnixMicros;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::quota::Usage;

use answer::Out;
pub use answer::{Answer, Applied, Effect};
use books::{Principal, Principals};
pub use command::{
    Acceptance, Actor, Command, Kind, Narrowing, PolicyVerdict, RowId, TokenCut, TransferAcceptance, Undo,
};
use deadlines::Deadlines;
use denials::Denials;
use donation::Donations;
pub use genesis::{Bounds, Capacity, Genesis};
pub use membership::Whereabouts;
use provider::{Provider, Providers};
pub use snapshot::SNAPSHOT_VERSION;
pub use system::TICK_ROWS_MAX;
use table::{Grants, Leases};
use transfer::Transfers;
use untold::Untold;
pub use view::{Query, StatusView, View};

/// The control plane of one cluster, in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    genesis: Genesis,
    /// The latest time that any command named.
    now: UnixMicros,
    providers: Providers,
    /// SHA-256 of the policy in force.
    policy: [u8; 32],
    /// What all principals use together.
    total: Usage,
    principals: Principals,
    /// Refusals of keys that are not registered, counted together: their number is the peer's to choose.
    strangers: Denials,
    leases: Leases,
    grants: Grants,
    donations: Donations,
    /// Who may use less of what it owes than before this command. Empty between commands, so it is in no snapshot.
    unsettled: BTreeSet<PrincipalKey>,
    deadlines: Deadlines,
    /// Rows that end with a session's process.
    sessions: BTreeSet<(u64, RowId)>,
    transfers: Transfers,
    untold: Untold,
}

impl Broker {
    /// The state in which a cluster begins: one principal, the administrator.
    ///
    /// # Errors
    /// As [`Genesis::check`].
    pub fn new(genesis: Genesis) -> Result<Self> {
        genesis.check()?;
        let mut principals = Principals::default();
        principals.insert(Principal {
            name: genesis.admin_name.clone(),
            key: genesis.admin,
            denials: Denials::default(),
            leaving: false,
            usage: Usage::default(),
        });
        let mut providers = Providers::default();
        if let Some(said) = &genesis.provider {
            // In the broker's own process, or there would be no broker to begin it with.
            let first = Provider::new(said.clone(), true, false, genesis.at);
            providers.insert(first, genesis.capacity.providers);
        }
        Ok(Self {
            now: genesis.at,
            providers,
            policy: genesis.policy,
            total: Usage::default(),
            principals,
            strangers: Denials::default(),
            leases: Leases::default(),
            grants: Grants::default(),
            donations: Donations::default(),
            unsettled: BTreeSet::new(),
            deadlines: Deadlines::default(),
            sessions: BTreeSet::new(),
            transfers: Transfers::default(),
            untold: Untold::default(),
            genesis,
        })
    }

    /// Applies one command. The same commands in the same order give the same state, answers and entries anywhere.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.now = self.now.max(command.at.min(UnixMicros::MAX));
        let mut out = Out::default();
        let answer = self.dispatch(command, &mut out);
        // Here, and not where bytes are booked: whatever makes a principal use less pays its debts.
        self.settle_changed(&mut out);
        if let Err(error) = &answer {
            self.record_refusal(command, error, &mut out);
        }
        Applied { answer, entries: out.entries, effects: out.effects }
    }

    /// When the next [`Kind::Tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMicros> {
        self.deadlines.next()
    }

    /// The latest time that any command named.
    #[must_use]
    pub const fn now(&self) -> UnixMicros {
        self.now
    }

    /// What the cluster began with.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// SHA-256 of the policy in force.
    #[must_use]
    pub const fn policy(&self) -> [u8; 32] {
        self.policy
    }

    fn dispatch(&mut self, command: &Command, out: &mut Out) -> Result<Answer> {
        match &command.kind {
            Kind::PrincipalAdd { name, key } => self.principal_add(self.principal(command)?, name, *key, out),
            Kind::Reserve { spec, session } => {
                self.reserve(self.principal(command)?, spec, *session, command, out)
            }
            Kind::Renew { lease, ttl } => self.renew(self.principal(command)?, *lease, *ttl, command, out),
            Kind::Release { lease } => self.release(self.principal(command)?, *lease, out),
            Kind::Offer { contract, signature } => {
                self.offer(self.principal(command)?, contract, signature, out)
            }
            Kind::Issue { grant } => self.issue(self.principal(command)?, *grant, command, out),
            Kind::Accept(acceptance) => self.accept(self.principal(command)?, acceptance, command, out),
            Kind::Revoke(revocation) => self.revoke(self.principal(command)?, revocation, command, out),
            Kind::Narrow(narrowing) => self.narrow(self.principal(command)?, narrowing, command, out),
            Kind::RevokeToken(cut) => self.revoke_token(cut, command, out),
            Kind::QuotaGive { id, to, bytes, ttl } => {
                self.quota_give(self.principal(command)?, (*id, *to, *bytes, *ttl), command, out)
            }
            Kind::QuotaTakeBack { id } => self.quota_take_back(self.principal(command)?, *id, out),
            Kind::OfferToCosign { contract, signature, uid } => {
                self.offer_to_cosign(self.principal(command)?, contract, signature, *uid, command, out)
            }
            Kind::Cosign { grant, signature } => {
                self.cosign(self.principal(command)?, *grant, signature, command, out)
            }
            Kind::TransferOffer { contract, signature } => {
                self.transfer_offer(self.principal(command)?, contract, signature, command, out)
            }
            Kind::TransferAccept(acceptance) => {
                self.transfer_accept(self.principal(command)?, acceptance, command, out)
            }
            Kind::TransferWithdraw { transfer } => {
                self.transfer_withdraw(self.principal(command)?, *transfer, out)
            }
            Kind::Tick => Ok(self.tick(out)),
            Kind::Commit { .. }
            | Kind::Abandon { .. }
            | Kind::Notice { .. }
            | Kind::Taken { .. }
            | Kind::HolderExit { .. }
            | Kind::ProviderLost { .. }
            | Kind::PolicyLoad { .. }
            | Kind::Undo(_)
            | Kind::Refused { .. }
            | Kind::TransferDone { .. }
            | Kind::TransferBack { .. }
            | Kind::ProviderRegister { .. }
            | Kind::ProviderHeartbeat { .. }
            | Kind::ProviderRefused { .. }
            | Kind::Untold { .. }
            | Kind::Told { .. }
                if command.by != Actor::System =>
            {
                Err(Error::new(Code::Protocol, "only the node itself may propose this"))
            }
            Kind::Commit { lease, bytes } => self.commit(*lease, *bytes, out),
            Kind::Abandon { lease } => self.abandon(*lease, out),
            Kind::Notice { provider, notice } => self.notice(*provider, notice, out),
            Kind::Taken { lease } => self.taken(*lease, out),
            Kind::HolderExit { session } => Ok(self.holder_exit(*session, out)),
            Kind::ProviderLost { provider, proved } => self.provider_lost(*provider, *proved, out),
            Kind::PolicyLoad { hash } => Ok(self.policy_load(hash, out)),
            Kind::Undo(undo) => self.undo(undo, out),
            Kind::Refused { who, code, about } => Ok(self.refused(*who, *code, *about, out)),
            Kind::TransferDone { transfer, since } => self.transfer_done(*transfer, *since, out),
            Kind::TransferBack { transfer, since } => {
                self.transfer_back(*transfer, *since, EndCause::NotClaimed, out)?;
                Ok(Answer::Done)
            }
            Kind::ProviderRegister { provider, attached } => self.provider_register(provider, *attached, out),
            Kind::ProviderHeartbeat { provider, load } => self.provider_heartbeat(*provider, *load),
            Kind::ProviderDrain { name, drain } => {
                self.provider_drain(self.principal(command)?, name, *drain, out)
            }
            Kind::ProviderGiveUp { name } => self.provider_give_up(self.principal(command)?, name, out),
            Kind::ProviderRefused { provider } => Ok(self.provider_refused(*provider)),
            Kind::Untold { provider, take, cause } => self.untold(*provider, *take, *cause, out),
            Kind::Told { provider, take } => Ok(self.told(*provider, take)),
        }
    }

    /// The registered principal that asks.
    fn principal(&self, command: &Command) -> Result<PrincipalKey> {
        match command.by {
            Actor::Principal(key) if self.principals.active(key).is_some() => Ok(key),
            Actor::Principal(_) => {
                Err(Error::new(Code::PrincipalUnknown, "this key is not registered at this node"))
            }
            Actor::System => Err(Error::new(Code::Protocol, "only a principal may ask for this")),
        }
    }

    fn is_admin(&self, key: PrincipalKey) -> bool {
        key == self.genesis.admin
    }

    /// What the policy said about `command`, as an answer. No decision, and one of another policy, are no.
    fn permitted(&self, command: &Command) -> Result<()> {
        match &command.policy {
            None => Err(Error::new(Code::PolicyDenied, "the policy was not asked")),
            Some(verdict) if verdict.hash != self.policy => {
                Err(Error::new(Code::Busy, "the policy changed while the request was judged; ask again"))
            }
            Some(verdict) if !verdict.allowed => {
                Err(Error::new(Code::PolicyDenied, "the policy does not allow this"))
            }
            Some(_) => Ok(()),
        }
    }
}
