//! Nodes without a broker's certificate at the broker's address: each is a node of its own, and nobody follows what it says of
//! others.

use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::LeaseId;
use caps::wire::row::LeaseRow;
use caps::wire::{Reply, Request};
use libmem::remote::Role;
use libmem::{Client, Cluster, LeaseOptions, Place, Rights};

use crate::node::{HANDLE, Peer, key, lease, opened};
use crate::scene::{
    EAST, EPOCH, NO_MEMORY, Scene, WEST, code, gone, nowhere, opens_once, place, refuses, shows, token,
    token_of, told,
};

const RW: Rights = Rights::READ_WRITE;
const ONE: LeaseId = LeaseId([1; 16]);

fn options() -> LeaseOptions {
    LeaseOptions::new(65_536, Duration::from_secs(60))
}

/// Makes the lease that is asked for next, with another provider in its row, and is given it back.
fn leases_elsewhere(peer: &mut Peer, at: &Place) {
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::LeaseCreate(_)), "{request:?}");
    let (node, address) = (Some(at.node.clone()), at.address.clone());
    let row = LeaseRow { provider: EAST, node, address, ..lease(ONE) };
    peer.reply(&frame, &Reply::Leased { lease: row, token: token_of(EAST, ONE) });
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::LeaseRelease { lease: ONE }), "{request:?}");
    told(peer, &frame, &Code::LeaseUnknown.into());
}

#[test]
fn a_provider_in_the_brokers_place_sends_nobody_to_others() {
    let scene = Scene::new();
    // It would take the connection, if somebody came.
    let (east, east_at) = scene.door("provider/east");
    let there = place("east", &east_at);
    let impostor = scene.node("provider/west", move |door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        for _ in 0..2 {
            shows(&mut peer, EAST, &there); // locate, open
        }
        refuses(&mut peer, &Code::PrincipalUnknown.into());
        refuses(&mut peer, &there.error());
        for _ in 0..2 {
            leases_elsewhere(&mut peer, &there); // lease, create
        }
        gone(&mut peer);
    });
    let cluster = scene.cluster(&impostor.address);
    assert_eq!(code(cluster.locate(&token(EAST))), Code::PeerIdentity);
    let refused = cluster.open_mediated(&token(EAST), RW).err().unwrap();
    assert_eq!(refused.code(), Code::PeerIdentity);
    for part in ["`west`", "provider's certificate", "role broker"] {
        assert!(refused.detail().contains(part), "{refused}");
    }
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::PeerIdentity, "as an answer to `Open`");
    assert_eq!(code(cluster.lease(options())), Code::PeerIdentity);
    let made = cluster.create(&[(options(), b"bytes")]).unwrap();
    assert_eq!(made[0].as_ref().err().map(Error::code), Some(Code::PeerIdentity));
    assert_eq!((cluster.place(EAST), cluster.sessions()), (None, 0), "nothing of it is remembered");
    assert!(!east.is_called(), "nobody came there");
    drop(cluster);
    impostor.finish();
}

#[test]
fn what_it_has_itself_is_used_as_that_of_any_node_of_its_own() {
    let scene = Scene::new();
    let node = scene.node("provider/west", |door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        let (frame, _) = peer.control();
        let row = LeaseRow { provider: WEST, node: None, address: None, ..lease(ONE) };
        peer.reply(&frame, &Reply::Leased { lease: row, token: token_of(WEST, ONE) });
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&node.address);
    let leased = cluster.lease(options()).unwrap();
    drop(cluster.open_mediated(&leased.token, RW).unwrap());
    drop(cluster);
    node.finish();
}

#[test]
fn one_that_says_it_is_the_provider_of_a_known_name_is_shown_nothing() {
    let scene = Scene::new();
    let east = scene.node("provider/east", opens_once(EAST));
    for who in ["provider/west", "broker/lead"] {
        let impostor = scene.node(who, |door| {
            let mut peer = door.welcome_of((EPOCH, EAST));
            refuses(&mut peer, &Code::NotAdmin.into());
            assert!(peer.try_next().is_none(), "it is asked for nothing else");
        });
        let cluster = scene.cluster(&impostor.address);
        cluster.broker().unwrap().status().unwrap_err();
        cluster.remember(EAST, place("east", &nowhere()));
        assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::Unreachable);
        if who == "broker/lead" {
            cluster.remember(EAST, place("east", &east.address));
            drop(cluster.open_mediated(&token(EAST), RW).unwrap());
        }
        drop(cluster);
        impostor.finish();
    }
    east.finish();
}

#[test]
fn it_is_not_believed_that_a_provider_is_lost() {
    let scene = Scene::new();
    let serve = |who, answers: bool| {
        scene.node(who, move |door| {
            let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
            if answers {
                refuses(&mut peer, &Code::ProviderLost.into());
            }
            assert!(peer.try_next().is_none());
        })
    };
    for (who, said) in [("provider/west", Code::Unreachable), ("broker/lead", Code::ProviderLost)] {
        let node = serve(who, said == Code::ProviderLost);
        let cluster = scene.cluster(&node.address);
        cluster.broker().unwrap();
        cluster.remember(EAST, place("east", &nowhere()));
        assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), said, "{who}");
        drop(cluster);
        node.finish();
    }
}

#[test]
fn who_wants_a_broker_says_so_and_is_shown_to_nobody_else() {
    let scene = Scene::new();
    let impostor = scene.node("provider/west", |door| assert!(door.accept().try_next().is_none()));
    let wanted = |address: &str| scene.endpoint(address).role(Role::Broker);
    let refused = Client::connect(&wanted(&impostor.address), &key()).err().unwrap();
    assert_eq!(refused.code(), Code::PeerIdentity);
    assert!(refused.detail().contains("a broker is wanted"), "{refused}");
    impostor.finish();

    // And the providers of such a broker are believed as ever.
    let east = scene.node("provider/east", opens_once(EAST));
    let there = place("east", &east.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        shows(&mut peer, EAST, &there);
        gone(&mut peer);
    });
    let cluster = Cluster::connect(&wanted(&broker.address), &key()).unwrap();
    assert_eq!(cluster.broker().unwrap().role(), Some(Role::Broker));
    drop(cluster.open_mediated(&token(EAST), RW).unwrap());
    drop(cluster);
    broker.finish();
    east.finish();
}
