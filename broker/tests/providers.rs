//! Providers come, are heard, drain, restart and are lost: who may say so, what becomes of their leases, and what the
//! log says of it.

mod common;

use audit::Event;
use broker::state::{Actor, Answer, Broker, Genesis, Kind, Query, View};
use caps::Code;
use caps::id::ProviderId;
use caps::time::{Micros, UnixMicros};
use caps::wire::link::ClaimTicket;
use caps::wire::provider::{Address, Load, ProviderRow, ProviderState, Registration, Verdict};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, LeaseState};
use common::*;

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
    let View::Lease(row) = world.view(1, Query::Lease(ticket.lease)).unwrap() else { panic!() };
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
    assert_eq!(until(&world), UnixMicros(START + 100 + 1_000), "claimed in the last moment");
    world.system(Kind::Commit { lease: ticket.lease, bytes: PAGE }).answer.unwrap();
    world.now += 500;
    world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(1_000) }).answer.unwrap();
    let renewed = UnixMicros(START + 500 + 1_000 + 100);
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
