//! `bench expiry`: how late do leases end?
//!
//! 10,000 leases live on while 5,000 others end, 1,000 a second, evenly, and nobody asks for anything. How late each
//! was fenced and cut is what the provider writes into its log (`fence_us`, `dead_us` of `lease.expire`, both counted
//! from the deadline); the log is read once the node has stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use audit::Event;
use caps::error::{Code, Error, Result};
use serde_json::{Value, json};

use super::crew::{Crew, LEASE_BYTES};
use super::machine;
use super::numbers::Times;
use super::report::{Bound, Report};
use crate::node::Spawned;

const CLIENTS: u32 = 32;
/// Leases that live on.
const ALIVE: usize = 10_000;
/// Leases that end.
const ENDING: usize = 5_000;
/// Ends a second.
const PER_S: usize = 1_000;
/// From the start of setting the ends to the first of them: more than setting all of them takes.
const LEAD: Duration = Duration::from_secs(6);
/// Longer than the last end can take to be in the log.
const GRACE: Duration = Duration::from_secs(10);
/// Worst lateness of a fence in microseconds.
const FENCE: Bound = Bound::AtMost(10_000.0);
/// p99 of the lateness of a cut in microseconds.
const CUT: Bound = Bound::AtMost(10_000.0);

pub fn bench(scratch: &Path) -> Result<Report> {
    let pool = (ALIVE + ENDING) as u64 * LEASE_BYTES + (64 << 20);
    let mut node = Spawned::start(scratch, "bench", pool, None)?;
    let mut crew = Crew::join(&node, CLIENTS)?;
    crew.hold(ALIVE + ENDING)?;

    // The ends, spread evenly: client by client, lease by lease.
    let each = ENDING / CLIENTS as usize;
    let began = Instant::now();
    let spacing = Duration::from_secs(1) / PER_S as u32;
    let members: Vec<_> = crew.0.iter().map(|member| member.key.public()).collect();
    crew.all(each, |member, n| {
        let at = members.iter().position(|key| *key == member.key.public()).unwrap_or(0);
        let due = LEAD + spacing * (n * members.len() + at) as u32;
        let lease = member.leases.get(n).map(|leased| leased.lease.id);
        let lease = lease.ok_or(Error::new(Code::Internal, "a client of the benchmark has no lease"))?;
        member.client.renew(lease, due.saturating_sub(began.elapsed())).map(drop)
    })?;
    if began.elapsed() > LEAD {
        return Err(Error::new(Code::Timeout, "the machine is too slow to set all ends before the first"));
    }
    let ending = each * CLIENTS as usize;
    let last = LEAD + spacing * ending as u32;
    std::thread::sleep(last.saturating_sub(began.elapsed()));
    let deadline = Instant::now() + GRACE;
    while node.admin()?.status()?.leases > (ALIVE + ENDING - ending) as u32 {
        if Instant::now() > deadline {
            return Err(Error::new(Code::Timeout, "some leases did not end"));
        }
        std::thread::sleep(Duration::from_millis(50)); // another process' state
    }
    let directory = node.dirs().audit().join("provider-1");
    let file_system = machine::file_system(&directory);
    let tier = node.admin()?.status()?.tier;
    drop(crew);
    node.stop()?;

    let (fences, cuts) = lateness(&directory)?;
    if fences.len() != ending {
        let text = format!("the log tells of {} ends of {ending}", fences.len());
        return Err(Error::with(Code::Internal, text));
    }
    let mut report = Report::new("expiry");
    report.param("alive", ALIVE + ENDING - ending);
    report.param("ending", ending);
    report.param("per_s", PER_S);
    report.param("lease_bytes", LEASE_BYTES);
    report.param("audit_file_system", file_system);
    report.param("tier", crate::output::json::word(&tier));
    report.headline(&cuts);
    report.ours("fence_late", fences.json(), fences.text());
    report.ours("cut_late", cuts.json(), cuts.text());
    report.bound("fence_late_max_us", fences.max(), FENCE);
    report.bound("cut_late_p99_us", cuts.p99(), CUT);
    Ok(report)
}

/// How late the leases in a provider's log were fenced and cut when their time was over.
fn lateness(directory: &Path) -> Result<(Times, Times)> {
    let (mut fences, mut cuts) = (Vec::new(), Vec::new());
    for stored in audit::read::entries(directory, 0)? {
        let entry: Value = serde_json::from_slice(&stored?.bytes).unwrap_or_else(|_| json!({}));
        if entry["event"] == Event::LeaseExpire.name() {
            let number = |key: &str| entry[key].as_f64();
            if let (Some(fence), Some(cut)) = (number("fence_us"), number("dead_us")) {
                fences.push(fence);
                cuts.push(cut);
            }
        }
    }
    Ok((Times::of(fences), Times::of(cuts)))
}
