//! The same, many times. What runs by default is short; the long ones are run by
//!
//! ```text
//! cargo test --release -p leasehold --test rotation -- --ignored --nocapture long::
//! ```

use std::time::{Duration, Instant};

use libmem::Rights;

use crate::common::writer::By;
use crate::common::{Actor, Ask, Said, USERS};
use crate::races::Races;
use crate::scene::{Receiver, Scene, all};

const BYTES: u64 = 1 << 20;
/// How many races the long run has, if not [`RACES`].
const RACES_VARIABLE: &str = "LEASEHOLD_TEST_RACES";
const RACES: u64 = 1_000_000;
/// How often each process of the long run opens each grant on each path.
const OPENS: usize = 4;

/// Three write while a fourth is given a right and loses it, until so many rotations and so many writes were done.
fn rotate_under_writers(rotations: u32, writes: u64) {
    let Some(scene) = Scene::with(BYTES, None, Duration::from_secs(3_600)) else { return };
    let mut raw = scene.receiver(USERS[0], true, all());
    let mut guarded = scene.receiver(USERS[1], true, all());
    let started = Instant::now();
    let alice = scene.write((0, 3));
    raw.write(&scene, (1, 3), By::Raw);
    guarded.write(&scene, (2, 3), By::Calls);
    let Receiver { mut actor, key, mut grant, .. } = scene.receiver(USERS[2], true, all());
    for round in 1..=rotations {
        scene.revoke(grant);
        // Each writes to the fresh segment before the next rotation, so each lived through every one.
        assert!(alice.advance(1) && raw.actor.advance(1) && guarded.actor.advance(1), "rotation {round}");
        let (next, token) = scene.give(&mut actor, &key, Rights::READ_WRITE, all());
        actor.open(&token, Rights::READ_WRITE, true);
        grant = next;
    }
    assert_eq!(scene.rotations(), rotations);
    let each = writes / 3 + 1;
    assert!(alice.reach(each), "alice ended");
    let wrote = [alice.stop(), finish(&mut raw.actor, each), finish(&mut guarded.actor, each)];
    let steps: u64 = wrote.iter().map(|wrote| wrote.steps).sum();
    let judged: u64 = wrote.iter().filter_map(|wrote| wrote.found).map(|found| found.whole).sum();
    let pauses: Vec<_> = wrote.iter().map(|wrote| wrote.pause_us).collect();
    eprintln!(
        "{steps} writes, {judged} found whole, across {rotations} rotations in {:?}; longest pauses {pauses:?} us",
        started.elapsed()
    );
    for (n, wrote) in (0..).zip(&wrote) {
        scene.is_whole((n, 3), wrote);
    }
    assert!(steps >= writes && judged == steps, "each write was judged");
    drop((raw, guarded, actor));
    scene.end();
}

fn finish(actor: &mut Actor, steps: u64) -> crate::common::writer::Wrote {
    // In pieces: no answer may be long in coming.
    for steps in (0..steps).step_by(1_000_000).chain([steps]) {
        let said = actor.ask(&Ask::Reach { steps });
        assert!(matches!(said, Said::Advanced { writing: true }), "it writes no more: {said:?}");
    }
    actor.stop_writing(false)
}

/// See [`races`](crate::races).
fn race(races: u64, opens: usize) {
    let Some(mut scene) = Races::set(opens) else { return };
    scene.run(races);
    scene.end();
}

#[test]
fn survivors_lose_nothing_across_some_rotations() {
    rotate_under_writers(50, 1_000_000);
}

#[test]
#[ignore = "takes minutes: 10^8 writes across 1,000 rotations"]
fn survivors_lose_nothing_across_a_thousand_rotations() {
    rotate_under_writers(1_000, 100_000_000);
}

#[test]
fn nothing_succeeds_that_begins_after_the_acknowledgement() {
    race(1_000, 2);
}

#[test]
#[ignore = "takes an hour: 10^6 races, or as many as LEASEHOLD_TEST_RACES says"]
fn nothing_succeeds_that_begins_after_a_million_acknowledgements() {
    let races = std::env::var(RACES_VARIABLE).map_or(RACES, |text| text.parse().unwrap());
    race(races, OPENS);
}
