//! Short stories of the kernel, each told for one rule that the model and the fuzzer meet only by chance.

use caps::error::Code;
use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::token::{Mark, Meter};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Lifetime};

use super::fuzzing::{MAPPINGS_MAX, METERS_PER_SIDE, OPENS_MAX, PAGE, POOL_PAGES, asked, small_config};
use super::{Answer, Effect, Event, Kernel, OpenRequest, Opening, RegionKey, SegmentState, SessionId, Step};

const LEASE: LeaseId = LeaseId([1; 16]);
const OWNER: PrincipalKey = PrincipalKey([1; 32]);
/// The receiver of every grant.
const BOBS: PrincipalKey = PrincipalKey([9; 32]);
const BOB: GrantId = GrantId([2; 16]);
const CAROL: GrantId = GrantId([3; 16]);

/// The same right, to be used by calls.
fn by_calls(request: OpenRequest) -> OpenRequest {
    OpenRequest { path: Path::Mediated, quota: asked(request.first_holder, Path::Mediated), ..request }
}

/// A kernel and the time in milliseconds on both clocks.
struct Story {
    kernel: Kernel,
    now: u64,
    region: RegionKey,
}

impl Story {
    /// A live region of `pages` pages in segments of one.
    fn begin(pages: u64, ttl: u64, pinned: bool) -> Self {
        let mut kernel = Kernel::new(small_config());
        let ticket = ClaimTicket {
            lease: LEASE,
            region: RegionId([1; 16]),
            owner: OWNER,
            bytes: pages * PAGE,
            segment_bytes: PAGE,
            ttl: Micros::from_millis(ttl),
            lifetime: Lifetime::Detached,
            claim_by: UnixMicros(u64::MAX),
        };
        let claim = Event::Claim { ticket, session: None, now_unix: UnixMicros(0) };
        let Ok(Answer::Build { region, .. }) = kernel.step(BootNanos(0), claim).answer else { panic!() };
        kernel.step(BootNanos(0), Event::Created { region, huge_bytes: 0, pinned }).answer.unwrap();
        Self { kernel, now: 0, region }
    }

    fn step(&mut self, event: Event) -> Step {
        let step = self.kernel.step(BootNanos(self.now * 1_000_000), event);
        self.kernel.check_invariants(self.unix()).unwrap();
        step
    }

    fn unix(&self) -> UnixMicros {
        UnixMicros(self.now * 1_000)
    }

    fn tick_at(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        self.step(Event::Tick).effects
    }

    /// A mapped right to all of it, by a token that ends at `end`.
    fn request(&self, grant: Option<GrantId>, end: u64, narrowed: bool) -> OpenRequest {
        OpenRequest {
            session: SessionId(1),
            uid: Some(7),
            sandboxed: false,
            holder: if grant.is_some() { BOBS } else { OWNER },
            lease: LEASE,
            grant,
            rights: Rights::READ_WRITE,
            range: ByteRange::new(0, ByteRange::END_MAX).unwrap(),
            expires: UnixMicros(end * 1_000),
            minted_until: UnixMicros(end * 1_000),
            now_unix: self.unix(),
            metered: false,
            narrowed,
            path: Path::Mapped,
            first_holder: if grant.is_some() { BOBS } else { OWNER },
            delegate: None,
            marks: Box::default(),
            meters: Box::default(),
            quota: asked(if grant.is_some() { BOBS } else { OWNER }, Path::Mapped),
            root: 1,
            not_before: UnixMicros(0),
        }
    }

    fn open(&mut self, request: OpenRequest) -> caps::Result<Opening> {
        match self.step(Event::Open(request)).answer? {
            Answer::Opened(opening) => Ok(opening),
            other => panic!("{other:?}"),
        }
    }

    /// Opens and hands one segment out.
    fn map(&mut self, request: OpenRequest, segment: u32) -> Opening {
        let opening = self.open(request).unwrap();
        assert_eq!(self.hand_out(opening, segment), Ok(Answer::Done));
        opening
    }

    fn hand_out(&mut self, opening: Opening, segment: u32) -> caps::Result<Answer> {
        let row = &self.kernel.regions.get(self.region).unwrap().segments[segment as usize];
        let generation = row.generation;
        self.step(Event::HandedOut { open: opening.open, segment, generation, write: true }).answer
    }

    /// Brings the rotation of a segment to its end; the rights that get the fresh file.
    fn replace(&mut self, segment: u32) -> Vec<super::table::Key> {
        let region = self.region;
        assert_eq!(self.step(Event::Fresh { region, segment }).answer, Ok(Answer::Granted));
        let Ok(Answer::Rotated { survivors, .. }) = self.step(Event::Rotated { region, segment }).answer
        else {
            panic!()
        };
        self.step(Event::Spent { region, bytes: PAGE }).answer.unwrap();
        survivors.into_iter().map(|survivor| survivor.open).collect()
    }
}

/// The segments of each rotation among effects.
fn rotated(effects: &[Effect]) -> Vec<Vec<u32>> {
    let segments = effects.iter().filter_map(|effect| match effect {
        Effect::Rotate { segments, .. } => Some(segments.clone()),
        _ => None,
    });
    segments.collect()
}

fn grants_ended(effects: &[Effect]) -> Vec<GrantId> {
    let ended = effects.iter().filter_map(|effect| match effect {
        Effect::GrantEnded { grant, .. } => Some(*grant),
        _ => None,
    });
    ended.collect()
}

fn taken_back(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::TakeBack { .. }))
}

/// A finding: the end of a delegated token, by its own earlier time, was told to the broker as the grant's end.
#[test]
fn a_grant_is_over_when_its_own_time_is_and_not_when_a_delegates_is() {
    let mut story = Story::begin(1, 200, true);
    story.map(story.request(Some(BOB), 40, true), 0);
    let mediated = by_calls(story.request(Some(BOB), 41, true));
    story.open(mediated).unwrap();
    story.open(story.request(Some(BOB), 100, false)).unwrap();
    assert_eq!(grants_ended(&story.tick_at(50)), []);
    assert_eq!(grants_ended(&story.tick_at(100)), [BOB]);

    // What ends because its region did, with a token that would live on, is not the grant's end either: the lease may
    // have been shorter when the right was opened.
    let mut story = Story::begin(1, 50, true);
    story.open(story.request(Some(BOB), 100, false)).unwrap();
    let ttl = Micros::from_millis(200);
    story.step(Event::Renew { lease: LEASE, ttl }).answer.unwrap();
    assert_eq!(grants_ended(&story.tick_at(50)), []);

    // A narrowing brings the grant's own end nearer, also for whoever opened it by a delegated token.
    let mut story = Story::begin(1, 200, true);
    let mediated = by_calls(story.request(Some(BOB), 90, true));
    story.open(mediated).unwrap();
    let range = ByteRange::new(0, PAGE).unwrap();
    let take =
        Take::Narrow { lease: LEASE, grant: BOB, rights: Rights::READ, range, expires: UnixMicros(30_000) };
    story.step(Event::Take { take, cause: EndCause::Narrowed, now_unix: story.unix() }).answer.unwrap();
    assert_eq!(grants_ended(&story.tick_at(30)), [BOB]);
}

/// However many tokens a holder makes, and whenever each ends, their mappings end together, once in each step.
#[test]
fn tokens_of_a_clients_making_cause_one_rotation_in_each_step() {
    let step = small_config().mapping_end_step / 1_000_000;
    let mut story = Story::begin(1, 200, true);
    let mine = story.map(story.request(None, 500, false), 0);
    // As short as it likes: read and written through the provider, not mapped.
    for left in 1..step {
        let refused = story.open(story.request(Some(BOB), left, true));
        assert_eq!(refused.map_err(|error| error.code()).unwrap_err(), Code::MediatedOnly);
    }
    let mediated = by_calls(story.request(Some(BOB), 1, true));
    assert_eq!(story.open(mediated).unwrap().deadline, BootNanos(1_000_000), "to the very end");
    // A token that nobody narrowed ends with its grant, whose time was the owner's choice.
    let own = story.open(story.request(Some(CAROL), 1, false)).unwrap();
    assert_eq!(own.deadline, BootNanos(1_000_000));

    let mut rotations = 0;
    for now in 0..10 * step {
        rotations += rotated(&story.tick_at(now)).len();
        if story.kernel.regions.get(story.region).unwrap().segments[0].state != SegmentState::Settled {
            story.replace(0);
            assert_eq!(story.hand_out(mine, 0), Ok(Answer::Done));
        }
        // A new one every millisecond, each with another end.
        if let Ok(opening) = story.open(story.request(Some(BOB), now + step + now % 3, true)) {
            assert_eq!(opening.deadline.0 % (step * 1_000_000), 0);
            assert_eq!(story.hand_out(opening, 0), Ok(Answer::Done));
        }
    }
    assert!((5..=10).contains(&rotations), "{rotations} in ten steps");
}

/// Two that end at different times under one grant share a row, which ends with the first; the second survives.
#[test]
fn rights_of_one_grant_end_with_the_first_and_the_later_ones_survive() {
    let mut story = Story::begin(2, 200, true);
    let mine = story.map(story.request(None, 500, false), 0);
    story.map(story.request(Some(BOB), 20, true), 0);
    let late = story.map(story.request(Some(BOB), 80, false), 0);
    assert_eq!(story.hand_out(late, 1), Ok(Answer::Done));
    assert_eq!(rotated(&story.tick_at(20)), [vec![0]], "the other segment is as it was");
    assert_eq!(story.replace(0), [mine.open, late.open]);
    assert_eq!(story.hand_out(late, 0), Ok(Answer::Done));
    // One deadline, one rotation for both segments.
    assert_eq!(rotated(&story.tick_at(80)), [vec![0, 1]]);
    assert_eq!(story.replace(0), [mine.open]);
    // Due at the same time under different grants: one rotation as well.
    let mut story = Story::begin(2, 200, true);
    story.map(story.request(Some(BOB), 20, false), 0);
    story.map(story.request(Some(CAROL), 20, false), 1);
    let effects = story.tick_at(20);
    assert_eq!((rotated(&effects), grants_ended(&effects).len()), (vec![vec![0, 1]], 2));
}

/// Where pages could not be pinned, nothing is rotated: a mapping is whole and ends with its region, at the latest.
#[test]
fn what_is_not_pinned_is_mapped_whole_or_not_at_all_and_ends_with_its_region() {
    let mut story = Story::begin(2, 100, false);
    let part =
        OpenRequest { range: ByteRange::new(0, PAGE).unwrap(), ..story.request(Some(BOB), 100, false) };
    for refused in [part, story.request(Some(BOB), 99, false), story.request(Some(BOB), 99, true)] {
        assert_eq!(story.open(refused).map_err(|error| error.code()).unwrap_err(), Code::MediatedOnly);
    }
    story.map(story.request(Some(BOB), 100, false), 0);
    // So the lease cannot live longer than what is mapped, and ends with it.
    let renewal = |ttl| Event::Renew { lease: LEASE, ttl: Micros::from_millis(ttl) };
    assert_eq!(story.step(renewal(300)).answer.unwrap_err().code(), Code::ShareOrder);
    story.step(renewal(90)).answer.unwrap();
    assert_eq!(story.tick_at(89), []);
    let effects = story.tick_at(90);
    assert!(taken_back(&effects) && rotated(&effects).is_empty());

    // So does a revoke of one who maps, and none of one who does not.
    let mut story = Story::begin(2, 100, false);
    story.map(story.request(Some(BOB), 100, false), 0);
    let take = |grant| {
        let take = Take::Grant { lease: LEASE, grant, expires: UnixMicros(100_000) };
        Event::Take { take, cause: EndCause::Revoked, now_unix: UnixMicros(0) }
    };
    assert!(!taken_back(&story.step(take(CAROL)).effects));
    assert!(taken_back(&story.step(take(BOB)).effects));
}

/// A finding of the model: whoever revokes may know of an earlier end than that of a token seen here, and the token
/// must not come back in between.
#[test]
fn a_revoked_grant_is_refused_until_the_last_token_seen_under_it_ends() {
    let revoke = |story: &mut Story| {
        let take = Take::Grant { lease: LEASE, grant: BOB, expires: UnixMicros(1_000) };
        story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() }).answer.unwrap();
    };
    let open = |story: &mut Story, end| {
        let mediated = by_calls(story.request(Some(BOB), end, false));
        story.open(mediated).map_err(|error| error.code())
    };
    let mut story = Story::begin(1, 200, true);
    story.open(story.request(Some(BOB), 21, false)).unwrap();
    revoke(&mut story);
    for now in [1, 20] {
        story.tick_at(now);
        assert_eq!(open(&mut story, 21), Err(Code::TokenRevoked));
    }
    story.tick_at(21);
    assert_eq!(open(&mut story, 21), Err(Code::TokenExpired));
    assert!(open(&mut story, 30).is_ok(), "and not a moment longer");

    // What was narrowed is known as long as its region, and so is that it was revoked, whichever came first.
    for narrowed_first in [true, false] {
        let mut story = Story::begin(1, 200, true);
        let narrow = |story: &mut Story| {
            let range = ByteRange::new(0, PAGE).unwrap();
            let (rights, expires) = (Rights::READ_WRITE, UnixMicros::MAX);
            let take = Take::Narrow { lease: LEASE, grant: BOB, rights, range, expires };
            story
                .step(Event::Take { take, cause: EndCause::Narrowed, now_unix: story.unix() })
                .answer
                .unwrap();
        };
        if narrowed_first {
            narrow(&mut story);
            assert!(open(&mut story, 21).is_ok());
        }
        revoke(&mut story);
        if !narrowed_first {
            narrow(&mut story);
        }
        story.tick_at(199);
        assert_eq!(open(&mut story, 200), Err(Code::TokenRevoked));
    }
}

/// A renewal moves the owner's rights along, and leaves a receiver's where they were.
#[test]
fn a_renewal_leaves_a_receivers_end_where_it_was() {
    let mut story = Story::begin(1, 50, true);
    let mine = story.map(story.request(None, 50, false), 0);
    let bobs = story.map(story.request(Some(BOB), 40, false), 0);
    let ttl = Micros::from_millis(200);
    story.step(Event::Renew { lease: LEASE, ttl }).answer.unwrap();
    let ends = |story: &Story, opening: Opening| story.kernel.open_row(opening.open).unwrap().deadline.0;
    assert_eq!((ends(&story, mine), ends(&story, bobs)), (200_000_000, 40_000_000));
    assert_eq!(rotated(&story.tick_at(40)), [vec![0]]);
    assert_eq!(story.replace(0), [mine.open]);
    assert!(story.kernel.open_row(bobs.open).is_none());
    assert!(!taken_back(&story.tick_at(199)) && taken_back(&story.tick_at(200)));
}

/// Survivors fetch the fresh file when they like. Until they do, nothing but the promise keeps room for the next
/// rotation: without it the pool would be sold, and a survivor turned away from its own right.
#[test]
fn a_promise_keeps_room_until_the_survivor_comes() {
    let mut story = Story::begin(1, 200, true);
    let bobs = story.map(story.request(Some(BOB), 100, false), 0);
    story.map(story.request(Some(CAROL), 20, false), 0);
    story.tick_at(20);
    assert_eq!(story.replace(0), [bobs.open]);
    let promised = |story: &Story| story.kernel.regions.get(story.region).unwrap().segments[0].promised;
    assert!(promised(&story));
    // Somebody wants all that is left of the pool; one segment of it is spoken for.
    let claim = |pages: u64| {
        let ticket = ClaimTicket {
            lease: LeaseId([7; 16]),
            region: RegionId([7; 16]),
            owner: OWNER,
            bytes: pages * PAGE,
            segment_bytes: pages * PAGE,
            ttl: Micros::from_millis(500),
            lifetime: Lifetime::Detached,
            claim_by: UnixMicros(u64::MAX),
        };
        Event::Claim { ticket, session: None, now_unix: UnixMicros(0) }
    };
    let refused = story.step(claim(POOL_PAGES - 1)).answer.unwrap_err();
    assert_eq!(refused.code(), Code::NoMemory);
    assert!(matches!(story.step(claim(POOL_PAGES - 2)).answer, Ok(Answer::Build { .. })));
    assert_eq!(story.hand_out(bobs, 0), Ok(Answer::Done), "the survivor has its room");
    assert_eq!(rotated(&story.tick_at(100)), [vec![0]]);
    assert_eq!(story.replace(0), [], "and so has its end");
    assert!(!promised(&story), "nobody is left to promise to");
}

/// A replaced file that could not be wiped stays in the books when its region is forgotten, takes no room that a rotation
/// needs, and comes back once.
#[test]
fn what_is_kept_of_a_rotation_outlives_its_region_and_leaves_rotations_their_room() {
    let mut story = Story::begin(1, 200, true);
    let region = story.region;
    let bobs = story.map(story.request(Some(BOB), 100, false), 0);
    story.map(story.request(Some(CAROL), 20, false), 0);
    story.tick_at(20);
    assert_eq!(story.step(Event::Fresh { region, segment: 0 }).answer, Ok(Answer::Granted));
    story.step(Event::Rotated { region, segment: 0 }).answer.unwrap();
    assert_eq!(story.kernel.committed_bytes(), 2 * PAGE);
    story.step(Event::Kept { region, bytes: PAGE }).answer.unwrap();
    assert_eq!(story.kernel.committed_bytes(), 2 * PAGE, "neither free nor counted twice");
    let again = story.step(Event::Kept { region, bytes: PAGE }).answer.unwrap_err();
    assert_eq!(again.code(), Code::Internal, "there is nothing more of it");
    // The next rotation needs room beside what is kept, and has it.
    assert_eq!(story.hand_out(bobs, 0), Ok(Answer::Done));
    assert_eq!(rotated(&story.tick_at(100)), [vec![0]]);
    assert_eq!(story.replace(0), []);
    let take = Take::Lease(LEASE);
    story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() }).answer.unwrap();
    story.step(Event::Taken { region }).answer.unwrap();
    assert_eq!((story.kernel.regions(), story.kernel.committed_bytes()), (0, PAGE));
    story.step(Event::Unkept { bytes: PAGE }).answer.unwrap();
    assert_eq!(story.kernel.committed_bytes(), 0);
    assert!(story.step(Event::Unkept { bytes: PAGE }).answer.is_err(), "once");
}

/// A right to read and write by calls, under a token with one block that limits how often it is opened.
fn limited(story: &Story, opens: u64, minted: u64) -> OpenRequest {
    let key = Mark::from_bytes([1; 32]);
    let meter = Meter { key, opens: Some(opens), bytes_per_second: None, bytes_total: None };
    let minted_until = UnixMicros(minted * 1_000);
    OpenRequest { meters: [meter].into(), minted_until, ..by_calls(story.request(Some(BOB), 50, true)) }
}

#[test]
fn closing_gives_no_opening_back() {
    let mut story = Story::begin(1, 1_000, true);
    for session in [1, 2] {
        let request = OpenRequest { session: SessionId(session), ..limited(&story, 2, 100) };
        let open = story.open(request).unwrap().open;
        let handle = SlotHandle { slot: open.index, epoch: open.generation };
        story.step(Event::Close { session: SessionId(session), handle }).answer.unwrap();
    }
    let refused = story.open(limited(&story, 2, 100)).unwrap_err();
    assert!(refused.code() == Code::Denied && refused.detail().starts_with("opens: "), "{refused}");
    // Nor does the end of what the token was narrowed to, however full the table is: its parent may live on.
    story.tick_at(60);
    let other = |story: &Story, n: u8| {
        let request = limited(story, 9, 90);
        let meters = request.meters.iter().map(|meter| Meter { key: Mark::from_bytes([n; 32]), ..*meter });
        OpenRequest { meters: meters.collect(), expires: UnixMicros(90_000), ..request }
    };
    story.open(other(&story, 2)).unwrap();
    assert_eq!(story.open(other(&story, 4)).unwrap_err().code(), Code::Quota);
    story.open(other(&story, 2)).unwrap();
    let late = OpenRequest { expires: UnixMicros(90_000), ..limited(&story, 2, 100) };
    assert_eq!(story.open(late).unwrap_err().code(), Code::Denied);
    // When all of its time is over, the count goes as soon as room is wanted.
    story.tick_at(100);
    let next = OpenRequest { expires: UnixMicros(200_000), ..other(&story, 4) };
    story.open(next).unwrap();
}

#[test]
fn who_makes_limited_tokens_without_end_keeps_nobody_elses_from_being_opened() {
    let mut story = Story::begin(1, 1_000, true);
    let carols = PrincipalKey([8; 32]);
    let mut next = 0;
    // Each of a block of its own, as anybody makes them offline.
    let mut open = |story: &mut Story,
                    grant: Option<GrantId>,
                    (first_holder, delegate): (PrincipalKey, Option<PrincipalKey>)| {
        next += 1;
        let [meter] = *limited(story, 9, 90).meters else { panic!("one block") };
        let request = OpenRequest {
            meters: [Meter { key: Mark::from_bytes([next; 32]), ..meter }].into(),
            first_holder,
            delegate,
            holder: first_holder,
            quota: asked(first_holder, Path::Mediated),
            // A session of few rights is another bound.
            session: SessionId(next.into()),
            ..by_calls(story.request(grant, 50, true))
        };
        story
            .open(request)
            .map(|opening| story.kernel.open_row(opening.open).unwrap().payer)
            .map_err(|e| e.code())
    };
    while open(&mut story, Some(BOB), (BOBS, None)).is_ok() {}
    assert_eq!(open(&mut story, Some(BOB), (BOBS, None)), Err(Code::Quota), "he has his share");
    let another = GrantId([0xb2; 16]);
    assert_eq!(
        open(&mut story, Some(another), (BOBS, None)),
        Err(Code::Quota),
        "and by another grant no other"
    );
    assert_eq!(open(&mut story, Some(CAROL), (carols, None)), Ok(carols));
    // To whom the owner delegated offline has a share as well, and takes nothing of the owner's.
    let dave = Some(PrincipalKey([9; 32]));
    while open(&mut story, None, (OWNER, dave)).is_ok() {}
    for _ in 0..METERS_PER_SIDE {
        assert_eq!(open(&mut story, None, (OWNER, None)), Ok(OWNER));
    }
    assert_eq!(open(&mut story, None, (OWNER, None)), Err(Code::Busy), "the owner has its half");
}

#[test]
fn a_refused_opening_is_not_charged() {
    let mut story = Story::begin(1, 1_000, true);
    let mapped = OpenRequest { metered: true, path: Path::Mapped, ..limited(&story, 1, 100) };
    let mapped = OpenRequest { quota: asked(BOBS, Path::Mapped), ..mapped };
    assert_eq!(story.open(mapped).unwrap_err().code(), Code::MediatedOnly);
    let full: Vec<_> = (0..OPENS_MAX)
        .map(|n| OpenRequest {
            session: SessionId(n.into()),
            ..by_calls(story.request(Some(BOB), 50, false))
        })
        .collect();
    let open: Vec<_> = full.into_iter().map(|request| story.open(request).unwrap().open).collect();
    assert_eq!(story.open(limited(&story, 1, 100)).unwrap_err().code(), Code::Quota);
    let handle = SlotHandle { slot: open[1].index, epoch: open[1].generation };
    story.step(Event::Close { session: SessionId(1), handle }).answer.unwrap();
    assert!(story.open(limited(&story, 1, 100)).is_ok(), "the first that was not refused");
    let again = OpenRequest { session: SessionId(2), ..limited(&story, 1, 100) };
    assert_eq!(
        story.open(again).unwrap_err().code(),
        Code::Denied,
        "what no waiting helps against is said first"
    );
}

#[test]
fn who_delegates_pays_whoever_opens() {
    let mut story = Story::begin(1, 1_000, true);
    let delegate = |story: &Story, n: u8| {
        let request = story.request(Some(BOB), 100, false);
        OpenRequest { session: SessionId(n.into()), holder: PrincipalKey([n; 32]), ..request }
    };
    for n in 0..MAPPINGS_MAX as u8 {
        story.open(delegate(&story, n)).unwrap();
    }
    assert_eq!(story.open(delegate(&story, 77)).unwrap_err().code(), Code::Quota);
    let owners = story.request(None, 100, false);
    assert!(story.open(owners).is_ok(), "the owner's are its own");
    let calls = by_calls(delegate(&story, 77));
    assert!(story.open(calls).is_ok(), "and mapped ones have a quota of their own");
    // Every end gives them back.
    story.step(Event::SessionEnded { session: SessionId(0) }).answer.unwrap();
    assert!(story.open(delegate(&story, 78)).is_ok());
    let take = Take::Grant { lease: LEASE, grant: BOB, expires: UnixMicros(100_000) };
    story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() }).answer.unwrap();
    assert!(story.kernel.openings(BOBS).is_empty());
    story
        .open(OpenRequest {
            first_holder: BOBS,
            quota: asked(BOBS, Path::Mapped),
            ..story.request(Some(CAROL), 100, false)
        })
        .unwrap();
    assert_eq!(story.kernel.openings(BOBS).mappings(), 1);
    story.tick_at(100);
    assert!(story.kernel.openings(BOBS).is_empty());
    assert_eq!(story.kernel.openings(OWNER).mappings(), 1);
    story.tick_at(1_000);
    assert!(story.kernel.openings.is_empty());
}

/// A token is taken back below its grant: within its bytes, by any of its marks, also where its right is gone and a
/// mapping may not be; and where that cannot be remembered the grant goes, and the broker hears of it.
#[test]
fn a_token_is_taken_back_within_its_bytes_or_with_its_grant() {
    const FULL: usize = 3;
    assert_eq!(small_config().marks_per_region_max, FULL);
    let mark = |n| Mark::from_bytes([n; 32]);
    let by = |story: &Story, grant, made: &[u8]| OpenRequest {
        narrowed: made.len() > 1,
        marks: made.iter().map(|&n| mark(n)).collect(),
        ..story.request(Some(grant), 100, false)
    };
    let take = |n, grant, pages| {
        let range = ByteRange::new(0, pages * PAGE).unwrap();
        let take = Take::Marks {
            lease: LEASE,
            marks: [Some(mark(n)), None],
            grant,
            range,
            expires: UnixMicros(90_000),
        };
        Event::Take { take, cause: EndCause::Revoked, now_unix: UnixMicros(0) }
    };
    let mut story = Story::begin(2, 200, true);
    let own = story.map(by(&story, BOB, &[1]), 0);
    let one =
        |story: &Story| OpenRequest { range: ByteRange::new(0, PAGE).unwrap(), ..by(story, BOB, &[1, 2]) };
    let made = story.map(one(&story), 0);
    assert_eq!(story.hand_out(own, 1), Ok(Answer::Done));
    let carols = story.map(by(&story, CAROL, &[3]), 1);
    // Its right is closed, and a child that was forked maps on.
    let handle = caps::id::SlotHandle { slot: made.open.index, epoch: made.open.generation };
    story.step(Event::Close { session: SessionId(1), handle }).answer.unwrap();
    let step = story.step(take(2, Some(BOB), 1));
    assert!(matches!(step.answer, Ok(Answer::Fenced { mappings: 2, .. })), "{:?}", step.answer);
    assert_eq!(rotated(&step.effects), [vec![0]], "and not what it cannot reach");
    assert_eq!(story.replace(0), [own.open, carols.open], "whoever keeps a right survives");
    assert_eq!(story.open(one(&story)).unwrap_err().code(), Code::TokenRevoked);
    // What was never mapped costs nobody anything.
    let calls = by_calls(by(&story, CAROL, &[3, 4]));
    story.open(calls).unwrap();
    let step = story.step(take(4, Some(CAROL), 2));
    assert_eq!(step.answer.unwrap(), Answer::Fenced { region: story.region, upto: None, mappings: 0 });
    assert!(rotated(&step.effects).is_empty());
    // One more, and it is full; then the grant goes instead.
    story.step(take(5, Some(CAROL), 2)).answer.unwrap();
    let step = story.step(take(6, Some(CAROL), 2));
    assert_eq!((grants_ended(&step.effects), rotated(&step.effects)), (vec![CAROL], vec![vec![1]]));
    assert_eq!(story.open(by(&story, CAROL, &[3])).unwrap_err().code(), Code::TokenRevoked);
    // Until the first of them can be forgotten.
    story.tick_at(90);
    let late = OpenRequest { now_unix: story.unix(), ..one(&story) };
    assert_eq!(story.open(late).map(|opening| opening.path), Ok(Path::Mapped));
    // Without a grant it is the lease.
    story.now = 0;
    assert!(taken_back(&story.step(take(7, None, 2)).effects));

    // Where nothing can be rotated, what was mapped goes with the region.
    let mut story = Story::begin(2, 100, false);
    story.map(by(&story, BOB, &[1]), 0);
    assert!(!taken_back(&story.step(take(2, Some(BOB), 2)).effects));
    assert!(taken_back(&story.step(take(1, Some(BOB), 2)).effects));
}

/// Takes back what is open under a root key.
fn take_root(story: &mut Story, root: u32) -> Step {
    let take = Take::Root { lease: LEASE, root };
    story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() })
}

#[test]
fn what_is_open_under_a_root_key_ends_and_the_others_survive() {
    let mut story = Story::begin(2, 100, true);
    let under = |story: &Story, grant, root| OpenRequest { root, ..story.request(grant, 100, false) };
    let mine = story.map(under(&story, None, 1), 0);
    let bobs = story.map(under(&story, Some(BOB), 2), 0);
    let mediated = by_calls(under(&story, Some(CAROL), 1));
    let carols = story.open(mediated).unwrap();
    assert_eq!(story.kernel.leases_under(1), [LEASE]);
    assert_eq!(story.kernel.leases_under(3), []);
    // What the owner closed it may still map.
    let handle = SlotHandle { slot: mine.open.index, epoch: mine.open.generation };
    story.step(Event::Close { session: SessionId(1), handle }).answer.unwrap();

    let step = take_root(&mut story, 1);
    assert!(
        matches!(step.answer, Ok(Answer::Fenced { upto: Some(_), mappings: 2, .. })),
        "{:?}",
        step.answer
    );
    assert_eq!(rotated(&step.effects), [[0]]);
    assert!(step.effects.contains(&Effect::Fence { open: carols.open }));
    assert!(story.kernel.open_row(bobs.open).is_some() && story.kernel.open_row(carols.open).is_none());
    // Once more, while it rotates and after: nothing is left to do.
    for replaced in [true, false] {
        let again = take_root(&mut story, 1);
        assert!(again.effects.is_empty() && matches!(again.answer, Ok(Answer::Fenced { .. })), "{again:?}");
        if replaced {
            assert_eq!(story.replace(0), [bobs.open]);
        }
    }
    assert_eq!(story.kernel.leases_under(1), []);
    assert_eq!(story.kernel.leases_under(2), [LEASE]);

    // A key whose last token has expired takes nothing with it.
    let again = story.map(under(&story, None, 4), 1);
    assert!(story.step(Event::RootExpired { root: 4 }).effects.is_empty());
    assert!(story.kernel.open_row(again.open).is_some());
}

#[test]
fn what_cannot_be_rotated_ends_with_its_root_key() {
    // Nobody kept room for a rotation of what only the owner maps, and all the pool is leased.
    let mut story = Story::begin(1, 100, true);
    story.map(story.request(None, 100, false), 0);
    let bytes = (POOL_PAGES - 1) * PAGE;
    let ticket = ClaimTicket {
        lease: LeaseId([9; 16]),
        region: RegionId([9; 16]),
        owner: OWNER,
        bytes,
        segment_bytes: bytes,
        ttl: Micros::from_millis(100),
        lifetime: Lifetime::Detached,
        claim_by: UnixMicros(u64::MAX),
    };
    story.step(Event::Claim { ticket, session: None, now_unix: UnixMicros(0) }).answer.unwrap();
    assert!(!taken_back(&take_root(&mut story, 2).effects), "not of this key");
    let step = take_root(&mut story, 1);
    assert!(taken_back(&step.effects) && rotated(&step.effects).is_empty());
    assert!(matches!(step.answer, Ok(Answer::Taking { mappings: 1, .. })));

    let mut story = Story::begin(2, 100, false);
    let mediated = by_calls(story.request(None, 100, false));
    let open = story.open(mediated).unwrap();
    let step = take_root(&mut story, 1);
    assert!(!taken_back(&step.effects) && step.effects.contains(&Effect::Fence { open: open.open }));
    story.map(story.request(None, 100, false), 0);
    assert!(taken_back(&take_root(&mut story, 1).effects), "without pins nothing less takes a mapping out");
    assert_eq!(take_root(&mut Story::begin(1, 1, true), 1).effects, []);
}

const DAVE: PrincipalKey = PrincipalKey([4; 32]);

/// Makes a region somebody's from `since` on.
fn give(story: &mut Story, to: PrincipalKey, since: u64, undoes: Option<u64>) -> caps::Result<Answer> {
    let (since, undoes) = (UnixMicros(since), undoes.map(UnixMicros));
    let take = Take::Owner { lease: LEASE, to, since, until: UnixMicros::MAX, undoes };
    story.step(Event::Take { take, cause: EndCause::Transfer, now_unix: story.unix() }).answer
}

fn owner(story: &Story) -> (PrincipalKey, u64) {
    let (_, owner, since) = story.kernel.owned(LEASE).unwrap();
    (owner, since.0)
}

#[test]
fn a_change_of_the_owner_that_is_told_late_does_nothing() {
    let mut story = Story::begin(1, 100, true);
    let refused = |answer: caps::Result<Answer>| answer.unwrap_err().code() == Code::TokenRevoked;
    give(&mut story, DAVE, 5, None).unwrap();
    give(&mut story, DAVE, 5, None).unwrap();
    assert!(refused(give(&mut story, BOBS, 5, None)), "no two changes have one time");
    give(&mut story, BOBS, 7, None).unwrap();
    assert!(refused(give(&mut story, DAVE, 5, None)));
    assert_eq!(owner(&story), (BOBS, 7));
    // Undone: that one is not done again, the one before it not undone, and the next one is.
    give(&mut story, DAVE, 5, Some(7)).unwrap();
    assert_eq!(owner(&story), (DAVE, 5));
    assert!(refused(give(&mut story, BOBS, 7, None)));
    give(&mut story, OWNER, 1, Some(5)).unwrap();
    assert_eq!(owner(&story), (DAVE, 5), "only the latest can be undone");
    // Undone before it comes.
    give(&mut story, DAVE, 5, Some(9)).unwrap();
    assert!(refused(give(&mut story, BOBS, 9, None)));
    assert_eq!(owner(&story), (DAVE, 5));
    give(&mut story, BOBS, 10, None).unwrap();
    assert_eq!(owner(&story), (BOBS, 10));
}

/// What took room of a former owner's, and whether that is there again.
#[test]
fn a_new_owner_has_the_whole_of_every_table_and_the_former_one_has_its_own_back() {
    let mut story = Story::begin(2, 100, true);
    let config = small_config();
    let take = |story: &mut Story, n: u8| {
        let marks = [Some(Mark::from_bytes([n; 32])), None];
        let range = ByteRange::new(0, PAGE).unwrap();
        let take = Take::Marks { lease: LEASE, marks, grant: None, range, expires: UnixMicros::MAX };
        story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() }).effects
    };
    let revoke = |story: &mut Story, n: u8| {
        let take = Take::Grant { lease: LEASE, grant: GrantId([n; 16]), expires: UnixMicros::MAX };
        story.step(Event::Take { take, cause: EndCause::Revoked, now_unix: story.unix() }).effects
    };
    let limited = |story: &Story, n: u8, holder| {
        let opens = Some(1);
        let meter =
            Meter { key: Mark::from_bytes([n; 32]), opens, bytes_per_second: None, bytes_total: None };
        let request = OpenRequest {
            first_holder: holder,
            holder,
            not_before: story.unix(),
            ..story.request(None, 90, false)
        };
        OpenRequest { meters: [meter].into(), ..by_calls(request) }
    };
    let fill = |story: &mut Story, holder| {
        for n in 0..config.marks_per_region_max as u8 {
            assert!(!taken_back(&take(story, 100 + n)), "there is room");
        }
        for n in 0..config.revocations_per_region_max as u8 {
            assert!(!taken_back(&revoke(story, 100 + n)), "there is room");
        }
        let session = SessionId(1);
        for n in 0..METERS_PER_SIDE as u8 {
            let opening = story.open(limited(story, n, holder)).unwrap();
            let handle = SlotHandle { slot: opening.open.index, epoch: opening.open.generation };
            story.step(Event::Close { session, handle }).answer.unwrap();
        }
        assert_eq!(story.open(limited(story, 99, holder)).unwrap_err().code(), Code::Busy);
    };
    fill(&mut story, OWNER);
    story.now = 1;
    give(&mut story, DAVE, 1_000, None).unwrap();
    fill(&mut story, DAVE);
    give(&mut story, OWNER, 0, Some(1_000)).unwrap();
    // The same marks and grants were taken back, so there was room for what was taken back meanwhile.
    assert_eq!(owner(&story), (OWNER, 0));
    assert!(story.open(limited(&story, 0, OWNER)).unwrap_err().detail().starts_with("opens: "));
    assert_eq!(story.open(limited(&story, 99, OWNER)).unwrap_err().code(), Code::Busy);
    let revoked = OpenRequest { grant: Some(GrantId([100; 16])), ..story.request(Some(BOB), 90, false) };
    assert_eq!(story.open(revoked).unwrap_err().code(), Code::TokenRevoked);

    // What is taken back while another has it stays so; without room for it, the lease goes.
    let mut story = Story::begin(2, 100, true);
    give(&mut story, DAVE, 1, None).unwrap();
    revoke(&mut story, 2);
    take(&mut story, 7);
    give(&mut story, OWNER, 0, Some(1)).unwrap();
    let request = story.request(Some(BOB), 90, false);
    assert_eq!(story.open(request).unwrap_err().code(), Code::TokenRevoked);
    let marked = OpenRequest { marks: [Mark::from_bytes([7; 32])].into(), ..story.request(None, 90, false) };
    assert_eq!(story.open(marked).unwrap_err().code(), Code::TokenRevoked);
    for n in 0..config.marks_per_region_max as u8 - 1 {
        assert!(!taken_back(&take(&mut story, 100 + n)));
    }
    give(&mut story, DAVE, 3, None).unwrap();
    assert!(!taken_back(&take(&mut story, 8)));
    assert!(matches!(give(&mut story, OWNER, 0, Some(3)), Ok(Answer::Taking { .. })));
}

#[test]
fn a_lease_that_comes_back_ends_with_its_session_again() {
    for back in [false, true] {
        let mut kernel = Kernel::new(small_config());
        let ticket = ClaimTicket {
            lease: LEASE,
            region: RegionId([1; 16]),
            owner: OWNER,
            bytes: PAGE,
            segment_bytes: PAGE,
            ttl: Micros::from_millis(100),
            lifetime: Lifetime::Process,
            claim_by: UnixMicros(u64::MAX),
        };
        let session = SessionId(3);
        let claim = Event::Claim { ticket, session: Some(session), now_unix: UnixMicros(0) };
        let Ok(Answer::Build { region, .. }) = kernel.step(BootNanos(0), claim).answer else { panic!() };
        let mut story = Story { kernel, now: 0, region };
        story.step(Event::Created { region, huge_bytes: 0, pinned: true }).answer.unwrap();
        give(&mut story, DAVE, 1, None).unwrap();
        if back {
            give(&mut story, OWNER, 0, Some(1)).unwrap();
        }
        assert_eq!(taken_back(&story.step(Event::SessionEnded { session }).effects), back);
    }
}
