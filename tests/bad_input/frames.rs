//! Group C as far as the local socket has it, where a packet is a frame.

use caps::error::Code;
use caps::id::RequestId;
use caps::limits::FRAME_BYTES_MAX;
use caps::wire::frame::HEADER_BYTES;
use caps::wire::{FrameKind, Reply, Request, frame};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::bed::{Bed, Logged};
use super::node::until;
use super::wire::{Raw, frame_of};

fn status() -> Vec<u8> {
    frame::encode(FrameKind::Request, RequestId(1), &Request::Status).unwrap()
}

fn changed(at: usize, value: u8) -> Vec<u8> {
    let mut packet = status();
    packet[at] = value;
    packet
}

/// Sends a packet that ends the session, before and after the proof.
fn ends(bed: &mut Bed, row: &str, code: Code, packet: &[u8]) {
    bed.row(&format!("{row}, unproven"), code, Logged::Gathered, |bed| {
        let raw = Raw::connect(&bed.node.socket()).unwrap();
        let code = raw.code_of(packet);
        assert!(raw.is_ended(), "{row}: the node hangs up");
        code
    });
    bed.row_with(&format!("{row}, proven"), code, Logged::Entry, 100, &mut |bed| {
        let raw = bed.session();
        let code = raw.code_of(packet);
        assert!(raw.is_ended(), "{row}: the node hangs up");
        code
    });
}

#[test]
fn c1_c2_c4_c8_frames_that_are_none() {
    let mut bed = Bed::new("");
    ends(&mut bed, "C1 an empty packet", Code::FrameTruncated, &[]);
    ends(&mut bed, "C1 one byte", Code::FrameTruncated, b"L");
    ends(&mut bed, "C1 a byte too many", Code::FrameSize, &vec![0; FRAME_BYTES_MAX + 1]);
    ends(&mut bed, "C1 a length of 2^32 - 1", Code::FrameSize, &{
        let mut packet = status();
        packet[16..20].fill(0xff);
        packet
    });
    ends(&mut bed, "C4 magic", Code::FrameType, &changed(0, b'X'));
    ends(&mut bed, "C4 version", Code::FrameVersion, &changed(4, 0));
    ends(&mut bed, "C4 kind", Code::FrameType, &changed(5, 9));
    ends(&mut bed, "C4 flag", Code::FrameType, &changed(6, 1));
    ends(&mut bed, "C8 a reply", Code::FrameType, &changed(5, FrameKind::Reply as u8));
    ends(&mut bed, "C8 an error", Code::FrameType, &changed(5, FrameKind::Error as u8));
    bed.finish();
}

#[test]
fn c1_bodies_that_are_no_request() {
    let mut bed = Bed::new("");
    let deep = [&[0x81; 10_000][..], &[0]].concat();
    let many_bytes = [0xa1, 0x64, b'O', b'p', b'e', b'n', 0xa1, 0x65, b't', b'o', b'k', b'e', b'n', 0x5b];
    let huge = [&many_bytes[..], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    for (row, body) in [
        ("nothing", &[][..]),
        ("nested arrays", &deep),
        ("bytes of a length of 2^63 - 1", &huge),
        ("an unknown request", b"\x67Nothing"),
        ("two requests", b"\x66Status\x66Status"),
        ("an array of 2^64 - 1", &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("no UTF-8", &[0x61, 0xff]),
    ] {
        ends(&mut bed, row, Code::FrameType, &frame_of(FrameKind::Request as u8, body));
    }
    bed.finish();
}

#[test]
fn c2_cut_at_every_byte() {
    let mut bed = Bed::new("");
    let packet = status();
    for cut in 0..packet.len() {
        let raw = bed.session();
        let expected = if cut < HEADER_BYTES { Code::FrameTruncated } else { Code::FrameSize };
        assert_eq!(raw.code_of(&packet[..cut]), expected, "cut at {cut}");
    }
    bed.check_bystander();
    bed.finish();
}

#[test]
fn c7_the_same_number_twice_reads_twice_in_order() {
    // Requests of a session are answered one after another, so no number is ever in flight twice. What changes something
    // is in `again`.
    let bed = Bed::new("");
    let raw = bed.session();
    for _ in 0..2 {
        raw.send(&status()).unwrap();
    }
    for _ in 0..2 {
        assert!(matches!(raw.answer(), Ok(Reply::Status(_))));
    }
    bed.finish();
}

#[test]
fn c9_random_frames() {
    let mut bed = Bed::new("");
    let path = bed.node.socket();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    let frames = prop::collection::vec(any::<u8>(), 0..512).prop_flat_map(|body| (Just(body), any::<bool>()));
    runner
        .run(&frames, |(body, framed)| {
            let raw = Raw::connect(&path).unwrap();
            let packet = if framed { frame_of(1, &body) } else { body };
            let code = raw.code_of(&packet);
            prop_assert!(code.text().starts_with("E_FRAME_") || code == Code::Protocol, "{code}");
            Ok(())
        })
        .unwrap();
    bed.check_bystander();
    let before = bed.node.held().descriptors;
    until("all of them are settled", || (bed.node.held().descriptors <= before).then_some(()));
    bed.finish();
}
