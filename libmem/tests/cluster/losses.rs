//! Brokers and providers that are not there.

use std::time::{Duration, Instant};

use caps::error::{Code, Error};
use libmem::{LeaseOptions, Rights};

use crate::node::{HANDLE, opened};
use crate::scene::{
    EAST, EPOCH, NO_MEMORY, Scene, WEST, code, gone, nowhere, opens_once, place, refuses, shows, token,
};

const RW: Rights = Rights::READ_WRITE;

#[test]
fn without_the_broker_what_is_open_goes_on_and_no_lease_is_made() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        let mut memory = vec![0; 4096];
        peer.serve(&mut memory);
    });
    let east = place("east", &provider.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        shows(&mut peer, EAST, &east);
        peer.cut();
    });
    let cluster = scene.cluster(&broker.address);
    let memory = cluster.open(&token(EAST), RW).unwrap();
    broker.finish();
    memory.write_at(0, b"goes on").unwrap();
    let lease = || cluster.lease(LeaseOptions::new(4096, Duration::from_secs(60)));
    // What was sent over the connection that was cut may have been done; what comes after was not.
    assert!(matches!(code(lease()), Code::Uncertain | Code::Unreachable));
    assert_eq!(code(lease()), Code::Unreachable);
    let mut bytes = [0; 7];
    memory.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"goes on");
    let again = cluster.open(&token(EAST), RW).unwrap();
    again.read_at(0, &mut bytes).unwrap();
    drop((memory, again, cluster));
    provider.finish();
}

#[test]
fn a_provider_that_is_down_takes_none_but_its_own_leases_along() {
    let scene = Scene::new();
    let west = scene.node("provider/west", opens_once(WEST));
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &nowhere()));
    cluster.remember(WEST, place("west", &west.address));
    let begun = Instant::now();
    let refused = cluster.open(&token(EAST), RW).err().unwrap();
    assert_eq!(refused.code(), Code::Unreachable);
    assert!(refused.detail().starts_with("east at "), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(5), "said at once");
    drop(cluster.open(&token(WEST), RW).unwrap());
    drop(cluster);
    west.finish();
}

#[test]
fn a_provider_that_is_down_is_lost_once_the_broker_says_so() {
    let scene = Scene::new();
    let east = place("east", &nowhere());
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        shows(&mut peer, EAST, &east);
        // Asked whether it is lost: not yet, and of the lease nothing is known that says so either.
        shows(&mut peer, EAST, &east);
        refuses(&mut peer, &Code::LeaseUnknown.into());
        // The second time it is.
        refuses(&mut peer, &Error::new(Code::ProviderLost, "it is lost"));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::Unreachable);
    assert_eq!(code(cluster.open(&token(EAST), RW)), Code::ProviderLost);
    drop(cluster);
    broker.finish();
}

#[test]
fn who_could_not_be_reached_is_not_tried_again_at_once_but_soon() {
    let scene = Scene::new();
    let (door, address) = scene.door("provider/east");
    let provider = crate::scene::behind(door, |door| {
        drop(door.tcp()); // the first attempt ends in the middle of the handshake
        let mut peer = door.welcome_of((EPOCH, EAST));
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let cluster = scene.cluster(&nowhere());
    cluster.remember(EAST, place("east", &address));
    let begun = Instant::now();
    let first = cluster.open(&token(EAST), RW).err().unwrap();
    assert_eq!(first.code(), Code::Unreachable);
    // Who asks meanwhile is told the same; how often that is depends on the machine. Then it is tried again.
    let memory = loop {
        match cluster.open(&token(EAST), RW) {
            Ok(memory) => break memory,
            Err(error) => assert_eq!(error, first),
        }
        std::thread::yield_now();
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not tried again");
    };
    assert!(begun.elapsed() >= libmem::cluster::DOWN);
    drop((memory, cluster));
    provider.join().unwrap();
}
