//! Who goes on.

use caps::wire::link::Method;
use libmem::{Receipt, Rights};
use rustix::process::Signal;

use crate::common::together::COUNTER;
use crate::common::writer::{By, Wrote};
use crate::common::{Ask, Said, USERS, log};
use crate::scene::{Receiver, Scene, all, is_whole};

const BYTES: u64 = 256 << 10;
/// How much a survivor must write after a rotation.
const MORE: u64 = 2_000;
const MORE_MEDIATED: u64 = 16;

/// Four write: alice guarded, one survivor raw, one mediated, and the victim, who is then revoked. What came of it.
fn one_is_revoked(mapped: bool, by: By) -> Option<(Receipt, Option<Wrote>, log::Log)> {
    let scene = Scene::set(BYTES, None)?;
    let mut raw = scene.receiver(USERS[0], true, all());
    let mut mediated = scene.receiver(USERS[1], false, all());
    let mut victim = scene.receiver(USERS[2], mapped, all());
    let alice = scene.write((0, 4));
    raw.write(&scene, (1, 4), By::Raw);
    mediated.write(&scene, (2, 4), By::Calls);
    victim.write(&scene, (3, 4), by);
    assert!(alice.advance(MORE) && raw.actor.advance(MORE) && mediated.actor.advance(MORE_MEDIATED));

    let receipt = scene.revoke(victim.grant);
    let wrote = if by == By::Raw {
        assert_eq!(victim.actor.wait_for_signal(), libc::SIGBUS);
        None
    } else {
        Some(victim.actor.stop_writing(true))
    };
    // More than is its own, so that every word is written over once more.
    assert!(alice.advance(BYTES / 8 / 4 + MORE), "the owner goes on");
    assert!(raw.actor.advance(BYTES / 8 / 4 + MORE), "raw access goes on");
    assert!(mediated.actor.advance(MORE_MEDIATED), "mediated access goes on");
    scene.is_whole((0, 4), &alice.stop());
    scene.is_whole((1, 4), &raw.actor.stop_writing(false));
    scene.is_whole((2, 4), &mediated.actor.stop_writing(false));
    if let Some(wrote) = &wrote {
        assert_eq!(wrote.code, "E_REVOKED");
        let found = scene.judge((3, 4), wrote.steps);
        assert!(is_whole(found), "what the victim wrote while it might is there: {found:?}");
    }
    assert_eq!(scene.rotations(), u32::from(mapped));
    drop((raw, mediated, victim));
    Some((receipt, wrote, scene.end()))
}

#[test]
fn a_guarded_holder_is_revoked_and_nobody_else_loses_a_write() {
    let Some((receipt, _, log)) = one_is_revoked(true, By::Calls) else { return };
    let body = &receipt.body;
    assert_eq!(body.method, Method::Rotate);
    assert!(body.fence <= body.dead, "{body:?}");
    assert_eq!(body.wiped_bytes, BYTES);
    let index = usize::try_from(body.log_index.unwrap()).unwrap();
    assert_eq!(log.broker[index]["event"], "share.end", "{}", log.broker[index]);
    let rotated: Vec<_> = log::of(&log.provider, "lease.revoke");
    let rotated: Vec<_> = rotated.iter().filter(|entry| entry["method"] == "rotate").collect();
    assert_eq!(rotated.len(), 1, "{rotated:?}");
    let caps::wire::row::Target::Grant(grant) = body.target else { panic!("{body:?}") };
    assert_eq!(rotated[0]["grant"], grant.to_string()[..]);
    let number = |key: &str| rotated[0][key].to_string().trim_matches('"').parse::<u64>().unwrap();
    assert_eq!(number("wiped_bytes"), BYTES);
    assert_eq!((number("fence_us"), number("dead_us")), (body.fence.0, body.dead.0));
    assert_eq!(number("mappings_closed"), u64::from(body.mappings_closed));
}

#[test]
fn a_raw_holder_is_revoked_and_dies_of_sigbus_alone() {
    one_is_revoked(true, By::Raw);
}

#[test]
fn a_mediated_holder_is_revoked_by_the_fence_alone() {
    let Some((receipt, ..)) = one_is_revoked(false, By::Calls) else { return };
    assert_eq!(receipt.body.wiped_bytes, 0);
    assert_ne!(receipt.body.method, Method::Rotate);
}

#[test]
fn a_stopped_survivor_delays_nobody_and_goes_on_afterwards() {
    let Some(scene) = Scene::set(BYTES, None) else { return };
    let mut stopped = scene.receiver(USERS[0], true, all());
    let mut awake = scene.receiver(USERS[1], true, all());
    let alice = scene.write((0, 3));
    stopped.write(&scene, (1, 3), By::Calls);
    awake.write(&scene, (2, 3), By::Raw);
    stopped.actor.signal(Signal::STOP);
    // One after the other, so that more than one generation passes it by.
    for round in 1..=3 {
        let victim = scene.receiver(USERS[2], true, all());
        scene.revoke(victim.grant);
        assert!(alice.advance(MORE) && awake.actor.advance(MORE), "round {round}");
        assert_eq!(scene.rotations(), round);
    }
    stopped.actor.signal(Signal::CONT);
    assert!(stopped.actor.advance(MORE), "it goes on with what there is now");
    scene.is_whole((0, 3), &alice.stop());
    scene.is_whole((1, 3), &stopped.actor.stop_writing(false));
    scene.is_whole((2, 3), &awake.actor.stop_writing(false));
    drop((stopped, awake));
    scene.end();
}

#[test]
fn a_survivor_that_is_killed_meanwhile_delays_nobody() {
    const LARGE: u64 = 32 << 20;
    let Some(scene) = Scene::set(LARGE, None) else { return };
    let mut awake = scene.receiver(USERS[0], true, all());
    let alice = scene.write((0, 4));
    awake.write(&scene, (1, 4), By::Calls);
    for round in 1..=4 {
        let mut killed = scene.receiver(USERS[1], true, all());
        let mut victim = scene.receiver(USERS[2], true, all());
        killed.actor.start_using(killed.memory, false, true);
        victim.actor.start_using(victim.memory, false, false);
        std::thread::scope(|scope| {
            let revoked = scope.spawn(|| scene.revoke(victim.grant));
            // The cut is done; the copy of so much takes a while.
            assert_eq!(victim.actor.hear_stopped(), "E_REVOKED");
            killed.actor.kill();
            revoked.join().unwrap();
        });
        assert!(alice.advance(MORE) && awake.actor.advance(MORE), "round {round}");
        // Nobody holds this grant's right any more; what its process had mapped went with it.
        scene.revoke(killed.grant);
    }
    scene.is_whole((0, 4), &alice.stop());
    scene.is_whole((1, 4), &awake.actor.stop_writing(false));
    drop(awake);
    scene.end();
}

#[test]
fn a_forked_child_of_a_survivor_is_no_survivor() {
    let Some(scene) = Scene::set(BYTES, None) else { return };
    scene.mine().write_at(0, b"alice's").unwrap();
    let mut parent = scene.receiver(USERS[0], true, all());
    let victim = scene.receiver(USERS[1], true, all());
    let said = parent.actor.ask(&Ask::UseInFork { memory: parent.memory });
    assert!(matches!(said, Said::Started), "{said:?}");
    scene.revoke(victim.grant);
    let said = parent.actor.hear();
    assert!(matches!(said, Some(Said::Forked { signal: libc::SIGBUS })), "{said:?}");
    assert_eq!(parent.actor.read(parent.memory, 0, 7), b"alice's");
    let said = parent.actor.ask(&Ask::Write { memory: parent.memory, offset: 0, bytes: b"parents".to_vec() });
    assert!(matches!(said, Said::Done), "{said:?}");
    let mut bytes = [0; 7];
    scene.mine().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"parents");
    drop((parent, victim));
    scene.end();
}

#[test]
fn who_waits_for_one_another_goes_on_waiting_across_rotations() {
    const ROTATIONS: u32 = 20;
    /// Of the players, between two looks at whether all rotations are done.
    const ROUNDS: u64 = 500;
    let Some(scene) = Scene::set(BYTES, None) else { return };
    let mut players: Vec<_> = USERS[..2].iter().map(|&uid| scene.receiver(uid, true, all())).collect();
    let Receiver { mut actor, key, mut grant, .. } = scene.receiver(USERS[2], true, all());
    let mut from = 0;
    std::thread::scope(|scope| {
        let rotator = scope.spawn(|| {
            for _ in 0..ROTATIONS {
                scene.revoke(grant);
                let (next, token) = scene.give(&mut actor, &key, Rights::READ, all());
                actor.open(&token, Rights::READ, true);
                grant = next;
            }
        });
        while !rotator.is_finished() {
            for (player, first) in players.iter_mut().zip([true, false]) {
                player.actor.tell(&Ask::PlayTogether { memory: player.memory, first, from, rounds: ROUNDS });
            }
            for player in &mut players {
                let said = player.actor.hear();
                assert!(matches!(said, Some(Said::Played)), "{said:?}");
            }
            from += ROUNDS;
        }
        rotator.join().unwrap();
    });
    assert_eq!(scene.rotations(), ROTATIONS);
    assert_eq!(scene.mine().load_u64(COUNTER as u64).unwrap(), 2 * from, "each turn of the lock counted");
    drop((players, actor));
    scene.end();
}
