//! A lease changes its owner: offer, accept, done; whatever comes in between leaves it with one owner, in one book.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Answer, Applied, Broker, Effect, Kind, Query, TokenCut, TransferAcceptance, Undo, View};
use caps::Code;
use caps::id::{LeaseId, TransferId};
use caps::share::TransferContract;
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::Reason;
use caps::wire::link::{ClaimTicket, Notice, Take};
use caps::wire::row::{EndCause, Lifetime, Target, TransferState};
use common::*;

const ID: TransferId = TransferId([0x77; 16]);
/// Which acceptance it is, of the first one in a world whose time stands still.
const FIRST: UnixMicros = UnixMicros(START + 1);

/// Something that takes an acceptance back.
type End<'a> = &'a dyn Fn(&mut World) -> Applied;
/// Something that ends a lease.
type EndOf<'a> = &'a dyn Fn(&mut World, LeaseId);

fn contract(ticket: &ClaimTicket, to: u8) -> TransferContract {
    TransferContract {
        cluster: genesis().cluster,
        transfer: ID,
        lease: ticket.lease,
        region: ticket.region,
        from: ticket.owner,
        to: public(to),
        ttl: Micros(500),
    }
}

fn offer(world: &mut World, n: u8, contract: TransferContract) -> Applied {
    world.by(n, Kind::TransferOffer { contract, signature: contract.sign(&key(n)) })
}

fn acceptance(n: u8, contract: &TransferContract, lifetime: Lifetime) -> Kind {
    let signature = contract.sign(&key(n));
    let (transfer, session) = (contract.transfer, 70 + u64::from(n));
    Kind::TransferAccept(TransferAcceptance { transfer, signature, lifetime, session })
}

fn accept(world: &mut World, n: u8, contract: &TransferContract) -> Applied {
    world.by(n, acceptance(n, contract, Lifetime::Detached))
}

/// Which acceptance it is.
fn since(accepted: Applied) -> UnixMicros {
    match accepted.answer.unwrap() {
        Answer::HandingOver { give: Take::Owner { since, .. }, .. } => since,
        other => panic!("{other:?}"),
    }
}

fn done(transfer: TransferId, since: UnixMicros) -> Kind {
    Kind::TransferDone { transfer, since }
}

fn state(world: &World) -> (TransferState, Option<EndCause>) {
    match world.view(0, Query::Transfer(ID)).unwrap() {
        View::Transfer(row, _) => (row.state, row.cause),
        other => panic!("{other:?}"),
    }
}

fn owner(world: &World, lease: LeaseId) -> caps::id::PrincipalKey {
    match world.view(0, Query::Lease(lease)).unwrap() {
        View::Lease(row) => row.owner,
        other => panic!("{other:?}"),
    }
}

/// What the provider is told when an acceptance came to nothing.
fn back(ticket: &ClaimTicket) -> Vec<Effect> {
    let (lease, to, undoes) = (ticket.lease, ticket.owner, Some(UnixMicros(START + 1)));
    let take = Take::Owner { lease, to, since: UnixMicros(START), until: UnixMicros::MAX, undoes };
    vec![Effect::Take(take, EndCause::Transfer)]
}

/// An offer of actor 1's to actor 2, accepted.
fn accepted(world: &mut World) -> (ClaimTicket, TransferContract) {
    let ticket = world.lease(1, PAGE, 9_000);
    let contract = contract(&ticket, 2);
    offer(world, 1, contract).answer.unwrap();
    accept(world, 2, &contract).answer.unwrap();
    (ticket, contract)
}

#[test]
fn the_lease_its_books_and_its_name_go_over_and_its_grants_end() {
    let mut world = World::new();
    let named = |ttl| caps::wire::request::LeaseSpec {
        name: Some(name("frames")),
        lifetime: Lifetime::Process,
        ..spec(2 * PAGE, ttl)
    };
    let ticket = world.lease_as(1, named(9_000));
    let share = world.accepted(&ticket, 5);
    let pending = world.contract(&ticket, 6, 2);
    world.offer(1, pending).answer.unwrap();
    world.now += 10;
    let contract = contract(&ticket, 2);
    let offered = offer(&mut world, 1, contract);
    assert_eq!(events(&offered.entries), [(Event::LeaseOffer, None)]);
    assert!(offered.effects.is_empty());
    let taking = world.by(2, acceptance(2, &contract, Lifetime::Process));
    assert_eq!(events(&taking.entries), [(Event::LeaseOffer, None)]);
    let Answer::HandingOver { give, back, .. } = taking.answer.unwrap() else { panic!() };
    let Take::Owner { lease, to, since, until, undoes: None } = give else { panic!("{give:?}") };
    assert!(matches!(back, Take::Owner { undoes: Some(attempt), .. } if attempt == since));
    assert_eq!((lease, to, since), (ticket.lease, public(2), UnixMicros(world.now + 1)));
    assert_eq!(until, UnixMicros(world.now + 100), "the time that a claim has");
    // Until the provider is done it is the former owner's, who can issue no new right of it.
    assert_eq!((world.used(1), world.used(2), owner(&world, lease)), ((1, 2 * PAGE), (0, 0), public(1)));
    let refused = world.issue(1, 6);
    assert_eq!(code(refused.answer), Some(Code::Busy));
    // Nor can anything else use up what the new owner's quota must have.
    assert_eq!(code(world.reserve(2, spec(PAGE, 100))), Some(Code::Busy));

    let done = world.system(done(ID, since));
    let entries = [
        (Event::ShareEnd, None),
        (Event::ShareEnd, None),
        (Event::LeaseRelease, None),
        (Event::LeaseGrant, None),
    ];
    assert_eq!(events(&done.entries), entries);
    assert!(done.effects.is_empty(), "the provider has refused all of it since it changed the owner");
    let Answer::Leased { lease: row, terms, .. } = done.answer.unwrap() else { panic!() };
    assert_eq!((row.owner, row.name, row.grants), (public(2), Some(name("frames")), 0));
    assert_eq!((terms.holder, terms.not_before, terms.grant), (public(2), since, None));
    assert_eq!((world.used(1), world.used(2)), ((0, 0), (1, 2 * PAGE)));
    assert_eq!(state(&world), (TransferState::Done, None));
    let View::Grant(grant, _) = world.view(1, Query::Grant(share.grant)).unwrap() else { panic!() };
    assert_eq!(grant.cause, Some(EndCause::Transfer));

    // The former owner has nothing of it left, the new one all: it may renew, share, release; its process ends it.
    for kind in [Kind::Release { lease }, Kind::Renew { lease, ttl: Micros(50) }] {
        assert_eq!(code(world.by(1, kind).answer), Some(Code::LeaseUnknown));
    }
    assert_eq!(code(world.revoke(1, Target::Lease(lease)).answer), Some(Code::LeaseUnknown));
    world.lease_as(1, named(9_000));
    let renewed = world.by(2, Kind::Renew { lease, ttl: Micros(8_000) });
    let Answer::Leased { terms, .. } = renewed.answer.unwrap() else { panic!() };
    assert_eq!((terms.holder, terms.not_before), (public(2), since), "its token is of its own time");
    let share = world.contract(&ClaimTicket { owner: public(2), ..ticket }, 7, 1);
    world.offer(2, share).answer.unwrap();
    world.issue(2, 7).answer.unwrap();
    world.accept(1, &share, Lifetime::Detached).answer.unwrap();
    let exit = world.system(Kind::HolderExit { session: 1 });
    let ends =
        |applied: &Applied| applied.effects.contains(&Effect::Take(Take::Lease(lease), EndCause::HolderExit));
    assert!(!ends(&exit), "the former owner's process is nothing to it");
    assert!(ends(&world.system(Kind::HolderExit { session: 72 })));
    let restored = Broker::restore(&world.broker.snapshot()).unwrap();
    assert_eq!(restored, world.broker);
}

#[test]
fn a_name_that_the_new_owner_uses_stays_where_it_is() {
    let mut world = World::new();
    let named = caps::wire::request::LeaseSpec { name: Some(name("frames")), ..spec(PAGE, 9_000) };
    let own = world.lease_as(2, named.clone());
    let ticket = world.lease_as(1, named);
    let contract = contract(&ticket, 2);
    offer(&mut world, 1, contract).answer.unwrap();
    let since = since(accept(&mut world, 2, &contract));
    let done = world.system(done(ID, since)).answer.unwrap();
    let Answer::Leased { lease, .. } = done else { panic!() };
    assert_eq!(lease.name, None);
    let View::Lease(row) = world.view(2, Query::Lease(own.lease)).unwrap() else { panic!() };
    assert_eq!(row.name, Some(name("frames")));
}

#[test]
fn who_may_not_is_refused_and_learns_nothing() {
    let mut world = World::new();
    let ticket = world.lease(1, 2 * PAGE, 9_000);
    let good = contract(&ticket, 2);
    let refused = |world: &mut World, n, contract: TransferContract| code(offer(world, n, contract).answer);
    assert_eq!(refused(&mut world, 2, good), Some(Code::LeaseUnknown));
    assert_eq!(refused(&mut world, 4, good), Some(Code::PrincipalUnknown));
    assert_eq!(
        refused(&mut world, 1, TransferContract { to: public(4), ..good }),
        Some(Code::PrincipalUnknown)
    );
    assert_eq!(refused(&mut world, 1, TransferContract { to: public(1), ..good }), Some(Code::Range));
    assert_eq!(refused(&mut world, 1, TransferContract { ttl: Micros(0), ..good }), Some(Code::Range));
    assert_eq!(
        refused(&mut world, 1, TransferContract { lease: NO_LEASE, ..good }),
        Some(Code::LeaseUnknown)
    );
    assert_eq!(
        refused(&mut world, 1, TransferContract { region: NO_REGION, ..good }),
        Some(Code::LeaseUnknown)
    );
    let forged = Kind::TransferOffer { contract: good, signature: good.sign(&key(2)) };
    assert_eq!(code(world.by(1, forged).answer), Some(Code::ContractSignature));
    // The policy: of the offer, and of the acceptance.
    let kind = Kind::TransferOffer { contract: good, signature: good.sign(&key(1)) };
    let mut command = world.command(broker::state::Actor::Principal(public(1)), kind);
    command.policy.as_mut().unwrap().allowed = false;
    assert_eq!(code(world.apply(&command).answer), Some(Code::PolicyDenied));
    assert_eq!(code(accept(&mut world, 2, &good).answer), Some(Code::GrantUnknown), "before it is offered");

    // To one whose quota has no room.
    let to_small = TransferContract { to: public(3), ..good };
    offer(&mut world, 1, to_small).answer.unwrap();
    assert_eq!(
        refused(&mut world, 1, TransferContract { transfer: TransferId([1; 16]), ..good }),
        Some(Code::Exists)
    );
    let denied = accept(&mut world, 3, &to_small);
    assert_eq!(events(&denied.entries), [(Event::QuotaDeny, Some(Code::Quota))]);
    assert_eq!(code(denied.answer), Some(Code::Quota));
    assert_eq!(state(&world).0, TransferState::Offered, "and nothing has changed");
    assert_eq!((world.used(1), world.used(3)), ((1, 2 * PAGE), (0, 0)));
    for n in [2, 4] {
        assert!(code(accept(&mut world, n, &to_small).answer).is_some());
        assert!(code(world.view(n, Query::Transfer(ID))).is_some());
    }
    assert_eq!(code(world.view(2, Query::Transfer(ID))), Some(Code::GrantUnknown));
    assert_eq!(code(world.by(2, Kind::TransferWithdraw { transfer: ID }).answer), Some(Code::GrantUnknown));
    assert_eq!(code(accept(&mut world, 1, &to_small).answer), Some(Code::Denied));
    assert_eq!(code(world.by(2, done(ID, UnixMicros(1))).answer), Some(Code::Protocol));
    world.by(3, Kind::TransferWithdraw { transfer: ID }).answer.unwrap();
    assert_eq!(state(&world), (TransferState::Ended, Some(EndCause::Released)));
    assert_eq!(code(accept(&mut world, 3, &to_small).answer), Some(Code::ShareOrder));

    // Twice, and what is done is not withdrawn.
    let again = TransferContract { transfer: TransferId([2; 16]), ..good };
    offer(&mut world, 1, again).answer.unwrap();
    let forged = TransferContract { ttl: Micros(1), ..again };
    assert_eq!(code(accept(&mut world, 2, &forged).answer), Some(Code::ContractSignature));
    let since = since(accept(&mut world, 2, &again));
    assert_eq!(code(accept(&mut world, 2, &again).answer), Some(Code::ShareOrder));
    let withdraw = Kind::TransferWithdraw { transfer: again.transfer };
    assert_eq!(code(world.by(1, withdraw.clone()).answer), Some(Code::ShareOrder));
    world.system(done(again.transfer, since)).answer.unwrap();
    assert_eq!(code(world.system(done(again.transfer, since)).answer), Some(Code::Exists));
    assert_eq!(code(world.by(1, withdraw).answer), Some(Code::ShareOrder));
}

#[test]
fn an_acceptance_that_comes_to_nothing_leaves_the_former_owner() {
    // The provider refused; it did not answer in time; the receiver's process died; it could not be recorded.
    let ends: [(End<'_>, Lifetime); 4] = [
        (&|world| world.system(Kind::TransferBack { transfer: ID, since: FIRST }), Lifetime::Detached),
        (&|world| world.tick_at(START + 100), Lifetime::Detached),
        (&|world| world.system(Kind::HolderExit { session: 72 }), Lifetime::Process),
        (
            &|world| world.system(Kind::Undo(Undo::TransferAccept { transfer: ID, since: FIRST })),
            Lifetime::Detached,
        ),
    ];
    for (end, lifetime) in ends {
        let mut world = World::new();
        let ticket = world.lease(1, PAGE, 9_000);
        let contract = contract(&ticket, 2);
        offer(&mut world, 1, contract).answer.unwrap();
        world.by(2, acceptance(2, &contract, lifetime)).answer.unwrap();
        let ended = end(&mut world);
        assert_eq!(ended.effects, back(&ticket), "the provider is told whose it is");
        assert_eq!(events(&ended.entries), [(Event::LeaseOffer, None)]);
        assert_eq!(ended.entries[0].get(Key::Cause), Some("\"offer_stands\""));
        assert_eq!(state(&world), (TransferState::Offered, None), "the offer stands again");
        assert_eq!((world.used(1), world.used(2)), ((1, PAGE), (0, 0)));
        let late = world.system(done(ID, FIRST));
        assert_eq!(
            code(late.answer),
            Some(Code::LeaseExpired),
            "what the provider did after all is too late"
        );
        world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(8_000) }).answer.unwrap();
        world.reserve(2, spec(PAGE, 100)).unwrap();
        // Accepted once more in the same instant, it is told apart from the time before.
        if world.now == START {
            let again = accept(&mut world, 2, &contract).answer.unwrap();
            let Answer::HandingOver { give, .. } = again else { panic!() };
            assert!(matches!(give, Take::Owner { since, .. } if since == UnixMicros(START + 2)), "{give:?}");
            // Nothing that is said of the time before moves it.
            for stale in [
                done(ID, FIRST),
                Kind::TransferBack { transfer: ID, since: FIRST },
                Kind::Undo(Undo::TransferAccept { transfer: ID, since: FIRST }),
            ] {
                let stale = world.system(stale);
                assert!(stale.entries.is_empty() && stale.effects.is_empty());
                assert_eq!(code(stale.answer), Some(Code::LeaseExpired));
                assert_eq!(
                    (state(&world).0, owner(&world, ticket.lease)),
                    (TransferState::Accepted, public(1))
                );
            }
            let since = UnixMicros(START + 2);
            world.system(Kind::TransferBack { transfer: ID, since }).answer.unwrap();
        }
        // Until its time is over.
        let _ = world.tick_at(START + 500);
        assert_eq!(state(&world), (TransferState::Ended, Some(EndCause::Expired)));
    }
}

#[test]
fn an_offer_ends_with_its_lease_whatever_ends_that() {
    let ends: [EndOf<'_>; 4] = [
        &|world, lease| drop(world.by(1, Kind::Release { lease })),
        &|world, lease| drop(world.revoke(0, Target::Lease(lease))),
        &|world, lease| {
            let cause = EndCause::HolderExit;
            drop(world.system(notice(Notice::LeaseEnded { lease, cause })));
        },
        &|world, _| drop(world.lose()),
    ];
    for end in ends {
        let mut world = World::new();
        let (ticket, _) = accepted(&mut world);
        end(&mut world, ticket.lease);
        assert_eq!(state(&world), (TransferState::Ended, Some(EndCause::ParentEnded)));
        let late = world.system(done(ID, FIRST));
        assert_eq!(code(late.answer), Some(Code::LeaseExpired));
    }
}

#[test]
fn revoking_a_holder_takes_what_was_offered_to_it_and_no_lease_that_it_gave_away() {
    let mut world = World::new();
    let (ticket, _) = accepted(&mut world);
    world.revoke(1, Target::Holder(public(2))).answer.unwrap();
    assert_eq!(state(&world), (TransferState::Ended, Some(EndCause::Revoked)));
    let contract = TransferContract { transfer: TransferId([3; 16]), ..contract(&ticket, 2) };
    offer(&mut world, 1, contract).answer.unwrap();
    let since = since(accept(&mut world, 2, &contract));
    world.system(done(contract.transfer, since)).answer.unwrap();
    let revoked = world.revoke(0, Target::Holder(public(1)));
    assert!(!revoked.effects.contains(&Effect::Take(Take::Lease(ticket.lease), EndCause::Revoked)));
    assert_eq!(world.used(2), (1, PAGE));
    let revoked = world.revoke(0, Target::Holder(public(2)));
    assert!(revoked.effects.contains(&Effect::Take(Take::Lease(ticket.lease), EndCause::Revoked)));
}

/// By a mark, who held a token of the former owner's could end what the new owner's delegates have open.
#[test]
fn who_held_a_former_owners_token_revokes_nothing_of_the_new_owners() {
    let mut world = World::new();
    let (ticket, _) = accepted(&mut world);
    world.system(done(ID, FIRST)).answer.unwrap();
    let since = START + 1;
    world.now += 10;
    let id = |n| RevocationId([n; 64]);
    let cut = |n, not_before| {
        Kind::RevokeToken(TokenCut {
            lease: ticket.lease,
            grant: None,
            id: id(n),
            marks: [Some(Mark::signature(&id(n))), None],
            range: None,
            not_before: UnixMicros(not_before),
            until: UnixMicros(START + 5_000),
            held: true,
            reason: Reason::default(),
        })
    };
    // The former owner, the present one and somebody else, again and again: there is no room to fill.
    for by in [1, 2, 3].repeat(policy::limits::MARKS_PER_REGION_MAX) {
        let dead = world.by(by, cut(by, since - 1));
        assert_eq!(dead.answer.unwrap(), Answer::EndedBefore { leases: vec![] }, "nothing could use it");
        assert!(dead.effects.is_empty(), "and the provider is told nothing");
    }
    for by in [1, 2, 3] {
        let live = world.by(by, cut(by, since));
        assert_eq!(live.answer.unwrap(), Answer::Ending { leases: vec![] });
        assert!(matches!(live.effects[..], [Effect::Take(Take::Marks { .. }, EndCause::Revoked)]));
    }
}

#[test]
fn who_signed_a_hand_over_changes_nothing_of_the_lease_and_of_its_quota_until_it_is_done() {
    let mut world = World::new();
    let (ticket, _) = accepted(&mut world);
    let busy = |applied: Applied| assert_eq!(code(applied.answer), Some(Code::Busy));
    let lease = ticket.lease;
    busy(world.by(1, Kind::Renew { lease, ttl: Micros(10) }));
    let share = world.contract(&ticket, 6, 2);
    busy(world.offer(1, share));
    let id = caps::id::DonationId([1; 16]);
    busy(world.by(2, Kind::QuotaGive { id, to: public(1), bytes: PAGE, ttl: Micros(1_000) }));
    world.system(Kind::TransferBack { transfer: ID, since: FIRST }).answer.unwrap();
    // It came to nothing: all of it may be asked for again.
    world.by(1, Kind::Renew { lease, ttl: Micros(8_000) }).answer.unwrap();
    world.offer(1, share).answer.unwrap();
    world.issue(1, 6).answer.unwrap();
    world.by(2, Kind::QuotaGive { id, to: public(1), bytes: PAGE, ttl: Micros(1_000) }).answer.unwrap();
}

#[test]
fn an_offer_of_a_share_that_waits_for_its_issue_outlives_a_hand_over_that_comes_to_nothing() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 9_000);
    let share = world.contract(&ticket, 6, 2);
    world.offer(1, share).answer.unwrap();
    let contract = contract(&ticket, 2);
    offer(&mut world, 1, contract).answer.unwrap();
    let since = since(accept(&mut world, 2, &contract));
    assert_eq!(code(world.issue(1, 6).answer), Some(Code::Busy));
    world.system(Kind::TransferBack { transfer: ID, since }).answer.unwrap();
    world.issue(1, 6).answer.unwrap();
}

#[test]
fn a_renewal_of_the_former_owner_is_not_undone_at_the_new_ones_cost() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 500);
    let lease = ticket.lease;
    let renewed = world.by(1, Kind::Renew { lease, ttl: Micros(9_000) });
    let Answer::Leased { before: expires, terms, .. } = renewed.answer.unwrap() else { panic!() };
    let contract = contract(&ticket, 2);
    offer(&mut world, 1, contract).answer.unwrap();
    let given = since(accept(&mut world, 2, &contract));
    world.system(done(ID, given)).answer.unwrap();
    let undone = world.system(Kind::Undo(Undo::Renew { lease, expires, since: terms.not_before }));
    assert!(undone.entries.is_empty() && undone.effects.is_empty());
    let View::Lease(row) = world.view(2, Query::Lease(lease)).unwrap() else { panic!() };
    assert_eq!(row.expires_in, Micros(9_000));
}

#[test]
fn the_log_says_which_tokens_died_and_an_offer_that_is_over_nothing_of_the_lease() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 9_000);
    let contract = contract(&ticket, 2);
    offer(&mut world, 1, contract).answer.unwrap();
    let seen = |world: &World| match world.view(1, Query::Transfer(ID)).unwrap() {
        View::Transfer(row, _) => (row.bytes, row.expires_in),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&world), (PAGE, Micros(9_000)));
    let mut entries = Vec::new();
    let accepted = accept(&mut world, 2, &contract);
    entries.extend(accepted.entries.iter().map(|entry| entry.get(Key::FirstTime).map(str::to_owned)));
    let given = world.system(done(ID, since(accepted)));
    entries.extend(given.entries.iter().map(|entry| entry.get(Key::FirstTime).map(str::to_owned)));
    assert!(entries.len() == 3 && entries[0].is_some(), "{entries:?}");
    assert!(entries.iter().all(|time| *time == entries[0]), "{entries:?}");
    assert_eq!(seen(&world), (0, Micros(0)));
    // What the new owner gives at once is not older than its own time.
    let share = world.contract(&ClaimTicket { owner: public(2), ..ticket }, 7, 1);
    world.offer(2, share).answer.unwrap();
    world.issue(2, 7).answer.unwrap();
    let accepted = world.accept(1, &share, Lifetime::Detached).answer.unwrap();
    let Answer::Accepted { terms, .. } = accepted else { panic!() };
    assert_eq!(terms.not_before, FIRST);
}

#[test]
fn a_table_that_the_former_owner_filled_is_empty_for_the_new_one() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 9_000);
    let id = |n: usize| {
        let mut id = [0; 64];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        caps::token::RevocationId(id)
    };
    let block = |n| Target::Block { lease: ticket.lease, id: id(n) };
    for n in 0..policy::limits::MARKS_PER_REGION_MAX {
        world.revoke(1, block(n)).answer.unwrap();
    }
    let contract = contract(&ticket, 2);
    offer(&mut world, 1, contract).answer.unwrap();
    let given = since(accept(&mut world, 2, &contract));
    world.system(done(ID, given)).answer.unwrap();
    // Where there were no room, it would be the whole lease that goes.
    let cut = world.revoke(2, block(policy::limits::MARKS_PER_REGION_MAX));
    assert!(matches!(cut.effects[..], [Effect::Take(Take::Marks { .. }, _)]), "{:?}", cut.effects);
}
