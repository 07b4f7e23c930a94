//! What one connection may have done in one turn, so that its neighbours' turns come soon whatever it asks for.
//!
//! Counted are the frames that are taken, the chunks that are moved for them, and whether what is read is worth its
//! records. Once one of these is spent the turn is over, and what is left waits for the next.

use policy::limits::{REMOTE_CRUMBS_PERCENT, REMOTE_READ_BYTES, REMOTE_TURN_CHUNKS_MAX, REMOTE_WINDOW_MAX};

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    frames: usize,
    chunks: u32,
}

impl Share {
    /// That of a turn which begins.
    pub(super) const fn whole() -> Self {
        Self { frames: REMOTE_WINDOW_MAX, chunks: REMOTE_TURN_CHUNKS_MAX }
    }

    /// A frame was taken.
    pub(super) const fn frame(&mut self) {
        self.frames = self.frames.saturating_sub(1);
    }

    /// A request has moved a chunk. `false` if that was the last one: it goes on at the next turn.
    pub(super) const fn chunk(&mut self) -> bool {
        self.chunks = self.chunks.saturating_sub(1);
        self.chunks > 0
    }

    /// `bytes` of ciphertext were read, and meant `plain` bytes. Each record is decrypted by itself: one of a byte costs as
    /// much as one of a hundred, so a long read of such records is a turn's worth.
    pub(super) const fn read(&mut self, bytes: usize, plain: usize) {
        if bytes >= REMOTE_READ_BYTES && plain * 100 < bytes * REMOTE_CRUMBS_PERCENT {
            self.frames = 0;
        }
    }

    /// Whether nothing more is begun before others had their turn.
    pub(super) const fn is_spent(&self) -> bool {
        self.frames == 0 || self.chunks == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_after_a_window_of_frames_or_its_chunks() {
        let mut share = Share::whole();
        (1..REMOTE_WINDOW_MAX).for_each(|_| share.frame());
        assert!(!share.is_spent());
        share.frame();
        assert!(share.is_spent());
        let mut share = Share::whole();
        assert!((1..REMOTE_TURN_CHUNKS_MAX).all(|_| share.chunk()));
        assert!(!share.is_spent());
        assert!(!share.chunk() && share.is_spent());
        assert!(!share.chunk(), "a request of a turn that is over goes on by one chunk");
    }

    #[test]
    fn crumbs_are_a_turn_and_small_frames_are_not() {
        let after = |bytes, plain| {
            let mut share = Share::whole();
            share.read(bytes, plain);
            share.is_spent()
        };
        // Records of one byte, with their 22 bytes around it; of one request for a range's size.
        assert!(after(REMOTE_READ_BYTES, REMOTE_READ_BYTES / 23));
        assert!(!after(REMOTE_READ_BYTES, REMOTE_READ_BYTES / 78 * 56));
        assert!(!after(23, 1), "a byte that comes alone");
        assert!(!after(2_000, 0), "a handshake");
    }
}
