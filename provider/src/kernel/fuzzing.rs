//! The fuzz target of the kernel: any bytes as a run of events, and a world around it that keeps its own books.
//!
//! The world does what the runtime does: it reports each region built once and each region taken back once, and brings
//! each rotation to its end, late and in any order. It also knows what an adversary has: every descriptor that was ever
//! handed out, of which segment's which file, and by which right. Everything else is hostile: stale handles, sessions of others, leases that were never there, times
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
use super::{Answer, Config, Effect, Event, Kernel, OpenRequest, Opening, RotationId, SessionId, Survivor};

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
        mapping_end_step: 4_000_000,
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
    let claim = [CLAIM, 1, 2, 40, 0, 0]; // lease 1, 2 pages, 40 ms, detached
    let tied = [CLAIM, 1, 2, 40, 5, 0]; // and tied to session 2
    let pieces = [CLAIM, 1, 4, 40, 0, 2]; // 4 pages in segments of 2
    let built = [BUILT, 0, 1];
    let owner = [OPEN, 1, 2, 0, 40, 8, 0b0010, 0]; // session 2, no grant, the whole region, mapped
    let part = [OPEN, 1, 1, 2, 9, 1, 0b0001, 0]; // session 1, a grant, one page, mediated
    let receiver = [OPEN, 1, 1, 2, 40, 8, 0b0010, 0];
    let hand_out = [HAND_OUT, 0, 0, 1];
    let theirs = [HAND_OUT, 1, 0, 1];
    let rotate = [PROGRESS, 0, 0, PROGRESS, 0, 0, SPEND, 0];
    let run = |acts: &[&[u8]]| [&[0][..], &acts.concat()].concat();
    vec![
        run(&[&claim, &built, &owner, &hand_out, &[TAKE_LEASE, 1], &[TAKEN, 0]]),
        run(&[&claim, &built, &owner, &hand_out, &receiver, &theirs, &[TAKE_GRANT, 1, 2, 30]]),
        run(&[&claim, &built, &part, &[TAKE_GRANT, 1, 2, 30], &part]),
        run(&[&tied, &built, &owner, &[SESSION_ENDED, 2], &[TAKEN, 0], &claim]),
        run(&[&claim, &[TAKE_LEASE, 1], &built, &[TAKEN, 0]]),
        run(&[&claim, &[BUILT, 0, 0], &claim, &built, &part, &[RENEW, 1, 5], &[WAIT, 9], &[TAKEN, 0]]),
        run(&[&claim, &built, &part, &[CLOSE, 0, 1], &[WAIT, 50], &part]),
        run(&[&pieces, &built, &owner, &hand_out, &receiver, &theirs, &[TAKE_GRANT, 1, 2, 30], &rotate]),
        run(&[&pieces, &built, &receiver, &hand_out, &[NARROW, 1, 2, 0b1, 0, 4, 30], &rotate, &[WAIT, 35]]),
        run(&[
            &pieces,
            &built,
            &receiver,
            &hand_out,
            &[NARROW, 1, 2, 0b11, 2, 2, 30, TAKE_LEASE, 1],
            &rotate,
        ]),
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
const NARROW: u8 = 13;
const PROGRESS: u8 = 14;
const SPEND: u8 = 15;
const KINDS: u8 = 16;

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
    segment_bytes: u64,
    life: Life,
    pinned: bool,
    deadline: BootNanos,
    files: Vec<File>,
    /// Lengths of files that rotations replaced or came too late with, and that were not reported wiped yet.
    unspent: Vec<u64>,
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
    /// Rights that were promised the present file of a segment.
    promised: BTreeSet<(Key, usize)>,
    last_rotation: u64,
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
            taking: None,
            narrowed: Vec::new(),
            promised: BTreeSet::new(),
            last_rotation: 0,
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
        assert!(step.effects.is_sorted_by_key(Effect::phase), "fences, then cuts, then records");
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
                    for index in 0..known.files.len() {
                        if std::mem::take(&mut known.files[index].fresh) {
                            known.unspent.push(known.segment(index).len());
                        }
                    }
                    let open =
                        self.rights.iter().any(|right| right.opening.region == *region && !right.fenced);
                    assert!(!open, "every right is fenced before its memory is cut");
                }
                Effect::Rotate { region, lease, rotation, segments, grant, cause, mappings } => {
                    assert!(rotation.0 > self.last_rotation, "a rotation's name is never used again");
                    self.last_rotation = rotation.0;
                    self.rotate(*region, *lease, *rotation, segments, *grant, *cause, *mappings);
                }
                Effect::Narrowed { open } => {
                    let row = self.kernel.open_row(*open).expect("what is narrowed goes on").clone();
                    let narrowed = &self.narrowed;
                    let right = self.rights.iter_mut().rfind(|right| right.opening.open == *open);
                    let right = right.filter(|right| !right.fenced).expect("an open right is narrowed");
                    let mut expected = right.opening;
                    for to in
                        narrowed.iter().filter(|to| (to.region, Some(to.grant)) == (row.region, right.grant))
                    {
                        expected.rights = expected.rights.intersect(to.rights);
                        expected.range = expected.range.intersect(to.range).expect("something is left");
                        expected.deadline =
                            expected.deadline.min(BootNanos(to.expires.0.saturating_mul(1_000)));
                    }
                    assert_ne!(expected, right.opening, "something changed");
                    assert_eq!((expected.rights, expected.range), (row.rights, row.range));
                    assert_eq!(expected.deadline, row.deadline);
                    right.opening = expected;
                }
                Effect::GrantEnded { grant, .. } => {
                    let now = self.unix();
                    let own = |right: &Right| {
                        let narrowed = |to: &Narrowing| {
                            (to.region, to.grant) == (right.opening.region, *grant) && to.expires <= now
                        };
                        right.grant == Some(*grant)
                            && right.fenced
                            && (right.ends_grant || self.narrowed.iter().any(narrowed))
                    };
                    assert!(self.rights.iter().any(own), "its own time is over, not a delegate's");
                }
            }
        }
        step.answer
    }

    #[allow(clippy::too_many_arguments)] // the fields of one effect
    fn rotate(
        &mut self,
        region: RegionKey,
        lease: LeaseId,
        rotation: RotationId,
        segments: &[u32],
        grant: Option<GrantId>,
        cause: EndCause,
        mappings: u32,
    ) {
        let known = &self.regions[&region];
        assert_eq!((known.life, known.lease), (Life::Live, lease), "live memory is rotated");
        assert!(known.pinned, "and only what is pinned");
        assert!(!segments.is_empty() && segments.is_sorted_by(|a, b| a < b));
        let mut gone = 0;
        for &index in segments {
            let file = &known.files[index as usize];
            assert_eq!(file.rotating, None, "a segment is rotated once at a time");
            let over: Vec<_> = file.out.iter().filter(|out| self.is_over(out) || self.is_late(out)).collect();
            assert!(!over.is_empty(), "a segment that nobody loses is left alone");
            assert!(grant.is_none() || over.iter().any(|out| out.grant == grant), "the grant lost it");
            gone += over.len() as u32;
        }
        match cause {
            EndCause::Expired => assert!(mappings >= gone, "who came by one grant goes with the first"),
            _ => assert_eq!(mappings, gone, "every descriptor that does not come back is counted"),
        }
        let known = self.regions.get_mut(&region).expect("as above");
        for &index in segments {
            known.files[index as usize].rotating = Some(rotation);
        }
    }

    /// Whether a descriptor gives what was taken back.
    fn is_over(&self, out: &Descriptor) -> bool {
        let Some(grant) = out.grant else { return false };
        let needed = if out.write { Rights::READ_WRITE } else { Rights::READ };
        self.taking == Some((out.region, grant))
            || self.is_revoked(out.region, grant)
            || self.narrowed.iter().any(|to| {
                (to.region, to.grant) == (out.region, grant)
                    && !(to.rights.contains(needed) && to.range.contains(out.segment))
            })
    }

    /// Whether a descriptor's time is over.
    fn is_late(&self, out: &Descriptor) -> bool {
        out.until.is_some_and(|until| until <= self.boot())
            || self
                .narrowed
                .iter()
                .any(|to| (to.region, Some(to.grant)) == (out.region, out.grant) && to.expires <= self.unix())
    }

    fn is_revoked(&self, region: RegionKey, grant: GrantId) -> bool {
        self.revoked.iter().any(|&(of, by, until)| (of, by) == (region, grant) && until > self.unix())
    }

    /// What a revoke promises: nobody holds more of a grant than what is left of it but through files that are being
    /// replaced, all by a rotation up to the one that the answer names.
    fn check_fenced(&self, lease: LeaseId, grant: GrantId, answer: &Answer) {
        let mine = |right: &&Right| right.lease == lease && right.grant == Some(grant) && !right.fenced;
        let taken = self.taking.is_some_and(|(_, taken)| taken == grant);
        assert!(!taken || !self.rights.iter().any(|right| mine(&right)), "no right outlives its grant");
        match *answer {
            Answer::Gone => assert!(self.find(lease).is_none()),
            Answer::Taking { region, .. } => assert_eq!(self.regions[&region].lease, lease),
            Answer::Fenced { region, upto, .. } => {
                let known = &self.regions[&region];
                assert_ne!(known.life, Life::Ending, "what is taken whole is waited for whole");
                let mut named = upto.is_none();
                for file in &known.files {
                    let theirs = |out: &&Descriptor| out.grant == Some(grant);
                    if file.out.iter().filter(theirs).any(|out| self.is_over(out)) {
                        assert!(file.rotating.is_some(), "what is over is on its way out");
                        assert!(file.rotating <= upto, "and waited for");
                    }
                    named |= file.rotating == upto && file.out.iter().any(|out| theirs(&out));
                }
                assert!(named, "nobody waits for a rotation that is none of theirs");
            }
            _ => panic!("a take-back was answered with {answer:?}"),
        }
    }

    /// One step of a rotation. Whether there was one to take that could be taken now.
    fn progress(&mut self, region: RegionKey, index: usize) -> bool {
        let known = &self.regions[&region];
        let segment = index as u32;
        let file = &known.files[index];
        let (range, fresh, generation) = (known.segment(index), file.fresh, file.generation);
        let rotates = file.rotating.is_some() && known.life == Life::Live;
        let ending = known.life == Life::Ending && file.rotating.is_some();
        if !fresh {
            let bytes = self.kernel.committed_bytes() + range.len();
            let others: u64 = self.regions.values().map(Region::rotating).sum();
            let answer = self.step(Event::Fresh { region, segment });
            if !rotates {
                assert!(answer.is_err(), "only what rotates gets room");
                let told = answer.is_err_and(|error| error.code() != caps::Code::Internal);
                assert!(!ending || told, "who rotates what is taken back is told so");
                return false;
            }
            let granted = bytes <= POOL_PAGES * PAGE;
            assert!(granted || others > 0, "room for one rotation is always there");
            assert_eq!(
                answer.expect("a segment that rotates"),
                if granted { Answer::Granted } else { Answer::Wait }
            );
            self.regions.get_mut(&region).expect("as above").files[index].fresh = granted;
            return granted;
        }
        let expected: Vec<_> = {
            let maps = |right: &&Right| {
                !right.fenced
                    && right.handed_out
                    && right.opening.region == region
                    && right.opening.range.contains(range)
            };
            let keys = self.rights.iter().filter(maps);
            let by_key: BTreeMap<_, _> = keys.map(|right| (right.opening.open, right.session)).collect();
            by_key.into_iter().map(|(open, session)| Survivor { open, session }).collect()
        };
        let answer = self.step(Event::Rotated { region, segment }).expect("a fresh file is ready");
        assert_eq!(answer, Answer::Rotated { generation: generation + 1, survivors: expected.clone() });
        self.promised.retain(|&(open, of)| {
            of != index
                || self
                    .rights
                    .iter()
                    .rfind(|right| right.opening.open == open)
                    .is_none_or(|right| right.opening.region != region)
        });
        self.promised.extend(expected.iter().map(|survivor| (survivor.open, index)));
        let known = self.regions.get_mut(&region).expect("as above");
        known.files[index] =
            File { generation: generation + 1, rotating: None, fresh: false, out: Vec::new() };
        known.unspent.push(range.len());
        true
    }

    fn spend(&mut self, region: RegionKey) -> bool {
        let Some(bytes) = self.regions.get_mut(&region).and_then(|known| known.unspent.pop()) else {
            return false;
        };
        self.step(Event::Spent { region, bytes }).expect("bytes of a rotation come back");
        true
    }

    fn hand_out(&mut self, index: usize, segment: usize, flags: u8) {
        let Some(right) = self.rights.get(index) else { return };
        let (opening, fenced, grant, follows) = (right.opening, right.fenced, right.grant, right.follows);
        let Some(known) = self.regions.get(&opening.region) else { return };
        let segment = segment % (known.files.len() + 1); // one past the last
        let file = known.files.get(segment);
        let generation = file.map_or(0, |file| file.generation) - u32::from(flags & 2 != 0 && file.is_some());
        let write = flags & 1 == 1;
        let now = self.boot();
        let event = Event::HandedOut { open: opening.open, segment: segment as u32, generation, write };
        let answer = self.step(event);
        let promised = self.promised.contains(&(opening.open, segment));
        if let Err(error) = &answer {
            assert!(!promised || error.code() != caps::Code::NoMemory, "a survivor has its room");
            return;
        }
        assert!(!fenced && now < opening.deadline, "no descriptor of a dead right leaves the provider");
        assert_eq!(opening.path, Path::Mapped);
        let known = self.regions.get_mut(&opening.region).expect("as above");
        let range = known.segment(segment);
        assert!(opening.range.contains(range), "nor one of bytes that it does not reach");
        let file = &mut known.files[segment];
        let stale = file.rotating.is_some()
            || file.generation != generation
            || (write && !opening.rights.contains(Rights::WRITE));
        assert_eq!(answer == Ok(Answer::Stale), stale);
        if !stale {
            let until = (!follows).then_some(opening.deadline);
            file.out.push(Descriptor { region: opening.region, segment: range, grant, write, until });
            self.rights[index].handed_out = true;
        }
    }

    fn narrow(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, grant, rights) = (lease(bytes.byte()?), grant(bytes.byte()?), bytes.byte()? % 4);
        let (start, length) =
            (u64::from(bytes.byte()?) * PAGE / 2, u64::from(bytes.byte()?).max(1) * PAGE / 2);
        let expires = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
        let rights = Rights::try_from(rights).expect("two bits");
        let range = ByteRange::at(start, length).expect("small");
        let region = self.find(lease).map(|(region, _)| region);
        self.narrowed.extend(region.map(|region| Narrowing { region, grant, rights, range, expires }));
        let take = Take::Narrow { lease, grant, rights, range, expires };
        let now_unix = self.unix();
        let answer = self.step(Event::Take { take, cause: EndCause::Revoked, now_unix });
        self.check_fenced(lease, grant, &answer.expect("a revoke is never refused"));
        Some(())
    }

    fn right(&self, open: Key) -> &Right {
        self.rights.iter().rfind(|right| right.opening.open == open).expect("a right that was opened")
    }

    /// What must hold between any two steps.
    fn check(&self) {
        assert_eq!(self.kernel.check_invariants(self.unix()), Ok(()));
        let bytes: u64 = self.regions.values().map(|region| region.bytes + region.rotating()).sum();
        assert_eq!(self.kernel.committed_bytes(), bytes, "the ledger counts until the memory is gone");
        assert_eq!(self.kernel.regions(), self.regions.len());
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        for file in live.flat_map(|region| &region.files).filter(|file| file.rotating.is_none()) {
            assert!(!file.out.iter().any(|out| self.is_over(out)), "nobody keeps what was taken back");
        }
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
                let (region, works) = (self.pick(bytes.byte()?, Life::Building), bytes.byte()?);
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
                let (index, segment, flags) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
                self.hand_out(index.into(), segment.into(), flags);
            }
            NARROW => self.narrow(bytes)?,
            PROGRESS => {
                let (number, index) = (usize::from(bytes.byte()?), usize::from(bytes.byte()?));
                let all: Vec<_> = self.regions.keys().copied().collect();
                if !all.is_empty() {
                    let region = all[number % all.len()];
                    self.progress(region, index % self.regions[&region].files.len());
                }
            }
            SPEND => {
                let number = usize::from(bytes.byte()?);
                let all: Vec<_> = self.regions.keys().copied().collect();
                if !all.is_empty() {
                    self.spend(all[number % all.len()]);
                }
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
                self.taking = self.find(lease).map(|(region, _)| (region, grant));
                let answer = self.step(Event::Take { take: taken, cause: EndCause::Revoked, now_unix });
                self.check_fenced(lease, grant, &answer.expect("a revoke is never refused"));
                self.taking = None;
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
        let (who, pieces) = (bytes.byte()?, bytes.byte()?);
        let segment_bytes = if pieces == 0 { size } else { PAGE << (pieces % 8) >> 1 };
        let ticket = ClaimTicket {
            lease,
            region: RegionId(lease.0),
            owner: PrincipalKey([lease.0[0]; 32]),
            bytes: size,
            segment_bytes,
            ttl: Micros(ttl),
            lifetime: if who & 1 == 1 { Lifetime::Process } else { Lifetime::Detached },
            claim_by: UnixMicros(if who & 0x80 == 0 { u64::MAX } else { 50_000 }),
        };
        let session = (who & 0x40 == 0).then_some(session(who >> 1));
        let used: u64 = self.regions.values().map(|region| region.bytes + region.rotating()).sum();
        let known = self.life(lease).is_some();
        match self.step(Event::Claim { ticket, session, now_unix: self.unix() }) {
            Ok(Answer::Build { region, bytes, deadline, .. }) => {
                assert!(!known, "a lease is claimed once");
                assert_eq!(bytes, size);
                assert!(
                    used.checked_add(size).is_some_and(|sum| sum <= POOL_PAGES * PAGE),
                    "the pool is the pool"
                );
                let pieces = bytes.div_ceil(segment_bytes);
                assert!(segment_bytes <= bytes && pieces <= 4, "segments are few and within the region");
                let file = || File { generation: 1, rotating: None, fresh: false, out: Vec::new() };
                let region_row = Region {
                    lease,
                    bytes,
                    segment_bytes,
                    life: Life::Building,
                    pinned: false,
                    deadline,
                    files: (0..pieces).map(|_| file()).collect(),
                    unspent: Vec::new(),
                };
                let fresh = self.regions.insert(region, region_row);
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
            let revoked = grant.is_some_and(|grant| self.is_revoked(opening.region, grant));
            assert!(!revoked, "nor under a grant that was taken back");
            for to in self.narrowed.iter().filter(|to| (to.region, Some(to.grant)) == (opening.region, grant))
            {
                assert!(
                    to.rights.contains(opening.rights) && to.range.contains(opening.range),
                    "nor beyond its rest"
                );
                assert!(to.expires > self.unix() && opening.deadline.0 <= to.expires.0.saturating_mul(1_000));
            }
            assert!(
                opening.deadline <= self.boot().plus(Micros(left)) || grant.is_none() && !asked.narrowed,
                "and nothing lives past it"
            );
            if opening.path == Path::Mapped {
                let border = |at: u64| at.is_multiple_of(region.segment_bytes) || at == region.bytes;
                let (start, end) = (opening.range.start(), opening.range.end());
                assert!(border(start) && border(end), "a mapping is of whole segments");
                let whole = opening.range.len() == region.bytes && opening.deadline == region.deadline;
                assert!(region.pinned || whole, "and of whole regions where nothing can be rotated");
                assert!(!asked.metered, "what is metered is not mapped");
                let step = self.kernel.config().mapping_end_step;
                let on_step = opening.deadline.0.is_multiple_of(step) || opening.deadline == region.deadline;
                assert!(!asked.narrowed || on_step, "ends that clients choose fall together");
                let guarded = self.kernel.config().tier == Tier::Sealed
                    || asked.sandboxed
                    || [0, UID].contains(&asked.uid)
                    || !asked.rights.contains(Rights::WRITE);
                assert!(guarded, "strangers write through the provider where nothing holds them");
            }
            let follows = grant.is_none() && !asked.narrowed;
            self.rights.push(Right {
                opening,
                session,
                lease,
                grant,
                follows,
                ends_grant: grant.is_some() && !asked.narrowed,
                handed_out: false,
                fenced: false,
            });
        }
        Some(())
    }

    /// `works`: 0 means that it does not, and an odd number that every page could be pinned.
    fn built(&mut self, region: RegionKey, works: u8) {
        if works != 0 {
            let pinned = works % 2 == 1;
            let known = self.regions.get_mut(&region).expect("picked");
            (known.life, known.pinned) = (Life::Live, pinned); // the memory exists from here on
            let answer = self.step(Event::Created { region, huge_bytes: 0, pinned });
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
        let all = self.regions[&region].unspent.is_empty();
        let answer = self.step(Event::Taken { region });
        assert_eq!(answer.is_ok(), all, "memory is gone when its rotations' is");
        if all {
            self.regions.remove(&region);
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now_ms = self.now_ms.saturating_add(millis);
        self.step(Event::Tick).expect("time is never refused");
        let now = self.boot();
        assert!(self.kernel.next_deadline().is_none_or(|at| at > now), "what is due is done");
        let late =
            |right: &Right| self.kernel.open_row(right.opening.open).is_some_and(|row| row.deadline <= now);
        assert!(!self.rights.iter().any(late), "no right outlives its deadline");
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        for file in live.flat_map(|region| &region.files).filter(|file| file.rotating.is_none()) {
            assert!(!file.out.iter().any(|out| self.is_late(out)), "and no mapping outlives its right");
        }
    }

    /// Ends everything. What is left in the kernel then would stay for ever.
    fn end(&mut self) {
        for region in self.all(Life::Building) {
            self.built(region, 1);
        }
        self.finish_rotations();
        for lease in self.kernel.leases() {
            self.take_lease(lease);
        }
        for region in self.all(Life::Ending) {
            while self.spend(region) {}
            self.taken(region);
        }
        self.check();
        assert_eq!((self.kernel.regions(), self.kernel.committed_bytes()), (0, 0), "every byte came back");
        assert_eq!(self.kernel.next_deadline(), None, "nothing is left to fall due");
        assert!(self.kernel.by_session.is_empty() && self.kernel.tied.is_empty(), "no session is remembered");
    }

    /// Brings every rotation to its end, one after another where the pool is full.
    fn finish_rotations(&mut self) {
        loop {
            let mut moved = false;
            for region in self.all(Life::Live).into_iter().chain(self.all(Life::Ending)) {
                for index in 0..self.regions[&region].files.len() {
                    let file = &self.regions[&region].files[index];
                    if self.regions[&region].life == Life::Live && file.rotating.is_some() {
                        moved |= self.progress(region, index);
                    }
                }
                while self.spend(region) {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        let rotating = live.flat_map(|region| &region.files).any(|file| file.rotating.is_some());
        assert!(!rotating, "a rotation never waits for ever");
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
        assert_eq!(rights, [1, 2, 1, 1, 0, 1, 1, 2, 1, 1]);
        let regions: Vec<_> = worlds.iter().map(|world| world.regions.len()).collect();
        assert_eq!(regions, [0, 1, 1, 0, 0, 0, 1, 1, 1, 1]);
        assert!(worlds[1].rights[1].handed_out && worlds[1].rights[1].grant.is_some());
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
