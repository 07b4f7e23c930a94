//! The fuzz target of the kernel: any bytes as a run of events, and a world around it that keeps its own books.
//!
//! The world does what the runtime does: it reports each region built once and each region taken back once, and brings
//! each rotation to its end, late and in any order. It also knows what an adversary has: every descriptor that was ever
//! handed out, of which segment's which file, and by which right. Everything else is hostile: stale handles, sessions of
//! others, leases that were never there, times
//! and sizes up to the last bit. After each step the kernel's invariants must hold, and what it answered must agree
//! with the world's books; at the end everything is taken back and the kernel must be empty.
//!
//! | file | idea |
//! |---|---|
//! | `seeds`, `act` | the input: bytes as events |
//! | `step`, `over` | what is checked after every step, and what an adversary may still have |
//! | `life`, `rights`, `rotation`, `roots`, `owner` | what the runtime would do, and what each answer must be |

mod act;
mod life;
mod over;
mod owner;
mod rights;
mod roots;
mod rotation;
mod seeds;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use caps::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::token::{Mark, Meter};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Lifetime, Tier};
use policy::quota::{Openings, Quota, WithinQuota};

use super::region::RegionKey;
use super::table::Key;
use super::{Answer, Config, Effect, Event, Kernel, OpenRequest, Opening, RotationId, SessionId, Survivor};

pub use seeds::event_seeds;
use seeds::*;

/// Most events of one input.
const EVENTS_MAX: usize = 256;
/// Bytes of a page, the unit of small sizes.
pub(super) const PAGE: u64 = 4096;
/// Pages of the pool: a few regions fill it.
pub(super) const POOL_PAGES: u64 = 8;
/// Most regions: less than the pool has pages, so that either bound is met.
pub(super) const REGIONS_MAX: usize = 5;
/// Rights that one principal may have open, and how many of them mapped: fewer than the table has.
pub(super) const OPENS_MAX: u32 = 5;
pub(super) const MAPPINGS_MAX: u32 = 3;
/// Most meters of a region, half of them on either side, and of one receiver.
const METERS_MAX: usize = 6;
pub(super) const METERS_PER_SIDE: usize = METERS_MAX / 2;
pub(super) const METERS_PER_RECEIVER: usize = 2;
/// The uid of the node, which differs from every client's but one.
const UID: u32 = 1;

/// A small kernel: every table can be filled by a short input.
pub(super) fn small_config() -> Config {
    Config {
        cluster: ClusterEpoch([1; 16]),
        provider: ProviderId([2; 16]),
        pool_bytes: POOL_PAGES * PAGE,
        regions_max: REGIONS_MAX,
        opens_max: 8,
        opens_per_session_max: 4,
        segments_per_region_max: 4,
        segments_max: 12,
        exposures_max: 3,
        mapping_end_step: 4_000_000,
        revocations_per_region_max: 2,
        meters_per_region_max: METERS_MAX,
        meters_per_receiver_max: METERS_PER_RECEIVER,
        marks_per_region_max: 3,
        ended_max: 2,
        tier: Tier::Sealed,
        uid: UID,
    }
}

/// That the small quota of `payer` was asked, by one who did not look at the books: the kernel does.
pub(super) fn asked(payer: PrincipalKey, path: Path) -> WithinQuota {
    let quota = Quota { opens: OPENS_MAX, mappings: MAPPINGS_MAX, ..Quota::UNLIMITED };
    Openings::default().ask(payer, &quota, path == Path::Mapped).expect("nothing is open in these books")
}

/// Reads `data` as a tier and events, and drives the kernel with them.
///
/// # Panics
/// If an invariant does not hold or an answer disagrees with the books.
pub fn events_any(data: &[u8]) {
    let mut bytes = Bytes(data);
    let Some(tier) = bytes.byte() else { return };
    let tier = [Tier::Sealed, Tier::Sandboxed, Tier::Open][usize::from(tier) % 3];
    let mut world = World::new(Config { tier, ..small_config() });
    for _ in 0..EVENTS_MAX {
        if world.act(&mut bytes).is_none() {
            break;
        }
    }
    world.end();
}
/// The input, from the front.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Mostly a small number, in units; from 250 on a number near the end of 64 bits, where sums wrap.
    fn number(&mut self, unit: u64) -> Option<u64> {
        let byte = self.byte()?;
        Some(match byte {
            250.. => u64::MAX >> (u32::from(u8::MAX - byte) / 2),
            small => u64::from(small) * unit,
        })
    }
}

/// What the world knows of a region. It is here from `Build` until its memory is reported gone.
struct Region {
    lease: LeaseId,
    bytes: u64,
    segment_bytes: u64,
    life: Life,
    pinned: bool,
    deadline: BootNanos,
    files: Vec<File>,
    /// Lengths of files that rotations replaced or came too late with, and that were not reported wiped yet.
    unspent: Vec<u64>,
    owner: PrincipalKey,
    /// When its owner's time began.
    since: UnixMicros,
    /// The latest change of the owner that was told.
    tried: UnixMicros,
    /// The change that can be undone.
    given: Option<UnixMicros>,
    /// What was known of it then, and is again if that is undone.
    aside: Aside,
}

/// What is known of a region's tokens.
#[derive(Default)]
struct Aside {
    revoked: Vec<(RegionKey, GrantId, UnixMicros)>,
    narrowed: Vec<Narrowing>,
    cut: Vec<(RegionKey, Mark, UnixMicros)>,
    counted: Vec<Counted>,
}

impl Region {
    fn segment(&self, index: usize) -> ByteRange {
        let start = index as u64 * self.segment_bytes;
        ByteRange::new(start, (start + self.segment_bytes).min(self.bytes)).expect("a segment has bytes")
    }

    /// Bytes of fresh and replaced files.
    fn rotating(&self) -> u64 {
        let fresh = (0..self.files.len()).filter(|&index| self.files[index].fresh);
        fresh.map(|index| self.segment(index).len()).sum::<u64>() + self.unspent.iter().sum::<u64>()
    }
}

/// A segment's present file.
struct File {
    generation: u32,
    rotating: Option<RotationId>,
    /// Whether a fresh one was granted.
    fresh: bool,
    /// Every descriptor of it that left.
    out: Vec<Descriptor>,
}

/// What an adversary may hold for ever: closing a right does not take it back.
struct Descriptor {
    region: RegionKey,
    segment: ByteRange,
    grant: Option<GrantId>,
    write: bool,
    /// When its right ends, if not with the region.
    until: Option<BootNanos>,
    /// Of the token by which it came.
    marks: Box<[Mark]>,
    /// The key that minted it.
    root: u32,
    /// Whether its region has another owner since.
    former: bool,
}

/// What a grant was narrowed to.
struct Narrowing {
    region: RegionKey,
    grant: GrantId,
    rights: Rights,
    range: ByteRange,
    expires: UnixMicros,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// Asked for; the report is the world's to give.
    Building,
    /// Reported built.
    Live,
    /// The kernel asked for it back; the report is the world's to give.
    Ending,
}

/// What the world knows of an open right.
struct Right {
    opening: Opening,
    session: SessionId,
    lease: LeaseId,
    grant: Option<GrantId>,
    /// Whether it ends with its region and not before.
    follows: bool,
    /// Whether its token ends with its grant.
    ends_grant: bool,
    handed_out: bool,
    fenced: bool,
    marks: Box<[Mark]>,
    root: u32,
    payer: PrincipalKey,
}

struct World {
    kernel: Kernel,
    /// Milliseconds on both clocks.
    now_ms: u64,
    regions: BTreeMap<RegionKey, Region>,
    /// Every right ever opened, in the order of opening.
    rights: Vec<Right>,
    keys: BTreeSet<Key>,
    /// Grants taken back while their region was there, and until when their tokens would have held.
    revoked: Vec<(RegionKey, GrantId, UnixMicros)>,
    /// What the step under way takes back, however short its memory of it may be.
    taking: Option<(RegionKey, GrantId)>,
    narrowed: Vec<Narrowing>,
    /// The region that the step under way gives to another owner.
    giving: Option<RegionKey>,
    /// Marks taken back while their region was there, and until when.
    cut: Vec<(RegionKey, Mark, UnixMicros)>,
    /// The one that the step under way takes back, and the grant that may go in its place.
    cutting: Option<(RegionKey, Mark, Option<GrantId>)>,
    /// Whether that grant went.
    grant_went: bool,
    /// Rights that were promised the present file of a segment.
    promised: BTreeSet<(Key, usize)>,
    last_rotation: u64,
    /// Bytes of each replaced file that is kept.
    kept: Vec<u64>,
    counted: Vec<Counted>,
    roots: roots::Roots,
}

/// An opening that was counted: its region and meter, until when the count has to be known, and whether it is on the
/// owner's side.
type Counted = (RegionKey, Mark, UnixMicros, bool);

impl World {
    fn new(config: Config) -> Self {
        Self {
            kernel: Kernel::new(config),
            now_ms: 0,
            regions: BTreeMap::new(),
            rights: Vec::new(),
            keys: BTreeSet::new(),
            revoked: Vec::new(),
            taking: None,
            narrowed: Vec::new(),
            giving: None,
            cut: Vec::new(),
            cutting: None,
            grant_went: false,
            promised: BTreeSet::new(),
            last_rotation: 0,
            kept: Vec::new(),
            counted: Vec::new(),
            roots: roots::Roots::default(),
        }
    }

    const fn boot(&self) -> BootNanos {
        BootNanos(self.now_ms.saturating_mul(1_000_000))
    }

    const fn unix(&self) -> UnixMicros {
        UnixMicros(self.now_ms.saturating_mul(1_000))
    }

    fn right(&self, open: Key) -> &Right {
        self.rights.iter().rfind(|right| right.opening.open == open).expect("a right that was opened")
    }

    fn life(&self, lease: LeaseId) -> Option<Life> {
        self.find(lease).map(|(_, region)| region.life)
    }

    fn find(&self, lease: LeaseId) -> Option<(RegionKey, &Region)> {
        self.regions.iter().find(|(_, region)| region.lease == lease).map(|(&key, region)| (key, region))
    }

    fn all(&self, life: Life) -> Vec<RegionKey> {
        self.regions.iter().filter(|(_, region)| region.life == life).map(|(&key, _)| key).collect()
    }

    fn pick(&self, number: u8, life: Life) -> Option<RegionKey> {
        let all = self.all(life);
        (!all.is_empty()).then(|| all[usize::from(number) % all.len()])
    }
}

// Small numbers name things, so that wrong names, repeats and races come up often.
const fn lease(byte: u8) -> LeaseId {
    LeaseId([byte % 6; 16])
}

const fn grant(byte: u8) -> GrantId {
    GrantId([byte % 4; 16])
}

/// A grant's own token, or the owner's.
const fn root(grant: Option<GrantId>) -> Mark {
    Mark::from_bytes([if let Some(grant) = grant { grant.0[0] } else { 0 }; 32])
}

/// What a token was made into: the same three under any grant.
const fn child(byte: u8) -> Mark {
    Mark::from_bytes([4 + byte % 4; 32])
}

const fn session(byte: u8) -> SessionId {
    SessionId(byte as u64 % 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a seed and gives the world before its end.
    fn run(seed: &[u8]) -> World {
        let mut world = World::new(small_config());
        let mut bytes = Bytes(&seed[1..]);
        while world.act(&mut bytes).is_some() {}
        world
    }

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        let seeds = event_seeds();
        let worlds: Vec<_> = seeds.iter().map(|seed| run(seed)).collect();
        let rights: Vec<_> = worlds.iter().map(|world| world.rights.len()).collect();
        assert_eq!(rights, [1, 2, 1, 1, 0, 1, 1, 2, 1, 1, 1, 2, 3, 1, 3]);
        let regions: Vec<_> = worlds.iter().map(|world| world.regions.len()).collect();
        assert_eq!(regions, [0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!(
            worlds[12].rights[0].fenced && !worlds[12].rights[1].fenced,
            "its key is retired, and no other"
        );
        assert!(!worlds[13].rights[0].fenced, "a key that expired takes nothing along");
        assert!(worlds[1].rights[1].handed_out && worlds[1].rights[1].grant.is_some());
        assert_eq!(worlds[10].counted.len(), 2, "one opening below two blocks");
        for seed in seeds {
            events_any(&seed);
        }
    }

    /// A finding: a renewal that came after the lease's end and before the tick brought the lease back to life.
    #[test]
    fn a_renewal_before_a_late_tick_does_not_undo_the_end() {
        let seed = [0, CLAIM, 1, 2, 40, 0, 0, BUILT, 0, 1, SLEEP, 40, RENEW, 1, 5];
        let world = run(&seed);
        assert_eq!(world.life(lease(1)), Some(Life::Ending));
        events_any(&seed);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            events_any(&bytes);
        }

        /// Bytes that name few things act on them more often.
        #[test]
        fn any_small_bytes(bytes in prop::collection::vec(0..KINDS, 0..600)) {
            events_any(&bytes);
        }
    }
}
