//! What an administrator does with what is in quarantine: list it, read it, release it. Whether somebody is one was
//! found out before.
//!
//! Reading and releasing are on record before they happen, with who did it: without a log there is no investigation.

use caps::limits::CHUNK_BYTES_MAX;

use super::super::open::Opener;
use super::*;

impl Provider {
    /// What is in quarantine, ascending by id.
    #[must_use]
    pub fn quarantined(&self) -> Vec<QuarantineRow> {
        lock(&self.0.quarantine.0).kept.iter().map(|(&id, kept)| kept.row(id)).collect()
    }

    /// Reads `length` bytes at `offset` of the region of something in quarantine.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no such thing, or it is being wiped; `E_RANGE` for no bytes, more than
    /// [`CHUNK_BYTES_MAX`], or bytes that are not kept; `E_AUDIT_UNAVAILABLE` if it cannot be recorded; `E_SYSTEM` if the
    /// kernel refuses.
    pub async fn quarantine_read(
        &self,
        opener: &Opener,
        id: QuarantineId,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>> {
        if length == 0 || length as usize > CHUNK_BYTES_MAX {
            return Err(Error::new(Code::Range, "one read is of 1 byte to 64 KiB"));
        }
        let shared = &self.0;
        let asked = ByteRange::at(offset, length.into()).map_err(|_| OUTSIDE)?;
        let (dead, kept) = shared.quarantine.look(id, |kept| (kept.dead.clone(), kept.row(id)))?;
        if !kept.range.contains(asked) {
            return Err(OUTSIDE);
        }
        let entry = opener.identified(Draft::ok(Entry::RegionQuarantine)).lease(kept.lease).cause("read");
        let entry = entry.owner(kept.owner).range(asked).bytes(asked.len());
        let _recorded = shared.record(entry).await?;
        // Small, but through a ring that a wipe of a large region may be using.
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length as usize];
            match dead {
                Dead::Region { memory, .. } => memory.read_dead(offset, &mut bytes),
                Dead::Segment { file } => file.region.read_dead(offset - kept.range.start(), &mut bytes),
            }
            .map(|()| bytes)
        });
        let bytes =
            read.await.unwrap_or(Err(Error::new(Code::Internal, "reading from quarantine panicked")))?;
        // A wipe that began meanwhile said so first: what was read may be zeros where there was something.
        shared.quarantine.look(id, |_| ()).map(|()| bytes)
    }

    /// Wipes something in quarantine and gives its bytes back. Returns the bytes wiped. Goes on to its end whether or
    /// not somebody waits.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no such thing, or it is being released; `E_AUDIT_UNAVAILABLE` if it cannot be
    /// recorded; `E_SYSTEM` if it cannot be wiped: it stays where it is then, and can be released again.
    pub async fn quarantine_release(&self, opener: &Opener, id: QuarantineId) -> Result<u64> {
        let (shared, opener) = (self.0.clone(), *opener);
        let released = tokio::spawn(async move {
            let row = shared.quarantine.leave(id)?;
            let entry = opener.identified(Draft::ok(Entry::RegionQuarantine)).lease(row.lease);
            let entry = entry.cause("release").owner(row.owner).range(row.range).bytes(row.range.len());
            if let Err(error) = shared.record(entry).await {
                shared.quarantine.stay(id);
                return Err(error);
            }
            let wiper = shared.clone();
            tokio::task::spawn_blocking(move || wiper.wipe_kept(&row))
                .await
                .unwrap_or(Err(Error::new(Code::Internal, "wiping what was in quarantine panicked")))
        });
        released.await.unwrap_or(Err(Error::new(Code::Internal, "a release from quarantine panicked")))
    }
}

const OUTSIDE: Error = Error::new(Code::Range, "these bytes are not in quarantine");

impl Quarantine {
    /// Looks at something that is not being released.
    fn look<T>(&self, id: QuarantineId, look: impl FnOnce(&Kept) -> T) -> Result<T> {
        lock(&self.0).kept.get(&id).filter(|kept| !kept.leaving).map(look).ok_or(UNKNOWN)
    }

    /// From here on it is being released.
    fn leave(&self, id: QuarantineId) -> Result<QuarantineRow> {
        let mut rows = lock(&self.0);
        let kept = rows.kept.get_mut(&id).filter(|kept| !kept.leaving).ok_or(UNKNOWN)?;
        kept.leaving = true;
        Ok(kept.row(id))
    }

    /// It is not released after all.
    fn stay(&self, id: QuarantineId) {
        if let Some(kept) = lock(&self.0).kept.get_mut(&id) {
            kept.leaving = false;
        }
    }
}

const UNKNOWN: Error = Error::new(Code::LeaseUnknown, "nothing of that number is in quarantine");

impl Shared {
    /// Wipes something that is leaving, and gives it back if that works.
    fn wipe_kept(self: &Arc<Self>, row: &QuarantineRow) -> Result<u64> {
        let dead = lock(&self.quarantine.0).kept.get(&row.id).map(|kept| kept.dead.clone()).ok_or(UNKNOWN)?;
        let wiped = dead.wipe();
        drop(dead); // who gives it back waits for those who hold it
        match wiped {
            Ok(wiped) => {
                // The end of the node may have taken all of them meanwhile, and then wiped this one too.
                if let Some(kept) = self.quarantine.remove(row.id) {
                    self.give_back_kept(kept, wiped);
                    let headroom = lock(&self.kernel).headroom_bytes();
                    self.keep_spare(headroom);
                }
                Ok(wiped)
            }
            Err(wiped) => {
                self.quarantine.stay(row.id);
                let entry = Draft::error(Entry::RegionQuarantine, Code::System).lease(row.lease);
                let entry = entry.cause(Keep::UNWIPED.word).range(row.range).bytes(row.range.len());
                self.record_regardless(entry.wiped_bytes(wiped));
                Err(Error::new(Code::System, "it could not be wiped, and stays in quarantine"))
            }
        }
    }
}
