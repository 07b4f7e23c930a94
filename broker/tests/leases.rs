//! Leases from reservation to the last byte back, and every refusal on the way.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Actor, Answer, Effect, Kind, PolicyVerdict, Query, Undo, View};
use caps::Code;
use caps::id::ProviderId;
use caps::time::Micros;
use caps::wire::link::{Notice, Take};
use caps::wire::provider::Load;
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, LeaseState, Lifetime, Target};
use common::*;

fn row(world: &World, lease: caps::id::LeaseId) -> caps::wire::row::LeaseRow {
    match world.view(0, Query::Lease(lease)).unwrap() {
        View::Lease(row) => row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_is_reserved_committed_released_and_returned() {
    let mut world = World::new();
    let reserved = world.by(1, Kind::Reserve { spec: spec(1, 1_000), session: 9 });
    assert_eq!(events(&reserved.entries), [(Event::LeaseOffer, None)]);
    let Answer::Reserved(ticket, _) = reserved.answer.unwrap() else { panic!() };
    assert_eq!((ticket.bytes, ticket.ttl), (PAGE, Micros(1_000)), "whole pages");
    assert_eq!(ticket.claim_by.0, START + 100);
    assert_eq!(world.status().leased_bytes, PAGE);
    assert_eq!(row(&world, ticket.lease).state, LeaseState::Reserved);

    world.now += 50;
    let committed = world.system(Kind::Commit { lease: ticket.lease, bytes: PAGE });
    assert_eq!(events(&committed.entries), [(Event::LeaseGrant, None)]);
    let Answer::Leased { lease, terms, .. } = committed.answer.unwrap() else { panic!() };
    assert_eq!((lease.state, lease.expires_in), (LeaseState::Live, Micros(1_000)), "counted from the commit");
    assert_eq!((terms.not_before.0, terms.expires.0), (world.now, world.now + 1_000));
    assert_eq!((terms.holder, terms.lease, terms.region), (public(1), ticket.lease, ticket.region));
    assert_eq!(world.used(1), (1, PAGE));

    let released = world.by(1, Kind::Release { lease: ticket.lease });
    assert_eq!(events(&released.entries), [(Event::LeaseRelease, None)]);
    assert_eq!(released.answer.unwrap(), Answer::Ending { leases: vec![ticket.lease] });
    assert_eq!(released.effects, [Effect::Take(Take::Lease(ticket.lease), EndCause::Released)]);
    assert_eq!(row(&world, ticket.lease).state, LeaseState::Ending);

    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    let ended = row(&world, ticket.lease);
    assert_eq!((ended.state, ended.cause), (LeaseState::Ended, Some(EndCause::Released)));
    assert_eq!((world.used(1), world.status().leased_bytes), ((0, 0), 0));
    assert_eq!(world.broker.next_deadline(), None);
}

#[test]
fn e1_e2_e7_sizes_and_spans_have_borders() {
    let mut world = World::new();
    for bytes in [0, 64 * 1024 + 1, (1 << 63) - 1, 1 << 63, u64::MAX] {
        assert_eq!(code(world.reserve(1, spec(bytes, 100))), Some(Code::Range), "{bytes} bytes");
    }
    let live = world.lease(1, 1, 1_000);
    for ttl in [0, 9, 10_001, (1 << 63) - 1, 1 << 63, u64::MAX] {
        let renewal = Kind::Renew { lease: live.lease, ttl: Micros(ttl) };
        for refused in [world.reserve(1, spec(1, ttl)).err(), world.by(1, renewal).answer.err()] {
            let refused = refused.expect("too short or too long");
            assert_eq!(refused.code(), Code::Range, "{ttl} us");
            assert_eq!(
                refused.detail(),
                "a lease lives at least 10us and at most 10ms",
                "both bounds are named"
            );
        }
    }
    assert_eq!(world.reserve(1, spec(PAGE - 1, 10)).unwrap().bytes, PAGE);
    assert_eq!(world.reserve(1, spec(PAGE + 1, 10)).unwrap().bytes, 2 * PAGE);
    assert_eq!(world.reserve(1, spec(1, 10_000)).unwrap().ttl, Micros(10_000), "the longest life");
}

#[test]
fn e5_e6_quota_pool_and_table_refuse_without_a_trace() {
    let mut world = World::new();
    // The principal's own bounds come before the pool's.
    assert_eq!(code(world.reserve(1, spec(33 * 1024, 100))), Some(Code::Quota));
    world.lease(1, 32 * 1024, 1_000);
    let refused = world.by(1, Kind::Reserve { spec: spec(1, 100), session: 1 });
    assert_eq!(code(refused.answer), Some(Code::Quota));
    assert_eq!(events(&refused.entries), [(Event::QuotaDeny, Some(Code::Quota))]);
    world.lease(2, 28 * 1024, 1_000);
    let refused = world.by(3, Kind::Reserve { spec: spec(8 * 1024, 100), session: 1 });
    assert_eq!(code(refused.answer), Some(Code::Quota), "the small quota");
    world.lease(3, PAGE, 1_000);
    let refused = world.by(2, Kind::Reserve { spec: spec(PAGE, 100), session: 1 });
    assert_eq!(code(refused.answer), Some(Code::NoMemory), "the pool has 64 KiB, and 64 KiB are out");
    assert_eq!(events(&refused.entries), [(Event::QuotaDeny, Some(Code::NoMemory))]);

    let mut world = World::new();
    for n in [1, 1, 1, 1, 2, 2] {
        world.lease(n, 1, 1_000);
    }
    assert_eq!(code(world.reserve(1, spec(1, 100))), Some(Code::Busy), "the table has six rows");
}

#[test]
fn two_reservations_that_fit_alone_but_not_together() {
    let mut world = World::new();
    world.reserve(1, spec(20 * 1024, 100)).unwrap();
    assert_eq!(code(world.reserve(1, spec(20 * 1024, 100))), Some(Code::Quota));
}

#[test]
fn only_registered_principals_and_an_asked_policy() {
    let mut world = World::new();
    assert_eq!(code(world.reserve(4, spec(1, 100))), Some(Code::PrincipalUnknown));
    let kind = Kind::Reserve { spec: spec(1, 100), session: 1 };
    for (policy, expected) in [
        (None, Code::PolicyDenied),
        (Some(PolicyVerdict { allowed: false, ..allowed() }), Code::PolicyDenied),
        (Some(PolicyVerdict { hash: [1; 32], ..allowed() }), Code::Busy),
    ] {
        let mut command = world.command(Actor::Principal(public(1)), kind.clone());
        command.policy = policy;
        let applied = world.apply(&command);
        assert_eq!(code(applied.answer), Some(expected));
        assert_eq!(events(&applied.entries), [(Event::LeaseDeny, Some(expected))]);
    }
    world.system(Kind::PolicyLoad { hash: [1; 32] }).answer.unwrap();
    assert_eq!(code(world.by(1, kind).answer), Some(Code::Busy), "judged by the policy before");
}

#[test]
fn only_the_administrator_registers() {
    let mut world = World::new();
    let add = |text: &str, n| Kind::PrincipalAdd { name: name(text), key: public(n) };
    assert_eq!(code(world.by(1, add("eve", 4)).answer), Some(Code::NotAdmin));
    assert_eq!(code(world.by(0, add("alice", 4)).answer), Some(Code::Exists));
    assert_eq!(code(world.by(0, add("eve", 1)).answer), Some(Code::Exists));
    let weak = Kind::PrincipalAdd { name: name("weak"), key: caps::id::PrincipalKey([0; 32]) };
    assert_eq!(code(world.by(0, weak).answer), Some(Code::Range));
    let full = world.by(0, add("eve", 4));
    assert_eq!(code(full.answer), Some(Code::Busy), "the table has four rows");
    assert_eq!(events(&full.entries), [(Event::ConfigLoad, Some(Code::Busy))]);
}

#[test]
fn names_are_unique_while_a_lease_lives() {
    let mut world = World::new();
    let named = || LeaseSpec { name: Some(name("scratch")), ..spec(1, 1_000) };
    let first = world.lease_as(1, named());
    assert_eq!(code(world.reserve(1, named())), Some(Code::Exists));
    world.lease_as(2, named());
    world.by(1, Kind::Release { lease: first.lease }).answer.unwrap();
    world.lease_as(1, named());
}

#[test]
fn a_token_is_delegated_as_often_as_was_asked_for_and_no_oftener() {
    let mut world = World::new();
    let mut hops = |max_hops| -> Result<u8, Code> {
        let lease =
            world.reserve(1, LeaseSpec { max_hops, ..spec(1, 1_000) }).map_err(|error| error.code())?.lease;
        let Answer::Leased { terms, .. } =
            world.system(Kind::Commit { lease, bytes: PAGE }).answer.map_err(|error| error.code())?
        else {
            panic!()
        };
        let renewed = world.by(1, Kind::Renew { lease, ttl: Micros(2_000) });
        let Answer::Leased { terms: after, .. } = renewed.answer.map_err(|error| error.code())? else {
            panic!()
        };
        assert_eq!(after.max_hops, terms.max_hops, "a renewal changes the time");
        Ok(terms.max_hops)
    };
    assert_eq!(hops(0), Ok(0), "what nobody asked for nobody may do");
    assert_eq!(hops(7), Ok(7));
    assert_eq!(hops(8), Err(Code::Range));
}

#[test]
fn a_reservation_ends_when_nobody_claims_it() {
    let mut world = World::new();
    let ticket = world.reserve(1, spec(1, 1_000)).unwrap();
    assert!(world.tick_at(START + 99).entries.is_empty());
    let ended = world.tick_at(START + 100);
    assert_eq!(events(&ended.entries), [(Event::LeaseExpire, None)]);
    assert_eq!(ended.effects, [Effect::Take(Take::Lease(ticket.lease), EndCause::NotClaimed)]);
    assert_eq!(world.status().leased_bytes, PAGE, "until the provider says that nothing was claimed");
    let late = world.system(Kind::Commit { lease: ticket.lease, bytes: PAGE });
    assert_eq!(code(late.answer), Some(Code::LeaseExpired));
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    assert_eq!(world.status().leased_bytes, 0);
}

#[test]
fn a_claim_that_failed_is_given_up() {
    let mut world = World::new();
    let ticket = world.reserve(1, spec(1, 1_000)).unwrap();
    let abandoned = world.system(Kind::Abandon { lease: ticket.lease });
    assert_eq!(takes(&abandoned.effects), 1);
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    assert_eq!(world.status().leased_bytes, 0);
    assert_eq!(
        code(world.system(Kind::Commit { lease: NO_LEASE, bytes: PAGE }).answer),
        Some(Code::LeaseUnknown)
    );
    let ticket = world.reserve(1, spec(1, 1_000)).unwrap();
    let wrong = world.system(Kind::Commit { lease: ticket.lease, bytes: 2 * PAGE });
    assert_eq!(code(wrong.answer), Some(Code::Internal));
}

#[test]
fn renewal_counts_from_now_and_is_bounded() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    world.now += 400;
    let renewed = world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(1_000) });
    assert_eq!(events(&renewed.entries), [(Event::LeaseRenew, None)]);
    assert_eq!(renewed.effects, [Effect::Renew(ticket.lease, Micros(1_000))]);
    let Answer::Leased { lease, terms, before } = renewed.answer.unwrap() else { panic!() };
    assert_eq!((lease.expires_in, terms.expires.0, before.0), (Micros(1_000), START + 1_400, START + 1_000));
    let Answer::Leased { lease, .. } =
        world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(10_000) }).answer.unwrap()
    else {
        panic!()
    };
    assert_eq!(lease.expires_in, Micros(10_000));
    for n in [0, 2] {
        let refused = world.by(n, Kind::Renew { lease: ticket.lease, ttl: Micros(100) });
        assert_eq!(code(refused.answer), Some(Code::LeaseUnknown), "not even the administrator");
    }
    world.now = START + 20_000;
    let late = world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(100) });
    assert_eq!(code(late.answer), Some(Code::LeaseExpired), "before any tick said so");
}

#[test]
fn expiry_waits_for_the_provider_and_tells_it_only_after_silence() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    let expired = world.tick_at(START + 1_000);
    assert_eq!(events(&expired.entries), [(Event::LeaseExpire, None)]);
    assert!(expired.effects.is_empty(), "the provider has a clock of its own");
    assert_eq!(world.broker.next_deadline().unwrap().0, START + 1_050);
    let again = world.tick_at(START + 1_050);
    assert_eq!(again.effects, [Effect::Take(Take::Lease(ticket.lease), EndCause::Expired)]);
    assert!(again.entries.is_empty());
    let cause = EndCause::Expired;
    world.system(notice(Notice::LeaseEnded { lease: ticket.lease, cause })).answer.unwrap();
    assert_eq!(row(&world, ticket.lease).state, LeaseState::Ended);
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    assert_eq!(world.used(1), (0, 0), "once");
}

#[test]
fn a_lease_that_ended_at_the_provider_first_is_recorded_once() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    let notice = notice(Notice::LeaseEnded { lease: ticket.lease, cause: EndCause::HolderExit });
    let ended = world.system(notice.clone());
    assert_eq!(events(&ended.entries), [(Event::HolderExit, None)]);
    assert_eq!(ended.entries[0].get(Key::Cause), Some("\"holder_exit\""));
    assert!(world.system(notice).entries.is_empty());
    assert_eq!(row(&world, ticket.lease).cause, Some(EndCause::HolderExit));
}

#[test]
fn rights_of_a_process_end_with_its_session() {
    let mut world = World::new();
    let tied = LeaseSpec { lifetime: Lifetime::Process, ..spec(1, 1_000) };
    let (mine, kept) = (world.lease_as(1, tied), world.lease(1, 1, 1_000));
    let exit = world.system(Kind::HolderExit { session: 1 });
    assert_eq!(exit.answer.unwrap(), Answer::Ending { leases: vec![mine.lease] });
    assert_eq!(takes(&exit.effects), 1);
    assert_eq!(row(&world, kept.lease).state, LeaseState::Live);
    assert!(world.system(Kind::HolderExit { session: 1 }).effects.is_empty());
}

#[test]
fn a_lost_provider_takes_every_lease_along() {
    let mut world = World::new();
    let leases = [world.lease(1, 1, 1_000), world.lease(2, 1, 1_000)];
    world.reserve(1, spec(1, 1_000)).unwrap();
    let lost = world.lose();
    assert_eq!(events(&lost.entries), vec![(Event::ProviderLost, None); 4]);
    assert!(lost.effects.is_empty(), "nobody is there to be told");
    assert_eq!(row(&world, leases[0].lease).cause, Some(EndCause::ProviderLost));
    assert_eq!((world.status().leased_bytes, world.status().leases), (0, 0));
    assert_eq!(code(world.reserve(1, spec(1, 100))), Some(Code::ProviderLost));
    assert_eq!(code(world.lose().answer), Some(Code::Exists));
    world.system(comes(2)).answer.unwrap();
    let fresh = world.lease(1, 1, 1_000);
    assert_eq!(row(&world, fresh.lease).provider, ProviderId([2; 16]));
}

#[test]
fn the_ring_forgets_the_oldest() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let ticket = world.lease(1, 1, 1_000);
        world.by(1, Kind::Release { lease: ticket.lease }).answer.unwrap();
        world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
        ids.push(ticket.lease);
    }
    let known: Vec<bool> = ids.iter().map(|id| world.view(1, Query::Lease(*id)).is_ok()).collect();
    assert_eq!(known, [false, false, true, true, true]);
}

#[test]
fn revokes_are_idempotent_and_strangers_learn_nothing() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    for target in [
        Target::Lease(ticket.lease),
        Target::Region(ticket.region),
        Target::Lease(NO_LEASE),
        Target::Region(NO_REGION),
    ] {
        let refused = world.revoke(2, target);
        assert_eq!(code(refused.answer), Some(Code::LeaseUnknown));
        assert_eq!(events(&refused.entries), [(Event::LeaseDeny, Some(Code::LeaseUnknown))]);
    }
    let revoked = world.revoke(1, Target::Region(ticket.region));
    assert_eq!(events(&revoked.entries), [(Event::LeaseRevoke, None)]);
    assert_eq!(revoked.entries[0].get(Key::Reason), Some("\"why\""));
    let again = world.revoke(0, Target::Lease(ticket.lease));
    assert_eq!(again.answer.unwrap(), Answer::EndedBefore { leases: vec![ticket.lease] });
    assert_eq!(takes(&again.effects), 1, "the second receipt, too, waits for the memory to be dead");
    assert_eq!(events(&again.entries), [(Event::LeaseRevoke, None)]);
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    let third = world.revoke(1, Target::Lease(ticket.lease));
    assert_eq!(third.answer.unwrap(), Answer::EndedBefore { leases: vec![] });
    assert_eq!((takes(&third.effects), third.entries.len()), (0, 1));
}

#[test]
fn revokes_of_what_has_ended_fill_no_log_and_are_all_counted() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    assert_eq!(world.revoke(1, Target::Lease(ticket.lease)).entries.len(), 1);
    let again = |world: &mut World| world.revoke(1, Target::Lease(ticket.lease));
    let entries: usize = (0..200).map(|_| again(&mut world).entries.len()).sum();
    assert_eq!(entries as u64, audit::rejects::LIMIT_BURST, "and then not one more at this time");
    // A refusal is a request in vain as well: both are counted together, so neither is a way around the other.
    assert!(world.by(1, Kind::Release { lease: NO_LEASE }).entries.is_empty());
    world.now += 1_000_000 / audit::rejects::LIMIT_PER_SECOND;
    let next = again(&mut world);
    let suppressed = 200 - audit::rejects::LIMIT_BURST + 1;
    assert_eq!(next.entries[0].get(Key::Suppressed), Some(&format!("\"{suppressed}\"")[..]));
    // Others are not silenced by it.
    assert_eq!(world.revoke(0, Target::Lease(ticket.lease)).entries.len(), 1);
}

#[test]
fn a_reservation_can_be_revoked_while_it_is_claimed() {
    let mut world = World::new();
    let ticket = world.reserve(1, spec(1, 1_000)).unwrap();
    let revoked = world.revoke(0, Target::Holder(public(1)));
    assert_eq!(takes(&revoked.effects), 1);
    let late = world.system(Kind::Commit { lease: ticket.lease, bytes: PAGE });
    assert_eq!(code(late.answer), Some(Code::LeaseExpired));
}

#[test]
fn what_could_not_be_recorded_is_taken_back() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    let renewed = world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(5_000) });
    let Answer::Leased { before, terms, .. } = renewed.answer.unwrap() else { panic!() };
    let since = terms.not_before;
    let undone = world.system(Kind::Undo(Undo::Renew { lease: ticket.lease, expires: before, since }));
    assert_eq!(undone.effects, [Effect::Renew(ticket.lease, Micros(1_000))]);
    assert_eq!(row(&world, ticket.lease).expires_in, Micros(1_000));
    assert_eq!(events(&undone.entries), [(Event::LeaseRenew, Some(Code::AuditUnavailable))]);

    let undone = world.system(Kind::Undo(Undo::Lease { lease: ticket.lease }));
    assert_eq!(undone.effects, [Effect::Take(Take::Lease(ticket.lease), EndCause::NotRecorded)]);
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();

    let theirs = world.lease(2, 1, 1_000);
    let undone = world.system(Kind::Undo(Undo::PrincipalAdd { key: public(2) }));
    assert_eq!(takes(&undone.effects), 1);
    assert_eq!(code(world.reserve(2, spec(1, 100))), Some(Code::PrincipalUnknown));
    assert_eq!(world.status().principals, 4, "the row goes with the last of its leases");
    world.system(Kind::Taken { lease: theirs.lease }).answer.unwrap();
    assert_eq!(world.status().principals, 3);
    let admin = world.system(Kind::Undo(Undo::PrincipalAdd { key: public(0) }));
    assert_eq!(code(admin.answer), Some(Code::PrincipalUnknown));
}

#[test]
fn only_the_node_proposes_what_is_its_own() {
    let mut world = World::new();
    let ticket = world.lease(1, 1, 1_000);
    for kind in [
        Kind::Commit { lease: ticket.lease, bytes: PAGE },
        Kind::Taken { lease: ticket.lease },
        Kind::ProviderLost { provider: own().id, proved: true },
        comes(2),
        Kind::ProviderHeartbeat { provider: own().id, load: Load::default() },
        Kind::PolicyLoad { hash: [0; 32] },
        Kind::HolderExit { session: 1 },
        Kind::Undo(Undo::Lease { lease: ticket.lease }),
    ] {
        assert_eq!(code(world.by(0, kind).answer), Some(Code::Protocol));
    }
    assert_eq!(code(world.system(Kind::Release { lease: ticket.lease }).answer), Some(Code::Protocol));
}

#[test]
fn refusals_are_recorded_up_to_a_rate_and_then_counted() {
    let mut world = World::new();
    let mut recorded = Vec::new();
    for _ in 0..100 {
        recorded.extend(world.by(1, Kind::Release { lease: NO_LEASE }).entries);
    }
    assert_eq!(recorded.len() as u64, audit::rejects::LIMIT_BURST);
    world.now += 1_000_000;
    let next = world.by(1, Kind::Release { lease: NO_LEASE }).entries;
    let left_out = 100 - audit::rejects::LIMIT_BURST;
    assert_eq!(next[0].get(Key::Suppressed), Some(&format!("\"{left_out}\"")[..]));
    assert_eq!(world.by(2, Kind::Release { lease: NO_LEASE }).entries.len(), 1, "others are free");
}

#[test]
fn time_does_not_go_back() {
    let mut world = World::new();
    world.now += 1_000;
    world.system(Kind::Tick).answer.unwrap();
    world.now = 5;
    let ticket = world.reserve(1, spec(1, 1_000)).unwrap();
    assert_eq!(ticket.claim_by.0, START + 1_100);
    world.now = u64::MAX;
    world.system(Kind::Tick).answer.unwrap();
    assert_eq!(world.broker.now(), caps::time::UnixMicros::MAX);
}

#[test]
fn lists_show_what_concerns_the_one_who_asks() {
    let mut world = World::new();
    let (mine, theirs) = (world.lease(1, 1, 1_000), world.lease(2, 1, 1_000));
    let ids = |world: &World, n| {
        let View::Leases(page) = world.view(n, Query::Leases(None)).unwrap() else { panic!() };
        page.rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&world, 1), [mine.lease]);
    assert_eq!(ids(&world, 0).len(), 2);
    assert_eq!(code(world.view(1, Query::Lease(theirs.lease))), Some(Code::LeaseUnknown));
    assert_eq!(code(world.view(4, Query::Leases(None))), Some(Code::PrincipalUnknown));
    let View::Principals(page) = world.view(1, Query::Principals(None)).unwrap() else { panic!() };
    assert_eq!(page.rows.iter().map(|row| row.leases).sum::<u32>(), 1, "what others use is theirs to know");
    let View::Leases(rest) = world.view(0, Query::Leases(Some(ids(&world, 0)[0]))).unwrap() else { panic!() };
    assert_eq!(rest.rows.len(), 1);
}
