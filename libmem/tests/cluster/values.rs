//! Leases made with their first bytes: the lease at the broker, the bytes at the provider.

use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::LeaseId;
use caps::wire::row::LeaseRow;
use caps::wire::{Reply, Request};
use libmem::LeaseOptions;

use crate::node::{HANDLE, Peer, lease, opened};
use crate::scene::{EAST, EPOCH, NO_MEMORY, Scene, gone, nowhere, place, refuses, token_of, told};

const ONE: LeaseId = LeaseId([1; 16]);
const TWO: LeaseId = LeaseId([2; 16]);

fn options() -> LeaseOptions {
    LeaseOptions::new(65_536, Duration::from_secs(60))
}

/// Makes the lease that is asked for next, at a place that its row tells.
fn leases(peer: &mut Peer, id: LeaseId, at: &libmem::Place) {
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::LeaseCreate(_)), "{request:?}");
    let (node, address) = (Some(at.node.clone()), at.address.clone());
    let lease = LeaseRow { provider: EAST, node, address, ..lease(id) };
    peer.reply(&frame, &Reply::Leased { lease, token: token_of(EAST, id) });
}

#[test]
fn the_first_bytes_go_to_the_provider_that_the_row_names() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        let mut memory = vec![0; 65_536];
        peer.serve(&mut memory);
        assert_eq!(memory[..5], *b"first");
    });
    let east = place("east", &provider.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        leases(&mut peer, ONE, &east);
        // Nothing is written into the second one, and nobody asked where it is.
        leases(&mut peer, TWO, &east);
        let (frame, _) = peer.control();
        told(&mut peer, &frame, &Code::Quota.into());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let made = cluster.create(&[(options(), b"first"), (options(), b""), (options(), b"third")]).unwrap();
    let said: Vec<_> = made
        .iter()
        .map(|one| one.as_ref().map(|one| (one.lease.id, one.written)).map_err(Error::code))
        .collect();
    assert_eq!(said, [Ok((ONE, 5)), Ok((TWO, 0)), Err(Code::Quota)]);
    drop(cluster);
    broker.finish();
    provider.finish();
}

#[test]
fn a_lease_whose_bytes_cannot_be_written_is_given_back_or_named() {
    let scene = Scene::new();
    let east = place("east", &nowhere());
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        for (id, back) in [(ONE, None), (TWO, Some(Code::LeaseUnknown))] {
            leases(&mut peer, id, &east);
            // Whether the provider is lost.
            refuses(&mut peer, &Code::PrincipalUnknown.into());
            let (frame, request) = peer.control();
            assert!(matches!(request, Request::LeaseRelease { lease } if lease == id), "{request:?}");
            match back {
                // An answer that belongs to no release ends the question all the same.
                None => peer.reply(&frame, &Reply::Done),
                Some(code) => told(&mut peer, &frame, &code.into()),
            }
        }
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let made = cluster.create(&[(options(), b"first"), (options(), b"second")]).unwrap();
    for (one, id) in made.iter().zip([ONE, TWO]) {
        let error = one.as_ref().err().unwrap();
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.detail().contains(&id.to_string()), "{error}");
    }
    drop(cluster);
    broker.finish();
}

#[test]
fn what_is_no_value_is_refused_before_it_is_leased() {
    let scene = Scene::new();
    let broker = scene.node("broker/lead", |door| gone(&mut door.welcome_of((EPOCH, NO_MEMORY))));
    let cluster = scene.cluster(&broker.address);
    assert_eq!(cluster.create(&[]).unwrap_err().code(), Code::Range);
    let long = vec![1; 65_537];
    let small = LeaseOptions::new(4096, Duration::from_secs(60));
    for one in cluster.create(&[(options(), &long), (small, b"")]).unwrap() {
        assert_eq!(one.err().unwrap().code(), Code::Range);
    }
    assert_eq!(cluster.delete(&[]).unwrap_err().code(), Code::Range);
    drop(cluster);
    broker.finish();
}

#[test]
fn bytes_that_a_provider_refuses_cost_the_lease() {
    let scene = Scene::new();
    let provider = scene.node("provider/east", |door| {
        let mut peer = door.welcome_of((EPOCH, EAST));
        peer.open_as(opened(HANDLE));
        let write = peer.next();
        peer.fail(write.header.verb, write.header.request, Code::Revoked);
        gone(&mut peer);
    });
    let east = place("east", &provider.address);
    let broker = scene.node("broker/lead", move |door| {
        let mut peer = door.welcome_of((EPOCH, NO_MEMORY));
        leases(&mut peer, ONE, &east);
        let (frame, request) = peer.control();
        assert!(matches!(request, Request::LeaseRelease { lease: ONE }), "{request:?}");
        told(&mut peer, &frame, &Code::LeaseUnknown.into());
        gone(&mut peer);
    });
    let cluster = scene.cluster(&broker.address);
    let made = cluster.create(&[(options(), b"first")]).unwrap();
    assert_eq!(made[0].as_ref().err().unwrap().code(), Code::Revoked);
    drop(cluster);
    broker.finish();
    provider.finish();
}
