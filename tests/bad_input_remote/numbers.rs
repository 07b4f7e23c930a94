//! Group E: numbers at and past their borders.

use caps::error::Code;
use caps::id::SlotHandle;
use caps::limits::{CHUNK_BYTES_MAX, VALUE_BYTES_MAX};
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::remote::body::Span;
use caps::wire::remote::header::Header;
use caps::wire::remote::leases::{Create, Creations};
use caps::wire::remote::{Answer, Flags, Swap, Verb};
use caps::wire::request::LeaseSpec;
use caps::wire::row::Lifetime;
use caps::wire::{Name, Reply, Request, cbor};
use zerocopy::IntoBytes;

use super::bed::{BYTES, Bed};
use super::broken::{encoded, raw};
use super::common::oom_kills;
use super::common::tls::Tls;

const TIMES: usize = 50;

fn spec(bytes: u64) -> LeaseSpec {
    LeaseSpec {
        bytes,
        ttl: Micros::from_millis(60_000),
        name: None,
        class: None,
        lifetime: Lifetime::Process,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

/// What asking for this lease comes to, by itself and in a batch.
fn asked(tls: &mut Tls, spec: &LeaseSpec) -> (Option<Code>, Option<Code>) {
    let alone = tls.control(&Request::LeaseCreate(spec.clone())).err().map(|error| error.code());
    let frame = tls.ask(Verb::Create, &encoded(&Create { leases: vec![spec.clone()] }));
    let batch = match frame.failure() {
        Some(error) => Some(error.code()),
        None => {
            let made: Creations = cbor::decode(&frame.body).unwrap();
            made[0].as_ref().err().map(caps::Error::code)
        }
    };
    (alone, batch)
}

#[test]
fn e1_e2_e6_e7_leases_of_impossible_sizes_and_times() {
    let bed =
        Bed::new("[quota.mallory]\nleased_bytes = \"64GiB\"\nresident_bytes = \"64GiB\"\nleases = 64\n");
    let killed = oom_kills();
    let mut tls = bed.session();
    let both = |code| (Some(code), Some(code));
    for _ in 0..TIMES {
        for bytes in [0, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX] {
            assert_eq!(asked(&mut tls, &spec(bytes)), both(Code::Range), "E1 E2 {bytes}");
        }
        for ttl in [0, 1, Micros::from_millis(24 * 3_600_000).0 + 1, (1 << 63) - 1, 1 << 63, u64::MAX] {
            let spec = LeaseSpec { ttl: Micros(ttl), ..spec(64 << 10) };
            assert_eq!(asked(&mut tls, &spec), both(Code::Range), "E7 {ttl}");
        }
        let Ok(Reply::Status(status)) = tls.control(&Request::Status) else { panic!("no status") };
        let left = status.pool_bytes - status.leased_bytes;
        assert_eq!(asked(&mut tls, &spec(left + 1)), both(Code::NoMemory), "E6");
    }
    for (bytes, got) in [(1, 4_096), (4_095, 4_096), (4_096, 4_096), (4_097, 8_192)] {
        let Ok(Reply::Leased { lease, .. }) = tls.control(&Request::LeaseCreate(spec(bytes))) else {
            panic!("E1 {bytes}")
        };
        assert_eq!(lease.range.end(), got, "E1: {bytes} bytes are whole pages");
        tls.control(&Request::LeaseRelease { lease: lease.id }).unwrap();
    }
    assert_eq!(oom_kills(), killed, "nobody was killed for memory");
    drop(tls);
    for code in [Code::Range, Code::NoMemory] {
        bed.on_record(code);
    }
    bed.finish("E1 E2 E6 E7");
}

#[test]
fn e5_the_quota_by_one_page_and_two_that_do_not_both_fit() {
    // 256 KiB are leased already.
    let bed = Bed::new("[quota.mallory]\nleased_bytes = \"384KiB\"\nresident_bytes = \"384KiB\"\n");
    let mut sessions = [bed.session(), bed.session()];
    for _ in 0..TIMES {
        assert_eq!(
            asked(&mut sessions[0], &spec((128 << 10) + 1)),
            (Some(Code::Quota), Some(Code::Quota)),
            "E5"
        );
    }
    for round in 0..20 {
        for tls in &mut sessions {
            let frame = tls.frame(Verb::Control, &encoded(&Request::LeaseCreate(spec(96 << 10))));
            tls.write(&frame).unwrap();
        }
        let answers = sessions.each_mut().map(|tls| tls.hear().unwrap());
        let mut made = Vec::new();
        for answer in &answers {
            match answer.failure() {
                Some(error) => assert_eq!(error.code(), Code::Quota),
                None => match cbor::decode(&answer.body).unwrap() {
                    Reply::Leased { lease, .. } => made.push(lease.id),
                    other => panic!("{other:?}"),
                },
            }
        }
        assert_eq!(made.len(), 1, "E5: exactly one, round {round}");
        sessions[0].control(&Request::LeaseRelease { lease: made[0] }).unwrap();
    }
    drop(sessions);
    bed.on_record(Code::Quota);
    bed.finish("E5");
}

/// A session whose handle is good again after the node's patience with the one before has ended.
struct Held<'a> {
    bed: &'a Bed,
    open: (Tls, SlotHandle),
}

impl Held<'_> {
    fn ask(&mut self, verb: Verb, body: impl Fn(SlotHandle) -> Vec<u8>) -> Result<Vec<u8>, Code> {
        for _ in 0..2 {
            let (tls, handle) = &mut self.open;
            let mut header = Header::of(verb, Flags::NONE, tls.number(), body(*handle).len()).unwrap();
            header.items = u32::from(verb == Verb::Gather);
            let sent = tls.write(&raw(&header, &body(*handle)));
            if let (Ok(()), Some(first)) = (sent, tls.hear()) {
                let mut bytes = Vec::new();
                let mut frame = first;
                loop {
                    match Answer::decode(&frame.header, &frame.body).unwrap() {
                        Answer::Failed(error) => return Err(error.code()),
                        Answer::Read(data) => bytes.extend_from_slice(data),
                        Answer::Written(written) => return Ok(written.to_le_bytes().to_vec()),
                        Answer::Pieces { pieces, data } => {
                            return pieces[0].code().unwrap().map_or(Ok(data.to_vec()), Err);
                        }
                        other => panic!("{other:?}"),
                    }
                    if !frame.header.has_more() {
                        return Ok(bytes);
                    }
                    frame = tls.hear().unwrap();
                }
            }
            self.open = self.bed.opened();
        }
        panic!("a session that ends at once");
    }
}

#[test]
fn e3_e4_reads_and_writes_past_the_end() {
    let bed = Bed::new("");
    {
        let mut held = Held { bed: &bed, open: bed.opened() };
        let span = |offset, length| move |handle| Span::new(handle, offset, length).as_bytes().to_vec();
        for _ in 0..TIMES {
            for verb in [Verb::Read, Verb::Gather] {
                assert_eq!(held.ask(verb, span(0, 0)), Ok(vec![]), "E4: nothing is nothing");
                assert_eq!(held.ask(verb, span(BYTES, 0)), Ok(vec![]), "E3: and at the end as well");
                assert_eq!(held.ask(verb, span(BYTES, 1)), Ok(vec![]), "E3: a span ends with its region");
                assert_eq!(held.ask(verb, span(BYTES - 1, 2)), Ok(vec![0]), "E3");
                for (offset, length) in [
                    (u64::MAX, 2),
                    (u64::MAX, 1),
                    (BYTES + 1, 0),
                    (BYTES + 1, 1),
                    (1 << 63, 1 << 20),
                    (0, VALUE_BYTES_MAX + 1),
                    (8, u64::MAX),
                    (8, u64::MAX - 7),
                ] {
                    assert_eq!(
                        held.ask(verb, span(offset, length)),
                        Err(Code::Range),
                        "E3 E4 {offset} {length}"
                    );
                }
            }
            let write = |offset, length| {
                move |handle| {
                    [Span::new(handle, offset, length).as_bytes(), &vec![9; length as usize]].concat()
                }
            };
            for offset in [u64::MAX, BYTES + 1, 1 << 63] {
                assert_eq!(held.ask(Verb::Write, write(offset, 2)), Err(Code::Range), "E3 write at {offset}");
            }
            let written = |n: u64| Ok(n.to_le_bytes().to_vec());
            assert_eq!(held.ask(Verb::Write, write(BYTES, 2)), written(0), "E3: none of it");
            assert_eq!(held.ask(Verb::Write, write(0, 0)), written(0), "E4");
            let long = CHUNK_BYTES_MAX as u64 + 1;
            assert_eq!(
                held.ask(Verb::Write, write(0, long)),
                Err(Code::FrameSize),
                "E4: more than a frame has"
            );
            held.open = bed.opened();
            for (offset, length) in [(BYTES - 4, 8), (12, 8), (8, 4), (u64::MAX - 7, 8), (BYTES, 8)] {
                let swap = move |handle| {
                    let mut swap = Swap::new(handle, offset, 0, 1);
                    swap.word = Span::new(handle, offset, length);
                    swap.as_bytes().to_vec()
                };
                assert_eq!(held.ask(Verb::Cas, swap), Err(Code::Range), "E3 a word at {offset} of {length}");
            }
        }
        let (mut tls, handle) = bed.opened();
        let bytes = tls.read_at(handle, 0, BYTES).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "nothing was written");
        // More than its right, in a place that there is.
        let part = caps::token::Narrow {
            range: Some(caps::range::ByteRange::new(4_096, 8_192).unwrap()),
            ..Default::default()
        };
        let part = caps::token::attenuate(&bed.mallory.token, &part).unwrap();
        let handle = tls.open(&part, Rights::READ).unwrap();
        for (offset, length) in [(4_095, 1), (8_191, 2), (8_192, 1), (0, BYTES)] {
            let refused = tls.read_at(handle, offset, length).unwrap_err();
            assert_eq!(refused.code(), Code::Denied, "{offset} {length}");
        }
    }
    for code in [Code::Range, Code::FrameSize, Code::Denied] {
        bed.on_record(code);
    }
    bed.finish("E3 E4");
}

#[test]
fn e9_names_that_are_none() {
    let bed = Bed::new("");
    let good =
        encoded(&Request::LeaseCreate(LeaseSpec { name: Some(Name::new("NAME").unwrap()), ..spec(4_096) }));
    let at = good.windows(5).position(|window| window == b"\x64NAME").unwrap();
    let named = |name: &str| {
        let length = name.len();
        let head = match length {
            0..24 => vec![0x60 | length as u8],
            24..256 => vec![0x78, length as u8],
            256..65_536 => [&[0x79][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[0x7a][..], &(length as u32).to_be_bytes()].concat(),
        };
        [&good[..at], &head, name.as_bytes(), &good[at + 5..]].concat()
    };
    for name in [
        "",
        &"a".repeat(65),
        &"a".repeat(255),
        &"a".repeat(256),
        &"a".repeat(65_536),
        "a/../b",
        "a\n",
        "\u{202e}a",
    ] {
        bed.row("E9", 5, Some(Code::FrameType), |bed| {
            let mut tls = bed.session();
            let frame = tls.ask(Verb::Control, &named(name));
            frame.failure().map(|error| error.code())
        });
    }
    let longest = bed.session().ask(Verb::Control, &named(&"a".repeat(64)));
    assert!(longest.failure().is_none(), "64 are allowed");
    bed.on_record(Code::FrameType);
    bed.finish("E9");
}
