//! A full pool.

use libmem::{Code, LeaseOptions, Lifetime, Rights};

use crate::common::node::POOL;
use crate::common::{Ask, MINUTE, Said, USERS, pattern, refused};
use crate::scene::{Scene, all, part};

const SEGMENT: u64 = 2 << 20;

#[test]
fn a_full_pool_still_rotates_because_room_was_kept() {
    // Two segments less than all: the bystander has a part of one.
    let Some(scene) = Scene::set(POOL - 2 * SEGMENT, Some(SEGMENT)) else { return };
    let bytes = pattern(3, scene.bytes as usize);
    scene.mine().write_at(0, &bytes).unwrap();
    let victim = scene.receiver(USERS[0], true, part(0, 8 * SEGMENT));
    // What is free and kept is given to nobody.
    let kept = LeaseOptions::new(SEGMENT, MINUTE).lifetime(Lifetime::Detached);
    refused(scene.alice.client.lease(kept), Code::NoMemory);
    let receipt = scene.revoke(victim.grant);
    assert_eq!(receipt.body.wiped_bytes, 8 * SEGMENT);
    assert_eq!(scene.rotations(), 8);
    let mut found = vec![0; bytes.len()];
    scene.mine().read_at(0, &mut found).unwrap();
    assert!(found == bytes, "the owner has every byte");
    drop(victim);
    scene.end();
}

#[test]
fn where_no_room_can_be_kept_a_share_is_mediated() {
    // One segment as large as half the pool leaves no room for another of its size.
    let Some(scene) = Scene::set(POOL / 2 + SEGMENT, None) else { return };
    let key = scene.world.register();
    let mut actor = scene.world.actor(&key, USERS[0]);
    let (grant, token) = scene.give(&mut actor, &key, Rights::READ_WRITE, all());
    let said = actor.ask(&Ask::Open { token: token.clone(), rights: Rights::READ_WRITE, mapped: true });
    assert!(matches!(&said, Said::Refused { code } if code == Code::NoMemory.text()), "{said:?}");
    let memory = actor.open(&token, Rights::READ_WRITE, false);
    let said = actor.ask(&Ask::Write { memory, offset: 8, bytes: b"by calls".to_vec() });
    assert!(matches!(said, Said::Done), "{said:?}");
    let mut found = [0; 8];
    scene.mine().read_at(8, &mut found).unwrap();
    assert_eq!(&found, b"by calls");
    scene.revoke(grant);
    assert_eq!(scene.rotations(), 0);
    scene.mine().read_at(8, &mut found).unwrap();
    drop(actor);
    scene.end();
}
