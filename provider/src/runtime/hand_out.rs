//! Segments' descriptors on their way to holders.
//!
//! ```text
//! file in hand, generation g ─▶ descriptor ─▶ kernel: HandedOut(open, segment, g) ─▶ Done ──▶ it may leave
//!            ▲                                                     └─ Stale: not its file any more ─┐
//!            └──────────────────────────────── when there is a fresh one ◀──────────────────────────┘
//! ```
//! The kernel counts a holder as exposed to a generation before the descriptor leaves, and only if the descriptor is of
//! that generation: so what a rotation does not cut was never given to whom it does not count.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::ROTATION_WAIT_MS_MAX;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::channel::{Message, SegmentAccess};
use caps::wire::row::Tier;
use tokio::time::timeout;

use super::cells::{Handed, OpenKey};
use super::memory::{File, Memory};
use super::post::Letter;
use super::{Provider, Shared, lock};
use crate::kernel::{Answer, Event, OpenRow, SessionId};
use crate::mem::{Access, Holder};

/// A message to a holder, with what goes beside it.
pub struct Delivery {
    /// What is said.
    pub message: Message,
    /// The fresh segment's descriptor.
    pub descriptor: Option<OwnedFd>,
}

/// What a client is told whose right ends under its hands.
pub(super) fn revoked() -> Error {
    Error::new(Code::Revoked, "the right ended while it was opened")
}

/// The segments that a range touches.
pub(super) fn segments(memory: &Memory, range: ByteRange) -> Range<u32> {
    memory.segment_of(range.start())..memory.segment_of(range.end() - 1) + 1
}

const fn handle(open: OpenKey) -> SlotHandle {
    SlotHandle { slot: open.index, epoch: open.generation }
}

const fn key(handle: SlotHandle) -> OpenKey {
    OpenKey { index: handle.slot, generation: handle.epoch }
}

impl Provider {
    /// The descriptor of one more segment of a mapped right, waiting for a rotation of it to end.
    ///
    /// # Errors
    /// `E_REVOKED` if it is no open right of this session; `E_RANGE` for a segment that it does not reach; `E_BUSY` if a
    /// rotation takes too long.
    pub(crate) async fn segment(&self, session: u64, handle: SlotHandle, segment: u32) -> Result<OwnedFd> {
        let open = key(handle);
        let right = self.0.cells.right(open).filter(|right| right.session == session).ok_or_else(revoked)?;
        let (memory, handed, kind) = (right.memory.clone(), right.handed.clone(), right.kind);
        drop(right); // a narrowing waits for nobody who holds it
        self.0.hand_out(open, &memory, &handed, kind, segment).await
    }

    /// A holder says that it has mapped what it was given and listens: from now on it is told of every change, and now
    /// of those that came before.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the session is no longer registered, or says so of too many rights that it does not have.
    pub(crate) fn listen(&self, session: u64, handle: SlotHandle) -> Result<()> {
        let shared = &self.0;
        let open = key(handle);
        let post = lock(&shared.sessions)
            .get(&session)
            .map(|session| session.post.clone())
            .ok_or(Error::new(Code::Protocol, "the session is over"))?;
        // It listens first and is compared then: what changes in between is told twice rather than never.
        post.listen(open);
        let right = shared.cells.right(open).filter(|right| right.session == session);
        let Some(right) = right else { return post.stranger(open) };
        for (segment, generation) in right.handed.iter() {
            if !segments(&right.memory, right.range).contains(&segment) {
                post.withdrawn(open, segment);
            } else if right.memory.file(segment).is_some_and(|file| file.generation != generation) {
                post.segment(open, segment);
            }
        }
        Ok(())
    }

    /// Turns a letter into what is sent; `None` if there is nothing to say any more, or nothing yet. What is not sent
    /// because its segment is being rotated comes again with the end of that rotation.
    pub(crate) async fn deliver(&self, letter: Letter) -> Option<Delivery> {
        let shared = &self.0;
        let bare = |message| Some(Delivery { message, descriptor: None });
        match letter {
            Letter::Ended(open) => bare(Message::Ended { handle: handle(open) }),
            Letter::Withdrawn(open, index) => bare(Message::Withdrawn { handle: handle(open), index }),
            Letter::Segment(open, index) => {
                let right = shared.cells.right(open)?;
                let (memory, handed, kind) = (right.memory.clone(), right.handed.clone(), right.kind);
                drop(right);
                let file = memory.file(index)?;
                let offered = shared.offer(open, &memory, &file, &handed, kind, index).await;
                let (access, descriptor) = match offered {
                    Ok(offered) => offered?,
                    // The right is over, and a letter that says so is on its way.
                    Err(error) if error.code() == Code::Revoked => return None,
                    Err(error) => {
                        // Its holder must not wait for what does not come.
                        tracing::warn!(%error, "a survivor could not be given a fresh segment");
                        return bare(Message::Withdrawn { handle: handle(open), index });
                    }
                };
                let access = match access {
                    Access::ReadOnly => SegmentAccess::Read,
                    Access::ReadWrite => SegmentAccess::ReadWrite,
                };
                let message = Message::Segment { handle: handle(open), index, access };
                Some(Delivery { message, descriptor: Some(descriptor) })
            }
        }
    }
}

impl Shared {
    /// The descriptor of a segment for an open right, waiting for a rotation of it to end.
    pub(super) async fn hand_out(
        self: &Arc<Self>,
        open: OpenKey,
        memory: &Arc<Memory>,
        handed: &Handed,
        kind: Holder,
        segment: u32,
    ) -> Result<OwnedFd> {
        let offered = async {
            loop {
                let version = memory.version();
                let file =
                    memory.file(segment).ok_or(Error::new(Code::Range, "the region has no such segment"))?;
                if let Some((_, descriptor)) = self.offer(open, memory, &file, handed, kind, segment).await? {
                    return Ok(descriptor);
                }
                if file.region.is_cut() {
                    memory.changed_since(version).await;
                } else {
                    // A rotation was ordered and its cut is on its way, or the right was narrowed just now.
                    tokio::task::yield_now().await;
                }
            }
        };
        timeout(Duration::from_millis(ROTATION_WAIT_MS_MAX), offered)
            .await
            .unwrap_or(Err(Error::new(Code::Busy, "a segment of the region is being rotated; try again")))
    }

    /// A descriptor of this very file, if it is the segment's still and the holder was counted as exposed to it.
    async fn offer(
        self: &Arc<Self>,
        open: OpenKey,
        memory: &Memory,
        file: &Arc<File>,
        handed: &Handed,
        kind: Holder,
        segment: u32,
    ) -> Result<Option<(Access, OwnedFd)>> {
        let (rights, SessionId(session)) = {
            let kernel = lock(&self.kernel);
            let row = kernel.open_row(open).ok_or_else(revoked)?;
            (row.rights, row.session)
        };
        if kind == Holder::SameUser && self.config.tier == Tier::Open {
            memory.held_by(session); // before the take-back can look
        }
        let access = if rights.contains(Rights::WRITE) { Access::ReadWrite } else { Access::ReadOnly };
        let descriptor = match descriptor(file, access, kind).await {
            Ok(descriptor) => descriptor,
            // Cut: by a rotation, whose end brings another file, or by the region's end, which ends the right.
            Err(error) if error.code() == Code::Revoked => return Ok(None),
            Err(error) => return Err(error),
        };
        let write = access == Access::ReadWrite;
        let generation = file.generation;
        // Through the kernel alone: being handed out orders nothing.
        let (answer, headroom) = {
            let mut kernel = lock(&self.kernel);
            let step = kernel.step(self.clock.boot(), Event::HandedOut { open, segment, generation, write });
            (step.answer?, kernel.headroom_bytes())
        };
        self.keep_spare(headroom);
        match answer {
            Answer::Done => {
                handed.set(segment, generation);
                Ok(Some((access, descriptor)))
            }
            Answer::Stale => Ok(None),
            _ => Err(Error::new(Code::Internal, "handing out a segment was answered with something else")),
        }
    }

    /// Tells a holder that its right is over, unless it has stopped listening for it.
    pub(super) fn tell_ended(&self, open: OpenKey, row: &OpenRow) {
        let SessionId(session) = row.session;
        if let Some(session) = lock(&self.sessions).get(&session) {
            session.post.ended(open);
        }
    }

    /// A session gives a right back: nobody waits there to be told.
    pub(super) fn stop_listening(&self, session: u64, handle: SlotHandle) {
        if let Some(session) = lock(&self.sessions).get(&session) {
            session.post.forget(key(handle));
        }
    }

    /// Tells a holder which segments a narrowing took from it. Those that it keeps with less come by their rotation.
    pub(super) fn tell_narrowed(&self, open: OpenKey) {
        let Some(right) = self.cells.right(open) else { return };
        let Some(post) = lock(&self.sessions).get(&right.session).map(|session| session.post.clone()) else {
            return;
        };
        let left = segments(&right.memory, right.range);
        for (segment, _) in right.handed.iter() {
            if !left.contains(&segment) {
                post.withdrawn(open, segment);
            }
        }
    }
}

/// The descriptor of a file. The first one of a file and right takes milliseconds in the tier `sealed`, so it is made
/// off the gate's workers.
async fn descriptor(file: &Arc<File>, access: Access, kind: Holder) -> Result<OwnedFd> {
    if file.region.is_ready(access) {
        return file.region.client_descriptor(access, kind);
    }
    let file = file.clone();
    tokio::task::spawn_blocking(move || file.region.client_descriptor(access, kind))
        .await
        .unwrap_or(Err(Error::new(Code::Internal, "making a descriptor panicked")))
}
