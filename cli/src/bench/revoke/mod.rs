//! `bench revoke`: how long until memory that many processes use is nobody's?
//!
//! In turns: a lease that its owner has shared with N principals and takes back (`ftruncate` and all that is around it),
//! a bare `ftruncate(0)` of an equal file on a tmpfs with huge pages, and, once in [`SLOW_EVERY`] turns, the same of a
//! memfd with 4 KiB pages, and overwriting as much memory with zeros.
//!
//! ```text
//! revoke ──┬── up (a node in a temporary directory)
//!          ├── N mappers: processes, each with a key and, as root, a uid of its own   (crowd, mapper, message)
//!          │     map a lease, or a file: the same code, 2 MiB aligned; touch every page
//!          ├── the cut: Client::revoke, or ftruncate on a real-time thread            (here, baseline)
//!          └── when was the last mapper dead?
//! ```
//!
//! With `--survivors` one mapper of several is revoked while the others write (`survive`; `writer` and `stripes` in the
//! mappers).
//!
//! # What "dead" is
//!
//! A mapper is dead once a touch of its mapping's last page has failed, and says itself when that was; the clock is one
//! for all processes. It counts from right before the call to the end of the first touch that failed, the signal
//! handler included. The kernel empties mappings in the order in which they were made, each from its first page to its
//! last: so the last page of the youngest mapping is the last to go.
//!
//! With more mappers than processors it matters who is on one. If all of them touched without pause, each would see its
//! death only when it gets its turn, tens of milliseconds late, and what was measured would be the scheduler. So the
//! `busy` youngest (one, unless `--busy` says otherwise) touch without pause, which keeps them on a processor, and the
//! others, which have touched every page before, are woken as soon as the busy ones are dead and touch then. If one
//! of them still finds memory, it goes on until it finds none, its death counts, and `outlived` says that it happened.
//!
//! The same processes do the same for both sides, and the bare `ftruncate` has the priority that the provider's
//! cutting threads have, as far as this user may.

mod baseline;
pub(super) mod crowd;
mod mapper;
pub(super) mod message;
mod stripes;
#[cfg(test)]
mod stripes_tests;
mod survive;
mod writer;

use std::os::fd::AsFd;
use std::path::Path;

use caps::error::{Code, Error, Result};
use caps::rights::Rights;
use caps::wire::Reason;
use caps::wire::row::{Target, Tier};
use libmem::{LeaseOptions, Lifetime, ShareOptions};
use policy::limits::PAGE_BYTES;
use serde_json::json;

use super::crew::{LEASE_TTL, Member};
use super::machine;
use super::numbers::{Spread, Times, micros, round};
use super::report::{Bound, Report};
use crate::node::Spawned;
use baseline::Kind;
use crowd::{Crowd, Seen};
use message::Order;

pub(crate) use mapper::serve;
pub(super) use survive::{ROUNDS as ROTATIONS, bench as bench_survivors};

/// Regions from this size on are held to the bounds of the cut and of the wipe. Below, a call through two processes
/// takes longer than what it does.
const LARGE_BYTES: u64 = 256 << 20;
/// Regions up to this size are held to the bound of the whole call.
const SMALL_BYTES: u64 = 1 << 20;
/// Turns, for large regions and for others.
const ROUNDS_LARGE: u32 = 20;
const ROUNDS: u32 = 200;
/// One turn in so many measures what is slow: small pages, and overwriting memory.
const SLOW_EVERY: u32 = 4;
/// The least that is overwritten to see how fast the machine is: more than its caches hold.
const MEMSET_BYTES_MIN: u64 = 256 << 20;

/// Call to the last mapper dead, medians.
const VS_HUGE: Bound = Bound::AtMost(1.5);
const VS_SMALL_PAGES: Bound = Bound::AtMost(0.05);
/// Bytes a second from the last death to the receipt, over those of `memset`, medians.
const WIPE: Bound = Bound::AtLeast(0.7);
/// Call to receipt, p50 in microseconds.
const RECEIPT: Bound = Bound::AtMost(1_000.0);
/// What must not happen at all.
const NEVER: Bound = Bound::AtMost(0.0);

/// What is taken back, and from whom.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub bytes: u64,
    pub mappers: u32,
    /// How many of them touch without pause.
    pub busy: u32,
}

/// What the turns of Leasehold found.
#[derive(Default)]
struct Ours {
    dead: Vec<f64>,
    receipt: Vec<f64>,
    wipe: Vec<f64>,
    /// What the receipts say.
    fence: Vec<f64>,
    cut: Vec<f64>,
    /// How much later than the receipt's `dead_us` after the call a touch began that succeeded. The receipt counts from
    /// when the provider has the call, so the way there is in it.
    beyond: Vec<f64>,
    outlived: usize,
    uncounted: u64,
    unwiped: u64,
    touched_after: usize,
    huge_bytes: u64,
}

/// What the turns of a baseline found.
#[derive(Default)]
struct Bare {
    dead: Vec<f64>,
    call: Vec<f64>,
    outlived: usize,
    huge_bytes: u64,
}

pub fn bench(scratch: &Path, rounds: Option<u32>, shape: Shape) -> Result<Report> {
    let shape = Shape { bytes: shape.bytes.next_multiple_of(PAGE_BYTES), ..shape };
    if shape.busy > shape.mappers {
        return Err(Error::new(Code::Range, "more mappers are to touch than there are"));
    }
    let rounds = rounds.unwrap_or(if shape.bytes >= LARGE_BYTES { ROUNDS_LARGE } else { ROUNDS });
    let node = start(scratch, shape)?;
    let tier = node.admin()?.status()?.tier;
    // Elsewhere another user's process may map for reading only; the baselines do what the leases allow.
    let write = tier == Tier::Sealed;
    let owner = Member::join(&node, "owner")?;
    let crowd = Crowd::gather(&node, shape.mappers, shape.busy)?;
    let memset_bytes = shape.bytes.max(MEMSET_BYTES_MIN);

    let mut ours = Ours::default();
    let (mut huge, mut memfd) = (Bare::default(), Bare::default());
    let mut memset = Vec::new();
    for turn in 0..rounds {
        // First of all what fills fresh memory without a deadline: on a virtual machine that has just started, the host
        // has to find each page at its first touch, for which a reservation may be too short.
        if turn % SLOW_EVERY == 0 {
            memset.push(rate(memset_bytes, baseline::memset(memset_bytes as usize)?));
            memfd.turn(Kind::Memfd, &crowd, shape, write)?;
        }
        huge.turn(Kind::Huge, &crowd, shape, write)?;
        ours.turn(&owner, &crowd, shape, write)?;
    }
    let mut report = Report::new("revoke");
    report.param("bytes", shape.bytes);
    report.param("mappers", shape.mappers);
    report.param("busy", shape.busy);
    report.param("rounds", rounds);
    report.param("access", if write { "rw" } else { "r" });
    report.param("tier", crate::output::json::word(&tier));
    report.param("bare_cut_priority", if is_real_time() { "real-time" } else { "ordinary" });
    report.param("load_1m", machine::load());
    tell(&mut report, ours, [huge, memfd], &Spread::of(memset), shape, tier);
    Ok(report)
}

/// A node with room for one region, that lets the mappers in, whose owner may share as much as it takes.
fn start(scratch: &Path, shape: Shape) -> Result<Spawned> {
    let allow = crowd::uids(shape.mappers).map(|uids| format!("[node]\nallow_uids = {uids:?}\n"));
    let Shape { bytes, mappers, .. } = shape;
    let (leased, shared) = (2 * bytes, bytes * u64::from(mappers));
    let config = format!(
        "{}[quota.default]\nleased_bytes = \"{leased}\"\nresident_bytes = \"{leased}\"\nshared_bytes = \"{shared}\"\n",
        allow.unwrap_or_default()
    );
    Spawned::start(scratch, "bench", (2 * bytes).max(policy::limits::POOL_BYTES_MIN), Some(&config))
}

fn is_real_time() -> bool {
    provider::mem::rt::is_allowed()
}

/// Bytes a second.
fn rate(bytes: u64, micros: f64) -> f64 {
    bytes as f64 / (micros / 1e6)
}

impl Ours {
    fn turn(&mut self, owner: &Member, crowd: &Crowd, shape: Shape, write: bool) -> Result<()> {
        let options = LeaseOptions::new(shape.bytes, LEASE_TTL).lifetime(Lifetime::Detached);
        let leased = owner.client.lease(options)?;
        let rights = if write { Rights::READ_WRITE } else { Rights::READ };
        let offer = |receiver| {
            let options = ShareOptions::new(receiver, rights);
            let grant = owner.client.share_offer(&leased.lease, &options, &owner.key)?;
            Ok(Order::MapGrant { grant: grant.id, write })
        };
        let orders = crowd.keys().map(offer).collect::<Result<Vec<_>>>()?;
        self.huge_bytes = crowd.map(orders, None)?;
        let reason = Reason::new("the benchmark takes it back")?;
        let revoke = || owner.client.revoke(Target::Lease(leased.lease.id), reason);
        let seen = crowd.watch(|| (), revoke)?;
        crowd.forget()?;

        let receipt = &seen.answer.body;
        self.dead.push(seen.dead_us());
        self.receipt.push(seen.returned_us());
        self.wipe.push(seen.rest_us());
        self.fence.push(receipt.fence.0 as f64);
        self.cut.push(receipt.dead.0 as f64);
        self.beyond.push((seen.alive_us() - receipt.dead.0 as f64).max(0.0));
        self.outlived += seen.outlived;
        self.uncounted += u64::from(receipt.mappings_closed.abs_diff(shape.mappers));
        self.unwiped += shape.bytes.saturating_sub(receipt.wiped_bytes);
        self.touched_after += usize::from(seen.alive_ns > seen.returned_ns);
        Ok(())
    }
}

impl Bare {
    fn turn(&mut self, kind: Kind, crowd: &Crowd, shape: Shape, write: bool) -> Result<()> {
        let file = baseline::file(kind, shape.bytes)?;
        let orders = std::iter::repeat_with(|| Order::MapFile { bytes: shape.bytes, write });
        self.huge_bytes = crowd.map(orders, Some(file.as_fd()))?;
        let prepare = || drop(provider::mem::rt::raise_this_thread()); // ordinary where that is not allowed
        let seen: Seen<()> = crowd.watch(prepare, || baseline::cut(&file))?;
        crowd.forget()?;
        self.dead.push(seen.dead_us());
        self.call.push(seen.returned_us());
        self.outlived += seen.outlived;
        Ok(())
    }
}

fn tell(report: &mut Report, ours: Ours, bare: [Bare; 2], memset: &Spread, shape: Shape, tier: Tier) {
    let [dead, receipt, wipe, fence, cut, beyond] =
        [ours.dead, ours.receipt, ours.wipe, ours.fence, ours.cut, ours.beyond].map(Times::of);
    report.headline(&dead);
    report.ours("dead", dead.json(), dead.text());
    report.ours("receipt", receipt.json(), receipt.text());
    report.ours("receipt_p50_us", json!(round(receipt.p50())), micros(receipt.p50()));
    report.ours("wiped_after_dead", wipe.json(), wipe.text());
    report.ours("receipt_fence_us", fence.json(), fence.text());
    report.ours("receipt_dead_us", cut.json(), cut.text());
    report.ours("touched_beyond_receipt_dead_us", beyond.json(), beyond.text());
    report.ours("huge_bytes", json!(ours.huge_bytes), ours.huge_bytes.to_string());
    report.ours("outlived", json!(ours.outlived), ours.outlived.to_string());
    let [huge, memfd] = bare.map(|bare| {
        let json = |dead: &Times, call: &Times| {
            let mut json = dead.json();
            json["call"] = call.json();
            json["huge_bytes"] = json!(bare.huge_bytes);
            json["outlived"] = json!(bare.outlived);
            json
        };
        let (dead, call) = (Times::of(bare.dead), Times::of(bare.call));
        (json(&dead, &call), dead, call)
    });
    report.theirs("ftruncate_huge", huge.0, format!("{}; call {}", huge.1.text(), micros(huge.2.p50())));
    report.theirs("memfd_4k", memfd.0, format!("{}; call {}", memfd.1.text(), micros(memfd.2.p50())));
    report.theirs(
        "memset",
        json!({"bytes_per_s": memset.median().round(), "min": memset.min().round(), "max": memset.max().round()}),
        format!("{:.1} GB/s ({:.1} to {:.1})", memset.median() / 1e9, memset.min() / 1e9, memset.max() / 1e9),
    );
    let large = shape.bytes >= LARGE_BYTES;
    let when = |bound| large.then_some(bound);
    report.ratio("time_vs_ftruncate_huge", dead.p50() / huge.1.p50(), when(VS_HUGE));
    report.ratio("time_vs_memfd_4k", dead.p50() / memfd.1.p50(), when(VS_SMALL_PAGES));
    report.ratio("rate_vs_memset", rate(shape.bytes, wipe.p50()) / memset.median(), when(WIPE));
    if shape.bytes <= SMALL_BYTES {
        report.bound("receipt_p50_us", receipt.p50(), RECEIPT);
    }
    report.bound("touched_after_receipt", ours.touched_after as f64, NEVER);
    report.bound("mappings_miscounted", ours.uncounted as f64, NEVER);
    if tier == Tier::Sealed {
        report.bound("unwiped_bytes", ours.unwiped as f64, NEVER);
    }
}
