//! Providers come, are heard, drain, restart and are lost: who may say so, what becomes of their leases, and what the
//! log says of it.

mod common;

use audit::Event;
use broker::state::{Actor, Answer, Broker, Effect, Genesis, Kind, Query, TokenCut, View};
use caps::Code;
use caps::id::{GrantId, ProviderId, Seat};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::Reason;
use caps::wire::link::{ClaimTicket, Notice, Take};
use caps::wire::provider::{Address, Load, ProviderRow, ProviderState, Registration, Verdict};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, LeaseState, Target};
use common::*;

/// How far the clocks of the small cluster may be apart.
const SKEW: u64 = 30;

/// Another provider, larger than the one that the cluster begins with.
fn east(n: u8) -> Registration {
    Registration {
        id: ProviderId([n; 16]),
        name: name("east"),
        address: Some(Address::new("east.example:7443").unwrap()),
        bytes: 64 * 1024,
        regions: 6,
        classes: Vec::new(),
        locality: Some(name("zone-1")),
        seat: Some(Seat([0x5e; 16])),
    }
}

fn register(world: &mut World, provider: Registration) -> Option<Code> {
    code(world.system(Kind::ProviderRegister { provider, attached: false }).answer)
}

fn near(zone: &str) -> LeaseSpec {
    LeaseSpec { near: Some(name(zone)), ..spec(PAGE, 5_000) }
}

fn provider(world: &World, text: &str) -> ProviderRow {
    world.status().providers.into_iter().find(|row| row.name == name(text)).unwrap()
}

fn place(world: &World, ticket: &ClaimTicket) -> String {
    match world.view(0, Query::Lease(ticket.lease)).unwrap() {
        View::Lease(row) => row.placement.unwrap().node.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_says_where_it_is_and_why() {
    let mut world = World::new();
    assert_eq!(register(&mut world, east(1)), None);
    let ticket = world.lease_as(1, near("zone-1"));
    // Its owner is told where it is; how others are, the administrator.
    let View::Lease(row) = world.view(1, Query::Lease(ticket.lease)).unwrap() else { panic!() };
    let own = row.placement.unwrap();
    assert_eq!((row.node, own.considered.len(), own.others), (Some(name("east")), 0, 1));
    let View::Status(status) = world.view(1, Query::Status).unwrap() else { panic!() };
    assert!(status.providers.is_empty());
    let View::Lease(row) = world.view(0, Query::Lease(ticket.lease)).unwrap() else { panic!() };
    let placement = row.placement.unwrap();
    assert_eq!((row.provider, placement.node), (ProviderId([1; 16]), name("east")));
    assert_eq!(row.address.unwrap().as_str(), "east.example:7443");
    let said: Vec<_> = placement.considered.iter().map(|one| (one.node.as_str(), one.verdict)).collect();
    assert_eq!(said, [("east", Verdict::Chosen), ("own", Verdict::Outscored)]);
    assert_eq!(placement.considered[0].free_bytes, 64 * 1024, "as it was before");
    // A page of rows has no room for it.
    let View::Leases(page) = world.view(1, Query::Leases(None)).unwrap() else { panic!() };
    assert!(page.rows.iter().all(|row| row.placement.is_none() && row.address.is_none()));
    // The token names the provider, and so does the log.
    let Answer::Leased { terms, .. } =
        world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(600) }).answer.unwrap()
    else {
        panic!()
    };
    assert_eq!(terms.provider, ProviderId([1; 16]));
    let at = world.broker.whereabouts(ticket.lease).unwrap();
    assert_eq!(at.provider, ProviderId([1; 16]));
    assert!(at.until >= UnixMicros(START + 5_000), "a shorter renewal may not have reached it");
}

#[test]
fn the_latest_end_is_the_latest_that_it_may_have_been_told() {
    let mut world = World::new();
    let ticket = world.reserve(1, spec(PAGE, 1_000)).unwrap();
    let until = |world: &World| world.broker.whereabouts(ticket.lease).unwrap().until;
    assert_eq!(until(&world), UnixMicros(START + 100 + 1_000 + SKEW), "claimed in the last moment");
    world.system(Kind::Commit { lease: ticket.lease, bytes: PAGE }).answer.unwrap();
    world.now += 500;
    world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(1_000) }).answer.unwrap();
    let renewed = UnixMicros(START + 500 + 1_000 + 100 + SKEW);
    assert_eq!(until(&world), renewed);
    world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(10) }).answer.unwrap();
    world.revoke(1, caps::wire::row::Target::Lease(ticket.lease)).answer.unwrap();
    assert_eq!(until(&world), renewed);
}

#[test]
fn a_lost_provider_takes_its_own_leases_along_and_no_others() {
    let mut world = World::new();
    register(&mut world, east(1));
    let (there, here) = (world.lease_as(1, near("zone-1")), {
        world.by(0, Kind::ProviderDrain { name: name("east"), drain: true }).answer.unwrap();
        world.lease(1, PAGE, 5_000)
    });
    let lost = world.system(Kind::ProviderLost { provider: ProviderId([1; 16]), proved: true });
    assert_eq!(events(&lost.entries), vec![(Event::ProviderLost, None); 2]);
    assert!(lost.effects.is_empty(), "nobody is there to be told");
    let row = |ticket: &ClaimTicket| match world.view(0, Query::Lease(ticket.lease)).unwrap() {
        View::Lease(row) => (row.state, row.cause),
        other => panic!("{other:?}"),
    };
    assert_eq!(row(&there), (LeaseState::Ended, Some(EndCause::ProviderLost)));
    assert_eq!(row(&here), (LeaseState::Live, None));
    let gone = provider(&world, "east");
    assert_eq!((gone.state, gone.committed_bytes, gone.taken_regions), (ProviderState::Lost, 0, 0));
    assert_eq!(world.status().pool_bytes, 64 * 1024);
}

#[test]
fn another_life_ends_the_one_before_and_no_life_comes_back() {
    let mut world = World::new();
    register(&mut world, east(1));
    let ticket = world.lease_as(1, near("zone-1"));
    assert_eq!(register(&mut world, east(1)), Some(Code::Exists));
    let came = world.system(Kind::ProviderRegister { provider: east(2), attached: false });
    came.answer.unwrap();
    assert_eq!(
        events(&came.entries),
        [(Event::ProviderLost, None), (Event::ProviderLost, None), (Event::NodeJoin, None)]
    );
    let View::Lease(row) = world.view(1, Query::Lease(ticket.lease)).unwrap() else { panic!() };
    assert_eq!((row.state, row.cause, row.address), (LeaseState::Ended, Some(EndCause::ProviderLost), None));
    let load = Load { sessions: 1, committed_bytes: 1 };
    for id in [1, 9] {
        let provider = ProviderId([id; 16]);
        assert_eq!(code(world.system(Kind::ProviderHeartbeat { provider, load }).answer), Some(Code::Epoch));
        assert_eq!(
            code(world.system(Kind::ProviderLost { provider, proved: true }).answer),
            Some(Code::Epoch)
        );
    }
    assert_eq!(register(&mut world, east(1)), Some(Code::Epoch));
    // Under no name either, and not while it is the last that the name had.
    assert_eq!(register(&mut world, Registration { name: name("other"), ..east(1) }), Some(Code::Epoch));
    world.system(Kind::ProviderLost { provider: ProviderId([2; 16]), proved: true }).answer.unwrap();
    assert_eq!(register(&mut world, east(2)), Some(Code::Epoch));
    assert_eq!(register(&mut world, east(3)), None);
    assert_eq!(provider(&world, "east").state, ProviderState::Up);
}

#[test]
fn what_drains_keeps_what_it_has_and_gets_nothing_new() {
    let mut world = World::new();
    register(&mut world, east(1));
    let ticket = world.lease_as(1, near("zone-1"));
    let drain = |name: &str, drain| Kind::ProviderDrain { name: common::name(name), drain };
    assert_eq!(code(world.by(1, drain("east", true)).answer), Some(Code::NotAdmin));
    assert_eq!(code(world.system(drain("east", true)).answer), Some(Code::Protocol));
    assert_eq!(code(world.by(0, drain("west", true)).answer), Some(Code::Range));
    let drained = world.by(0, drain("east", true));
    assert_eq!(events(&drained.entries), [(Event::ConfigLoad, None)]);
    assert!(world.by(0, drain("east", true)).entries.is_empty(), "nothing is new");
    assert_eq!(provider(&world, "east").state, ProviderState::Draining);
    let other = world.lease_as(1, near("zone-1"));
    assert_eq!((place(&world, &ticket).as_str(), place(&world, &other).as_str()), ("east", "own"));
    world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(5_000) }).answer.unwrap();
    // It restarts, and is still not to be used.
    assert_eq!(register(&mut world, east(2)), None);
    assert_eq!(provider(&world, "east").state, ProviderState::Draining);
    world.by(0, drain("own", true)).answer.unwrap();
    assert_eq!(code(world.reserve(1, near("zone-1"))), Some(Code::Busy));
    world.by(0, drain("east", false)).answer.unwrap();
    let back = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &back), "east");
}

#[test]
fn a_silent_provider_gets_nothing_until_it_is_heard() {
    let mut world = World::new();
    register(&mut world, east(1));
    world.now += 60;
    let in_time = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &in_time), "east");
    world.now += 1;
    let late = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &late), "own", "which is in the broker's own process");
    let load = Load { sessions: 7, committed_bytes: 3 };
    world.system(Kind::ProviderHeartbeat { provider: ProviderId([1; 16]), load }).answer.unwrap();
    assert_eq!((provider(&world, "east").load, provider(&world, "east").silent_for), (load, Micros(0)));
    let heard = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &heard), "east");
}

#[test]
fn the_table_is_bounded_and_the_longest_lost_makes_room() {
    let mut world = World::new();
    let other = |n: u8, text: &str| Registration { name: name(text), ..east(n) };
    assert_eq!(register(&mut world, other(1, "a")), None);
    assert_eq!(register(&mut world, other(2, "b")), None);
    assert_eq!(register(&mut world, other(3, "c")), Some(Code::Busy), "all three are there");
    for (n, wait) in [(2, 5), (1, 5)] {
        world.now += wait;
        world.system(Kind::ProviderLost { provider: ProviderId([n; 16]), proved: true }).answer.unwrap();
    }
    assert_eq!(register(&mut world, other(3, "c")), None);
    let names: Vec<_> = world.status().providers.iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["a", "c", "own"]);
    assert_eq!(register(&mut world, other(2, "d")), Some(Code::Epoch), "a life that made room");
    for bad in [Registration { bytes: 0, ..east(7) }, Registration { regions: 0, ..east(7) }] {
        assert_eq!(register(&mut world, bad), Some(Code::Range));
    }
}

#[test]
fn a_broker_without_a_provider_waits_for_one() {
    let mut broker = Broker::new(Genesis { provider: None, ..genesis() }).unwrap();
    let at = UnixMicros(START);
    let mut ask = |by, kind| {
        let command = broker::state::Command { at, by, random: [9; 32], policy: Some(allowed()), kind };
        let applied = broker.apply(&command);
        broker.check_invariants().unwrap();
        code(applied.answer)
    };
    let admin = Actor::Principal(public(0));
    let reserve = || Kind::Reserve { spec: spec(PAGE, 500), session: 1 };
    assert_eq!(ask(admin, reserve()), Some(Code::ProviderLost));
    assert_eq!(ask(Actor::System, Kind::ProviderRegister { provider: east(1), attached: false }), None);
    assert_eq!(ask(admin, reserve()), None);
    let bad = Genesis { provider: Some(Registration { bytes: 0, ..own() }), ..genesis() };
    assert_eq!(code(Broker::new(bad)), Some(Code::ConfigValue));
}

#[test]
fn each_provider_is_filled_to_its_own_brim() {
    let mut world = World::new();
    // The cluster's bound on all of them together is that of the first one.
    assert_eq!(register(&mut world, Registration { bytes: 2 * PAGE, regions: 1, ..east(1) }), None);
    let first = world.lease_as(1, near("zone-1"));
    let second = world.lease_as(1, near("zone-1"));
    assert_eq!(
        (place(&world, &first).as_str(), place(&world, &second).as_str()),
        ("east", "own"),
        "one region"
    );
    let View::Lease(row) = world.view(0, Query::Lease(second.lease)).unwrap() else { panic!() };
    assert_eq!(row.placement.unwrap().considered[1].verdict, Verdict::NoRegion);
    // Its room is free when its memory is back, not before.
    world.by(1, Kind::Release { lease: first.lease }).answer.unwrap();
    let third = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &third), "own");
    world.system(Kind::Taken { lease: first.lease }).answer.unwrap();
    let large = world.reserve(1, LeaseSpec { bytes: 3 * PAGE, ..near("zone-1") }).unwrap();
    assert_eq!(place(&world, &large), "own", "too large for it");
    let fits = world.lease_as(2, near("zone-1"));
    assert_eq!(place(&world, &fits), "east");
}

fn lease_row(world: &World, ticket: &ClaimTicket) -> caps::wire::row::LeaseRow {
    match world.view(0, Query::Lease(ticket.lease)).unwrap() {
        View::Lease(row) => row,
        other => panic!("{other:?}"),
    }
}

const EAST: ProviderId = ProviderId([1; 16]);

/// Told: the effects of a command that are takes.
fn told(applied: &broker::state::Applied) -> Vec<Take> {
    let takes = applied.effects.iter().filter_map(|effect| match effect {
        Effect::Take(take, _) => Some(*take),
        Effect::Renew(..) => None,
    });
    takes.collect()
}

#[test]
fn a_lease_lost_without_proof_counts_until_its_time_is_over_there() {
    let mut world = World::new();
    register(&mut world, east(1));
    let live = world.lease_as(1, LeaseSpec { name: Some(name("scratch")), ..near("zone-1") });
    let reserved = world.reserve(1, near("zone-1")).unwrap();
    let going = world.lease_as(1, near("zone-1"));
    world.by(1, Kind::Release { lease: going.lease }).answer.unwrap();
    let used = world.used(1);
    let until = world.broker.whereabouts(live.lease).unwrap().until;
    assert_eq!(until, UnixMicros(START + 100 + 5_000 + SKEW));

    world.system(Kind::ProviderLost { provider: EAST, proved: false }).answer.unwrap();
    let again = world.system(Kind::ProviderLost { provider: EAST, proved: false });
    assert_eq!(code(again.answer), Some(Code::Exists));
    let gone = provider(&world, "east");
    assert_eq!((gone.state, gone.taken_regions), (ProviderState::Lost, 0), "its own book is closed");
    assert_eq!(world.used(1), used, "and its tenants' are not");
    for (ticket, cause) in
        [(&live, EndCause::ProviderLost), (&reserved, EndCause::ProviderLost), (&going, EndCause::Released)]
    {
        let row = lease_row(&world, ticket);
        assert_eq!((row.state, row.cause), (LeaseState::Ending, Some(cause)));
    }
    let renew = Kind::Renew { lease: live.lease, ttl: Micros(600) };
    assert_eq!(code(world.by(1, renew).answer), Some(Code::ProviderLost));
    // The name is free, and so is nothing else.
    world.lease_as(1, LeaseSpec { name: Some(name("scratch")), ..spec(PAGE, 500) });
    // Each revoke is told to who may serve it, and so gets no receipt.
    for _ in 0..2 {
        let revoked = world.revoke(1, Target::Lease(live.lease));
        assert_eq!(told(&revoked), [Take::Lease(live.lease)]);
        revoked.answer.unwrap();
    }
    let delegate = world.revoke(1, Target::Holder(public(2)));
    assert!(told(&delegate).contains(&Take::Lease(live.lease)), "whoever it may have been delegated to");

    world.tick_at(until.0 - 1).answer.unwrap();
    assert_eq!(lease_row(&world, &live).state, LeaseState::Ending);
    world.tick_at(until.0).answer.unwrap();
    assert_eq!(lease_row(&world, &live).state, LeaseState::Ended);
    let over = world.revoke(1, Target::Lease(live.lease));
    assert_eq!((code(over.answer), over.effects.len()), (Some(Code::ProviderLost), 0), "no receipt");
    // By whichever way it is asked for.
    let id = RevocationId([7; 64]);
    let cut = TokenCut {
        lease: live.lease,
        grant: None,
        id,
        marks: [Some(Mark::signature(&id)), None],
        range: None,
        not_before: UnixMicros(START),
        until: UnixMicros(until.0 + 1_000),
        held: true,
        reason: Reason::default(),
    };
    for kind in [Kind::Release { lease: live.lease }, Kind::RevokeToken(cut)] {
        let over = world.by(1, kind);
        assert_eq!((code(over.answer), over.effects.len()), (Some(Code::ProviderLost), 0), "no receipt");
    }
    let over = world.revoke(1, Target::Block { lease: live.lease, id });
    assert_eq!((code(over.answer), over.effects.len()), (Some(Code::ProviderLost), 0), "no receipt");
    assert_eq!(world.used(1).1, 0);
}

#[test]
fn a_new_life_or_the_administrators_word_prove_that_it_is_gone() {
    for by_word in [false, true] {
        let mut world = World::new();
        register(&mut world, east(1));
        let ticket = world.lease_as(1, near("zone-1"));
        let give_up = |text: &str| Kind::ProviderGiveUp { name: name(text) };
        assert_eq!(code(world.by(1, give_up("east")).answer), Some(Code::NotAdmin));
        assert_eq!(code(world.by(0, give_up("west")).answer), Some(Code::Range));
        assert_eq!(code(world.by(0, give_up("own")).answer), Some(Code::Range), "as alive as the broker");
        world.system(Kind::ProviderLost { provider: EAST, proved: false }).answer.unwrap();
        if by_word {
            assert_eq!(world.by(0, give_up("east")).answer, Ok(Answer::Over(Some(EAST))));
            assert_eq!(code(world.by(0, give_up("east")).answer), Some(Code::Exists));
        } else {
            let came = world.system(Kind::ProviderRegister { provider: east(2), attached: false });
            assert_eq!(came.answer, Ok(Answer::Over(Some(EAST))), "its link is to be let go");
        }
        assert_eq!(lease_row(&world, &ticket).state, LeaseState::Ended);
        assert_eq!(world.used(1), (0, 0));
        world.revoke(1, Target::Lease(ticket.lease)).answer.unwrap();
    }
}

#[test]
fn a_grant_is_told_of_as_often_as_it_is_asked_for() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let contract = world.accepted(&ticket, 5);
    let expires = UnixMicros(START + 500);
    let take = Take::Grant { lease: ticket.lease, grant: contract.grant, expires };
    for _ in 0..2 {
        assert_eq!(told(&world.revoke(1, Target::Grant(contract.grant))), [take]);
    }
    // With its lease it is the lease that is waited for, and then nothing.
    world.revoke(1, Target::Lease(ticket.lease)).answer.unwrap();
    let going = world.revoke(1, Target::Grant(contract.grant));
    assert_eq!(told(&going), [Take::Lease(ticket.lease)]);
    world.system(Kind::Taken { lease: ticket.lease }).answer.unwrap();
    assert!(told(&world.revoke(1, Target::Grant(contract.grant))).is_empty());
}

#[test]
fn what_was_not_told_waits_in_order_and_goes_with_its_lease() {
    let mut world = World::new();
    register(&mut world, east(1));
    let ticket = world.lease_as(1, near("zone-1"));
    let lease = ticket.lease;
    let grant = |n: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Take::Grant { lease, grant: GrantId(id), expires: UnixMicros(1 << 40) }
    };
    let untold = |take| Kind::Untold { provider: EAST, take, cause: EndCause::Revoked };
    let load = Load { sessions: 0, committed_bytes: 0 };
    let beat = || Kind::ProviderHeartbeat { provider: EAST, load };
    let waits = |world: &mut World| match world.system(beat()).answer.unwrap() {
        Answer::Heard { untold } => untold.into_iter().map(|(take, _)| take).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    for n in [2, 1, 2] {
        world.system(untold(grant(n))).answer.unwrap();
    }
    assert_eq!(waits(&mut world), [grant(2), grant(1)]);
    world.system(Kind::Told { provider: EAST, take: grant(2) }).answer.unwrap();
    assert_eq!(waits(&mut world), [grant(1)]);
    // Nothing waits of what is elsewhere, or for the broker's own.
    let other = world.lease(1, PAGE, 500);
    let elsewhere = Take::Grant { lease: other.lease, grant: GrantId([1; 16]), expires: UnixMicros(1 << 40) };
    assert_eq!(code(world.system(untold(elsewhere)).answer), Some(Code::LeaseUnknown));
    // Where no more can wait, the lease goes, which is told until it is answered.
    let most = u16::try_from(policy::limits::UNTOLD_PER_LEASE_MAX).unwrap();
    for n in 2..=most {
        assert!(told(&world.system(untold(grant(n)))).is_empty());
    }
    assert_eq!(waits(&mut world).len(), policy::limits::UNTOLD_PER_BEAT_MAX);
    assert_eq!(told(&world.system(untold(grant(most + 1)))), [Take::Lease(lease)]);
    assert_eq!(waits(&mut world), []);
}

#[test]
fn who_fills_the_room_for_what_was_not_told_pays_for_it() {
    let mut world = World::new();
    register(&mut world, east(1));
    let most = policy::limits::UNTOLD_PER_LEASE_MAX;
    let filled = policy::limits::UNTOLD_PER_PROVIDER_MAX / most;
    let alices: Vec<_> = (0..filled).map(|_| world.lease_as(1, near("zone-1")).lease).collect();
    let bobs = world.lease_as(2, near("zone-1")).lease;
    let untold = |take| Kind::Untold { provider: EAST, take, cause: EndCause::Narrowed };
    let id = |lease: usize, n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(lease * 1_000_000 + n).to_be_bytes());
        GrantId(id)
    };
    let narrow = |lease, grant, end: u64, expires: u64| Take::Narrow {
        lease,
        grant,
        rights: Rights::READ,
        range: ByteRange::new(0, end).unwrap(),
        expires: UnixMicros(expires),
    };
    // Many narrowings of one grant are one, the last; one that comes late is none, nor is one of what is gone.
    for n in 0..2 * most as u64 {
        let take = narrow(alices[0], id(0, 0), PAGE, (1 << 40) - n);
        assert!(told(&world.system(untold(take))).is_empty());
    }
    world.system(untold(narrow(alices[0], id(0, 0), PAGE, 1 << 40))).answer.unwrap();
    let beat = Kind::ProviderHeartbeat { provider: EAST, load: Load::default() };
    let waits = |world: &mut World| match world.system(beat.clone()).answer.unwrap() {
        Answer::Heard { untold } => untold.into_iter().map(|(take, _)| take).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(waits(&mut world), [narrow(alices[0], id(0, 0), PAGE, (1 << 40) + 1 - 2 * most as u64)]);
    let whole = Take::Grant { lease: alices[0], grant: id(0, 0), expires: UnixMicros(1 << 40) };
    world.system(untold(whole)).answer.unwrap();
    world.system(untold(narrow(alices[0], id(0, 0), 1, 1 << 39))).answer.unwrap();
    assert_eq!(waits(&mut world), [whole]);
    // As many parts as there is room for, and one of bob's: alice loses a lease, and bob's part waits.
    let soon = UnixMicros(START + 50);
    for (nth, lease) in alices.iter().enumerate() {
        for n in usize::from(nth == 0)..most {
            let take = Take::Grant { lease: *lease, grant: id(nth, n), expires: soon };
            let command = world.command(Actor::System, untold(take));
            assert!(world.broker.apply(&command).effects.is_empty());
        }
    }
    let full = world.broker.clone();
    let bob = narrow(bobs, id(99, 0), PAGE, 1 << 40);
    let state = |world: &World, lease| match world.view(0, Query::Lease(lease)).unwrap() {
        View::Lease(row) => row.state,
        other => panic!("{other:?}"),
    };
    world.now = soon.0 + SKEW - 1;
    let ended = told(&world.system(untold(bob)));
    assert!(matches!(ended[..], [Take::Lease(lease)] if alices.contains(&lease)), "{ended:?}");
    assert_eq!(state(&world, bobs), LeaseState::Live);
    let live = alices.iter().filter(|lease| state(&world, **lease) == LeaseState::Live);
    assert_eq!(live.count(), filled - 1);
    assert!(Broker::restore(&world.broker.snapshot()).is_ok_and(|copy| copy == world.broker));
    // What is over by itself need not be told, and makes room first.
    world.broker = full;
    world.now = soon.0 + SKEW;
    assert!(told(&world.system(untold(bob))).is_empty());
    assert_eq!(waits(&mut world), [whole, bob]);
}

#[test]
fn a_provider_is_believed_of_its_own_leases_alone() {
    let mut world = World::new();
    let here = world.lease(1, PAGE, 5_000);
    register(&mut world, east(1));
    let contract = world.accepted(&here, 5);
    let says = |provider, notice| Kind::Notice { provider, notice };
    let ended = Notice::LeaseEnded { lease: here.lease, cause: EndCause::HolderExit };
    let opened = Notice::GrantOpened { grant: contract.grant };
    for (said, refused) in [(ended, Code::LeaseUnknown), (opened, Code::GrantUnknown)] {
        let foreign = world.system(says(EAST, said));
        assert_eq!(events(&foreign.entries), [(Event::LeaseDeny, Some(refused))]);
        assert_eq!(code(foreign.answer), Some(refused));
        assert_eq!(code(world.system(says(ProviderId([9; 16]), said)).answer), Some(Code::Epoch));
    }
    world.system(says(own().id, opened)).answer.unwrap();
    world.system(says(own().id, ended)).answer.unwrap();
    assert_eq!(lease_row(&world, &here).cause, Some(EndCause::HolderExit));
}

#[test]
fn the_name_of_the_brokers_own_provider_is_nobody_elses() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    assert_eq!(register(&mut world, Registration { name: name("own"), ..east(1) }), Some(Code::Exists));
    assert_eq!(lease_row(&world, &ticket).state, LeaseState::Live);
}

#[test]
fn a_name_drains_without_a_row_and_a_life_over_and_over_pushes_out_its_own() {
    let mut world = World::new();
    let other = |n: u8, text: &str| Registration { name: name(text), ..east(n) };
    register(&mut world, other(1, "a"));
    register(&mut world, other(2, "b"));
    world.by(0, Kind::ProviderDrain { name: name("a"), drain: true }).answer.unwrap();
    world.system(Kind::ProviderLost { provider: ProviderId([1; 16]), proved: false }).answer.unwrap();
    // Another takes its row, over and over.
    for n in 20..30 {
        assert_eq!(register(&mut world, other(n, "c")), None);
    }
    world.system(Kind::ProviderLost { provider: ProviderId([29; 16]), proved: true }).answer.unwrap();
    assert_eq!(register(&mut world, other(1, "a")), Some(Code::Epoch), "it is remembered all the same");
    assert_eq!(register(&mut world, other(3, "a")), None);
    assert_eq!(provider(&world, "a").state, ProviderState::Draining);
    // And a name without a row can be told to drain no more.
    world.system(Kind::ProviderLost { provider: ProviderId([3; 16]), proved: true }).answer.unwrap();
    assert_eq!(register(&mut world, other(40, "c")), None);
    let undrain = Kind::ProviderDrain { name: name("a"), drain: false };
    world.by(0, undrain.clone()).answer.unwrap();
    assert_eq!(code(world.by(0, undrain).answer), Some(Code::Range));
}

#[test]
fn what_a_provider_says_and_refuses_counts_beside_the_books() {
    let mut world = World::new();
    register(&mut world, east(1));
    let load = Load { sessions: 0, committed_bytes: 64 * 1024 };
    world.system(Kind::ProviderHeartbeat { provider: EAST, load }).answer.unwrap();
    let full = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &full), "own", "what it has in quarantine is in no book");
    let heard = Kind::ProviderHeartbeat { provider: EAST, load: Load::default() };
    world.system(heard.clone()).answer.unwrap();
    world.system(Kind::ProviderRefused { provider: EAST }).answer.unwrap();
    let refused = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &refused), "own");
    world.system(heard).answer.unwrap();
    let back = world.lease_as(1, near("zone-1"));
    assert_eq!(place(&world, &back), "east");
}

#[test]
fn a_life_of_another_seat_proves_nothing() {
    let mut world = World::new();
    for seat in [None, Some(Seat([2; 16]))] {
        let first = if seat.is_none() { 1 } else { 21 };
        register(&mut world, east(first));
        let ticket = world.lease_as(1, near("zone-1"));
        let stranger = |n| Registration { seat, ..east(n) };
        assert_eq!(register(&mut world, stranger(first + 1)), Some(Code::Exists));
        assert_eq!(lease_row(&world, &ticket).state, LeaseState::Live);
        // It is cut off, and may serve on.
        world.system(Kind::ProviderLost { provider: ProviderId([first; 16]), proved: false }).answer.unwrap();
        let came = world.system(Kind::ProviderRegister { provider: stranger(first + 1), attached: false });
        assert_eq!(events(&came.entries), [(Event::NodeJoin, None)]);
        assert_eq!(lease_row(&world, &ticket).state, LeaseState::Ending, "until its time is over");
        // A life of its own seat is turned away as long as the other is there, and proves it afterwards.
        assert_eq!(register(&mut world, east(first + 2)), Some(Code::Exists));
        let second = ProviderId([first + 1; 16]);
        world.system(Kind::ProviderLost { provider: second, proved: true }).answer.unwrap();
        assert_eq!(lease_row(&world, &ticket).state, LeaseState::Ending, "that was another's end");
        assert_eq!(register(&mut world, east(first + 2)), None);
        assert_eq!(lease_row(&world, &ticket).state, LeaseState::Ended);
        world.by(0, Kind::ProviderGiveUp { name: name("east") }).answer.unwrap();
    }
}
