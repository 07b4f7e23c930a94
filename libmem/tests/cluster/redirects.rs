//! Nodes that send to others: followed once, and never to somebody of another name.

use caps::error::Code;
use caps::wire::Request;
use libmem::Rights;

use crate::scene::{
    EAST, EPOCH, NO_MEMORY, Scene, behind, code, gone, nowhere, opens_once, place, refuses, token, told,
};

const RW: Rights = Rights::READ_WRITE;

#[test]
fn a_broker_that_does_not_show_providers_sends_to_the_right_one_and_it_is_remembered() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", opens_once(EAST));
    let east = place("east", &provider.address);
    let at = east.clone();
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        refuses(&mut peer, &Code::PrincipalUnknown.into());
        let opened = refuses(&mut peer, &at.error());
        assert!(matches!(opened, Request::Open { .. }), "{opened:?}");
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let memory = cluster.open_mediated(&token(EAST), RW).unwrap();
    assert_eq!(cluster.locate(&token(EAST)).unwrap(), Some(east));
    drop((memory, cluster));
    broker.finish();
    provider.finish();
}

#[test]
fn one_that_sends_to_itself_is_asked_once() {
    let scene = Scene::new();
    let (door, address) = scene.door("provider/east");
    let east = place("east", &address);
    let at = east.clone();
    let node = behind(door, move |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        refuses(&mut peer, &at.error());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, east);
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::WrongNode);
    drop(cluster);
    node.join().unwrap();
}

#[test]
fn two_that_send_to_each_other_are_asked_once_each() {
    let scene = Scene::new();
    let ((first, first_at), (second, second_at)) = (scene.door("provider/east"), scene.door("provider/east"));
    let sends = |door, to: &str| {
        let to = place("east", to);
        behind(door, move |door: &_| {
            let door: &crate::node::Door = door;
            let mut peer = door.welcome_of((EPOCH, EAST));
            refuses(&mut peer, &to.error());
            gone(&mut peer);
        })
    };
    let (one, other) = (sends(first, &second_at), sends(second, &first_at));
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &first_at));
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::WrongNode);
    drop(cluster);
    one.join().unwrap();
    other.join().unwrap();
}

#[test]
fn a_provider_sends_nobody_to_a_node_of_another_name() {
    let scene = Scene::new();
    // It would take the connection, if somebody came.
    let (other, other_at) = scene.door("provider/west");
    let to = place("west", &other_at);
    let provider = scene.node("provider/east", move |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        refuses(&mut peer, &to.error());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &provider.address));
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::PeerIdentity);
    assert!(!other.is_called(), "nobody came there");
    drop(cluster);
    provider.finish();
}

#[test]
fn who_stands_at_an_address_that_was_named_must_have_the_name() {
    let scene = Scene::new();
    let impostor = scene.node("provider/west", |door| assert!(door.accept().try_next().is_none()));
    let to = place("east", &impostor.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        refuses(&mut peer, &Code::PrincipalUnknown.into());
        refuses(&mut peer, &to.error());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::PeerIdentity);
    drop(cluster);
    broker.finish();
    impostor.finish();
}

#[test]
fn one_that_names_nobody_leads_nowhere() {
    let scene = Scene::new();
    let broker = scene.node("broker/lead", |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        refuses(&mut peer, &Code::PrincipalUnknown.into());
        let (frame, _) = peer.control();
        told(&mut peer, &frame, &Code::WrongNode.into());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    assert_eq!(code(cluster.open_mediated(&token(EAST), RW)), Code::WrongNode);
    drop(cluster);
    broker.finish();
}
