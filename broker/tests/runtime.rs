//! The runtime over a real recorder, whose device fails when told to, and a provider in memory.

mod common;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use audit::store::memory::Fault;
use caps::Code;
use caps::id::{DonationId, GrantId, TransferId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::{Operation, Rights};
use caps::share::{ShareContract, TransferContract};
use caps::time::Micros;
use caps::token::{RootKeys, gate};
use caps::wire::link::{Notice, Take};
use caps::wire::request::{LeaseSpec, Request};
use caps::wire::row::{EndCause, GrantState, LeaseState, Lifetime, Revocation, Target, TransferState};
use caps::wire::{Reason, Reply};
use common::{key, name, public};
use policy::Policy;
use world::{PAGE, World, caller, lived};

fn spec(bytes: u64) -> LeaseSpec {
    let ttl = Micros::from_millis(60_000);
    LeaseSpec {
        bytes,
        ttl,
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

async fn lease(world: &World, n: u8) -> (caps::wire::row::LeaseRow, caps::token::Token) {
    match world.ask(n, Request::LeaseCreate(spec(PAGE))).await.unwrap() {
        Reply::Leased { lease, token } => (lease, token),
        other => panic!("{other:?}"),
    }
}

fn contract(world: &World, lease: &caps::wire::row::LeaseRow, grant: u8) -> ShareContract {
    ShareContract {
        cluster: world.cluster,
        grant: GrantId([grant; 16]),
        lease: lease.id,
        region: lease.region,
        owner: lease.owner,
        receiver: public(2),
        rights: Rights::READ,
        range: ByteRange::new(0, PAGE).unwrap(),
        ttl: Micros::from_millis(30_000),
        max_hops: 0,
        cosigner: None,
    }
}

async fn offer(world: &World, contract: ShareContract, signer: &SigningKey) -> caps::Result<Reply> {
    world.ask(1, Request::ShareOffer { contract, signature: contract.sign(signer) }).await
}

async fn accept(world: &World, contract: &ShareContract) -> caps::Result<Reply> {
    let signature = contract.sign(&key(2));
    let lifetime = Lifetime::Process;
    world.ask(2, Request::ShareAccept { grant: contract.grant, signature, lifetime }).await
}

fn revoke(target: Target) -> Request {
    Request::Revoke(Revocation { target, reason: Reason::new("because").unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_comes_with_a_token_and_goes_with_a_receipt() {
    let world = World::start().await;
    let (row, token) = lease(&world, 1).await;
    assert_eq!((row.state, row.owner_name), (LeaseState::Live, Some(name("alice"))));
    let keys = RootKeys::of(world.root).unwrap();
    let verified = gate(token.as_bytes()).unwrap().verify(&keys).unwrap();
    assert_eq!(verified.terms().holder, public(1));
    assert_eq!((verified.terms().lease, verified.terms().grant), (row.id, None));
    assert!(verified.terms().rights.iter().any(|right| right == Operation::Share));
    assert_eq!(world.link.live(), [row.id]);

    let Reply::Receipt(receipt) = world.ask(1, Request::LeaseRelease { lease: row.id }).await.unwrap() else {
        panic!()
    };
    receipt.verify(world.receipts).unwrap();
    assert_eq!((receipt.body.leases.clone(), receipt.body.wiped_bytes), (vec![row.id], PAGE));
    assert!(world.link.live().is_empty());
    let entries = world.entries();
    let at = receipt.body.log_index.unwrap() as usize;
    assert!(entries[at].contains("lease.release") && entries[at].contains(&row.id.to_string()));
    // The books are up to date before the receipt is sent.
    let Reply::Lease { lease, memory } = world.ask(1, Request::LeaseShow { lease: row.id }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((lease.state, memory), (LeaseState::Ended, None));
    let Reply::Status(status) = world.ask(2, Request::Status).await.unwrap() else { panic!() };
    assert_eq!((status.leased_bytes, status.leases, status.principals, status.audit), (0, 0, 3, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_goes_through_its_steps() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    let contract = contract(&world, &row, 7);
    let Reply::Shared(grant) = offer(&world, contract, &key(1)).await.unwrap() else { panic!() };
    assert_eq!(grant.state, GrantState::Issued);
    let Reply::Contract { contract: shown, .. } =
        world.ask(2, Request::ShareShow { grant: contract.grant }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(shown, contract);
    let Reply::Accepted { grant, token, by_owner, by_cosigner } = accept(&world, &contract).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(grant.state, GrantState::Accepted);
    let (by_owner, by_receiver) = (by_owner.unwrap(), contract.sign(&key(2)));
    let pair = caps::share::SharePair { contract, by_owner, by_receiver, by_cosigner };
    assert_eq!(*pair.verify().unwrap().contract(), contract, "the receiver has the other half");
    let shown = world.ask(2, Request::ShareShow { grant: contract.grant }).await.unwrap();
    assert!(matches!(shown, Reply::Contract { by_receiver: Some(by), .. } if by == by_receiver));
    let keys = RootKeys::of(world.root).unwrap();
    let verified = gate(token.as_bytes()).unwrap().verify(&keys).unwrap();
    assert_eq!((verified.terms().grant, verified.terms().holder), (Some(contract.grant), public(2)));

    world.handle.notice(Notice::GrantOpened { grant: contract.grant }).unwrap();
    // The receiver's process ends: its session is its actor's number.
    world.handle.holder_exit(2).unwrap();
    let take = world.link.next_take().await;
    assert!(matches!(take, (Take::Grant { grant, .. }, EndCause::HolderExit) if grant == contract.grant));
    let Reply::Grants(page) = world.ask(1, Request::ShareList { after: None }).await.unwrap() else {
        panic!()
    };
    assert_eq!((page.rows[0].state, page.rows[0].cause), (GrantState::Ended, Some(EndCause::HolderExit)));

    // What nobody waits for is recorded a moment later; the end of the share is the last of it.
    let entries = world.entries_until("share.end").await;
    let steps = ["share.offer", "share.issue", "share.accept", "share.open", "share.end"];
    let places: Vec<usize> = steps
        .iter()
        .map(|step| {
            let places: Vec<usize> = (0..entries.len()).filter(|&at| entries[at].contains(step)).collect();
            assert_eq!(places.len(), 1, "{step}");
            places[0]
        })
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_recorded_with_who_and_why() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    let weak = contract(&world, &row, 7);
    for (n, request, code, event) in [
        (1, Request::LeaseCreate(spec(0)), Code::Range, "lease.deny"),
        (1, Request::LeaseCreate(spec(1 << 63)), Code::Range, "lease.deny"),
        (1, Request::LeaseCreate(spec(1 << 40)), Code::Quota, "quota.deny"),
        (2, Request::LeaseRelease { lease: row.id }, Code::LeaseUnknown, "lease.deny"),
        (2, Request::LeaseRenew { lease: row.id, ttl: Micros(1) }, Code::LeaseUnknown, "lease.deny"),
        (2, Request::LeaseShow { lease: row.id }, Code::LeaseUnknown, "lease.deny"),
        (2, revoke(Target::Lease(row.id)), Code::LeaseUnknown, "lease.deny"),
        (2, Request::ShareShow { grant: GrantId([1; 16]) }, Code::GrantUnknown, "lease.deny"),
        (
            1,
            Request::ShareOffer { contract: weak, signature: weak.sign(&key(2)) },
            Code::ContractSignature,
            "share.offer",
        ),
        (4, Request::LeaseCreate(spec(1)), Code::PrincipalUnknown, "lease.deny"),
        (4, Request::Status, Code::PrincipalUnknown, "lease.deny"),
        (1, Request::PrincipalAdd { name: name("eve"), key: public(4) }, Code::NotAdmin, "config.load"),
    ] {
        let (kind, before) = (request.kind(), world.entries().len());
        let error = world.ask(n, request).await.unwrap_err();
        assert_eq!(error.code(), code, "{kind}: {error}");
        // A look is answered beside its entry, not after it.
        let found = lived(|| {
            let entries = world.entries();
            entries[before..].iter().any(|entry| {
                entry.contains(event) && entry.contains(code.text()) && entry.contains(&public(n).to_string())
            })
        });
        assert!(found, "{kind}: {:?}", &world.entries()[before..]);
    }
    let hello = Request::Close { handle: caps::id::SlotHandle { slot: 0, epoch: 0 } };
    assert_eq!(world.ask(1, hello).await.unwrap_err().code(), Code::Protocol);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_takes_effect_and_is_recorded() {
    let world = World::start().await;
    let tight = r#"
        deny if request("lease.create"), size($bytes), $bytes > 4096;
        allow if request("lease.create"), principal($key, $name);
        deny if true;
    "#;
    let tight = Arc::new(Policy::parse(tight, "tight.dl").unwrap());
    world.handle.policy_load(Arc::clone(&tight)).await.unwrap();
    let refused = world.ask(1, Request::LeaseCreate(spec(2 * PAGE))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PolicyDenied);
    let (row, _) = lease(&world, 1).await;
    let denied = world.ask(1, revoke(Target::Lease(row.id))).await.unwrap_err();
    assert_eq!(denied.code(), Code::PolicyDenied, "this policy lets nobody revoke");
    assert!(world.ask(0, revoke(Target::Lease(row.id))).await.is_ok(), "but the administrator");
    assert!(
        world
            .entries()
            .iter()
            .any(|entry| { entry.contains("policy.load") && entry.contains(&tight.hash().to_string()) })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_claim_gives_everything_back() {
    let world = World::start().await;
    world.link.fail_claims(Some(Code::NoMemory));
    assert_eq!(world.ask(1, Request::LeaseCreate(spec(PAGE))).await.unwrap_err().code(), Code::NoMemory);
    let take = world.link.next_take().await;
    assert!(matches!(take, (Take::Lease(_), EndCause::NotClaimed)));
    world.link.fail_claims(None);
    world.settled(0).await;
    lease(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_nothing() {
    let world = World::start().await;
    world.link.hold_claims();
    let handle = world.handle.clone();
    let asked =
        tokio::spawn(async move { handle.request(caller(1), Request::LeaseCreate(spec(PAGE))).await });
    world.link.claim_arrived().await;
    asked.abort();
    // Its deadline ends the reservation: nobody asks again.
    let take = world.link.next_take().await;
    assert!(matches!(take, (Take::Lease(_), EndCause::NotClaimed)));
    world.settled(0).await;
}

/// Asks in the name of a session that ends while its request waits in the queue: the request is dropped, as the gate
/// drops it, and the broker is told, while its thread is kept from applying anything.
fn ask_and_die(world: &World, n: u8, request: Request) {
    let handle = world.handle.clone();
    let mut asked = Box::pin(async move { handle.request(caller(n), request).await });
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let mut poll = || asked.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending();
    // The look comes first. It is answered while nobody polls, so that the order is not sent in the same breath.
    world.gate.shut();
    assert!(poll(), "the look waits behind the thread");
    world.gate.open();
    assert!(lived(|| woken.0.load(Ordering::SeqCst)), "the look is answered");
    world.gate.shut();
    let mut other = Box::pin(world.handle.request(caller(0), Request::Status));
    let mut ignored = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(other.as_mut().poll(&mut ignored).is_pending());
    world.gate.keeps();
    assert!(poll(), "the order waits behind the thread");
    drop(asked);
    world.handle.holder_exit(n.into()).unwrap();
    world.gate.open();
}

#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_accepted_by_a_process_that_died_ends_with_it() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    let contract = contract(&world, &row, 7);
    offer(&world, contract, &key(1)).await.unwrap();
    let signature = contract.sign(&key(2));
    let (grant, lifetime) = (contract.grant, Lifetime::Process);
    ask_and_die(&world, 2, Request::ShareAccept { grant, signature, lifetime });
    let entries = world.entries_until("share.end").await;
    let place = |text: &str| entries.iter().position(|entry| entry.contains(text)).expect("an entry");
    assert!(place("share.accept") < place("share.end"));
    assert!(entries[place("share.end")].contains("holder_exit"));
    let take = world.link.next_take().await;
    assert!(matches!(take, (Take::Grant { grant, .. }, EndCause::HolderExit) if grant == contract.grant));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_while_a_lease_is_renewed_wins_and_is_what_the_renewer_is_told() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    world.link.claim_arrived().await; // the claim's
    world.link.hold_claims();
    let (handle, longer) = (world.handle.clone(), Micros::from_millis(3_600_000));
    let renew = move || Request::LeaseRenew { lease: row.id, ttl: longer };
    let first = renew();
    let asked = tokio::spawn(async move { handle.request(caller(1), first).await });
    world.link.claim_arrived().await;
    assert!(world.ask(0, revoke(Target::Lease(row.id))).await.is_ok());
    world.link.let_claims_go();
    assert_eq!(asked.await.unwrap().unwrap_err().code(), Code::TokenRevoked);
    assert_eq!(
        world.ask(1, renew()).await.unwrap_err().code(),
        Code::TokenRevoked,
        "and so is who asks later"
    );
    world.settled(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_while_a_lease_is_claimed_wins() {
    let world = World::start().await;
    world.link.hold_claims();
    let handle = world.handle.clone();
    let asked =
        tokio::spawn(async move { handle.request(caller(1), Request::LeaseCreate(spec(PAGE))).await });
    world.link.claim_arrived().await;
    assert!(world.ask(0, revoke(Target::Holder(public(1)))).await.is_ok());
    world.link.let_claims_go();
    let refused = asked.await.unwrap().unwrap_err();
    assert!(matches!(refused.code(), Code::LeaseExpired | Code::LeaseUnknown), "{refused}");
    world.settled(0).await;
    assert!(world.link.live().is_empty());
}

/// Lets each write of the device fail in turn, under each request, in both ways. Whatever happens, the caller's answer,
/// the books, the provider's memory and the log agree in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_is_not_done() {
    for fault in [Fault::NotStored, Fault::Stored] {
        for call in 0..4 {
            let world = World::start().await;
            world.device.fail(call, fault);
            let answer = world.ask(1, Request::LeaseCreate(spec(PAGE))).await;
            match &answer {
                Ok(Reply::Leased { lease, .. }) => assert_eq!(world.link.live(), [lease.id]),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.code(), Code::AuditUnavailable, "{fault:?} at {call}");
                    world.settled(0).await;
                    assert!(world.link.live().is_empty());
                }
            }
            // The fault may not have been reached; then it must not surprise what follows.
            world.recovered().await;
            let leases = world.entries().iter().filter(|entry| entry.contains("\"lease.grant\"")).count();
            let ends = world.entries().iter().filter(|entry| entry.contains("not_recorded")).count();
            assert!(leases <= usize::from(answer.is_ok()) + ends, "{leases} grants, {ends} undone");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_or_share_that_cannot_be_recorded_is_undone() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    let contract = contract(&world, &row, 7);

    world.device.fail(0, Fault::NotStored);
    let longer = Request::LeaseRenew { lease: row.id, ttl: Micros::from_millis(3_600_000) };
    let refused = world.ask(1, longer.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AuditUnavailable);
    let Reply::Lease { lease: now, .. } = world.ask(1, Request::LeaseShow { lease: row.id }).await.unwrap()
    else {
        panic!()
    };
    assert!(now.expires_in <= Micros::from_millis(60_000), "{:?}", now.expires_in);
    assert!(world.link.renewals().iter().all(|(_, ttl)| *ttl <= Micros::from_millis(60_000)));
    world.recovered().await;

    world.device.fail(0, Fault::NotStored);
    assert_eq!(offer(&world, contract, &key(1)).await.unwrap_err().code(), Code::AuditUnavailable);
    world.recovered().await;
    let again = ShareContract { grant: GrantId([8; 16]), ..contract };
    offer(&world, again, &key(1)).await.unwrap();

    world.device.fail(0, Fault::NotStored);
    assert_eq!(accept(&world, &again).await.unwrap_err().code(), Code::AuditUnavailable);
    world.recovered().await;
    accept(&world, &again).await.unwrap();

    world.device.fail(0, Fault::NotStored);
    let eve = Request::PrincipalAdd { name: name("eve"), key: public(4) };
    assert_eq!(world.ask(0, eve.clone()).await.unwrap_err().code(), Code::AuditUnavailable);
    world.recovered().await;
    assert_eq!(world.handle.who(public(4)).await.unwrap(), (None, false));
    world.ask(0, eve).await.unwrap();
    assert!(matches!(world.ask(1, longer).await, Ok(Reply::Leased { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_takes_effect_without_a_device_and_is_recorded_later() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    world.device.fail(0, Fault::NotStored);
    let Reply::Receipt(receipt) = world.ask(1, revoke(Target::Lease(row.id))).await.unwrap() else {
        panic!()
    };
    receipt.verify(world.receipts).unwrap();
    assert_eq!(receipt.body.log_index, None);
    assert!(world.link.live().is_empty());
    world.recovered().await;
    assert!(lived(|| {
        let entries = world.entries();
        let gap = entries.iter().position(|entry| entry.contains("audit.gap"));
        let taken = entries.iter().position(|entry| entry.contains("lease.revoke"));
        gap.is_some() && gap < taken
    }));
    assert_eq!(
        world.ask(1, Request::LeaseRenew { lease: row.id, ttl: Micros(1_000_000) }).await.unwrap_err().code(),
        Code::TokenRevoked
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_of_what_has_ended_gets_the_receipt_of_the_first() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    let receipt = async |n| match world.ask(n, revoke(Target::Lease(row.id))).await {
        Ok(Reply::Receipt(receipt)) => receipt,
        other => panic!("{other:?}"),
    };
    let first = receipt(1).await;
    assert_eq!((first.body.leases.clone(), first.body.wiped_bytes), (vec![row.id], PAGE));
    for _ in 0..30 {
        assert_eq!(receipt(1).await, first);
    }
    // Who did not have one gets one of its own, which says that nothing was closed.
    let other = receipt(0).await;
    assert_eq!((other.body.mappings_closed, &other.body.leases), (0, &vec![]));
    assert_eq!(receipt(0).await, other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_that_fails_is_no_receipt_and_is_tried_again() {
    let world = World::start().await;
    let (row, _) = lease(&world, 1).await;
    world.link.fail_takes(Some(Code::ProviderLost));
    let error = world.ask(1, revoke(Target::Lease(row.id))).await.unwrap_err();
    assert_eq!(error.code(), Code::ProviderLost);
    world.link.next_take().await;
    world.link.fail_takes(None);
    // The deadline of a lease that is ending tells the provider again.
    world.link.next_take().await;
    world.settled(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_end_by_themselves_when_the_provider_is_silent() {
    let world = World::start().await;
    let short = LeaseSpec { ttl: Micros::from_millis(100), ..spec(PAGE) };
    assert!(matches!(world.ask(1, Request::LeaseCreate(short)).await, Ok(Reply::Leased { .. })));
    let take = world.link.next_take().await;
    assert!(matches!(take, (Take::Lease(_), EndCause::Expired)));
    world.settled(0).await;
    assert_eq!(world.entries().iter().filter(|entry| entry.contains("lease.expire")).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_keep_the_books() {
    let world = Arc::new(World::start().await);
    let tasks: Vec<_> = (0..16u8)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let who = 1 + n % 2;
                let (mut created, mut refused) = (0, 0);
                for _ in 0..20 {
                    match world.ask(who, Request::LeaseCreate(spec(PAGE))).await {
                        Ok(Reply::Leased { lease, .. }) => {
                            created += 1;
                            world.ask(who, Request::LeaseRelease { lease: lease.id }).await.unwrap();
                        }
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => {
                            assert!(
                                matches!(error.code(), Code::Quota | Code::Busy | Code::NoMemory),
                                "{error}"
                            );
                            refused += 1;
                        }
                    }
                }
                created + refused
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 20);
    }
    world.settled(0).await;
    let broker = Arc::into_inner(world).unwrap().stop();
    broker.check_invariants().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_broker_refuses() {
    let world = World::start().await;
    let handle = world.handle.clone();
    world.stop().check_invariants().unwrap();
    let error = handle.request(caller(1), Request::Status).await.unwrap_err();
    assert_eq!(error.code(), Code::Unreachable);
    assert_eq!(handle.holder_exit(1).unwrap_err().code(), Code::Unreachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gift_that_cannot_be_recorded_is_undone_and_one_taken_back_is_back() {
    let world = World::start().await;
    let give = |n: u8| {
        let (id, to) = (DonationId([n; 16]), public(2));
        Request::QuotaGive { id, to, bytes: PAGE, ttl: Micros::from_millis(60_000) }
    };
    let given = async || match world.ask(1, Request::QuotaList { after: None }).await.unwrap() {
        Reply::Quota { quota, donations } => (quota.given_bytes, donations.rows.len()),
        other => panic!("{other:?}"),
    };
    world.device.fail(0, Fault::NotStored);
    assert_eq!(world.ask(1, give(1)).await.unwrap_err().code(), Code::AuditUnavailable);
    assert_eq!(given().await, (0, 0));
    world.recovered().await;
    world.ask(1, give(1)).await.unwrap();

    // Asked for again, it is not the repetition's to undo.
    world.device.fail(0, Fault::NotStored);
    assert_eq!(world.ask(1, give(1)).await.unwrap_err().code(), Code::AuditUnavailable);
    assert_eq!(given().await, (PAGE, 1));
    world.recovered().await;

    // Taking back takes effect without a device, and is recorded later.
    world.device.fail(0, Fault::NotStored);
    let Reply::Donated(row) = world.ask(1, Request::QuotaTakeBack { id: DonationId([1; 16]) }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((row.lent, given().await), (0, (0, 0)));
    world.recovered().await;
    let logged = || world.entries().iter().any(|entry| entry.contains("quota_taken_back"));
    assert!(lived(logged), "what took effect is in the log");
}

/// Offers a lease of actor 1's to actor 2.
async fn offered(world: &World) -> TransferContract {
    let (row, _) = lease(world, 1).await;
    let contract = TransferContract {
        cluster: world.cluster,
        transfer: TransferId([6; 16]),
        lease: row.id,
        region: row.region,
        from: public(1),
        to: public(2),
        ttl: Micros(1_000_000),
    };
    let signature = contract.sign(&key(1));
    world.ask(1, Request::TransferOffer { contract, signature }).await.unwrap();
    contract
}

async fn take_over(world: &World, contract: &TransferContract) -> caps::Result<Reply> {
    let (transfer, signature) = (contract.transfer, contract.sign(&key(2)));
    world.ask(2, Request::TransferAccept { transfer, signature, lifetime: Lifetime::Detached }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_refuses_a_new_owner_leaves_the_former_one() {
    let world = World::start().await;
    let contract = offered(&world).await;
    world.link.fail_takes(Some(Code::NoMemory));
    assert_eq!(take_over(&world, &contract).await.unwrap_err().code(), Code::NoMemory);
    let (give, _) = world.link.next_take().await;
    let Take::Owner { to, since, undoes: None, .. } = give else { panic!("{give:?}") };
    assert_eq!(to, public(2));
    // It is told whose it is, in case that it did go over.
    let (back, _) = world.link.next_take().await;
    assert!(
        matches!(back, Take::Owner { to, undoes, .. } if (to, undoes) == (public(1), Some(since))),
        "{back:?}"
    );
    world.link.fail_takes(None);
    let Reply::Lease { lease, .. } =
        world.ask(1, Request::LeaseShow { lease: contract.lease }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(lease.owner, public(1));
    // And the offer stands.
    let Reply::Transferred { lease, by_owner, .. } = take_over(&world, &contract).await.unwrap() else {
        panic!()
    };
    assert_eq!((lease.owner, by_owner), (public(2), contract.sign(&key(1))));
    let (again, _) = world.link.next_take().await;
    assert!(matches!(again, Take::Owner { to, undoes: None, .. } if to == public(2)), "{again:?}");
}

/// Accepts for a process of session 2.
async fn take_over_tied(world: &World, contract: &TransferContract) -> caps::Result<Reply> {
    let (transfer, signature) = (contract.transfer, contract.sign(&key(2)));
    world.ask(2, Request::TransferAccept { transfer, signature, lifetime: Lifetime::Process }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptance_that_was_taken_back_while_the_provider_was_at_it_moves_no_later_one() {
    for first_goes_first in [true, false] {
        let world = World::start().await;
        let contract = offered(&world).await;
        world.link.hold_gives();
        let state = || async {
            let show = Request::TransferShow { transfer: contract.transfer };
            let Reply::TransferContract { transfer, .. } = world.ask(0, show).await.unwrap() else {
                panic!()
            };
            transfer.state
        };
        // The process that accepts dies while the provider is at it; another accepts again.
        let first = take_over_tied(&world, &contract);
        let again = async {
            world.link.gives_held(1).await;
            world.handle.holder_exit(2).unwrap();
            while state().await != TransferState::Offered {
                tokio::task::yield_now().await;
            }
            let second = take_over(&world, &contract);
            let order = async {
                let gives = world.link.gives_held(2).await;
                let (early, late) =
                    if first_goes_first { (gives[0], gives[1]) } else { (gives[1], gives[0]) };
                world.link.let_give_go(early);
                // The other goes once the provider is done with this one.
                let mut owner = None;
                while owner.is_none() {
                    let (take, _) = world.link.next_take().await;
                    owner = matches!(take, Take::Owner { since, undoes: None, .. } if since == early)
                        .then_some(());
                }
                world.link.let_give_go(late);
            };
            tokio::join!(second, order).0
        };
        let (first, second) = tokio::join!(first, again);
        assert!(matches!(first, Err(error) if error.code() == Code::LeaseExpired), "it came to nothing");
        assert!(matches!(second, Ok(Reply::Transferred { lease, .. }) if lease.owner == public(2)));
        assert_eq!(state().await, TransferState::Done);
        let show = Request::LeaseShow { lease: contract.lease };
        let Reply::Lease { lease, .. } = world.ask(2, show).await.unwrap() else { panic!() };
        assert_eq!(lease.owner, public(2));
        // Nothing of what was said of the first one afterwards has moved the provider.
        let link = Arc::clone(&world.link);
        world.stop();
        assert_eq!(link.owner(contract.lease), public(2));
    }
}
