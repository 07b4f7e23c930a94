//! The serialized form: rows and counters, never an index. What can be derived is derived again on restore, so a
//! snapshot cannot contradict itself; what remains is checked.

use std::collections::BTreeSet;

use caps::id::{GrantId, LeaseId, PrincipalKey, ProviderId, Seat, TransferId};
use caps::time::UnixMicros;
use caps::wire::Name;
use caps::wire::link::Take;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::quota::{Quota, Usage};
use serde::{Deserialize, Serialize};

use super::Broker;
use super::books::{Principal, Principals};
use super::command::RowId;
use super::deadlines::Deadlines;
use super::denials::Denials;
use super::donation::{Donation, Donations};
use super::genesis::Genesis;
use super::grant::Grant;
use super::lease::{Booked, Ending, Lease, Life, Lost};
use super::provider::{Provider, Providers};
use super::table::{Grants, Leases};
use super::transfer::{Transfer, Transfers};
use super::untold::Untold;

/// The version of the form. A snapshot of another version is refused.
pub const SNAPSHOT_VERSION: u16 = 6;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    version: u16,
    genesis: Genesis,
    now: UnixMicros,
    providers: Vec<Provider>,
    past_providers: Vec<(Name, ProviderId, Option<Seat>)>,
    drained_providers: Vec<Name>,
    untold: Vec<(ProviderId, Vec<(Take, EndCause)>)>,
    #[serde(with = "serde_bytes")]
    policy: [u8; 32],
    strangers: Denials,
    principals: Vec<Principal>,
    leases: Vec<Lease>,
    ended_leases: Vec<LeaseId>,
    grants: Vec<Grant>,
    ended_grants: Vec<GrantId>,
    donations: Vec<Donation>,
    transfers: Vec<Transfer>,
    ended_transfers: Vec<TransferId>,
}

impl Broker {
    /// The whole state as CBOR. Equal states have equal bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let snapshot = Snapshot {
            version: SNAPSHOT_VERSION,
            genesis: self.genesis.clone(),
            now: self.now,
            providers: self.providers.rows.values().cloned().collect(),
            past_providers: self.providers.past.iter().cloned().collect(),
            drained_providers: self.providers.drained.iter().cloned().collect(),
            untold: self.untold.0.iter().map(|(id, takes)| (*id, takes.iter().copied().collect())).collect(),
            policy: self.policy,
            strangers: self.strangers,
            principals: self.principals.rows.values().cloned().collect(),
            leases: self.leases.rows.values().cloned().collect(),
            ended_leases: self.leases.ended.iter().copied().collect(),
            grants: self.grants.rows.values().cloned().collect(),
            ended_grants: self.grants.ended.iter().copied().collect(),
            donations: self.donations.rows.values().cloned().collect(),
            transfers: self.transfers.rows.values().cloned().collect(),
            ended_transfers: self.transfers.ended.iter().copied().collect(),
        };
        let mut bytes = Vec::new();
        // Infallible: the writer is memory and every field has a CBOR form.
        ciborium::into_writer(&snapshot, &mut bytes).expect("the state encodes");
        bytes
    }

    /// The state of a snapshot.
    ///
    /// # Errors
    /// `E_INTERNAL` if the bytes are no snapshot of this version, or of a state that cannot be.
    pub fn restore(bytes: &[u8]) -> Result<Self> {
        let broken = |what| Error::new(Code::Internal, what);
        let mut rest = bytes;
        let snapshot: Snapshot =
            ciborium::from_reader(&mut rest).map_err(|_| broken("the bytes are no snapshot of a broker"))?;
        if !rest.is_empty() {
            return Err(broken("bytes follow the snapshot"));
        }
        if snapshot.version != SNAPSHOT_VERSION {
            return Err(broken("the snapshot is of another version"));
        }
        snapshot.genesis.check()?;
        let mut broker = Self {
            genesis: snapshot.genesis,
            now: snapshot.now,
            providers: Providers::default(),
            policy: snapshot.policy,
            total: Usage::default(),
            principals: Principals::default(),
            strangers: snapshot.strangers,
            leases: Leases::default(),
            grants: Grants::default(),
            donations: Donations::default(),
            unsettled: BTreeSet::new(),
            deadlines: Deadlines::default(),
            sessions: BTreeSet::new(),
            transfers: Transfers::default(),
            untold: Untold::default(),
        };
        for row in snapshot.providers {
            broker.providers.by_id.insert(row.said.id, row.said.name.clone());
            broker.providers.rows.insert(row.said.name.clone(), row);
        }
        broker.providers.past = snapshot.past_providers.into();
        broker.providers.drained = snapshot.drained_providers.into_iter().collect();
        broker.untold.0 = snapshot.untold.into_iter().map(|(id, takes)| (id, takes.into())).collect();
        for principal in snapshot.principals {
            broker.principals.insert(principal);
        }
        for lease in snapshot.leases {
            broker.restore_lease(lease)?;
        }
        for grant in snapshot.grants {
            broker.restore_grant(grant)?;
        }
        for donation in snapshot.donations {
            let row = RowId::Donation(donation.id);
            broker.deadlines.swap(row, None, donation.deadline());
            if broker.donations.rows.contains_key(&donation.id) {
                return Err(broken("a donation stands there twice"));
            }
            broker.donations.insert(donation);
        }
        for transfer in snapshot.transfers {
            broker.restore_transfer(transfer);
        }
        broker.leases.ended = snapshot.ended_leases.into();
        broker.grants.ended = snapshot.ended_grants.into();
        broker.transfers.ended = snapshot.ended_transfers.into();
        broker.check_invariants().map_err(broken)?;
        Ok(broker)
    }

    fn restore_lease(&mut self, lease: Lease) -> Result<()> {
        self.deadlines.swap(RowId::Lease(lease.id), None, lease.life.deadline());
        if lease.is_tied() {
            self.sessions.insert((lease.session, RowId::Lease(lease.id)));
        }
        self.rebook(lease.owner, |usage| booked_lease(usage, &lease))?;
        self.providers.rebook(&lease);
        self.leases.insert(lease);
        Ok(())
    }

    fn restore_grant(&mut self, grant: Grant) -> Result<()> {
        let row = RowId::Grant(grant.contract.grant);
        self.deadlines.swap(row, None, grant.deadline());
        if let Some(session) = grant.life.session() {
            self.sessions.insert((session, row));
        }
        self.rebook(grant.contract.owner, |usage| booked_grant(usage, &grant))?;
        if !grant.life.is_ended()
            && let Some(lease) = self.leases.rows.get_mut(&grant.contract.lease)
        {
            lease.grants += 1;
        }
        self.grants.insert(grant);
        Ok(())
    }

    fn restore_transfer(&mut self, transfer: Transfer) {
        let row = RowId::Transfer(transfer.contract.transfer);
        self.deadlines.swap(row, None, transfer.life.deadline());
        if let Some(session) = transfer.life.session() {
            self.sessions.insert((session, row));
        }
        self.transfers.insert(transfer);
    }

    /// Books a row to its owner and to the node, whatever the quota: what is over one fails the check of invariants.
    /// An ended row may have outlived its owner, and books nothing.
    fn rebook(&mut self, owner: PrincipalKey, book: impl Fn(&mut Usage) -> Result<()>) -> Result<()> {
        if let Some(principal) = self.principals.rows.get_mut(&owner) {
            book(&mut principal.usage)?;
        }
        book(&mut self.total)
    }
}

/// Books a lease as far as it is in its life.
pub(super) fn booked_lease(usage: &mut Usage, lease: &Lease) -> Result<()> {
    let bytes = lease.range.len();
    match lease.life {
        Life::Ended(_) => return Ok(()),
        Life::Reserved(_)
        | Life::Ending(Ending { committed: false, .. })
        | Life::Lost(Lost { booked: Booked::Reserved, .. }) => {
            usage.reserve(&Quota::UNLIMITED, bytes)?;
        }
        Life::Live(_) | Life::Lost(Lost { booked: Booked::Live, .. }) => {
            usage.reserve(&Quota::UNLIMITED, bytes)?;
            usage.commit(bytes)?;
        }
        Life::Ending(Ending { committed: true, .. }) | Life::Lost(Lost { booked: Booked::Going, .. }) => {
            usage.reserve(&Quota::UNLIMITED, bytes)?;
            usage.commit(bytes)?;
            usage.release(bytes)?;
        }
    }
    Ok(())
}

/// Books a grant if it is charged.
pub(super) fn booked_grant(usage: &mut Usage, grant: &Grant) -> Result<()> {
    if grant.is_charged() {
        usage.share(&Quota::UNLIMITED, grant.contract.range.len())?;
    }
    Ok(())
}
