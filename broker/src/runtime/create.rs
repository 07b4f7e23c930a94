//! `LeaseCreate`: judge, reserve, claim, commit, mint.
//!
//! The reservation's record is waited for at the end only, when it is long durable or the reservation has been undone:
//! claiming and minting go on beside the syncs.

use caps::id::{LeaseId, ProviderId};
use caps::time::UnixMicros;
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::reply::Reply;
use caps::wire::request::LeaseSpec;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::Facts;

use super::{Caller, Claimed, Handle, Shared, principal, recorded_index, system, unexpected};
use crate::runtime::engine::{Mode, Order};
use crate::state::{Answer, Kind};

impl Handle {
    pub(super) async fn create(&self, caller: Caller, spec: LeaseSpec) -> Result<Reply> {
        let shared = &self.shared;
        let mut facts = self.facts(policy::Kind::LeaseCreate, caller);
        facts.bytes = Some(spec.bytes);
        facts.ttl = Some(spec.ttl);
        facts.class.clone_from(&spec.class);
        facts.hops = Some(spec.max_hops);
        let verdict = shared.judge(&facts, None)?;

        let kind = Kind::Reserve { spec, session: caller.session };
        let order = Order { random: random()?, ..principal(caller, kind, None, Some(verdict)) };
        let reserved = shared.order(order).await?;
        let (ticket, provider) = match reserved.answer {
            Ok(Answer::Reserved(ticket, provider)) => (ticket, provider),
            Ok(_) => return Err(unexpected()),
            Err(refused) => {
                recorded_index(reserved.recorded).await?;
                return Err(refused);
            }
        };
        let lease = ticket.lease;
        let claimed = match claim(shared, provider, ticket, caller.session).await {
            Ok(claimed) => claimed,
            Err(error) => {
                shared.order_and_wait(Kind::Abandon { lease }).await?;
                recorded_index(reserved.recorded).await?;
                return Err(error);
            }
        };
        let Claimed { bytes, recorded: claim_recorded } = claimed;
        let commit = Kind::Commit { lease, bytes };
        let committed = shared.order(Order { mode: Mode::Recorded, ..system(commit) }).await?;
        let (row, terms) = match committed.answer {
            Ok(Answer::Leased { lease, terms, .. }) => (lease, terms),
            Ok(_) => return Err(unexpected()),
            Err(error) => {
                self.give_back(lease, provider).await;
                recorded_index(reserved.recorded).await?;
                return Err(error);
            }
        };
        let token = shared.minting.mint(&terms);
        // Three entries in two logs, waited for side by side. The token leaves once all are durable.
        recorded_index(reserved.recorded).await?;
        claim_recorded.await?;
        recorded_index(committed.recorded).await?;
        Ok(Reply::Leased { lease: row, token: token? })
    }

    /// The lease was not committed, but its memory may be.
    async fn give_back(&self, lease: LeaseId, provider: ProviderId) {
        // A reservation ends; one that ended while it was being claimed had nothing to take then.
        if self.shared.order_and_wait(Kind::Abandon { lease }).await.is_ok()
            && let Ok(link) = self.shared.links.get(provider)
        {
            let _ = link.take(Take::Lease(lease), EndCause::NotClaimed).await;
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

async fn claim(shared: &Shared, provider: ProviderId, ticket: ClaimTicket, session: u64) -> Result<Claimed> {
    shared.links.get(provider)?.claim(ticket, session).await
}

/// The bytes that new ids are made of.
fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| Error::new(Code::System, "the kernel's random source does not answer"))?;
    Ok(bytes)
}
