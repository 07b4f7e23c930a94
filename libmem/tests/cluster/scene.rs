//! An authority, nodes of any name, and tokens of any provider.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{RootKey, Terms};
use caps::wire::provider::Address;
use caps::wire::remote::header::Header;
use caps::wire::remote::{Flags, Verb};
use caps::wire::{Name, Reply, Request};
use libmem::remote::Credentials;
use libmem::{Cluster, Endpoint, Place, Token};

use crate::certificates::{ALICE, Authority};
use crate::node::{Door, Frame, HANDLE, Peer, key, opened};

/// The life of the control plane.
pub const EPOCH: ClusterEpoch = ClusterEpoch([8; 16]);
/// What the broker welcomes as: it has no memory.
pub const NO_MEMORY: ProviderId = ProviderId([0xbb; 16]);
pub const EAST: ProviderId = ProviderId([0xe1; 16]);
pub const WEST: ProviderId = ProviderId([0xe2; 16]);

/// One authority and what it issued.
pub struct Scene {
    authority: Authority,
    alice: Arc<Credentials>,
}

/// A node that runs its script in a thread of its own.
pub struct Scripted {
    pub address: String,
    thread: JoinHandle<()>,
}

impl Scene {
    pub fn new() -> Self {
        let authority = Authority::new();
        let alice = authority.issue(ALICE);
        Self { authority, alice }
    }

    /// A node with the certificate of a role and a name.
    pub fn node(&self, who: &str, script: impl FnOnce(&Door) + Send + 'static) -> Scripted {
        let (door, address) = self.door(who);
        Scripted { address, thread: std::thread::spawn(move || script(&door)) }
    }

    /// Where one will listen.
    pub fn door(&self, who: &str) -> (Door, String) {
        Door::open(self.authority.issue(&format!("spiffe://mem.example/{who}")))
    }

    pub fn endpoint(&self, address: &str) -> Endpoint {
        // Nobody waits for who is gone: what is told at once is what these tests are about.
        Endpoint::tls(address, self.alice.clone()).timeout(Duration::from_secs(20)).reconnect(Duration::ZERO)
    }

    pub fn cluster(&self, broker: &str) -> Cluster {
        Cluster::new(&self.endpoint(broker), &key())
    }
}

impl Scripted {
    /// Waits for the script's end: its assertions count.
    pub fn finish(self) {
        self.thread.join().unwrap();
    }
}

/// Runs a script behind a door.
pub fn behind(door: Door, script: impl FnOnce(&Door) + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || script(&door))
}

/// An address where nobody listens.
pub fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub fn place(node: &str, address: &str) -> Place {
    Place { node: Name::new(node).unwrap(), address: Some(Address::new(address).unwrap()) }
}

/// A token of memory that a provider has.
pub fn token(provider: ProviderId) -> Token {
    token_of(provider, LeaseId([3; 16]))
}

pub fn token_of(provider: ProviderId, lease: LeaseId) -> Token {
    RootKey::from_seed(&[5; 32])
        .mint(&Terms {
            lease,
            region: RegionId([4; 16]),
            grant: None,
            range: ByteRange::new(0, 65_536).unwrap(),
            rights: Rights::READ_WRITE,
            holder: key().public(),
            not_before: UnixMicros(0),
            expires: UnixMicros::MAX,
            max_hops: 0,
            cluster: EPOCH,
            provider,
        })
        .unwrap()
}

/// Answers the next request, which asks where a provider is.
pub fn shows(peer: &mut Peer, provider: ProviderId, place: &Place) {
    let (frame, request) = peer.control();
    assert!(matches!(request, Request::ProviderShow { provider: asked } if asked == provider), "{request:?}");
    let reply = Reply::Provider { name: place.node.clone(), address: place.address.clone() };
    peer.reply(&frame, &reply);
}

/// Refuses the next request with exactly this.
pub fn refuses(peer: &mut Peer, error: &Error) -> Request {
    let (frame, request) = peer.control();
    told(peer, &frame, error);
    request
}

pub fn told(peer: &mut Peer, asked: &Frame, error: &Error) {
    let detail = error.detail().as_bytes();
    let mut header = Header::of(Verb::Control, Flags::ANSWER, asked.header.request, detail.len()).unwrap();
    header.deadline_or_code = u32::from(error.code() as u16);
    peer.bytes(&[&header.encode()[..], detail].concat());
}

/// A provider that opens whatever it is asked to, once, and waits until the client is gone.
pub fn opens_once(life: ProviderId) -> impl FnOnce(&Door) + Send + 'static {
    move |door| {
        let mut peer = door.welcome_of((EPOCH, life));
        peer.open_as(opened(HANDLE));
        gone(&mut peer);
    }
}

/// Waits until the client is gone, which closes what it opened and asks nothing more.
pub fn gone(peer: &mut Peer) {
    while let Some(frame) = peer.try_next() {
        let request: Request = caps::wire::cbor::decode(&frame.body).unwrap();
        assert!(matches!(request, Request::Close { .. }), "{request:?}");
    }
}

#[track_caller]
pub fn code<T>(result: libmem::Result<T>) -> Code {
    result.map(drop).unwrap_err().code()
}
