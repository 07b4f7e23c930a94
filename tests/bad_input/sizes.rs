//! Group E: numbers at and past their borders.

use caps::error::Code;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::request::LeaseSpec;
use caps::wire::{FrameKind, Name, Reply, Request, frame};

use super::bed::{Bed, Logged};
use super::wire::spec;

fn create(spec: LeaseSpec) -> Request {
    Request::LeaseCreate(spec)
}

/// `oom_kill` of /proc/vmstat.
fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().trim().parse().unwrap()
}

#[test]
fn e1_e2_e6_e7_leases_of_impossible_sizes_and_times() {
    let mut bed = Bed::new("[quota.mallory]\nleased_bytes = \"64GiB\"\nresident_bytes = \"64GiB\"\n");
    let killed = oom_kills();
    for bytes in [0, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX] {
        bed.row_in_session(&format!("E1 E2 {bytes}"), Code::Range, |raw| raw.refusal(&create(spec(bytes))));
    }
    for (asked, got) in [(1, 4096), (4095, 4096), (4096, 4096), (4097, 8192)] {
        let mut raw = bed.session();
        let (lease, _) = raw.lease(asked);
        assert_eq!(lease.range.end(), got, "E1: {asked} bytes are whole pages");
        assert!(raw.ask(&Request::LeaseRelease { lease: lease.id }).is_ok());
    }
    let mut raw = bed.session();
    let Ok(Reply::Status(status)) = raw.ask(&Request::Status) else { panic!("status") };
    let left = status.pool_bytes - status.leased_bytes;
    bed.row_in_session("E6 one page more than is left", Code::NoMemory, |raw| {
        raw.refusal(&create(spec(left + 1)))
    });
    assert_eq!(oom_kills(), killed, "the OOM killer was not woken");
    bed.row_in_session("E7 no time", Code::Range, |raw| {
        raw.refusal(&create(LeaseSpec { ttl: Micros(0), ..spec(4096) }))
    });
    // A day is the longest where the configuration is silent.
    for ttl in [Micros::from_millis(24 * 3_600_000).0 + 1, (1 << 63) - 1, 1 << 63, u64::MAX] {
        bed.row_in_session("E7 too long", Code::Range, |raw| {
            raw.refusal(&create(LeaseSpec { ttl: Micros(ttl), ..spec(4096) }))
        });
    }
    let longest = LeaseSpec { ttl: Micros::from_millis(24 * 3_600_000), ..spec(4096) };
    assert!(matches!(bed.session().ask(&create(longest)), Ok(Reply::Leased { .. })));
    bed.finish();
}

#[test]
fn e3_e4_reads_and_writes_past_the_end() {
    let mut bed = Bed::new("");
    let size = bed.lease.range.end();
    let mut raw = bed.session();
    let handle = raw.open(&bed.token, Rights::READ_WRITE).unwrap().handle;
    assert!(raw.read(handle, 0, 0).unwrap().is_empty(), "E4: nothing is nothing");
    assert!(raw.read(handle, size, 0).unwrap().is_empty(), "and at the end as well");
    let token = bed.token.clone();
    let mut fresh = bed.session();
    let handle_of_it = fresh.open(&token, Rights::READ_WRITE).unwrap().handle;
    let mut held = (fresh, handle_of_it);
    for (row, offset, length) in [
        ("E3 wraps", u64::MAX, 2),
        ("E3 wraps to 0", u64::MAX, 1),
        ("E3 at the end", size, 1),
        ("E3 over the end", size - 1, 2),
        ("E4 too long", 0, 64 * 1024 + 1),
        ("E4 the longest", 0, u32::MAX),
        ("nothing, past the end", size + 1, 0),
    ] {
        bed.row_with(row, Code::Range, Logged::Entry, 1_000, &mut |bed| {
            bed.wrong(&mut held, &token, Rights::READ_WRITE, |raw, handle| {
                raw.read(handle, offset, length).unwrap_err().code()
            })
        });
    }
    for (row, offset) in [("E3 write wraps", u64::MAX), ("E3 write at the end", size), ("E3 over", size - 1)]
    {
        bed.row_with(row, Code::Range, Logged::Entry, 1_000, &mut |bed| {
            bed.wrong(&mut held, &token, Rights::READ_WRITE, |raw, handle| {
                raw.write(handle, offset, b"xy").unwrap_err().code()
            })
        });
    }
    let long = vec![1; 64 * 1024 + 1];
    bed.row_with("E4 a write too long", Code::Range, Logged::Entry, 200, &mut |bed| {
        bed.wrong(&mut held, &token, Rights::READ_WRITE, |raw, handle| {
            raw.write(handle, 0, &long).unwrap_err().code()
        })
    });
    bed.row_with("a checksum of other bytes", Code::Checksum, Logged::Entry, 1_000, &mut |bed| {
        bed.wrong(&mut held, &token, Rights::READ_WRITE, |raw, handle| {
            raw.refusal(&Request::Write { handle, offset: 0, data: vec![1, 2, 3], crc: 7 })
        })
    });
    assert_eq!(raw.read(handle, 0, 64).unwrap(), [0; 64], "nothing was written");
    assert_eq!(raw.read(handle, size - 64, 64).unwrap(), [0; 64]);
    bed.finish();
}

#[test]
fn e5_the_quota_by_one_page_and_two_that_do_not_both_fit() {
    let mut bed = Bed::new("[quota.mallory]\nleased_bytes = \"128KiB\"\nresident_bytes = \"192KiB\"\n");
    // 64 KiB are leased already.
    bed.row_in_session("E5", Code::Quota, |raw| raw.refusal(&create(spec(64 * 1024 + 1))));
    for _ in 0..20 {
        let mut sessions: Vec<_> = (0..2).map(|_| bed.session()).collect();
        for raw in &mut sessions {
            raw.post(&create(spec(48 * 1024))).unwrap();
        }
        let answers: Vec<_> = sessions.iter().map(super::wire::Raw::answer).collect();
        let leases: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Ok(Reply::Leased { lease, .. }) => Some(lease.id),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.code(), Code::Quota);
                    None
                }
            })
            .collect();
        assert_eq!(leases.len(), 1, "exactly one");
        assert!(sessions[0].ask(&Request::LeaseRelease { lease: leases[0] }).is_ok());
    }
    bed.check_bystander();
    bed.finish();
}

#[test]
fn e9_names_that_are_none() {
    let mut bed = Bed::new("");
    let lease = |name: &str| {
        // A name is checked where it is made, so that none that is wrong can be sent by our own code.
        let good = frame::encode(
            FrameKind::Request,
            caps::id::RequestId(1),
            &create(LeaseSpec { name: Some(Name::new("NAME").unwrap()), ..spec(4096) }),
        )
        .unwrap();
        let at = good.windows(5).position(|window| window == b"\x64NAME").unwrap();
        let length = name.len();
        let head = match length {
            0..24 => vec![0x60 | length as u8],
            24..256 => vec![0x78, length as u8],
            _ => [&[0x7a][..], &(length as u32).to_be_bytes()].concat(),
        };
        let mut packet = [&good[..at], &head, name.as_bytes(), &good[at + 5..]].concat();
        let body = (packet.len() - frame::HEADER_BYTES) as u32;
        packet[16..20].copy_from_slice(&body.to_le_bytes());
        packet
    };
    for name in
        ["", &"a".repeat(65), &"a".repeat(255), &"a".repeat(256), &"a".repeat(65_536), "a/../b", "a\n"]
    {
        assert_eq!(Name::new(name).unwrap_err().code(), Code::Range, "E9");
        // On the wire it is a body that is no request.
        let packet = lease(name);
        bed.row_with("E9", Code::FrameType, Logged::Entry, 100, &mut |bed| bed.session().code_of(&packet));
    }
    let raw = bed.session();
    raw.send(&lease(&"a".repeat(64))).unwrap();
    assert!(matches!(raw.answer(), Ok(Reply::Leased { .. })), "64 are allowed");
    bed.finish();
}
