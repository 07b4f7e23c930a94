//! A reservation becomes memory: build, record, answer.

use std::sync::Arc;

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::time::{BootNanos, Micros};
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::EndCause;
use tokio::sync::oneshot;

use super::Provider;
use super::memory::Memory;
use super::spare::Spare;
use crate::kernel::{Answer, Event, RegionKey, SessionId};
use crate::mem::{Memory as Store, Region};

/// Regions from this size on are built on a thread of their own: zeroing them takes longer than a worker of the gate
/// may be away (64 KiB takes about 30 us, 1 GiB about 0.2 s).
const BUILD_INLINE_BYTES_MAX: u64 = 1 << 20;
/// The entry of a claim on its way to the device, in a task of its own: whoever waits for it may go away, and a claim
/// that could not be recorded is undone all the same.
pub struct ClaimRecord(tokio::task::JoinHandle<Result<()>>);

impl ClaimRecord {
    /// Waits until the claim is on record.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if it could not be recorded. The memory has been taken back then.
    pub async fn durable(self) -> Result<()> {
        self.0.await.unwrap_or(Err(Error::new(Code::Internal, "claiming a region panicked")))
    }
}

/// What a region is to be made of.
#[derive(Clone, Copy)]
struct Shape {
    bytes: u64,
    segment_bytes: u64,
}

impl Shape {
    /// Makes every segment, or none.
    fn build(self, spare: &Spare, store: &Store) -> Result<Vec<Region>> {
        (0..self.bytes.div_ceil(self.segment_bytes))
            .map(|segment| {
                let start = segment * self.segment_bytes;
                spare.make(store, self.segment_bytes.min(self.bytes - start))
            })
            .collect() // an error drops what was made: nobody has seen it
    }
}

impl Provider {
    /// Exchanges a reservation for memory. When this returns, the memory is committed and pinned, and the claim's entry is
    /// on its way: nobody may be told of the lease before [`ClaimRecord::durable`].
    ///
    /// # Errors
    /// `E_LEASE_EXPIRED` for a stale ticket, `E_EXISTS` for a used one, `E_NOMEM`, `E_BUSY`, `E_SYSTEM`;
    /// `E_AUDIT_UNAVAILABLE` if it could not be recorded. After an error nothing is left behind.
    pub async fn claim(&self, ticket: ClaimTicket, session: Option<u64>) -> Result<ClaimRecord> {
        let shared = &self.0;
        let now_unix = shared.clock.unix();
        let session = session.map(SessionId);
        let Answer::Build { region, bytes, segment_bytes, deadline } =
            shared.step(Event::Claim { ticket, session, now_unix })?
        else {
            return Err(Error::new(Code::Internal, "a claim was answered with something else than memory"));
        };
        // From here on the kernel waits for the memory, whoever else still does: the caller is a session, and its
        // client's process may die while the pages are zeroed. So the rest is a task of its own.
        let provider = self.clone();
        let (built, ready) = oneshot::channel();
        let record = ClaimRecord(tokio::spawn(async move {
            provider.build(&ticket, region, Shape { bytes, segment_bytes }, deadline, built).await
        }));
        match ready.await {
            Ok(()) => Ok(record),
            // It ended before it was built, and says why.
            Err(_) => record
                .durable()
                .await
                .and(Err(Error::new(Code::Internal, "a region was recorded and never built"))),
        }
    }

    /// Builds a claimed region, says so to `built`, records the claim, and undoes it where that fails. Must run to its
    /// end.
    async fn build(
        &self,
        ticket: &ClaimTicket,
        region: RegionKey,
        shape: Shape,
        deadline: BootNanos,
        built: oneshot::Sender<()>,
    ) -> Result<()> {
        let shared = &self.0;
        let memory = if shape.bytes <= BUILD_INLINE_BYTES_MAX {
            shape.build(&shared.spare, &shared.store)
        } else {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || shape.build(&shared.spare, &shared.store))
                .await
                .unwrap_or(Err(Error::new(Code::Internal, "building a region panicked")))
        };
        let memory = match memory {
            Ok(memory) => memory,
            Err(error) => {
                shared.step(Event::CreateFailed { region })?;
                // Whoever asked for it back while it was built has it back.
                shared.tell_waiting(region, Taken::default());
                return Err(error);
            }
        };
        let pinned = memory.iter().all(|segment| segment.coverage().is_rotatable());
        let huge_bytes = memory.iter().map(Region::huge_bytes).sum();
        shared.cells.put_memory(region, Arc::new(Memory::new(memory, shape.segment_bytes, deadline)));
        shared.step(Event::Created { region, huge_bytes, pinned })?;
        let entry = Draft::ok(Entry::LeaseClaim)
            .lease(ticket.lease)
            .region(ticket.region)
            .owner(ticket.owner)
            .bytes(shape.bytes)
            .ttl_us(ticket.ttl)
            .tier(shared.config.tier.name());
        let recorded = match shared.submit(entry) {
            Ok(pending) => {
                let _ = built.send(()); // who gave up waiting needs no answer
                pending.durable().await
            }
            Err(error) => Err(error),
        };
        match recorded {
            Ok(recorded) => {
                tracing::trace!(entry = recorded.last(), "a claim is on record");
                Ok(())
            }
            Err(error) => {
                // Undone in order, as if it had been released; the pool has its bytes back when this ends.
                self.take(Take::Lease(ticket.lease), EndCause::NotRecorded).await?;
                Err(error)
            }
        }
    }

    /// Moves a lease's end to `ttl` from now.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`, `E_LEASE_EXPIRED`, `E_TOKEN_REVOKED`; `E_SHARE_ORDER` while a receiver maps the region
    /// until an earlier end.
    pub fn renew(&self, lease: LeaseId, ttl: Micros) -> Result<()> {
        match self.0.step(Event::Renew { lease, ttl })? {
            Answer::Renewed { region, deadline } => {
                if let Some(memory) = self.0.cells.memory(region) {
                    memory.set_deadline(deadline);
                }
                Ok(())
            }
            _ => Err(Error::new(Code::Internal, "a renewal was answered with something else")),
        }
    }
}
