//! The five steps of `MEM_SHARE`, in their order and in every other.

mod common;

use audit::Event;
use audit::draft::Key;
use broker::state::{Acceptance, Actor, Answer, Effect, Kind, PolicyVerdict, Query, Undo, View};
use caps::Code;
use caps::id::{ClusterEpoch, GrantId, RegionId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::Micros;
use caps::wire::link::{Notice, Take};
use caps::wire::row::{EndCause, GrantState, Lifetime, Target};
use common::*;

fn grant_row(world: &World, n: u8, grant: GrantId) -> caps::wire::row::GrantRow {
    match world.view(n, Query::Grant(grant)).unwrap() {
        View::Grant(row, _) => row,
        other => panic!("{other:?}"),
    }
}

fn opened(grant: GrantId) -> Kind {
    notice(Notice::GrantOpened { grant })
}

#[test]
fn five_steps_five_entries() {
    let mut world = World::new();
    let ticket = world.lease(1, 2 * PAGE, 1_000);
    let contract = world.contract(&ticket, 5, 2);

    let offered = world.offer(1, contract);
    assert_eq!(events(&offered.entries), [(Event::ShareOffer, None)]);
    let Answer::Shared(row) = offered.answer.unwrap() else { panic!() };
    assert_eq!((row.state, row.receiver_name), (GrantState::Offered, Some(name("bob"))));

    let issued = world.issue(1, 5);
    assert_eq!(events(&issued.entries), [(Event::ShareIssue, None)]);
    let Answer::Shared(row) = issued.answer.unwrap() else { panic!() };
    assert_eq!(row.state, GrantState::Issued);

    world.now += 10;
    let accepted = world.accept(2, &contract, Lifetime::Detached);
    assert_eq!(events(&accepted.entries), [(Event::ShareAccept, None)]);
    let Answer::Accepted { grant, terms } = accepted.answer.unwrap() else { panic!() };
    assert_eq!(
        (grant.state, grant.expires_in),
        (GrantState::Accepted, Micros(490)),
        "counted from the issue"
    );
    assert_eq!((terms.grant, terms.holder, terms.rights), (Some(contract.grant), public(2), Rights::READ));
    assert_eq!((terms.range, terms.max_hops, terms.expires.0), (contract.range, 1, START + 500));
    terms.check().unwrap();

    let open = world.system(opened(contract.grant));
    assert_eq!(events(&open.entries), [(Event::ShareOpen, None)]);

    let ended = world.revoke(1, Target::Grant(contract.grant));
    assert_eq!(events(&ended.entries), [(Event::ShareEnd, None)]);
    let take = Take::Grant { lease: ticket.lease, grant: contract.grant, expires: terms.expires };
    assert_eq!(ended.effects, [Effect::Take(take, EndCause::Revoked)]);
    assert_eq!(grant_row(&world, 2, contract.grant).cause, Some(EndCause::Revoked));

    // Both signatures stand in the log, each beside the whole contract.
    let hex = |signature: caps::key::Signature| {
        format!("\"{}\"", signature.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    for (entry, signer) in [(&offered.entries[0], 1), (&accepted.entries[0], 2)] {
        assert_eq!(entry.get(Key::Signature), Some(&hex(contract.sign(&key(signer)))[..]));
        for field in [Key::Cluster, Key::Grant, Key::Lease, Key::Region, Key::Owner, Key::Receiver] {
            assert!(entry.get(field).is_some(), "{field:?}");
        }
        for field in [Key::Rights, Key::Range, Key::TtlUs, Key::Hops] {
            assert!(entry.get(field).is_some(), "{field:?}");
        }
    }
}

/// From each state, each step but the next one is refused and changes nothing.
#[test]
fn any_other_order_is_refused() {
    for reached in 0..=5 {
        for tried in 1..=4 {
            if tried == reached + 1 {
                continue;
            }
            let mut world = World::new();
            let ticket = world.lease(1, PAGE, 1_000);
            let contract = world.contract(&ticket, 5, 2);
            let step = |world: &mut World, step| match step {
                1 => world.offer(1, contract),
                2 => world.issue(1, 5),
                3 => world.accept(2, &contract, Lifetime::Detached),
                4 => world.system(opened(contract.grant)),
                5 => world.revoke(1, Target::Grant(contract.grant)),
                _ => unreachable!(),
            };
            for before in 1..=reached {
                step(&mut world, before).answer.unwrap();
            }
            let snapshot = grant_state(&world, contract.grant);
            let expected = match (reached, tried) {
                (0, _) => Code::GrantUnknown,
                (_, 1) => Code::Exists,
                _ => Code::ShareOrder,
            };
            assert_eq!(code(step(&mut world, tried).answer), Some(expected), "{tried} after {reached}");
            assert_eq!(grant_state(&world, contract.grant), snapshot);
        }
    }
}

fn grant_state(world: &World, grant: GrantId) -> Option<GrantState> {
    match world.view(0, Query::Grant(grant)) {
        Ok(View::Grant(row, _)) => Some(row.state),
        _ => None,
    }
}

#[test]
fn a_contract_is_held_to_the_lease() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let other = world.lease(2, PAGE, 1_000);
    let good = world.contract(&ticket, 5, 2);
    let wide = ByteRange::new(0, PAGE + 1).unwrap();
    for (contract, expected) in [
        (ShareContract { cluster: ClusterEpoch([0; 16]), ..good }, Code::Epoch),
        (ShareContract { lease: NO_LEASE, ..good }, Code::LeaseUnknown),
        (ShareContract { lease: other.lease, region: other.region, ..good }, Code::LeaseUnknown),
        (ShareContract { region: RegionId([0; 16]), ..good }, Code::LeaseUnknown),
        (ShareContract { owner: public(2), ..good }, Code::LeaseUnknown),
        (ShareContract { receiver: public(4), ..good }, Code::PrincipalUnknown),
        (ShareContract { receiver: public(1), ..good }, Code::Range),
        (ShareContract { rights: Rights::NONE, ..good }, Code::Range),
        (ShareContract { range: wide, ..good }, Code::Range),
        (ShareContract { ttl: Micros(0), ..good }, Code::Range),
        (ShareContract { ttl: Micros(1 << 63), ..good }, Code::Range),
        (ShareContract { max_hops: 8, ..good }, Code::Range),
    ] {
        let refused = world.offer(1, contract);
        assert_eq!(code(refused.answer), Some(expected), "{contract:?}");
        assert_eq!(events(&refused.entries), [(Event::ShareOffer, Some(expected))]);
    }
    let forged = good.sign(&key(2));
    let refused = world.by(1, Kind::Offer { contract: good, signature: forged });
    assert_eq!(code(refused.answer), Some(Code::ContractSignature));
    let stolen = world.by(2, Kind::Offer { contract: good, signature: good.sign(&key(1)) });
    assert_eq!(code(stolen.answer), Some(Code::LeaseUnknown), "another's lease");
    world.offer(1, good).answer.unwrap();
    assert_eq!(code(world.offer(1, good).answer), Some(Code::Exists));
}

#[test]
fn an_acceptance_is_the_receivers_own() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.contract(&ticket, 5, 2);
    world.offer(1, contract).answer.unwrap();
    world.issue(1, 5).answer.unwrap();
    assert_eq!(code(world.accept(1, &contract, Lifetime::Detached).answer), Some(Code::Denied));
    assert_eq!(code(world.accept(3, &contract, Lifetime::Detached).answer), Some(Code::GrantUnknown));
    let signature = contract.sign(&key(1));
    let lifetime = Lifetime::Detached;
    let kind = Kind::Accept(Acceptance { grant: contract.grant, signature, lifetime, session: 1 });
    let refused = world.by(2, kind);
    assert_eq!(code(refused.answer), Some(Code::ContractSignature));
    assert_eq!(events(&refused.entries), [(Event::ShareAccept, Some(Code::ContractSignature))]);
    assert_eq!(code(world.issue(2, 5).answer), Some(Code::Denied));
    assert_eq!(code(world.issue(3, 5).answer), Some(Code::GrantUnknown));
    assert_eq!(code(world.by(2, Kind::Issue { grant: NO_GRANT }).answer), Some(Code::GrantUnknown));
}

#[test]
fn a_share_never_outlives_its_lease() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 300);
    let contract = world.accepted(&ticket, 5);
    assert_eq!(grant_row(&world, 2, contract.grant).expires_in, Micros(300), "clipped");
    world.by(1, Kind::Renew { lease: ticket.lease, ttl: Micros(50) }).answer.unwrap();
    assert_eq!(grant_row(&world, 2, contract.grant).expires_in, Micros(50));
    let ended = world.by(1, Kind::Release { lease: ticket.lease });
    assert_eq!(events(&ended.entries), [(Event::LeaseRelease, None), (Event::ShareEnd, None)]);
    assert_eq!(ended.entries[1].get(Key::Cause), Some("\"parent_ended\""));
    assert_eq!(takes(&ended.effects), 1, "the lease takes its shares along");
}

#[test]
fn policy_and_quota_refuse_at_the_second_step() {
    let mut world = World::new();
    let ticket = world.lease(1, 16 * 1024, 1_000);
    let contract =
        ShareContract { range: ByteRange::new(0, 16 * 1024).unwrap(), ..world.contract(&ticket, 5, 2) };
    world.offer(1, contract).answer.unwrap();
    let mut command = world.command(Actor::Principal(public(1)), Kind::Issue { grant: contract.grant });
    command.policy = Some(PolicyVerdict { allowed: false, ..allowed() });
    let refused = world.apply(&command);
    assert_eq!(code(refused.answer), Some(Code::PolicyDenied));
    assert_eq!(
        events(&refused.entries),
        [(Event::ShareIssue, Some(Code::PolicyDenied)), (Event::ShareEnd, None)]
    );

    let whole = ShareContract { grant: GrantId([6; 16]), ..contract };
    world.offer(1, whole).answer.unwrap();
    world.issue(1, 6).answer.unwrap();
    let more = world.contract(&ticket, 7, 2);
    world.offer(1, more).answer.unwrap();
    let refused = world.issue(1, 7);
    assert_eq!(code(refused.answer), Some(Code::Quota), "16 KiB may be shared");
    assert_eq!(events(&refused.entries), [(Event::QuotaDeny, Some(Code::Quota)), (Event::ShareEnd, None)]);
    world.revoke(1, Target::Grant(whole.grant)).answer.unwrap();
    let again = world.contract(&ticket, 8, 2);
    world.offer(1, again).answer.unwrap();
    world.issue(1, 8).answer.unwrap();
}

#[test]
fn tables_and_leases_have_room_for_so_many_grants() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    for grant in 1..=3 {
        let contract =
            ShareContract { range: ByteRange::new(0, 1).unwrap(), ..world.contract(&ticket, grant, 2) };
        world.offer(1, contract).answer.unwrap();
    }
    let fourth = world.contract(&ticket, 4, 2);
    assert_eq!(code(world.offer(1, fourth).answer), Some(Code::Quota), "three a lease");
    let second = world.lease(1, PAGE, 1_000);
    let third = world.lease(1, PAGE, 1_000);
    for grant in 4..=6 {
        let contract = world.contract(&second, grant, 2);
        world.offer(1, contract).answer.unwrap();
    }
    let seventh = world.contract(&third, 7, 2);
    assert_eq!(code(world.offer(1, seventh).answer), Some(Code::Busy), "the table has six rows");
}

#[test]
fn offers_and_unaccepted_grants_end_by_themselves() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 10_000);
    let forgotten = world.contract(&ticket, 5, 2);
    world.offer(1, forgotten).answer.unwrap();
    let ignored = ShareContract { ttl: Micros(5_000), ..world.contract(&ticket, 6, 2) };
    world.offer(1, ignored).answer.unwrap();
    world.issue(1, 6).answer.unwrap();
    let ended = world.tick_at(START + 100);
    assert_eq!(events(&ended.entries), [(Event::ShareEnd, None)]);
    assert_eq!(grant_row(&world, 1, forgotten.grant).cause, Some(EndCause::Expired));
    world.now = START + 1_000;
    assert_eq!(code(world.accept(2, &ignored, Lifetime::Detached).answer), Some(Code::LeaseExpired));
    assert_eq!(world.tick_at(START + 1_000).entries.len(), 1);
    assert!(world.tick_at(START + 1_001).effects.is_empty(), "nobody had a token");
}

#[test]
fn each_party_may_end_a_grant_and_nobody_else() {
    for (who, allowed) in [(0, true), (1, true), (2, true), (3, false)] {
        let mut world = World::new();
        let ticket = world.lease(1, PAGE, 1_000);
        let contract = world.accepted(&ticket, 5);
        let revoked = world.revoke(who, Target::Grant(contract.grant));
        assert_eq!(code(revoked.answer), (!allowed).then_some(Code::GrantUnknown));
        assert_eq!(takes(&revoked.effects), usize::from(allowed));
        if allowed {
            let again = world.revoke(who, Target::Grant(contract.grant));
            assert_eq!(again.answer.unwrap(), Answer::EndedBefore { leases: vec![] });
            assert_eq!(events(&again.entries), [(Event::LeaseRevoke, None)], "asked for, and recorded");
        }
    }
}

#[test]
fn a_holder_is_revoked_as_far_as_the_one_who_asks_may() {
    let setup = || {
        let mut world = World::new();
        let (mine, theirs) = (world.lease(1, PAGE, 1_000), world.lease(2, PAGE, 1_000));
        let contract = world.accepted(&mine, 5);
        (world, mine, theirs, contract)
    };
    // The administrator: bob's leases and what bob was given.
    let (mut world, _, theirs, contract) = setup();
    let revoked = world.revoke(0, Target::Holder(public(2)));
    assert_eq!(revoked.answer.unwrap(), Answer::Ending { leases: vec![theirs.lease] });
    assert_eq!(takes(&revoked.effects), 2);
    assert_eq!(grant_state(&world, contract.grant), Some(GrantState::Ended));
    // Alice: only what she gave.
    let (mut world, _, _, _) = setup();
    let revoked = world.revoke(1, Target::Holder(public(2)));
    assert_eq!(revoked.answer.unwrap(), Answer::Ending { leases: vec![] });
    assert_eq!(takes(&revoked.effects), 1);
    // Again: idempotent while the list still shows what she gave.
    assert!(world.revoke(1, Target::Holder(public(2))).answer.is_ok());
    // Somebody else gave nothing, is told so, and learns nothing of what others gave.
    let (mut world, _, _, _) = setup();
    for holder in [2, 1, 0] {
        let revoked = world.revoke(3, Target::Holder(public(holder)));
        assert_eq!(code(revoked.answer), Some(Code::GrantUnknown));
        assert_eq!(events(&revoked.entries), [(Event::LeaseDeny, Some(Code::GrantUnknown))]);
        assert!(revoked.effects.is_empty());
    }
    // The holder itself and the administrator may always say it.
    assert!(world.revoke(3, Target::Holder(public(3))).answer.is_ok());
    assert!(world.revoke(0, Target::Holder(public(3))).answer.is_ok());
    assert_eq!(code(world.revoke(3, Target::Holder(public(4))).answer), Some(Code::PrincipalUnknown));
}

#[test]
fn a_subtree_is_named_by_its_root() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.accepted(&ticket, 5);
    assert_eq!(code(world.revoke(1, Target::Subtree(NO_GRANT)).answer), Some(Code::GrantUnknown));
    assert_eq!(code(world.revoke(3, Target::Subtree(contract.grant)).answer), Some(Code::GrantUnknown));
    assert_eq!(takes(&world.revoke(1, Target::Subtree(contract.grant)).effects), 1);
    let whole = world.revoke(1, Target::Subtree(GrantId(ticket.lease.0)));
    assert_eq!(whole.answer.unwrap(), Answer::Ending { leases: vec![ticket.lease] });
}

#[test]
fn an_accepted_grant_ends_with_its_process() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.contract(&ticket, 5, 2);
    world.offer(1, contract).answer.unwrap();
    world.issue(1, 5).answer.unwrap();
    world.accept(2, &contract, Lifetime::Process).answer.unwrap();
    world.system(opened(contract.grant)).answer.unwrap();
    let exit = world.system(Kind::HolderExit { session: 72 });
    assert_eq!(events(&exit.entries), [(Event::ShareEnd, None)]);
    assert_eq!(takes(&exit.effects), 1);
    assert_eq!(grant_row(&world, 1, contract.grant).cause, Some(EndCause::HolderExit));
}

#[test]
fn a_grant_that_ended_at_the_provider_ends_here() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.accepted(&ticket, 5);
    let said = notice(Notice::GrantEnded { grant: contract.grant, cause: EndCause::HolderExit });
    let ended = world.system(said.clone());
    assert_eq!(events(&ended.entries), [(Event::ShareEnd, None)]);
    assert!(ended.effects.is_empty());
    assert!(world.system(said).entries.is_empty());
    let unknown = notice(Notice::GrantEnded { grant: NO_GRANT, cause: EndCause::Expired });
    assert_eq!(code(world.system(unknown).answer), Some(Code::GrantUnknown));
}

#[test]
fn steps_that_could_not_be_recorded_are_taken_back() {
    let mut world = World::new();
    let ticket = world.lease(1, PAGE, 1_000);
    let contract = world.accepted(&ticket, 5);
    world.system(Kind::Undo(Undo::Accept { grant: contract.grant })).answer.unwrap();
    assert_eq!(grant_state(&world, contract.grant), Some(GrantState::Issued));
    world.accept(2, &contract, Lifetime::Detached).answer.unwrap();
    world.system(opened(contract.grant)).answer.unwrap();
    let undone = world.system(Kind::Undo(Undo::Accept { grant: contract.grant }));
    assert_eq!(takes(&undone.effects), 1, "it was opened, so somebody has its token");

    let second = world.contract(&ticket, 6, 2);
    world.offer(1, second).answer.unwrap();
    world.issue(1, 6).answer.unwrap();
    let undone = world.system(Kind::Undo(Undo::Offer { grant: second.grant }));
    assert_eq!(events(&undone.entries), [(Event::ShareEnd, None)]);
    assert_eq!(undone.entries[0].get(Key::Cause), Some("\"not_recorded\""));
}
