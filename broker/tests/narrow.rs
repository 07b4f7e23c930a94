//! Narrowing a grant: a part is taken back, by the rules of a revoke, and the rest lives on.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Answer, Applied, Effect, Kind, Narrowing, PolicyVerdict, Query, View};
use caps::Code;
use caps::id::GrantId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{Rest, ShareContract};
use caps::time::{Micros, UnixMicros};
use caps::wire::link::{ClaimTicket, Notice, Take};
use caps::wire::row::{EndCause, GrantRow, GrantState, Lifetime, Target};
use common::*;

/// Named by a narrowing of grant 5: nothing.
const NOTHING: Narrowing = Narrowing { grant: GrantId([5; 16]), rights: None, range: None, ttl: None };
const READ_ONLY: Narrowing = Narrowing { rights: Some(Rights::READ), ..NOTHING };

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

/// A lease of actor 1's and grant 5 of it to actor 2, read and write, to be accepted.
fn issued(world: &mut World) -> (ClaimTicket, ShareContract) {
    let ticket = world.lease(1, 2 * PAGE, 1_000);
    let contract = ShareContract {
        rights: Rights::READ_WRITE,
        range: range(0, 2 * PAGE),
        ..world.contract(&ticket, 5, 2)
    };
    world.offer(1, contract).answer.unwrap();
    world.issue(1, 5).answer.unwrap();
    (ticket, contract)
}

fn accepted(world: &mut World) -> (ClaimTicket, ShareContract) {
    let (ticket, contract) = issued(world);
    world.accept(2, &contract, Lifetime::Detached).answer.unwrap();
    (ticket, contract)
}

fn narrow(world: &mut World, n: u8, narrowing: Narrowing) -> Applied {
    world.by(n, Kind::Narrow(narrowing))
}

fn row(world: &World, n: u8) -> GrantRow {
    match world.view(n, Query::Grant(NOTHING.grant)).unwrap() {
        View::Grant(row, _) => row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_is_recorded_shown_and_told_to_the_provider() {
    let mut world = World::new();
    let (ticket, contract) = accepted(&mut world);
    let applied = narrow(&mut world, 1, READ_ONLY);
    let left = Rest { rights: Rights::READ, range: contract.range, expires: UnixMicros(START + 500) };
    assert_eq!(applied.answer, Ok(Answer::Narrowed { left, again: false }));
    let take = |left: Rest| Take::Narrow {
        lease: ticket.lease,
        grant: contract.grant,
        rights: left.rights,
        range: left.range,
        expires: left.expires,
    };
    assert_eq!(applied.effects, [Effect::Take(take(left), EndCause::Narrowed)]);
    assert_eq!(events(&applied.entries), [(Event::LeaseAttenuate, None)]);
    let entry = &applied.entries[0];
    assert_eq!((entry.get(Key::Rights), entry.get(Key::Cause)), (Some("\"r\""), Some("\"narrowed\"")));
    for key in [Key::Grant, Key::Lease, Key::Region, Key::Receiver, Key::Range, Key::Expires, Key::Subject] {
        assert!(entry.get(key).is_some(), "{key:?}");
    }

    // Again is done, told to the provider once more, and nothing new.
    let again = narrow(&mut world, 1, READ_ONLY);
    assert_eq!(again.answer, Ok(Answer::Narrowed { left, again: true }));
    assert_eq!(again.effects, applied.effects);

    // Further, by another measure, keeps what was taken before.
    let part = Narrowing { range: Some(range(0, PAGE)), ttl: Some(Micros(100)), ..NOTHING };
    let left = Rest { rights: Rights::READ, range: range(0, PAGE), expires: UnixMicros(START + 100) };
    let applied = narrow(&mut world, 0, part);
    assert_eq!(applied.answer, Ok(Answer::Narrowed { left, again: false }), "the administrator may");
    assert_eq!(applied.effects, [Effect::Take(take(left), EndCause::Narrowed)]);
    for n in [1, 2] {
        let row = row(&world, n);
        assert_eq!((row.rights, row.range, row.expires_in), (Rights::READ, range(0, PAGE), Micros(100)));
        assert_eq!((row.agreed.rights, row.agreed.range), (contract.rights, contract.range));
        assert_eq!((row.ttl, row.state), (contract.ttl, GrantState::Accepted));
    }
    let View::Grant(_, caps::share::Signed { contract: shown, by_owner, .. }) =
        world.view(2, Query::Grant(contract.grant)).unwrap()
    else {
        panic!()
    };
    assert_eq!((shown, by_owner), (contract, contract.sign(&key(1))), "what was signed is what is shown");

    // The deadline follows, and a snapshot has all of it.
    assert_eq!(world.broker.next_deadline(), Some(UnixMicros(START + 100)));
    let restored = broker::state::Broker::restore(&world.broker.snapshot()).unwrap();
    assert_eq!(restored, world.broker);
    let ended = world.tick_at(START + 100);
    assert_eq!(events(&ended.entries), [(Event::ShareEnd, None)]);
    assert_eq!(row(&world, 1).cause, Some(EndCause::Expired));
}

#[test]
fn only_narrower_and_only_by_who_may_revoke_it_for_the_receiver() {
    let mut world = World::new();
    let (_, contract) = accepted(&mut world);
    let half = Narrowing { range: Some(range(PAGE, 2 * PAGE)), ttl: Some(Micros(200)), ..READ_ONLY };
    let named =
        |rights, range, ttl: Option<u64>| Narrowing { rights, range, ttl: ttl.map(Micros), ..NOTHING };
    for (n, narrowing, expected) in [
        (3, READ_ONLY, Code::GrantUnknown),
        (4, READ_ONLY, Code::PrincipalUnknown),
        (2, READ_ONLY, Code::Denied),
        (1, Narrowing { grant: NO_GRANT, ..READ_ONLY }, Code::GrantUnknown),
        (1, NOTHING, Code::Range),
        (1, named(Some(Rights::NONE), None, None), Code::Range),
        (1, named(Some(Rights::ALL), None, None), Code::Denied),
        (1, named(None, Some(range(0, 2 * PAGE + 1)), None), Code::Range),
        (1, named(None, None, Some(0)), Code::Range),
        (1, named(None, None, Some(501)), Code::Range),
    ] {
        let refused = narrow(&mut world, n, narrowing);
        assert_eq!(code(refused.answer), Some(expected), "{n}: {narrowing:?}");
        if n != 4 {
            assert_eq!(events(&refused.entries), [(Event::LeaseAttenuate, Some(expected))]);
        }
    }
    assert_eq!(row(&world, 1).rights, contract.rights, "which changed nothing");
    narrow(&mut world, 1, half).answer.unwrap();
    // What was taken is not given again, by nobody.
    for (n, narrowing, expected) in [
        (1, named(Some(Rights::READ_WRITE), None, None), Code::Denied),
        (0, named(Some(Rights::READ_WRITE), None, None), Code::Denied),
        (1, named(Some(Rights::WRITE), None, None), Code::Denied),
        (1, named(None, Some(range(0, 2 * PAGE)), None), Code::Range),
        (1, named(None, None, Some(201)), Code::Range),
    ] {
        assert_eq!(code(narrow(&mut world, n, narrowing).answer), Some(expected), "{n}: {narrowing:?}");
    }

    // The rule of a revoke: the policy is asked, and does not stand between the administrator and it.
    let by = |n| broker::state::Actor::Principal(public(n));
    let mut command = world.command(by(1), Kind::Narrow(READ_ONLY));
    command.policy = Some(PolicyVerdict { allowed: false, rule: None, hash: genesis().policy });
    assert_eq!(code(world.apply(&command).answer), Some(Code::PolicyDenied));
    let mut command = world.command(by(0), Kind::Narrow(READ_ONLY));
    command.policy = None;
    world.apply(&command).answer.unwrap();
    // Over is over.
    world.revoke(1, Target::Grant(contract.grant)).answer.unwrap();
    assert_eq!(code(narrow(&mut world, 1, READ_ONLY).answer), Some(Code::ShareOrder));
}

#[test]
fn before_it_is_accepted_the_rest_is_what_the_token_gives() {
    let mut world = World::new();
    let (_, contract) = issued(&mut world);
    let applied =
        narrow(&mut world, 1, Narrowing { range: Some(range(0, PAGE)), ttl: Some(Micros(90)), ..READ_ONLY });
    assert!(applied.effects.is_empty(), "nobody has a token of it");
    let Answer::Accepted { grant, terms } = world.accept(2, &contract, Lifetime::Detached).answer.unwrap()
    else {
        panic!()
    };
    assert_eq!((terms.rights, terms.range, terms.expires.0), (Rights::READ, range(0, PAGE), START + 90));
    assert_eq!((grant.rights, grant.expires_in), (Rights::READ, Micros(90)));
    terms.check().unwrap();
    // One that waits for its issue has nothing to narrow yet; one that waited too long has nothing left.
    let ticket = world.lease(1, PAGE, 1_000);
    let offered = world.contract(&ticket, 6, 2);
    world.offer(1, offered).answer.unwrap();
    let early = Narrowing { grant: offered.grant, ..READ_ONLY };
    assert_eq!(code(narrow(&mut world, 1, early).answer), Some(Code::ShareOrder));
    world.now += 90;
    assert_eq!(code(narrow(&mut world, 1, READ_ONLY).answer), Some(Code::ShareOrder), "due, if not ticked");
}

/// A revoke of what was narrowed is remembered as long as the token lives, which knows nothing of the narrowing.
#[test]
fn a_revoke_after_a_narrowing_outlives_the_token() {
    let mut world = World::new();
    let (ticket, contract) = accepted(&mut world);
    narrow(&mut world, 1, Narrowing { ttl: Some(Micros(50)), ..NOTHING }).answer.unwrap();
    let ended = world.revoke(1, Target::Grant(contract.grant));
    let expires = UnixMicros(START + 500);
    let take = Take::Grant { lease: ticket.lease, grant: contract.grant, expires };
    assert_eq!(ended.effects, [Effect::Take(take, EndCause::Revoked)]);
}

/// A finding: the end of a token that a receiver had delegated, which ended before its own, ended the whole grant.
#[test]
fn the_end_of_a_delegated_token_is_not_the_end_of_its_grant() {
    let mut world = World::new();
    let (_, contract) = accepted(&mut world);
    let ended = |cause| notice(Notice::GrantEnded { grant: contract.grant, cause });
    world.now += 499;
    let told = world.system(ended(EndCause::Expired));
    assert!(told.answer.is_ok() && told.entries.is_empty());
    assert_eq!(row(&world, 2).state, GrantState::Accepted);
    world.now += 1;
    let told = world.system(ended(EndCause::Expired));
    assert_eq!(events(&told.entries), [(Event::ShareEnd, None)]);
    assert_eq!(row(&world, 2).cause, Some(EndCause::Expired));

    // Any other end is the provider's to say.
    let mut world = World::new();
    accepted(&mut world);
    world.system(ended(EndCause::HolderExit)).answer.unwrap();
    assert_eq!(row(&world, 2).cause, Some(EndCause::HolderExit));
}
