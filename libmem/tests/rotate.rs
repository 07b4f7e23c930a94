//! Rotation as a survivor sees it: the file behind its mapping is replaced again and again, and no access notices.

mod common;
mod node;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::SlotHandle;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::channel::{Message, SegmentAccess};
use caps::wire::reply::Opened;
use caps::wire::{Reply, Request};
use common::{cut, died_by_sigbus, in_child};
use libmem::{Client, Region, SigningKey};
use node::{Channel, HANDLE, Node, Peer, opened, token};
use rustix::fs::MemfdFlags;

/// Bytes of a segment in these tests.
const SEGMENT: u64 = 1 << 20;

/// A region at the node: its segments' files.
struct Memory {
    files: Vec<OwnedFd>,
}

/// A segment of zeros whose pages are all there, as the provider populates them. Of a hole a pipe holds the kernel's
/// zero page, and what is written between that and the cut would be lost.
fn file(bytes: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("segment", MemfdFlags::CLOEXEC).unwrap();
    let zeros = vec![0; bytes as usize];
    assert_eq!(rustix::io::pwrite(&file, &zeros, 0).unwrap(), zeros.len());
    file
}

impl Memory {
    fn new(segments: usize) -> Self {
        Self { files: (0..segments).map(|_| file(SEGMENT)).collect() }
    }

    /// Cuts one segment as the provider does: the bytes are kept by a mapping of the pages made before the cut, the
    /// file loses them. Returns the fresh file.
    fn cut_and_copy(&mut self, index: usize) {
        let old = &self.files[index];
        let fresh = file(SEGMENT);
        pinned_copy(old, &fresh);
        self.files[index] = fresh;
    }

    fn rotate(&mut self, channel: &Channel, handle: SlotHandle, index: usize, access: SegmentAccess) {
        self.cut_and_copy(index);
        let message = Message::Segment { handle, index: index as u32, access };
        channel.tell(message, &[self.files[index].as_fd()]);
    }
}

/// Cuts `old` and copies what its pages held at that moment into `fresh`: the pages are held by a pipe, as the provider
/// holds them by its pin.
fn pinned_copy(old: &OwnedFd, fresh: &OwnedFd) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    // A pipe holds as many pages as its size says.
    // SAFETY: takes numbers.
    let size = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, SEGMENT as libc::c_int) };
    assert!(size as u64 >= SEGMENT, "{size}");
    let mut held = 0;
    while held < SEGMENT {
        let mut at = held as libc::loff_t;
        // SAFETY: open descriptors, and an offset to write to.
        let moved = unsafe {
            libc::splice(
                old.as_raw_fd(),
                &raw mut at,
                write.as_raw_fd(),
                std::ptr::null_mut(),
                (SEGMENT - held) as usize,
                0,
            )
        };
        assert!(moved > 0, "{}", std::io::Error::last_os_error());
        held += moved as u64;
    }
    cut(old);
    let mut bytes = vec![0; SEGMENT as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::io::read(&read, &mut bytes[filled..]).unwrap();
    }
    rustix::io::pwrite(fresh, &bytes, 0).unwrap();
}

/// Serves one mapped open of all segments, and waits until it is ready.
fn serve(peer: &mut Peer, memory: &Memory, handle: SlotHandle, rights: Rights) {
    serve_part(peer, memory, handle, rights, 0..memory.files.len());
}

fn serve_part(
    peer: &mut Peer,
    memory: &Memory,
    handle: SlotHandle,
    rights: Rights,
    part: std::ops::Range<usize>,
) {
    let (id, request) = peer.next_open();
    assert!(matches!(request, Request::Open { .. }), "{request:?}");
    let range = ByteRange::new(part.start as u64 * SEGMENT, part.end as u64 * SEGMENT).unwrap();
    let region_bytes = memory.files.len() as u64 * SEGMENT;
    let right = Opened { handle, rights, range, region_bytes, segment_bytes: SEGMENT, ..opened(true) };
    peer.reply_with(id, &Reply::Opened(right), &[memory.files[part.start].as_fd()]);
    for index in part.skip(1) {
        let (id, request) = peer.next();
        assert_eq!(request, Request::Segment { handle, index: index as u32 });
        peer.reply_with(id, &Reply::Segment { index: index as u32 }, &[memory.files[index].as_fd()]);
    }
    assert_eq!(peer.channel.as_ref().unwrap().try_next(), Some(Message::Ready { handle }));
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[6; 32])
}

/// Runs `script` at the node once the mapping is ready, and `client` with the region. The node stays until the client
/// is done.
fn with_region(
    segments: usize,
    wait: Duration,
    script: impl FnOnce(&mut Peer, Memory) + Send + 'static,
    client: impl FnOnce(&Client, Region),
) {
    let node = Node::with(move |peer| {
        let memory = Memory::new(segments);
        serve(peer, &memory, HANDLE, Rights::READ_WRITE);
        script(peer, memory);
        peer.drain();
    });
    let session = Client::connect(&node.endpoint().rotation_wait(wait), &key()).unwrap();
    let region = session.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    client(&session, region);
    drop(session);
    node.finish();
}

const LONG: Duration = Duration::from_secs(30);
const RW: SegmentAccess = SegmentAccess::ReadWrite;

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_lost_or_torn_under_threads() {
    const ROTATIONS: usize = 2_000;
    let done: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let script = move |peer: &mut Peer, mut memory: Memory| {
        let channel = peer.channel.as_ref().unwrap();
        for turn in 0..ROTATIONS {
            memory.rotate(channel, HANDLE, turn % 2, RW);
        }
        done.store(true, Ordering::Release);
    };
    with_region(2, LONG, script, |_, region| {
        let added = AtomicU64::new(0);
        std::thread::scope(|scope| {
            // Three that count in the same two words, guarded, one in each segment.
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        region.fetch_add_u64(0, 1).unwrap();
                        region.fetch_add_u64(SEGMENT + 65_536, 1).unwrap();
                        added.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // One with raw words of its own: it reads what it wrote last, always.
            scope.spawn(|| {
                let view = region.mapping().volatile();
                let mut value = 0;
                while !done.load(Ordering::Acquire) {
                    for at in [4096, SEGMENT as usize + 131_072] {
                        assert_eq!(view.load_u64(at).unwrap(), value);
                        view.store_u64(at, value + 1).unwrap();
                    }
                    value += 1;
                }
            });
            // One with a MiB of its own, across the border of the segments.
            scope.spawn(|| {
                let (start, length) = (8192, SEGMENT as usize);
                let (mut bytes, mut back) = (vec![0; length], vec![0; length]);
                let mut turn = 0u8;
                while !done.load(Ordering::Acquire) {
                    turn = turn.wrapping_add(1);
                    bytes.fill(turn);
                    region.write_at(start, &bytes).unwrap();
                    region.read_at(start, &mut back).unwrap();
                    assert!(bytes == back, "turn {turn}");
                }
            });
        });
        let added = added.into_inner();
        assert!(added > 0);
        assert_eq!(region.load_u64(0).unwrap(), added);
        assert_eq!(region.load_u64(SEGMENT + 65_536).unwrap(), added);
    });
}

#[test]
fn a_process_in_which_nobody_touches_the_memory_follows() {
    let (rotated, was_rotated) = mpsc::channel::<()>();
    let script = move |peer: &mut Peer, mut memory: Memory| {
        // `tell` returns only once the client answered.
        for _ in 0..10 {
            memory.rotate(peer.channel.as_ref().unwrap(), HANDLE, 0, RW);
        }
        rustix::io::pwrite(&memory.files[0], b"fresh", 8).unwrap();
        rotated.send(()).unwrap();
    };
    with_region(1, LONG, script, |_, region| {
        was_rotated.recv().unwrap();
        let mut bytes = [0; 5];
        region.read_at(8, &mut bytes).unwrap();
        assert_eq!(&bytes, b"fresh");
    });
}

#[test]
fn a_withdrawn_segment_is_lost_alone() {
    let (told, was_told) = mpsc::channel::<()>();
    let script = move |peer: &mut Peer, mut memory: Memory| {
        let channel = peer.channel.as_ref().unwrap();
        cut(&memory.files[1]);
        channel.tell(Message::Withdrawn { handle: HANDLE, index: 1 }, &[]);
        // It stays away, whatever comes later.
        memory.files[1] = file(SEGMENT);
        channel.tell(Message::Segment { handle: HANDLE, index: 1, access: RW }, &[memory.files[1].as_fd()]);
        told.send(()).unwrap();
    };
    with_region(3, LONG, script, |_, region| {
        was_told.recv().unwrap();
        for _ in 0..2 {
            assert_eq!(region.load_u64(SEGMENT).unwrap_err().code(), Code::Revoked);
            assert_eq!(region.write_at(SEGMENT - 1, &[1; 2]).unwrap_err().code(), Code::Revoked);
            region.store_u64(0, 1).unwrap();
            region.write_at(SEGMENT - 8, &[1; 8]).unwrap();
            region.store_u64(2 * SEGMENT, 1).unwrap();
        }
        assert!(!region.mapping().revocation().is_revoked());
    });
}

#[test]
fn waiting_accesses_learn_that_the_segment_was_withdrawn_or_the_right_ended_or_the_node_died() {
    for end in 0..3 {
        let (waits, is_waiting) = mpsc::channel::<()>();
        let (cutting, was_cut) = mpsc::channel::<()>();
        let script = move |peer: &mut Peer, memory: Memory| {
            cut(&memory.files[0]);
            cutting.send(()).unwrap();
            is_waiting.recv().unwrap();
            match end {
                0 => {
                    peer.channel.as_ref().unwrap().tell(Message::Withdrawn { handle: HANDLE, index: 0 }, &[])
                }
                1 => peer.channel.as_ref().unwrap().tell(Message::Ended { handle: HANDLE }, &[]),
                _ => peer.channel = None,
            }
        };
        with_region(2, LONG, script, |_, region| {
            was_cut.recv().unwrap();
            waits.send(()).unwrap();
            let start = Instant::now();
            assert_eq!(region.load_u64(0).unwrap_err().code(), Code::Revoked, "{end}");
            assert!(start.elapsed() < LONG / 2);
            let other = region.load_u64(SEGMENT);
            assert_eq!(other.is_ok(), end == 0, "{end}");
        });
    }
}

#[test]
fn a_segment_that_becomes_read_only_refuses_writes_and_ends_none() {
    let writing: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let script = move |peer: &mut Peer, mut memory: Memory| {
        until(|| writing.load(Ordering::Acquire));
        memory.rotate(peer.channel.as_ref().unwrap(), HANDLE, 0, SegmentAccess::Read);
    };
    with_region(2, LONG, script, |_, region| {
        std::thread::scope(|scope| {
            for way in 0..3 {
                let region = &region;
                scope.spawn(move || {
                    let bytes = vec![7; SEGMENT as usize / 2];
                    let error = loop {
                        let result = match way {
                            0 => region.write_at(4096, &bytes),
                            1 => region.fetch_add_u64(0, 1).map(drop),
                            _ => region.store_u64(8, 7),
                        };
                        writing.store(true, Ordering::Release);
                        if let Err(error) = result {
                            break error;
                        }
                    };
                    assert_eq!(error.code(), Code::Denied, "{way}");
                });
            }
        });
        region.load_u64(0).unwrap();
        region.store_u64(SEGMENT, 1).unwrap();
    });
}

#[test]
fn a_node_that_never_answers_is_waited_for_no_longer_than_said() {
    let wait = Duration::from_millis(200);
    let (cutting, was_cut) = mpsc::channel::<()>();
    let script = move |_: &mut Peer, memory: Memory| {
        cut(&memory.files[0]);
        cutting.send(()).unwrap();
    };
    with_region(1, wait, script, |_, region| {
        was_cut.recv().unwrap();
        let start = Instant::now();
        assert_eq!(region.load_u64(0).unwrap_err().code(), Code::Revoked);
        assert!(start.elapsed() >= wait);
        assert!(region.mapping().revocation().is_revoked());
    });
}

#[test]
fn raw_access_to_memory_that_does_not_come_back_dies() {
    let status = in_child("raw_access_to_memory_that_does_not_come_back_dies", || {
        let script = |peer: &mut Peer, memory: Memory| {
            cut(&memory.files[0]);
            peer.channel.as_ref().unwrap().tell(Message::Ended { handle: HANDLE }, &[]);
        };
        with_region(1, LONG, script, |_, region| {
            until(|| region.mapping().revocation().is_revoked());
            let _ = region.mapping().volatile().load_u8(0);
        });
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn a_raw_write_to_a_segment_that_became_read_only_dies_and_a_raw_read_does_not() {
    let status =
        in_child("a_raw_write_to_a_segment_that_became_read_only_dies_and_a_raw_read_does_not", || {
            let (told, was_told) = mpsc::channel::<()>();
            let script = move |peer: &mut Peer, mut memory: Memory| {
                let channel = peer.channel.as_ref().unwrap();
                memory.rotate(channel, HANDLE, 0, SegmentAccess::Read);
                // Once narrowed, it stays so.
                memory.rotate(channel, HANDLE, 0, RW);
                told.send(()).unwrap();
            };
            with_region(1, LONG, script, |_, region| {
                was_told.recv().unwrap();
                assert_eq!(region.mapping().volatile().load_u8(0).unwrap(), 0);
                let _ = region.mapping().volatile().store_u8(0, 1);
            });
        });
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
}

#[test]
fn what_a_lying_node_sends_is_never_mapped() {
    let open = |path: &str| -> OwnedFd { std::fs::File::options().read(true).open(path).unwrap().into() };
    let lies: Vec<(&str, Vec<OwnedFd>)> = vec![
        ("too short", vec![file(SEGMENT - 4096)]),
        ("too long", vec![file(SEGMENT + 4096)]),
        ("device", vec![open("/dev/zero")]),
        ("pipe", vec![rustix::pipe::pipe().unwrap().0]),
        ("none", vec![]),
        ("two", vec![file(SEGMENT), file(SEGMENT)]),
    ];
    for (what, files) in lies {
        let (told, was_told) = mpsc::channel::<()>();
        let script = move |peer: &mut Peer, memory: Memory| {
            cut(&memory.files[0]);
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let message = Message::Segment { handle: HANDLE, index: 0, access: RW };
            peer.channel.as_ref().unwrap().tell(message, &files);
            // Rights and segments that are not there change nothing.
            let good = file(SEGMENT);
            for (handle, index) in [(HANDLE, 2), (HANDLE, u32::MAX), (SlotHandle { slot: 9, epoch: 9 }, 1)] {
                let message = Message::Segment { handle, index, access: RW };
                peer.channel.as_ref().unwrap().tell(message, &[good.as_fd()]);
            }
            told.send(()).unwrap();
        };
        with_region(2, LONG, script, |_, region| {
            was_told.recv().unwrap();
            assert_eq!(region.load_u64(0).unwrap_err().code(), Code::Revoked, "{what}");
            region.store_u64(SEGMENT, 1).unwrap();
        });
    }
}

#[test]
fn packets_that_break_the_channels_rules_end_the_session() {
    let ready = Message::Ready { handle: HANDLE }.encode();
    for packet in [vec![1; 15], vec![0; 16], vec![4; 17], ready.to_vec()] {
        let script = move |peer: &mut Peer, _memory: Memory| peer.channel.as_ref().unwrap().bytes(&packet);
        with_region(1, LONG, script, |_, region| {
            until(|| region.mapping().revocation().is_revoked());
            assert_eq!(region.load_u64(0).unwrap_err().code(), Code::Revoked);
        });
    }
}

#[test]
fn a_segment_that_was_cut_before_it_was_mapped_comes_after_ready() {
    let node = Node::with(|peer| {
        let mut memory = Memory::new(1);
        rustix::io::pwrite(&memory.files[0], b"kept", 0).unwrap();
        let (id, _) = peer.next_open();
        let range = ByteRange::new(0, SEGMENT).unwrap();
        let right = Opened { range, region_bytes: SEGMENT, segment_bytes: SEGMENT, ..opened(true) };
        let first = memory.files[0].try_clone().unwrap();
        memory.cut_and_copy(0);
        peer.reply_with(id, &Reply::Opened(right), &[first.as_fd()]);
        let channel = peer.channel.as_ref().unwrap();
        assert_eq!(channel.try_next(), Some(Message::Ready { handle: HANDLE }));
        let message = Message::Segment { handle: HANDLE, index: 0, access: RW };
        channel.tell(message, &[memory.files[0].as_fd()]);
        peer.drain();
    });
    let client = Client::connect(&node.endpoint(), &key()).unwrap();
    let region = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    let mut bytes = [0; 4];
    region.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    drop((region, client));
    node.finish();
}

#[test]
fn several_mappings_of_a_session_rotate_each_for_itself_and_offsets_count_from_the_region() {
    let (told, was_told) = mpsc::channel::<()>();
    let second = SlotHandle { slot: 2, epoch: 7 };
    let node = Node::with(move |peer| {
        let (mut one, mut two) = (Memory::new(1), Memory::new(4));
        serve(peer, &one, HANDLE, Rights::READ_WRITE);
        serve_part(peer, &two, second, Rights::READ_WRITE, 1..3);
        let channel = peer.channel.as_ref().unwrap();
        for turn in 0..20 {
            one.rotate(channel, HANDLE, 0, RW);
            two.rotate(channel, second, 1 + turn % 2, RW);
        }
        rustix::io::pwrite(&one.files[0], &[1], 0).unwrap();
        rustix::io::pwrite(&two.files[1], &[2], 0).unwrap();
        rustix::io::pwrite(&two.files[2], &[3], 0).unwrap();
        told.send(()).unwrap();
        peer.drain();
    });
    let client = Client::connect(&node.endpoint(), &key()).unwrap();
    let one = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    let two = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    was_told.recv().unwrap();
    assert_eq!((one.base(), two.base()), (0, SEGMENT));
    assert_eq!((one.load_u64(0).unwrap(), two.load_u64(SEGMENT).unwrap()), (1, 2));
    assert_eq!(two.load_u64(2 * SEGMENT).unwrap(), 3);
    for outside in [0, SEGMENT - 8, 3 * SEGMENT] {
        assert_eq!(two.load_u64(outside).unwrap_err().code(), Code::Range);
    }
    drop((one, two, client));
    node.finish();
}

#[test]
fn the_asynchronous_client_maps_segments_and_survives_too() {
    let node = Node::with(|peer| {
        let mut memory = Memory::new(3);
        rustix::io::pwrite(&memory.files[2], &[9], 0).unwrap();
        serve(peer, &memory, HANDLE, Rights::READ_WRITE);
        for index in 0..3 {
            memory.rotate(peer.channel.as_ref().unwrap(), HANDLE, index, RW);
        }
        // A second mapping of the session gets no second channel.
        let again = SlotHandle { slot: 5, epoch: 5 };
        let (id, request) = peer.next();
        assert!(matches!(request, Request::Open { .. }), "{request:?}");
        let range = ByteRange::new(0, SEGMENT).unwrap();
        let right =
            Opened { handle: again, range, region_bytes: SEGMENT, segment_bytes: SEGMENT, ..opened(true) };
        peer.reply_with(id, &Reply::Opened(right), &[memory.files[0].as_fd()]);
        let ready = peer.channel.as_ref().unwrap().try_next();
        assert_eq!(ready, Some(Message::Ready { handle: again }));
        peer.drain();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = libmem::aio::Client::connect(&node.endpoint(), &key()).await.unwrap();
        let region = client.open_mapped(&token(), Rights::READ_WRITE).await.unwrap();
        assert_eq!(region.mapping().len() as u64, 3 * SEGMENT);
        region.write_at(SEGMENT - 2, &[1, 2, 3, 4]).unwrap();
        assert_eq!(region.load_u64(2 * SEGMENT).unwrap(), 9);
        let _again = client.open_mapped(&token(), Rights::READ_WRITE).await.unwrap();
        let mut bytes = [0; 4];
        region.read_at(SEGMENT - 2, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
    });
    node.finish();
}

#[test]
fn a_right_that_does_not_fall_on_segments_is_not_mapped() {
    let node = Node::with(|peer| {
        let memory = Memory::new(2);
        let (id, _) = peer.next_open();
        let range = ByteRange::new(4096, SEGMENT).unwrap();
        let right = Opened { range, region_bytes: 2 * SEGMENT, segment_bytes: SEGMENT, ..opened(true) };
        peer.reply_with(id, &Reply::Opened(right), &[memory.files[0].as_fd()]);
        peer.drain();
    });
    let client = Client::connect(&node.endpoint(), &key()).unwrap();
    assert_eq!(client.open_mapped(&token(), Rights::READ).unwrap_err().code(), Code::Protocol);
    drop(client);
    node.finish();
}

#[test]
fn mappings_come_and_go_while_their_segments_are_replaced() {
    const ROUNDS: u32 = 300;
    let (done, was_done) = mpsc::channel::<()>();
    let node = Node::with(move |peer| {
        let mut memories = HashMap::new();
        for slot in 0..ROUNDS {
            let handle = SlotHandle { slot, epoch: 0 };
            let mut memory = Memory::new(1);
            let (id, request) = loop {
                let (id, request) = peer.next_open();
                match request {
                    Request::Close { .. } => peer.reply(id, &Reply::Done),
                    other => break (id, other),
                }
            };
            assert!(matches!(request, Request::Open { .. }), "{request:?}");
            let range = ByteRange::new(0, SEGMENT).unwrap();
            let right =
                Opened { handle, range, region_bytes: SEGMENT, segment_bytes: SEGMENT, ..opened(true) };
            peer.reply_with(id, &Reply::Opened(right), &[memory.files[0].as_fd()]);
            let channel = peer.channel.as_ref().unwrap();
            assert_eq!(channel.try_next(), Some(Message::Ready { handle }));
            // Meanwhile the client drops it.
            for _ in 0..3 {
                memory.rotate(channel, handle, 0, RW);
            }
            memories.insert(slot, memory);
            if memories.len() > 4 {
                memories.clear();
            }
        }
        done.send(()).unwrap();
        peer.drain();
    });
    let client = Client::connect(&node.endpoint(), &key()).unwrap();
    for round in 0..ROUNDS {
        let region = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
        if round % 2 == 0 {
            region.store_u64(0, 1).unwrap();
        }
        let addresses = (region.mapping().as_ptr() as usize, region.mapping().len());
        drop(region);
        // What is there now is somebody else's, or nothing: no segment.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", addresses.0);
        let ours = maps.lines().find(|line| line.starts_with(&start) && line.contains("memfd:segment"));
        assert_eq!(ours, None, "round {round}");
    }
    was_done.recv().unwrap(); // the channel lives as long as the client
    drop(client);
    node.finish();
}

#[test]
fn a_forked_child_is_no_survivor_and_leaves_the_channel_to_its_parent() {
    let (go, went) = mpsc::channel::<()>();
    let (done, was_done) = mpsc::channel::<()>();
    let script = move |peer: &mut Peer, mut memory: Memory| {
        cut(&memory.files[0]);
        go.send(()).unwrap();
        // The child looks at the cut memory now; what comes after it is its parent's.
        was_done.recv().unwrap();
        memory.files[0] = file(SEGMENT);
        rustix::io::pwrite(&memory.files[0], &[5], 0).unwrap();
        let message = Message::Segment { handle: HANDLE, index: 0, access: RW };
        peer.channel.as_ref().unwrap().tell(message, &[memory.files[0].as_fd()]);
    };
    with_region(1, LONG, script, |_, region| {
        went.recv().unwrap();
        // SAFETY: the child calls only what is safe after a fork of a process with threads: no allocation, no lock.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let lost = region.load_u64(0).is_err_and(|error| error.code() == Code::Revoked);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!lost)) };
        }
        let (start, mut status) = (Instant::now(), 0);
        // SAFETY: `status` is writable, and the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(start.elapsed() < LONG / 2, "the child waited for a segment");
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        done.send(()).unwrap();
        assert_eq!(region.load_u64(0).unwrap(), 5);
    });
}
