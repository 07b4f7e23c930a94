//! Hostile clients: each is a process of another user that holds a right, prepares something, and goes on after the
//! right was taken back.
//!
//! ```text
//!  test ── Scene ──┬── World       a node, a bystander whose bytes must not change
//!                  ├── alice       leases a region and shares it
//!                  ├── survivors   two honest receivers in processes of their own, which count in every page
//!                  └── Villain     a hostile receiver in a process of its own
//!
//!  attack ─▶ villain: before ─▶ "ready" ─▶ alice revokes, acknowledged in time ─▶ villain: after ─▶ findings judged
//!         ─▶ bytes of a fresh lease, of the bystander, of the survivors ─▶ the books ─▶ both logs
//! ```
//!
//! An attack is played in each [`Setting`](scene::Setting): the whole region is taken back, or the attacker alone while
//! the others go on. [`attacks!`] makes the tests.
//!
//! | file | attacks |
//! |---|---|
//! | `keep` | goes on with what it has: mappings, descriptor, children, signals |
//! | `pin` | holds the pages by other means than a mapping |
//! | `stall` | holds the kernel up inside a call on the region |
//! | `map` | makes the cut itself expensive |
//! | `send` | what it sends and what it does not receive |
//! | `die` | dies at every step of the protocol |
//! | `flood` | asks faster than it reads |
//! | `rotate` | what it does while others are taken out and its memory is rotated |
//! | `reuse` | dies, and another process gets its number |
//! | `beside` | all of them beside `leasehold bench beside`, as a table |
//! | `scene` | sets the scene, takes back, judges |
//! | `villain`, `stage` | the hostile process: from the test's side, from inside |
//! | `fuse` | a file whose server never answers |
//! | `threats` | whether docs/threat-model.md names tests that are there |
//!
//! Only root can be several users, and only a sealed descriptor may be mapped for writing by another user: elsewhere
//! these tests say that they did not run.

#[path = "common/mod.rs"]
mod common;

/// Makes a test of each attack: in both settings; or, with the reason why that is enough, on the whole region alone.
macro_rules! attacks {
    (
        both { $($name:ident => $play:expr;)* }
        $(whole($why:literal) { $($only:ident => $how:expr;)* })?
    ) => {
        $(
            #[test]
            fn $name() {
                let play: fn(crate::scene::Setting) = $play;
                play(crate::scene::Setting::WholeRegion);
            }
        )*
        $($(
            #[doc = $why]
            #[test]
            fn $only() {
                let play: fn(crate::scene::Setting) = $how;
                play(crate::scene::Setting::WholeRegion);
            }
        )*)?
        mod one_among_several {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let play: fn(crate::scene::Setting) = $play;
                    play(crate::scene::Setting::OneAmongSeveral);
                }
            )*
        }
    };
}

#[path = "hostile/beside.rs"]
mod beside;
#[path = "hostile/die.rs"]
mod die;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/fuse.rs"]
mod fuse;
#[path = "hostile/keep.rs"]
mod keep;
#[path = "hostile/map.rs"]
mod map;
#[path = "hostile/pin.rs"]
mod pin;
#[path = "hostile/reuse.rs"]
mod reuse;
#[path = "hostile/rotate.rs"]
mod rotate;
#[path = "hostile/scene.rs"]
mod scene;
#[path = "hostile/send.rs"]
mod send;
#[path = "hostile/stage.rs"]
mod stage;
#[path = "hostile/stall.rs"]
mod stall;
#[path = "hostile/threats.rs"]
mod threats;
#[path = "hostile/villain.rs"]
mod villain;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

#[test]
#[ignore = "a hostile process of the other tests"]
fn hostile_process() {
    stage::play();
}

#[test]
#[ignore = "what a benchmark starts, of the tests of `beside`"]
fn hostile_beside() {
    beside::play();
}
