//! READ, WRITE and STAT: one span each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use caps::error::{Code, Result};
use caps::id::SlotHandle;
use caps::limits::CHUNK_BYTES_MAX;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros};
use caps::wire::link::Take;
use caps::wire::remote::{Flags, Header, Span, Verb};
use caps::wire::request::Path;
use caps::wire::row::EndCause;
use policy::limits::{REMOTE_REQUEST_MS_DEFAULT, REMOTE_REQUEST_MS_MAX};
use provider::gate::remote::trial::{Guest, Request, Sink, Step};
use zerocopy::IntoBytes;

use crate::line::{Recording, Told, ask, ask_all, header, pattern, read, until, write, write_frames};
use crate::world::{LONG, World};

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

fn open(world: &World, guest: &mut Guest, token: &caps::token::Token, rights: Rights) -> SlotHandle {
    world.wait(guest.open(token, rights)).unwrap().handle
}

pub(crate) fn a_read_ends_where_the_region_does(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let bytes = pattern(lease.bytes as usize, 1);
    assert_eq!(write(world, &mut guest, handle, 0, &bytes, CHUNK_BYTES_MAX), Told::Written(lease.bytes));
    let end = lease.bytes;
    for (offset, length) in [
        (0, end),
        (0, end + 1),
        (0, u64::from(u32::MAX) / 4),
        (1, end),
        (end - 1, 5),
        (end, 5),
        (end, 0),
        (7, 0),
    ] {
        let upto = (offset + length).min(end) as usize;
        let expected = bytes[offset as usize..upto].to_vec();
        assert_eq!(
            read(world, &mut guest, handle, offset, length),
            Told::Bytes(expected),
            "{offset}+{length}"
        );
    }
    for (offset, length) in [(end + 1, 0), (end + 1, 1), (u64::MAX, 1), (u64::MAX, 0), (u64::MAX, CHUNK)] {
        assert_eq!(read(world, &mut guest, handle, offset, length), Told::Failed(Code::Range), "{offset}");
    }
    assert!(!guest.is_done_for(), "that is on record, and no more by default");
    world.revoke(lease);
    assert_eq!(read(world, &mut guest, handle, 0, 1), Told::Failed(Code::Revoked));
}

pub(crate) fn a_right_to_a_part_reads_that_part_or_nothing(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let part = world.token(lease, None, CHUNK..2 * CHUNK, LONG);
    let handle = open(world, &mut guest, &part, Rights::READ);
    let zeros = vec![0; CHUNK_BYTES_MAX];
    assert_eq!(read(world, &mut guest, handle, CHUNK, CHUNK), Told::Bytes(zeros));
    // Not a part of the answer, though the first chunk would be within the right.
    assert_eq!(read(world, &mut guest, handle, CHUNK, CHUNK + 1), Told::Failed(Code::Denied));
    assert_eq!(
        read(world, &mut guest, handle, CHUNK, 1 << 30),
        Told::Failed(Code::Denied),
        "the region goes on"
    );
    assert_eq!(read(world, &mut guest, handle, CHUNK - 1, 2), Told::Failed(Code::Denied));
    assert_eq!(write(world, &mut guest, handle, CHUNK, b"x", 1), Told::Failed(Code::Denied));
    world.revoke(lease);
}

pub(crate) fn a_write_ends_where_the_region_does(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let end = lease.bytes;
    let mut model = vec![0; end as usize];
    // Over the end within a chunk, at its edge, and with whole chunks to spare.
    for (salt, (offset, length)) in
        [(0, 5), (end - 3, 8), (end, 4), (end - CHUNK, 2 * CHUNK), (1, 5 * CHUNK), (3, 0)]
            .into_iter()
            .enumerate()
    {
        let bytes = pattern(length as usize, salt as u64);
        let fits = length.min(end - offset);
        assert_eq!(write(world, &mut guest, handle, offset, &bytes, CHUNK_BYTES_MAX), Told::Written(fits));
        model[offset as usize..(offset + fits) as usize].copy_from_slice(&bytes[..fits as usize]);
        assert!(read(world, &mut guest, handle, 0, end) == Told::Bytes(model.clone()), "{offset}+{length}");
    }
    assert_eq!(write(world, &mut guest, handle, end + 1, b"x", 1), Told::Failed(Code::Range));
    world.revoke(lease);
}

pub(crate) fn a_write_of_many_frames_is_written_as_it_comes(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let bytes = pattern(1_000, 3);
    let mut frames = write_frames(handle, 50, &bytes, 300);
    let (first, body) = frames.pop_front().unwrap();
    let mut request = Request::begin(&first, &body, world.provider.clock().boot()).unwrap();
    let mut out = Recording::default();
    let mut come = 300;
    while let Step::Wants = request.run(&mut guest, &mut out) {
        assert_eq!(read(world, &mut guest, handle, 50, come as u64), Told::Bytes(bytes[..come].to_vec()));
        assert!(out.frames.is_empty());
        let (header, body) = frames.pop_front().unwrap();
        request.feed(&header, &body).unwrap();
        come += body.len();
    }
    assert_eq!((out.told(), come), (Told::Written(1_000), 1_000));
    // An announcement alone, its bytes later.
    let span = Span::new(handle, 0, 2);
    let begun = (header(Verb::Write, true, 0, span.as_bytes()), span.as_bytes().to_vec());
    let rest = (header(Verb::Write, false, 0, b"hi"), b"hi".to_vec());
    assert_eq!(ask_all(world, &mut guest, [begun, rest].into()).told(), Told::Written(2));
    world.revoke(lease);
}

pub(crate) fn a_write_that_failed_swallows_the_rest(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let mut frames = write_frames(handle, 0, &pattern(1_000, 3), 100);
    let (first, body) = frames.pop_front().unwrap();
    let mut request = Request::begin(&first, &body, world.provider.clock().boot()).unwrap();
    let mut out = Recording::default();
    assert!(matches!(request.run(&mut guest, &mut out), Step::Wants));
    world.revoke(lease);
    let (header, body) = frames.pop_front().unwrap();
    request.feed(&header, &body).unwrap();
    // Over, with eight frames to come: nothing is waited for in its name, and nothing is looked at when its time is over.
    assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    assert_eq!(out.told(), Told::Failed(Code::Revoked), "it is told at once");
    for (header, body) in frames {
        request.feed(&header, &body).unwrap();
        assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    }
    assert_eq!(out.frames.len(), 1, "and once");
}

pub(crate) fn a_frame_out_of_step_is_refused(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let frames = write_frames(handle, 0, &pattern(300, 3), 100);
    // It fails for a foreign handle, and still knows what has to come.
    let mut failed = Request::begin(&frames[0].0, &frames[0].1, world.provider.clock().boot()).unwrap();
    assert!(matches!(failed.run(&mut world.anybody(), &mut Recording::default()), Step::Done));
    let other = Header { request: caps::id::RequestId(10), ..frames[1].0 };
    let fed = failed.feed(&other, &frames[1].1);
    assert_eq!(fed.map_err(|error| error.code()), Err(Code::FrameType), "another request's");
    // Of one that goes on: too many bytes, too few, an end too early and one too late.
    for (more, bytes) in [(true, 201), (false, 201), (false, 199), (true, 200)] {
        let mut request = Request::begin(&frames[0].0, &frames[0].1, world.provider.clock().boot()).unwrap();
        assert!(matches!(request.run(&mut guest, &mut Recording::default()), Step::Wants));
        let body = vec![0; bytes];
        let fed = request.feed(&header(Verb::Write, more, 0, &body), &body);
        assert_eq!(fed.map_err(|error| error.code()), Err(Code::FrameType), "{more} {bytes}");
    }
    let mut whole = Request::begin(
        &header(Verb::Read, false, 0, Span::new(handle, 0, 1).as_bytes()),
        Span::new(handle, 0, 1).as_bytes(),
        world.provider.clock().boot(),
    )
    .unwrap();
    assert!(whole.feed(&frames[1].0, &frames[1].1).is_err(), "nothing was to come");
    world.revoke(lease);
}

pub(crate) fn a_question_is_answered_as_the_right_is_now(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.token(lease, None, 0..CHUNK, LONG), Rights::READ);
    let span = Span::new(handle, u64::MAX, u64::MAX);
    let asked = header(Verb::Stat, false, 0, span.as_bytes());
    assert_eq!(ask(world, &mut guest, &asked, span.as_bytes()), Told::Standing(lease.bytes, (0, CHUNK)));
    world.revoke(lease);
    assert_eq!(ask(world, &mut guest, &asked, span.as_bytes()), Told::Failed(Code::Revoked));
}

pub(crate) fn foreign_and_forged_handles_look_alike(world: &World) {
    let lease = world.small();
    let (mut one, mut other) = (world.anybody(), world.anybody());
    let handle = open(world, &mut one, &world.whole(lease), Rights::READ_WRITE);
    let forged = SlotHandle { slot: 60_000, epoch: 77 };
    let past = SlotHandle { slot: u32::MAX, epoch: u32::MAX };
    for wrong in [handle, forged, past] {
        assert_eq!(read(world, &mut other, wrong, 0, 1), Told::Failed(Code::Revoked));
        assert_eq!(write(world, &mut other, wrong, 0, b"x", 1), Told::Failed(Code::Revoked));
        let span = Span::new(wrong, 0, 0);
        let asked = header(Verb::Stat, false, 0, span.as_bytes());
        assert_eq!(ask(world, &mut other, &asked, span.as_bytes()), Told::Failed(Code::Revoked));
    }
    assert_eq!(read(world, &mut one, handle, 0, 1), Told::Bytes(vec![0]), "nobody wrote");
    world.revoke(lease);
}

pub(crate) fn an_answer_has_a_checksum_if_the_request_had(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ);
    let span = Span::new(handle, 0, 2 * CHUNK);
    let plain = header(Verb::Read, false, 0, span.as_bytes());
    for (asked, checked) in [(plain, false), (plain.checked(span.as_bytes()), true)] {
        let out = ask_all(world, &mut guest, [(asked, span.as_bytes().to_vec())].into());
        assert_eq!(out.frames.len(), 2);
        assert!(out.frames.iter().all(|(header, _)| header.flags.contains(Flags::CRC) == checked));
    }
    let gone = Span::new(SlotHandle { slot: 0, epoch: 0 }, 0, 1);
    let asked = header(Verb::Read, false, 0, gone.as_bytes()).checked(gone.as_bytes());
    let out = ask_all(world, &mut guest, [(asked, gone.as_bytes().to_vec())].into());
    assert!(out.frames[0].0.flags.contains(Flags::CRC), "a failure has one, too");
    world.revoke(lease);
}

/// Counts and forgets.
#[derive(Default)]
struct Counting {
    bytes: usize,
    frames: usize,
    longest: usize,
}

impl Sink for Counting {
    fn has_room(&self) -> bool {
        true
    }

    fn frame(&mut self, _: Header, parts: &[&[u8]], _: &[SlotHandle]) -> Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.bytes += length;
        self.frames += 1;
        self.longest = self.longest.max(length);
        Ok(())
    }
}

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub(crate) fn a_request_of_a_gibibyte_needs_a_chunk(world: &World) {
    let lease = world.lease(64 << 20, 64 << 20, LONG);
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let before = anonymous_bytes();
    let most = |most: u64| most < before + (8 << 20);
    let span = Span::new(handle, 0, 1 << 30);
    let asked = header(Verb::Read, false, 0, span.as_bytes());
    let mut request = Request::begin(&asked, span.as_bytes(), world.provider.clock().boot()).unwrap();
    let (mut out, mut turns) = (Counting::default(), 0);
    while let Step::Turn = request.run(&mut guest, &mut out) {
        turns += 1;
        assert!(out.frames <= 16 * turns, "the others have their turn");
        assert!(most(anonymous_bytes()));
    }
    assert_eq!((out.bytes as u64, out.longest), (lease.bytes, CHUNK_BYTES_MAX));
    // A write of as much, of which the region takes its part.
    let chunk = pattern(CHUNK_BYTES_MAX, 8);
    let body = [span.as_bytes(), &chunk].concat();
    let first = header(Verb::Write, true, 0, &body);
    let mut request = Request::begin(&first, &body, world.provider.clock().boot()).unwrap();
    let mut told = Recording::default();
    for left in (0..(1 << 30) / CHUNK - 1).rev() {
        assert!(matches!(request.run(&mut guest, &mut told), Step::Wants));
        request.feed(&header(Verb::Write, left > 0, 0, &chunk), &chunk).unwrap();
        assert!(left % 1_024 != 0 || most(anonymous_bytes()));
    }
    assert!(matches!(request.run(&mut guest, &mut told), Step::Done));
    assert_eq!(told.told(), Told::Written(lease.bytes));
    assert_eq!(read(world, &mut guest, handle, lease.bytes - CHUNK, CHUNK), Told::Bytes(chunk));
    world.revoke(lease);
}

pub(crate) fn no_room_is_waited_for(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let bytes = pattern(lease.bytes as usize, 4);
    assert_eq!(write(world, &mut guest, handle, 0, &bytes, CHUNK_BYTES_MAX), Told::Written(lease.bytes));
    let span = Span::new(handle, 0, lease.bytes);
    let asked = header(Verb::Read, false, 0, span.as_bytes());
    let mut request = Request::begin(&asked, span.as_bytes(), world.provider.clock().boot()).unwrap();
    let mut out = Recording { room: 0, ..Recording::default() };
    for frames in 0..3 {
        for _ in 0..2 {
            assert!(matches!(request.run(&mut guest, &mut out), Step::Full));
            assert_eq!(out.frames.len(), frames);
        }
        out.room = 1;
        if frames == 2 {
            break;
        }
    }
    assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    assert_eq!(out.told(), Told::Bytes(bytes));
    // The end of a write, and a failure, need room as well.
    for (handle, expected) in
        [(handle, Told::Written(1)), (SlotHandle { slot: 0, epoch: 0 }, Told::Failed(Code::Revoked))]
    {
        let (asked, body) = write_frames(handle, 0, b"x", 1).pop_front().unwrap();
        let mut request = Request::begin(&asked, &body, world.provider.clock().boot()).unwrap();
        let mut out = Recording { room: 0, ..Recording::default() };
        assert!(matches!(request.run(&mut guest, &mut out), Step::Full));
        out.room = 1;
        assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
        assert_eq!(out.told(), expected);
    }
    world.revoke(lease);
}

pub(crate) fn a_deadline_ends_it_wherever_it_is(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let now = || world.provider.clock().boot();
    let span = Span::new(handle, 0, lease.bytes);
    let within = |ms: u32| Header { deadline_or_code: ms, ..header(Verb::Read, false, 0, span.as_bytes()) };
    for (ms, expected) in [(0, REMOTE_REQUEST_MS_DEFAULT), (5, 5), (u32::MAX, REMOTE_REQUEST_MS_MAX)] {
        let request = Request::begin(&within(ms), span.as_bytes(), BootNanos(7)).unwrap();
        assert_eq!(request.deadline(), BootNanos(7).plus(Micros::from_millis(expected)));
    }
    // Before it began: it came long ago.
    let long_ago = BootNanos(now().0 - 6_000_000);
    let mut request = Request::begin(&within(5), span.as_bytes(), long_ago).unwrap();
    let mut out = Recording::default();
    assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    assert_eq!((out.told(), out.frames.len()), (Told::Failed(Code::Timeout), 1));
    // In the middle: nothing more is sent for it.
    let mut request = Request::begin(&within(50), span.as_bytes(), now()).unwrap();
    let mut out = Recording { room: 1, ..Recording::default() };
    assert!(matches!(request.run(&mut guest, &mut out), Step::Full));
    until("the deadline", || now() >= request.deadline());
    out.room = usize::MAX;
    assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    assert_eq!((out.told(), out.frames.len()), (Told::Failed(Code::Timeout), 2));
    // Nothing more is written for it either.
    let mut frames = write_frames(handle, 0, &[1; 200], 100);
    let (first, body) = frames.pop_front().unwrap();
    let mut request = Request::begin(&Header { deadline_or_code: 50, ..first }, &body, now()).unwrap();
    let mut out = Recording::default();
    assert!(matches!(request.run(&mut guest, &mut out), Step::Wants));
    until("the deadline", || now() >= request.deadline());
    request.feed(&frames[0].0, &frames[0].1).unwrap();
    assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
    assert_eq!(out.told(), Told::Failed(Code::Timeout));
    let expected = [[1; 100], [0; 100]].concat();
    assert_eq!(read(world, &mut guest, handle, 0, 200), Told::Bytes(expected));
    world.revoke(lease);
}

/// A neighbour maps what a remote session reads and writes, and loses it: the segment is copied to a fresh file meanwhile.
pub(crate) fn a_rotation_is_waited_for(world: &World) {
    let lease = world.lease(64 << 20, 64 << 20, LONG);
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    let (mut met, mut rounds) = (0, 0);
    while met == 0 {
        rounds += 1;
        assert!(rounds < 100, "no rotation was ever met");
        let grant = world.grant();
        let token = world.token(lease, Some(grant), 0..lease.bytes, LONG);
        let verified = world.provider.verify(&token).unwrap();
        let opener = provider::runtime::Opener {
            origin: provider::runtime::Origin::Process { uid: 12_345, pid: 2, exe: None, sandboxed: false },
            ..world.opener()
        };
        let quota = policy::Quota::UNLIMITED;
        let opened =
            world.provider.open(&opener, &token, &verified, Rights::READ, Path::Mapped, &quota, true);
        let opened = world.wait(opened).unwrap();
        assert!(opened.descriptor.is_some());
        let expires = verified.terms().expires;
        let provider = world.provider.clone();
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let taking = world.spawn(async move {
            let take = Take::Grant { lease: lease.id, grant, expires };
            let taken = provider.take(take, EndCause::Revoked).await;
            told.store(true, Ordering::SeqCst);
            taken
        });
        let mut round = 0_u64;
        while !over.load(Ordering::SeqCst) {
            round += 1;
            let bytes = round.to_le_bytes();
            let (first, body) = write_frames(handle, 8, &bytes, 8).pop_front().unwrap();
            let mut request = Request::begin(&first, &body, world.provider.clock().boot()).unwrap();
            let mut out = Recording::default();
            loop {
                match request.run(&mut guest, &mut out) {
                    Step::Rotating(rotating) => {
                        met += 1;
                        world.wait(rotating.over());
                    }
                    Step::Done => break,
                    _ => {}
                }
            }
            assert_eq!(out.told(), Told::Written(8));
            assert_eq!(read(world, &mut guest, handle, 8, 8), Told::Bytes(bytes.to_vec()));
        }
        world.wait(taking).unwrap().unwrap();
    }
    world.revoke(lease);
}

pub(crate) fn a_revoke_stops_a_long_read_within_a_chunk(world: &World) {
    /// Says how many frames with bytes there were.
    struct Watched<'a>(&'a AtomicUsize, Option<Code>);
    impl Sink for Watched<'_> {
        fn has_room(&self) -> bool {
            true
        }
        fn frame(&mut self, header: Header, _: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
            match caps::wire::remote::body::code_of(header.deadline_or_code).unwrap() {
                Some(code) => self.1 = Some(code),
                None => {
                    assert_eq!(rights.len(), 1);
                    self.0.fetch_add(1, Ordering::SeqCst);
                }
            }
            Ok(())
        }
    }
    for _ in 0..20 {
        let lease = world.lease(1 << 20, 1 << 20, LONG);
        let mut guest = world.anybody();
        let handle = open(world, &mut guest, &world.whole(lease), Rights::READ);
        let (frames, acknowledged) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut out = Watched(&frames, None);
                while out.1.is_none() {
                    let span = Span::new(handle, 0, 1 << 30);
                    let asked = header(Verb::Read, false, 0, span.as_bytes());
                    let now = world.provider.clock().boot();
                    let mut request = Request::begin(&asked, span.as_bytes(), now).unwrap();
                    while !matches!(request.run(&mut guest, &mut out), Step::Done) {}
                    assert!(!acknowledged.load(Ordering::SeqCst) || out.1.is_some());
                }
                out.1
            });
            until("some frames", || frames.load(Ordering::SeqCst) > 20);
            world.revoke(lease);
            let told = frames.load(Ordering::SeqCst);
            acknowledged.store(true, Ordering::SeqCst);
            assert_eq!(reader.join().unwrap(), Some(Code::Revoked));
            assert_eq!(frames.load(Ordering::SeqCst), told, "a frame left after the acknowledgement");
        });
    }
}

/// How long a small read takes without its encryption: `cargo test -p provider --test remote -- --measure`.
pub(crate) fn measure(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, &world.whole(lease), Rights::READ_WRITE);
    for bytes in [64_u64, 512, 4_096, CHUNK] {
        let span = Span::new(handle, 0, bytes);
        let asked = header(Verb::Read, false, 0, span.as_bytes());
        let mut out = Counting::default();
        let rounds = 200_000;
        let mut best = u128::MAX;
        for _ in 0..5 {
            let began = Instant::now();
            for _ in 0..rounds / 5 {
                let now = world.provider.clock().boot();
                let mut request = Request::begin(&asked, span.as_bytes(), now).unwrap();
                assert!(matches!(request.run(&mut guest, &mut out), Step::Done));
            }
            best = best.min(began.elapsed().as_nanos() / (rounds / 5));
        }
        println!("read of {bytes:>6} bytes: {best} ns");
    }
    let items: Vec<_> = (0..64).map(|at| (handle, at * 512, 64)).collect();
    let (asked, body) = crate::line::gather_frame(&items);
    let began = Instant::now();
    let rounds = 5_000;
    for _ in 0..rounds {
        let now = world.provider.clock().boot();
        let mut request = Request::begin(&asked, &body, now).unwrap();
        assert!(matches!(request.run(&mut guest, &mut Counting::default()), Step::Done));
    }
    println!("gather of 64 items of 64 bytes: {} ns", began.elapsed().as_nanos() / rounds);
    world.revoke(lease);
}
