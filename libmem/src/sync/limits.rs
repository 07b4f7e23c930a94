//! Every bound of the shared words and rings, with its reason. How they depend on one another is asserted below.

use std::time::Duration;

/// Size of a cache line in bytes. Words that different processors write lie on lines of their own, so that one does
/// not slow the other; every shared object begins on a multiple of this.
pub const LINE_BYTES: usize = 64;

/// Longest sleep of a waiter before it looks at its word again, in milliseconds. A wake-up is lost only if a peer
/// is hostile or dies between its store and its wake, or if the word moved to a fresh file that this process has
/// not touched yet; this is what such a loss costs. 20 looks a second cost nothing that can be measured.
pub const RECHECK_MS: u64 = 50;
/// Longest sleep in milliseconds where the kernel can wait on one word only (before Linux 5.16, or under a filter)
/// and there are several to wait for.
pub const POLL_MS: u64 = 1;
/// How often a waiter looks before it sleeps. A peer on another processor answers within this; about 2 µs.
pub const SPINS: u32 = 64;
/// Longest wait in seconds (a day); a longer time-out means this one. Keeps the arithmetic of clocks away from its
/// edges.
pub const WAIT_SECONDS_MAX: u64 = 24 * 60 * 60;
/// How often a wake-up is tried again when the pages went away under it. Each try touches the word first, so one
/// is enough unless a rotation follows upon a rotation.
pub const WAKE_TRIES_MAX: u32 = 4;

/// Shortest patience with the owner of a lock in milliseconds: some turns of the scheduler on a busy machine.
pub const LOCK_PATIENCE_MS_MIN: u64 = 10;
/// Longest patience with the owner of a lock in milliseconds. Nobody should wait for a dead process longer.
pub const LOCK_PATIENCE_MS_MAX: u64 = 60_000;
/// How often an owner tries to change its own lock word. An honest waiter gets in its way once; somebody who does it
/// more often writes what it should not.
pub const LOCK_TRIES_MAX: u32 = 64;

/// Smallest ring in bytes: a cache line, so that what follows it begins on one.
pub const RING_BYTES_MIN: usize = LINE_BYTES;
/// Largest ring in bytes (1 GiB): the largest segment.
pub const RING_BYTES_MAX: usize = 1 << 30;
/// Largest message in bytes (64 KiB), as in one mediated write. Larger things are leased and named in a message.
pub const RING_MESSAGE_BYTES_MAX: usize = caps::limits::CHUNK_BYTES_MAX;
/// Most lanes of one receiver. The kernel waits on at most 128 words at once; one is the count of rotations.
pub const RING_LANES_MAX: usize = 64;

pub(super) const RECHECK: Duration = Duration::from_millis(RECHECK_MS);
pub(super) const POLL: Duration = Duration::from_millis(POLL_MS);
pub(super) const WAIT_MAX: Duration = Duration::from_secs(WAIT_SECONDS_MAX);

const _: () = assert!(RING_LANES_MAX < 128, "all lanes and the count of rotations fit one futex_waitv");
const _: () =
    assert!(RING_MESSAGE_BYTES_MAX + 8 <= RING_BYTES_MAX, "the largest message fits the largest ring");
const _: () =
    assert!(RING_MESSAGE_BYTES_MAX <= u32::MAX as usize, "a length fits the low half of its header");
const _: () = assert!(POLL_MS < RECHECK_MS && LOCK_PATIENCE_MS_MIN < LOCK_PATIENCE_MS_MAX);
