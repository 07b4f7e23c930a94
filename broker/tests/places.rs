//! The runtime with several providers: each lease's requests go to the one that has it, one that does not answer is lost,
//! and what a revoke says until then.

mod common;
mod world;

use broker::runtime::Caller;
use caps::Code;
use caps::id::ProviderId;
use caps::time::Micros;
use caps::wire::Reply;
use caps::wire::link::Take;
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
    // A claim at one that does not answer comes to nothing.
    let claimed = lease(&world, Some("zone-1")).await;
    assert!(claimed.is_err_and(|error| error.code() == Code::Unreachable));
    world.status_until(|status| state(status, "east") == Some(ProviderState::Lost)).await;
    let (row, memory) = show(&world, &second).await;
    assert_eq!((row.state, row.cause, memory), (LeaseState::Ended, Some(EndCause::ProviderLost), None));
    assert_eq!(show(&world, &first).await.0.state, LeaseState::Ended);
    assert_eq!(world.status().await.leased_bytes, 0);
    let Reply::Receipt(receipt) = revoke(&world, &second).await.unwrap() else { panic!() };
    assert!(receipt.body.leases.is_empty(), "nothing is left to be taken");
    let entries = world.entries_until("provider.lost").await;
    assert!(entries.iter().any(|entry| entry.contains("node.join")));
    // It answers again: this life of it is over.
    link.cut_off(false);
    assert_eq!(world.join(east(1)).await.map(drop).unwrap_err().code(), Code::Epoch);
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
