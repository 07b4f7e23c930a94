//! A broker that says yes to everything, and whose leases are real.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Cut, RootKey, Terms};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, LeaseRow, LeaseState};
use caps::wire::{Name, Reason, Reply, Request};
use provider::gate::{BoxFuture, Caller, ControlPlane};
use provider::runtime::Provider;
use tokio::sync::RwLock;

pub(crate) struct Broker {
    provider: Provider,
    root: RootKey,
    next: AtomicU64,
    live: Mutex<BTreeSet<LeaseId>>,
    /// Leases that were ever made.
    pub(crate) made: AtomicU64,
    /// Held for writing by who wants nothing made, or nothing given back, meanwhile.
    pub(crate) making: RwLock<()>,
    pub(crate) releasing: RwLock<()>,
}

impl Broker {
    pub(crate) fn new(provider: Provider, root: RootKey) -> Self {
        Self {
            provider,
            root,
            next: AtomicU64::new(1),
            live: Mutex::default(),
            made: AtomicU64::new(0),
            making: RwLock::new(()),
            releasing: RwLock::new(()),
        }
    }

    /// The leases that were made and not given back.
    pub(crate) fn live(&self) -> BTreeSet<LeaseId> {
        self.live.lock().unwrap().clone()
    }

    async fn create(&self, owner: PrincipalKey, spec: LeaseSpec) -> Result<Reply> {
        let mut id = [0xb0; 16];
        id[..8].copy_from_slice(&self.next.fetch_add(1, Ordering::SeqCst).to_le_bytes());
        let (lease, region, now) = (LeaseId(id), RegionId(id), self.provider.clock().unix());
        let bytes = spec.bytes.next_multiple_of(4096);
        let ticket = ClaimTicket {
            lease,
            region,
            owner,
            bytes,
            segment_bytes: bytes,
            ttl: spec.ttl,
            lifetime: spec.lifetime,
            claim_by: UnixMicros(now.0 + 60_000_000),
        };
        self.provider.claim(ticket, None).await?.durable().await?;
        self.made.fetch_add(1, Ordering::SeqCst);
        self.live.lock().unwrap().insert(lease);
        let _made = self.making.read().await;
        let range = ByteRange::new(0, bytes)?;
        let (rights, provider) = (Rights::READ_WRITE, ProviderId([2; 16]));
        let token = self.root.mint(&Terms {
            lease,
            region,
            grant: None,
            range,
            rights,
            holder: owner,
            not_before: UnixMicros(0),
            expires: UnixMicros(now.0 + spec.ttl.0),
            max_hops: 0,
            cluster: ClusterEpoch([1; 16]),
            provider,
        })?;
        let lease = LeaseRow {
            id: lease,
            region,
            name: spec.name,
            owner,
            owner_name: None,
            rights,
            range,
            segment_bytes: bytes,
            expires_in: spec.ttl,
            state: LeaseState::Live,
            cause: None,
            epoch: 0,
            provider,
            grants: 0,
            node: None,
            address: None,
            placement: None,
        };
        Ok(Reply::Leased { lease, token })
    }

    async fn release(&self, lease: LeaseId) -> Result<Reply> {
        let _released = self.releasing.read().await;
        if !self.live.lock().unwrap().remove(&lease) {
            return Err(Error::new(Code::LeaseUnknown, "no such lease"));
        }
        self.provider.take(Take::Lease(lease), EndCause::Released).await.map(|_| Reply::Done)
    }
}

impl ControlPlane for Broker {
    fn request(&self, caller: Caller, request: Request) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(async move {
            match request {
                Request::LeaseCreate(spec) => self.create(caller.holder, spec).await,
                Request::LeaseRelease { lease } => self.release(lease).await,
                request => panic!("no test asks for {request:?}"),
            }
        })
    }

    fn principal(&self, _: PrincipalKey) -> BoxFuture<'_, (Option<Name>, bool)> {
        Box::pin(std::future::ready((None, false)))
    }

    fn may_open(&self, _: Caller, _: u64, _: Rights, _: u8) -> Result<()> {
        Ok(())
    }

    fn quota(&self, _: PrincipalKey) -> policy::Quota {
        policy::Quota::UNLIMITED
    }

    fn revoke_holder(&self, _: PrincipalKey) -> BoxFuture<'_, Result<()>> {
        panic!("no test is that bad")
    }

    fn revoke_token(&self, _: Caller, _: Cut, _: Reason) -> BoxFuture<'_, Result<Reply>> {
        panic!("no test asks for that")
    }

    fn session_ended(&self, _: u64) {}
}
