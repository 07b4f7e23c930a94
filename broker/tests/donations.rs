//! Quota that is lent: what a client gives, its server leases with, and nobody has twice.

mod common;

use std::collections::BTreeMap;

use audit::draft::Key;
use audit::{Draft, Event};
use broker::state::{
    Actor, Answer, Applied, Broker, Genesis, Kind, PolicyVerdict, Query, TransferAcceptance, Undo, View,
};
use caps::id::{DonationId, TransferId};
use caps::share::TransferContract;
use caps::time::{Micros, UnixMicros};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::row::{DonationRow, DonationState, Lifetime, QuotaRow};
use caps::{Code, Result};
use common::*;
use policy::Quota;

/// What Alice and Bob may each lease.
const OWN: u64 = 8 * PAGE;

fn id(n: u8) -> DonationId {
    DonationId([n; 16])
}

fn kind(n: u8, to: u8, bytes: u64, ttl: u64) -> Kind {
    Kind::QuotaGive { id: id(n), to: public(to), bytes, ttl: Micros(ttl) }
}

fn give(world: &mut World, by: u8, to: u8, n: u8, bytes: u64) -> Applied {
    world.by(by, kind(n, to, bytes, 1_000))
}

fn donated(applied: Applied) -> (DonationRow, bool) {
    match applied.answer.unwrap() {
        Answer::Donated { row, again } => (row, again),
        other => panic!("{other:?}"),
    }
}

fn take_back(world: &mut World, by: u8, n: u8) -> Applied {
    world.by(by, Kind::QuotaTakeBack { id: id(n) })
}

fn quota(world: &World, n: u8) -> (QuotaRow, Vec<DonationRow>) {
    match world.view(n, Query::Quota(None)).unwrap() {
        View::Quota(quota, page) => {
            assert!(!page.more);
            (quota, page.rows)
        }
        other => panic!("{other:?}"),
    }
}

fn free(world: &World, n: u8) -> u64 {
    quota(world, n).0.free_bytes
}

/// Reserves and commits, or is refused.
fn try_lease(world: &mut World, n: u8, bytes: u64) -> Result<caps::id::LeaseId> {
    let ticket = world.reserve(n, spec(bytes, 9_000))?;
    world.system(Kind::Commit { lease: ticket.lease, bytes: ticket.bytes }).answer.unwrap();
    Ok(ticket.lease)
}

fn field(draft: &Draft, key: Key) -> &str {
    draft.get(key).unwrap_or("none")
}

fn causes(entries: &[Draft]) -> Vec<&str> {
    entries.iter().map(|draft| field(draft, Key::Cause).trim_matches('"')).collect()
}

#[test]
fn a_server_leases_with_its_client_s_quota_and_the_client_has_it_back_when_the_server_released() {
    let mut world = World::new();
    assert_eq!(code(try_lease(&mut world, 2, OWN + PAGE)), Some(Code::Quota));
    let applied = give(&mut world, 1, 2, 1, 3 * PAGE);
    let [entry] = &applied.entries[..] else { panic!("{applied:?}") };
    assert_eq!((entry.event(), field(entry, Key::Cause)), (Event::ConfigLoad, "\"quota\""));
    for (key, value) in [
        (Key::Subject, format!("\"{}\"", public(1))),
        (Key::Receiver, format!("\"{}\"", public(2))),
        (Key::Donation, format!("\"{}\"", id(1))),
        (Key::Bytes, format!("\"{}\"", 3 * PAGE)),
        (Key::TtlUs, "\"1000\"".to_owned()),
    ] {
        assert_eq!(field(entry, key), value);
    }
    assert_ne!(field(entry, Key::Expires), "none");
    let (row, again) = donated(applied);
    assert_eq!((row.bytes, row.lent, row.state, again), (3 * PAGE, 3 * PAGE, DonationState::Given, false));
    assert_eq!((free(&world, 1), free(&world, 2)), (5 * PAGE, 11 * PAGE));
    assert_eq!(quota(&world, 1).1, quota(&world, 2).1);
    assert!(quota(&world, 3).1.is_empty(), "a donation concerns two");
    assert_eq!(quota(&world, 0).1.len(), 1, "and the administrator");

    let big = try_lease(&mut world, 2, OWN + PAGE).unwrap();
    let small = try_lease(&mut world, 2, PAGE).unwrap();
    assert_eq!(code(try_lease(&mut world, 1, 6 * PAGE)), Some(Code::Quota), "the client pays");
    let ended = world.tick_at(START + 1_000);
    assert_eq!(causes(&ended.entries), ["quota_expired"]);
    assert_eq!(field(&ended.entries[0], Key::Used), format!("\"{}\"", 2 * PAGE));
    assert_eq!((free(&world, 1), free(&world, 2)), (6 * PAGE, 0), "what is used stays lent");
    assert_eq!(code(try_lease(&mut world, 2, PAGE)), Some(Code::Quota), "nothing more is leased with it");
    assert!(world.broker.next_deadline().is_none_or(|at| at.0 > START + 1_000), "it waits for no time");

    // A page of the two is back when a page is released and no longer resident beyond the receiver's own.
    let released = world.by(2, Kind::Release { lease: small });
    assert!(!causes(&released.entries).contains(&"quota_returned"));
    assert_eq!(free(&world, 1), 7 * PAGE);
    assert_eq!(code(try_lease(&mut world, 2, PAGE)), Some(Code::Quota));
    let released = world.by(2, Kind::Release { lease: big });
    assert!(causes(&released.entries).contains(&"quota_returned"), "{released:?}");
    assert_eq!(free(&world, 1), OWN);
    assert!(quota(&world, 2).1.is_empty());
    for lease in [small, big] {
        world.system(Kind::Taken { lease }).answer.unwrap();
    }
    assert_eq!(free(&world, 2), OWN);
}

#[test]
fn what_is_over_is_not_leased_with_even_before_the_node_has_noticed() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    world.now += 1_000;
    assert_eq!(code(try_lease(&mut world, 2, OWN + 1)), Some(Code::Quota));
    let (quota, rows) = quota(&world, 2);
    assert_eq!((quota.free_bytes, rows[0].state), (OWN, DonationState::Returning));
}

#[test]
fn of_two_gifts_that_each_fit_but_not_both_one_is_made() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, 5 * PAGE).answer.unwrap();
    let refused = give(&mut world, 1, 3, 2, 5 * PAGE);
    assert_eq!(code(refused.answer), Some(Code::Quota));
    assert_eq!(events(&refused.entries), [(Event::QuotaDeny, Some(Code::Quota))]);
    assert_eq!(field(&refused.entries[0], Key::Donation), format!("\"{}\"", id(2)));
    give(&mut world, 1, 3, 2, 3 * PAGE).answer.unwrap();
    assert_eq!(code(give(&mut world, 1, 3, 3, 1).answer), Some(Code::Quota), "not a byte more");
}

#[test]
fn asked_again_it_gives_once() {
    let mut world = World::new();
    let first = donated(give(&mut world, 1, 2, 1, PAGE)).0;
    let again = give(&mut world, 1, 2, 1, PAGE);
    assert_eq!(field(&again.entries[0], Key::Count), "\"0\"");
    assert_eq!(donated(again), (first, true));
    assert_eq!(free(&world, 2), OWN + PAGE);
    for other in [kind(1, 2, PAGE + 1, 1_000), kind(1, 2, PAGE, 1_001), kind(1, 3, PAGE, 1_000)] {
        assert_eq!(code(world.by(1, other).answer), Some(Code::Exists));
    }
    assert_eq!(code(give(&mut world, 3, 2, 1, PAGE).answer), Some(Code::Exists), "of somebody else");

    // Taken back twice while it is used: the second finds it as the first left it.
    let lease = try_lease(&mut world, 2, OWN + PAGE).unwrap();
    let (row, again) = donated(take_back(&mut world, 1, 1));
    assert_eq!(
        (row.lent, row.state, row.expires_in, again),
        (PAGE, DonationState::Returning, Micros(0), false)
    );
    assert_eq!(donated(take_back(&mut world, 1, 1)), (row, true));
    // Nothing is given anew under an id whose gift is over and still used, and nobody is told that it was.
    let refused = give(&mut world, 1, 2, 1, PAGE).answer.unwrap_err();
    assert_eq!((refused.code(), refused.detail()), (Code::Exists, "this donation was made and is over"));
    world.by(2, Kind::Release { lease }).answer.unwrap();
    assert_eq!(code(take_back(&mut world, 1, 1).answer), Some(Code::DonationUnknown));
    // What nobody used is back at once.
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    assert_eq!(donated(take_back(&mut world, 1, 1)).0.lent, 0);
    assert_eq!(free(&world, 1), OWN);
}

#[test]
fn the_administrator_may_end_what_others_gave_and_the_log_says_who_did() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    for n in [2, 3] {
        assert_eq!(code(take_back(&mut world, n, 1).answer), Some(Code::DonationUnknown), "by {n}");
    }
    let lease = try_lease(&mut world, 2, OWN + PAGE).unwrap();
    let ended = take_back(&mut world, 0, 1);
    assert_eq!(causes(&ended.entries), ["quota_taken_back"]);
    for (key, n) in [(Key::Subject, 0), (Key::Owner, 1), (Key::Receiver, 2)] {
        assert_eq!(field(&ended.entries[0], key), format!("\"{}\"", public(n)));
    }
    let (row, again) = donated(ended);
    assert_eq!((row.giver, row.lent, row.state, again), (public(1), PAGE, DonationState::Returning, false));
    let asked_again = take_back(&mut world, 0, 1);
    assert_eq!(field(&asked_again.entries[0], Key::Subject), format!("\"{}\"", public(0)));
    assert_eq!(donated(asked_again), (row, true));
    world.by(2, Kind::Release { lease }).answer.unwrap();
    assert_eq!(free(&world, 1), OWN);
}

/// A lease that was drawn from a gift goes to the giver, to a third, and back.
#[test]
fn a_lease_that_is_handed_over_takes_no_quota_with_it() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, 2 * PAGE).answer.unwrap();
    try_lease(&mut world, 2, OWN - PAGE).unwrap();
    let ticket = world.lease(2, 3 * PAGE, 9_000);
    take_back(&mut world, 1, 1).answer.unwrap();
    assert_eq!((free(&world, 1), free(&world, 2)), (OWN - 2 * PAGE, 0));

    // The receiver owes nothing once the giver has the lease: the gift is back by the same command.
    let done = hand_over(&mut world, &ticket, 1, 2, 1).unwrap();
    assert_eq!(causes(&done.entries).iter().filter(|cause| **cause == "quota_returned").count(), 1);
    assert!(quota(&world, 2).1.is_empty());
    assert_eq!((free(&world, 1), free(&world, 2)), (OWN - 3 * PAGE, PAGE));

    // A third has no room for it but by a gift, which it draws on from then on.
    assert_eq!(code(hand_over(&mut world, &ticket, 2, 1, 3)), Some(Code::Quota));
    give(&mut world, 0, 3, 2, 3 * PAGE).answer.unwrap();
    hand_over(&mut world, &ticket, 3, 1, 3).unwrap().answer.unwrap();
    assert_eq!((free(&world, 0), free(&world, 1)), (OWN - 3 * PAGE, OWN));
    take_back(&mut world, 0, 2).answer.unwrap();
    let owed = quota(&world, 3).0.received_bytes;
    assert!(owed > 0, "what it holds beyond its own stays lent");

    // And back, where the first receiver has no room for it any more but by a new gift.
    assert_eq!(code(hand_over(&mut world, &ticket, 4, 3, 2)), Some(Code::Quota));
    assert_eq!(quota(&world, 3).0.received_bytes, owed);
    give(&mut world, 1, 2, 3, 2 * PAGE).answer.unwrap();
    let done = hand_over(&mut world, &ticket, 5, 3, 2).unwrap();
    assert!(causes(&done.entries).contains(&"quota_returned"));
    assert_eq!((free(&world, 0), free(&world, 1), free(&world, 2)), (OWN, OWN - 2 * PAGE, 0));
}

/// Offered, accepted and done; an acceptance that is refused leaves the offer withdrawn. The last step is returned.
fn hand_over(world: &mut World, ticket: &ClaimTicket, n: u8, from: u8, to: u8) -> Result<Applied> {
    let transfer = TransferId([n; 16]);
    let contract = TransferContract {
        cluster: genesis().cluster,
        transfer,
        lease: ticket.lease,
        region: ticket.region,
        from: public(from),
        to: public(to),
        ttl: Micros(500),
    };
    let signature = contract.sign(&key(from));
    world.by(from, Kind::TransferOffer { contract, signature }).answer.unwrap();
    let (signature, lifetime, session) = (contract.sign(&key(to)), Lifetime::Detached, u64::from(to));
    let acceptance = TransferAcceptance { transfer, signature, lifetime, session };
    let since = match world.by(to, Kind::TransferAccept(acceptance)).answer {
        Ok(Answer::HandingOver { give: Take::Owner { since, .. }, .. }) => since,
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            world.by(from, Kind::TransferWithdraw { transfer }).answer.unwrap();
            return Err(error);
        }
    };
    let done = world.system(Kind::TransferDone { transfer, since });
    done.answer.clone().map(|_| done)
}

#[test]
fn hostile_gifts_are_refused_and_change_nothing() {
    let mut world = World::new();
    give(&mut world, 2, 1, 9, PAGE).answer.unwrap();
    let before = (quota(&world, 1), quota(&world, 2), quota(&world, 3));
    for (kind, expected) in [
        (kind(1, 1, PAGE, 1_000), Code::Range),
        (kind(1, 2, 0, 1_000), Code::Range),
        (kind(1, 2, u64::MAX, 1_000), Code::Quota),
        (kind(1, 2, OWN + 1, 1_000), Code::Quota),
        (kind(1, 2, PAGE, 9), Code::Range),
        (kind(1, 2, PAGE, 10_001), Code::Range),
        (kind(1, 2, PAGE, u64::MAX), Code::Range),
        (kind(1, 4, PAGE, 1_000), Code::PrincipalUnknown),
        (Kind::QuotaTakeBack { id: id(9) }, Code::DonationUnknown),
        (Kind::QuotaTakeBack { id: id(1) }, Code::DonationUnknown),
    ] {
        assert_eq!(code(world.by(1, kind.clone()).answer), Some(expected), "{kind:?}");
    }
    assert_eq!(code(world.by(4, kind(1, 1, PAGE, 1_000)).answer), Some(Code::PrincipalUnknown));
    assert_eq!(code(world.system(kind(1, 1, PAGE, 1_000)).answer), Some(Code::Protocol));
    for policy in [None, Some(PolicyVerdict { allowed: false, ..allowed() })] {
        let mut command = world.command(Actor::Principal(public(1)), kind(1, 2, PAGE, 1_000));
        command.policy = policy;
        assert_eq!(code(world.apply(&command).answer), Some(Code::PolicyDenied));
    }
    assert_eq!((quota(&world, 1), quota(&world, 2), quota(&world, 3)), before);
    assert_eq!(code(world.view(4, Query::Quota(None))), Some(Code::PrincipalUnknown));
}

#[test]
fn one_giver_leaves_rows_for_others() {
    let mut world = World::new();
    for n in 0..3 {
        give(&mut world, 1, 2, n, 1).answer.unwrap();
    }
    assert_eq!(code(give(&mut world, 1, 2, 3, 1).answer), Some(Code::Quota));
    give(&mut world, 2, 1, 4, 1).answer.unwrap();
    assert_eq!(code(give(&mut world, 3, 1, 5, 1).answer), Some(Code::Busy), "the table of four is full");
    take_back(&mut world, 1, 0).answer.unwrap();
    give(&mut world, 3, 1, 5, 1).answer.unwrap();
}

#[test]
fn what_was_received_is_not_passed_on() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, OWN).answer.unwrap();
    assert_eq!(quota(&world, 2).0.giveable_bytes, OWN, "one's own, and nothing of the gift");
    assert_eq!(code(give(&mut world, 2, 3, 2, OWN + 1).answer), Some(Code::Quota));
    // Who has given draws on nothing that was given to it.
    give(&mut world, 2, 3, 2, PAGE).answer.unwrap();
    assert_eq!(free(&world, 2), OWN - PAGE);
    assert_eq!(code(try_lease(&mut world, 2, OWN)), Some(Code::Quota));
    take_back(&mut world, 2, 2).answer.unwrap();
    try_lease(&mut world, 2, OWN + PAGE).unwrap();
    // And who draws on what was given to it has nothing to give.
    assert_eq!(code(give(&mut world, 2, 3, 2, 1).answer), Some(Code::Quota));
}

#[test]
fn a_new_gift_takes_the_place_of_one_that_is_over() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    try_lease(&mut world, 2, OWN + PAGE).unwrap();
    take_back(&mut world, 1, 1).answer.unwrap();
    assert_eq!(free(&world, 1), OWN - PAGE);
    let given = give(&mut world, 0, 2, 2, PAGE);
    assert_eq!(causes(&given.entries), ["quota", "quota_returned"]);
    assert_eq!((free(&world, 1), free(&world, 2)), (OWN, 0));
}

#[test]
fn what_could_not_be_recorded_is_undone() {
    let mut world = World::new();
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    let undone = world.system(Kind::Undo(Undo::QuotaGive { id: id(1) }));
    assert_eq!(events(&undone.entries), [(Event::ConfigLoad, Some(Code::AuditUnavailable))]);
    assert_eq!((free(&world, 1), free(&world, 2)), (OWN, OWN));
    // Meanwhile it may have been used.
    give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
    let lease = try_lease(&mut world, 2, OWN + PAGE).unwrap();
    world.system(Kind::Undo(Undo::QuotaGive { id: id(1) })).answer.unwrap();
    assert_eq!((free(&world, 1), free(&world, 2)), (OWN - PAGE, 0));
    world.by(2, Kind::Release { lease }).answer.unwrap();
    assert_eq!(free(&world, 1), OWN);
}

#[test]
fn a_party_that_leaves_ends_its_gifts_and_goes_when_they_are_back() {
    for leaver in [1, 2] {
        let mut world = World::new();
        give(&mut world, 1, 2, 1, PAGE).answer.unwrap();
        give(&mut world, 1, 3, 2, PAGE).answer.unwrap();
        let lease = try_lease(&mut world, 2, OWN + PAGE).unwrap();
        let left = world.system(Kind::Undo(Undo::PrincipalAdd { key: public(leaver) }));
        let over = causes(&left.entries).into_iter().filter(|cause| *cause == "quota_party_left").count();
        assert_eq!(over, if leaver == 1 { 2 } else { 1 });
        let registered = |world: &World| {
            let View::Principals(page) = world.view(0, Query::Principals(None)).unwrap() else { panic!() };
            page.rows.iter().any(|row| row.key == public(leaver))
        };
        assert!(registered(&world), "it is owed a page, or owes one");
        if leaver == 1 {
            world.by(2, Kind::Release { lease }).answer.unwrap();
        } else {
            world.system(Kind::Taken { lease }).answer.unwrap();
            assert_eq!(free(&world, 1), OWN - PAGE, "the gift to the one that stays");
        }
        assert!(!registered(&world));
    }
}

#[test]
fn a_limit_above_the_pool_is_worth_the_pool() {
    let quotas = BTreeMap::from([(name("alice"), Quota::UNLIMITED)]);
    let mut world = World::new();
    world.broker = Broker::new(Genesis { quotas, ..genesis() }).unwrap();
    for (n, text) in [(1, "alice"), (2, "bob")] {
        world.by(0, Kind::PrincipalAdd { name: name(text), key: public(n) }).answer.unwrap();
    }
    let pool = genesis().bounds.pool_bytes;
    try_lease(&mut world, 1, PAGE).unwrap();
    assert_eq!(code(give(&mut world, 1, 2, 1, pool).answer), Some(Code::Quota));
    give(&mut world, 1, 2, 1, pool - PAGE).answer.unwrap();
    assert_eq!(free(&world, 1), 0, "it pays, too");
    assert_eq!(code(try_lease(&mut world, 1, PAGE)), Some(Code::Quota));
    // To somebody without a limit nothing can be added.
    give(&mut world, 2, 1, 2, PAGE).answer.unwrap();
    assert_eq!(quota(&world, 1).0.limit_bytes, u64::MAX);
    assert_eq!(Broker::restore(&world.broker.snapshot()).unwrap(), world.broker);
    world.tick_at(START + 1_000).answer.unwrap();
    assert_eq!(quota(&world, 1).0.received_bytes, 0);
}

#[test]
fn the_list_goes_page_by_page_and_shows_each_its_own() {
    let mut world = World::new();
    for (by, to, n) in [(1, 2, 1), (2, 1, 2), (3, 1, 3), (2, 3, 4)] {
        give(&mut world, by, to, n, 1).answer.unwrap();
    }
    let ids = |n, after: Option<u8>| match world.broker.query(
        public(n),
        &Query::Quota(after.map(id)),
        UnixMicros(world.now),
    ) {
        Ok(View::Quota(_, page)) => page.rows.iter().map(|row| row.id.0[0]).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(1, None), [1, 2, 3]);
    assert_eq!(ids(1, Some(1)), [2, 3]);
    assert_eq!(ids(3, None), [3, 4]);
    assert_eq!(ids(0, Some(2)), [3, 4]);
}
