//! Group C: frames that are none, cut off, repeated, or too slow.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::{RequestId, SlotHandle};
use caps::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use caps::wire::remote::body::Span;
use caps::wire::remote::header::{BODY_BYTES_MAX, HEADER_BYTES, Header};
use caps::wire::remote::{Add, Answer, Flags, Verb};
use policy::limits::REMOTE_FRAME_MS_MAX;
use zerocopy::IntoBytes;

use super::bed::Bed;
use super::broken::{encoded, raw};
use super::child::Child;
use super::common::tls::Tls;
use super::common::until;
use super::dice::Dice;

/// How often a row is tried that costs a connection each time.
const TIMES: usize = 20;

/// What a session is told that says this, and then nothing more.
fn told(bed: &Bed, bytes: &[u8]) -> Option<Code> {
    let mut tls = bed.session();
    let _ = tls.write(bytes); // the node may have hung up
    tls.shut();
    tls.closed()
}

fn request(verb: Verb, body: &[u8]) -> Vec<u8> {
    raw(&Header::of(verb, Flags::NONE, RequestId(1 << 20), body.len()).unwrap(), body)
}

/// A write of a hundred bytes to where nothing is written otherwise.
fn write(handle: SlotHandle, number: u64) -> Vec<u8> {
    let body = [Span::new(handle, 0, 100).as_bytes(), &[0xee; 100]].concat();
    raw(&Header::of(Verb::Write, Flags::NONE, RequestId(number), body.len()).unwrap(), &body)
}

fn with(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn c1_c4_c8_lengths_versions_verbs_and_flags() {
    let mut bed = Bed::new("");
    let read = || request(Verb::Read, Span::new(SlotHandle { slot: 1, epoch: 1 }, 0, 1).as_bytes());
    let header = |at, value: &[u8]| with(read()[..HEADER_BYTES].to_vec(), at, value);
    let size = |length: u32| header(16, &length.to_le_bytes());
    let rows: Vec<(&str, Vec<u8>, Code)> = vec![
        // Sizes that may be, of bodies that are none.
        ("C1 0", size(0), Code::FrameType),
        ("C1 1", [size(1), vec![0]].concat(), Code::FrameType),
        ("C1 max", [size(BODY_BYTES_MAX as u32), vec![0; BODY_BYTES_MAX]].concat(), Code::FrameType),
        ("C1 max + 1", size(BODY_BYTES_MAX as u32 + 1), Code::FrameSize),
        ("C1 2^31", size(1 << 31), Code::FrameSize),
        ("C1 2^32 - 1", size(u32::MAX), Code::FrameSize),
        ("C4 verb 0", header(5, &[0]), Code::FrameType),
        ("C4 verb 11", header(5, &[11]), Code::FrameType),
        ("C4 verb 255", header(5, &[255]), Code::FrameType),
        ("C4 a reserved flag", header(6, &8_u16.to_le_bytes()), Code::FrameType),
        ("C4 all flags", header(6, &u16::MAX.to_le_bytes()), Code::FrameType),
        ("C4 version 0", header(4, &[0]), Code::FrameVersion),
        ("C4 version 255", header(4, &[255]), Code::FrameVersion),
        ("C4 magic", header(0, b"LSHS"), Code::FrameType),
        ("C4 a checksum without its flag", header(24, &[1]), Code::FrameType),
        ("C4 no request", request(Verb::Control, &encoded(&"NoSuchRequest")), Code::FrameType),
        (
            "C4 CBOR and more",
            request(Verb::Control, &[encoded(&"Status"), vec![0]].concat()),
            Code::FrameType,
        ),
        ("C4 CBOR that is deep", request(Verb::Control, &[0x81; 1_000]), Code::FrameType),
        (
            "C4 CBOR of 2^63 items",
            request(Verb::Delete, b"\xa1\x66leases\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Code::FrameType,
        ),
        (
            "C4 CBOR of 2^32 bytes",
            request(Verb::Control, b"\xa1\x66Unwrap\xa1\x62id\x5b\0\0\0\x01\0\0\0\0"),
            Code::FrameType,
        ),
        ("a checksum of other bytes", with(with(read(), 6, &[2]), 24, &[1, 2, 3, 4]), Code::Checksum),
        ("C8 an answer", with(read(), 6, &4_u16.to_le_bytes()), Code::FrameType),
        ("more of what has no more", with(read(), 6, &1_u16.to_le_bytes()), Code::FrameType),
        ("items of what has none", with(read(), 28, &[1]), Code::FrameType),
    ];
    for (row, bytes, code) in &rows {
        bed.row(row, TIMES, Some(*code), |bed| told(bed, bytes));
    }
    bed.unharmed("C1 C4 C8");
    for code in [Code::FrameSize, Code::FrameType, Code::FrameVersion, Code::Checksum] {
        bed.on_record(code);
    }
    bed.warmed();
    for (row, bytes, code) in &rows {
        bed.row(row, TIMES, Some(*code), |bed| told(bed, bytes));
    }
    bed.finish("C1 C4 C8");
}

/// A frame that is cut, at every byte and in every way: its client stops speaking, is gone, or never was.
#[test]
fn c2_c3_frames_that_are_cut_off_have_no_effect() {
    let mut bed = Bed::new("");
    let length = {
        let (_, handle) = bed.opened();
        write(handle, 9).len()
    };
    for cut in 1..length {
        let (mut tls, handle) = bed.opened();
        tls.write(&write(handle, 9)[..cut]).unwrap();
        tls.shut();
        assert_eq!(tls.closed(), Some(Code::FrameTruncated), "C2 at {cut}");
    }
    bed.unharmed("C2");
    bed.on_record(Code::FrameTruncated);
    for cut in (1..length).step_by(7) {
        let (mut tls, handle) = bed.opened();
        tls.write(&write(handle, 9)[..cut]).unwrap();
        tls.reset();
    }
    bed.unharmed("C3");
    for cut in [HEADER_BYTES / 2, HEADER_BYTES, length - 1] {
        let mut child = Child::start(&bed, &format!("cut {cut}"));
        assert_eq!(child.said(), "cut");
        child.kill();
    }
    let (mut tls, handle) = bed.opened();
    assert_eq!(tls.read_at(handle, 0, 100), Ok(vec![0; 100]), "nothing of it was written");
    drop(tls);
    let log = bed.finish("C2 C3");
    let truncated = log.provider.iter().filter(|entry| entry["code"] == "E_FRAME_TRUNCATED");
    // One by one up to a rate, and how many were left out stands in the next.
    let seen: u64 = truncated.map(|entry| 1 + super::bed::counter(&entry["suppressed"])).sum();
    println!("{seen} frames that were cut off are on record");
    assert!(seen > 20, "{seen}");
}

#[test]
fn c7_the_number_of_a_request_that_is_under_way() {
    let bed = Bed::new("");
    let (mut tls, handle) = bed.opened();
    let add = |number, addend| {
        let body = Add::new(handle, 8, addend);
        raw(&Header::of(Verb::FetchAdd, Flags::NONE, RequestId(number), Add::BYTES).unwrap(), body.as_bytes())
    };
    for n in 0..200 {
        let number = 1_000 + n;
        // The same twice is done once; another under its number is not done at all; what only reads is not either.
        let span = Span::new(handle, 8, 8);
        let read = raw(
            &Header::of(Verb::Read, Flags::NONE, RequestId(number), Span::BYTES).unwrap(),
            span.as_bytes(),
        );
        tls.write(&[add(number, 1), add(number, 1), add(number, 2), read].concat()).unwrap();
        for expected in [Ok(n), Ok(n), Err(Code::FrameDuplicate), Err(Code::FrameDuplicate)] {
            let frame = tls.hear().unwrap();
            let answer = match Answer::decode(&frame.header, &frame.body).unwrap() {
                Answer::Word(before) => Ok(before),
                Answer::Failed(error) => Err(error.code()),
                other => panic!("{other:?}"),
            };
            assert_eq!(answer, expected, "C7 {n}");
        }
    }
    drop(tls);
    bed.on_record(Code::FrameDuplicate);
    bed.finish("C7");
}

/// Bytes that are nothing at all, in a session and before one.
#[test]
fn c9_random_bytes() {
    let bed = Bed::new("");
    for n in 0..300 {
        let mut dice = Dice::of(0xc9, n);
        let length = 1 + dice.below(4_096);
        let bytes = dice.bytes(length);
        let mut tls = match n % 3 {
            0 => Tls::silent(bed.node.address(), &bed.mallory.credentials),
            _ => bed.session(),
        };
        let _ = tls.write(&bytes); // the node may have hung up
        tls.shut();
        let told = tls.closed();
        let expected = if length < HEADER_BYTES { Code::FrameTruncated } else { Code::FrameType };
        assert_eq!(told, Some(expected), "{n}: {length} bytes");
    }
    bed.finish("C9");
}

/// What is announced is not kept room for, and what does not come is not waited for.
#[test]
fn c11_frames_that_never_come_to_their_end() {
    const SLOW: usize = 64;
    /// What one that is stalled may hold of memory; more than its bytes, which are few, its TLS.
    const HELD_BYTES_MAX: u64 = 64 << 10;
    let mut bed = Bed::new("");
    let slow: Vec<_> = (0..SLOW).map(|_| bed.opened()).collect();
    let before = bed.held().resident_kib;
    let ((), longest) = bed.beside("C11", |bed| {
        let began = Instant::now();
        let mut slow = slow;
        for (n, (tls, handle)) in slow.iter_mut().enumerate() {
            if n % 2 == 0 {
                // As long as a frame may be.
                let span = Span::new(*handle, 0, CHUNK_BYTES_MAX as u64);
                let header = Header::of(Verb::Write, Flags::NONE, RequestId(7), BODY_BYTES_MAX).unwrap();
                tls.write(&raw(&header, span.as_bytes())).unwrap();
            } else {
                // A gibibyte, in frames of which the first is not whole.
                let body = [Span::new(*handle, 0, 1 << 30).as_bytes(), &[1; 8]].concat();
                let header = Header::of(Verb::Write, Flags::MORE, RequestId(7), body.len()).unwrap();
                tls.write(&raw(&header, &body)[..HEADER_BYTES + 10]).unwrap();
            }
        }
        let mut most = 0;
        // A byte a second, until they are told.
        while began.elapsed() < Duration::from_millis(REMOTE_FRAME_MS_MAX) - Duration::from_secs(1) {
            slow.iter_mut().for_each(|(tls, _)| tls.write(&[1]).unwrap());
            most = most.max(bed.held().resident_kib);
            std::thread::sleep(Duration::from_secs(1));
        }
        let each = (most.saturating_sub(before) << 10) / SLOW as u64;
        println!("{each} bytes of memory for each of {SLOW} frames that stall");
        assert!(each <= HELD_BYTES_MAX);
        for (tls, _) in slow {
            assert_eq!(tls.closed(), Some(Code::Timeout));
        }
        let took = began.elapsed();
        let most = Duration::from_millis(REMOTE_FRAME_MS_MAX) + Duration::from_secs(5);
        assert!(took < most, "{took:?}");
    });
    println!("the bystander waited {longest:.1?} at most");
    // Frames that are whole and bring a byte each: then it is the request's own time that ends.
    let (mut tls, handle) = bed.opened();
    let began = Instant::now();
    let body = [Span::new(handle, 0, 1 << 30).as_bytes(), &[1]].concat();
    let first = Header::of(Verb::Write, Flags::MORE, RequestId(7), body.len()).unwrap();
    tls.write(&raw(&Header { deadline_or_code: 1_000, ..first }, &body)).unwrap();
    let next = raw(&Header::of(Verb::Write, Flags::MORE, RequestId(7), 1).unwrap(), &[1]);
    for _ in 0..15 {
        tls.write(&next).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(tls.hear().unwrap().failure().map(|error| error.code()), Some(Code::Timeout));
    assert!(began.elapsed() < Duration::from_secs(4));
    drop(tls);
    bed.on_record(Code::Timeout);
    bed.finish("C11");
}

/// As much as a client can have the node hold of frames: all but the last byte of the longest, of many at a time.
#[test]
fn c11_frames_that_lack_their_last_byte() {
    const STALLED: usize = 128;
    /// A vector that grew has room for twice what is in it.
    const HELD_BYTES_MAX: u64 = 2 * FRAME_BYTES_MAX as u64 + (64 << 10);
    let mut bed = Bed::new("");
    let mut stalled: Vec<_> = (0..STALLED).map(|_| bed.opened()).collect();
    let before = bed.held().resident_kib;
    let header = Header::of(Verb::Write, Flags::NONE, RequestId(7), BODY_BYTES_MAX).unwrap();
    let frame = raw(&header, &vec![7; BODY_BYTES_MAX]);
    for (tls, _) in &mut stalled {
        tls.write(&frame[..frame.len() - 1]).unwrap();
    }
    // Read by the node, where the kernel says that nothing waits any more.
    let ports: HashSet<_> =
        stalled.iter().map(|(tls, _)| tls.socket().local_addr().unwrap().port()).collect();
    until("the node has read all of it", || (unread(&bed, &ports) == 0).then_some(()));
    let held = bed.held().resident_kib.saturating_sub(before);
    let each = (held << 10) / STALLED as u64;
    println!("{each} bytes of memory for each of {STALLED} frames that lack a byte");
    assert!(each <= HELD_BYTES_MAX);
    assert!(each > FRAME_BYTES_MAX as u64 / 2, "they are held: {each}");
    bed.unharmed("C11");
    for (tls, _) in stalled {
        assert_eq!(tls.closed(), Some(Code::Timeout));
    }
    bed.warmed();
    let after = bed.held().resident_kib;
    println!("{held} KiB while they were there, {} KiB after", after.saturating_sub(before));
    bed.finish("C11");
}

/// Bytes that wait in the node's kernel for the node, of the connections from these ports.
fn unread(bed: &Bed, ports: &HashSet<u16>) -> u64 {
    let node = format!(":{:04X}", bed.node.address().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let port = columns[2].split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok())?;
        let is_ours = columns[1].ends_with(&node) && ports.contains(&port);
        is_ours.then(|| (port, u64::from_str_radix(columns[4].split_once(':').unwrap().1, 16).unwrap()))
    });
    // The table is no snapshot: while others come and go, one may stand in it twice.
    let ours: HashMap<u16, u64> = ours.collect();
    assert_eq!(ours.len(), ports.len(), "the node's ends of the connections");
    ours.values().sum()
}
