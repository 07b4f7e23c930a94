//! Who may not come, and who breaks rules: each is told so with a code, and nobody else notices.

mod common;

use std::time::Duration;

use audit::rejects::{LIMIT_BURST, LIMIT_PER_SECOND};
use caps::Code;
use caps::id::{GrantId, LeaseId, ProviderId};
use caps::limits::{LINK_FRAME_BYTES_MAX, LINK_HELLO_BYTES_MAX, LINK_WINDOW_MAX};
use caps::time::UnixMicros;
use caps::token::{Cut, RevocationId};
use caps::wire::Reason;
use caps::wire::cluster::{
    BrokerAsks, BrokerSays, Hello, ProviderAsks, ProviderSays, Refusal, ToBroker, ToProvider,
};
use caps::wire::link::{Notice, Taken};
use caps::wire::provider::Registration;
use caps::wire::row::{EndCause, LeaseState};
use common::raw::Raw;
use common::wire::Wire;
use common::world::World;
use common::{name, public, registration, soon, until};
use link::provider::{Config, Dialler};
use policy::limits::{LINK_BAD_NOTICES_MAX, LINK_BYE_BYTES_MAX, LINK_GREETINGS_PER_ADDRESS_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What first contact comes to that is not tried again.
async fn refused(config: Config) -> Code {
    let (mut dialler, _asker) = Dialler::new(config);
    soon("it is refused", dialler.first_contact()).await.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_a_wrong_role_a_wrong_name_and_another_name_are_refused() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let good = world.config(registration("east", 11), &wire);
    for who in ["principal/east", "broker/east"] {
        let credentials = world.ca.issue(who);
        assert_eq!(refused(Config { credentials, ..good.clone() }).await, Code::PeerIdentity, "{who}");
    }
    let another = Config { registration: registration("west", 11), ..good.clone() };
    assert_eq!(refused(another).await, Code::PeerIdentity, "it registers only its own name");
    let other = Config { broker_name: Some(name("c")), ..good.clone() };
    assert_eq!(refused(other).await, Code::PeerIdentity, "it wants another broker");
    let stranger = common::pki::Authority::new();
    let other = Config { credentials: stranger.issue("provider/east"), ..good.clone() };
    assert_eq!(refused(other).await, Code::PeerIdentity, "another CA");
    let none = Config { registration: Registration { bytes: 0, ..registration("east", 11) }, ..good.clone() };
    assert_eq!(refused(none).await, Code::Range, "no room");
    assert!(world.handle.providers().await.unwrap().is_empty());
    // It is none of these that is wrong with the rest.
    world.join_with(registration("east", 11), good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_a_provider_believes_a_broker_alone() {
    let world = World::start().await;
    // Somebody with a provider's certificate stands where the broker should.
    let impostor = world.ca.issue("provider/b");
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = link::broker::Listener::bind(
        any,
        impostor,
        world.handle.clone(),
        world.source.clone(),
        common::timings(),
    );
    let listener = listener.await.unwrap();
    let wire = Wire::to(listener.address().unwrap()).await;
    let serving = tokio::spawn(listener.serve());
    assert_eq!(refused(world.config(registration("east", 11), &wire)).await, Code::PeerIdentity);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_a_life_belongs_to_the_name_that_brought_it() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = registration("east", 11);
    let node = world.join(east.clone(), &wire).await;
    let lease = world.lease(1).await.unwrap().id;
    // Its id is in every token. With it, another provider asks for its link.
    for cluster in [None, Some(world.cluster)] {
        let mut thief = Raw::connect(&world, "provider/west").await;
        thief.hello(Registration { name: name("west"), ..east.clone() }, cluster).await;
        while !matches!(thief.hear().await.unwrap(), ToProvider::Told) {}
        thief.say(&ToBroker::Ready).await;
        assert_eq!(thief.bye().await.unwrap().code, Code::PeerIdentity);
    }
    // One that says it has memory, of which nobody knows.
    let mut ghost = Raw::connect(&world, "provider/west").await;
    ghost.hello(registration("west", 12), Some(world.cluster)).await;
    while !matches!(ghost.hear().await, Some(ToProvider::Told)) {}
    ghost.say(&ToBroker::Ready).await;
    assert_eq!(ghost.bye().await.unwrap().code, Code::Epoch);
    assert!(node.asker.is_joined() && node.small.live() == [lease]);
    assert_eq!(wire.made(), 1, "its link was never cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_links_of_a_life_the_newer_is_used() {
    let world = World::start().await;
    let east = registration("east", 11);
    let mut first = Raw::connect(&world, "provider/east").await;
    assert_eq!(first.join(&world, east.clone(), false).await, 0);
    let mut second = Raw::connect(&world, "provider/east").await;
    second.join(&world, east.clone(), true).await;
    let bye = first.bye().await.unwrap();
    assert_eq!(bye.code, Code::Unreachable, "{bye:?}");
    let handle = world.handle.clone();
    let asked = tokio::spawn(async move { (World::lease_of(&handle, 1).await, handle) });
    let (number, ask) = second.asked().await;
    assert!(matches!(ask, BrokerAsks::Claim { .. }), "{ask:?}");
    second.answer(number, &ask).await;
    soon("the lease is there", asked).await.unwrap().0.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_that_is_told_again_is_noted_once() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let west = world.join(registration("west", 12), &wire).await;
    let others = world.lease(1).await.unwrap().id;
    world.ask(0, caps::wire::Request::ProviderDrain { name: name("west"), drain: true }).await.unwrap();
    let east = registration("east", 11);
    let mut raw = Raw::connect(&world, "provider/east").await;
    raw.join(&world, east.clone(), false).await;
    let handle = world.handle.clone();
    let asked = tokio::spawn(async move { World::lease_of(&handle, 1).await });
    let (number, ask) = raw.asked().await;
    raw.answer(number, &ask).await;
    let mine = soon("the lease is there", asked).await.unwrap().unwrap().id;

    let ended = |lease| Notice::LeaseEnded { lease, cause: EndCause::Expired };
    let tell = |first, notices| ProviderAsks::Notices { first, notices };
    // The second is of another provider's lease: it is refused, recorded, and not told again.
    let answer = raw.ask(tell(0, vec![ended(mine), ended(others)])).await;
    assert!(matches!(answer, ToProvider::Answer { says: BrokerSays::Noted { next: 2 }, .. }), "{answer:?}");
    assert_eq!(world.show(mine).await.state, LeaseState::Ended);
    assert_eq!((world.show(others).await.state, west.small.live()), (LeaseState::Live, vec![others]));
    let of_mine = || {
        let entries = world.entries();
        entries
            .iter()
            .filter(|entry| entry.contains("lease.expire") && entry.contains(&mine.to_string()))
            .count()
    };
    until("the end is on record", || of_mine() > 0).await;
    world.entry(&["lease.deny", &east.id.to_string(), &others.to_string()]).await;
    let denials = || world.entries().iter().filter(|entry| entry.contains("lease.deny")).count();
    let before = (of_mine(), denials());

    // The answer was lost, and the link: told again over another one, with one more.
    drop(raw);
    let mut raw = Raw::connect(&world, "provider/east").await;
    assert_eq!(raw.join(&world, east, true).await, 2, "it is told how many were noted");
    // One more is of a lease that nobody has: it may be late, is no other's either, and is not recorded.
    let more = [ended(LeaseId([0xee; 16])), ended(others)];
    let answer = raw.ask(tell(0, [vec![ended(mine), ended(others)], more.to_vec()].concat())).await;
    assert!(matches!(answer, ToProvider::Answer { says: BrokerSays::Noted { next: 4 }, .. }), "{answer:?}");
    until("the last is on record", || denials() > before.1).await;
    assert_eq!(
        (of_mine(), denials()),
        (before.0, before.1 + 1),
        "only the new ones were looked at, each once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_notices_have_the_broker_look_what_is_there() {
    let world = World::start().await;
    let mut raw = Raw::connect(&world, "provider/east").await;
    raw.join(&world, registration("east", 11), false).await;
    let handle = world.handle.clone();
    let asked = tokio::spawn(async move { World::lease_of(&handle, 1).await });
    let (number, ask) = raw.asked().await;
    raw.answer(number, &ask).await;
    let lease = soon("the lease is there", asked).await.unwrap().unwrap().id;
    let opened = Notice::GrantOpened { grant: GrantId([1; 16]) };
    raw.ask(ProviderAsks::Notices { first: 5, notices: vec![opened] }).await;
    // It is asked what of its leases is there, before the notices are answered or after, and has nothing.
    let serving = tokio::spawn(async move {
        loop {
            let (number, ask) = raw.asked().await;
            raw.answer(number, &ask).await;
        }
    });
    let end = tokio::time::Instant::now() + common::PATIENCE;
    while world.show(lease).await.state != LeaseState::Ended {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    serving.abort();
}

/// Has `east`, which is there alone, make a lease; then `west` joins, and has what it takes to revoke a block of it.
async fn beside_a_lease_of_east(world: &World) -> (Raw, Cut) {
    let lease = world.lease(1).await.unwrap().id;
    let mut west = Raw::connect(world, "provider/west").await;
    west.join(world, registration("west", 12), false).await;
    let cut = Cut {
        lease,
        grant: None,
        id: RevocationId([2; 64]),
        marks: [None, None],
        range: None,
        not_before: UnixMicros(1),
        expires: UnixMicros(u64::MAX / 4),
        holders: vec![public(1)],
    };
    (west, cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_nothing_is_revoked_at_another_provider() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    let (mut west, cut) = beside_a_lease_of_east(&world).await;
    let lease = cut.lease;
    let ask = ProviderAsks::RevokeToken {
        holder: public(1),
        cut: Box::new(cut.clone()),
        reason: Reason::default(),
    };
    let answer = west.ask(ask).await;
    let ToProvider::Failed { why: Refusal { code: Code::LeaseUnknown, .. }, .. } = answer else {
        panic!("{answer:?}")
    };
    world.entry(&["lease.deny", "west", &lease.to_string()]).await;
    // Nor may it name another lease's grant beside a lease of its own.
    let admin = broker::runtime::Caller { holder: public(0), uid: None, session: 0 };
    world.handle.provider_drain(admin, name("east"), true).await.unwrap();
    let handle = world.handle.clone();
    let asked = tokio::spawn(async move { World::lease_of(&handle, 2).await });
    let (number, claim) = west.asked().await;
    west.answer(number, &claim).await;
    let own = soon("its own lease", asked).await.unwrap().unwrap().id;
    let cut = Cut { lease: own, grant: Some(GrantId([7; 16])), holders: vec![public(2)], ..cut };
    let ask = ProviderAsks::RevokeToken { holder: public(2), cut: Box::new(cut), reason: Reason::default() };
    let answer = west.ask(ask).await;
    let ToProvider::Failed { why: Refusal { code: Code::GrantUnknown, .. }, .. } = answer else {
        panic!("{answer:?}")
    };
    world.entry(&["lease.deny", "E_GRANT_UNKNOWN", "west", &own.to_string()]).await;
    let answer = west.ask(ProviderAsks::RevokeHolder { holder: public(1) }).await;
    assert!(matches!(answer, ToProvider::Answer { says: BrokerSays::Done, .. }), "{answer:?}");
    assert_eq!((east.small.live(), world.show(lease).await.state), (vec![lease], LeaseState::Live));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_are_broken_end_the_link_and_no_other() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    let lease = world.lease(1).await.unwrap().id;
    let answer = |number| ToBroker::Answer { number, says: ProviderSays::Done };
    let frame = |message: &ToBroker| caps::wire::cluster::encode(message).unwrap();
    let ask = |number| ToBroker::Ask { number, ask: ProviderAsks::RevokeHolder { holder: public(9) } };
    let twice = [frame(&ask(1)), frame(&ask(1))].concat();
    let flood: Vec<u8> = (1..=1_000).flat_map(|number| frame(&ask(number))).collect();
    let hello = ToBroker::Hello(Box::new(Hello {
        protocol: 1,
        registration: registration("west", 12),
        cluster: None,
    }));
    let size = |length: usize| u32::try_from(length).unwrap().to_le_bytes().to_vec();
    let cases: [(&str, Vec<u8>, &[Code]); 8] = [
        ("an oversized frame", size(LINK_FRAME_BYTES_MAX), &[Code::FrameSize]),
        ("an empty frame", size(0), &[Code::FrameSize]),
        ("garbage", [size(3), vec![0xff; 3]].concat(), &[Code::FrameType]),
        ("hello again", frame(&hello), &[Code::Protocol]),
        ("an answer to nothing", frame(&answer(77_777)), &[Code::Protocol]),
        ("a number twice", twice, &[Code::Protocol]),
        ("a gap in the numbers", frame(&ask(2)), &[Code::Protocol]),
        ("half a frame", [size(100), vec![0x61; 10]].concat(), &[Code::Timeout]),
    ];
    for (life, (what, bytes, codes)) in cases.into_iter().enumerate() {
        let mut west = Raw::connect(&world, "provider/west").await;
        west.join(&world, registration("west", 20 + u8::try_from(life).unwrap()), false).await;
        west.bytes(&bytes).await;
        let bye = west.bye().await.unwrap_or_else(|| panic!("{what}: it is told why"));
        assert!(codes.contains(&bye.code), "{what}: {bye:?}");
    }
    // Many questions at once: as many as there may be are answered, or the link ends; nothing else happens.
    let mut west = Raw::connect(&world, "provider/west").await;
    west.join(&world, registration("west", 30), false).await;
    west.bytes(&flood).await;
    let mut answers = 0;
    let last = loop {
        match west.hear().await {
            Some(ToProvider::Answer { .. } | ToProvider::Failed { .. }) => answers += 1,
            Some(ToProvider::Bye(refusal)) => break Some(refusal.code),
            Some(_) => {}
            None => break None,
        }
        if answers == 1_000 {
            break None;
        }
    };
    assert!(answers == 1_000 || last == Some(Code::Protocol), "{answers} answers, then {last:?}");
    assert!(east.asker.is_joined() && wire.made() == 1 && east.small.live() == [lease]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_speaks_of_itself_alone_and_only_once_it_was_there() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    let lease = world.lease(1).await.unwrap().id;
    // One that has not joined, by the id of another.
    let mut thief = Raw::connect(&world, "provider/west").await;
    thief.hello(Registration { name: name("west"), ..registration("east", 11) }, None).await;
    while !matches!(thief.hear().await.unwrap(), ToProvider::Told) {}
    thief.say(&ToBroker::Gone).await;
    assert_eq!(thief.bye().await.unwrap().code, Code::Protocol);
    let mut west = Raw::connect(&world, "provider/west").await;
    west.join(&world, registration("west", 12), false).await;
    west.say(&ToBroker::Gone).await;
    assert_eq!(west.bye().await.unwrap().code, Code::Epoch);
    assert!(east.asker.is_joined() && east.small.live() == [lease]);
    assert_eq!(world.show(lease).await.state, LeaseState::Live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_hears_so_whatever_it_was_saying() {
    let world = World::start().await;
    // More than sockets hold: it is taken, or the connection is reset.
    let more = vec![0x61; usize::try_from(LINK_BYE_BYTES_MAX).unwrap() - LINK_FRAME_BYTES_MAX];
    let mut early = Raw::connect(&world, "provider/east").await;
    early.hello(registration("west", 12), None).await;
    early.stream.write_all(&more).await.expect("it is not reset");
    early.stream.flush().await.expect("it is not reset");
    assert_eq!(early.bye().await.unwrap().code, Code::PeerIdentity);
    let mut late = Raw::connect(&world, "provider/east").await;
    late.join(&world, registration("east", 11), false).await;
    late.say(&ToBroker::Ready).await;
    late.stream.write_all(&more).await.expect("it is not reset");
    late.stream.flush().await.expect("it is not reset");
    assert_eq!(late.bye().await.unwrap().code, Code::Protocol);
    // Nor is it lost what is said in a handshake, whose end the other end does not wait for.
    let stranger = common::pki::Authority::new().issue_to_believe("provider/east", &world.ca);
    let wire = Wire::to(world.address).await;
    let config = world.config(registration("east", 11), &wire);
    assert_eq!(refused(Config { credentials: stranger.clone(), ..config }).await, Code::PeerIdentity);
    let mut stranger = Raw::with(&world, &stranger).await;
    stranger.stream.write_all(&more).await.expect("it is not reset");
    stranger.stream.flush().await.expect("it is not reset");
    let why = stranger.stream.read(&mut [0]).await.unwrap_err();
    assert!(why.to_string().contains("fatal alert"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_answer_ends_the_link_and_is_believed_by_nobody() {
    let world = World::start().await;
    let mut raw = Raw::connect(&world, "provider/east").await;
    raw.join(&world, registration("east", 11), false).await;
    let claimed = |bytes| ProviderSays::Claimed { bytes };
    let stolen = ProviderSays::Taken(Taken { lease: Some(LeaseId([9; 16])), ..Taken::default() });
    for (life, says) in [(11, claimed(1)), (12, ProviderSays::Done), (13, stolen)] {
        let handle = world.handle.clone();
        let asked = tokio::spawn(async move { World::lease_of(&handle, 1).await });
        let (number, ask) = raw.asked().await;
        if life == 13 {
            raw.answer(number, &ask).await;
            let lease = soon("it is there", asked).await.unwrap().unwrap().id;
            let handle = world.handle.clone();
            let caller = broker::runtime::Caller { holder: public(1), uid: None, session: 1 };
            let release = caps::wire::Request::LeaseRelease { lease };
            let asked = tokio::spawn(async move { handle.request(caller, release).await });
            let (number, ask) = raw.asked().await;
            assert!(matches!(ask, BrokerAsks::Take { .. }), "{ask:?}");
            raw.say(&ToBroker::Answer { number, says }).await;
            soon("no receipt", asked).await.unwrap().unwrap_err();
        } else {
            raw.say(&ToBroker::Answer { number, says }).await;
            soon("no lease", asked).await.unwrap().unwrap_err();
        }
        assert_eq!(raw.bye().await.unwrap().code, Code::Protocol);
        raw = Raw::connect(&world, "provider/east").await;
        raw.join(&world, registration("east", life + 1), false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_say_who_it_is_goes_soon_and_takes_no_room() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    // As many as one address may have, that say nothing, or rubbish, or the beginning of a handshake.
    let mut slow = Vec::new();
    for n in 0..LINK_GREETINGS_PER_ADDRESS_MAX {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
        }
        slow.push(stream);
    }
    // One more is closed at once, unheard.
    let mut more = TcpStream::connect(world.address).await.unwrap();
    let closed = async |stream: &mut TcpStream| {
        let mut bytes = [0; 64];
        while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
    };
    tokio::time::timeout(Duration::from_millis(1_500), closed(&mut more)).await.expect("closed at once");
    // The others are when their time is over.
    for stream in &mut slow {
        soon("its time is over", closed(stream)).await;
    }
    // There is room again; a first message is small, whoever sends it.
    let mut raw = Raw::connect(&world, "provider/west").await;
    raw.bytes(&u32::try_from(LINK_HELLO_BYTES_MAX).unwrap().to_le_bytes()).await;
    assert_eq!(raw.bye().await.unwrap().code, Code::FrameSize);
    let mut raw = Raw::connect(&world, "provider/west").await;
    raw.say(&ToBroker::Ready).await;
    assert_eq!(raw.bye().await.unwrap().code, Code::Protocol);
    let mut raw = Raw::connect(&world, "provider/west").await;
    let hello = Hello { protocol: 2, registration: registration("west", 12), cluster: None };
    raw.say(&ToBroker::Hello(Box::new(hello))).await;
    assert_eq!(raw.bye().await.unwrap().code, Code::FrameVersion);
    // One that is never ready makes room for the next of its name.
    let mut first = Raw::connect(&world, "provider/west").await;
    first.hello(registration("west", 12), None).await;
    while !matches!(first.hear().await, Some(ToProvider::Told)) {}
    let mut second = Raw::connect(&world, "provider/west").await;
    second.join(&world, registration("west", 13), false).await;
    assert_eq!(first.bye().await.unwrap().code, Code::Unreachable);
    assert!(east.asker.is_joined() && wire.made() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_answers_nothing_does_not_hold_up_another() {
    let world = World::start().await;
    let mut mute = Raw::connect(&world, "provider/mute").await;
    mute.join(&world, registration("mute", 12), false).await;
    // More than fit its link at one time wait for it, and end with their tickets.
    let asks: Vec<_> = (0..2 * LINK_WINDOW_MAX)
        .map(|_| {
            let handle = world.handle.clone();
            tokio::spawn(async move { World::lease_of(&handle, 2).await })
        })
        .collect();
    let wire = Wire::to(world.address).await;
    let east = world.join(registration("east", 11), &wire).await;
    let handle = world.handle.clone();
    let lease = async {
        loop {
            // Until the mute one is silent for too long, it may be chosen.
            if let Ok(lease) = World::lease_of(&handle, 1).await
                && lease.provider == ProviderId([11; 16])
            {
                return lease.id;
            }
        }
    };
    let lease = soon("a lease at the other", lease).await;
    assert_eq!(east.small.live(), [lease]);
    for asked in asks {
        soon("each ends", asked).await.unwrap().map(drop).unwrap_or(());
    }
    drop(mute);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_fills_no_log_and_ends_the_link() {
    let world = World::start().await;
    let wire = Wire::to(world.address).await;
    world.join(registration("east", 11), &wire).await;
    let (mut west, cut) = beside_a_lease_of_east(&world).await;
    let lease = cut.lease;
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        let cut = Box::new(cut.clone());
        west.ask(ProviderAsks::RevokeToken { holder: public(1), cut, reason: Reason::default() }).await;
    }
    let notices = vec![Notice::LeaseEnded { lease, cause: EndCause::Expired }; 32];
    let messages = LINK_BAD_NOTICES_MAX / notices.len();
    let ask =
        |n: usize| ProviderAsks::Notices { first: (n * notices.len()) as u64, notices: notices.clone() };
    for n in 1..messages {
        west.ask(ask(n - 1)).await;
    }
    west.say(&ToBroker::Ask { number: (200 + messages) as u64, ask: ask(messages - 1) }).await;
    assert_eq!(west.bye().await.unwrap().code, Code::Protocol);
    let denied = world.entries().iter().filter(|entry| entry.contains("lease.deny")).count();
    // Two bursts, and what was earned meanwhile.
    let most = 2 * (LIMIT_BURST + LIMIT_PER_SECOND * (begun.elapsed().as_secs() + 1));
    assert!((2..=most).contains(&(denied as u64)), "{denied} of {most}");
    assert_eq!(world.show(lease).await.state, LeaseState::Live);
}
