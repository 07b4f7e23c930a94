//! The act in which one of three is revoked while all write.

use caps::error::Result;
use caps::key::SigningKey;

use super::script::{Line, Role};
use super::stage::{Actor, Stage};
use super::writer::BOARD_BYTES;
use super::{Teller, started, unexpected};

/// Plays it: alice, the owner, bob and carol write, and bob is revoked.
pub(super) fn play(t: &mut Teller, stage: &Stage, keys: [&SigningKey; 3]) -> Result<()> {
    let [mut alice, mut bob, mut carol] = {
        let enter = |user: usize| stage.enter(Role::Writer, user, keys[user]);
        [enter(0)?, enter(1)?, enter(2)?]
    };
    alice.say(&Line::Lease { bytes: BOARD_BYTES })?;
    let lease = match alice.hear()? {
        Line::Leased { lease, .. } => lease,
        other => return unexpected(&other),
    };
    let grant = share(&mut alice, &mut bob, keys[1])?;
    share(&mut alice, &mut carol, keys[2])?;
    for (part, writer) in [&mut alice, &mut bob, &mut carol].into_iter().enumerate() {
        writer.say(&Line::Write { part: part as u64 })?;
        started(writer)?;
    }
    t.tell(
        true,
        "alice, bob and carol, three processes, write to one region of 3 MiB, each as fast as it can".into(),
    )?;

    alice.say(&Line::RevokeGrant { grant })?;
    let dead_us = match alice.hear()? {
        Line::Revoked { dead_us, .. } => dead_us,
        other => return unexpected(&other),
    };
    bob.say(&Line::AwaitRefusal)?;
    let (written, code) = match bob.hear()? {
        Line::Wrote { added, code, .. } => (added, code),
        other => return unexpected(&other),
    };
    t.tell(
        code == "E_REVOKED",
        format!("alice revokes bob while all write: dead after {dead_us} us; bob, {written} words on, is told {code}"),
    )?;

    let (mut words, mut all, mut longest) = (0, 0, 0);
    for writer in [&mut alice, &mut carol] {
        writer.say(&Line::StopWriting)?;
        match writer.hear()? {
            Line::Wrote { added, found, longest_us, code } if code == "OK" => {
                (words, all, longest) = (words + added, all + found, longest.max(longest_us));
            }
            other => return unexpected(&other),
        }
    }
    t.tell(
        words == all,
        format!(
            "alice and carol went on after at most {longest} us: {words} words written, {all} found, {} lost",
            words.abs_diff(all)
        ),
    )?;
    alice.say(&Line::Revoke { lease })?;
    match alice.hear()? {
        Line::Revoked { .. } => {}
        other => return unexpected(&other),
    }
    [alice, bob, carol].iter_mut().try_for_each(Actor::leave)
}

fn share(owner: &mut Actor, receiver: &mut Actor, key: &SigningKey) -> Result<caps::id::GrantId> {
    owner.say(&Line::OfferToWrite { to: key.public() })?;
    let grant = match owner.hear()? {
        Line::Offered { grant } => grant,
        other => return unexpected(&other),
    };
    receiver.say(&Line::Accept { grant })?;
    match receiver.hear()? {
        Line::Accepted { .. } => Ok(grant),
        other => unexpected(&other),
    }
}
