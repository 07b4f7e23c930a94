//! `bench control --leases FEW,MANY`: what a live lease costs beside its bytes, and whether many of them slow down the
//! others.
//!
//! Kernel memory is measured in two ways, both from `/proc/meminfo`, and the larger counts: what the kernel names (slab,
//! per-processor and virtually mapped memory, page tables), and all that is used and is nobody's page (total less
//! free, cached, tmpfs and anonymous pages). To both is added what tmpfs holds beyond the leases' bytes. The second
//! misses nothing, and also counts what other programs make the kernel take or give back meanwhile, so that it may
//! even be negative: run it on a quiet machine. User memory is what the node's processes have resident, without tmpfs
//! pages. All from FEW to MANY, divided by their difference.
//!
//! Time: with FEW and with MANY alive, in turns, one client leases, renews and releases, one after the other; then all
//! clients do at once. The ratio that counts is the worse of the two.

use std::path::Path;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use policy::limits;
use serde_json::json;

use super::crew::{Crew, LEASE_BYTES, LEASE_TTL, Member, options};
use super::machine::{self, Memory, resident_bytes};
use super::numbers::{Spread, Times, micros, round, timed};
use super::report::{Bound, Report};
use crate::node::Spawned;

/// How often the number of leases goes up and down.
pub const ROUNDS: u32 = 3;
/// Leases that are made and released before anything is measured, so that caches and pools have their size.
const WARM: usize = 1_000;
/// Cycles of the one client in a round.
const CYCLES: usize = 300;
/// Cycles of each of the clients in a round.
const CYCLES_EACH: usize = 30;
/// How long the kernel's counters of each processor take to be summed, and freed memory to be free.
const SETTLE: Duration = Duration::from_millis(2_500);
/// Pool bytes beyond the leases.
const POOL_SPARE_BYTES: u64 = 64 << 20;
/// Beyond the data, in bytes a lease.
const KERNEL: Bound = Bound::AtMost(limits::REGION_KERNEL_BYTES_MAX as f64);
const USER: Bound = Bound::AtMost(limits::LEASE_USER_BYTES_MAX as f64);
/// Time with many over time with few.
const TIME: Bound = Bound::AtMost(1.2);

pub fn bench(scratch: &Path, rounds: u32, clients: u32, few: u32, many: u32) -> Result<Report> {
    let most = clients * limits::LEASES_PER_PRINCIPAL_DEFAULT / 2;
    let room = limits::LEASES_MAX as u32 - clients;
    if !(few < many && many <= most.min(room)) {
        let text = format!("FEW is less than MANY, and MANY at most {}", most.min(room));
        return Err(Error::with(Code::Range, text));
    }
    let node = Spawned::start(scratch, "bench", u64::from(many) * LEASE_BYTES + POOL_SPARE_BYTES, None)?;
    let pid = node.pid().ok_or(Error::new(Code::Internal, "the node does not run"))?;
    let mut crew = Crew::join(&node, clients)?;
    let mut single = Member::join(&node, "single")?;
    crew.hold(WARM)?;
    crew.hold(few as usize)?;
    for _ in 0..CYCLES {
        cycle(&mut single)?;
    }

    let [mut alone, mut together] = [const { [const { Vec::new() }; 2] }; 2];
    let mut rates = [const { Vec::new() }; 2];
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let before = look(pid)?;
        for (at, count) in [few, many].into_iter().enumerate() {
            crew.hold(count as usize)?;
            if at == 1 {
                costs.push(Cost::between(&before, &look(pid)?, many - few));
            }
            for _ in 0..CYCLES {
                alone[at].push(timed_cycle(&mut single)?);
            }
            let phase = crew.all(CYCLES_EACH, |member, _| cycle(member))?;
            rates[at].push(phase.per_s);
            together[at].extend(phase.times);
        }
        crew.hold(few as usize)?;
    }

    let mut report = Report::new("control");
    report.param("leases", json!([few, many]));
    report.param("clients", clients);
    report.param("client_kind", "threads of one process, closed loop");
    report.param("rounds", rounds);
    report.param("lease_bytes", LEASE_BYTES);
    report.param("audit_file_system", machine::file_system(&node.dirs().audit()));
    report.param("tier", crate::output::json::word(&node.admin()?.status()?.tier));
    costs_of(&mut report, &costs);

    let [few_alone, many_alone] = alone.map(Times::of);
    let [few_together, many_together] = together.map(Times::of);
    let [few_rate, many_rate] = rates.map(Spread::of);
    report.headline(&many_alone);
    let figures = [
        (few, "cycle_alone", few_alone.json(), few_alone.text()),
        (many, "cycle_alone", many_alone.json(), many_alone.text()),
        (few, "cycle_together", few_together.json(), together_text(&few_together, &few_rate)),
        (many, "cycle_together", many_together.json(), together_text(&many_together, &many_rate)),
    ];
    for (count, name, value, text) in figures {
        let name = format!("{name}_{count}_leases");
        if count == few { report.theirs(&name, value, text) } else { report.ours(&name, value, text) }
    }
    let (alone, together) = (many_alone.p50() / few_alone.p50(), few_rate.median() / many_rate.median());
    report.ratio(&format!("time_vs_{few}_leases_alone"), alone, None);
    report.ratio(&format!("time_vs_{few}_leases_together"), together, None);
    report.ratio(&format!("time_vs_{few}_leases"), alone.max(together), Some(TIME));
    Ok(report)
}

/// A lease's life.
fn cycle(member: &mut Member) -> Result<()> {
    let leased = member.client.lease(options())?;
    member.client.renew(leased.lease.id, LEASE_TTL)?;
    member.client.release(leased.lease.id).map(drop)
}

fn timed_cycle(member: &mut Member) -> Result<f64> {
    let (took, done) = timed(|| cycle(member));
    done.map(|()| took)
}

fn together_text(times: &Times, rates: &Spread) -> String {
    format!("{:.0} per s, p50 {}, p99 {}", rates.median(), micros(times.p50()), micros(times.p99()))
}

/// The machine's and the node's memory, once they have settled.
fn look(pid: u32) -> Result<(Memory, i64)> {
    std::thread::sleep(SETTLE);
    Ok((Memory::now()?, resident_bytes(pid)?))
}

/// Bytes a lease.
struct Cost {
    unclaimed: f64,
    named: f64,
    user: f64,
}

impl Cost {
    fn between(before: &(Memory, i64), after: &(Memory, i64), leases: u32) -> Self {
        let each = |bytes: i64| bytes as f64 / f64::from(leases);
        let ((before, before_user), (after, after_user)) = (before, after);
        let beyond = after.shmem - before.shmem - (LEASE_BYTES * u64::from(leases)).cast_signed();
        Self {
            unclaimed: each(after.kernel - before.kernel + beyond),
            named: each(after.named - before.named + beyond),
            user: each(after_user - before_user),
        }
    }
}

/// The first growth is the one that counts for memory: later ones find what the earlier ones left free.
fn costs_of(report: &mut Report, costs: &[Cost]) {
    let Some(first) = costs.first() else { return };
    let all = |pick: fn(&Cost) -> f64| {
        costs.iter().map(|cost| format!("{:.0}", pick(cost))).collect::<Vec<_>>().join(", ")
    };
    let kernel = first.unclaimed.max(first.named);
    report.ours("overhead_kernel_bytes", json!(round(kernel)), format!("{kernel:.0} bytes a lease"));
    let named = format!("{} bytes a lease, round by round", all(|cost| cost.named));
    report.ours("kernel_named_bytes", json!(round(first.named)), named);
    let unclaimed = format!("{} bytes a lease, round by round", all(|cost| cost.unclaimed));
    report.ours("kernel_unclaimed_bytes", json!(round(first.unclaimed)), unclaimed);
    let user = format!("{} bytes a lease, round by round", all(|cost| cost.user));
    report.ours("overhead_user_bytes", json!(round(first.user)), user);
    report.bound("overhead_kernel_bytes", kernel, KERNEL);
    report.bound("overhead_user_bytes", first.user, USER);
}
