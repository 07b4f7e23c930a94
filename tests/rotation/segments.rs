//! Rights to a part.

use std::fs;

use libmem::{Code, Rights};

use crate::common::writer::By;
use crate::common::{Ask, Said, USERS, pattern};
use crate::scene::{Receiver, Scene, part};

const SEGMENT: u64 = 64 << 10;
const BYTES: u64 = 16 * SEGMENT;

/// The files behind the mappings of a process that are longer than a page and in no file system of the machine, in
/// the order of their addresses: device and inode.
fn files(pid: u32) -> Vec<String> {
    shared(pid).into_iter().map(|(_, file)| file).collect()
}

/// The files that a process of several tests has mapped for one region of `count` segments, and for no other of that
/// shape: one after another, of one segment each.
fn files_of_region(pid: u32, count: usize) -> Vec<String> {
    let mappings = shared(pid);
    let follows = |pair: &[((u64, u64), String)]| pair[0].0.1 == pair[1].0.0;
    let is_one_segment = |((start, end), _): &((u64, u64), String)| end - start == SEGMENT;
    let found =
        mappings.windows(count).find(|run| run.windows(2).all(follows) && run.iter().all(is_one_segment));
    found.expect("the region is mapped").iter().map(|(_, file)| file.clone()).collect()
}

/// The shared mappings of a process: where they are, and of which file.
fn shared(pid: u32) -> Vec<((u64, u64), String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let shared = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (place, permissions, _, device, inode) =
            (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        let (start, end) = place.split_once('-')?;
        let place = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        permissions.ends_with('s').then(|| (place, format!("{device} {inode}")))
    });
    shared.collect()
}

#[test]
fn only_the_segments_of_the_revoked_right_are_rotated() {
    let Some(scene) = Scene::set(BYTES, Some(SEGMENT)) else { return };
    assert_eq!(scene.lease().segment_bytes, SEGMENT);
    let bytes = pattern(7, BYTES as usize);
    scene.mine().write_at(0, &bytes).unwrap();
    let mut victim = scene.receiver(USERS[0], true, part(4 * SEGMENT, 8 * SEGMENT));
    let mut other = scene.receiver(USERS[1], true, part(8 * SEGMENT, 12 * SEGMENT));
    let mut beside = scene.receiver(USERS[2], true, part(6 * SEGMENT, 10 * SEGMENT));
    for (receiver, start, end) in [(&mut victim, 4, 8), (&mut other, 8, 12), (&mut beside, 6, 10)] {
        let (start, end) = (start * SEGMENT, end * SEGMENT);
        let found = receiver.actor.read(receiver.memory, start, (end - start) as usize);
        assert!(found == bytes[start as usize..end as usize], "it reads its own part");
        let outside = Ask::Read { memory: receiver.memory, offset: end, length: 1 };
        let said = receiver.actor.ask(&outside);
        assert!(matches!(&said, Said::Refused { code } if code == Code::Range.text()), "{said:?}");
    }
    // A plain access that met a cut which was not followed by a fresh segment would end it.
    other.actor.start_using(other.memory, true, true);
    let (mine, others, besides) =
        (files_of_region(std::process::id(), 16), files(other.actor.pid()), files(beside.actor.pid()));
    let receipt = scene.revoke(victim.grant);
    assert_eq!(receipt.body.wiped_bytes, 4 * SEGMENT);
    assert_eq!(scene.rotations(), 4);
    // The last segment of each is there at the latest when it was read.
    let mut found = vec![0; bytes.len()];
    scene.mine().read_at(0, &mut found).unwrap();
    assert!(found == bytes, "the owner has every byte");
    let kept = beside.actor.read(beside.memory, 6 * SEGMENT, (4 * SEGMENT) as usize);
    assert!(kept == bytes[6 * SEGMENT as usize..10 * SEGMENT as usize]);
    let changed = |before: &[String], now: &[String]| {
        assert_eq!(before.len(), now.len());
        before.iter().zip(now).filter(|(before, now)| before != now).count()
    };
    assert_eq!(files(other.actor.pid()), others, "the one outside still has the very same files");
    assert_eq!(changed(&mine, &files_of_region(std::process::id(), 16)), 4);
    assert_eq!(changed(&besides, &files(beside.actor.pid())), 2);
    let gone = victim.actor.ask(&Ask::Read { memory: victim.memory, offset: 4 * SEGMENT, length: 1 });
    assert!(matches!(&gone, Said::Refused { code } if code == Code::Revoked.text()), "{gone:?}");
    drop((victim, other, beside));
    scene.end();
}

#[test]
fn a_right_off_the_borders_is_mediated_and_rotates_nothing() {
    let Some(scene) = Scene::set(BYTES, Some(SEGMENT)) else { return };
    let mut other = scene.receiver(USERS[1], true, part(0, SEGMENT));
    let key = scene.world.register();
    let mut actor = scene.world.actor(&key, USERS[0]);
    let ranges =
        [(4096, SEGMENT), (0, SEGMENT + 4096), (SEGMENT - 1, SEGMENT + 1), (SEGMENT, 2 * SEGMENT - 1)];
    for (start, end) in ranges {
        let (grant, token) = scene.give(&mut actor, &key, Rights::READ_WRITE, part(start, end));
        let open = Ask::Open { token: token.clone(), rights: Rights::READ_WRITE, mapped: true };
        let said = actor.ask(&open);
        assert!(matches!(&said, Said::Refused { code } if code == Code::MediatedOnly.text()), "{said:?}");
        let memory = actor.open(&token, Rights::READ_WRITE, false);
        let bytes = pattern(start, (end - start) as usize);
        let said = actor.ask(&Ask::Write { memory, offset: start, bytes: bytes.clone() });
        assert!(matches!(said, Said::Done), "{said:?}");
        let mut found = vec![0; bytes.len()];
        scene.mine().read_at(start, &mut found).unwrap();
        assert!(found == bytes);
        scene.revoke(grant);
        let said = actor.ask(&Ask::Read { memory, offset: start, length: 1 });
        assert!(matches!(&said, Said::Refused { code } if code == Code::Revoked.text()), "{said:?}");
    }
    assert_eq!(scene.rotations(), 0);
    assert_eq!(other.actor.read(other.memory, 0, 8).len(), 8);
    drop((actor, other));
    scene.end();
}

#[test]
fn a_mediated_access_across_segments_waits_for_the_rotation_of_one() {
    let Some(scene) = Scene::set(BYTES, Some(SEGMENT)) else { return };
    let mut mediated = scene.receiver(USERS[1], false, |options| options);
    let alice = scene.write((0, 3));
    mediated.write(&scene, (1, 3), By::Calls);
    for start in [2, 9] {
        let Receiver { actor, grant, .. } =
            scene.receiver(USERS[0], true, part(start * SEGMENT, (start + 5) * SEGMENT));
        scene.revoke(grant);
        assert!(alice.advance(10_000) && mediated.actor.advance(16));
        drop(actor);
    }
    assert_eq!(scene.rotations(), 10);
    scene.is_whole((0, 3), &alice.stop());
    scene.is_whole((1, 3), &mediated.actor.stop_writing(false));
    drop(mediated);
    scene.end();
}
