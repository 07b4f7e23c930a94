//! Plain lists of nodes: where a lease goes, and who is asked about it afterwards.

use std::time::Duration;

use caps::error::Code;
use caps::id::{LeaseId, ProviderId};
use caps::time::Micros;
use caps::wire::row::{LeaseRow, NodeStatus, Tier};
use caps::wire::{Reply, Request};
use libmem::{LeaseOptions, Nodes, Rights};

use crate::node::{Door, HANDLE, Peer, key, lease, opened};
use crate::scene::{EAST, EPOCH, Scene, Scripted, WEST, code, gone, nowhere, refuses, token, token_of};

const ID: LeaseId = LeaseId([9; 16]);

fn options() -> LeaseOptions {
    LeaseOptions::new(65_536, Duration::from_secs(60)).name("frames").unwrap()
}

fn nodes(scene: &Scene, addresses: &[&str]) -> Nodes {
    let endpoints: Vec<_> = addresses.iter().map(|address| scene.endpoint(address)).collect();
    Nodes::list(&endpoints, &key()).unwrap()
}

/// Answers the next request, which asks for the numbers of a node with so much free.
fn has_free(peer: &mut Peer, provider: ProviderId, bytes: u64) {
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::Status), "{request:?}");
    let status = NodeStatus {
        cluster: EPOCH,
        provider,
        uptime: Micros(1),
        pool_bytes: 1 << 30,
        leased_bytes: (1 << 30) - bytes,
        committed_bytes: 0,
        leases: 0,
        grants: 0,
        principals: 1,
        sessions: 1,
        tier: Tier::Open,
        audit: true,
        broker_entries: 0,
        provider_entries: 0,
        policy: String::new(),
        canary: None,
        providers: Vec::new(),
    };
    peer.reply(&frame, &Reply::Status(status));
}

fn leases(peer: &mut Peer, provider: ProviderId) {
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::LeaseCreate(_)), "{request:?}");
    let lease = LeaseRow { provider, ..lease(ID) };
    peer.reply(&frame, &Reply::Leased { lease, token: token_of(provider, ID) });
}

fn node(
    scene: &Scene,
    name: &str,
    life: ProviderId,
    script: impl FnOnce(&mut Peer) + Send + 'static,
) -> Scripted {
    scene.node(&format!("provider/{name}"), move |door: &Door| {
        let mut peer = door.welcome_of((EPOCH, life));
        script(&mut peer);
        gone(&mut peer);
    })
}

#[test]
fn a_lease_goes_where_most_is_free_and_is_opened_there() {
    let scene = Scene::new();
    let east = node(&scene, "east", EAST, |peer| has_free(peer, EAST, 4096));
    let west = node(&scene, "west", WEST, |peer| {
        has_free(peer, WEST, 8192);
        leases(peer, WEST);
        peer.open_as(opened(HANDLE));
    });
    let nodes = nodes(&scene, &[&east.address, &nowhere(), &west.address]);
    let (leased, at) = nodes.lease(&options()).unwrap();
    assert_eq!((leased.lease.provider, at.welcome().provider), (WEST, WEST));
    drop(nodes.open_mediated(&leased.token, Rights::READ_WRITE).unwrap());
    drop((nodes, at));
    east.finish();
    west.finish();
}

#[test]
fn one_that_has_no_room_is_passed_over_and_one_that_may_have_leased_is_not() {
    let scene = Scene::new();
    let east = node(&scene, "east", EAST, |peer| {
        has_free(peer, EAST, 8192);
        refuses(peer, &Code::NoMemory.into());
        has_free(peer, EAST, 8192);
        refuses(peer, &Code::Uncertain.into());
    });
    let west = node(&scene, "west", WEST, |peer| {
        has_free(peer, WEST, 4096);
        leases(peer, WEST);
        has_free(peer, WEST, 4096);
    });
    let nodes = nodes(&scene, &[&east.address, &west.address]);
    assert_eq!(nodes.lease(&options()).unwrap().0.lease.provider, WEST);
    assert_eq!(code(nodes.lease(&options())), Code::Uncertain, "and the other one was not asked");
    drop(nodes);
    east.finish();
    west.finish();
}

#[test]
fn a_name_elects_the_same_node_whatever_the_order_of_the_list() {
    // The same two addresses for both lists: each node serves two clients, one after the other.
    let scene = Scene::new();
    let serve = |name: &str, life: ProviderId| {
        scene.node(&format!("provider/{name}"), move |door: &Door| {
            for _ in 0..2 {
                let mut peer = door.welcome_of((EPOCH, life));
                // It does not say how much is free.
                refuses(&mut peer, &Code::NotAdmin.into());
                while let Some(frame) = peer.try_next() {
                    let lease = LeaseRow { provider: life, ..lease(ID) };
                    peer.reply(&frame, &Reply::Leased { lease, token: token_of(life, ID) });
                }
            }
        })
    };
    let (east, west) = (serve("east", EAST), serve("west", WEST));
    let at = |addresses: [&str; 2]| {
        let nodes = nodes(&scene, &addresses);
        nodes.lease(&options()).unwrap().0.lease.provider
    };
    let first = at([&east.address, &west.address]);
    assert_eq!(at([&west.address, &east.address]), first);
    east.finish();
    west.finish();
}

#[test]
fn a_token_finds_its_node_and_says_which_could_not_be_asked() {
    let scene = Scene::new();
    let (east, west) = (node(&scene, "east", EAST, |_| {}), node(&scene, "west", WEST, |_| {}));
    let all = nodes(&scene, &[&east.address, &west.address]);
    assert_eq!(all.at(&token(WEST)).unwrap().welcome().provider, WEST);
    let stranger = token(ProviderId([0; 16]));
    assert_eq!(code(all.at(&stranger)), Code::Epoch);
    drop(all);
    let absent = nodes(&scene, &[&nowhere()]);
    let error = absent.at(&stranger).err().unwrap();
    assert_eq!(error.code(), Code::Unreachable);
    assert!(error.detail().starts_with("127.0.0.1:"), "{error}");
    assert_eq!(code(absent.lease(&options())), Code::Unreachable);
    east.finish();
    west.finish();
}

#[test]
fn a_lease_without_a_token_here_is_asked_of_all_and_who_is_missing_is_said() {
    let scene = Scene::new();
    let east = node(&scene, "east", EAST, |peer| {
        for _ in 0..2 {
            refuses(peer, &Code::LeaseUnknown.into());
        }
    });
    let west = node(&scene, "west", WEST, |peer| {
        let (frame, _) = peer.control();
        peer.reply(&frame, &Reply::Lease { lease: lease(ID), memory: None });
        refuses(peer, &Code::LeaseUnknown.into());
    });
    let both = nodes(&scene, &[&east.address, &west.address]);
    assert_eq!(both.knowing(ID).unwrap().welcome().provider, WEST);
    assert_eq!(code(both.knowing(ID)), Code::LeaseUnknown);
    drop(both);
    east.finish();
    west.finish();
    // One that cannot be asked may know it.
    let east = node(&scene, "east", EAST, |peer| drop(refuses(peer, &Code::LeaseUnknown.into())));
    let list = nodes(&scene, &[&east.address, &nowhere()]);
    assert_eq!(code(list.knowing(ID)), Code::Unreachable);
    drop(list);
    east.finish();
}

#[test]
fn a_list_has_one_node_at_least_and_none_twice() {
    let scene = Scene::new();
    let one = scene.endpoint("127.0.0.1:1");
    for wrong in [vec![], vec![one.clone(), one.clone()], vec![one; libmem::cluster::NODES_MAX + 1]] {
        assert_eq!(code(Nodes::list(&wrong, &key())), Code::Range);
    }
}
