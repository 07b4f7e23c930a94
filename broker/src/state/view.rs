//! Lists, page by page, each row as it is now. A principal sees what concerns it: its leases, the grants that it gave
//! or was offered, and the names and keys of all principals, because sharing needs them; the administrator sees all.

use std::ops::Bound;

use caps::id::{DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, TransferId};
use caps::key::Signature;
use caps::limits::{PAGE_GRANTS_MAX, PAGE_ROWS_MAX};
use caps::rights::Rights;
use caps::share::{ShareContract, Signed, TransferSigned};
use caps::time::{Micros, UnixMicros};
use caps::wire::Name;
use caps::wire::provider::{Load, Placement, ProviderRow};
use caps::wire::reply::Page;
use caps::wire::row::{
    Agreed, CosignerRow, DonationRow, GrantRow, LeaseRow, PrincipalRow, QuotaRow, TransferRow,
};
use caps::{Code, Error, Result};
use policy::quota::Usage;

use super::grant::{Grant, GrantLife};
use super::lease::Lease;
use super::{Broker, Whereabouts};

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Who the one who asks is. The only question that an unregistered key may ask.
    Who,
    /// Principals in the order of their keys, after this one.
    Principals(Option<PrincipalKey>),
    /// Leases in the order of their ids, after this one.
    Leases(Option<LeaseId>),
    /// One lease.
    Lease(LeaseId),
    /// Grants in the order of their ids, after this one.
    Grants(Option<GrantId>),
    /// One grant.
    Grant(GrantId),
    /// The books.
    Status,
    /// The caller's quota of bytes, and donations in the order of their ids, after this one.
    Quota(Option<DonationId>),
    /// An offer that waits for the one who asks to co-sign it.
    ToCosign(GrantId),
    /// Offers of leases in the order of their ids, after this one.
    Transfers(Option<TransferId>),
    /// One offer of a lease.
    Transfer(TransferId),
    /// A lease of one's own that is to be offered to another owner.
    ToOffer(LeaseId),
    /// The lease of an offer.
    ToTakeOver(TransferId),
    /// Where a lease is: the node's own question.
    Placed(LeaseId),
    /// A life of a provider: the node's own question.
    Provider(ProviderId),
    /// Until when a life of a provider may serve a lease; without one, until when any may that is lost and not proved to be
    /// gone: the node's own question.
    Serves(Option<ProviderId>),
}

/// What is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// To [`Query::Who`].
    Who {
        /// The registered name.
        name: Option<Name>,
        /// Whether it is the administrator.
        admin: bool,
    },
    /// To [`Query::Principals`].
    Principals(Page<PrincipalRow>),
    /// To [`Query::Leases`].
    Leases(Page<LeaseRow>),
    /// To [`Query::Lease`].
    Lease(LeaseRow),
    /// To [`Query::Grants`].
    Grants(Page<GrantRow>),
    /// To [`Query::Grant`].
    Grant(GrantRow, Signed),
    /// To [`Query::Status`].
    Status(StatusView),
    /// To [`Query::Quota`].
    Quota(QuotaRow, Page<DonationRow>),
    /// To [`Query::ToCosign`].
    ToCosign {
        /// What is to be signed.
        contract: ShareContract,
        /// The user id of the process that offered it; `None` once it is not an offer any more.
        uid: Option<u32>,
    },
    /// To [`Query::Transfers`].
    Transfers(Page<TransferRow>),
    /// To [`Query::Transfer`].
    Transfer(TransferRow, TransferSigned),
    /// To [`Query::ToOffer`] and [`Query::ToTakeOver`]: what its new owner would have asked for, had it made the lease.
    Handed {
        /// Bytes of the lease.
        bytes: u64,
        /// How long it still lives.
        left: Micros,
        /// Its class.
        class: Option<Name>,
        /// How often its owner's tokens may be delegated.
        hops: u8,
        /// The owner's signature, of an offer.
        by_owner: Option<Signature>,
    },
    /// To [`Query::Placed`]; `None` if the lease is not known.
    Placed(Option<Whereabouts>),
    /// To [`Query::Provider`]; `None` if it is not known, or has no row any more.
    Provider(Option<ProviderRow>),
    /// To [`Query::Serves`]; `None` if there is no such lease.
    Serves(Option<UnixMicros>),
}

/// The numbers of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusView {
    /// The node's own provider, or the first one by name; of those that are lost, if all are. All zeros if there never
    /// was one.
    pub provider: ProviderId,
    /// Whether that one is the node's own.
    pub own: bool,
    /// The providers, in the order of their names, for the administrator alone: what others use is theirs to know.
    pub providers: Vec<ProviderRow>,
    /// What those said together that are there, but for `provider`.
    pub load: Load,
    /// How long the cluster has been up.
    pub uptime: Micros,
    /// Bytes that can be leased at the providers that are there.
    pub pool_bytes: u64,
    /// Bytes reserved or leased.
    pub leased_bytes: u64,
    /// Leases that have not ended.
    pub leases: u32,
    /// Grants that have not ended.
    pub grants: u32,
    /// Registered principals.
    pub principals: u32,
    /// SHA-256 of the policy in force.
    pub policy: [u8; 32],
}

impl Broker {
    /// Looks at the state as it is at `at`, or at the latest time of a command if that is later.
    ///
    /// # Errors
    /// `E_PRINCIPAL_UNKNOWN` for a key that is not registered; `E_LEASE_UNKNOWN` or `E_GRANT_UNKNOWN` for a row that
    /// is not there or does not concern `by`.
    pub fn query(&self, by: PrincipalKey, query: &Query, at: UnixMicros) -> Result<View> {
        let now = self.now.max(at.min(UnixMicros::MAX));
        if *query == Query::Who {
            let name = self.principals.active(by).map(|principal| principal.name.clone());
            return Ok(View::Who { admin: name.is_some() && self.is_admin(by), name });
        }
        if self.principals.active(by).is_none() {
            return Err(Error::new(Code::PrincipalUnknown, "this key is not registered at this node"));
        }
        match *query {
            Query::Who => unreachable!("answered above"),
            Query::Principals(after) => Ok(View::Principals(self.principals_after(by, after))),
            Query::Leases(after) => Ok(View::Leases(self.leases_after(by, after, now))),
            Query::Lease(id) => match self.leases.get(id) {
                Some(lease) if lease.owner == by || self.is_admin(by) => {
                    // How full and busy others are is nothing that one lease tells its owner.
                    let told =
                        if self.is_admin(by) { lease.placement.clone() } else { alone(&lease.placement) };
                    let placement = Some(told);
                    Ok(View::Lease(LeaseRow { placement, ..self.placed_row(lease, now) }))
                }
                Some(_) | None => Err(Error::new(Code::LeaseUnknown, "no such lease that concerns you")),
            },
            Query::Grants(after) => Ok(View::Grants(self.grants_after(by, after, now))),
            Query::Grant(id) => {
                let grant = self.grant_seen_by(by, id)?;
                Ok(View::Grant(self.grant_row(grant, now), grant.signed()))
            }
            Query::Status => Ok(View::Status(self.status(by, now))),
            Query::Placed(lease) => Ok(View::Placed(self.whereabouts(lease))),
            Query::Provider(id) => Ok(View::Provider(self.providers.get(id).map(|row| row.row(now)))),
            Query::Serves(provider) => Ok(View::Serves(self.serves(provider, now))),
            Query::Quota(after) => {
                Ok(View::Quota(self.quota_row(by, now), self.donations_after(by, after, now)))
            }
            Query::ToCosign(id) => {
                let grant = self.grant_seen_by(by, id)?;
                if grant.contract.cosigner != Some(by) {
                    return Err(Error::new(
                        Code::Denied,
                        "the contract names somebody else, or nobody, to co-sign it",
                    ));
                }
                let uid = if let GrantLife::Offered(offered) = grant.life { offered.uid } else { None };
                Ok(View::ToCosign { contract: grant.contract, uid })
            }
            Query::Transfers(after) => Ok(View::Transfers(self.transfers_after(by, after, now))),
            Query::Transfer(id) => {
                let transfer = self.transfer_of_party(by, id)?;
                Ok(View::Transfer(self.transfer_row(transfer, now), transfer.signed()))
            }
            Query::ToOffer(id) => {
                let lease = self.leases.get(id).filter(|lease| lease.owner == by || self.is_admin(by));
                let lease = lease.ok_or(Error::new(Code::LeaseUnknown, "no such lease that concerns you"))?;
                Ok(handed(lease, None, now))
            }
            Query::ToTakeOver(id) => {
                let transfer = self.transfer_of_party(by, id)?;
                let lease = self.leases.get(transfer.contract.lease);
                let lease = lease.ok_or(Error::new(Code::LeaseExpired, "the lease is over"))?;
                Ok(handed(lease, Some(transfer.by_owner), now))
            }
        }
    }

    fn principals_after(&self, by: PrincipalKey, after: Option<PrincipalKey>) -> Page<PrincipalRow> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.principals.rows.range((from, Bound::Unbounded)).map(|(key, principal)| {
            // What others use is theirs to know.
            let shown = *key == by || self.is_admin(by);
            let used = if shown { principal.usage } else { Usage::default() };
            PrincipalRow {
                name: principal.name.clone(),
                key: *key,
                admin: self.is_admin(*key),
                leases: used.leases(),
                leased_bytes: used.leased_bytes(),
            }
        });
        page(rows)
    }

    fn leases_after(&self, by: PrincipalKey, after: Option<LeaseId>, now: UnixMicros) -> Page<LeaseRow> {
        if self.is_admin(by) {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            return page(
                self.leases.rows.range((from, Bound::Unbounded)).map(|(_, lease)| self.lease_row(lease, now)),
            );
        }
        let rows = self.leases.of(by, after).filter_map(|id| self.leases.get(id));
        page(rows.map(|lease| self.lease_row(lease, now)))
    }

    fn grants_after(&self, by: PrincipalKey, after: Option<GrantId>, now: UnixMicros) -> Page<GrantRow> {
        if self.is_admin(by) {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            return page_of(
                PAGE_GRANTS_MAX,
                self.grants.rows.range((from, Bound::Unbounded)).map(|(_, grant)| self.grant_row(grant, now)),
            );
        }
        let rows = self.grants.of(by, after).filter_map(|id| self.grants.get(id));
        page_of(PAGE_GRANTS_MAX, rows.map(|grant| self.grant_row(grant, now)))
    }

    fn transfers_after(
        &self,
        by: PrincipalKey,
        after: Option<TransferId>,
        now: UnixMicros,
    ) -> Page<TransferRow> {
        if self.is_admin(by) {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.transfers.rows.range((from, Bound::Unbounded));
            return page(rows.map(|(_, transfer)| self.transfer_row(transfer, now)));
        }
        let rows = self.transfers.of(by, after).filter_map(|id| self.transfers.get(id));
        page(rows.map(|transfer| self.transfer_row(transfer, now)))
    }

    pub(super) fn lease_row(&self, lease: &Lease, now: UnixMicros) -> LeaseRow {
        LeaseRow {
            id: lease.id,
            region: lease.region,
            name: lease.name.clone(),
            owner: lease.owner,
            owner_name: self.principals.name(lease.owner).cloned(),
            rights: Rights::ALL,
            range: lease.range,
            segment_bytes: lease.segment_bytes,
            expires_in: lease.life.left(now),
            state: lease.life.state(now),
            cause: lease.life.cause(),
            epoch: lease.epoch,
            provider: lease.provider,
            grants: lease.grants,
            // A page of rows has no room for them.
            node: None,
            placement: None,
            address: None,
        }
    }

    /// A row that is shown alone: with where it is.
    pub(super) fn placed_row(&self, lease: &Lease, now: UnixMicros) -> LeaseRow {
        let address = self.providers.get(lease.provider).and_then(|row| row.said.address.clone());
        let node = Some(lease.placement.node.clone());
        LeaseRow { node, address, ..self.lease_row(lease, now) }
    }

    pub(super) fn grant_row(&self, grant: &Grant, now: UnixMicros) -> GrantRow {
        let contract = &grant.contract;
        let left = match grant.life {
            // An offer has no end of its own yet. One that waits for its co-signer says how long it does.
            GrantLife::Offered(_) if contract.cosigner.is_none() => Micros(0),
            GrantLife::Ended(_) => Micros(0),
            _ => grant.deadline().map_or(Micros(0), |expires| expires.since(now)),
        };
        // A renewal may have made the lease shorter than the grant.
        let lease = self.leases.get(contract.lease).map_or(Micros(0), |lease| lease.life.left(now));
        GrantRow {
            id: contract.grant,
            lease: contract.lease,
            region: contract.region,
            owner: contract.owner,
            owner_name: self.principals.name(contract.owner).cloned(),
            receiver: contract.receiver,
            receiver_name: self.principals.name(contract.receiver).cloned(),
            rights: grant.left.map_or(contract.rights, |left| left.rights),
            range: grant.left.map_or(contract.range, |left| left.range),
            agreed: Agreed { rights: contract.rights, range: contract.range },
            ttl: contract.ttl,
            max_hops: contract.max_hops,
            expires_in: left.min(lease),
            state: grant.state(now),
            cause: grant.life.cause(),
            cosigner: contract.cosigner.map(|key| CosignerRow {
                key,
                name: self.principals.name(key).cloned(),
                signed: grant.by_cosigner.is_some(),
            }),
        }
    }

    /// The row of a grant that the caller has just changed.
    pub(super) fn grant_row_of(&self, id: GrantId) -> Result<GrantRow> {
        let grant = self.grants.get(id).ok_or(Code::GrantUnknown)?;
        Ok(self.grant_row(grant, self.now))
    }

    fn status(&self, by: PrincipalKey, now: UnixMicros) -> StatusView {
        let own = self.providers.present().find(|row| row.attached);
        let is_own = own.is_some();
        let first =
            own.or_else(|| self.providers.present().next()).or_else(|| self.providers.rows.values().next());
        let room = self.providers.present().fold(0_u64, |sum, row| sum.saturating_add(row.said.bytes));
        let first = first.map_or(ProviderId::NOBODY, |row| row.said.id);
        let mut load = Load::default();
        for row in self.providers.present().filter(|row| row.said.id != first) {
            load.sessions = load.sessions.saturating_add(row.load.sessions);
            load.committed_bytes = load.committed_bytes.saturating_add(row.load.committed_bytes);
        }
        let shown = self.providers.rows.values().filter(|_| self.is_admin(by));
        // The tables' capacities have 32 bits, and active rows are at most that many.
        StatusView {
            provider: first,
            own: is_own,
            providers: shown.map(|row| row.row(now)).collect(),
            load,
            uptime: now.since(self.genesis.at),
            pool_bytes: room.min(self.genesis.bounds.pool_bytes),
            leased_bytes: self.total.leased_bytes() + self.total.reserved_bytes(),
            leases: self.leases.active() as u32,
            grants: self.grants.active() as u32,
            principals: self.principals.rows.len() as u32,
            policy: self.policy,
        }
    }
}

/// The first rows, and whether there are more.
pub(super) fn page<T>(rows: impl Iterator<Item = T>) -> Page<T> {
    page_of(PAGE_ROWS_MAX, rows)
}

/// As [`page`], of so many rows at most.
fn page_of<T>(most: usize, rows: impl Iterator<Item = T>) -> Page<T> {
    let mut rows: Vec<T> = rows.take(most + 1).collect();
    let more = rows.len() > most;
    rows.truncate(most);
    Page { rows, more }
}

/// A placement with nothing of those who did not get it but their number, and no figures.
fn alone(placement: &Placement) -> Placement {
    let all = u32::try_from(placement.considered.len()).unwrap_or(u32::MAX);
    let others = placement.others.saturating_add(all.saturating_sub(1));
    Placement { node: placement.node.clone(), considered: Vec::new(), others }
}

fn handed(lease: &Lease, by_owner: Option<Signature>, now: UnixMicros) -> View {
    View::Handed {
        bytes: lease.range.len(),
        left: lease.life.left(now),
        class: lease.class.clone(),
        hops: lease.max_hops,
        by_owner,
    }
}
