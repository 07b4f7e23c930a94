//! The kernel in lockstep with a naive model: a list of leases that is searched from end to end, and a list of every
//! descriptor that ever left.

use std::collections::{BTreeMap, BTreeSet};

use caps::error::Code;
use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::token::{Mark, Meter};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Lifetime};
use proptest::prelude::*;

use super::fuzzing::{
    MAPPINGS_MAX, METERS_PER_RECEIVER, METERS_PER_SIDE, OPENS_MAX, PAGE, POOL_PAGES, REGIONS_MAX, asked,
    small_config,
};
use super::meters::{SHARE_FULL, SIDE_FULL};
use super::{Answer, Config, Effect, Event, Kernel, OpenRequest, RotationId, SessionId};

/// What a test does. Small numbers name things, so that wrong names, repeats and races come up often.
#[derive(Clone, Debug)]
enum Act {
    Claim {
        lease: u8,
        pages: u64,
        pieces: u32,
        ttl: u64,
        tied: bool,
        session: u8,
    },
    Created {
        lease: u8,
        works: bool,
    },
    Renew {
        lease: u8,
        ttl: u64,
    },
    Open {
        lease: u8,
        session: u8,
        grant: Option<u8>,
        made: u8,
        left: u64,
        pages: u64,
        path: Path,
        meter: Option<(u8, u64)>,
        root: u32,
        former: bool,
    },
    TakeRoot {
        lease: u8,
        root: u32,
    },
    RootExpired {
        root: u32,
    },
    HandOut {
        open: usize,
        segment: u32,
    },
    Progress {
        lease: u8,
        segment: usize,
    },
    Spend {
        lease: u8,
    },
    Keep {
        lease: u8,
    },
    Unkeep,
    Close {
        open: usize,
        session: u8,
    },
    SessionEnded {
        session: u8,
    },
    TakeLease {
        lease: u8,
    },
    TakeGrant {
        lease: u8,
        grant: u8,
        left: u64,
    },
    TakeMark {
        lease: u8,
        mark: u8,
        left: u64,
    },
    ReadOnly {
        lease: u8,
        grant: u8,
    },
    Taken {
        lease: u8,
    },
    Wait {
        millis: u64,
    },
    TakeOwner {
        lease: u8,
        to: u8,
        late: bool,
        stale: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let (lease, session, grant) = (0..3u8, 0..3u8, 0..2u8);
    let path = prop_oneof![Just(Path::Mapped), Just(Path::Mediated)];
    let meter = prop::option::weighted(0.3, (0..5u8, 0..3u64));
    prop_oneof![
        3 => (lease.clone(), 1..5u64, 0..3u32, 20..200u64, prop::bool::weighted(0.2), session.clone())
            .prop_map(|(lease, pages, pieces, ttl, tied, session)| {
                Act::Claim { lease, pages, pieces, ttl, tied, session }
            }),
        4 => (lease.clone(), prop::bool::weighted(0.9)).prop_map(|(lease, works)| Act::Created { lease, works }),
        1 => (lease.clone(), 1..40u64).prop_map(|(lease, ttl)| Act::Renew { lease, ttl }),
        4 => (lease.clone(), session.clone(), prop::option::of(grant.clone()), 0..3u8, 0..150u64, 1..5u64, path, (meter, 1..3u32, prop::bool::weighted(0.2)))
            .prop_map(|(lease, session, grant, made, left, pages, path, (meter, root, former))| {
                Act::Open { lease, session, grant, made, left, pages, path, meter, root, former }
            }),
        2 => (lease.clone(), 1..3u32).prop_map(|(lease, root)| Act::TakeRoot { lease, root }),
        1 => (1..3u32).prop_map(|root| Act::RootExpired { root }),
        2 => (lease.clone(), 0..3u8, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(lease, to, late, stale)| Act::TakeOwner { lease, to, late, stale }),
        2 => (lease.clone(), 0..5u8, 1..40u64).prop_map(|(lease, mark, left)| Act::TakeMark { lease, mark, left }),
        6 => (0..12usize, 0..3u32).prop_map(|(open, segment)| Act::HandOut { open, segment }),
        5 => (lease.clone(), 0..4usize).prop_map(|(lease, segment)| Act::Progress { lease, segment }),
        2 => lease.clone().prop_map(|lease| Act::Spend { lease }),
        1 => lease.clone().prop_map(|lease| Act::Keep { lease }),
        1 => Just(Act::Unkeep),
        1 => (lease.clone(), grant.clone()).prop_map(|(lease, grant)| Act::ReadOnly { lease, grant }),
        1 => (0..8usize, session.clone()).prop_map(|(open, session)| Act::Close { open, session }),
        1 => session.prop_map(|session| Act::SessionEnded { session }),
        1 => lease.clone().prop_map(|lease| Act::TakeLease { lease }),
        2 => (lease.clone(), grant, 1..40u64).prop_map(|(lease, grant, left)| Act::TakeGrant { lease, grant, left }),
        3 => lease.prop_map(|lease| Act::Taken { lease }),
        2 => (0..15u64).prop_map(|millis| Act::Wait { millis }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Building,
    Live,
    Ending,
}

/// What the model knows of a lease.
#[derive(Debug)]
struct Known {
    lease: u8,
    key: super::RegionKey,
    pages: u64,
    life: Life,
    until: u64,
    tied: Option<u8>,
    segment_pages: u64,
    /// For each segment its generation, the rotation under way and whether that has its fresh file.
    files: Vec<(u32, Option<RotationId>, bool)>,
    unspent: Vec<u64>,
    owner: u8,
    /// When its owner's time began, in microseconds.
    since: u64,
    /// The latest change of the owner that was told.
    tried: u64,
}

impl Known {
    fn length(&self, segment: usize) -> u64 {
        self.segment_pages.min(self.pages - segment as u64 * self.segment_pages)
    }

    fn rotating(&self) -> u64 {
        let fresh = (0..self.files.len()).filter(|&segment| self.files[segment].2);
        fresh.map(|segment| self.length(segment)).sum::<u64>() + self.unspent.iter().sum::<u64>()
    }
}

/// A descriptor that left: by its region, segment and generation, and the grant and access that it came by.
type Out = (super::RegionKey, usize, u32, Option<u8>, bool);

/// What a token carries: its root's, one for each grant and one for the owner, and of what it was made into, which is
/// of any.
fn marks(grant: Option<u8>, made: u8) -> Vec<u8> {
    let root = grant.map_or(0, |grant| grant + 1);
    if made == 0 { vec![root] } else { vec![root, made + 2] }
}

#[derive(Default)]
struct Model {
    leases: Vec<Known>,
    /// By region, grant and end of the token that opened a right.
    opened: Vec<(super::RegionKey, u8, u64)>,
    /// By region, grant and until when it is refused.
    revoked: Vec<(super::RegionKey, u8, u64)>,
    narrowed: Vec<(super::RegionKey, u8)>,
    /// By region and meter: how often it was charged, and until when that has to be known.
    counted: BTreeMap<(super::RegionKey, u8), (u64, u64)>,
    /// By region and meter, for whom it was ever charged: the one receiver, or the owner's side.
    made: BTreeSet<(super::RegionKey, bool, u8)>,
    out: Vec<Out>,
    /// Beside each of these: the marks of its token, and whether its right lives as long as the region.
    by: Vec<(Vec<u8>, bool)>,
    /// And the key that minted its token, until that has expired: what is mapped then goes on by what was renewed.
    minted: Vec<Option<u32>>,
    /// By region, mark and until when it is refused.
    cut: Vec<(super::RegionKey, u8, u64)>,
    /// The latest `Rotate`'s segments.
    rotated: Vec<u32>,
    /// Pages of each replaced file that is kept.
    kept: Vec<u64>,
    /// How many of `out` had left when a region last changed its owner.
    former: BTreeMap<super::RegionKey, usize>,
}

impl Model {
    fn get(&mut self, lease: u8) -> Option<&mut Known> {
        self.leases.iter_mut().find(|known| known.lease == lease)
    }

    /// Regions that end with these effects leave the life; each is taken back once, and only if it was live.
    fn follow(&mut self, effects: &[Effect]) {
        self.rotated.clear();
        for effect in effects {
            if let Effect::Rotate { region, rotation, segments, .. } = effect {
                let known =
                    self.leases.iter_mut().find(|known| known.key == *region).expect("a region we know");
                for &segment in segments {
                    let file = &mut known.files[segment as usize];
                    assert_eq!((known.life, file.1), (Life::Live, None), "one rotation at a time");
                    file.1 = Some(*rotation);
                }
                self.rotated.clone_from(segments);
            }
            if let Effect::TakeBack { region, .. } = effect {
                let known =
                    self.leases.iter_mut().find(|known| known.key == *region).expect("a region we know");
                assert_eq!(known.life, Life::Live, "taken back once");
                known.life = Life::Ending;
                for segment in 0..known.files.len() {
                    if std::mem::take(&mut known.files[segment].2) {
                        known.unspent.push(known.length(segment));
                    }
                }
            }
        }
    }

    /// The segments of a lease that a grant's holders may map, with more than reading or at all, and are not being
    /// rotated; and the last rotation that takes such mappings out.
    fn reach(&mut self, lease: u8, grant: u8, writable: bool) -> (Vec<u32>, Option<RotationId>) {
        let out = std::mem::take(&mut self.out);
        let known = self.get(lease).expect("a lease we know");
        let mut reach = (Vec::new(), None);
        for (segment, &(generation, rotating, _)) in known.files.iter().enumerate() {
            let held = out.iter().any(|&(region, of, by, under, write)| {
                (region, of, by, under) == (known.key, segment, generation, Some(grant))
                    && (write || !writable)
            });
            match rotating {
                None if held => reach.0.push(segment as u32),
                Some(rotation) if held => reach.1 = reach.1.max(Some(rotation)),
                _ => {}
            }
        }
        self.out = out;
        reach
    }

    /// As [`Self::reach`], of all who came by a grant under which a token with this mark ever did. As an error whether
    /// such a token's mapping, or one beside it, lives as long as the region.
    fn reach_mark(&mut self, lease: u8, mark: u8) -> Result<(Vec<u32>, Option<RotationId>), ()> {
        let held: Vec<(Out, (Vec<u8>, bool))> =
            self.out.iter().copied().zip(self.by.iter().cloned()).collect();
        let known = self.get(lease).expect("a lease we know");
        let carries = |(out, by): &&(Out, (Vec<u8>, bool))| out.0 == known.key && by.0.contains(&mark);
        let grants: BTreeSet<Option<u8>> = held.iter().filter(carries).map(|(out, _)| out.3).collect();
        let mine = |&(region, of, by, ..): &Out, segment: usize, generation: u32| {
            (region, of, by) == (known.key, segment, generation)
        };
        // Rights that came by the same grant with the same access end together, so the owner's end with a delegate's.
        let lasts = |(out, by): &(Out, (Vec<u8>, bool)), segment, generation| {
            let with = |(other, made): &(Out, (Vec<u8>, bool))| {
                mine(other, segment, generation) && (other.3, other.4) == (out.3, out.4) && !made.1
            };
            by.1 && !held.iter().any(with)
        };
        let lasting = held.iter().filter(carries).any(|(_, by)| by.1);
        let mut reach = (Vec::new(), None);
        for (segment, &(generation, rotating, _)) in known.files.iter().enumerate() {
            let here: Vec<_> = held.iter().filter(|(out, _)| mine(out, segment, generation)).collect();
            if lasting && here.iter().any(|out| lasts(out, segment, generation)) {
                return Err(());
            }
            let any = here.iter().any(|out| grants.contains(&out.0.3) && !lasts(out, segment, generation));
            match rotating {
                None if any => reach.0.push(segment as u32),
                Some(rotation) if any => reach.1 = reach.1.max(Some(rotation)),
                _ => {}
            }
        }
        Ok(reach)
    }

    /// As [`Self::reach`], of everybody where a token of this root key was ever mapped since the region was made.
    fn reach_root(&mut self, lease: u8, root: u32) -> (Vec<u32>, Option<RotationId>) {
        let known = self.leases.iter().find(|known| known.lease == lease).expect("a lease we know");
        let mut reach = (Vec::new(), None);
        let of = |out: &Out, by: &Option<u32>| out.0 == known.key && *by == Some(root);
        if !self.out.iter().zip(&self.minted).any(|(out, by)| of(out, by)) {
            return reach;
        }
        for (segment, &(generation, rotating, _)) in known.files.iter().enumerate() {
            let held = self
                .out
                .iter()
                .any(|&(region, at, by, ..)| (region, at, by) == (known.key, segment, generation));
            match rotating {
                None if held => reach.0.push(segment as u32),
                Some(rotation) if held => reach.1 = reach.1.max(Some(rotation)),
                _ => {}
            }
        }
        reach
    }

    /// What was handed out under a key, of one lease or of all, is no longer known as that.
    fn forget_root(&mut self, lease: Option<u8>, root: u32) {
        let region = lease.and_then(|lease| self.get(lease)).map(|known| known.key);
        for (out, by) in self.out.iter().zip(&mut self.minted) {
            if *by == Some(root) && (lease.is_none() || region == Some(out.0)) {
                *by = None;
            }
        }
    }

    /// A grant is refused until `until`, or the end of the last token seen under it if that is later: whoever
    /// revokes may know of an earlier one only.
    fn revoke(&mut self, region: super::RegionKey, grant: u8, until: u64) {
        let seen = self.opened.iter().filter(|&&(of, by, _)| (of, by) == (region, grant));
        let until = seen.map(|&(.., end)| end).fold(until, u64::max);
        self.revoked.push((region, grant, until));
    }

    /// Pages in the books.
    fn used(&self) -> u64 {
        let leases: u64 = self.leases.iter().map(|known| known.pages + known.rotating()).sum();
        leases + self.kept.iter().sum::<u64>()
    }
}

fn page_range(pages: u64) -> ByteRange {
    ByteRange::new(0, pages * PAGE).unwrap()
}

fn key(n: u8) -> PrincipalKey {
    PrincipalKey([n; 32])
}

/// What [`marks`] a mark stands for.
fn mark_byte(mark: Mark) -> u8 {
    (0..5).find(|&byte| Mark::from_bytes([byte; 32]) == mark).expect("a mark of the model's")
}

/// Acts of one life, at most.
const ACTS: usize = if cfg!(miri) { 40 } else { 160 };

/// Lives drawn at random: as many as it was told, and no fewer than find what is rare, but for an interpreter, which
/// is slow.
fn config() -> ProptestConfig {
    let told = ProptestConfig::default();
    ProptestConfig {
        cases: if cfg!(miri) { told.cases } else { told.cases.max(2_000) },
        failure_persistence: None,
        ..told
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_kernel_agrees_with_the_model(acts in prop::collection::vec(act(), 1..ACTS)) {
        // Room for every mark, so that the model need not know what is done where there is none.
        let config = Config { marks_per_region_max: 64, ..small_config() };
        let (mut kernel, mut model) = (Kernel::new(config), Model::default());
        let mut now = 0; // milliseconds on both clocks
        let mut handles: Vec<(super::event::Opening, u8)> = Vec::new();
        let mut fenced = BTreeSet::new();
        for act in acts {
            let boot = BootNanos(now * 1_000_000);
            let unix = UnixMicros(now * 1_000);
            let mut effects = Vec::new();
            let mut step = |kernel: &mut Kernel, event| {
                let step = kernel.step(boot, event);
                effects.extend(step.effects);
                step.answer
            };
            match act {
                Act::Claim { lease, pages, pieces, ttl, tied, session } => {
                    let segment_pages = pages.min(if pieces == 0 { pages } else { 1 << (pieces - 1) });
                    let ticket = ClaimTicket {
                        lease: LeaseId([lease; 16]),
                        region: RegionId([lease; 16]),
                        owner: key(lease),
                        bytes: pages * PAGE,
                        segment_bytes: segment_pages * PAGE,
                        ttl: Micros::from_millis(ttl),
                        lifetime: if tied { Lifetime::Process } else { Lifetime::Detached },
                        claim_by: UnixMicros(u64::MAX),
                    };
                    let session_id = Some(SessionId(session.into()));
                    let gone = kernel.ended.contains(LeaseId([lease; 16]));
                    let answer = step(&mut kernel, Event::Claim { ticket, session: session_id, now_unix: unix });
                    let used = model.used();
                    let kept = model.leases.iter().map(|known| known.segment_pages).max().unwrap_or(0);
                    let expected = if model.get(lease).is_some() {
                        Some(Code::Exists)
                    } else if gone {
                        Some(Code::LeaseExpired)
                    } else if used + pages > POOL_PAGES {
                        Some(Code::NoMemory)
                    } else if model.leases.len() == REGIONS_MAX {
                        Some(Code::Busy)
                    } else {
                        None
                    };
                    match answer {
                        Ok(Answer::Build { region, bytes, .. }) => {
                            prop_assert_eq!((expected, bytes), (None, pages * PAGE));
                            let tied = tied.then_some(session);
                            let files = vec![(1, None, false); pages.div_ceil(segment_pages) as usize];
                            let (life, until, unspent) = (Life::Building, now + ttl, Vec::new());
                            let known = Known { lease, key: region, pages, life, until, tied, segment_pages, files, unspent, owner: lease, since: 0, tried: 0 };
                            model.leases.push(known);
                        }
                        Ok(other) => prop_assert!(false, "{other:?}"),
                        // What is kept for a rotation is at most the largest segment.
                        Err(error) if error.code() == Code::NoMemory => {
                            prop_assert!(expected == Some(Code::NoMemory) || used + pages + kept > POOL_PAGES);
                        }
                        Err(error) => prop_assert_eq!(Some(error.code()), expected),
                    }
                }
                Act::Created { lease, works } => {
                    // The runtime reports once for each region it was asked to build.
                    let Some(known) = model.get(lease).filter(|known| known.life == Life::Building) else { continue };
                    let (region, late) = (known.key, known.until <= now);
                    if works {
                        known.life = Life::Live; // for `follow`, if it ends at once
                        let answer =
                            step(&mut kernel, Event::Created { region, huge_bytes: 0, pinned: true });
                        if late {
                            prop_assert!(answer.is_err());
                        }
                    } else {
                        step(&mut kernel, Event::CreateFailed { region }).unwrap();
                        model.leases.retain(|known| known.lease != lease);
                    }
                }
                Act::Renew { lease, ttl } => {
                    let answer = step(&mut kernel, Event::Renew { lease: LeaseId([lease; 16]), ttl: Micros::from_millis(ttl) });
                    match model.get(lease) {
                        Some(known) if known.life == Life::Live => {
                            if answer.is_ok() {
                                known.until = now + ttl;
                            } else {
                                prop_assert_eq!(answer.unwrap_err().code(), Code::ShareOrder);
                            }
                        }
                        _ => prop_assert!(answer.is_err()),
                    }
                }
                Act::Open { lease, session, grant, made, left, pages, path, meter, root, former } => {
                    let (owner, since) = model.get(lease).map_or((lease, 0), |known| (known.owner, known.since));
                    let owner = if former { lease } else { owner };
                    let payer = if grant.is_some() { key(99) } else { key(owner) };
                    let not_before = if former { 0 } else { unix.0 };
                    let foreign = not_before < since
                        || grant.is_none() && model.get(lease).is_some_and(|known| known.owner != owner);
                    let meters = meter.map(|(n, opens)| Meter {
                        key: Mark::from_bytes([n; 32]),
                        opens: Some(opens),
                        bytes_per_second: None,
                        bytes_total: None,
                    });
                    let pays = |row: &&super::OpenRow| row.payer == payer;
                    let mapped = |row: &&super::OpenRow| row.path == Path::Mapped;
                    let open: Vec<_> = kernel.opens.iter().map(|(_, row)| row).filter(pays).collect();
                    let full = open.len() >= OPENS_MAX as usize
                        || path == Path::Mapped && open.iter().filter(|row| mapped(row)).count() >= MAPPINGS_MAX as usize;
                    // A token lives on for a while after what it was narrowed to.
                    let minted = now + left + 30;
                    let request = OpenRequest {
                        session: SessionId(session.into()),
                        uid: Some(7),
                        sandboxed: false,
                        holder: payer,
                        lease: LeaseId([lease; 16]),
                        grant: grant.map(|n| GrantId([n; 16])),
                        rights: Rights::READ_WRITE,
                        range: page_range(pages),
                        expires: UnixMicros((now + left) * 1_000),
                        minted_until: UnixMicros(minted * 1_000),
                        now_unix: unix,
                        metered: false,
                        narrowed: false,
                        path,
                        first_holder: payer,
                        delegate: None,
                        marks: marks(grant, made).into_iter().map(|mark| Mark::from_bytes([mark; 32])).collect(),
                        meters: meters.into_iter().collect(),
                        quota: asked(payer, path),
                        root,
                        not_before: UnixMicros(not_before),
                    };
                    // Who only asks is told what opening would come to.
                    let judged = kernel.judge(boot, &request);
                    let answer = step(&mut kernel, Event::Open(request));
                    match (&answer, &judged) {
                        (Ok(Answer::Opened(opening)), Ok(judged)) => {
                            let told = (judged.region, judged.range, judged.deadline);
                            prop_assert_eq!(told, (opening.region, opening.range, opening.deadline));
                        }
                        // The tables' bounds are found by opening alone.
                        (Err(error), Ok(_)) => {
                            prop_assert!(matches!(error.code(), Code::Quota | Code::Busy), "{error}");
                        }
                        (answer, judged) => {
                            let told = (answer.as_ref().err(), judged.as_ref().err());
                            prop_assert!(told.0.is_some() && told.0 == told.1, "{told:?}");
                        }
                    }
                    model.revoked.retain(|&(_, _, until)| until > now);
                    let region = model.get(lease).map(|known| known.key);
                    let taken = model.revoked.iter().map(|&(of, by, _)| (of, by)).chain(model.narrowed.iter().copied());
                    let revoked = taken.into_iter().any(|(of, by)| (Some(of), Some(by)) == (region, grant));
                    model.cut.retain(|&(.., until)| until > now);
                    let carried = marks(grant, made);
                    let cut = model.cut.iter().any(|(of, mark, _)| Some(*of) == region && carried.contains(mark));
                    let cut = cut || foreign;
                    let gone = cut || model.revoked.iter().any(|&(of, by, _)| (Some(of), Some(by)) == (region, grant));
                    let live = model.get(lease).is_some_and(|known| known.life == Life::Live && known.until > now);
                    let count = region.zip(meter).and_then(|(region, (n, _))| model.counted.get(&(region, n)).copied());
                    let used = count.map_or(0, |(used, _)| used);
                    // The kernel may know it for longer, and never for less.
                    let spent = meter.is_some_and(|(_, most)| used >= most);
                    let surely = spent && (used == 0 || count.is_some_and(|(_, until)| until > now));
                    if answer.is_ok() {
                        prop_assert!(!surely, "opened more often than its block allows");
                        prop_assert!(!full, "opened beyond its payer's quota");
                        if let Some((region, (n, _))) = region.zip(meter) {
                            let of = (region, n);
                            // Forgotten, if it was used up and opened all the same.
                            let count = model.counted.entry(of).or_default();
                            *count = (if spent { 1 } else { used + 1 }, minted.max(count.1));
                        }
                    }
                    if let Some((region, (n, _))) = region.zip(meter) {
                        let receiver = grant.is_some();
                        if answer.is_ok() {
                            model.made.insert((region, receiver, n));
                        }
                        let theirs = |&&(of, by, meter): &&_| (of, by) == (region, receiver) && meter != n;
                        let kept_out = answer.as_ref().is_err_and(|error| *error == SHARE_FULL || *error == SIDE_FULL);
                        let most = if receiver { METERS_PER_RECEIVER } else { METERS_PER_SIDE };
                        let share = model.made.iter().filter(theirs).count() >= most;
                        prop_assert!(!kept_out || share, "nobody is kept out by what others made");
                    }
                    if let Ok(Answer::Opened(opening)) = answer {
                        prop_assert!(live && !revoked && !cut && left > 0);
                        prop_assert!(!fenced.contains(&opening.open), "a key is used once");
                        let known = model.get(lease).unwrap();
                        if path == Path::Mapped {
                            let whole = pages >= known.pages || pages.is_multiple_of(known.segment_pages);
                            prop_assert!(whole, "a mapping is of whole segments");
                        }
                        model.opened.extend(grant.map(|grant| (opening.region, grant, now + left)));
                        handles.push((opening, session));
                    } else if live && gone && left > 0 {
                        prop_assert_eq!(answer.unwrap_err().code(), Code::TokenRevoked);
                    } else if live && !revoked && !cut && left > 0 && path == Path::Mediated {
                        let code = answer.unwrap_err().code();
                        let denied = code == Code::Denied && spent;
                        prop_assert!(denied || code == Code::Quota || code == Code::Busy , "{code}");
                    }
                }
                Act::HandOut { open, segment } => {
                    let Some(&(opening, _)) = handles.get(open) else { continue };
                    let Some(known) = model.leases.iter().find(|known| known.key == opening.region) else { continue };
                    let Some(&(generation, rotating, _)) = known.files.get(segment as usize) else { continue };
                    let row = kernel.opens.get(opening.open).cloned();
                    let write = row.as_ref().is_some_and(|row| row.rights.contains(Rights::WRITE));
                    let event = Event::HandedOut { open: opening.open, segment, generation, write };
                    match step(&mut kernel, event) {
                        Ok(Answer::Stale) => prop_assert!(rotating.is_some()),
                        Ok(answer) => {
                            let row = row.expect("a right that is over is handed nothing");
                            prop_assert_eq!((answer, rotating), (Answer::Done, None));
                            let grant = row.grant.map(|grant| grant.0[0]);
                            model.out.push((opening.region, segment as usize, generation, grant, write));
                            let carried = row.marks.iter().map(|mark| mark_byte(*mark)).collect();
                            model.by.push((carried, row.follows_region));
                            model.minted.push(Some(row.root));
                        }
                        Err(error) if error.code() == Code::Revoked => {
                            prop_assert!(row.is_none_or(|row| row.deadline <= boot));
                        }
                        Err(error) => prop_assert!([Code::Range, Code::Quota, Code::NoMemory].contains(&error.code())),
                    }
                }
                Act::Progress { lease, segment } => {
                    let (used, others) = (model.used(), model.leases.iter().map(Known::rotating).sum::<u64>());
                    let Some(known) = model.get(lease).filter(|known| known.life == Life::Live) else { continue };
                    let (region, length) = (known.key, known.length(segment.min(known.files.len() - 1)));
                    let Some(file) = known.files.get_mut(segment).filter(|file| file.1.is_some()) else { continue };
                    let segment = segment as u32;
                    if file.2 {
                        let answer = step(&mut kernel, Event::Rotated { region, segment }).unwrap();
                        *file = (file.0 + 1, None, false);
                        known.unspent.push(length);
                        let Answer::Rotated { generation, survivors } = answer else { panic!("{answer:?}") };
                        prop_assert_eq!(generation, known.files[segment as usize].0);
                        for survivor in survivors {
                            prop_assert!(!fenced.contains(&survivor.open), "who lost its right is no survivor");
                        }
                    } else {
                        file.2 = used + length <= POOL_PAGES;
                        prop_assert!(file.2 || others > 0, "room for one rotation is always there");
                        let answer = step(&mut kernel, Event::Fresh { region, segment }).unwrap();
                        prop_assert_eq!(answer, if file.2 { Answer::Granted } else { Answer::Wait });
                    }
                }
                Act::Spend { lease } => {
                    let Some(known) = model.get(lease) else { continue };
                    let (region, Some(pages)) = (known.key, known.unspent.pop()) else { continue };
                    step(&mut kernel, Event::Spent { region, bytes: pages * PAGE }).unwrap();
                }
                Act::Keep { lease } => {
                    let Some(known) = model.get(lease) else { continue };
                    let (region, Some(&pages)) = (known.key, known.unspent.last()) else { continue };
                    let rotating: u64 = model.leases.iter().map(Known::rotating).sum();
                    let fits = (model.used() - rotating + pages) * PAGE + kernel.headroom_bytes() <= POOL_PAGES * PAGE;
                    let answer = step(&mut kernel, Event::Kept { region, bytes: pages * PAGE });
                    prop_assert_eq!(answer.is_ok(), fits, "kept where rotations have their room all the same");
                    if fits {
                        model.get(lease).unwrap().unspent.pop();
                        model.kept.push(pages);
                    }
                }
                Act::Unkeep => {
                    let Some(pages) = model.kept.pop() else { continue };
                    step(&mut kernel, Event::Unkept { bytes: pages * PAGE }).unwrap();
                }
                Act::TakeMark { lease, mark, left } => {
                    let reach = model.get(lease).is_some().then(|| model.reach_mark(lease, mark));
                    let was = model.get(lease).map(|known| known.life);
                    let take = Take::Marks {
                        lease: LeaseId([lease; 16]),
                        marks: [None, Some(Mark::from_bytes([mark; 32]))],
                        grant: (1..3).contains(&mark).then(|| GrantId([mark - 1; 16])),
                        range: page_range(8),
                        expires: UnixMicros((now + left) * 1_000),
                    };
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    model.follow(&effects);
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                    match (answer, reach) {
                        (Answer::Gone, None) => {}
                        (Answer::Taking { .. }, Some(reach)) => {
                            prop_assert!(was != Some(Life::Live) || reach.is_err(), "taken whole without need");
                        }
                        (Answer::Fenced { region, upto, .. }, Some(Ok((segments, under_way)))) => {
                            prop_assert_eq!(&model.rotated, &segments, "as many as had to be, and no more");
                            let begun = segments.first().and_then(|&first| model.get(lease).unwrap().files[first as usize].1);
                            prop_assert_eq!(upto, begun.or(under_way));
                            model.cut.push((region, mark, now + left));
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                    for (_, row) in kernel.opens.iter() {
                        let carries = row.marks.contains(&Mark::from_bytes([mark; 32]));
                        prop_assert!(row.lease != LeaseId([lease; 16]) || !carries, "no right of a revoked token is open");
                    }
                }
                Act::TakeRoot { lease, root } => {
                    let reach = model.get(lease).is_some().then(|| model.reach_root(lease, root));
                    let was = model.get(lease).map(|known| known.life);
                    let take = Take::Root { lease: LeaseId([lease; 16]), root };
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    model.follow(&effects);
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                    match (answer, reach) {
                        (Answer::Gone, None) => {}
                        // Where the pool has no room to rotate what was mapped, or there is nothing to rotate yet.
                        (Answer::Taking { .. }, Some((segments, _))) => {
                            prop_assert!(was != Some(Life::Live) || !segments.is_empty(), "taken whole without need");
                        }
                        (Answer::Fenced { upto, .. }, Some((segments, under_way))) => {
                            prop_assert_eq!(&model.rotated, &segments, "as many as had to be, and no more");
                            let begun = segments.first().and_then(|&first| model.get(lease).unwrap().files[first as usize].1);
                            prop_assert_eq!(upto, begun.or(under_way));
                            prop_assert!(!kernel.leases_under(root).contains(&LeaseId([lease; 16])));
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                    let under = |row: &super::OpenRow| row.lease == LeaseId([lease; 16]) && row.root == root;
                    prop_assert!(!kernel.opens.iter().any(|(_, row)| under(row)), "no right of a retired key is open");
                    // All of it is being replaced, or wiped. A file that was handed out before and is kept is a defect.
                    let (out, minted) = (&model.out, &model.minted);
                    for (&(region, segment, generation, ..), &by) in out.iter().zip(minted) {
                        let Some(known) = model.leases.iter().find(|known| known.key == region) else { continue };
                        let mine = known.lease == lease && known.life == Life::Live && by == Some(root);
                        let kept = known.files[segment].0 == generation && known.files[segment].1.is_none();
                        prop_assert!(!mine || !kept, "the adversary maps what a retired key opened");
                    }
                    model.forget_root(Some(lease), root);
                }
                Act::RootExpired { root } => {
                    let open = kernel.opens.iter().count();
                    step(&mut kernel, Event::RootExpired { root }).unwrap();
                    prop_assert!(effects.is_empty(), "what expires ends by deadlines of its own");
                    prop_assert_eq!(kernel.opens.iter().count(), open);
                    model.forget_root(None, root);
                }
                Act::ReadOnly { lease, grant } => {
                    let Some(known) = model.get(lease) else { continue };
                    let (region, live) = (known.key, known.life == Life::Live);
                    let (segments, under_way) = model.reach(lease, grant, true);
                    let take = Take::Narrow {
                        lease: LeaseId([lease; 16]),
                        grant: GrantId([grant; 16]),
                        rights: Rights::READ,
                        range: page_range(8),
                        expires: UnixMicros::MAX,
                    };
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    model.follow(&effects);
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                    if let Answer::Fenced { upto, .. } = answer {
                        prop_assert!(live || segments.is_empty());
                        prop_assert_eq!(&model.rotated, &segments, "as many as had to be, and no more");
                        prop_assert!(!segments.is_empty() || upto >= under_way);
                        model.narrowed.push((region, grant));
                    }
                }
                Act::Close { open, session } => {
                    if let Some((opening, owner)) = handles.get(open) {
                        let handle = SlotHandle { slot: opening.open.index, epoch: opening.open.generation };
                        let answer = step(&mut kernel, Event::Close { session: SessionId(session.into()), handle });
                        let alive = !fenced.contains(&opening.open);
                        prop_assert_eq!(answer.is_ok(), alive && *owner == session);
                    }
                }
                Act::SessionEnded { session } => {
                    step(&mut kernel, Event::SessionEnded { session: SessionId(session.into()) }).unwrap();
                    model.follow(&effects);
                    for known in &model.leases {
                        prop_assert!(known.tied != Some(session) || known.life != Life::Live);
                    }
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                }
                Act::TakeLease { lease } => {
                    let take = Take::Lease(LeaseId([lease; 16]));
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    prop_assert_eq!(answer == Answer::Gone, model.get(lease).is_none());
                }
                Act::TakeGrant { lease, grant, left } => {
                    let reach = model.get(lease).is_some().then(|| model.reach(lease, grant, false));
                    let take = Take::Grant {
                        lease: LeaseId([lease; 16]),
                        grant: GrantId([grant; 16]),
                        expires: UnixMicros((now + left) * 1_000),
                    };
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    model.follow(&effects);
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                    prop_assert_eq!(answer == Answer::Gone, reach.is_none());
                    if let (Answer::Fenced { region, upto, .. }, Some((segments, under_way))) = (answer, reach) {
                        prop_assert_eq!(&model.rotated, &segments, "as many as had to be, and no more");
                        let begun = segments.first().and_then(|&first| model.get(lease).unwrap().files[first as usize].1);
                        prop_assert_eq!(upto, begun.or(under_way));
                        model.revoke(region, grant, now + left);
                    }
                    for (_, row) in kernel.opens.iter() {
                        let same = row.grant == Some(GrantId([grant; 16]))
                            && kernel.regions.get(row.region).unwrap().lease == LeaseId([lease; 16]);
                        prop_assert!(!same, "no right of a revoked grant is open");
                    }
                }
                Act::TakeOwner { lease, to, late, stale } => {
                    let Some(known) = model.get(lease) else {
                        let take = Take::Owner { lease: LeaseId([lease; 16]), to: key(to), since: unix, until: UnixMicros::MAX, undoes: None };
                        let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Transfer, now_unix: unix });
                        prop_assert!(answer.is_err());
                        continue;
                    };
                    let (region, owner, live, over) = (known.key, known.owner, known.life == Life::Live, known.until <= now);
                    let out = model.out.to_vec();
                    let since = unix.0 + 1;
                    let known = model.get(lease).unwrap();
                    let same = stale || owner == to && known.since == since;
                    let told_late = !same && since <= known.tried;
                    let (mut segments, mut under_way, mut longest) = (Vec::new(), None, 0);
                    for (segment, &(generation, rotating, _)) in known.files.iter().enumerate() {
                        let held = out.iter().any(|&(of, at, by, ..)| (of, at, by) == (region, segment, generation));
                        under_way = under_way.max(rotating.filter(|_| held || same));
                        if held && rotating.is_none() {
                            segments.push(segment as u32);
                            longest = longest.max(known.length(segment));
                        }
                    }
                    let room = segments.is_empty() || kernel.has_room(longest * PAGE).is_ok();
                    let take = Take::Owner {
                        lease: LeaseId([lease; 16]),
                        to: key(to),
                        since: UnixMicros(since),
                        until: if late { unix } else { UnixMicros::MAX },
                        undoes: stale.then_some(UnixMicros(since + 1)), // one that has not come yet
                    };
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Transfer, now_unix: unix });
                    model.follow(&effects);
                    let changed = live && !over && !same && !late && room && !told_late;
                    if stale && live {
                        let known = model.get(lease).unwrap();
                        known.tried = known.tried.max(since + 1);
                    }
                    if !changed {
                        prop_assert!(over || effects.is_empty(), "what is refused changes nothing");
                    }
                    match answer {
                        Ok(Answer::Fenced { upto, .. }) => {
                            prop_assert!(changed || live && same);
                            if changed {
                                prop_assert_eq!(&model.rotated, &segments, "all that anybody maps");
                                let begun = segments.first().and_then(|&first| model.get(lease).unwrap().files[first as usize].1);
                                prop_assert_eq!(upto, begun.or(under_way));
                                let left = model.out.len();
                                model.former.insert(region, left);
                                for (out, by) in model.out.iter().zip(&mut model.by) {
                                    by.1 &= out.0 != region;
                                }
                                let known = model.get(lease).unwrap();
                                (known.owner, known.since, known.tied) = (to, since, None);
                                known.tried = since;
                                model.revoked.retain(|&(of, ..)| of != region);
                                model.narrowed.retain(|&(of, _)| of != region);
                                model.cut.retain(|&(of, ..)| of != region);
                                model.counted.retain(|&(of, _), _| of != region);
                                model.made.retain(|&(of, ..)| of != region);
                                model.opened.retain(|&(of, ..)| of != region);
                                let open = kernel.opens.iter().any(|(_, row)| row.region == region);
                                prop_assert!(!open, "nothing of the former owner's is open");
                            } else {
                                prop_assert_eq!(upto, under_way);
                            }
                        }
                        Ok(other) => prop_assert!(false, "{other:?}"),
                        Err(error) => {
                            prop_assert!(!changed, "{error}");
                            let refused = if told_late { Code::TokenRevoked } else { Code::NoMemory };
                            prop_assert!(!live || over || late || error.code() == refused, "{error}");
                        }
                    }
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                }
                Act::Taken { lease } => {
                    let Some(known) = model.get(lease).filter(|known| known.life == Life::Ending) else { continue };
                    let (region, gone) = (known.key, known.unspent.is_empty());
                    let answer = step(&mut kernel, Event::Taken { region });
                    prop_assert_eq!(answer.is_ok(), gone);
                    if !gone {
                        continue;
                    }
                    model.leases.retain(|known| known.lease != lease);
                }
                Act::Wait { millis } => {
                    now += millis;
                    let boot = BootNanos(now * 1_000_000);
                    let ticked = kernel.step(boot, Event::Tick);
                    effects.extend(ticked.effects);
                    model.follow(&effects);
                    for known in &model.leases {
                        prop_assert!(known.life != Life::Live || known.until > now, "ended at its deadline");
                    }
                    for (_, row) in kernel.opens.iter() {
                        prop_assert!(row.deadline > boot, "no right outlives its deadline");
                    }
                    effects.retain(|effect| matches!(effect, Effect::Fence { .. }));
                }
            }
            model.follow(&effects);
            for effect in &effects {
                if let Effect::Fence { open } = effect {
                    fenced.insert(*open);
                }
            }
            prop_assert_eq!(kernel.check_invariants(UnixMicros(now * 1_000)), Ok(()));
            for (at, (&(region, segment, generation, grant, write), (carried, _))) in model.out.iter().zip(&model.by).enumerate() {
                let Some(known) = model.leases.iter().find(|known| known.key == region) else { continue };
                if known.life != Life::Live || known.files[segment].0 != generation || known.files[segment].1.is_some() {
                    continue;
                }
                let over = |grant| {
                    model.revoked.iter().any(|&(of, by, until)| (of, by) == (region, grant) && until > now)
                        || write && model.narrowed.contains(&(region, grant))
                };
                prop_assert!(!grant.is_some_and(over), "the adversary holds what was taken back");
                let cut = |&(of, mark, until): &_| of == region && carried.contains(&mark) && until > now;
                prop_assert!(!model.cut.iter().any(cut), "the adversary holds what was taken back below a grant");
                let former = model.former.get(&region).is_some_and(|&left| at < left);
                prop_assert!(!former, "the adversary holds what was a former owner's");
            }
            prop_assert_eq!(kernel.committed_bytes(), model.used() * PAGE);
        }
    }
}
