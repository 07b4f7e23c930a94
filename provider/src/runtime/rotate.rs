//! Taking segments from one holder and giving them to the others again.
//!
//! | step | where | a crash right after it leaves |
//! |---|---|---|
//! | 1 fence | under the kernel's lock, in the step that ordered the rotation | mappings, until the guardian cuts |
//! | 2 cut all segments | a cut thread, real-time where allowed | orphaned pages, freed with the process |
//! | 3 shut | the same thread | the same |
//! | 4 drain | a rotation thread | the same; operations died with the process |
//! | 5 a fresh file for one segment | the same thread | nothing more: nobody has seen it |
//! | 6 copy | the same thread, by the pin | the same |
//! | 7 install | under the kernel's lock | a segment whose survivors wait; the guardian cuts |
//! | 8 hand out | the survivors' sessions, when they listen | the same |
//! | 9 wipe and close the old file | the rotation thread | zeros; what cannot be wiped goes into quarantine |
//! | 10 settle, when 5 to 9 were done for each segment: what was sent over the network has left | one thread for all, if there is something | nothing: the connections died with the process |
//! | 11 acknowledge | a rotation thread | nothing |
//!
//! The holder who lost its right is dead after step 2. The survivors are still until step 8, and nothing that any of
//! them does or does not do is waited for: a stopped one finds its fresh segment when it goes on. All segments are cut
//! at once and copied one after another, so that the room for one is enough. A region that ends meanwhile stops the
//! rotation between two steps; what the rotation has cut it wipes all the same, because its caller waits for that. Only
//! where the region is to be kept once it is dead, nothing is wiped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId};
use caps::time::BootNanos;
use caps::wire::link::{Method, Take, Taken};
use caps::wire::row::EndCause;

use super::memory::{File, Memory, close_file};
use super::take_back::Drain;
use super::watchdog::Returned;
use super::{Shared, lock};
use crate::kernel::{Answer, Event, RegionKey, RotationId, Survivor};
use crate::mem::Access;

/// One rotation.
pub(super) struct Job {
    pub(super) region: RegionKey,
    pub(super) lease: LeaseId,
    pub(super) grant: Option<GrantId>,
    pub(super) rotation: RotationId,
    pub(super) segments: Vec<u32>,
    pub(super) cause: EndCause,
    pub(super) mappings: u32,
    pub(super) started: BootNanos,
    pub(super) fenced: BootNanos,
    pub(super) drain: Drain,
    pub(super) memory: Arc<Memory>,
}

/// Why a rotation stopped before its end.
enum Stopped {
    /// The region is ending; the rest is for whoever takes it back.
    RegionEnds,
    /// A fresh segment could not be had, though the books have room.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    /// Steps 2 to 11, on the threads that are for them.
    pub(super) fn rotate(self: &Arc<Self>, job: Job) {
        self.rotations_under_way.fetch_add(1, Ordering::SeqCst);
        let shared = self.clone();
        let (lease, holders, returned) = (job.lease, self.who_could_block(&job.memory), Returned::default());
        let cut = returned.clone();
        self.cuts.submit(move || {
            let dead = shared.cut_segments(&job);
            cut.now();
            let rotator = shared.clone();
            shared.rotations.submit(move || rotator.replace_segments(job, dead));
        });
        self.watch_cut(lease, holders, &returned);
    }

    /// Steps 2 and 3. Returns when the last mapping was dead.
    fn cut_segments(&self, job: &Job) -> BootNanos {
        let files: Vec<_> = job.segments.iter().filter_map(|&segment| job.memory.file(segment)).collect();
        debug_assert_eq!(files.len(), job.segments.len(), "the kernel knows how many segments there are");
        for file in &files {
            super::take_back::cut_or_die(&file.region);
        }
        let dead = self.clock.boot();
        for file in &files {
            super::take_back::shut(&file.region);
        }
        dead
    }

    /// Steps 4 to 10.
    fn replace_segments(self: &Arc<Self>, job: Job, dead: BootNanos) {
        let drain = self.drain(&job.drain);
        let (mut wiped_bytes, mut quarantined_bytes) = (0, 0);
        let mut stopped = None;
        for &segment in &job.segments {
            let Some(old) = job.memory.file(segment) else { continue };
            if stopped.is_none() {
                stopped = self.replace(&job, segment, &old).err();
            }
            // What is to be kept is kept as it was, by whoever takes the region back: that waits for this rotation.
            if stopped.is_some() && job.memory.kept().is_some() {
                continue;
            }
            let wiped = super::take_back::wipe_file(&old.region);
            wiped_bytes += *wiped.as_ref().unwrap_or(&0);
            if stopped.is_some() {
                // It is still the segment's file: whoever takes the region back wipes it again, or keeps it.
                continue;
            }
            let bytes = old.region.len();
            match (wiped, job.memory.range_of(segment)) {
                // Who pinned pages of it keeps what was in them at the cut for as long as they are not wiped.
                (Err(_), Some(range)) => {
                    if self.set_aside_segment(job.region, job.lease, range, old) {
                        quarantined_bytes += bytes;
                    }
                }
                (Ok(_), _) | (_, None) => {
                    close_file(old);
                    self.spent(job.region, bytes);
                }
            }
        }
        if let Some(Stopped::Failed(error)) = stopped {
            // What was revoked is dead and wiped. The survivors' bytes are lost, so their rights end as well: better
            // an end that everybody is told of than memory that is silently empty.
            tracing::error!(%error, lease = ?job.lease, "a segment could not be replaced; its region ends");
            let take = Take::Lease(job.lease);
            let ended =
                self.step(Event::Take { take, cause: EndCause::ProviderLost, now_unix: self.clock.unix() });
            debug_assert!(ended.is_ok(), "{ended:?}");
        }
        let (shared, readers, lease) = (self.clone(), job.memory.readers(), job.lease);
        let then = move || shared.rotated(&job, dead, wiped_bytes, quarantined_bytes);
        self.settle_then(lease, &readers, drain, |shared| &shared.rotations, then);
    }

    /// Step 11.
    fn rotated(self: &Arc<Self>, job: &Job, dead: BootNanos, wiped_bytes: u64, quarantined_bytes: u64) {
        let taken = Taken {
            lease: None,
            mappings_closed: job.mappings,
            method: Method::Rotate,
            fence: job.fenced.since(job.started),
            dead: dead.since(job.started),
            wiped_bytes,
            quarantined_bytes,
        };
        self.record_regardless(entry(job, &taken));
        if let Some(waiter) = lock(&self.rotating).remove(&job.rotation) {
            let _ = waiter.send(taken); // who gave up waiting needs no answer
        }
        job.memory.end_rotation(job.rotation);
        self.rotations_under_way.fetch_sub(1, Ordering::SeqCst);
        let headroom = lock(&self.kernel).headroom_bytes();
        self.keep_spare(headroom);
    }

    /// Steps 5 to 8 for one segment.
    fn replace(self: &Arc<Self>, job: &Job, segment: u32, old: &Arc<File>) -> Result<(), Stopped> {
        let bytes = old.region.len();
        self.set_aside(job.region, segment)?;
        let fresh = self.fresh(old).inspect_err(|_| self.spent(job.region, bytes))?;
        if let Err(error) = old.region.copy_to(&fresh) {
            fresh.close();
            self.spent(job.region, bytes);
            return Err(error.into());
        }
        let survivors = {
            let mut kernel = lock(&self.kernel);
            let event = Event::Rotated { region: job.region, segment };
            let step = kernel.step(self.clock.boot(), event);
            debug_assert!(step.effects.is_empty(), "an installation orders nothing");
            match step.answer {
                Ok(Answer::Rotated { generation, survivors }) => {
                    job.memory.install(segment, fresh, generation);
                    survivors
                }
                _ => {
                    drop(kernel);
                    fresh.close();
                    self.spent(job.region, bytes);
                    return Err(Stopped::RegionEnds);
                }
            }
        };
        self.tell_survivors(segment, &survivors);
        job.memory.announce();
        Ok(())
    }

    /// Has the kernel count the bytes of a fresh segment, waiting for other rotations' room where the pool is full.
    fn set_aside(self: &Arc<Self>, region: RegionKey, segment: u32) -> Result<(), Stopped> {
        let mut room = lock(&self.room.0);
        loop {
            match self.step(Event::Fresh { region, segment }) {
                Ok(Answer::Granted) => return Ok(()),
                // The lock was held since the question: what is given back after it wakes us.
                Ok(Answer::Wait) => {
                    room = self.room.1.wait(room).unwrap_or_else(PoisonError::into_inner);
                }
                Ok(_) => return Err(Error::new(Code::Internal, "a fresh segment was answered oddly").into()),
                Err(_) => return Err(Stopped::RegionEnds),
            }
        }
    }

    /// Reports bytes that are free again.
    pub(super) fn spent(self: &Arc<Self>, region: RegionKey, bytes: u64) {
        let spent = self.step(Event::Spent { region, bytes });
        debug_assert!(spent.is_ok(), "{spent:?}");
        self.room_changed();
    }

    /// Wakes the rotations that wait for room.
    pub(super) fn room_changed(&self) {
        let _room = lock(&self.room.0);
        self.room.1.notify_all();
    }

    /// A populated file for the bytes of `old`, with the descriptors that its survivors will ask for.
    fn fresh(&self, old: &File) -> Result<crate::mem::Region> {
        let fresh = self.spare.region(&self.store, old.region.len())?;
        for access in [Access::ReadOnly, Access::ReadWrite] {
            if old.region.is_ready(access) {
                fresh.prepare(access)?;
            }
        }
        Ok(fresh)
    }

    fn tell_survivors(&self, segment: u32, survivors: &[Survivor]) {
        let sessions = lock(&self.sessions);
        for survivor in survivors {
            if let Some(session) = sessions.get(&survivor.session.0) {
                session.post.segment(survivor.open, segment);
            }
        }
    }
}

/// The entry of a rotation.
fn entry(job: &Job, taken: &Taken) -> Draft {
    let event = match job.cause {
        EndCause::Expired => Entry::LeaseExpire,
        EndCause::Narrowed => Entry::LeaseAttenuate,
        _ => Entry::LeaseRevoke,
    };
    Draft::ok(event)
        .lease(job.lease)
        .maybe(job.grant, Draft::grant)
        .cause(job.cause.name())
        .method("rotate")
        .mappings_closed(taken.mappings_closed.into())
        .fence_us(taken.fence.0)
        .dead_us(taken.dead.0)
        .wiped_bytes(taken.wiped_bytes)
}
