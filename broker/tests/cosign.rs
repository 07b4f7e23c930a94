//! A contract that names a third party is good for nothing until that one has signed it, too.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Actor, Answer, Broker, Kind, PolicyVerdict, Query, Undo, View};
use caps::Code;
use caps::id::GrantId;
use caps::share::{ShareContract, Signed};
use caps::time::Micros;
use caps::wire::link::ClaimTicket;
use caps::wire::row::{EndCause, GrantRow, GrantState, Lifetime, Target};
use common::*;

/// From 1 to 2, to be co-signed by 3.
fn contract(world: &World, ticket: &ClaimTicket, grant: u8) -> ShareContract {
    ShareContract { cosigner: Some(public(3)), ..world.contract(ticket, grant, 2) }
}

fn offered(world: &mut World, n: u8, contract: ShareContract) -> broker::state::Applied {
    world.by(n, Kind::OfferToCosign { contract, signature: contract.sign(&key(n)), uid: Some(1000) })
}

fn cosigned(world: &mut World, n: u8, contract: &ShareContract) -> broker::state::Applied {
    world.by(n, Kind::Cosign { grant: contract.grant, signature: contract.sign(&key(n)) })
}

fn seen(world: &World, n: u8, grant: GrantId) -> caps::Result<(GrantRow, Signed)> {
    match world.view(n, Query::Grant(grant))? {
        View::Grant(row, signed) => Ok((row, signed)),
        other => panic!("{other:?}"),
    }
}

fn state(world: &World, grant: GrantId) -> GrantState {
    seen(world, 0, grant).unwrap().0.state
}

/// A world with an offer of its own contract that waits.
fn waiting() -> (World, ClaimTicket, ShareContract) {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let contract = contract(&world, &ticket, 5);
    offered(&mut world, 1, contract).answer.unwrap();
    (world, ticket, contract)
}

#[test]
fn it_is_issued_by_the_third_signature() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let contract = contract(&world, &ticket, 5);
    let offer = offered(&mut world, 1, contract);
    assert_eq!(events(&offer.entries), [(Event::ShareOffer, None)]);
    let (row, signed) = seen(&world, 3, contract.grant).unwrap();
    assert_eq!((row.state, row.expires_in), (GrantState::Offered, Micros(700)), "it says how long it waits");
    let cosigner = row.cosigner.unwrap();
    assert_eq!((cosigner.key, cosigner.name, cosigner.signed), (public(3), Some(name("small")), false));
    assert_eq!((signed.contract, signed.by_cosigner), (contract, None));
    let View::ToCosign { uid, .. } = world.view(3, Query::ToCosign(contract.grant)).unwrap() else {
        panic!()
    };
    assert_eq!(uid, Some(1000), "the policy is told of the process that offered");

    let cosign = cosigned(&mut world, 3, &contract);
    assert_eq!(events(&cosign.entries), [(Event::ShareOffer, None)]);
    // The owner's process need not be there: the issue comes from the co-signer.
    let issue = world.issue(3, 5);
    assert_eq!(events(&issue.entries), [(Event::ShareIssue, None)]);
    let Answer::Shared(row) = issue.answer.unwrap() else { panic!() };
    assert_eq!((row.state, row.cosigner.unwrap().signed), (GrantState::Issued, true));
    world.accept(2, &contract, Lifetime::Detached).answer.unwrap();
    let pair = seen(&world, 1, contract.grant).unwrap().1.pair().unwrap();
    assert_eq!(*pair.verify().unwrap().contract(), contract);

    // Each signature stands in the log beside the whole contract, the co-signer with it.
    let hex =
        |bytes: &[u8]| format!("\"{}\"", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    for (entry, signer) in [(&offer.entries[0], 1), (&cosign.entries[0], 3)] {
        assert_eq!(entry.get(Key::Signature), Some(&hex(&contract.sign(&key(signer)).0)[..]));
        assert_eq!(entry.get(Key::Cosigner), Some(&hex(&public(3).0)[..]));
        assert_eq!(entry.get(Key::Subject), Some(&hex(&public(signer).0)[..]));
        for field in [Key::Grant, Key::Owner, Key::Receiver, Key::Rights, Key::Range, Key::TtlUs, Key::Hops] {
            assert!(entry.get(field).is_some(), "{field:?}");
        }
    }
    assert_eq!(offer.entries[0].get(Key::Cause), None);
    assert_eq!(cosign.entries[0].get(Key::Cause), Some("\"cosigned\""));
}

#[test]
fn no_step_comes_before_it_or_twice() {
    let (mut world, _, contract) = waiting();
    for n in [1, 3] {
        assert_eq!(code(world.issue(n, 5).answer), Some(Code::ShareOrder), "{n}");
    }
    assert_eq!(code(world.accept(2, &contract, Lifetime::Detached).answer), Some(Code::ShareOrder));
    assert_eq!(state(&world, contract.grant), GrantState::Offered, "it waits on");
    cosigned(&mut world, 3, &contract).answer.unwrap();
    assert_eq!(code(cosigned(&mut world, 3, &contract).answer), Some(Code::ShareOrder));
    world.issue(1, 5).answer.unwrap();
    assert_eq!(code(cosigned(&mut world, 3, &contract).answer), Some(Code::ShareOrder));
    assert_eq!(code(world.issue(3, 5).answer), Some(Code::ShareOrder));
    world.revoke(1, Target::Grant(contract.grant)).answer.unwrap();
    assert_eq!(code(cosigned(&mut world, 3, &contract).answer), Some(Code::ShareOrder));
}

#[test]
fn only_who_is_named_can_co_sign_and_only_this() {
    let (mut world, ticket, contract) = waiting();
    // The owner, the receiver and the administrator see it, and are not asked; a stranger does not see it.
    for n in [0, 1, 2] {
        assert_eq!(code(cosigned(&mut world, n, &contract).answer), Some(Code::Denied), "{n}");
        assert_eq!(code(world.view(n, Query::ToCosign(contract.grant))), Some(Code::Denied));
    }
    assert_eq!(code(cosigned(&mut world, 4, &contract).answer), Some(Code::PrincipalUnknown));
    // Another's signature, and this one's over something else: other terms, or the text without the third party.
    for signature in [
        contract.sign(&key(1)),
        contract.sign(&key(2)),
        ShareContract { max_hops: 0, ..contract }.sign(&key(3)),
        ShareContract { cosigner: None, ..contract }.sign(&key(3)),
    ] {
        let refused = world.by(3, Kind::Cosign { grant: contract.grant, signature });
        assert_eq!(code(refused.answer), Some(Code::ContractSignature));
        assert_eq!(events(&refused.entries), [(Event::ShareOffer, Some(Code::ContractSignature))]);
    }
    assert_eq!(state(&world, contract.grant), GrantState::Offered);
    // What a co-signer may do is co-sign.
    for target in [Target::Grant(contract.grant), Target::Subtree(contract.grant)] {
        assert_eq!(code(world.revoke(3, target).answer), Some(Code::GrantUnknown));
    }
    // A grant without a third party has none, and a principal that is in none does not see it.
    let plain = world.contract(&ticket, 6, 2);
    world.offer(1, plain).answer.unwrap();
    assert_eq!(code(cosigned(&mut world, 3, &plain).answer), Some(Code::GrantUnknown));
    assert_eq!(code(cosigned(&mut world, 2, &plain).answer), Some(Code::Denied));
    assert_eq!(code(seen(&world, 3, plain.grant)), Some(Code::GrantUnknown));
    let View::Grants(page) = world.view(3, Query::Grants(None)).unwrap() else { panic!() };
    assert_eq!(page.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [contract.grant]);
    // Everything that it holds is not what it signs for others.
    world.revoke(0, Target::Holder(public(3))).answer.unwrap();
    assert_eq!(state(&world, contract.grant), GrantState::Offered);
}

#[test]
fn the_three_are_three_and_known_here() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let good = contract(&world, &ticket, 5);
    for (cosigner, expected) in [(1, Code::Range), (2, Code::Range), (4, Code::PrincipalUnknown)] {
        let contract = ShareContract { cosigner: Some(public(cosigner)), ..good };
        assert_eq!(code(offered(&mut world, 1, contract).answer), Some(expected), "{cosigner}");
    }
    let signature = ShareContract { cosigner: None, ..good }.sign(&key(1));
    let unsigned = world.by(1, Kind::OfferToCosign { contract: good, signature, uid: Some(0) });
    assert_eq!(code(unsigned.answer), Some(Code::ContractSignature), "the owner signs who has to co-sign");
    // Neither kind of offer takes the other's contracts.
    assert_eq!(code(world.offer(1, good).answer), Some(Code::Protocol));
    let plain = world.contract(&ticket, 5, 2);
    assert_eq!(code(offered(&mut world, 1, plain).answer), Some(Code::Protocol));
    assert_eq!(world.status().grants, 0);
}

#[test]
fn the_policy_is_asked_at_the_offer_and_at_the_issue() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let contract = contract(&world, &ticket, 5);
    let no = |hash| Some(PolicyVerdict { allowed: false, rule: None, hash });
    let (now, other) = (genesis().policy, [3; 32]);
    let signature = contract.sign(&key(1));
    let offer = Kind::OfferToCosign { contract, signature, uid: Some(1000) };
    let mut command = world.command(Actor::Principal(public(1)), offer);
    for (policy, expected) in
        [(no(now), Code::PolicyDenied), (no(other), Code::Busy), (None, Code::PolicyDenied)]
    {
        command.policy = policy;
        assert_eq!(code(world.apply(&command).answer), Some(expected));
        assert_eq!(world.status().grants, 0);
    }
    offered(&mut world, 1, contract).answer.unwrap();
    // One that was exchanged while the co-signer's request was judged ends nothing: it asks again.
    let cosign = Kind::Cosign { grant: contract.grant, signature: contract.sign(&key(3)) };
    let mut command = world.command(Actor::Principal(public(3)), cosign);
    command.policy = no(other);
    assert_eq!(code(world.apply(&command).answer), Some(Code::Busy));
    // A no at the issue ends it, and what was signed is on record.
    command.policy = no(now);
    world.apply(&command).answer.unwrap();
    let mut command = world.command(Actor::Principal(public(3)), Kind::Issue { grant: contract.grant });
    command.policy = no(now);
    let refused = world.apply(&command);
    assert_eq!(code(refused.answer), Some(Code::PolicyDenied));
    assert_eq!(
        events(&refused.entries),
        [(Event::ShareIssue, Some(Code::PolicyDenied)), (Event::ShareEnd, None)]
    );
    assert_eq!(seen(&world, 1, contract.grant).unwrap().0.cause, Some(EndCause::NotClaimed));
}

#[test]
fn what_waits_is_charged_and_what_ends_is_not() {
    let mut world = World::new();
    // 16 KiB may be shared: four pages, the fifth is too many while the others wait.
    let (first, second) = (world.lease(1, PAGE, 5_000), world.lease(1, PAGE, 5_000));
    let at = |world: &World, n: u8| contract(world, if n < 3 { &first } else { &second }, n);
    for n in 0..4 {
        let contract = at(&world, n);
        offered(&mut world, 1, contract).answer.unwrap();
    }
    let more = at(&world, 4);
    let refused = offered(&mut world, 1, more);
    assert_eq!(code(refused.answer), Some(Code::Quota));
    assert_eq!(events(&refused.entries), [(Event::QuotaDeny, Some(Code::Quota))]);
    // The owner withdraws one, and there is room; issuing one charges nothing more.
    world.revoke(1, Target::Grant(GrantId([0; 16]))).answer.unwrap();
    offered(&mut world, 1, more).answer.unwrap();
    let signed = at(&world, 1);
    cosigned(&mut world, 3, &signed).answer.unwrap();
    world.issue(3, 1).answer.unwrap();
    let restored = Broker::restore(&world.broker.snapshot()).unwrap();
    assert_eq!(restored, world.broker);
    // The time that an offer waits is over: what was not signed ends by itself, and cannot be signed any more.
    world.now = START + 700;
    assert_eq!(code(cosigned(&mut world, 3, &more).answer), Some(Code::LeaseExpired));
    let ended = world.tick_at(START + 700);
    assert_eq!(events(&ended.entries).iter().filter(|(event, _)| *event == Event::ShareEnd).count(), 4);
    assert!(ended.effects.is_empty(), "nobody had a token");
    assert_eq!(code(cosigned(&mut world, 3, &more).answer), Some(Code::ShareOrder));
    assert_eq!(world.status().grants, 0);
    let again = at(&world, 6);
    offered(&mut world, 1, again).answer.unwrap();
}

#[test]
fn it_ends_with_its_lease_its_parties_and_its_record() {
    // The lease.
    let (mut world, ticket, contract) = waiting();
    world.by(1, Kind::Release { lease: ticket.lease }).answer.unwrap();
    assert_eq!(code(cosigned(&mut world, 3, &contract).answer), Some(Code::ShareOrder));
    // A registration that was undone, of the one who was to sign or had.
    for signed in [false, true] {
        let (mut world, _, contract) = waiting();
        if signed {
            cosigned(&mut world, 3, &contract).answer.unwrap();
            world.issue(3, 5).answer.unwrap();
        }
        world.system(Kind::Undo(Undo::PrincipalAdd { key: public(3) })).answer.unwrap();
        assert_eq!(seen(&world, 1, contract.grant).unwrap().0.cause, Some(EndCause::NotRecorded));
    }
    // The owner's process is gone, which ends leases that are tied to it and no offer of another.
    let (mut world, _, contract) = waiting();
    world.system(Kind::HolderExit { session: 1 }).answer.unwrap();
    cosigned(&mut world, 3, &contract).answer.unwrap();
    world.issue(3, 5).answer.unwrap();
}

#[test]
fn the_pair_of_an_ended_grant_can_still_be_had() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 5_000);
    let contract = world.accepted(&ticket, 5);
    world.revoke(1, Target::Grant(contract.grant)).answer.unwrap();
    let (row, signed) = seen(&world, 2, contract.grant).unwrap();
    assert_eq!(row.state, GrantState::Ended);
    assert_eq!(*signed.pair().unwrap().verify().unwrap().contract(), contract);
    let restored = Broker::restore(&world.broker.snapshot()).unwrap();
    assert_eq!(restored, world.broker);
    // One that was never accepted has none.
    let never = world.contract(&ticket, 6, 2);
    world.offer(1, never).answer.unwrap();
    world.revoke(1, Target::Grant(never.grant)).answer.unwrap();
    assert_eq!(seen(&world, 2, never.grant).unwrap().1.pair(), None);
}
