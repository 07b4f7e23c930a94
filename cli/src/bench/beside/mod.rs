//! `bench beside`: is a region's take-back slower because somebody hostile holds another one?
//!
//! In turns: a neighbour's region that an honest process has mapped, and one that a hostile process holds; each time
//! other regions are taken back beside it, and at last the neighbour's. The hostile process is no part of this program:
//! it is whatever COMMAND starts, and speaks as `neighbour` says.
//!
//! ```text
//!           ┌─ landlord ── the neighbour's region ──┬── honest neighbour, or COMMAND
//! beside ───┤                                       └── witness: loses it to a rotation, or keeps it
//!           └─ owner ───── another region, again and again ── mapper: touches it until it is gone
//!
//! a turn:   (rotation) ── cut, cut, cut, cut, cut ── neighbour's region ends
//!           and a cut                                and a cut
//! ```
//!
//! | file | what |
//! |---|---|
//! | `neighbour` | the command, and what it and the benchmark say to each other |
//! | `turn` | a turn |
//!
//! # What is compared
//!
//! The bound is on `dead_us` of the other region's receipts: from when the provider has the call until the kernel says
//! that the page which the provider keeps mapped is gone. That is the cut, and whatever of the node's or the kernel's a
//! hostile holder could make it wait for: the provider's threads, locks of file systems and mappings, interrupts to the
//! processors that run a mapping, and, where the node may not use a real-time priority, processors.
//!
//! It is not all that a client sees. The call's way to the provider (the client's own thread, the session's task, the
//! broker, the log's disk) is not in it, and a hostile client that keeps processors or the broker busy makes that way
//! longer, as any busy client does: processors, the broker's queue and the disk are shared, within each one's quota. So the
//! time from the call until the mapper has seen its death, and until the receipt, are printed beside it with their
//! ratios, without a bound. On few processors they say mostly how long a client waits for one.
//!
//! The baseline is the same with an honest neighbour, in turns, in the same run: what a take-back beside another one, or
//! beside a rotation, costs anyway is on both sides.
//!
//! The neighbour's own region is held to the bounds of `policy/src/limits.rs`: dead within `KILL_MS_MAX`, after which
//! whoever holds a take-back up is killed; receipt within `RESERVATION_MS_MAX`, in which a take-back has to make room for
//! who waits for memory; a rotation's, which copies before it answers, while a client waits for it: `REQUEST_MS_DEFAULT`.

mod neighbour;
mod turn;

use std::ffi::OsString;
use std::path::Path;

use caps::error::Result;
use caps::wire::row::Tier;
use policy::limits;

use super::machine;
use super::numbers::Times;
use super::report::{Bound, Report};
use crate::node::Spawned;
use turn::{Cuts, Found, Own, Street};

pub use turn::Take;

pub const ROUNDS: u32 = 20;

/// `dead_us` of another region beside a hostile neighbour, over that beside an honest one, medians.
const VS_HONEST: Bound = Bound::AtMost(1.2);
const NEVER: Bound = Bound::AtMost(0.0);

/// Measures beside `command`, whose region has so many bytes.
///
/// # Errors
/// What kept it from being measured, a command that does not speak as it should included.
pub fn bench(scratch: &Path, rounds: u32, bytes: u64, take: Take, command: &[OsString]) -> Result<Report> {
    let bytes = bytes.next_multiple_of(limits::PAGE_BYTES);
    let node = start(scratch, bytes)?;
    let tier = node.admin()?.status()?.tier;
    // Elsewhere another user's process may map for reading only.
    let write = tier == Tier::Sealed;
    let mut street = Street::new(&node, bytes, write, take)?;
    let (mut honest, mut hostile) = (Found::default(), Found::default());
    for turn in 0..rounds {
        // Each is first as often as the other.
        if turn % 2 == 0 {
            street.turn(&mut honest, None)?;
            street.turn(&mut hostile, Some(command))?;
        } else {
            street.turn(&mut hostile, Some(command))?;
            street.turn(&mut honest, None)?;
        }
    }
    let mut report = Report::new("beside");
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    report.param("command", words.join(" "));
    report.param("bytes", bytes);
    report.param("taken", if take == Take::Lease { "lease" } else { "grant" });
    report.param("rounds", rounds);
    report.param("access", if write { "rw" } else { "r" });
    report.param("tier", crate::output::json::word(&tier));
    report.param("cut_priority", if provider::mem::rt::is_allowed() { "real-time" } else { "ordinary" });
    report.param("load_1m", machine::load());
    tell(&mut report, honest, hostile, take);
    Ok(report)
}

/// A node with room for the regions of a turn, and for what is still being wiped of the one before.
fn start(scratch: &Path, bytes: u64) -> Result<Spawned> {
    let allow = turn::uids().map(|uids| format!("[node]\nallow_uids = {uids:?}\n")).unwrap_or_default();
    let leased = limits::QUOTA_LEASED_BYTES_DEFAULT.max(4 * bytes);
    let config = format!(
        "{allow}[quota.default]\nleased_bytes = \"{leased}\"\nresident_bytes = \"{}\"\nshared_bytes = \"{}\"\n",
        2 * leased,
        4 * leased
    );
    Spawned::start(scratch, "bench", 6 * bytes + 4 * limits::POOL_BYTES_MIN, Some(&config))
}

fn tell(report: &mut Report, honest: Found, hostile: Found, take: Take) {
    let touched_after: usize = [&honest, &hostile]
        .iter()
        .flat_map(|found| [&found.beside, &found.during, &found.rotating])
        .map(|cuts| cuts.touched_after)
        .sum();
    report.headline(&Times::of(hostile.beside.dead.clone()));
    compare(report, "beside", honest.beside, hostile.beside);
    compare(report, "during_take_back", honest.during, hostile.during);
    compare(report, "during_rotation", honest.rotating, hostile.rotating);
    let receipt_ms = match take {
        Take::Lease => limits::RESERVATION_MS_MAX,
        Take::Grant => limits::REQUEST_MS_DEFAULT,
    };
    hold(report, "taken", honest.taken, hostile.taken, receipt_ms);
    hold(report, "rotated", honest.rotated, hostile.rotated, limits::REQUEST_MS_DEFAULT);
    report.bound("touched_after_receipt", touched_after as f64, NEVER);
}

/// Another region's cuts. Nothing is said of what the command did not ask for.
fn compare(report: &mut Report, when: &str, honest: Cuts, hostile: Cuts) {
    if hostile.dead.is_empty() {
        return;
    }
    let rows = [
        ("dead_us", honest.dead, hostile.dead, Some(VS_HONEST)),
        ("call_to_dead", honest.seen, hostile.seen, None),
        ("receipt", honest.receipt, hostile.receipt, None),
    ];
    for (what, honest, hostile, bound) in rows {
        let name = format!("other_{when}_{what}");
        let (honest, hostile) = both(report, &name, honest, hostile);
        // A cut that took less than the clock's microsecond took one.
        let ratio = hostile.p50().max(1.0) / honest.p50().max(1.0);
        report.ratio(&format!("{name}_time_vs_honest"), ratio, bound);
    }
}

/// What was taken back from the neighbour's own region.
fn hold(report: &mut Report, what: &str, honest: Own, hostile: Own, receipt_ms: u64) {
    if hostile.dead.is_empty() {
        return;
    }
    let rows = [
        ("dead_us", honest.dead, hostile.dead, limits::KILL_MS_MAX),
        ("receipt", honest.receipt, hostile.receipt, receipt_ms),
    ];
    for (side, honest, hostile, bound_ms) in rows {
        let name = format!("own_{what}_{side}");
        let (_, hostile) = both(report, &name, honest, hostile);
        report.bound(&format!("{name}_max_ms"), hostile.max() / 1e3, Bound::AtMost(bound_ms as f64));
    }
}

/// Rows of the same name for the honest neighbour and for the hostile one.
fn both(report: &mut Report, name: &str, honest: Vec<f64>, hostile: Vec<f64>) -> (Times, Times) {
    let (honest, hostile) = (Times::of(honest), Times::of(hostile));
    report.ours(name, hostile.json(), hostile.text());
    report.theirs(name, honest.json(), honest.text());
    (honest, hostile)
}
