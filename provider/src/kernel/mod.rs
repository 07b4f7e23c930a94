//! The kernel: who holds which memory until when, and what has to happen next.
//!
//! Pure. [`Kernel::step`] takes an event and the time, changes its tables, and returns an answer and a list of
//! effects. It has no clock, no descriptor, no socket and no thread; the [`crate::runtime`] executes the effects and
//! feeds their outcome back as events. So tests, models and fuzzers drive the very code that runs.
//!
//! ```text
//!             Claim            Created               Take / Tick / HolderGone        Taken
//!  (nothing) ───────▶ Building ────────▶ Live ──────────────────────────────▶ Ending ─────▶ (nothing)
//!                        │ CreateFailed                                         ▲
//!                        └──────────────────────────────────────────────────────┘ never: nothing was handed out
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `event` | what can happen and what has to be done about it |
//! | `table` | a table of fixed capacity whose indexes carry generations |
//! | `region` | regions and the ledger of their bytes |
//! | `segment` | the pieces of a region that are mapped and cut as one, their generations, and who received each |
//! | `evidence` | what must be shown before a right is opened |
//! | `open`, `mapping` | rights that sessions opened, and which of them may be mapped |
//! | `meters` | how often rights were opened under tokens that limit it |
//! | `expose` | handing a segment's file out |
//! | `claim`, `take` | the two halves of a region's life |
//! | `narrow` | taking a part of a grant |
//! | `owner` | a region goes over to another owner |
//! | `rotate` | taking a segment from some and giving it to the others again |
//! | `headroom` | the room that is kept free for it |
//! | `grants` | what is revoked, narrowed or opened of a region, until the tokens expire |
//! | `marks` | tokens that were taken back below a grant, until they expire |
//! | `roots` | what is open under a root key that is believed no longer |
//! | `ended` | how leases ended that are gone |
//! | `invariants` | what holds after every step |
//! | `fuzzing` | the fuzz target's world: any bytes as events |

mod claim;
mod ended;
mod event;
mod evidence;
mod expose;
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod headroom;
mod invariants;
mod mapping;
mod marks;
mod meters;
#[cfg(test)]
mod model;
mod narrow;
mod open;
mod owner;
mod region;
mod roots;
mod rotate;
#[cfg(test)]
mod scenarios;
mod segment;
mod table;
mod take;

use std::collections::{BTreeSet, HashMap};

use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, LeaseId, PrincipalKey, ProviderId};
use caps::time::BootNanos;
use caps::wire::row::{MemoryRow, Tier};
use policy::quota::Openings;

pub use event::{Answer, Effect, Event, OpenRequest, Opening, RotationId, SessionId, Step, Survivor};
pub use evidence::{By, EpochCurrent};
pub use open::{Judged, OpenRow};
pub use region::{RegionKey, RegionRow, RegionState};
pub use segment::{FIRST_GENERATION, SegmentRow, SegmentState};

use ended::Ended;
use headroom::Headroom;
use table::Table;

/// What the kernel is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The life of the control plane.
    pub cluster: ClusterEpoch,
    /// This life of the provider.
    pub provider: ProviderId,
    /// Bytes that may be committed at one time.
    pub pool_bytes: u64,
    /// Most regions at one time.
    pub regions_max: usize,
    /// Most open rights at one time.
    pub opens_max: usize,
    /// Most open rights of one session.
    pub opens_per_session_max: usize,
    /// Most segments of one region. A lease that asks for more is refused.
    pub segments_per_region_max: usize,
    /// Most segments at one time.
    pub segments_max: usize,
    /// Most pairs of grant and access under which one segment's file is handed out: twice the live grants of a lease,
    /// the owner counted as one, never fall short of it.
    pub exposures_max: usize,
    /// Mappings under tokens that were narrowed after they were minted end on multiples of this, in nanoseconds since
    /// boot; never 0.
    pub mapping_end_step: u64,
    /// Most grants of one region whose revocation, narrowing or opening is remembered. When it is full of revoked and
    /// narrowed ones, a revoke ends the whole region instead.
    pub revocations_per_region_max: usize,
    /// Most blocks with limits on use that are counted for one region.
    pub meters_per_region_max: usize,
    /// Most of these of one receiver.
    pub meters_per_receiver_max: usize,
    /// Most marks of tokens that a region remembers as revoked, and as many again as mapped. While it cannot remember
    /// one, a revoke ends its grant or the whole region instead.
    pub marks_per_region_max: usize,
    /// Most leases whose end is remembered.
    pub ended_max: usize,
    /// The tier that mappings of other uids get on this machine.
    pub tier: Tier,
    /// The uid of the node: in the tier `open`, the only one besides root that may map writable.
    pub uid: u32,
}

/// What falls due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Region(RegionKey),
    /// The first exposure of the region's settled segments.
    Exposure(RegionKey),
    Open(table::Key),
}

/// The tables. See the module's documentation.
#[derive(Debug)]
pub struct Kernel {
    config: Config,
    regions: Table<RegionRow>,
    by_lease: HashMap<LeaseId, RegionKey>,
    opens: Table<OpenRow>,
    by_session: HashMap<SessionId, BTreeSet<table::Key>>,
    /// What is open by the first holders of the tokens; none for whom nothing is.
    openings: HashMap<PrincipalKey, Openings>,
    /// Leases that end with a session.
    tied: HashMap<SessionId, BTreeSet<RegionKey>>,
    deadlines: BTreeSet<(BootNanos, Due)>,
    ended: Ended,
    /// Segments of all regions.
    segments: usize,
    headroom: Headroom,
    last_rotation: u64,
    /// All bytes in the books: of the regions, and of fresh and replaced files.
    committed_bytes: u64,
    /// Those of fresh and replaced files.
    rotating_bytes: u64,
    /// Those of replaced files that are kept because they could not be wiped.
    kept_bytes: u64,
}

impl Kernel {
    /// Empty tables of the configured capacity.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            regions: Table::new(config.regions_max),
            by_lease: HashMap::with_capacity(config.regions_max),
            opens: Table::new(config.opens_max),
            by_session: HashMap::new(),
            openings: HashMap::new(),
            tied: HashMap::new(),
            deadlines: BTreeSet::new(),
            ended: Ended::new(config.ended_max),
            segments: 0,
            headroom: Headroom::default(),
            last_rotation: 0,
            committed_bytes: 0,
            rotating_bytes: 0,
            kept_bytes: 0,
            config,
        }
    }

    /// Applies one event at `now`.
    pub fn step(&mut self, now: BootNanos, event: Event) -> Step {
        let mut effects = Vec::new();
        let answer = match event {
            Event::Claim { ticket, session, now_unix } => self.claim(now, now_unix, ticket, session),
            Event::Created { region, huge_bytes, pinned } => {
                self.created(now, region, huge_bytes, pinned, &mut effects)
            }
            Event::CreateFailed { region } => self.create_failed(region),
            Event::Renew { lease, ttl } => self.renew(now, lease, ttl, &mut effects),
            Event::Open(request) => self.open(now, &request, &mut effects),
            Event::HandedOut { open, segment, generation, write } => {
                self.handed_out(now, open, segment, generation, write, &mut effects)
            }
            Event::Fresh { region, segment } => self.fresh(region, segment),
            Event::Rotated { region, segment } => self.rotated(region, segment),
            Event::Spent { region, bytes } => self.spent(region, bytes),
            Event::Close { session, handle } => self.close(session, handle, &mut effects),
            Event::SessionEnded { session } => self.session_ended(session, &mut effects),
            Event::Take { take, cause, now_unix } => self.take(now, now_unix, take, cause, &mut effects),
            Event::Taken { region } => self.taken(region),
            Event::Tick => self.tick(now, &mut effects),
            Event::Kept { region, bytes } => self.kept(region, bytes),
            Event::Unkept { bytes } => self.unkept(bytes),
            Event::RootExpired { root } => {
                self.root_expired(root);
                Ok(Answer::Done)
            }
        };
        effects.sort_by_key(Effect::phase); // stable: within a phase they stay as they were decided
        Step { answer, effects }
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNanos> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// What is known of a lease's memory.
    #[must_use]
    pub fn memory(&self, lease: LeaseId) -> Option<MemoryRow> {
        let row = self.regions.get(*self.by_lease.get(&lease)?)?;
        Some(MemoryRow {
            bytes: row.bytes,
            huge_bytes: row.huge_bytes,
            segments: row.segments.len() as u32, // at most the bound of a region
            rotations: row.rotations,
            tier: self.region_tier(row),
            mappings: row.mappings,
            opens: row.opens.len() as u32,
            pinned: row.pinned,
        })
    }

    /// How strongly a region's mappings are held: as the weakest of them, and where there is none, as this machine
    /// would hold one of any client.
    fn region_tier(&self, row: &region::RegionRow) -> Tier {
        let mut mapped =
            row.opens.iter().filter_map(|open| self.opens.get(*open)).filter(|open| open.handed_out);
        let confined =
            self.config.tier == Tier::Open && row.mappings > 0 && mapped.all(|open| open.sandboxed);
        if confined { Tier::Sandboxed } else { self.config.tier }
    }

    /// Bytes committed to regions, the ones being taken back included, to rotations under way, and to what is kept.
    #[must_use]
    pub const fn committed_bytes(&self) -> u64 {
        self.committed_bytes
    }

    /// Bytes that the pool keeps free for the next rotation: the largest segment that may need one, or 0.
    #[must_use]
    pub fn headroom_bytes(&self) -> u64 {
        self.headroom.bytes()
    }

    /// Number of regions, the ones being built or taken back included.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The region of a lease, one that is being taken back included.
    #[must_use]
    pub fn region_of(&self, lease: LeaseId) -> Option<RegionKey> {
        self.by_lease.get(&lease).copied()
    }

    /// Who owns a region, one that is being taken back included.
    #[must_use]
    pub fn owner_of(&self, region: RegionKey) -> Option<PrincipalKey> {
        self.regions.get(region).map(|row| row.owner)
    }

    /// Every lease that has memory here, the ones being taken back included.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        self.by_lease.keys().copied().collect()
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    fn live(&self, lease: LeaseId) -> Result<RegionKey> {
        let unknown = Error::new(Code::LeaseUnknown, "this provider holds no memory of that lease");
        let key = *self.by_lease.get(&lease).ok_or(unknown.clone())?;
        match self.regions.get(key).ok_or(unknown)?.state {
            RegionState::Live => Ok(key),
            RegionState::Building => Err(Error::new(Code::LeaseUnknown, "the lease's memory is not ready")),
            RegionState::Ending(cause) => Err(take::ended(cause)),
        }
    }
}
