//! A copy of leased memory in a lease of one's own.
//!
//! It is made of verbs that every client has: open, lease, read, write. So the copy is the caller's like any other lease,
//! within its quota and the node's policy, and lives on when the original ends.
//!
//! **It is not a point in time.** Bytes are read one piece after the other, and who writes to the original meanwhile is
//! seen in some pieces and not in others. Whoever needs one state of it has the writers pause, or, as the owner, takes
//! their right to write before ([`crate::Client::share_narrow`]), for good, and offers them another grant after.

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use caps::error::Result;
use caps::id::LeaseId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::reply::Opened;
use caps::wire::row::Lifetime;

use crate::aio;
use crate::client::Client;
use crate::lease::{LeaseOptions, Leased};
use crate::mediated::Memory;

/// Bytes that are copied at a time, and so all the memory that a copy takes in this process: large enough that system
/// calls do not count, small enough that a revoke, or a wish to stop, is noticed soon.
pub const SNAPSHOT_STEP_BYTES: usize = 1 << 20;

/// What the lease with the copy should be. Size and segments are those of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions(LeaseOptions);

impl SnapshotOptions {
    /// For `ttl`, ending with this process.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self(LeaseOptions::new(0, ttl))
    }

    /// As [`LeaseOptions::name`].
    ///
    /// # Errors
    /// `E_RANGE` if the text is no name.
    pub fn name(self, name: &str) -> Result<Self> {
        self.0.name(name).map(Self)
    }

    /// As [`LeaseOptions::lifetime`]. A process that is killed while it copies leaves a half copy behind only where this
    /// is [`Lifetime::Detached`], until its time is over.
    #[must_use]
    pub fn lifetime(self, lifetime: Lifetime) -> Self {
        Self(self.0.lifetime(lifetime))
    }

    /// The lease for a copy of what `opened` reaches: as long as that, from its first byte on, in segments of the same
    /// size. What fits one of them has one.
    fn lease(self, opened: &Opened) -> LeaseOptions {
        let bytes = opened.range.len();
        let options = self.0.bytes(bytes);
        // A region of one segment has that of its own length, which may be none that can be asked for.
        if bytes > opened.segment_bytes { options.segment(opened.segment_bytes) } else { options }
    }
}

/// Says how many bytes of how many are copied, and asks whether to go on.
pub trait Progress: FnMut(u64, u64) -> ControlFlow<()> {}

impl<F: FnMut(u64, u64) -> ControlFlow<()>> Progress for F {}

/// Where each piece begins in the original, where in the copy, and how long it is.
fn pieces(range: ByteRange) -> impl Iterator<Item = (u64, u64, Range<usize>)> {
    (0..range.len()).step_by(SNAPSHOT_STEP_BYTES).map(move |at| {
        let left = usize::try_from(range.len() - at).unwrap_or(SNAPSHOT_STEP_BYTES);
        (range.start() + at, at, 0..left.min(SNAPSHOT_STEP_BYTES))
    })
}

impl Client {
    /// Leases as much as the token reaches and copies it there; what was at the first byte of the token's range is at 0
    /// of the copy. `progress` is told after each piece, and can stop it.
    ///
    /// Not a point in time: see [`crate::snapshot`]. If the original ends meanwhile, or anything else goes wrong, the
    /// lease with the half copy is released before this returns. `None`: `progress` said stop, and it was released.
    ///
    /// # Errors
    /// As [`Client::open`] with the right to read, before anything is leased; as [`Client::lease`]; `E_REVOKED` if the
    /// original, or the copy, ended on the way; `E_BUSY` if the token has a rate that is below the copy's speed; as [`Client::release`] for what was stopped. A copy that could not be
    /// released either ends with its time.
    pub fn snapshot(
        &self,
        token: &Token,
        options: SnapshotOptions,
        progress: impl Progress,
    ) -> Result<Option<Leased>> {
        let open = |token: &Token, rights| self.open(token, rights);
        let release = |lease| self.release(lease).map(drop);
        made(open, |options| self.lease(options), release, token, options, progress)
    }
}

/// Makes a snapshot, for whoever can open, lease and release.
pub(crate) fn made(
    open: impl Fn(&Token, Rights) -> Result<Memory>,
    lease: impl FnOnce(LeaseOptions) -> Result<Leased>,
    release: impl FnOnce(LeaseId) -> Result<()>,
    token: &Token,
    options: SnapshotOptions,
    progress: impl Progress,
) -> Result<Option<Leased>> {
    let original = open(token, Rights::READ)?;
    let leased = lease(options.lease(original.opened()))?;
    let copied = open(&leased.token, Rights::READ_WRITE).and_then(|copy| fill(&original, &copy, progress));
    match copied {
        Ok(ControlFlow::Continue(())) => Ok(Some(leased)),
        Ok(ControlFlow::Break(())) => release(leased.lease.id).map(|()| None),
        Err(error) => {
            let _ = release(leased.lease.id); // it is the first error that says what happened
            Err(error)
        }
    }
}

fn fill(original: &Memory, copy: &Memory, mut progress: impl Progress) -> Result<ControlFlow<()>> {
    let range = original.opened().range;
    let mut buffer = vec![0; SNAPSHOT_STEP_BYTES];
    for (from, to, place) in pieces(range) {
        let piece = &mut buffer[place];
        original.read_at(from, piece)?;
        copy.write_at(to, piece)?;
        if progress(to + piece.len() as u64, range.len()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

impl aio::Client {
    /// As [`Client::snapshot`]. Dropping the future leaves the lease with the half copy to its end: to stop, say so by
    /// `progress`.
    ///
    /// # Errors
    /// As [`Client::snapshot`].
    pub async fn snapshot(
        &self,
        token: &Token,
        options: SnapshotOptions,
        progress: impl Progress,
    ) -> Result<Option<Leased>> {
        let original = self.open(token, Rights::READ).await?;
        let leased = self.lease(options.lease(original.opened())).await?;
        match self.copy(&original, &leased, progress).await {
            Ok(ControlFlow::Continue(())) => Ok(Some(leased)),
            Ok(ControlFlow::Break(())) => self.release(leased.lease.id).await.map(|_| None),
            Err(error) => {
                let _ = self.release(leased.lease.id).await; // it is the first error that says what happened
                Err(error)
            }
        }
    }

    async fn copy(
        &self,
        original: &aio::Memory,
        leased: &Leased,
        mut progress: impl Progress,
    ) -> Result<ControlFlow<()>> {
        let copy = self.open(&leased.token, Rights::READ_WRITE).await?;
        let range = original.opened().range;
        let mut buffer = vec![0; SNAPSHOT_STEP_BYTES];
        for (from, to, place) in pieces(range) {
            let piece = &mut buffer[place];
            original.read_at(from, piece).await?;
            copy.write_at(to, piece).await?;
            if progress(to + piece.len() as u64, range.len()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_once_and_in_order() {
        let step = SNAPSHOT_STEP_BYTES as u64;
        for length in [1, step - 1, step, step + 1, 3 * step + 5] {
            let mut next = 0;
            for (from, to, place) in pieces(ByteRange::new(4096, 4096 + length).unwrap()) {
                assert_eq!((from, to, place.start), (4096 + next, next, 0));
                assert!(!place.is_empty() && place.len() <= SNAPSHOT_STEP_BYTES);
                next += place.len() as u64;
            }
            assert_eq!(next, length);
        }
    }
}
