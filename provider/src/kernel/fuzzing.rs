//! The fuzz target of the kernel: any bytes as a run of events, and a world around it that keeps its own books.
//!
//! The world does what the runtime does: it reports each region built once and each region taken back once, late and
//! in any order. Everything else is hostile: stale handles, sessions of others, leases that were never there, times
//! and sizes up to the last bit. After each step the kernel's invariants must hold, and what it answered must agree
//! with the world's books; at the end everything is taken back and the kernel must be empty.

use std::collections::{BTreeMap, BTreeSet};

use caps::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Lifetime, Tier};

use super::region::RegionKey;
use super::table::Key;
use super::{Answer, Config, Effect, Event, Kernel, OpenRequest, Opening, SessionId};

/// Most events of one input.
const EVENTS_MAX: usize = 256;
/// Bytes of a page, the unit of small sizes.
pub(super) const PAGE: u64 = 4096;
/// Pages of the pool: a few regions fill it.
pub(super) const POOL_PAGES: u64 = 8;
/// Most regions: less than the pool has pages, so that either bound is met.
pub(super) const REGIONS_MAX: usize = 5;
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
        revocations_per_region_max: 2,
        ended_max: 2,
        tier: Tier::Sealed,
        uid: UID,
    }
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

/// Inputs to start from: each reaches one end of a lease's life.
#[must_use]
pub fn event_seeds() -> Vec<Vec<u8>> {
    let claim = [CLAIM, 1, 2, 40, 0]; // lease 1, 2 pages, 40 ms, detached
    let tied = [CLAIM, 1, 2, 40, 5]; // and tied to session 2
    let built = [BUILT, 0, 1];
    let owner = [OPEN, 1, 2, 0, 40, 8, 0b0010, 0]; // session 2, no grant, the whole region, mapped
    let part = [OPEN, 1, 1, 2, 9, 1, 0b0001, 0]; // session 1, a grant, one page, mediated
    let receiver = [OPEN, 1, 1, 2, 40, 8, 0b0010, 0];
    let hand_out = [HAND_OUT, 0];
    let run = |acts: &[&[u8]]| [&[0][..], &acts.concat()].concat();
    vec![
        run(&[&claim, &built, &owner, &hand_out, &[TAKE_LEASE, 1], &[TAKEN, 0]]),
        run(&[&claim, &built, &owner, &hand_out, &receiver, &[HAND_OUT, 1], &[TAKE_GRANT, 1, 2, 30]]),
        run(&[&claim, &built, &part, &[TAKE_GRANT, 1, 2, 30], &part]),
        run(&[&tied, &built, &owner, &[SESSION_ENDED, 2], &[TAKEN, 0], &claim]),
        run(&[&claim, &[TAKE_LEASE, 1], &built, &[TAKEN, 0]]),
        run(&[&claim, &[BUILT, 0, 0], &claim, &built, &part, &[RENEW, 1, 5], &[WAIT, 9], &[TAKEN, 0]]),
        run(&[&claim, &built, &part, &[CLOSE, 0, 1], &[WAIT, 50], &part]),
    ]
}

const CLAIM: u8 = 0;
const BUILT: u8 = 1;
const RENEW: u8 = 2;
const OPEN: u8 = 3;
const HAND_OUT: u8 = 4;
const CLOSE: u8 = 5;
const SESSION_ENDED: u8 = 6;
const TAKE_LEASE: u8 = 7;
const TAKE_GRANT: u8 = 8;
const TAKEN: u8 = 9;
const WAIT: u8 = 10;
const JUMP: u8 = 11;
const SLEEP: u8 = 12;
const KINDS: u8 = 13;

/// The input, from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
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
    life: Life,
    deadline: BootNanos,
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
    handed_out: bool,
    fenced: bool,
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
}

impl World {
    fn new(config: Config) -> Self {
        Self {
            kernel: Kernel::new(config),
            now_ms: 0,
            regions: BTreeMap::new(),
            rights: Vec::new(),
            keys: BTreeSet::new(),
            revoked: Vec::new(),
        }
    }

    const fn boot(&self) -> BootNanos {
        BootNanos(self.now_ms.saturating_mul(1_000_000))
    }

    const fn unix(&self) -> UnixMicros {
        UnixMicros(self.now_ms.saturating_mul(1_000))
    }

    /// One step of the kernel, and every check that fits any step.
    fn step(&mut self, event: Event) -> caps::Result<Answer> {
        let step = self.kernel.step(self.boot(), event);
        for effect in &step.effects {
            match effect {
                Effect::Fence { open } => {
                    let right = self.rights.iter_mut().rfind(|right| right.opening.open == *open);
                    let right = right.expect("a right is open before it is fenced");
                    assert!(!right.fenced, "a right is fenced once");
                    right.fenced = true;
                }
                Effect::Closed { open, row, .. } => {
                    let right = self.right(*open);
                    assert!(right.fenced, "a right is fenced before it is forgotten");
                    assert_eq!((row.session, row.grant), (right.session, right.grant));
                    assert_eq!(row.handed_out, right.handed_out);
                }
                Effect::TakeBack { region, lease, .. } => {
                    let known = self.regions.get_mut(region).expect("memory that exists is taken back");
                    assert_eq!((known.life, known.lease), (Life::Live, *lease), "and it is taken back once");
                    known.life = Life::Ending;
                    let open =
                        self.rights.iter().any(|right| right.opening.region == *region && !right.fenced);
                    assert!(!open, "every right is fenced before its memory is cut");
                }
                Effect::Rotate { .. } | Effect::Narrowed { .. } => {}
                Effect::GrantEnded { grant, .. } => {
                    assert!(
                        self.rights.iter().any(|right| right.grant == Some(*grant)),
                        "it was opened once"
                    );
                }
            }
        }
        step.answer
    }

    fn right(&self, open: Key) -> &Right {
        self.rights.iter().rfind(|right| right.opening.open == open).expect("a right that was opened")
    }

    /// What must hold between any two steps.
    fn check(&self) {
        assert_eq!(self.kernel.check_invariants(self.unix()), Ok(()));
        let bytes: u64 = self.regions.values().map(|region| region.bytes).sum();
        assert_eq!(self.kernel.committed_bytes(), bytes, "the ledger counts until the memory is gone");
        assert_eq!(self.kernel.regions(), self.regions.len());
        for right in &self.rights {
            let row = self.kernel.open_row(right.opening.open);
            assert_eq!(row.is_none(), right.fenced, "a right is open until it is fenced");
            let life = self.regions.get(&right.opening.region).map(|region| region.life);
            assert!(right.fenced || life == Some(Life::Live), "a right is to live memory");
        }
    }

    /// Reads one event and carries it out; `None` at the end of the input.
    fn act(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        match bytes.byte()? % KINDS {
            CLAIM => self.claim(bytes)?,
            BUILT => {
                let (region, works) = (self.pick(bytes.byte()?, Life::Building), bytes.byte()? != 0);
                if let Some(region) = region {
                    self.built(region, works);
                }
            }
            RENEW => {
                let (lease, ttl) = (lease(bytes.byte()?), Micros(bytes.number(1_000)?));
                let due = self.find(lease).is_some_and(|(_, known)| known.deadline <= self.boot());
                match self.step(Event::Renew { lease, ttl }) {
                    Ok(Answer::Renewed { region, deadline }) => {
                        let known = self.regions.get_mut(&region).expect("a renewed lease has memory");
                        assert_eq!(
                            (known.lease, known.life),
                            (lease, Life::Live),
                            "only live leases are renewed"
                        );
                        assert!(!due, "what is over is not renewed");
                        known.deadline = deadline;
                    }
                    Ok(other) => panic!("a renewal was answered with {other:?}"),
                    Err(_) => {}
                }
            }
            OPEN => self.open(bytes)?,
            HAND_OUT => {
                let index = usize::from(bytes.byte()?);
                // The runtime hands out once, right after it opened for mapping.
                let right = self.rights.get(index);
                let Some(right) =
                    right.filter(|right| !right.handed_out && right.opening.path == Path::Mapped)
                else {
                    return Some(());
                };
                let (open, fenced) = (right.opening.open, right.fenced);
                let answer = self.step(Event::HandedOut { open, segment: 0, generation: 1, write: false });
                assert_eq!(answer.is_err(), fenced, "no descriptor of a dead right leaves the provider");
                self.rights[index].handed_out = !fenced;
            }
            CLOSE => {
                let (right, session) = (usize::from(bytes.byte()?), session(bytes.byte()?));
                // An index past the rights is a handle out of thin air.
                let (key, owner, fenced) = match self.rights.get(right) {
                    Some(right) => (right.opening.open, Some(right.session), right.fenced),
                    None => (Key { index: right as u32, generation: 0 }, None, true),
                };
                let handle = SlotHandle { slot: key.index, epoch: key.generation };
                let answer = self.step(Event::Close { session, handle });
                assert_eq!(answer.is_ok(), owner == Some(session) && !fenced, "only the owner closes, once");
            }
            SESSION_ENDED => {
                let session = session(bytes.byte()?);
                self.session_ended(session);
            }
            TAKE_LEASE => {
                let lease = lease(bytes.byte()?);
                self.take_lease(lease);
            }
            TAKE_GRANT => {
                let (lease, grant) = (lease(bytes.byte()?), grant(bytes.byte()?));
                let until = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
                self.revoked.extend(self.find(lease).map(|(region, _)| (region, grant, until)));
                let taken = Take::Grant { lease, grant, expires: until };
                let now_unix = self.unix();
                self.step(Event::Take { take: taken, cause: EndCause::Revoked, now_unix })
                    .expect("a revoke is never refused");
                let mine = |right: &&Right| right.lease == lease && right.grant == Some(grant);
                let mapped = self.rights.iter().filter(mine).any(|right| {
                    right.handed_out
                        && self.regions.get(&right.opening.region).is_some_and(|r| r.life == Life::Live)
                });
                assert!(
                    self.rights.iter().filter(mine).all(|right| right.fenced),
                    "no right outlives its grant"
                );
                assert!(!mapped, "memory that a revoked grant maps is cut");
            }
            TAKEN => {
                if let Some(region) = self.pick(bytes.byte()?, Life::Ending) {
                    self.taken(region);
                }
            }
            WAIT => {
                let millis = u64::from(bytes.byte()?);
                self.wait(millis);
            }
            SLEEP => self.now_ms = self.now_ms.saturating_add(bytes.byte()?.into()), // the tick is late
            JUMP.. => {
                // To the next deadline, or one millisecond short of it.
                let short = u64::from(bytes.byte()? & 1);
                let at = self.kernel.next_deadline().map_or(self.now_ms, |at| at.0.div_ceil(1_000_000));
                self.wait(at.saturating_sub(self.now_ms).saturating_sub(short));
            }
        }
        self.check();
        Some(())
    }

    fn claim(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, size, ttl) = (lease(bytes.byte()?), bytes.number(PAGE)?, bytes.number(1_000)?);
        let who = bytes.byte()?;
        let ticket = ClaimTicket {
            lease,
            region: RegionId(lease.0),
            owner: PrincipalKey([lease.0[0]; 32]),
            bytes: size,
            segment_bytes: size,
            ttl: Micros(ttl),
            lifetime: if who & 1 == 1 { Lifetime::Process } else { Lifetime::Detached },
            claim_by: UnixMicros(if who & 0x80 == 0 { u64::MAX } else { 50_000 }),
        };
        let session = (who & 0x40 == 0).then_some(session(who >> 1));
        let used: u64 = self.regions.values().map(|region| region.bytes).sum();
        let known = self.life(lease).is_some();
        match self.step(Event::Claim { ticket, session, now_unix: self.unix() }) {
            Ok(Answer::Build { region, bytes, deadline, .. }) => {
                assert!(!known, "a lease is claimed once");
                assert_eq!(bytes, size);
                assert!(
                    used.checked_add(size).is_some_and(|sum| sum <= POOL_PAGES * PAGE),
                    "the pool is the pool"
                );
                let fresh =
                    self.regions.insert(region, Region { lease, bytes, life: Life::Building, deadline });
                assert!(fresh.is_none(), "a key names one region");
            }
            Ok(other) => panic!("a claim was answered with {other:?}"),
            Err(_) => {}
        }
        Some(())
    }

    fn open(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, session, under) = (lease(bytes.byte()?), session(bytes.byte()?), bytes.byte()?);
        let (left, pages, flags) = (bytes.number(1_000)?, bytes.number(PAGE)?, bytes.byte()?);
        let start = u64::from(bytes.byte()?) * 512;
        let grant = (under % 4 != 0).then(|| grant(under % 4));
        let Ok(range) = ByteRange::new(start, pages.min(ByteRange::END_MAX)) else { return Some(()) };
        let request = OpenRequest {
            session,
            uid: u32::from(flags >> 6),
            sandboxed: flags & 4 != 0,
            holder: PrincipalKey(if grant.is_some() { [0xff; 32] } else { [lease.0[0]; 32] }),
            lease,
            grant,
            rights: if flags & 8 != 0 { Rights::READ } else { Rights::READ_WRITE },
            range,
            expires: UnixMicros(self.unix().0.saturating_add(left)),
            now_unix: self.unix(),
            metered: flags & 16 != 0,
            narrowed: flags & 32 != 0,
            path: if flags & 1 == 1 { Path::Mediated } else { Path::Mapped },
        };
        let asked = request.clone();
        if let Ok(answer) = self.step(Event::Open(request)) {
            let Answer::Opened(opening) = answer else { panic!("an open was answered with {answer:?}") };
            assert!(self.keys.insert(opening.open), "a key names one right, ever");
            let region = self.regions.get(&opening.region).expect("a right is to memory that exists");
            assert_eq!((region.lease, region.life), (lease, Life::Live));
            assert!(asked.range.contains(opening.range), "no byte that the token does not reach");
            assert!(opening.range.end() <= region.bytes, "and none past the region");
            assert_eq!((opening.rights, opening.path), (asked.rights, asked.path));
            assert!(left > 0 && opening.deadline > self.boot(), "nothing opens after its time");
            assert!(
                opening.deadline <= region.deadline && region.deadline > self.boot(),
                "nor after its lease's"
            );
            let revoked = |&(of, by, until)| (of, Some(by)) == (opening.region, grant) && until > self.unix();
            assert!(!self.revoked.iter().any(revoked), "nor under a grant that was taken back");
            assert!(
                opening.deadline <= self.boot().plus(Micros(left)) || grant.is_none() && !asked.narrowed,
                "and nothing lives past it"
            );
            if opening.path == Path::Mapped {
                assert_eq!(opening.range.len(), region.bytes, "a mapping is of a whole region");
                assert!(!asked.metered, "what is metered is not mapped");
                let guarded = self.kernel.config().tier == Tier::Sealed
                    || asked.sandboxed
                    || [0, UID].contains(&asked.uid)
                    || !asked.rights.contains(Rights::WRITE);
                assert!(guarded, "strangers write through the provider where nothing holds them");
            }
            self.rights.push(Right { opening, session, lease, grant, handed_out: false, fenced: false });
        }
        Some(())
    }

    fn built(&mut self, region: RegionKey, works: bool) {
        if works {
            self.regions.get_mut(&region).expect("picked").life = Life::Live; // the memory exists from here on
            let answer = self.step(Event::Created { region, huge_bytes: 0, pinned: true });
            let live = self.regions[&region].life == Life::Live;
            assert_eq!(answer.is_ok(), live, "who is told of memory has it");
        } else {
            self.step(Event::CreateFailed { region }).expect("a build may fail");
            self.regions.remove(&region);
        }
    }

    fn session_ended(&mut self, session: SessionId) {
        self.step(Event::SessionEnded { session }).expect("a death is never refused");
        let alive = self.rights.iter().any(|right| right.session == session && !right.fenced);
        assert!(!alive, "no right outlives its session");
    }

    fn take_lease(&mut self, lease: LeaseId) {
        let life = self.life(lease);
        let now_unix = self.unix();
        let answer = self.step(Event::Take { take: Take::Lease(lease), cause: EndCause::Revoked, now_unix });
        assert_eq!(answer.expect("a revoke is never refused") == Answer::Gone, life.is_none());
        assert_ne!(self.life(lease), Some(Life::Live), "a revoke takes the memory back");
        assert!(
            self.rights.iter().all(|right| right.lease != lease || right.fenced),
            "and fences every right"
        );
    }

    fn taken(&mut self, region: RegionKey) {
        self.step(Event::Taken { region }).expect("memory that was asked back");
        self.regions.remove(&region);
    }

    fn wait(&mut self, millis: u64) {
        self.now_ms = self.now_ms.saturating_add(millis);
        self.step(Event::Tick).expect("time is never refused");
        let now = self.boot();
        assert!(self.kernel.next_deadline().is_none_or(|at| at > now), "what is due is done");
        let late =
            |right: &Right| self.kernel.open_row(right.opening.open).is_some_and(|row| row.deadline <= now);
        assert!(!self.rights.iter().any(late), "no right outlives its deadline");
    }

    /// Ends everything. What is left in the kernel then would stay for ever.
    fn end(&mut self) {
        for region in self.all(Life::Building) {
            self.built(region, true);
        }
        for lease in self.kernel.leases() {
            self.take_lease(lease);
        }
        for region in self.all(Life::Ending) {
            self.taken(region);
        }
        self.check();
        assert_eq!((self.kernel.regions(), self.kernel.committed_bytes()), (0, 0), "every byte came back");
        assert_eq!(self.kernel.next_deadline(), None, "nothing is left to fall due");
        assert!(self.kernel.by_session.is_empty() && self.kernel.tied.is_empty(), "no session is remembered");
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
        assert_eq!(rights, [1, 2, 1, 1, 0, 1, 1]);
        let regions: Vec<_> = worlds.iter().map(|world| world.regions.len()).collect();
        assert_eq!(regions, [0, 1, 1, 0, 0, 0, 1]);
        assert!(worlds[1].rights[1].handed_out && worlds[1].rights[1].grant.is_some());
        for seed in seeds {
            events_any(&seed);
        }
    }

    /// A finding: a renewal that came after the lease's end and before the tick brought the lease back to life.
    #[test]
    fn a_renewal_before_a_late_tick_does_not_undo_the_end() {
        let seed = [0, CLAIM, 1, 2, 40, 0, BUILT, 0, 1, SLEEP, 40, RENEW, 1, 5];
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
