//! `bench access`: does a lease cost anything once it is mapped?
//!
//! Sequential reading and writing of 64 MiB, more than the caches hold, through a mapped lease and through anonymous
//! memory of the same pages: one lease of 64 MiB for 2 MiB pages, 64 leases of 1 MiB for 4 KiB pages (a region that
//! small gets no huge page), and as many anonymous mappings. Then guarded copies of 4 KiB beside `memcpy`, both
//! between the same two pages again and again: caches hide nothing of the guard.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::rights::Rights;
use libmem::{LeaseOptions, Region};
use memmap2::{Advice, MmapMut, MmapOptions};
use serde_json::json;

use super::crew::{LEASE_TTL, Member};
use super::machine::huge_bytes;
use super::numbers::{Spread, round, timed};
use super::raw;
use super::report::{Bound, Report};
use crate::node::Spawned;

/// Turns of each side.
pub const ROUNDS: u32 = 41;
/// Bytes that are read and written sequentially.
const BYTES: usize = 64 << 20;
/// Bytes of each of the leases with small pages.
const SMALL_LEASE_BYTES: usize = 1 << 20;
/// Bytes of a guarded access.
const COPY_BYTES: usize = 4096;
/// About how long one turn of copies takes.
const TURN: Duration = Duration::from_millis(5);
/// Mapped beside anonymous, at least.
const SEQUENTIAL: Bound = Bound::AtLeast(0.97);
/// Guarded beside `memcpy`, at least.
const GUARDED: Bound = Bound::AtLeast(0.8);

pub fn bench(scratch: &Path, rounds: u32) -> Result<Report> {
    let mut report = Report::new("access");
    let node = Spawned::start(scratch, "bench", 4 * BYTES as u64, None)?;
    let member = Member::join(&node, "reader")?;
    report.param("rounds", rounds);
    report.param("bytes", BYTES);
    report.param("copy_bytes", COPY_BYTES);

    // First, so that the headline is what most programs do: guarded copies.
    guarded(&mut report, &lease(&member, BYTES)?, rounds)?;
    for (pages, bytes) in [("2mib", BYTES), ("4kib", SMALL_LEASE_BYTES)] {
        let mut leases: Vec<_> = (0..BYTES / bytes).map(|_| lease(&member, bytes)).collect::<Result<_>>()?;
        let mut plain: Vec<_> = (0..BYTES / bytes).map(|_| anonymous(bytes)).collect::<Result<_>>()?;
        sequential(&mut report, pages, &mut leases, &mut plain, rounds)?;
    }
    Ok(report)
}

/// Leases memory and maps it for reading and writing.
fn lease(member: &Member, bytes: usize) -> Result<Region> {
    let leased = member.client.lease(LeaseOptions::new(bytes as u64, LEASE_TTL))?;
    member.client.open_mapped(&leased.token, Rights::READ_WRITE)
}

/// Anonymous memory of the pages that a lease of this size gets.
fn anonymous(bytes: usize) -> Result<MmapMut> {
    let failed = |_| Error::new(Code::NoMemory, "no anonymous memory to compare with");
    let memory = MmapOptions::new().len(bytes).map_anon().map_err(failed)?;
    let huge = bytes >= 2 << 20;
    memory.advise(if huge { Advice::HugePage } else { Advice::NoHugePage }).map_err(failed)?;
    Ok(memory)
}

fn sequential(
    report: &mut Report,
    pages: &str,
    leases: &mut [Region],
    plain: &mut [MmapMut],
    rounds: u32,
) -> Result<()> {
    let huge = leases.iter().map(|region| huge_bytes(region.mapping().as_ptr() as usize)).max();
    let mut mapped: Vec<_> = leases.iter_mut().map(raw::slice).collect::<Result<_>>()?;
    let mut plain: Vec<&mut [u8]> = plain.iter_mut().map(|memory| &mut memory[..]).collect();
    // Every page is there, and in this process' page tables, before the first turn.
    mapped.iter_mut().chain(&mut plain).for_each(|bytes| raw::write_all(bytes));
    let huge = huge.max(mapped.iter().map(|bytes| huge_bytes(bytes.as_ptr() as usize)).max());
    let huge_plain = plain.iter().map(|bytes| huge_bytes(bytes.as_ptr() as usize)).max();
    report.param(&format!("huge_bytes_{pages}"), json!([huge, huge_plain]));

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        times[0].push(timed(|| mapped.iter().for_each(|bytes| raw::read_all(bytes))).0);
        times[1].push(timed(|| plain.iter().for_each(|bytes| raw::read_all(bytes))).0);
        times[2].push(timed(|| mapped.iter_mut().for_each(|bytes| raw::write_all(bytes))).0);
        times[3].push(timed(|| plain.iter_mut().for_each(|bytes| raw::write_all(bytes))).0);
    }
    let [reads, plain_reads, writes, plain_writes] = times.map(Spread::of);
    for (what, ours, theirs) in [("read", reads, plain_reads), ("write", writes, plain_writes)] {
        let name = format!("{what}_{pages}");
        let (value, text) = bandwidth(&ours);
        report.ours(&name, value, text);
        let (value, text) = bandwidth(&theirs);
        report.theirs(&format!("anonymous_{name}"), value, text);
        report.ratio(&format!("rate_vs_anonymous_{name}"), theirs.median() / ours.median(), Some(SEQUENTIAL));
    }
    Ok(())
}

/// Bytes per second of passes over [`BYTES`] that took so many microseconds.
fn bandwidth(micros: &Spread) -> (serde_json::Value, String) {
    let rate = |micros: f64| BYTES as f64 / micros / 1e3;
    let (median, least, most) = (rate(micros.median()), rate(micros.max()), rate(micros.min()));
    let value = json!({
        "p50_us": round(micros.median()),
        "gb_per_s": round(median), "gb_per_s_min": round(least), "gb_per_s_max": round(most),
    });
    (value, format!("{median:.2} GB/s ({least:.2} to {most:.2})"))
}

fn guarded(report: &mut Report, region: &Region, rounds: u32) -> Result<()> {
    let (source, mut target) = (anonymous(SMALL_LEASE_BYTES)?, anonymous(SMALL_LEASE_BYTES)?);
    let (source, target) = (&source[..COPY_BYTES], &mut target[..COPY_BYTES]);
    region.write_at(0, source)?;
    let mut count = 1;
    while timed(|| memcpy(count, target, source)).0 < TURN.as_secs_f64() * 1e6 {
        count *= 2;
    }
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        times[0].push(timed(|| memcpy(count, target, source)).0 / f64::from(count));
        let (took, done) =
            timed(|| (0..count).try_for_each(|_| region.read_at(0, black_box(&mut target[..]))));
        done?;
        times[1].push(took / f64::from(count));
        let (took, done) = timed(|| (0..count).try_for_each(|_| region.write_at(0, black_box(source))));
        done?;
        times[2].push(took / f64::from(count));
    }
    let [plain, reads, writes] = times.map(Spread::of);
    let (value, text) = copies(&plain);
    report.theirs("memcpy", value, text);
    for (name, ours) in [("read_at", reads), ("write_at", writes)] {
        let (value, text) = copies(&ours);
        report.ours(name, value, text);
        report.ratio(&format!("rate_vs_memcpy_{name}"), plain.median() / ours.median(), Some(GUARDED));
    }
    Ok(())
}

fn memcpy(count: u32, target: &mut [u8], source: &[u8]) {
    for _ in 0..count {
        black_box(&mut *target).copy_from_slice(black_box(source));
    }
}

fn copies(micros: &Spread) -> (serde_json::Value, String) {
    let nanos = |micros: f64| micros * 1e3;
    let (median, least, most) = (nanos(micros.median()), nanos(micros.min()), nanos(micros.max()));
    let value = json!({
        "p50_us": micros.median(),
        "p50_ns": round(median), "min_ns": round(least), "max_ns": round(most),
    });
    (value, format!("{median:.0} ns ({least:.0} to {most:.0})"))
}
