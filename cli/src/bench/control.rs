//! `bench control`: leases, renewals and shares a second, each durable in the audit log before its answer.
//!
//! The clients are threads of this process (32 unless told otherwise), each with a session and a key of its own; each asks again as soon as it
//! is answered. They run on the same processors as the node, and their signatures are part of what is measured. Each
//! round leases, renews, shares and releases; before it, the disk is measured alone: appending 4 KiB to a file in the
//! log's directory and `fdatasync`, again and again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::rights::Rights;
use libmem::ShareOptions;
use serde_json::json;

use super::crew::{Crew, LEASE_BYTES, LEASE_TTL, Member, Phase, Rounds};
use super::numbers::{Spread, Times, micros, round, timed};
use super::report::{Bound, Report};
use super::{crew, machine};
use crate::node::Spawned;

/// Rounds of all phases.
pub const ROUNDS: u32 = 7;
/// New leases of each client in a round.
const LEASES: usize = 100;
/// Renewals of each client in a round, and shares: as many grants as a principal may have, less some room.
const CHANGES: usize = 200;
/// How long the disk is measured alone in a round.
const DISK: Duration = Duration::from_millis(500);
/// Bytes of an append of that.
const APPEND_BYTES: usize = 4096;
/// Pool bytes for each client: its leases, and those of a round before that are still being wiped.
const POOL_BYTES: u64 = 4 * LEASES as u64 * LEASE_BYTES;
/// New leases a second.
const CREATE: Bound = Bound::AtLeast(3_000.0);
/// Renewals a second, and shares.
const CHANGE: Bound = Bound::AtLeast(5_000.0);
/// p99 of each in microseconds.
const LATENCY: Bound = Bound::AtMost(20_000.0);

pub fn bench(scratch: &Path, rounds: u32, clients: u32) -> Result<Report> {
    let node = Spawned::start(scratch, "bench", u64::from(clients) * POOL_BYTES, None)?;
    let mut crew = Crew::join(&node, clients)?;
    let receiver = node.admin()?.holder();
    // Not measured: the first of everything.
    round_of(&mut crew, receiver, 10, 10)?;

    let (mut disk_times, mut disk_rates) = (Vec::new(), Vec::new());
    let mut phases = [const { None }; 4].map(|_: Option<()>| Rounds::default());
    for _ in 0..rounds {
        let disk = disk(&node.dirs().audit())?;
        disk_times.extend(disk.times);
        disk_rates.push(disk.per_s);
        let measured = round_of(&mut crew, receiver, LEASES, CHANGES)?;
        for (rounds, phase) in phases.iter_mut().zip(measured) {
            rounds.add(phase);
        }
    }
    let mut report = Report::new("control");
    report.param("clients", clients);
    report.param("client_kind", "threads of one process, closed loop");
    report.param("rounds", rounds);
    report.param("lease_bytes", LEASE_BYTES);
    report.param("leases_a_round", clients as usize * LEASES);
    report.param("audit_file_system", machine::file_system(&node.dirs().audit()));
    report.param("tier", crate::output::json::word(&node.admin()?.status()?.tier));
    let (times, disk) = (Times::of(disk_times), Spread::of(disk_rates));
    report.theirs("fdatasync", figures(&times, &disk), text(&times, &disk));
    let names = ["lease_create", "lease_renew", "share_offer", "lease_release"];
    for ((name, rounds), bound) in
        names.into_iter().zip(phases).zip([Some(CREATE), Some(CHANGE), Some(CHANGE), None])
    {
        let (times, rates) = rounds.finish();
        if name == "lease_create" {
            report.headline(&times);
        }
        report.ours(name, figures(&times, &rates), text(&times, &rates));
        report.ratio(&format!("rate_vs_fdatasync_{name}"), rates.median() / disk.median(), None);
        if let Some(bound) = bound {
            report.bound(&format!("{name}_per_s"), rates.median(), bound);
            report.bound(&format!("{name}_p99_us"), times.p99(), LATENCY);
        }
    }
    Ok(report)
}

/// New leases, renewals, shares, releases; each by all clients at once.
fn round_of(crew: &mut Crew, receiver: PrincipalKey, leases: usize, changes: usize) -> Result<[Phase; 4]> {
    let created = crew.all(leases, |member, _| member.create())?;
    let renewed =
        crew.all(changes, |member, n| member.client.renew(nth(member, n)?.lease.id, LEASE_TTL).map(drop))?;
    let options = ShareOptions::new(receiver, Rights::READ).ttl(LEASE_TTL / 2);
    let shared = crew.all(changes, |member, n| {
        member.client.share_offer(&nth(member, n)?.lease, &options, &member.key).map(drop)
    })?;
    let released = crew.all(leases, |member, _| member.release())?;
    Ok([created, renewed, shared, released])
}

fn nth(member: &Member, n: usize) -> Result<&libmem::Leased> {
    let none = Error::new(Code::Internal, "a client of the benchmark has no lease");
    member.leases.get(n % member.leases.len().max(1)).ok_or(none)
}

/// Appends and syncs, for a while.
fn disk(directory: &Path) -> Result<Phase> {
    let failed = |_| Error::new(Code::System, "cannot write beside the audit log");
    let path = directory.join("bench");
    let measure = || {
        let mut file = File::create(&path)?;
        let (mut times, started) = (Vec::new(), Instant::now());
        while started.elapsed() < DISK {
            let (took, synced) = timed(|| file.write_all(&[7; APPEND_BYTES]).and_then(|()| file.sync_data()));
            synced?;
            times.push(took);
        }
        let per_s = times.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Phase { times, per_s })
    };
    let measured = measure().map_err(failed);
    fs::remove_file(&path).map_err(failed)?;
    measured
}

fn figures(times: &Times, rates: &Spread) -> serde_json::Value {
    let mut value = times.json();
    value["per_s"] = json!(round(rates.median()));
    value["per_s_min"] = json!(round(rates.min()));
    value["per_s_max"] = json!(round(rates.max()));
    value
}

fn text(times: &Times, rates: &Spread) -> String {
    format!(
        "{:.0} per s ({:.0} to {:.0}), p50 {}, p99 {}, max {}",
        rates.median(),
        rates.min(),
        rates.max(),
        micros(times.p50()),
        micros(times.p99()),
        micros(times.max())
    )
}

const _: () = assert!(crew::LEASE_BYTES.is_power_of_two());
