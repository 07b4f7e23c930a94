//! Which node is asked: by what the broker says, by what is remembered, by the token itself.

use caps::error::{Code, Error};
use libmem::{Rights, Token};

use crate::node::{HANDLE, opened};
use crate::scene::{
    EAST, EPOCH, NO_MEMORY, Scene, WEST, code, gone, nowhere, opens_once, place, refuses, shows, token,
};

const RW: Rights = Rights::READ_WRITE;

#[test]
fn a_token_is_opened_at_its_provider_and_the_broker_is_asked_once_where_that_is() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        peer.open_as(opened(HANDLE));
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let east = place("east", &provider.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        shows(&mut peer, EAST, &east);
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let first = cluster.open(&token(EAST), RW).unwrap();
    let second = cluster.open_mediated(&token(EAST), RW).unwrap();
    assert_eq!(cluster.sessions(), 1);
    drop((first, second, cluster));
    broker.finish();
    provider.finish();
}

#[test]
fn what_a_broker_has_itself_is_opened_there_and_nobody_is_asked_where_it_is() {
    let scene = Scene::new();
    let node = scene.node("provider/all-in-one", opens_once(EAST));
    let cluster = scene.cluster(&node.address);
    assert_eq!(cluster.locate(&token(EAST)).unwrap(), None);
    cluster.open(&token(EAST), RW).unwrap();
    assert_eq!(cluster.sessions(), 0);
    drop(cluster);
    node.finish();
}

#[test]
fn a_provider_of_a_remembered_place_is_found_without_a_broker() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", opens_once(EAST));
    let cluster = scene.cluster(&nowhere());
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::Unreachable);
    cluster.remember(EAST, place("east", &provider.address));
    let memory = cluster.open(&token(EAST), RW).unwrap();
    assert_eq!(cluster.locate(&token(EAST)).unwrap(), Some(place("east", &provider.address)));
    assert_eq!(code(cluster.open(&token(WEST), RW)), Code::Unreachable, "of that one nobody knows");
    drop((memory, cluster));
    provider.finish();
}

#[test]
fn a_certificate_of_another_name_is_shown_nothing() {
    let scene = Scene::new();
    // The handshake is over before the name is looked at; then the client is gone, without a request.
    let impostor = scene.node("provider/west", |door| assert!(door.accept().try_next().is_none()));
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &impostor.address));
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::PeerIdentity);
    impostor.finish();
    // Neither does a client serve, whatever it is called.
    let client = scene.node("principal/east", |door| assert!(door.accept().try_next().is_none()));
    cluster.remember(EAST, place("east", &client.address));
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::PeerIdentity);
    client.finish();
}

#[test]
fn another_life_of_the_provider_is_told_apart_before_it_is_shown_a_token() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        assert!(peer.try_next().is_none());
    });
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &provider.address));
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::Epoch);
    assert_eq!(cluster.sessions(), 0, "a session with a life that is over is not kept");
    provider.finish();
}

#[test]
fn what_the_broker_says_of_a_life_that_is_over_is_said() {
    let scene = Scene::new();
    let broker = scene.node("broker/lead", |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        refuses(&mut peer, &Error::new(Code::ProviderLost, "it is lost"));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::ProviderLost);
    drop(cluster);
    broker.finish();
}

#[test]
fn what_is_no_token_is_refused_before_anybody_is_called() {
    let cluster = Scene::new().cluster(&nowhere());
    let no_token = Token::from_bytes(vec![1, 2, 3]).unwrap();
    assert_eq!(code(cluster.open(&no_token, RW)), Code::TokenNoncanonical);
}

#[test]
fn a_provider_without_an_address_is_the_brokers_own() {
    let scene = Scene::new();
    let broker = scene.node("provider/all-in-one", |door| {
        // It began anew since, in the same session's eyes.
        let mut peer = door.welcome_of((EPOCH, WEST));
        let at_home = libmem::Place { address: None, ..place("all-in-one", "a:1") };
        shows(&mut peer, EAST, &at_home);
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let memory = cluster.open_mediated(&token(EAST), RW).unwrap();
    assert_eq!((cluster.sessions(), cluster.place(EAST)), (0, None));
    drop((memory, cluster));
    broker.finish();
}
