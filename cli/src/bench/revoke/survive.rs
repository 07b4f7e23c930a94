//! `bench revoke --survivors`: one of several holders loses its right while the others write at full speed.
//!
//! In turns: one more principal is given the lease, maps it, touches its last page without pause and is revoked, by
//! rotation; and the bare `ftruncate(0)` of an equal file that the same processes have mapped, write and touch. What
//! is compared is how long that one process goes on; the survivors of the bare cut are dead, those of a rotation say
//! how long the longest pause between two of their writes was. Each write is judged: see [`stripes`](super::stripes).

use std::os::fd::AsFd;
use std::path::Path;

use caps::error::{Code, Error, Result};
use caps::id::GrantId;
use caps::rights::Rights;
use caps::wire::Reason;
use caps::wire::link::Method;
use caps::wire::row::{Target, Tier};
use libmem::{LeaseOptions, Leased, Lifetime, ShareOptions};
use serde_json::json;

use super::baseline::{self, Kind};
use super::crowd::{Crowd, Seen};
use super::message::{Order, Side};
use super::stripes::{Found, Stripes};
use super::{Shape, is_real_time, start};
use crate::bench::crew::{LEASE_TTL, Member};
use crate::bench::machine;
use crate::bench::numbers::{Times, micros, round};
use crate::bench::report::{Bound, Report};

pub const ROUNDS: u32 = 50;

/// Call to the revoked holder dead, medians.
const VS_HUGE: Bound = Bound::AtMost(2.0);
/// The longest pause of a survivor in a rotation, p99 in microseconds.
const RESUME: Bound = Bound::AtMost(60_000.0);
const NEVER: Bound = Bound::AtMost(0.0);

#[derive(Default)]
struct Ours {
    dead: Vec<f64>,
    receipt: Vec<f64>,
    fence: Vec<f64>,
    cut: Vec<f64>,
    resume: Vec<f64>,
    unwiped: u64,
    touched_after: usize,
    not_rotated: usize,
}

pub fn bench(scratch: &Path, rounds: u32, survivors: u8, bytes: u64) -> Result<Report> {
    let shape = Shape { bytes, mappers: u32::from(survivors) + 1, busy: 1 };
    let node = start(scratch, shape)?;
    if node.admin()?.status()?.tier != Tier::Sealed {
        let help =
            "survivors of other users map for writing, which takes the tier sealed; see leasehold doctor";
        return Err(Error::new(Code::MediatedOnly, help));
    }
    let owner = Member::join(&node, "owner")?;
    let crowd = Crowd::gather(&node, shape.mappers, shape.busy)?;
    let options = LeaseOptions::new(bytes, LEASE_TTL).lifetime(Lifetime::Detached);
    let leased = owner.client.lease(options)?;
    let survive = (0..survivors)
        .zip(crowd.keys())
        .map(|(writer, key)| {
            let grant = offer(&owner, &leased, key, Rights::READ_WRITE)?;
            Ok(Order::SurviveGrant { grant, writer, writers: survivors })
        })
        .collect::<Result<Vec<_>>>()?;
    crowd.map(survive, None)?;

    let (mut ours, mut dead, mut call) = (Ours::default(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let seen = bare(&crowd, survivors, bytes)?;
        dead.push(seen.dead_us());
        call.push(seen.returned_us());
        ours.turn(&owner, &leased, &crowd, bytes)?;
    }
    let (mut steps, mut found, mut by_owner) = (0, Found::default(), Found::default());
    let region = owner.client.open_mapped(&leased.token, Rights::READ)?;
    for (writer, (written, judged)) in (0..).zip(crowd.judge()?) {
        steps += written;
        found += judged;
        by_owner += Stripes::new(writer, survivors, region.mapping().len())?
            .after(written)
            .verify(region.mapping())?;
    }
    // What the owner sees is what the writers saw last, or it is lost to the owner.
    (found.lost, found.torn) = (found.lost.max(by_owner.lost), found.torn.max(by_owner.torn));

    let mut report = Report::new("revoke");
    report.param("bytes", bytes);
    report.param("survivors", survivors);
    report.param("rounds", rounds);
    report.param("tier", "sealed");
    report.param("bare_cut_priority", if is_real_time() { "real-time" } else { "ordinary" });
    report.param("load_1m", machine::load());
    tell(&mut report, ours, Times::of(dead), &Times::of(call), steps, found);
    Ok(report)
}

fn offer(owner: &Member, leased: &Leased, to: caps::id::PrincipalKey, rights: Rights) -> Result<GrantId> {
    let options = ShareOptions::new(to, rights);
    owner.client.share_offer(&leased.lease, &options, &owner.key).map(|grant| grant.id)
}

/// The bare cut of a file that all of them use in the same way.
fn bare(crowd: &Crowd, survivors: u8, bytes: u64) -> Result<Seen<()>> {
    let file = baseline::file(Kind::Huge, bytes)?;
    let orders = (0..survivors)
        .map(|writer| Order::SurviveFile { bytes, writer, writers: survivors })
        .chain([Order::MapFile { bytes, write: false }]);
    crowd.map(orders, Some(file.as_fd()))?;
    crowd.others(&Order::Go { side: Side::File })?;
    let prepare = || drop(provider::mem::rt::raise_this_thread()); // ordinary where that is not allowed
    let seen = crowd.watch_busy(prepare, || baseline::cut(&file))?;
    crowd.others(&Order::Halt { side: Side::File })?;
    crowd.forget()?;
    Ok(seen)
}

impl Ours {
    fn turn(&mut self, owner: &Member, leased: &Leased, crowd: &Crowd, bytes: u64) -> Result<()> {
        let victim = crowd.keys().last().ok_or(Error::new(Code::Internal, "a crowd has a victim"))?;
        let grant = offer(owner, leased, victim, Rights::READ)?;
        crowd.map_last(Order::MapGrant { grant, write: false })?;
        crowd.others(&Order::Go { side: Side::Lease })?;
        crowd.advance()?; // and forget the pauses so far
        let reason = Reason::new("the benchmark takes it back")?;
        let seen = crowd.watch_busy(|| (), || owner.client.revoke(Target::Grant(grant), reason))?;
        self.resume.extend(crowd.advance()?);
        crowd.others(&Order::Halt { side: Side::Lease })?;
        crowd.forget()?;

        let receipt = &seen.answer.body;
        self.dead.push(seen.dead_us());
        self.receipt.push(seen.returned_us());
        self.fence.push(receipt.fence.0 as f64);
        self.cut.push(receipt.dead.0 as f64);
        self.unwiped += bytes.saturating_sub(receipt.wiped_bytes);
        self.touched_after += usize::from(seen.alive_ns > seen.returned_ns);
        self.not_rotated += usize::from(receipt.method != Method::Rotate);
        Ok(())
    }
}

fn tell(report: &mut Report, ours: Ours, bare_dead: Times, bare_call: &Times, steps: u64, found: Found) {
    let rotations = ours.receipt.len() as f64;
    let per_s = rotations / (ours.receipt.iter().sum::<f64>() / 1e6);
    let [dead, receipt, fence, cut, resume] =
        [ours.dead, ours.receipt, ours.fence, ours.cut, ours.resume].map(Times::of);
    report.headline(&dead);
    report.ours("dead", dead.json(), dead.text());
    report.ours("receipt", receipt.json(), receipt.text());
    report.ours("receipt_fence_us", fence.json(), fence.text());
    report.ours("receipt_dead_us", cut.json(), cut.text());
    report.ours("survivor_resume", resume.json(), resume.text());
    report.ours("rotations_per_s", json!(round(per_s)), format!("{per_s:.1}"));
    report.ours("survivor_writes", json!(steps), steps.to_string());
    report.ours("survivor_writes_whole", json!(found.whole), found.whole.to_string());
    let mut json = bare_dead.json();
    json["call"] = bare_call.json();
    let text = format!("{}; call {}", bare_dead.text(), micros(bare_call.p50()));
    report.theirs("ftruncate_huge", json, text);
    report.ratio("time_vs_ftruncate_huge", dead.p50() / bare_dead.p50(), Some(VS_HUGE));
    // The same without the way of the call to the node and the wait for a processor.
    report.ratio("receipt_dead_time_vs_ftruncate_call", cut.p50() / bare_call.p50(), Some(VS_HUGE));
    report.bound("survivor_resume_p99_us", resume.p99(), RESUME);
    report.bound("survivor_writes_lost", found.lost as f64, NEVER);
    report.bound("survivor_writes_torn", found.torn as f64, NEVER);
    report.bound("touched_after_receipt", ours.touched_after as f64, NEVER);
    report.bound("not_rotated", ours.not_rotated as f64, NEVER);
    report.bound("unwiped_bytes", ours.unwiped as f64, NEVER);
}
