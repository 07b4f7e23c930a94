//! Brokers that began anew under a session that is kept: what counts is which life is there now.

use caps::error::Code;
use caps::id::{ClusterEpoch, ProviderId};
use libmem::Rights;

use crate::node::{HANDLE, Peer, opened};
use crate::scene::{EAST, EPOCH, NO_MEMORY, Scene, WEST, behind, code, gone, place, refuses, token};

const RW: Rights = Rights::READ_WRITE;
const NEXT: ClusterEpoch = ClusterEpoch([9; 16]);

/// Answers one request of no consequence.
fn asked(peer: &mut Peer) {
    refuses(peer, &Code::NotAdmin.into());
}

#[test]
fn what_the_broker_has_itself_is_that_of_its_present_life() {
    let scene = Scene::new();
    let (door, address) = scene.door("broker/lead");
    let here = place("lead", &address);
    let broker = behind(door, move |door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        asked(&mut peer);
        peer.cut();
        // Its own memory, opened over the connection that there is: nobody calls again.
        let mut peer = door.welcome_of((NEXT, EAST));
        asked(&mut peer);
        peer.open_as(opened(HANDLE));
        // That of its former life is another's.
        loop {
            let (frame, request) = peer.control();
            match request {
                caps::wire::Request::Close { .. } => peer.reply(&frame, &caps::wire::Reply::Done),
                caps::wire::Request::ProviderShow { provider: WEST } => {
                    break peer.refuse(&frame, Code::Epoch);
                }
                other => panic!("{other:?}"),
            }
        }
        gone(&mut peer);
        assert!(!door.is_called(), "nobody came beside");
    });
    let cluster = scene.cluster(&address);
    for _ in 0..2 {
        assert_eq!(code(cluster.broker().unwrap().status()), Code::NotAdmin);
    }
    cluster.remember(EAST, here);
    drop(cluster.open_mediated(&token(EAST), RW).unwrap());
    assert_eq!(cluster.sessions(), 0);
    assert_eq!(cluster.locate(&token(EAST)).unwrap().unwrap().node.as_str(), "lead");
    assert_eq!(code(cluster.open_mediated(&token(WEST), RW)), Code::Epoch);
    drop(cluster);
    broker.join().unwrap();
}

#[test]
fn a_session_with_a_provider_that_began_anew_is_not_shown_what_was_before() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        asked(&mut peer);
        peer.cut();
        let mut peer = door.welcome_of((NEXT, WEST));
        asked(&mut peer);
        assert!(peer.try_next().is_none(), "it is shown no token of the life before");
    });
    let broker = scene.node("broker/lead", |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    cluster.broker().unwrap();
    cluster.remember(EAST, place("east", &provider.address));
    let session = cluster.provider(&token(EAST)).unwrap();
    for _ in 0..2 {
        assert_eq!(code(session.status()), Code::NotAdmin);
    }
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::Epoch);
    assert_eq!(cluster.sessions(), 0);
    drop((session, cluster));
    provider.finish();
    broker.finish();
}

#[test]
fn a_broker_without_memory_is_asked_where_a_token_of_nobody_is_and_opens_none() {
    let scene = Scene::new();
    let nobody = ProviderId::NOBODY;
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, nobody));
        for _ in 0..2 {
            let asked = refuses(&mut peer, &Code::Epoch.into());
            assert!(
                matches!(asked, caps::wire::Request::ProviderShow { provider } if provider == nobody),
                "{asked:?}"
            );
        }
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    assert_eq!(code(cluster.locate(&token(nobody))), Code::Epoch);
    assert_eq!(code(cluster.open_mediated(&token(nobody), RW)), Code::Epoch);
    drop(cluster);
    broker.finish();
}
