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
    // Each is asked something before it is believed that it is still the life that it was.
    let asked = |peer: &mut Peer| drop(refuses(peer, &Code::NotAdmin.into()));
    let (east, west) = (node(&scene, "east", EAST, asked), node(&scene, "west", WEST, asked));
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
fn two_that_say_they_are_one_life_are_shown_nothing() {
    let scene = Scene::new();
    let (east, west) = (node(&scene, "east", EAST, |_| {}), node(&scene, "west", EAST, |_| {}));
    let both = nodes(&scene, &[&west.address, &east.address]);
    assert_eq!(code(both.open_mediated(&token(EAST), Rights::READ_WRITE)), Code::PeerIdentity);
    drop(both);
    east.finish();
    west.finish();
}

#[test]
fn a_life_is_remembered_from_its_lease_on_and_no_other_node_has_it() {
    let scene = Scene::new();
    // East leases, and goes away; west says from then on that it is what east was.
    let east = node(&scene, "east", EAST, |peer| {
        has_free(peer, EAST, 8192);
        leases(peer, EAST);
    });
    let west = scene.node("provider/west", |door: &Door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        has_free(&mut peer, WEST, 4096);
        drop(peer);
        let mut peer = door.welcome_of((EPOCH, EAST));
        refuses(&mut peer, &Code::LeaseUnknown.into());
        gone(&mut peer);
    });
    let both = nodes(&scene, &[&west.address, &east.address]);
    let leased = both.lease(&options()).unwrap().0;
    assert_eq!(both.place(EAST).unwrap().node.as_str(), "east");
    // West lost its connection, and makes its claim with the next one.
    assert_eq!(code(both.session(0).unwrap().lease_show(ID)), Code::LeaseUnknown);
    assert_eq!(both.session(0).unwrap().provider(), EAST);
    assert_eq!(both.at(&leased.token).unwrap().node().unwrap().as_str(), "east");
    // In a list that knows of nothing the same is known from what was kept.
    let place = both.place(EAST).unwrap();
    drop(both);
    east.finish();
    west.finish();
    let west = node(&scene, "west", EAST, |_| {});
    let later = nodes(&scene, &[&west.address]);
    later.remember(EAST, place);
    assert_eq!(code(later.open_mediated(&leased.token, Rights::READ)), Code::PeerIdentity);
    drop(later);
    west.finish();
}

#[test]
fn a_lease_that_two_nodes_say_they_have_is_asked_of_neither() {
    let scene = Scene::new();
    let knows = |peer: &mut Peer| {
        let (frame, _) = peer.control();
        peer.reply(&frame, &Reply::Lease { lease: lease(ID), memory: None });
    };
    let (east, west) = (node(&scene, "east", EAST, knows), node(&scene, "west", WEST, knows));
    let both = nodes(&scene, &[&east.address, &west.address]);
    assert_eq!(code(both.knowing(ID)), Code::WrongNode);
    drop(both);
    east.finish();
    west.finish();
}

#[test]
fn what_a_node_leases_after_it_was_started_again_is_opened_there() {
    let scene = Scene::new();
    let east = scene.node("provider/east", |door: &Door| {
        let mut peer = door.welcome_of((EPOCH, WEST));
        refuses(&mut peer, &Code::NotAdmin.into());
        drop(peer);
        let mut peer = door.welcome_of((EPOCH, EAST));
        has_free(&mut peer, EAST, 4096);
        leases(&mut peer, EAST);
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let one = nodes(&scene, &[&east.address]);
    let _ = one.session(0).unwrap().status();
    let leased = one.lease(&options()).unwrap().0;
    drop(one.open_mediated(&leased.token, Rights::READ_WRITE).unwrap());
    assert_eq!(one.session(0).unwrap().welcome().provider, WEST, "it goes on with the same session");
    drop(one);
    east.finish();
}

#[test]
fn a_token_of_a_life_that_began_unnoticed_finds_its_node() {
    let scene = Scene::new();
    let east = scene.node("provider/east", |door: &Door| {
        drop(door.welcome_of((EPOCH, WEST)));
        let mut peer = door.welcome_of((EPOCH, EAST));
        refuses(&mut peer, &Code::NotAdmin.into());
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    });
    let one = nodes(&scene, &[&east.address]);
    one.session(0).unwrap();
    drop(one.open_mediated(&token(EAST), Rights::READ_WRITE).unwrap());
    drop(one);
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
