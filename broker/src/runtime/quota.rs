//! `QuotaGive`, `QuotaTakeBack` and `QuotaList`.
//!
//! Giving stands or falls with its record. Taking back, as with leases, takes effect and is recorded as soon as that is
//! possible, and asks no policy: what comes back is the caller's own.

use caps::Result;
use caps::id::{DonationId, PrincipalKey};
use caps::time::Micros;
use caps::wire::reply::Reply;

use super::{Caller, Handle, principal, recorded_index, unexpected};
use crate::runtime::engine::{Mode, Order};
use crate::state::{Answer, Kind, Query, RowId, View};

impl Handle {
    pub(super) async fn quota_give(
        &self,
        caller: Caller,
        id: DonationId,
        to: PrincipalKey,
        bytes: u64,
        ttl: Micros,
    ) -> Result<Reply> {
        let shared = &self.shared;
        let mut facts = self.facts(policy::Kind::QuotaGive, caller);
        facts.bytes = Some(bytes);
        facts.ttl = Some(ttl);
        facts.receiver = shared.directory.get(to).map(|name| (to, name));
        let verdict = shared.judge(&facts, Some(RowId::Donation(id)))?;
        let kind = Kind::QuotaGive { id, to, bytes, ttl };
        donated(shared.order_recorded(caller, kind, None, Some(verdict)).await?)
    }

    pub(super) async fn quota_take_back(&self, caller: Caller, id: DonationId) -> Result<Reply> {
        let kind = Kind::QuotaTakeBack { id };
        let order = Order { mode: Mode::Regardless, ..principal(caller, kind, None, None) };
        let outcome = self.shared.order(order).await?;
        // Not recorded is no failure here: the recorder keeps the entry until a device takes it.
        let _ = recorded_index(outcome.recorded).await;
        donated(outcome.answer?)
    }

    pub(super) async fn quota_list(&self, caller: Caller, after: Option<DonationId>) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Quota(after)).await? {
            View::Quota(quota, donations) => Ok(Reply::Quota { quota, donations }),
            _ => Err(unexpected()),
        }
    }
}

fn donated(answer: Answer) -> Result<Reply> {
    match answer {
        Answer::Donated { row, .. } => Ok(Reply::Donated(row)),
        _ => Err(unexpected()),
    }
}
