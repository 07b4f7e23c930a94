//! Providers join, serve, lose their link, and come back.

mod common;

use std::sync::Arc;
use std::time::Duration;

use audit::store::memory::Fault;
use caps::Code;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::RootKey;
use caps::wire::cluster::{Fact, ToBroker, ToProvider};
use caps::wire::link::{Notice, Take};
use caps::wire::provider::ProviderState;
use caps::wire::row::{EndCause, LeaseState, Revocation, Target};
use caps::wire::{Reason, Reply, Request};
use common::raw::Raw;
use common::wire::Wire;
use common::world::World;
use common::{PAGE, name, public, registration, soon, until};
use link::provider::Ended;
use policy::Policy;

fn revoke(target: Target) -> Request {
    Request::Revoke(Revocation { target, reason: Reason::new("because").unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_joins_and_leases_live_there() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = registration("east", 11);
    let node = world.join(east.clone(), &wire).await;
    // It knows what it cannot know by itself.
    assert_eq!((node.facts.cluster, node.facts.admin), (world.cluster, public(0)));
    assert_eq!(node.facts.roots.keys, [RootKey::from_seed(&[7; 32]).public()]);
    assert_eq!(&*node.facts.policy.text, policy::datalog::DEFAULT);
    assert_eq!(node.facts.principals.get(&public(1)), Some(&name("alice")));
    assert_eq!(node.facts, world.source.facts());
    assert_eq!(node.facts.quota_of(Some(&name("small"))), node.facts.quotas[&name("small")]);
    assert_eq!(node.facts.quota_of(Some(&name("alice"))), node.facts.quota);
    assert_eq!(node.small.state().wholes, std::slice::from_ref(&node.facts), "again, when it joins");

    let lease = world.lease(1).await.unwrap();
    assert_eq!((lease.provider, node.small.live()), (east.id, vec![lease.id]));
    let ttl = Micros::from_millis(50_000);
    world.ask(1, Request::LeaseRenew { lease: lease.id, ttl }).await.unwrap();
    // What is left of it when the broker asks.
    let renewals = std::mem::take(&mut node.small.state().renewals);
    assert!(
        matches!(&renewals[..], [(id, left)] if *id == lease.id && *left <= ttl && left.0 > 0),
        "{renewals:?}"
    );
    let Reply::Lease { memory, .. } = world.ask(1, Request::LeaseShow { lease: lease.id }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(memory.unwrap().bytes, PAGE);
    world.row_until(&east, |row| row.load.committed_bytes == PAGE).await;
    let Reply::Receipt(receipt) = world.ask(1, Request::LeaseRelease { lease: lease.id }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((receipt.body.leases, receipt.body.wiped_bytes), (vec![lease.id], PAGE));
    assert!(node.small.live().is_empty());

    node.asker.stop();
    assert_eq!(soon("it stops", node.ended).await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_cannot_be_recorded_is_refused() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    node.small.state().unrecordable = true;
    assert_eq!(world.lease(1).await.unwrap_err().code(), Code::AuditUnavailable);
    node.small.state().unrecordable = false;
    world.lease(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_in_their_order() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    let roots = vec![RootKey::from_seed(&[8; 32]).public()];
    world.ask(0, Request::PrincipalAdd { name: name("carol"), key: public(3) }).await.unwrap();
    world.source.set_roots(roots.clone());
    assert!(world.source.told(common::PATIENCE).await);
    world.source.set_policy("deny if true;".into(), [1; 32]);
    assert!(world.source.told(common::PATIENCE).await);
    let news = std::mem::take(&mut node.small.state().news);
    let [Fact::Principals(carol), Fact::Roots(told), Fact::Policy(policy)] = &news[..] else {
        panic!("{news:?}")
    };
    assert_eq!((&carol[..], &told.keys), (&[(public(3), name("carol"))][..], &roots));
    assert_eq!(&*policy.text, "deny if true;");
    // While the link is hushed nobody can say that it is known; once it is back, it is.
    wire.cut();
    until("the link is cut", || !node.asker.is_joined()).await;
    world.source.set_roots(vec![]);
    wire.mend();
    until("it is told everything", || {
        node.small.state().wholes.last().is_some_and(|facts| facts.roots.keys.is_empty())
    })
    .await;
    assert_eq!(node.small.state().wholes.last().unwrap(), &world.source.facts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_came_into_force_is_told_and_one_that_did_not_is_not() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    let of = |text: &str| Arc::new(Policy::parse(text, "policy.dl").unwrap());
    let may_open = |text: &str| {
        let policy = Policy::parse(text, "as told").unwrap();
        policy.may_open((public(1), Some(name("alice"))), None, PAGE, Rights::READ, 0).map_err(|no| no.code())
    };
    assert_eq!(may_open(&node.facts.policy.text), Ok(()));
    let none = of("deny if true;");
    world.handle.policy_load(Arc::clone(&none)).await.unwrap();
    assert!(world.source.told(common::PATIENCE).await);
    let told = match &std::mem::take(&mut node.small.state().news)[..] {
        [Fact::Policy(told)] => told.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((told.hash, may_open(&told.text)), (none.hash().0, Err(Code::PolicyDenied)));
    // One that cannot be recorded is not in force here, and must not be there.
    world.device.fail(0, Fault::NotStored);
    let wide = of(policy::datalog::DEFAULT);
    assert_eq!(world.handle.policy_load(wide).await.unwrap_err().code(), Code::AuditUnavailable);
    assert_eq!(world.source.facts().policy, told);
    let change = world.source.set_roots(vec![]);
    until("all is told", || world.source.knows(registration("east", 11).id, change)).await;
    assert!(matches!(&node.small.state().news[..], [Fact::Roots(_)]), "and nothing else was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_stops_in_order_is_known_to_be_gone() {
    // Nobody finds out by silence while a test runs.
    let world = World::with(Arc::new(common::pki::Authority::new()), 1, Duration::from_secs(3_600)).await;
    let wire = Wire::to(world.address).await;
    let (east, west) = (registration("east", 11), registration("west", 12));
    let first = world.join(east.clone(), &wire).await;
    let lease = world.lease(1).await.unwrap();
    let second = world.join(west.clone(), &wire).await;
    first.asker.gone();
    assert_eq!(soon("it stops", first.ended).await.unwrap(), Ended::Stopped);
    // Before it had ended: the broker had it in its books when it let the link go.
    let rows = world.handle.providers().await.unwrap();
    let states: Vec<_> = rows.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(states, [(east.id, ProviderState::Lost), (west.id, ProviderState::Up)]);
    let row = world.show(lease.id).await;
    assert_eq!((row.state, row.cause), (LeaseState::Ended, Some(EndCause::ProviderLost)), "nothing waits");
    assert_eq!(world.handle.lost_serve_until().await.unwrap(), None, "it is proved");
    assert_eq!(world.lease(1).await.unwrap().provider, west.id);
    assert!(second.asker.is_joined());
    // That life is over for good, and the name may come back at once.
    let mut late = Raw::connect(&world, "provider/east").await;
    late.hello(east, Some(world.cluster)).await;
    while !matches!(late.hear().await, Some(ToProvider::Told)) {}
    late.say(&ToBroker::Ready).await;
    assert_eq!(late.bye().await.unwrap().code, Code::Epoch);
    world.join(registration("east", 13), &wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_known_by_who_says_so_over_a_link_that_is_there() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = registration("east", 11);
    let node = world.join(east.clone(), &wire).await;
    let change = world.source.set_roots(vec![]);
    assert!(world.source.told(common::PATIENCE).await);
    assert!(world.source.knows(east.id, change) && !world.source.knows(east.id, change + 1));
    assert!(!world.source.knows(registration("west", 12).id, change));
    // Of one that is cut off nobody says anything, though nobody is waited for.
    wire.cut();
    until("the link is cut", || !node.asker.is_joined()).await;
    until("the broker knows that, too", || !world.source.knows(east.id, change)).await;
    let change = world.source.set_roots(vec![]);
    assert!(world.source.told(common::PATIENCE).await);
    assert!(!world.source.knows(east.id, change));
    wire.mend();
    until("it is told", || world.source.knows(east.id, change)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_keys_have_expired_is_told_until_they_are_believed_again() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    let (old, new) = (RootKey::from_seed(&[7; 32]).public(), RootKey::from_seed(&[8; 32]).public());
    world.source.expire_root(vec![new], old.id());
    assert!(world.source.told(common::PATIENCE).await);
    let told = |facts: &[Fact]| match facts {
        [.., Fact::Roots(roots)] => roots.clone(),
        other => panic!("{other:?}"),
    };
    let roots = told(&node.small.state().news);
    assert_eq!((roots.keys, roots.expired), (vec![new], vec![old.id()]));
    // As many as a message has, the last ones.
    let most = u32::try_from(caps::limits::LINK_EXPIRED_ROOTS_MAX).unwrap();
    (0..most).for_each(|id| world.source.expire_root(vec![new], id));
    assert_eq!(world.source.facts().roots.expired, (0..most).collect::<Vec<_>>());
    world.source.expire_root(vec![new], old.id());
    world.source.set_roots(vec![new, old]);
    assert!(!world.source.facts().roots.expired.contains(&old.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_in_a_take_is_told_again() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    let lease = world.lease(1).await.unwrap().id;
    node.small.hold_takes(true);
    let handle = world.handle.clone();
    let caller = broker::runtime::Caller { holder: public(1), uid: None, session: 1 };
    let asked = tokio::spawn(async move { handle.request(caller, revoke(Target::Lease(lease))).await });
    until("the take arrives", || !node.small.state().takes.is_empty()).await;
    wire.cut();
    let refused = soon("whoever waits is told", asked).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unreachable, "{refused}");
    assert_eq!(world.show(lease).await.state, LeaseState::Ending, "in the books it is ended");
    node.small.hold_takes(false);
    wire.mend();
    let end = tokio::time::Instant::now() + common::PATIENCE;
    while world.show(lease).await.state != LeaseState::Ended {
        assert!(tokio::time::Instant::now() < end, "it is told again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(node.small.state().takes.iter().filter(|take| **take == Take::Lease(lease)).count() >= 2);
    assert!(node.small.live().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_comes_back_with_what_it_has_and_tells_what_happened_meanwhile() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = registration("east", 11);
    let node = world.join(east.clone(), &wire).await;
    let (gone, stays) = (world.lease(1).await.unwrap().id, world.lease(1).await.unwrap().id);
    wire.cut();
    until("the link is cut", || !node.asker.is_joined()).await;
    // While the broker is away a lease ends by itself.
    node.small.end(gone);
    node.asker.notice(Notice::LeaseEnded { lease: gone, cause: EndCause::Expired });
    assert_eq!(node.asker.notices_kept(), 1);
    wire.mend();
    until("the notice is noted", || node.asker.notices_kept() == 0).await;
    assert_eq!(
        (world.show(gone).await.state, world.show(gone).await.cause),
        (LeaseState::Ended, Some(EndCause::Expired))
    );
    assert_eq!(world.show(stays).await.state, LeaseState::Live);
    let ttl = Micros::from_millis(50_000);
    world.ask(1, Request::LeaseRenew { lease: stays, ttl }).await.unwrap();
    assert_eq!(node.small.live(), [stays]);
    assert_eq!(node.small.state().wholes.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_carries_nothing_is_noticed_and_made_again() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = registration("east", 11);
    let node = world.join(east.clone(), &wire).await;
    let lease = world.lease(1).await.unwrap().id;
    wire.hush();
    until("another link is made", || wire.made() == 2).await;
    until("it joined again", || node.small.state().wholes.len() == 2 && node.asker.is_joined()).await;
    let ttl = Micros::from_millis(50_000);
    world.ask(1, Request::LeaseRenew { lease, ttl }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_another_life_has_the_provider_begin_anew() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let node = world.join(registration("east", 11), &wire).await;
    world.lease(1).await.unwrap();
    let next = World::with(Arc::clone(&world.ca), 2, Duration::from_secs(20)).await;
    wire.lead_to(next.address);
    wire.cut();
    wire.mend();
    let Ended::NewLife(why) = soon("it ends", node.ended).await.unwrap() else { panic!() };
    assert_eq!(why.code(), Code::Epoch);
    assert!(next.handle.providers().await.unwrap().is_empty(), "it was not let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_was_given_up_ends_at_once_if_the_link_is_there_and_else_when_it_is_back() {
    let world = World::start().await;
    let (here, away) = (Wire::to(world.address).await, Wire::to(world.address).await);
    let east = world.join(registration("east", 11), &here).await;
    let west = world.join(registration("west", 12), &away).await;
    away.cut();
    until("the link is cut", || !west.asker.is_joined()).await;
    for node in ["east", "west"] {
        world.ask(0, Request::ProviderLost { name: name(node) }).await.unwrap();
    }
    let Ended::NewLife(why) = soon("it is told", east.ended).await.unwrap() else { panic!() };
    assert_eq!(why.code(), Code::Epoch);
    away.mend();
    let Ended::NewLife(why) = soon("it is told when it is back", west.ended).await.unwrap() else { panic!() };
    assert_eq!(why.code(), Code::Epoch);
    // They come as new lives.
    world.join(registration("east", 21), &here).await;
    world.lease(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_has_what_a_holder_has_there_taken_back_and_nothing_elsewhere() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    let (of_alice, of_bob) = (world.lease(1).await.unwrap().id, world.lease(2).await.unwrap().id);
    world.ask(0, Request::ProviderDrain { name: name("east"), drain: true }).await.unwrap();
    let west = world.join(registration("west", 12), &wire).await;
    let elsewhere = world.lease(1).await.unwrap().id;
    assert_eq!(west.small.live(), [elsewhere]);
    soon("it is revoked", east.asker.revoke_holder(public(1))).await.unwrap();
    assert_eq!((east.small.live(), west.small.live()), (vec![of_bob], vec![elsewhere]));
    assert_eq!(world.show(of_alice).await.cause, Some(EndCause::Revoked));
    assert_eq!(world.show(elsewhere).await.state, LeaseState::Live);
}
