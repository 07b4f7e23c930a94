//! Rotation: one holder of several loses its right, the others go on and lose nothing.
//!
//! ```text
//!  alice (this process)  owns the region, writes her stripes of it, guarded
//!  survivors             processes of other users, write theirs: guarded, raw, mediated
//!  the victim            a process of another user, writes its own until alice takes that back
//!
//!  each word is judged before it is written over and at the end, by its writer and by alice: whole, lost or torn
//! ```
//!
//! | file | what |
//! |---|---|
//! | `scene` | a node, alice, her region; receivers in processes of their own |
//! | `survivors` | who goes on: guarded, raw, mediated, stopped, killed, forked, asleep |
//! | `segments` | rights to a part: what is rotated and what is not touched |
//! | `endings` | ends by time, two at once, the whole region meanwhile |
//! | `room` | a full pool |
//! | `races` | accesses on every path that race with a revoke |
//! | `long` | many writes and many rotations, many races |
//!
//! Only root can be several users, and only a sealed descriptor may be mapped for writing by another user: elsewhere
//! these tests say that they did not run.

#[path = "common/mod.rs"]
mod common;

#[path = "rotation/endings.rs"]
mod endings;
#[path = "rotation/long.rs"]
mod long;
#[path = "rotation/races.rs"]
mod races;
#[path = "rotation/room.rs"]
mod room;
#[path = "rotation/scene.rs"]
mod scene;
#[path = "rotation/segments.rs"]
mod segments;
#[path = "rotation/survivors.rs"]
mod survivors;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}
