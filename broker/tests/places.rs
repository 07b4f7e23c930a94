//! The runtime with several providers: each lease's requests go to the one that has it, one that does not answer is lost,
//! and what a revoke says until then.

mod common;
mod world;

use std::sync::Arc;

use broker::runtime::Caller;
use caps::Code;
use caps::id::{ProviderId, Seat};
use caps::time::Micros;
use caps::wire::Reply;
use caps::wire::link::{Notice, Take};
use caps::wire::provider::{Address, ProviderState, Registration};
use caps::wire::request::{LeaseSpec, Request};
use caps::wire::row::{EndCause, LeaseRow, LeaseState, Lifetime, MemoryRow, Revocation, Target};
use caps::wire::{Name, Reason};
use common::name;
use world::{PAGE, World, caller, lived};

fn east(n: u8) -> Registration {
    Registration {
        id: ProviderId([n; 16]),
        name: name("east"),
        address: Some(Address::new("[::1]:7443").unwrap()),
        bytes: 16 * PAGE,
        regions: 4,
        classes: Vec::new(),
        locality: Some(name("zone-1")),
        seat: Some(Seat([0x5e; 16])),
    }
}

async fn lease(world: &World, near: Option<&str>) -> caps::Result<LeaseRow> {
    let spec = LeaseSpec {
        bytes: PAGE,
        ttl: Micros::from_millis(60_000),
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: near.map(name),
    };
    match world.ask(1, Request::LeaseCreate(spec)).await? {
        Reply::Leased { lease, .. } => Ok(lease),
        other => panic!("{other:?}"),
    }
}

async fn show(world: &World, lease: &LeaseRow) -> (LeaseRow, Option<MemoryRow>) {
    match world.ask(1, Request::LeaseShow { lease: lease.id }).await.unwrap() {
        Reply::Lease { lease, memory } => (lease, memory),
        other => panic!("{other:?}"),
    }
}

async fn revoke(world: &World, lease: &LeaseRow) -> caps::Result<Reply> {
    let reason = Reason::new("why").unwrap();
    world.ask(1, Request::Revoke(Revocation { target: Target::Lease(lease.id), reason })).await
}

fn state(status: &caps::wire::row::NodeStatus, text: &str) -> Option<ProviderState> {
    status.providers.iter().find(|row| row.name == name(text)).map(|row| row.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_goes_to_the_provider_that_has_the_lease() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let (there, here) = (lease(&world, Some("zone-1")).await.unwrap(), {
        drain(&world, 0, true).await.unwrap();
        lease(&world, None).await.unwrap()
    });
    assert_eq!((link.live(), world.link.live()), (vec![there.id], vec![here.id]));
    let (row, memory) = show(&world, &there).await;
    assert_eq!((row.provider, row.address.unwrap().as_str()), (ProviderId([1; 16]), "[::1]:7443"));
    assert_eq!((row.placement.unwrap().node, memory.unwrap().bytes), (name("east"), PAGE));
    let renew = Request::LeaseRenew { lease: there.id, ttl: Micros::from_millis(90_000) };
    world.ask(1, renew).await.unwrap();
    assert_eq!((link.renewals().len(), world.link.renewals().len()), (1, 0));
    let Reply::Receipt(receipt) = revoke(&world, &there).await.unwrap() else { panic!() };
    assert_eq!(receipt.body.leases, [there.id]);
    assert_eq!(link.next_take().await, (Take::Lease(there.id), EndCause::Revoked));
    assert_eq!(world.link.live(), [here.id], "the other one was not told");
    world.settled(PAGE).await;
    assert_eq!(drain(&world, 1, false).await.unwrap_err().code(), Code::NotAdmin);
    world.stop();
}

async fn drain(world: &World, n: u8, drain: bool) -> caps::Result<()> {
    let by: Caller = caller(n);
    let east: Name = name("east");
    world.handle.provider_drain(by, east, drain).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_says_how_it_is_with_every_heartbeat() {
    let world = World::start().await;
    let _link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!(lease.provider, ProviderId([1; 16]));
    world.status_until(|status| status.providers.iter().any(|row| row.load.committed_bytes == PAGE)).await;
    let status = world.status().await;
    assert_eq!(status.providers.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["east", "own"]);
    assert_eq!(status.committed_bytes, PAGE, "of all of them");
    let again = world.join(east(1)).await.map(drop).unwrap_err();
    assert_eq!(again.code(), Code::Exists);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_lost_and_a_revoke_says_what_is_known_until_then() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let (first, second) =
        (lease(&world, Some("zone-1")).await.unwrap(), lease(&world, Some("zone-1")).await.unwrap());
    assert_eq!((first.provider, second.provider), (ProviderId([1; 16]), ProviderId([1; 16])));
    link.cut_off(true);
    let refused = revoke(&world, &first).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unreachable);
    // A minute, as long as it may have waited to be claimed, and two seconds that the clocks may be apart.
    let words = refused.to_string();
    let within = words.split("ends by itself within ").nth(1).and_then(|rest| rest.split(' ').next());
    let within: u64 = within.unwrap().parse().unwrap();
    assert!((30..=60 + 1 + 2).contains(&within), "{refused}");
    // In the books it is ended all the same, and its provider is told again and again.
    assert_eq!(show(&world, &first).await.0.cause, Some(EndCause::Revoked));
    for _ in 0..3 {
        assert_eq!(link.next_take().await, (Take::Lease(first.id), EndCause::Revoked));
    }
    // A claim at one that does not answer goes to another.
    let claimed = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!(claimed.provider, common::own().id);
    world.status_until(|status| state(status, "east") == Some(ProviderState::Lost)).await;
    // Nothing proves that it is gone: it may serve both for as long as it was told.
    let (row, memory) = show(&world, &second).await;
    assert_eq!((row.state, row.cause, memory), (LeaseState::Ending, Some(EndCause::ProviderLost), None));
    assert_eq!(show(&world, &first).await.0.cause, Some(EndCause::Revoked));
    assert!(world.status().await.leased_bytes >= 2 * PAGE, "of which the quota is not back");
    for lost in [&first, &second] {
        let refused = revoke(&world, lost).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unreachable, "{refused}");
        assert!(refused.to_string().contains("ends by itself within"), "{refused}");
    }
    let renewed =
        world.ask(1, Request::LeaseRenew { lease: second.id, ttl: Micros::from_millis(1_000) }).await;
    assert_eq!(renewed.unwrap_err().code(), Code::ProviderLost);
    let entries = world.entries_until("provider.lost").await;
    assert!(entries.iter().any(|entry| entry.contains("node.join")));
    // It answers again: this life of it is over, and was told so.
    assert!(lived(|| link.is_over()));
    link.cut_off(false);
    assert_eq!(world.join(east(1)).await.map(drop).unwrap_err().code(), Code::Epoch);
    let rejoin = world.handle.provider_rejoin(ProviderId([1; 16]), link).await;
    assert_eq!(rejoin.unwrap_err().code(), Code::Epoch);
    // Who operates it says that it is gone.
    world.handle.provider_lost(name("east"), caller(0)).await.unwrap();
    let again = world.handle.provider_lost(name("east"), caller(0)).await;
    assert_eq!(again.unwrap_err().code(), Code::Exists);
    assert_eq!(show(&world, &second).await.0.state, LeaseState::Ended);
    let Reply::Receipt(receipt) = revoke(&world, &second).await.unwrap() else { panic!() };
    assert!(receipt.body.leases.is_empty(), "nothing is left to be taken");
    let link = world.join(east(2)).await.unwrap();
    let third = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!((third.provider, link.live()), (ProviderId([2; 16]), vec![third.id]));
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_restarts_is_another_one_at_once() {
    let world = World::start().await;
    let before = world.join(east(1)).await.unwrap();
    let lost = lease(&world, Some("zone-1")).await.unwrap();
    let after = world.join(east(2)).await.unwrap();
    assert_eq!(show(&world, &lost).await.0.cause, Some(EndCause::ProviderLost));
    let fresh = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!((fresh.provider, after.live()), (ProviderId([2; 16]), vec![fresh.id]));
    // Nobody holds the link of the life that is over any more.
    assert!(lived(|| std::sync::Arc::strong_count(&before) == 1));
    assert_eq!(world.handle.provider_lost(name("east"), caller(1)).await.unwrap_err().code(), Code::NotAdmin);
    assert_eq!(world.handle.provider_lost(name("west"), caller(0)).await.unwrap_err().code(), Code::Range);
    world.handle.provider_lost(name("east"), caller(0)).await.unwrap();
    assert_eq!(show(&world, &fresh).await.0.cause, Some(EndCause::ProviderLost));
    assert!(lived(|| std::sync::Arc::strong_count(&after) == 1));
    world.stop();
}

async fn take_off(world: &World) -> caps::Result<Reply> {
    let reason = Reason::new("why").unwrap();
    let target = Target::Holder(common::public(2));
    world.ask(1, Request::Revoke(Revocation { target, reason })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_provider_was_not_told_it_is_told_when_it_answers_again() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    link.cut_off(true);
    // Every time: it was told to nobody, so there is no receipt for it.
    for _ in 0..2 {
        assert_eq!(take_off(&world).await.unwrap_err().code(), Code::Unreachable);
        assert!(matches!(link.next_take().await.0, Take::Marks { lease: id, .. } if id == lease.id));
    }
    link.cut_off(false);
    // Nobody asks any more, and it is told, once.
    assert!(matches!(link.next_take().await.0, Take::Marks { lease: id, .. } if id == lease.id));
    let Reply::Receipt(_) = take_off(&world).await.unwrap() else { panic!() };
    assert!(matches!(link.next_take().await.0, Take::Marks { .. }));
    let Reply::Receipt(_) = revoke(&world, &lease).await.unwrap() else { panic!() };
    assert_eq!(link.next_take().await.0, Take::Lease(lease.id), "and nothing in between");
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_busy_provider_refused_to_hear_it_is_told_again() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    link.fail_takes(Some(Code::Busy));
    assert_eq!(
        take_off(&world).await.unwrap_err().code(),
        Code::Unreachable,
        "it took effect here, not there"
    );
    assert!(matches!(link.next_take().await.0, Take::Marks { lease: id, .. } if id == lease.id));
    link.fail_takes(None);
    // Nobody asks any more.
    assert!(matches!(link.next_take().await.0, Take::Marks { lease: id, .. } if id == lease.id));
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_comes_back_over_another_link_has_its_leases() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    link.cut_off(true);
    assert_eq!(revoke(&world, &lease).await.unwrap_err().code(), Code::Unreachable);
    let other = world.link_like(&link);
    world.handle.provider_rejoin(ProviderId([1; 16]), other.clone()).await.unwrap();
    // The lease that could not be taken is taken over the new link.
    assert_eq!(other.next_take().await, (Take::Lease(lease.id), EndCause::Revoked));
    world.settled(0).await;
    world.status_until(|status| state(status, "east") == Some(ProviderState::Up)).await;
    assert!(!other.is_over());
    let unknown = world.handle.provider_rejoin(ProviderId([9; 16]), other).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Epoch);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_speaks_for_its_own_leases_and_name_alone() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    world.handle.provider_drain(caller(0), name("east"), true).await.unwrap();
    let here = lease(&world, None).await.unwrap();
    world.handle.provider_drain(caller(0), name("east"), false).await.unwrap();
    let there = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!(world.handle.placed_on(here.id).await.unwrap(), common::own().id);
    assert_eq!(world.handle.placed_on(there.id).await.unwrap(), ProviderId([1; 16]));
    let ended = |lease: &LeaseRow| Notice::LeaseEnded { lease: lease.id, cause: EndCause::HolderExit };
    let east_id = ProviderId([1; 16]);
    let foreign = world.handle.provider_notice(east_id, ended(&here)).await;
    assert_eq!(foreign.unwrap_err().code(), Code::LeaseUnknown);
    assert_eq!(show(&world, &here).await.0.state, LeaseState::Live);
    world.entries_until("E_LEASE_UNKNOWN").await;
    let nobody = world.handle.provider_notice(ProviderId([9; 16]), ended(&there)).await;
    assert_eq!(nobody.unwrap_err().code(), Code::Epoch);
    world.handle.provider_notice(east_id, ended(&there)).await.unwrap();
    assert_eq!(show(&world, &there).await.0.cause, Some(EndCause::HolderExit));
    // The name of the broker's own is nobody else's.
    let taken = world.join(Registration { name: name("own"), ..east(3) }).await.map(drop);
    assert_eq!(taken.unwrap_err().code(), Code::Exists);
    assert_eq!(world.handle.provider_lost(name("own"), caller(0)).await.unwrap_err().code(), Code::Range);
    assert!(!world.link.is_over() && !link.is_over());
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_one_provider_refuses_is_tried_at_the_next() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    link.fail_claims(Some(Code::NoMemory));
    let elsewhere = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!((elsewhere.provider, elsewhere.node), (common::own().id, Some(name("own"))));
    assert_eq!(world.link.live(), [elsewhere.id]);
    // Where both refuse it is the first one's refusal, and nothing stays reserved.
    world.link.fail_claims(Some(Code::Busy));
    let refused = lease(&world, Some("zone-1")).await;
    assert!(matches!(refused.unwrap_err().code(), Code::NoMemory | Code::Busy));
    world.settled(PAGE).await;
    link.fail_claims(None);
    world.status_until(|status| status.providers.iter().all(|row| row.reserved_bytes == 0)).await;
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap().provider, ProviderId([1; 16]));
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_could_not_be_reached_is_not_tried_again_before_it_is_heard() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    link.cut_off(true);
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap().provider, common::own().id);
    // Who asks again is not sent there first: a refusal of this kind is tried nowhere else.
    link.fail_claims(Some(Code::LeaseUnknown));
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap().provider, common::own().id);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_one_ticket_is_none_of_the_next() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    // Between two heartbeats, the next of which would have it forgotten.
    link.cut_off(true);
    link.fail_takes(None);
    link.fail_claims(Some(Code::LeaseUnknown));
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap_err().code(), Code::LeaseUnknown);
    assert_eq!(world.link.live(), [], "and it was tried nowhere else");
    link.fail_claims(None);
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap().provider, ProviderId([1; 16]));
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_claim_may_not_be_recorded_goes_back() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    // The link is cut between the two answers to the claim: the memory is there, and nobody has its token.
    link.fail_records(Some(Code::Unreachable));
    assert_eq!(lease(&world, Some("zone-1")).await.unwrap_err().code(), Code::Unreachable);
    let Reply::Leases(page) = world.ask(1, Request::LeaseList { after: None }).await.unwrap() else {
        panic!()
    };
    assert!(page.rows.iter().all(|row| row.state != LeaseState::Live), "{:?}", page.rows);
    assert_eq!(link.next_take().await, (Take::Lease(page.rows[0].id), EndCause::NotRecorded));
    world.settled(0).await;
    assert_eq!(link.live(), []);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_full_providers_are_is_the_administrators_to_know() {
    let world = World::start().await;
    let _link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    assert_eq!((lease.node, lease.address.unwrap().as_str()), (Some(name("east")), "[::1]:7443"));
    let placement = |reply| match reply {
        Reply::Lease { lease, .. } => lease.placement.unwrap(),
        other => panic!("{other:?}"),
    };
    let mine = placement(world.ask(1, Request::LeaseShow { lease: lease.id }).await.unwrap());
    assert_eq!((mine.node, mine.considered.len(), mine.others), (name("east"), 0, 1));
    let all = placement(world.ask(0, Request::LeaseShow { lease: lease.id }).await.unwrap());
    assert_eq!((all.considered.len(), all.others), (2, 0));
    let Reply::Status(status) = world.ask(1, Request::Status).await.unwrap() else { panic!() };
    assert!(status.providers.is_empty());
    assert_eq!(world.status().await.providers.len(), 2);
    // Who has a token finds its provider.
    let show = Request::ProviderShow { provider: lease.provider };
    let Reply::Provider { name: node, address } = world.ask(2, show).await.unwrap() else { panic!() };
    assert_eq!((node, address.unwrap().as_str()), (name("east"), "[::1]:7443"));
    let nobody = Request::ProviderShow { provider: ProviderId([9; 16]) };
    assert_eq!(world.ask(2, nobody).await.unwrap_err().code(), Code::Epoch);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_memory_of_its_own_places_what_others_bring() {
    let world = World::start_without_pool().await;
    assert_eq!(lease(&world, None).await.unwrap_err().code(), Code::ProviderLost);
    let unheard =
        world.handle.notice(Notice::LeaseEnded { lease: common::NO_LEASE, cause: EndCause::Expired });
    assert_eq!(unheard.unwrap_err().code(), Code::Epoch);
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = Arc::clone(&heard);
    world.handle.on_principal(Box::new(move |key, name| tell.lock().unwrap().push((key, name))));
    world.ask(0, Request::PrincipalAdd { name: name("carol"), key: common::public(3) }).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [(common::public(3), name("carol"))]);
    assert_eq!(world.handle.principals_snapshot().len(), 4);
    // Who registers it may go away: it is registered all the same, and is asked how it is.
    let link = world.new_link();
    let registering = world.handle.provider_register(east(1), link.clone());
    let _ = tokio::time::timeout(std::time::Duration::ZERO, registering).await;
    world.status_until(|status| state(status, "east") == Some(ProviderState::Up)).await;
    let lease = lease(&world, None).await.unwrap();
    assert_eq!(lease.provider, ProviderId([1; 16]));
    world.status_until(|status| status.providers.iter().any(|row| row.load.committed_bytes == PAGE)).await;
    let status = world.status().await;
    // That of another is not called its own.
    assert_eq!((status.own(), status.pool_bytes), (None, 16 * PAGE));
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_leaves_every_provider_what_it_has() {
    let world = World::start().await;
    let link = world.join(east(1)).await.unwrap();
    let lease = lease(&world, Some("zone-1")).await.unwrap();
    world.stop();
    // It is asked once more, nobody hears the answer, and then nobody holds the link any more.
    assert!(lived(|| Arc::strong_count(&link) == 1));
    assert!(!link.is_over(), "its leases live on until their time is over");
    assert_eq!(link.live(), [lease.id]);
}
