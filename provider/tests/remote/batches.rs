//! GATHER and SCATTER.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::error::Code;
use caps::id::{GrantId, SlotHandle};
use caps::limits::{CHUNK_BYTES_MAX, REMOTE_BATCH_ITEMS_MAX};
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::wire::link::Take;
use caps::wire::remote::{Answer, Header};
use caps::wire::request::Path;
use caps::wire::row::EndCause;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use provider::gate::remote::trial::{Guest, Request, Step};
use provider::runtime::{Opener, Origin};

use crate::line::{Recording, Told, ask, ask_all, gather_frame, pattern, scatter_frame, write_frames};
use crate::world::{LONG, Lease, World};

const NOBODYS: SlotHandle = SlotHandle { slot: 0, epoch: 0 };

fn open(world: &World, guest: &mut Guest, lease: Lease) -> SlotHandle {
    world.wait(guest.open(&world.whole(lease), Rights::READ_WRITE)).unwrap().handle
}

fn gather(world: &World, guest: &mut Guest, items: &[(SlotHandle, u64, u64)]) -> Recording {
    ask_all(world, guest, VecDeque::from([gather_frame(items)]))
}

pub(crate) fn items_fail_one_by_one(world: &World) {
    let (one, other) = (world.small(), world.small());
    let mut guest = world.anybody();
    let (a, b) = (open(world, &mut guest, one), open(world, &mut guest, other));
    let part = world.token(one, None, 0..4_096, LONG);
    let part = world.wait(guest.open(&part, Rights::READ)).unwrap().handle;
    let end = one.bytes;
    let (asked, body) = scatter_frame(
        false,
        &[
            (a, 0, b"first"),
            (NOBODYS, 0, b"lost"),
            (part, 0, b"no"),
            (b, end - 2, b"cut"),
            (a, end + 1, b"x"),
            (b, 9, b"last"),
            (a, 5, b""),
        ],
    );
    let none = Vec::new;
    assert_eq!(
        ask(world, &mut guest, &asked, &body),
        Told::Items(vec![
            (none(), 5, None),
            (none(), 0, Some(Code::Revoked)),
            (none(), 0, Some(Code::Denied)),
            (none(), 2, None),
            (none(), 0, Some(Code::Range)),
            (none(), 4, None),
            (none(), 0, None),
        ])
    );
    let items = [
        (a, 0, 5),
        (NOBODYS, 0, 1),
        (part, 4_095, 2),
        (b, end - 2, 9),
        (a, end + 1, 0),
        (b, 9, 4),
        (a, 7, 0),
    ];
    let expected = || {
        Told::Items(vec![
            (b"first".to_vec(), 5, None),
            (none(), 0, Some(Code::Revoked)),
            (none(), 0, Some(Code::Denied)),
            (b"cu".to_vec(), 2, None),
            (none(), 0, Some(Code::Range)),
            (b"last".to_vec(), 4, None),
            (none(), 0, None),
        ])
    };
    assert_eq!(gather(world, &mut guest, &items).told(), expected());
    world.revoke(one);
    let told = gather(world, &mut guest, &[(a, 0, 5), (b, 9, 4)]).told();
    let expected = vec![(none(), 0, Some(Code::Revoked)), (b"last".to_vec(), 4, None)];
    assert_eq!(told, Told::Items(expected), "the others go on");
    world.revoke(other);
}

pub(crate) fn an_item_may_need_many_frames(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, lease);
    let bytes = pattern(lease.bytes as usize, 5);
    crate::line::write(world, &mut guest, handle, 0, &bytes, CHUNK_BYTES_MAX);
    let items =
        [(handle, 0, 10), (handle, 1, 100_000), (handle, 3, 0), (NOBODYS, 0, 1), (handle, 50_000, 1 << 30)];
    let out = gather(world, &mut guest, &items);
    let (long, rest) = (bytes[1..100_001].to_vec(), bytes[50_000..].to_vec());
    let (long_bytes, rest_bytes) = (long.len() as u64, rest.len() as u64);
    assert_eq!(
        out.told(),
        Told::Items(vec![
            (bytes[..10].to_vec(), 10, None),
            (long, long_bytes, None),
            (Vec::new(), 0, None),
            (Vec::new(), 0, Some(Code::Revoked)),
            (rest, rest_bytes, None),
        ])
    );
    let sum = 10 + long_bytes + rest_bytes;
    assert_eq!(out.frames.len() as u64, sum.div_ceil(CHUNK_BYTES_MAX as u64), "frames are full but the last");
    // Frame by frame, as there is room.
    let (asked, body) = gather_frame(&items);
    let mut request = Request::begin(&asked, &body, world.provider.clock().boot()).unwrap();
    let mut slow = Recording { room: 0, ..Recording::default() };
    while let Step::Full = request.run(&mut guest, &mut slow) {
        slow.room = 1;
    }
    assert_eq!(slow.frames, out.frames);
    world.revoke(lease);
}

pub(crate) fn a_scatter_may_come_in_many_frames(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, lease);
    let chunk = pattern(CHUNK_BYTES_MAX, 6);
    let frames = VecDeque::from([
        scatter_frame(true, &[(handle, 0, &chunk)]),
        scatter_frame(true, &[(NOBODYS, 0, b"x"), (handle, 70_000, b"yy")]),
        scatter_frame(false, &[(handle, lease.bytes - 1, b"zz")]),
    ]);
    let out = ask_all(world, &mut guest, frames);
    let written = [(65_536, None), (0, Some(Code::Revoked)), (2, None), (1, None)];
    let expected = written.into_iter().map(|(written, code)| (Vec::new(), written, code)).collect();
    assert_eq!((out.told(), out.frames.len()), (Told::Items(expected), 1));
    let told = gather(world, &mut guest, &[(handle, 70_000, 2), (handle, 65_535, 1)]).told();
    assert_eq!(told, Told::Items(vec![(b"yy".to_vec(), 2, None), (vec![chunk[65_535]], 1, None)]));
    world.revoke(lease);
}

pub(crate) fn a_batch_is_bounded_over_all_its_frames(world: &World) {
    let lease = world.small();
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, lease);
    let many = vec![(handle, 0, &b"x"[..]); REMOTE_BATCH_ITEMS_MAX];
    let frames = VecDeque::from([scatter_frame(true, &many[1..]), scatter_frame(false, &many[..1])]);
    let expected = vec![(Vec::new(), 1, None); REMOTE_BATCH_ITEMS_MAX];
    assert_eq!(ask_all(world, &mut guest, frames).told(), Told::Items(expected));
    let frames = VecDeque::from([
        scatter_frame(true, &many),
        scatter_frame(true, &[(handle, 5, b"beyond")]),
        scatter_frame(false, &[(handle, 5, b"beyond")]),
    ]);
    assert_eq!(ask_all(world, &mut guest, frames).told(), Told::Failed(Code::Range));
    let told = gather(world, &mut guest, &[(handle, 5, 6)]).told();
    assert_eq!(told, Told::Items(vec![(vec![0; 6], 6, None)]), "nothing beyond the bound was written");
    world.revoke(lease);
}

/// Of which region, from where, how much; the salt of its bytes.
type Item = (usize, u64, u64, u64);

/// Random scatters and gathers against vectors.
pub(crate) fn random_batches_do_what_vectors_do(world: &World) {
    // Regions of one and of several segments.
    let leases = [world.lease(1 << 16, 1 << 16, LONG), world.lease(5 << 16, 2 << 16, LONG), world.small()];
    let mut guest = world.anybody();
    let handles: Vec<_> = leases.iter().map(|lease| open(world, &mut guest, *lease)).collect();
    let mut model: Vec<Vec<u8>> = leases.iter().map(|lease| vec![0; lease.bytes as usize]).collect();
    let offset = prop_oneof![0..400_000_u64, Just(1 << 16), Just(u64::MAX), 65_000..66_000_u64];
    let length = prop_oneof![0..300_u64, 0..9_000_u64];
    let items = proptest::collection::vec((0..4_usize, offset, length, any::<u64>()), 1..40);
    let rounds = proptest::collection::vec((any::<bool>(), items), 1..12);
    let (guest, model) = (std::cell::RefCell::new(&mut guest), std::cell::RefCell::new(&mut model));
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&rounds, |rounds| {
        let (mut guest, mut model) = (guest.borrow_mut(), model.borrow_mut());
        for (writes, items) in rounds {
            let told = if writes {
                let bytes: Vec<_> = items.iter().map(|item| pattern(item.2 as usize, item.3)).collect();
                ask_all(world, &mut guest, scatters(&handles, &items, &bytes)).told()
            } else {
                // Now and then an item that is longer than everything.
                let long = |item: &Item| if item.3.is_multiple_of(7) { 1 << 29 } else { item.2 };
                let spans: Vec<_> =
                    items.iter().map(|item| (handle(&handles, item), item.1, long(item))).collect();
                let items: Vec<Item> =
                    items.iter().map(|item| (item.0, item.1, long(item), item.3)).collect();
                let told = gather(world, &mut guest, &spans).told();
                prop_assert_eq!(told, Told::Items(items.iter().map(|item| gathered(&model, item)).collect()));
                continue;
            };
            let expected = items.iter().map(|item| scattered(&mut model, item)).collect();
            prop_assert_eq!(told, Told::Items(expected));
        }
        Ok(())
    });
    outcome.unwrap();
    for lease in leases {
        world.revoke(lease);
    }
}

fn handle(handles: &[SlotHandle], item: &Item) -> SlotHandle {
    handles.get(item.0).copied().unwrap_or(NOBODYS)
}

/// A scatter in as few frames as it fits.
fn scatters(
    handles: &[SlotHandle],
    items: &[Item],
    bytes: &[Vec<u8>],
) -> VecDeque<(caps::wire::remote::Header, Vec<u8>)> {
    let mut groups: Vec<Vec<(SlotHandle, u64, &[u8])>> = vec![Vec::new()];
    let mut sum = 0;
    for (item, bytes) in items.iter().zip(bytes) {
        if sum + bytes.len() > CHUNK_BYTES_MAX {
            groups.push(Vec::new());
            sum = 0;
        }
        sum += bytes.len();
        groups.last_mut().unwrap().push((handle(handles, item), item.1, bytes));
    }
    let last = groups.len() - 1;
    groups.iter().enumerate().map(|(at, group)| scatter_frame(at < last, group)).collect()
}

/// The bytes that an item reaches, or why none.
fn reached(model: &[Vec<u8>], item: &Item) -> Result<std::ops::Range<usize>, Code> {
    let region = model.get(item.0).ok_or(Code::Revoked)?;
    let start = usize::try_from(item.1).ok().filter(|start| *start <= region.len()).ok_or(Code::Range)?;
    Ok(start..region.len().min(start + item.2 as usize))
}

fn scattered(model: &mut [Vec<u8>], item: &Item) -> (Vec<u8>, u64, Option<Code>) {
    match reached(model, item) {
        Err(code) => (Vec::new(), 0, Some(code)),
        Ok(range) => {
            let length = range.len();
            model[item.0][range].copy_from_slice(&pattern(item.2 as usize, item.3)[..length]);
            (Vec::new(), length as u64, None)
        }
    }
}

fn gathered(model: &[Vec<u8>], item: &Item) -> (Vec<u8>, u64, Option<Code>) {
    match reached(model, item) {
        Err(code) => (Vec::new(), 0, Some(code)),
        Ok(range) => (model[item.0][range.clone()].to_vec(), range.len() as u64, None),
    }
}

/// Calls `meet` with a rotation of a region's second segment, until it says that it met it. The lease has two segments of
/// 32 MiB; `meet` is given a right to all of it and the grant that it is by.
fn in_a_rotation(world: &World, mut meet: impl FnMut(&mut Guest, Lease, SlotHandle, GrantId) -> bool) {
    const SEGMENT: u64 = 32 << 20;
    let lease = world.lease(2 * SEGMENT, SEGMENT, LONG);
    for round in 0.. {
        assert!(round < 100, "no rotation was ever met");
        let mut guest = world.anybody();
        let own = world.grant();
        let token = world.token(lease, Some(own), 0..lease.bytes, LONG);
        let handle = world.wait(guest.open(&token, Rights::READ_WRITE)).unwrap().handle;
        // Somebody has the second segment mapped, and loses it.
        let other = world.grant();
        let token = world.token(lease, Some(other), SEGMENT..lease.bytes, LONG);
        let verified = world.provider.verify(&token).unwrap();
        let origin = Origin::Process { uid: 12_345, pid: 2, exe: None, sandboxed: false };
        let (opener, quota) = (Opener { origin, ..world.opener() }, policy::Quota::UNLIMITED);
        let opened =
            world.provider.open(&opener, &token, &verified, Rights::READ, Path::Mapped, &quota, true);
        assert!(world.wait(opened).unwrap().descriptor.is_some());
        let (provider, expires) = (world.provider.clone(), verified.terms().expires);
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let taking = world.spawn(async move {
            let take = Take::Grant { lease: lease.id, grant: other, expires };
            let taken = provider.take(take, EndCause::Revoked).await;
            told.store(true, Ordering::SeqCst);
            taken
        });
        let mut met = false;
        while !met && !over.load(Ordering::SeqCst) {
            met = meet(&mut guest, lease, handle, own);
        }
        world.wait(taking).unwrap().unwrap();
        if met {
            break;
        }
    }
    world.revoke(lease);
}

/// Runs a request of eight bytes on either side of a segment's beginning until it is answered, and ends its right once it
/// waits for a rotation. `None` if it met none.
fn cut_short(
    world: &World,
    guest: &mut Guest,
    (lease, grant): (Lease, GrantId),
    (header, body): &(Header, Vec<u8>),
) -> Option<Recording> {
    let mut request = Request::begin(header, body, world.provider.clock().boot()).unwrap();
    let (mut out, mut met) = (Recording::default(), false);
    loop {
        match request.run(guest, &mut out) {
            Step::Rotating(rotating) => {
                drop(rotating);
                if !std::mem::replace(&mut met, true) {
                    let expires = UnixMicros(world.now().0 + LONG.as_micros() as u64);
                    world.take(Take::Grant { lease: lease.id, grant, expires }, EndCause::Revoked);
                }
            }
            Step::Done => return met.then_some(out),
            _ => panic!("nothing else is waited for"),
        }
    }
}

pub(crate) fn a_part_that_was_written_is_told(world: &World) {
    let bytes = pattern(16, 3);
    in_a_rotation(world, |guest, lease, handle, grant| {
        let at = lease.bytes / 2 - 8;
        let scatter = scatter_frame(false, &[(handle, at, &bytes), (handle, 0, b"x")]);
        let Some(out) = cut_short(world, guest, (lease, grant), &scatter) else { return false };
        let expected = vec![(Vec::new(), 8, Some(Code::Revoked)), (Vec::new(), 0, Some(Code::Revoked))];
        assert_eq!(out.told(), Told::Items(expected));
        let mut owner = world.anybody();
        let handle = open(world, &mut owner, lease);
        let there = gather(world, &mut owner, &[(handle, at, 8)]).told();
        assert_eq!(there, Told::Items(vec![(bytes[..8].to_vec(), 8, None)]));
        true
    });
    in_a_rotation(world, |guest, lease, handle, grant| {
        let write = write_frames(handle, lease.bytes / 2 - 8, &bytes, 16).pop_front().unwrap();
        let Some(out) = cut_short(world, guest, (lease, grant), &write) else { return false };
        let (header, body) = out.frames.last().unwrap();
        let Answer::Failed(error) = Answer::decode(header, body).unwrap() else { panic!("{:?}", out.told()) };
        assert_eq!(error.code(), Code::Revoked);
        assert!(error.detail().contains("first 8 bytes"), "{error}");
        true
    });
}
