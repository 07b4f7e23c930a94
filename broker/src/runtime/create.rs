//! `LeaseCreate`: judge, reserve, claim, commit, mint.
//!
//! The reservation's record is waited for at the end only, when it is long durable or the reservation has been undone:
//! claiming and minting go on beside the syncs.
//!
//! A provider that has not the memory that its books promise, or does not answer, is passed over for a while, and the lease
//! is tried at the next best one, once.

use caps::id::{LeaseId, ProviderId};
use caps::time::UnixMicros;
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::reply::Reply;
use caps::wire::request::LeaseSpec;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::Facts;
use policy::limits::PLACEMENT_RETRIES_MAX;

use tokio::sync::oneshot;

use super::{Caller, Claimed, Handle, principal, recorded_index, system, unexpected};
use crate::runtime::engine::{Mode, Order, Outcome};
use crate::state::{Answer, Kind, PolicyVerdict, Query, Undo, View};

impl Handle {
    pub(super) async fn create(&self, caller: Caller, spec: LeaseSpec) -> Result<Reply> {
        let shared = &self.shared;
        let mut facts = self.facts(policy::Kind::LeaseCreate, caller);
        facts.bytes = Some(spec.bytes);
        facts.ttl = Some(spec.ttl);
        facts.class.clone_from(&spec.class);
        facts.hops = Some(spec.max_hops);
        let verdict = shared.judge(&facts, None)?;

        let mut reserved = self.reserve(caller, &spec, &verdict).await?;
        let mut tried = 0;
        let Claimed { bytes, recorded: claim_recorded } = loop {
            let Reserved { ticket, provider, .. } = reserved;
            let left = ticket.claim_by.since(shared.clock.now());
            let refused = match shared.links.claim(provider, ticket, caller.session, left).await {
                Ok(claimed) => break claimed,
                Err(refused) => refused,
            };
            // Any other refusal says something of the ticket, and nothing of the provider.
            let elsewhere =
                matches!(refused.code(), Code::NoMemory | Code::Busy | Code::Unreachable | Code::Timeout);
            self.pass_over(&reserved, &refused, elsewhere).await?;
            recorded_index(reserved.recorded).await?;
            if !elsewhere || tried == PLACEMENT_RETRIES_MAX || !shared.links.has_other(provider) {
                return Err(refused);
            }
            tried += 1;
            // A heartbeat may have come while its bytes and the record were waited for, and says nothing of this lease.
            shared.order_and_wait(Kind::ProviderRefused { provider }).await?;
            // Whatever stands against a second one, it is the first refusal that says why there is no lease.
            reserved = match self.reserve(caller, &spec, &verdict).await {
                Ok(other) if other.provider != provider => other,
                Ok(same) => {
                    shared.order_and_wait(Kind::Abandon { lease: same.ticket.lease }).await?;
                    return Err(refused);
                }
                Err(_) => return Err(refused),
            };
        };
        let Reserved { ticket, provider, recorded: reservation_recorded } = reserved;
        let lease = ticket.lease;
        let commit = Kind::Commit { lease, bytes };
        let committed = shared.order(Order { mode: Mode::Recorded, ..system(commit) }).await?;
        let (row, terms) = match committed.answer {
            Ok(Answer::Leased { lease, terms, .. }) => (lease, terms),
            Ok(_) => return Err(unexpected()),
            Err(error) => {
                self.give_back(lease, provider).await;
                recorded_index(reservation_recorded).await?;
                return Err(error);
            }
        };
        let token = shared.minting.mint(&terms);
        // Three entries in two logs, waited for side by side. The token leaves once all are durable.
        recorded_index(reservation_recorded).await?;
        if let Err(error) = claim_recorded.await {
            // Nobody will have its token. Nor may it live without one, at a provider that was only not heard.
            self.shared.order_surely(Kind::Undo(Undo::Lease { lease })).await?;
            return Err(error);
        }
        recorded_index(committed.recorded).await?;
        Ok(Reply::Leased { lease: row, token: token? })
    }

    async fn reserve(&self, caller: Caller, spec: &LeaseSpec, verdict: &PolicyVerdict) -> Result<Reserved> {
        let kind = Kind::Reserve { spec: spec.clone(), session: caller.session };
        let order = Order { random: random()?, ..principal(caller, kind, None, Some(verdict.clone())) };
        let Outcome { answer, recorded, .. } = self.shared.order(order).await?;
        match answer {
            Ok(Answer::Reserved(ticket, provider)) => Ok(Reserved { ticket, provider, recorded }),
            Ok(_) => Err(unexpected()),
            Err(refused) => {
                recorded_index(recorded).await?;
                Err(refused)
            }
        }
    }

    /// A reservation was not claimed: it goes, and, where another may do better, other providers come first for a while.
    /// Where the provider answered, its bytes are waited for: the quota may have no room for them twice.
    async fn pass_over(&self, reserved: &Reserved, refused: &Error, elsewhere: bool) -> Result<()> {
        let Reserved { ticket, provider, .. } = reserved;
        let abandon = Kind::Abandon { lease: ticket.lease };
        let (first, then) = match elsewhere {
            true => (Kind::ProviderRefused { provider: *provider }, Some(abandon)),
            false => (abandon, None),
        };
        let outcome = self.shared.order(Order { then, ..system(first) }).await?;
        if !matches!(refused.code(), Code::Unreachable | Code::Timeout) {
            for take in outcome.takes {
                // What it comes to is the books' to know.
                let _ = take.await;
            }
        }
        outcome.answer.map(drop)
    }

    /// The lease was not committed, but its memory may be.
    async fn give_back(&self, lease: LeaseId, provider: ProviderId) {
        // A reservation ends; one that ended while it was being claimed had nothing to take then.
        if self.shared.order_and_wait(Kind::Abandon { lease }).await.is_ok()
            && let Ok(View::Placed(Some(at))) =
                self.shared.look(self.shared.genesis.admin, Query::Placed(lease)).await
            && at.provider == provider
        {
            let _ = self.shared.links.take(at, Take::Lease(lease), EndCause::NotClaimed).await;
        }
    }

    /// The facts that every request has.
    pub(super) fn facts(&self, kind: policy::Kind, caller: Caller) -> Facts {
        Facts::new(kind, caller.holder, self.shared.directory.get(caller.holder), caller.uid)
    }

    /// The broker's time.
    #[must_use]
    pub fn now(&self) -> UnixMicros {
        self.shared.clock.now()
    }
}

/// Capacity that waits for its claim.
struct Reserved {
    ticket: ClaimTicket,
    provider: ProviderId,
    recorded: oneshot::Receiver<Result<u64>>,
}

/// The bytes that new ids are made of.
fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| Error::new(Code::System, "the kernel's random source does not answer"))?;
    Ok(bytes)
}
