//! Taking memory back: fence, cut, shut, wipe, settle, give back, acknowledge.
//!
//! One sequence for release, expiry, revocation and a holder's death. Each step says what a crash there leaves; in
//! every case the guardian cuts what is still mapped, because the provider's process is gone.
//!
//! | step | where | a crash right after it leaves |
//! |---|---|---|
//! | 1 fence | under the kernel's lock, in the step that ended the region | mappings, until the guardian cuts |
//! | 2 cut | a cut thread, real-time where allowed | orphaned pages, freed with the process |
//! | 3 shut | the same thread | the same |
//! | 4 drain | a wipe thread | the same; operations died with the process |
//! | 5 wipe | the same thread | zeros; what cannot be wiped, or is to be kept, goes into quarantine instead of 7 |
//! | 6 settle: what was sent over the network has left, or never will | one thread for all, if there is something | the same |
//! | 7 give back | a wipe thread | the same: pages are unpinned and free, the factory's books say so |
//! | 8 acknowledge | the same thread | nothing: the row, the bytes and the waiters are settled |
//!
//! Cutting and wiping have threads of their own, because a wipe takes as long as the memory is large and the next
//! region's cut must not wait for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Draft, Event as Entry, Recorded};
use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey};
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::wire::link::{Method, Notice, Take, Taken};
use caps::wire::row::EndCause;
use tokio::sync::oneshot;

use super::cells::OpenKey;
use super::lingering::Narrowed;
use super::memory::Memory;
use super::quarantine::Keep;
use super::watchdog::Returned;
use super::{Provider, Shared, lock};
use crate::kernel::{Answer, Effect, Event, Kernel, RegionKey};
use crate::mem::Region;

/// Everything that taking one region back needs to know.
pub(super) struct Job {
    pub(super) region: RegionKey,
    pub(super) lease: LeaseId,
    pub(super) cause: EndCause,
    pub(super) mappings: u32,
    /// When the call came in, or when the lease's time was over; and when its last slot was fenced.
    pub(super) started: BootNanos,
    pub(super) fenced: BootNanos,
    /// What has to be drained.
    pub(super) drain: Drain,
}

/// Operations that were inside rights when those were fenced or narrowed.
#[derive(Clone, Debug, Default)]
pub(super) struct Drain {
    /// The fenced rights, and the session of each.
    pub(super) fenced: Vec<(OpenKey, u64)>,
    /// Rights as they were before they were narrowed: whoever was judged by one still has it in hand.
    /// One list a step, however many wait for it: see [`Right::is_in_use`].
    pub(super) narrowed: Vec<Narrowed>,
    /// Of which region; `None` if there is nothing to wait for.
    pub(super) region: Option<RegionKey>,
}

/// A take-back whose fence is done.
struct Begun {
    answer: Answer,
    /// From the call to the last slot closed.
    fence: Micros,
    drain: Drain,
    /// What the rotation that was ordered came to.
    rotated: Option<oneshot::Receiver<Taken>>,
    /// Whose the region became.
    changed: Option<Changed>,
    /// Of which lease, and the sessions over the network where bytes of it may be under way.
    lease: LeaseId,
    readers: BTreeSet<u64>,
}

/// A region that has become somebody else's, and since when.
type Changed = (RegionKey, PrincipalKey, UnixMicros);

impl Provider {
    /// Takes a lease or a grant back. When this returns, nothing of it can be reached by any path. Idempotent: what is
    /// being taken back by somebody else's call is waited for. A lease that is taken before its claim can no longer be
    /// claimed.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no memory of the lease; `E_INTERNAL` if the kernel's answer makes no sense. A client
    /// cannot cause these here. Of a change of the owner, which alone can be refused, also `E_TOKEN_REVOKED` if it comes
    /// too late or the region ended before all of it was done, `E_LEASE_EXPIRED`, `E_NOMEM`, and what
    /// `record` says of giving: then the region is the new owner's until that is undone.
    pub async fn take(&self, take: Take, cause: EndCause) -> Result<Taken> {
        let shared = &self.0;
        let (sender, receiver) = oneshot::channel();
        let started = shared.clock.boot();
        let begun = shared.begin_take(started, take, cause, sender)?;
        if let Take::Grant { lease, grant, .. } = take {
            shared.record_closes(shared.summaries.of_lease(lease, Some(grant), cause));
        }
        let Take::Owner { lease, to, since, undoes, .. } = take else {
            return self.taken(started, begun, receiver).await;
        };
        shared.record_closes(shared.summaries.of_lease(lease, None, cause));
        let changed = begun.changed;
        let recording = changed.map(|_| {
            let entry = Draft::ok(Entry::LeaseGrant).lease(lease).holder(to).first_time(since);
            let entry = entry.cause(EndCause::Transfer.name());
            if undoes.is_none() {
                return Some(shared.submit(entry));
            }
            // Going back is never refused.
            shared.record_regardless(entry);
            None
        });
        let taken = self.taken(started, begun, receiver).await?;
        if let Some(pending) = recording.flatten() {
            let _: Recorded = pending?.durable().await?;
        }
        // What is undone late changes nothing, whoever owns the region.
        let expected = changed.is_some() || undoes.is_none();
        let is_owners = |&(_, owner, at): &Changed| (owner, at) == (to, since);
        if expected && !lock(&shared.kernel).owned(lease).as_ref().is_some_and(is_owners) {
            // A segment that could not be replaced ends the region, whoever gave it.
            return Err(Error::new(Code::TokenRevoked, "the region ended while it was handed over"));
        }
        Ok(taken)
    }

    /// Waits until what was begun is done.
    async fn taken(
        &self,
        started: BootNanos,
        begun: Begun,
        receiver: oneshot::Receiver<Taken>,
    ) -> Result<Taken> {
        let shared = &self.0;
        let Begun { answer, fence, drain, rotated, lease, readers, .. } = begun;
        match answer {
            Answer::Gone => {
                Err(Error::new(Code::LeaseUnknown, "this provider holds no memory of that lease"))
            }
            Answer::Taking { .. } => receiver
                .await
                .map_err(|_| Error::new(Code::Internal, "a region's end was not reported to its waiter")),
            Answer::Fenced { region, upto, mappings } => {
                let taken = match rotated {
                    Some(rotated) => rotated.await.map_err(|_| {
                        Error::new(Code::Internal, "a rotation's end was not reported to its waiter")
                    })?,
                    None => {
                        // The operations that were inside the fenced rights, and what they sent, are all there is to
                        // wait for.
                        let drainer = shared.clone();
                        let drained = tokio::task::spawn_blocking(move || {
                            let drain = drainer.drain(&drain);
                            drainer.settle(lease, &readers, &drain);
                        });
                        let drained = drained.await;
                        drained.map_err(|_| Error::new(Code::Internal, "draining a right panicked"))?;
                        let dead = self.0.clock.boot().since(started);
                        Taken { fence, dead, mappings_closed: mappings, ..Taken::default() }
                    }
                };
                if let (Some(upto), Some(memory)) = (upto, shared.cells.memory(region)) {
                    // A rotation that somebody else ordered may be the one that takes out this grant's mappings.
                    let (over, told) = oneshot::channel();
                    memory.after_rotations(
                        upto,
                        Box::new(move || {
                            let _ = over.send(()); // who gave up waiting needs no answer
                        }),
                    );
                    told.await.map_err(|_| {
                        Error::new(Code::Internal, "a rotation's end was not reported to its waiter")
                    })?;
                }
                Ok(taken)
            }
            _ => Err(Error::new(Code::Internal, "a take-back was answered with something else")),
        }
    }

    /// Takes everything back, for the end of the node.
    pub async fn take_everything(&self) {
        self.0.empty_quarantine();
        let leases = lock(&self.0.kernel).leases();
        let takes: Vec<_> = leases
            .into_iter()
            .map(|lease| {
                let provider = self.clone();
                tokio::spawn(async move { provider.take(Take::Lease(lease), EndCause::NodeStopped).await })
            })
            .collect();
        for take in takes {
            let _ = take.await; // what could not be taken back is the guardian's to cut when this process ends
        }
        self.0.spare.close();
        self.0.empty_quarantine(); // what could not be wiped just now
        self.0.close_log();
    }
}

impl Shared {
    /// Step 1, and the waiter's place in the list.
    fn begin_take(
        self: &Arc<Self>,
        started: BootNanos,
        take: Take,
        cause: EndCause,
        sender: oneshot::Sender<Taken>,
    ) -> Result<Begun> {
        let mut kernel = lock(&self.kernel);
        let owned = |kernel: &Kernel| match take {
            Take::Owner { lease, .. } => kernel.owned(lease),
            _ => None,
        };
        let before = owned(&kernel);
        let step = kernel.step(started, Event::Take { take, cause, now_unix: self.clock.unix() });
        let fenced = self.fence(started, &kernel, &step.effects);
        let answer = match step.answer {
            Ok(answer) => answer,
            Err(error) => {
                // It was refused because of what fell due before it, and that is done all the same.
                self.carry_out(kernel, step.effects, fenced);
                return Err(error);
            }
        };
        let changed = owned(&kernel).filter(|after| Some(*after) != before);
        if let (Some((region, ..)), Take::Owner { undoes, .. }) = (changed, take)
            && let Some(memory) = self.cells.memory(region)
        {
            // In the same step as the kernel's own table.
            match undoes {
                None => memory.meters.put_aside(),
                Some(_) => memory.meters.bring_back(),
            }
        }
        if let Answer::Taking { region, .. } = answer {
            // Under the kernel's lock: the region's end cannot be reported before its waiter is in the list.
            lock(&self.waiting).entry(region).or_default().push(sender);
            if let Some(taken) = self.quarantine.taken(region) {
                self.tell_waiting(region, taken); // it is dead already, and stays
            }
        }
        let ordered = step.effects.iter().find_map(|effect| match effect {
            Effect::Rotate { rotation, .. } => Some(*rotation),
            _ => None,
        });
        let rotated = ordered.map(|rotation| {
            let (sender, receiver) = oneshot::channel();
            lock(&self.rotating).insert(rotation, sender);
            receiver
        });
        // A narrowing can bring the next deadline nearer.
        self.timer.arm(kernel.next_deadline());
        let readers = match answer {
            // Under the lock: after it the region may end at once, and its memory be no longer found.
            Answer::Fenced { region, .. } => {
                self.cells.memory(region).map(|memory| memory.readers()).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        };
        drop(kernel);
        let fence = fenced.fenced.since(started);
        let drain = match answer {
            Answer::Fenced { region, .. } => fenced.drain(region),
            _ => Drain::default(),
        };
        self.execute(step.effects, fenced);
        Ok(Begun { answer, fence, drain, rotated, changed, lease: lease_of(&take), readers })
    }

    /// Steps 2 to 8, on the threads that are for them.
    pub(super) fn take_back(self: &Arc<Self>, mut job: Job) {
        let Some(memory) = self.cells.take_memory(job.region) else {
            debug_assert!(false, "a live region has memory");
            return;
        };
        if job.cause == EndCause::Expired {
            // An expiry has no call: what the log says of its fence and its cut is how late they were.
            job.started = job.started.min(memory.deadline());
        }
        let shared = self.clone();
        let (lease, holders, returned) = (job.lease, self.who_could_block(&memory), Returned::default());
        let done = returned.clone();
        self.cuts.submit(move || {
            let files: Vec<_> = memory.files().collect();
            for file in &files {
                cut_or_die(&file.region);
            }
            let dead = shared.clock.boot();
            done.now();
            // Whoever waits for the end of a rotation here waits for nothing.
            memory.announce();
            for file in &files {
                shut(&file.region);
            }
            drop(files);
            let wiper = shared.clone();
            let rotations = memory.clone();
            // A rotation may be in the middle of copying. It stops at its next step, and wipes what it has cut.
            rotations.after_all_rotations(Box::new(move || {
                let pool = wiper.clone();
                pool.wipes.submit(move || wiper.finish(job, memory, dead));
            }));
        });
        self.watch_cut(lease, holders, &returned);
    }

    /// Steps 4 to 6.
    fn finish(self: &Arc<Self>, job: Job, memory: Arc<Memory>, dead: BootNanos) {
        let drain = self.drain(&job.drain);
        let kept = memory.kept();
        // What is kept is kept as it was. What could not be wiped is kept because nobody knows what it is.
        let (wiped_bytes, kept) = match kept.map_or_else(|| wipe(&memory), |_| Ok(0)) {
            Ok(wiped) => (wiped, kept),
            Err(wiped) => (wiped, Some(Keep::UNWIPED)),
        };
        // Before anybody can find it dead and kept, or gone.
        let (shared, readers, lease) = (self.clone(), memory.readers(), job.lease);
        let then = move || shared.conclude(&job, memory, dead, wiped_bytes, kept);
        self.settle_then(lease, &readers, drain, |shared| &shared.wipes, then);
    }

    /// Steps 7 and 8.
    fn conclude(
        self: &Arc<Self>,
        job: &Job,
        memory: Arc<Memory>,
        dead: BootNanos,
        wiped_bytes: u64,
        kept: Option<Keep>,
    ) {
        let bytes = memory.len();
        let mut taken = Taken {
            lease: Some(job.lease),
            mappings_closed: job.mappings,
            method: Method::Cut,
            fence: job.fenced.since(job.started),
            dead: dead.since(job.started),
            wiped_bytes,
            quarantined_bytes: 0,
        };
        let clean = match kept {
            None => Some(memory),
            Some(order) => match self.set_aside_dead(job.region, memory, order, taken) {
                Ok(()) => {
                    taken.quarantined_bytes = bytes;
                    None
                }
                Err(memory) => {
                    if order.is_ordered() {
                        taken.wiped_bytes = wipe(&memory).unwrap_or_else(|wiped| wiped);
                    }
                    Some(memory)
                }
            },
        };
        if let Some(memory) = clean {
            give_back(memory);
            let ended = self.step(Event::Taken { region: job.region });
            debug_assert!(ended.is_ok(), "{ended:?}");
        }
        self.record_regardless(entry(job, &taken));
        self.notify(Notice::LeaseEnded { lease: job.lease, cause: job.cause });
        self.tell_waiting(job.region, taken);
        let headroom = lock(&self.kernel).headroom_bytes();
        self.keep_spare(headroom);
    }

    /// Tells those who wait for a region's memory to be gone that it is.
    pub(super) fn tell_waiting(&self, region: RegionKey, taken: Taken) {
        for waiter in lock(&self.waiting).remove(&region).unwrap_or_default() {
            let _ = waiter.send(taken); // who gave up waiting needs no answer
        }
    }

    /// Waits until no operation is inside these rights, and inside those of the region that ended or were narrowed before;
    /// returns all of them.
    ///
    /// An operation that is still inside after the bound may be on its way to a socket: that is shut down, so that its
    /// bytes never leave. It is waited for all the same, because what it writes lands whenever it leaves, and nothing may be
    /// acknowledged before. It waits for no peer, so that is the kernel's time and nobody else's.
    pub(super) fn drain(&self, drain: &Drain) -> Drain {
        let drain = self.lingering.with(drain);
        let bound = Duration::from_millis(policy::limits::DRAIN_MS_MAX);
        let started = Instant::now();
        let wait = |session: u64, is_inside: &dyn Fn() -> bool| {
            let mut ended = false;
            while is_inside() {
                if started.elapsed() <= bound {
                    std::thread::yield_now();
                    continue;
                }
                if !std::mem::replace(&mut ended, true) {
                    tracing::warn!(
                        session,
                        "an operation outlasts the bound of a take-back, which waits for it"
                    );
                    self.end_session(session);
                }
                std::thread::sleep(Duration::from_micros(policy::limits::SETTLE_LOOK_US));
            }
        };
        for &(open, session) in &drain.fenced {
            wait(session, &|| !self.cells.is_drained(open));
        }
        for right in drain.narrowed.iter().flat_map(|narrowed| narrowed.iter()) {
            wait(right.session, &|| right.is_in_use());
        }
        drain
    }

    /// Ends a session's socket, with nothing under way.
    fn end_session(&self, session: u64) {
        if let Some(session) = lock(&self.sessions).get(&session) {
            if let Some(outgoing) = &session.outgoing {
                outgoing.cut_off();
            }
            (session.end)();
        }
    }
}

/// Of which lease something is taken back.
const fn lease_of(take: &Take) -> LeaseId {
    match take {
        Take::Lease(lease)
        | Take::Grant { lease, .. }
        | Take::Narrow { lease, .. }
        | Take::Marks { lease, .. }
        | Take::Root { lease, .. }
        | Take::Owner { lease, .. } => *lease,
    }
}

/// Cuts one segment.
///
/// An error means that the kernel refuses to truncate our own file, or that a mapping outlived it. What was promised
/// cannot be kept by going on, and the guardian cuts everything when this process ends.
pub(super) fn cut_or_die(region: &Region) {
    if let Err(error) = region.cut() {
        tracing::error!(%error, "a region could not be cut; ending the process so that the guardian cuts");
        std::process::abort();
    }
}

/// Shuts one dead segment's file. Best effort: see the design.
pub(super) fn shut(region: &Region) {
    if let Err(error) = region.shut() {
        tracing::warn!(%error, "a dead segment's file could not be shut");
    }
}

/// Wipes one dead segment and returns the bytes.
///
/// # Errors
/// What the kernel says. Then nobody knows what is in it.
pub(super) fn wipe_file(region: &Region) -> Result<u64> {
    region.wipe().inspect_err(|error| tracing::error!(%error, "a dead segment could not be wiped"))
}

/// Wipes a dead region, all of it that can be, and returns the bytes: as an error if some could not be.
pub(super) fn wipe(memory: &Memory) -> Result<u64, u64> {
    let (mut bytes, mut failed) = (0, false);
    for file in memory.files() {
        match wipe_file(&file.region) {
            Ok(wiped) => bytes += wiped,
            Err(_) => failed = true,
        }
    }
    if failed { Err(bytes) } else { Ok(bytes) }
}

/// Unpins the pages and has the factory count the bytes as free, before anybody is told that they are: whoever is told
/// may ask for them at once. An operation that was inside when the right was fenced may still have the memory in hand
/// for a moment; past the bound of a drain, giving it back is left to that one.
pub(super) fn give_back(mut memory: Arc<Memory>) {
    let bound = Duration::from_millis(policy::limits::DRAIN_MS_MAX);
    let started = Instant::now();
    loop {
        match Arc::try_unwrap(memory) {
            Ok(memory) => return memory.close(),
            Err(_) if started.elapsed() > bound => return,
            Err(shared) => memory = shared,
        }
        std::thread::yield_now();
    }
}

/// The entry of a region's end.
fn entry(job: &Job, taken: &Taken) -> Draft {
    let event = match job.cause {
        EndCause::Released | EndCause::HolderExit | EndCause::NotClaimed | EndCause::NotRecorded => {
            Entry::LeaseRelease
        }
        EndCause::Expired => Entry::LeaseExpire,
        EndCause::Revoked
        | EndCause::ParentEnded
        | EndCause::ProviderLost
        | EndCause::NodeStopped
        | EndCause::Narrowed
        | EndCause::Transfer => Entry::LeaseRevoke,
    };
    Draft::ok(event)
        .lease(job.lease)
        .cause(job.cause.name())
        .method("cut")
        .mappings_closed(taken.mappings_closed.into())
        .fence_us(taken.fence.0)
        .dead_us(taken.dead.0)
        .wiped_bytes(taken.wiped_bytes)
}
