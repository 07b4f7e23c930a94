//! A node, alice with a region that she has mapped, and receivers.

use std::sync::Arc;
use std::time::Duration;

use libmem::{
    ByteRange, GrantId, LeaseOptions, LeaseRow, Leased, Lifetime, Memory, Reason, Receipt, Region, Rights,
    ShareOptions, SigningKey, Target,
};

use crate::common::log::Log;
use crate::common::stripes::{Found, Stripes};
use crate::common::world::Person;
use crate::common::writer::{By, Writer, Wrote};
use crate::common::{Actor, Ask, MINUTE, Said, World, is_root};

pub struct Scene {
    pub world: World,
    pub alice: Person,
    pub leased: Leased,
    pub bytes: u64,
    mine: Arc<Memory>,
}

/// A process of another user with a right of alice's region.
pub struct Receiver {
    pub actor: Actor,
    pub key: SigningKey,
    pub grant: GrantId,
    pub memory: usize,
}

/// A read-write share of all of it, as long as it lives.
pub fn all() -> impl Fn(ShareOptions) -> ShareOptions {
    |options| options
}

/// A part of it.
pub fn part(start: u64, end: u64) -> impl Fn(ShareOptions) -> ShareOptions {
    move |options| options.range(ByteRange::new(start, end).unwrap())
}

/// For a time.
pub fn lasting(ttl: Duration) -> impl Fn(ShareOptions) -> ShareOptions {
    move |options| options.ttl(ttl)
}

/// Whether nothing was lost or torn.
pub fn is_whole(found: Found) -> bool {
    (found.lost, found.torn) == (0, 0)
}

pub fn reason() -> Reason {
    Reason::new("a test ends it").unwrap()
}

impl Scene {
    /// A region of so many bytes in segments of so many; nothing where rotation cannot be seen from other users.
    pub fn set(bytes: u64, segment: Option<u64>) -> Option<Self> {
        Self::with(bytes, segment, MINUTE)
    }

    pub fn with(bytes: u64, segment: Option<u64>, ttl: Duration) -> Option<Self> {
        if !is_root() {
            eprintln!("not run: only root can start clients of other users");
            return None;
        }
        let world = World::with(
            "[quota.default]\nleased_bytes = \"1GiB\"\nresident_bytes = \"1GiB\"\nshared_bytes = \"16GiB\"\n",
        );
        if !world.node.is_sealed() {
            eprintln!("not run: this machine has no sealed descriptors");
            return None;
        }
        let alice = world.person();
        let mut options = LeaseOptions::new(bytes, ttl).lifetime(Lifetime::Detached);
        if let Some(segment) = segment {
            options = options.segment(segment);
        }
        let leased = alice.client.lease(options).unwrap();
        let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        let mine = Arc::new(Memory::Mapped(region));
        Some(Self { world, alice, leased, bytes, mine })
    }

    pub fn lease(&self) -> &LeaseRow {
        &self.leased.lease
    }

    /// What alice has mapped.
    pub fn mine(&self) -> &Region {
        match &*self.mine {
            Memory::Mapped(region) => region,
            Memory::Mediated(_) => unreachable!("alice maps"),
        }
    }

    /// Alice writes her stripes.
    pub fn write(&self, (writer, writers): (u8, u8)) -> Writer {
        let stripes = Stripes::new(writer, writers, self.bytes as usize).unwrap();
        Writer::start(self.mine.clone(), stripes, By::Calls)
    }

    /// How alice's mapping shows what a writer wrote.
    pub fn judge(&self, (writer, writers): (u8, u8), steps: u64) -> Found {
        let stripes = Stripes::new(writer, writers, self.bytes as usize).unwrap().after(steps);
        stripes.verify(self.mine().mapping()).unwrap()
    }

    /// Nothing that this writer wrote is lost or torn, neither as it saw it nor as alice sees it.
    #[track_caller]
    pub fn is_whole(&self, place: (u8, u8), wrote: &Wrote) {
        assert_eq!(wrote.code, "OK", "{wrote:?}");
        assert!(wrote.found.is_some_and(is_whole), "{wrote:?}");
        let found = self.judge(place, wrote.steps);
        assert!(is_whole(found), "as alice sees it: {found:?}; {wrote:?}");
    }

    /// Gives a process a further right; its token.
    pub fn give(
        &self,
        actor: &mut Actor,
        key: &SigningKey,
        rights: Rights,
        shape: impl Fn(ShareOptions) -> ShareOptions,
    ) -> (GrantId, String) {
        let options = shape(ShareOptions::new(key.public(), rights));
        let grant = self.alice.client.share_offer(self.lease(), &options, &self.alice.key).unwrap().id;
        match actor.ask(&Ask::Accept { grant, detached: true }) {
            Said::Accepted { token } => (grant, token),
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// A process of user `uid` with a read-write right that it has opened.
    pub fn receiver(&self, uid: u32, mapped: bool, shape: impl Fn(ShareOptions) -> ShareOptions) -> Receiver {
        let key = self.world.register();
        let mut actor = self.world.actor(&key, uid);
        let (grant, token) = self.give(&mut actor, &key, Rights::READ_WRITE, shape);
        let memory = actor.open(&token, Rights::READ_WRITE, mapped);
        Receiver { actor, key, grant, memory }
    }

    /// Takes a grant back.
    pub fn revoke(&self, grant: GrantId) -> Receipt {
        let receipt = self.alice.client.revoke(Target::Grant(grant), reason()).unwrap();
        receipt.verify(self.world.node.issuer()).unwrap();
        receipt
    }

    /// How often a segment of it was rotated.
    pub fn rotations(&self) -> u32 {
        self.alice.client.lease_show(self.lease().id).unwrap().memory.unwrap().rotations
    }

    /// Gives the region back; the books balance.
    pub fn end(self) -> Log {
        let Self { world, alice, leased, mine, .. } = self;
        alice.client.release(leased.lease.id).unwrap();
        drop((mine, alice));
        world.balances();
        world.finish()
    }
}

impl Receiver {
    /// Starts to write its stripes, and waits until it has written some.
    pub fn write(&mut self, scene: &Scene, place: (u8, u8), by: By) {
        self.actor.start_writing(self.memory, scene.bytes, place, by);
        assert!(self.actor.advance(1));
    }
}
