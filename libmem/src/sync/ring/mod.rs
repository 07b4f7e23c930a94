//! Bounded rings: messages from process to process through leased memory, copied once in and once out.
//!
//! A *lane* carries messages of one sender to one receiver ([`spsc`]); a receiver of many lanes is [`mpsc`]. A lane has
//! two parts, and **each has one writer**:
//!
//! ```text
//! sent: written by the sender, read by the receiver
//! offset 0         8        64           72       128                128 + capacity
//!        ├ tail ───┼────────┼ full_waits ┼────────┼ bytes ───────────┤
//!
//! taken: written by the receiver, read by the sender
//! offset 0         8        64            72      128
//!        ├ head ───┼────────┼ empty_waits ┼───────┤
//!
//! a message, at a position that is a multiple of 8
//! offset 0                  8                 8 + length   the next multiple of 8
//!        ├ length: u64 ─────┼ bytes ──────────┼ unused ────┤
//! ```
//!
//! - All numbers are little-endian `u64`; all zero bytes are an empty lane.
//! - `tail` and `head` are positions in bytes since the lane began, multiples of 8: what was published, what was taken.
//!   The byte of a position lies at `position % capacity`; messages go on at the start when they reach the end.
//! - `full_waits` and `empty_waits` are 1 while the sender sleeps until `head` moves, or the receiver until `tail` does.
//! - `capacity` and the longest message are the two ends' agreement ([`Shape`]). They are not in the memory, where
//!   one end could change them under the other.
//!
//! So the two parts may lie in different mappings with different rights: the receiver may hold `sent` for reading only,
//! and the sender `taken`. Then neither can forge what is the other's. They may also lie side by side in one
//! mapping ([`Lane::in_one`]).
//!
//! # Deaths, rotations, liars
//!
//! A message exists once `tail` was moved past it, which is one store. A sender that dies before that has
//! sent nothing; whoever attaches to the lane after it goes on at `tail`. A receiver that dies before it
//! moved `head` has taken nothing, and its successor receives that message again. There is no reservation that a dead
//! peer could keep, so nobody ever waits for one. What must be certain is that the predecessor *is* gone, stopped
//! processes included: revoke its right, which is what makes it so, and then attach the successor.
//!
//! A rotation moves the memory and keeps its bytes; positions do not change, and sleepers look again ([`super`]).
//!
//! Whatever a peer writes, each end checks: positions are multiples of 8, never move back, and are never more than `capacity`
//! apart; a length is at most the longest message and lies within what was published. Anything else is
//! `E_PROTOCOL`, now and at every later call: the lane is dead. A message is copied out once and its length read once, so
//! it cannot change after it was checked.

pub mod mpsc;
mod shape;
pub mod spsc;

pub use shape::{Lane, Place, Shape, TAKEN_BYTES};

#[cfg(test)]
mod tests;
