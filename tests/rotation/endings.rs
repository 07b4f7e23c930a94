//! Rights that end in other ways, and at bad moments.

use std::time::Duration;

use libmem::{Code, Target};

use crate::common::writer::By;
use crate::common::{MINUTE, USERS, log, refused};
use crate::scene::{Scene, all, is_whole, lasting, reason};

const BYTES: u64 = 256 << 10;
const MORE: u64 = 20_000;
/// Long enough to accept, open and begin on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

#[test]
fn a_right_that_ends_before_its_region_expires_by_rotation() {
    let Some(scene) = Scene::set(BYTES, None) else { return };
    let mut survivor = scene.receiver(USERS[0], true, all());
    let mut brief = scene.receiver(USERS[1], true, lasting(SHORT));
    let alice = scene.write((0, 3));
    survivor.write(&scene, (1, 3), By::Raw);
    brief.write(&scene, (2, 3), By::Calls);
    let wrote = brief.actor.stop_writing(true);
    assert_eq!(wrote.code, "E_REVOKED", "{wrote:?}");
    assert!(alice.advance(MORE) && survivor.actor.advance(MORE));
    scene.is_whole((0, 3), &alice.stop());
    scene.is_whole((1, 3), &survivor.actor.stop_writing(false));
    assert!(is_whole(scene.judge((2, 3), wrote.steps)));
    assert_eq!(scene.rotations(), 1);
    let grant = brief.grant.to_string();
    drop((survivor, brief));
    let log = scene.end();
    let expired = log::about(&log.provider, "lease.expire", &grant);
    assert_eq!(expired.len(), 1, "{expired:?}");
    assert_eq!(expired[0]["method"], "rotate");
}

#[test]
fn a_lease_is_renewed_past_the_end_of_a_receiver_who_has_mapped_it() {
    let Some(scene) = Scene::with(BYTES, None, 2 * SHORT) else { return };
    // As long as the lease lives now: when that is renewed, this one is not.
    let mut brief = scene.receiver(USERS[1], true, all());
    let alice = scene.write((0, 2));
    brief.write(&scene, (1, 2), By::Calls);
    let renewed = scene.alice.client.renew(scene.lease().id, MINUTE).unwrap();
    assert!(renewed.lease.expires_in.0 > (2 * SHORT).as_micros() as u64);
    let wrote = brief.actor.stop_writing(true);
    assert_eq!(wrote.code, "E_REVOKED", "{wrote:?}");
    assert!(alice.advance(MORE), "the owner goes on beyond the receiver's end");
    scene.is_whole((0, 2), &alice.stop());
    assert!(is_whole(scene.judge((1, 2), wrote.steps)));
    assert_eq!(scene.rotations(), 1);
    drop(brief);
    scene.end();
}

#[test]
fn two_receivers_are_revoked_at_the_same_time() {
    let Some(scene) = Scene::set(BYTES, None) else { return };
    let mut survivor = scene.receiver(USERS[0], true, all());
    let alice = scene.write((0, 4));
    survivor.write(&scene, (1, 4), By::Calls);
    for round in 0..10 {
        let mut pair = [USERS[1], USERS[2]].map(|uid| scene.receiver(uid, true, all()));
        for (n, receiver) in (2..).zip(&mut pair) {
            receiver.actor.start_using(receiver.memory, false, n == 2);
        }
        let other = scene.world.connect(&scene.alice.key);
        let (first, second) = (pair[0].grant, pair[1].grant);
        std::thread::scope(|scope| {
            let there = scope.spawn(move || other.revoke(Target::Grant(second), reason()).unwrap());
            scene.revoke(first);
            there.join().unwrap();
        });
        let [mut raw, mut guarded] = pair;
        assert_eq!(raw.actor.wait_for_signal(), libc::SIGBUS);
        assert_eq!(guarded.actor.hear_stopped(), "E_REVOKED");
        assert!(alice.advance(MORE) && survivor.actor.advance(MORE), "round {round}");
    }
    scene.is_whole((0, 4), &alice.stop());
    scene.is_whole((1, 4), &survivor.actor.stop_writing(false));
    drop(survivor);
    scene.end();
}

#[test]
fn a_lease_is_revoked_while_a_rotation_copies() {
    const LARGE: u64 = 64 << 20;
    for _ in 0..3 {
        let Some(scene) = Scene::set(LARGE, None) else { return };
        let mut survivor = scene.receiver(USERS[0], true, all());
        let mut victim = scene.receiver(USERS[1], true, all());
        survivor.actor.start_using(survivor.memory, true, false);
        victim.actor.start_using(victim.memory, false, false);
        let other = scene.world.connect(&scene.alice.key);
        let lease = scene.lease().id;
        std::thread::scope(|scope| {
            let rotated = scope.spawn(|| scene.revoke(victim.grant));
            // Its cut is done, and the copy of so much takes a while.
            assert_eq!(victim.actor.hear_stopped(), "E_REVOKED");
            let receipt = other.revoke(Target::Lease(lease), reason()).unwrap();
            receipt.verify(scene.world.node.issuer()).unwrap();
            assert_eq!(receipt.body.leases, [lease]);
            // Acknowledged: from here on nothing is reached.
            refused(scene.mine().load_u64(0), Code::Revoked);
            rotated.join().unwrap();
        });
        assert_eq!(survivor.actor.hear_stopped(), "E_REVOKED");
        drop((survivor, victim, other));
        scene.end();
    }
}
