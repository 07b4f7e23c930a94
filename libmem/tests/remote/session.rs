//! How a session begins, and who is believed.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caps::error::Code;
use caps::id::ProviderId;
use caps::wire::remote::Flags;
use caps::wire::reply::Welcome;
use caps::wire::row::Tier;
use caps::wire::{Name, Reply, Request};
use libmem::remote::Credentials;
use libmem::{Client, Endpoint, Memory, Rights, SigningKey};

use rcgen::ExtendedKeyUsagePurpose;
use transport::rustls::ServerConnection;

use crate::certificates::{ALICE, Authority, NODE};
use crate::node::{HANDLE, LIFE, World, key, token};

/// What connecting comes to.
fn refused(endpoint: &Endpoint) -> Code {
    Client::connect(endpoint, &key()).err().unwrap().code()
}

#[test]
fn the_key_is_proven_over_this_connection_and_the_client_says_which_it_is() {
    let world = World::with(|peer| {
        assert!(peer.client.is_some(), "the node verified the proof before");
        let (frame, request) = peer.control();
        assert_eq!(request, Request::Status);
        assert!(!frame.header.flags.contains(Flags::ANSWER) && !frame.header.has_more());
        let told = Duration::from_millis(u64::from(frame.header.deadline_or_code));
        assert!(told < Duration::from_secs(20) && told > Duration::from_secs(15), "{told:?}");
        peer.refuse(&frame, Code::NotAdmin);
    });
    let client = world.client();
    assert_eq!((client.welcome().cluster, client.welcome().provider), LIFE);
    assert_eq!(client.holder(), key().public());
    assert_eq!(client.status().unwrap_err().code(), Code::NotAdmin);
    world.finish();
}

#[test]
fn d10_another_providers_certificate_is_refused_where_one_is_expected() {
    let world = World::new(|door| {
        drop(door.accept());
        drop(door.welcome());
    });
    let named = |name| world.endpoint().node(Name::new(name).unwrap());
    assert_eq!(refused(&named("node-2")), Code::PeerIdentity);
    Client::connect(&named("node-1"), &key()).unwrap();
    world.finish();
}

#[test]
fn d10_a_client_is_no_node_and_a_broker_is_one() {
    let world = World::of(ALICE, |door| drop(door.accept()));
    assert_eq!(refused(&world.endpoint()), Code::PeerIdentity);
    world.finish();
    let world = World::of("spiffe://mem.example/broker/node-1", |door| drop(door.welcome()));
    Client::connect(&world.endpoint(), &key()).unwrap();
    world.finish();
}

/// Somebody with `credentials` who does the handshake of TLS with the next client and listens until it is gone.
fn somebody(credentials: Arc<Credentials>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(credentials.server()).unwrap();
        while connection.complete_io(&mut stream).is_ok() && connection.is_handshaking() {}
        // Whatever the client still sends is read, so that an alert is not thrown away with the connection.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    (address, thread)
}

#[test]
fn d2_d4_a_certificate_that_is_not_believed_is_refused_by_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (address, thread) = somebody(theirs.issue(NODE));
    let error = Client::connect(&Endpoint::tls(&address, ours.issue(ALICE)), &key()).err().unwrap();
    assert_eq!(error.code(), Code::PeerIdentity);
    assert!(error.detail().contains("node's certificate"), "{error}");
    thread.join().unwrap();

    // A client learns after its own half of the handshake that its certificate is good for other uses only.
    let (address, thread) = somebody(ours.issue(NODE));
    let alice = ours.issue_for(ALICE, &[ExtendedKeyUsagePurpose::ServerAuth]);
    let error = Client::connect(&Endpoint::tls(&address, alice), &key()).err().unwrap();
    assert_eq!(error.code(), Code::PeerIdentity);
    assert!(error.detail().contains("client's certificate"), "{error}");
    thread.join().unwrap();
}

#[test]
fn who_does_not_speak_tls_is_told_from_who_is_not_there() {
    let authority = Authority::new();
    let alice = authority.issue(ALICE);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let connect =
        |address: &str| Client::connect(&Endpoint::tls(address, alice.clone()), &key()).err().unwrap();
    assert_eq!(connect(&address).code(), Code::Protocol);
    thread.join().unwrap();
    assert_eq!(connect(&address).code(), Code::Unreachable, "its listener is gone");
    assert_eq!(connect("no address").code(), Code::Range);
}

#[test]
fn a_node_that_greets_otherwise_is_refused() {
    let welcome = |provider| {
        Reply::Welcome(Welcome { cluster: LIFE.0, provider, name: None, admin: false, tier: Tier::Open })
    };
    let other = welcome(ProviderId([9; 16]));
    let wrong: [fn(&Request, &Reply) -> Option<Reply>; 4] = [
        |request, _| matches!(request, Request::Hello { .. }).then_some(Reply::Done),
        |request, _| matches!(request, Request::Prove { .. }).then_some(Reply::Done),
        |request, other| matches!(request, Request::Prove { .. }).then(|| other.clone()),
        |request, _| matches!(request, Request::Resume { .. }).then_some(Reply::Roots(vec![])),
    ];
    for (at, wrong) in wrong.into_iter().enumerate() {
        let other = other.clone();
        let world = World::new(move |door| {
            door.accept().greet_until(LIFE, |request| wrong(request, &other));
        });
        assert_eq!(refused(&world.endpoint()), Code::Protocol, "case {at}");
        world.finish();
    }
}

#[test]
fn what_is_mapped_is_refused_and_open_takes_the_way_that_there_is() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        assert!(peer.try_next().is_none_or(|frame| frame.header.verb == caps::wire::remote::Verb::Control));
    });
    let client = world.client();
    let error = client.open_mapped(&token(), Rights::READ).err().unwrap();
    assert_eq!(error.code(), Code::MediatedOnly);
    assert!(error.detail().contains("open_mediated"), "{error}");
    let memory = client.open(&token(), Rights::READ_WRITE).unwrap();
    assert!(matches!(memory, Memory::Mediated(_)));
    drop((memory, client));
    world.finish();
}

#[test]
fn the_asynchronous_client_says_that_it_does_not_speak_tls() {
    let authority = Authority::new();
    let endpoint = Endpoint::tls("127.0.0.1:1", authority.issue(ALICE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(libmem::aio::Client::connect(&endpoint, &SigningKey::generate()));
    assert_eq!(refused.err().unwrap().code(), Code::Protocol);
}
