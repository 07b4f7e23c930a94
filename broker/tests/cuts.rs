//! Revoking below a grant: who may, what the provider is told, what the log says, and what room there is.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Answer, Broker, Effect, Kind, Query, TokenCut, View};
use caps::Code;
use caps::id::{GrantId, LeaseId};
use caps::range::ByteRange;
use caps::time::UnixMicros;
use caps::token::{Mark, RevocationId};
use caps::wire::Reason;
use caps::wire::link::Take;
use caps::wire::row::{GrantState, Target};
use common::*;
use policy::limits::{MARKS_OF_DELEGATES_MAX, MARKS_PER_REGION_MAX};

fn id(n: u64) -> RevocationId {
    let mut id = RevocationId([0; 64]);
    id.0[..8].copy_from_slice(&n.to_le_bytes());
    id
}

fn cut(lease: LeaseId, grant: Option<GrantId>, n: u64, held: bool) -> TokenCut {
    TokenCut {
        lease,
        grant,
        id: id(n),
        marks: [Some(Mark::signature(&id(n))), Some(Mark::signature(&id(n + 1_000_000)))],
        range: ByteRange::new(0, 10).ok(),
        not_before: UnixMicros(START),
        until: UnixMicros(START + 500),
        held,
        reason: Reason::new("why").unwrap(),
    }
}

fn grant_state(world: &World, grant: GrantId) -> Option<GrantState> {
    match world.view(0, Query::Grant(grant)) {
        Ok(View::Grant(row, _)) => Some(row.state),
        _ => None,
    }
}

/// Alice's lease, shared with bob.
fn setup() -> (World, LeaseId, GrantId) {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.accepted(&ticket, 5);
    (world, ticket.lease, contract.grant)
}

#[test]
fn a_block_is_revoked_by_whose_it_is_and_by_who_held_it() {
    // Administrator, owner, receiver, a holder who is registered, and one who is not.
    for (by, held) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
        let (mut world, lease, grant) = setup();
        let cut = cut(lease, Some(grant), 7, held);
        let revoked = world.by(by, Kind::RevokeToken(cut.clone()));
        assert_eq!(revoked.answer.unwrap(), Answer::Ending { leases: vec![] }, "{by}");
        let take = Take::Marks {
            lease,
            marks: cut.marks,
            grant: Some(grant),
            range: cut.range.unwrap(),
            expires: cut.until,
        };
        assert_eq!(marked(&revoked.effects), [take]);
        assert_eq!(takes(&revoked.effects), 0);
        assert_eq!(events(&revoked.entries), [(Event::LeaseRevoke, None)]);
        assert_eq!(revoked.entries[0].get(Key::RevocationId), Some(&*format!("\"{}\"", cut.id)));
        assert_eq!(revoked.entries[0].get(Key::Subject), Some(&*format!("\"{}\"", public(by))));
        assert_eq!(grant_state(&world, grant), Some(GrantState::Accepted), "the grant lives on");
        // Once more, the provider is told again, and the log that nothing was new.
        let again = world.by(by, Kind::RevokeToken(cut));
        assert_eq!(again.answer.unwrap(), Answer::EndedBefore { leases: vec![] });
        assert_eq!(marked(&again.effects), [take]);
        assert_eq!(again.entries[0].get(Key::Count), Some("\"0\""));
        // A copy of the state knows it, too.
        let copy = Broker::restore(&world.broker.snapshot()).unwrap();
        assert_eq!(copy, world.broker);
    }
    let (mut world, lease, grant) = setup();
    for (by, expected) in [(3, Code::Denied), (4, Code::PrincipalUnknown)] {
        let refused = world.by(by, Kind::RevokeToken(cut(lease, Some(grant), 7, false)));
        assert_eq!(code(refused.answer), Some(expected));
        assert_eq!(events(&refused.entries), [(Event::LeaseDeny, Some(expected))]);
        assert!(refused.effects.is_empty());
    }
    let refused = world.by(2, Kind::RevokeToken(cut(NO_LEASE, None, 7, true)));
    assert_eq!(code(refused.answer), Some(Code::LeaseUnknown));
    for by in [2, 3] {
        let by_id = world.revoke(by, Target::Block { lease, id: id(7) });
        assert_eq!(code(by_id.answer), Some(Code::LeaseUnknown), "by its id alone it is the owner's");
    }
    // A grant of another lease is none of this one, whoever says so: else room that is full would cost it.
    let other = world.lease(1, PAGE, 1_000);
    let foreign = world.accepted(&other, 6).grant;
    for (by, held) in [(0, true), (1, false), (2, false), (4, true)] {
        for grant in [foreign, GrantId([0xee; 16])] {
            let refused = world.by(by, Kind::RevokeToken(cut(lease, Some(grant), 7, held)));
            assert_eq!((code(refused.answer), refused.effects.len()), (Some(Code::GrantUnknown), 0), "{by}");
            assert_eq!(grant_state(&world, foreign), Some(GrantState::Accepted));
        }
    }
    let by_id = world.revoke(1, Target::Block { lease, id: id(7) });
    assert!(matches!(
        marked(&by_id.effects)[..],
        [Take::Marks { grant: None, expires: UnixMicros::MAX, .. }]
    ));
}

#[test]
fn what_is_over_is_nothing_to_take() {
    let (mut world, lease, grant) = setup();
    let late = TokenCut { until: UnixMicros(START), ..cut(lease, Some(grant), 7, true) };
    let nothing = world.by(2, Kind::RevokeToken(late));
    assert_eq!((nothing.answer.unwrap(), nothing.effects.len()), (Answer::EndedBefore { leases: vec![] }, 0));
    world.revoke(1, Target::Grant(grant)).answer.unwrap();
    let nothing = world.by(2, Kind::RevokeToken(cut(lease, Some(grant), 7, true)));
    assert_eq!((nothing.answer.unwrap(), nothing.effects.len()), (Answer::EndedBefore { leases: vec![] }, 0));
    // Memory that is going back is waited for.
    world.revoke(1, Target::Lease(lease)).answer.unwrap();
    let nothing = world.by(2, Kind::RevokeToken(cut(lease, Some(grant), 8, true)));
    assert_eq!(nothing.answer.unwrap(), Answer::EndedBefore { leases: vec![lease] });
    assert_eq!(takes(&nothing.effects), 1);
}

#[test]
fn a_delegate_is_taken_off_every_lease_of_the_one_who_asks() {
    let (mut world, lease, _) = setup();
    let other = world.lease(2, PAGE, 1_000).lease;
    let mark = |lease| Take::Marks {
        lease,
        marks: [Some(Mark::delegate(public(4))), None],
        grant: None,
        range: ByteRange::new(0, PAGE).unwrap(),
        expires: UnixMicros::MAX,
    };
    let revoked = world.revoke(1, Target::Holder(public(4)));
    assert_eq!(revoked.answer.unwrap(), Answer::Ending { leases: vec![] });
    assert_eq!(marked(&revoked.effects), [mark(lease)]);
    assert_eq!(revoked.entries[0].get(Key::Holder), Some(&*format!("\"{}\"", public(4))));
    let again = world.revoke(1, Target::Holder(public(4)));
    assert_eq!(again.answer.unwrap(), Answer::EndedBefore { leases: vec![] });
    // The administrator's are all, and only one of them is new.
    let all = world.revoke(0, Target::Holder(public(4)));
    let mut told = marked(&all.effects);
    told.sort_by_key(|take| *take != mark(lease));
    assert_eq!(told, [mark(lease), mark(other)]);
    assert_eq!(all.entries[0].get(Key::Count), Some("\"1\""));
    assert_eq!(code(world.revoke(3, Target::Holder(public(4))).answer), Some(Code::PrincipalUnknown));
}

#[test]
fn a_delegate_of_what_is_going_back_is_not_taken_off_before_it_is_back() {
    let lease_takes = |world: &mut World, by, target| {
        let revoked = world.revoke(by, target);
        revoked.answer.unwrap();
        let takes = revoked.effects.iter().filter_map(|effect| match effect {
            Effect::Take(Take::Lease(lease), _) => Some(*lease),
            _ => None,
        });
        takes.collect::<Vec<_>>()
    };
    for by in [0, 1] {
        let (mut world, lease, _) = setup();
        world.revoke(1, Target::Lease(lease)).answer.unwrap();
        assert_eq!(lease_takes(&mut world, by, Target::Holder(public(3))), [lease], "revoked");
        world.system(Kind::Taken { lease }).answer.unwrap();
        assert_eq!(lease_takes(&mut world, 0, Target::Holder(public(3))), [], "and it is back");

        let (mut world, lease, _) = setup();
        world.tick_at(START + 1_000).answer.unwrap();
        assert_eq!(lease_takes(&mut world, by, Target::Holder(public(3))), [lease], "over in the books");
        // Also by whoever asks before its tick.
        let (mut world, lease, _) = setup();
        world.now = START + 1_000;
        assert_eq!(lease_takes(&mut world, by, Target::Holder(public(3))), [lease]);
    }
    // Nobody has a token of a reservation.
    let mut world = World::new();
    let lease = world.reserve(1, spec(PAGE, 500)).unwrap().lease;
    world.system(Kind::Abandon { lease }).answer.unwrap();
    assert_eq!(lease_takes(&mut world, 0, Target::Holder(public(3))), []);
}

#[test]
fn the_room_is_the_owner_s_and_what_does_not_fit_ends_something_larger() {
    let fill = |world: &mut World, lease, from: usize, to: usize| {
        for n in from..to {
            world.revoke(1, Target::Block { lease, id: id(n as u64) }).answer.unwrap();
        }
    };
    let (mut world, lease, grant) = setup();
    fill(&mut world, lease, 0, MARKS_OF_DELEGATES_MAX - 1);
    let refused = world.by(4, Kind::RevokeToken(cut(lease, Some(grant), 9_000, true)));
    assert_eq!(code(refused.answer), Some(Code::Quota), "two marks, and room for one");
    let party = world.by(2, Kind::RevokeToken(cut(lease, Some(grant), 9_000, true)));
    assert_eq!(party.answer.unwrap(), Answer::Ending { leases: vec![] });
    assert_eq!((takes(&party.effects), marked(&party.effects).len()), (1, 0));
    assert_eq!(grant_state(&world, grant), Some(GrantState::Ended), "the grant went instead");

    let (mut world, lease, grant) = setup();
    fill(&mut world, lease, 0, MARKS_PER_REGION_MAX);
    let owner = world.by(1, Kind::RevokeToken(cut(lease, Some(grant), 9_000, false)));
    assert_eq!(takes(&owner.effects), 1);
    assert_eq!(grant_state(&world, grant), Some(GrantState::Ended));
    let known = world.revoke(1, Target::Block { lease, id: id(3) });
    assert_eq!(known.answer.unwrap(), Answer::EndedBefore { leases: vec![] });
    let whole = world.revoke(1, Target::Holder(public(4)));
    assert_eq!(whole.answer.unwrap(), Answer::Ending { leases: vec![lease] }, "nobody is left by halves");
}
