//! A provider as small as it can be: regions are vectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use broker::runtime::{Boxed, Claimed, ProviderStatus};
use caps::id::LeaseId;
use caps::time::Micros;
use caps::wire::cluster::Fact;
use caps::wire::link::{ClaimTicket, Method, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow, Tier};
use caps::{Code, Error, Result};
use link::Facts;
use link::provider::Executor;
use tokio::sync::watch;

#[derive(Default)]
pub struct State {
    pub regions: BTreeMap<LeaseId, Vec<u8>>,
    pub taken: BTreeSet<LeaseId>,
    /// Everything that arrived, in its order.
    pub takes: Vec<Take>,
    pub renewals: Vec<(LeaseId, Micros)>,
    pub wholes: Vec<Facts>,
    pub news: Vec<Fact>,
    pub unrecordable: bool,
}

pub struct Small {
    state: Mutex<State>,
    /// Whether takes wait.
    hold: watch::Sender<bool>,
}

impl Small {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), hold: watch::Sender::new(false) })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn live(&self) -> Vec<LeaseId> {
        self.state().regions.keys().copied().collect()
    }

    pub fn hold_takes(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    /// A region ends by itself.
    pub fn end(&self, lease: LeaseId) {
        self.state().regions.remove(&lease).unwrap();
    }
}

fn none() -> Error {
    Error::new(Code::LeaseUnknown, "no such region")
}

impl Executor for Small {
    fn claim(&self, ticket: ClaimTicket) -> Boxed<'_, Result<Claimed>> {
        let mut state = self.state();
        let answer = if state.taken.contains(&ticket.lease) {
            Err(none())
        } else {
            let bytes = usize::try_from(ticket.bytes).unwrap();
            let recorded = if state.unrecordable {
                Err(Error::new(Code::AuditUnavailable, "told to fail"))
            } else {
                state.regions.insert(ticket.lease, vec![0; bytes]);
                Ok(())
            };
            let recorded: Boxed<'static, _> = Box::pin(std::future::ready(recorded));
            Ok(Claimed { bytes: ticket.bytes, recorded })
        };
        Box::pin(std::future::ready(answer))
    }

    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>> {
        let mut state = self.state();
        let known = state.regions.contains_key(&lease);
        state.renewals.push((lease, ttl));
        Box::pin(std::future::ready(known.then_some(()).ok_or_else(none)))
    }

    fn take(&self, take: Take, _: EndCause) -> Boxed<'_, Result<Taken>> {
        self.state().takes.push(take);
        Box::pin(async move {
            let mut hold = self.hold.subscribe();
            hold.wait_for(|hold| !*hold).await.unwrap();
            let mut state = self.state();
            state.taken.insert(take.lease());
            let bytes = state.regions.remove(&take.lease()).ok_or_else(none)?;
            Ok(Taken { method: Method::Cut, wiped_bytes: bytes.len() as u64, ..Taken::default() })
        })
    }

    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        let row = self.state().regions.get(&lease).map(|bytes| MemoryRow {
            bytes: bytes.len() as u64,
            huge_bytes: 0,
            segments: 1,
            rotations: 0,
            tier: Tier::Open,
            mappings: 0,
            opens: 0,
            pinned: false,
        });
        Box::pin(std::future::ready(Ok(row)))
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        let committed_bytes = self.state().regions.values().map(|bytes| bytes.len() as u64).sum();
        let status = ProviderStatus { committed_bytes, sessions: 7, tier: Tier::Open, entries: 0 };
        Box::pin(std::future::ready(Ok(status)))
    }

    fn facts(&self, facts: Facts) -> Boxed<'_, Result<()>> {
        self.state().wholes.push(facts);
        Box::pin(std::future::ready(Ok(())))
    }

    fn fact(&self, fact: Fact) -> Boxed<'_, Result<()>> {
        self.state().news.push(fact);
        Box::pin(std::future::ready(Ok(())))
    }
}
