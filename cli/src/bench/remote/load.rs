//! Many sessions: what idle ones cost, what is left under too many requests, and what slow peers take from the others.
//!
//! ```text
//!                    ┌── idle: 10,000 sessions that do nothing      (processes of 5,000)
//! node ◀── TLS ──────┼── crowd: 500 that read, each one request at a time; then ten times as many
//!                    ├── slow: 1,000 that say or take too little
//!                    └── honest: 16 of the client library, in the benchmark's own process
//! ```

use std::time::Duration;

use caps::error::Result;
use policy::limits::{FDS_REMOTE_MAX, REMOTE_SESSIONS_PER_NETWORK_MAX, REMOTE_WAIT_MS_MAX};
use serde_json::json;

use super::child::{Order, Process};
use super::crowd::Loaded;
use super::many::CONNECTIONS;
use super::side::{What, visits};
use super::stage::{Stage, Who};
use super::{Shape, idle, tell};
use crate::bench::machine;
use crate::bench::numbers::{Spread, Times, micros, round};
use crate::bench::report::{Bound, Report};

/// Sessions of one process of idle ones.
const IDLE_EACH: usize = 5_000;
/// Bytes of a read under load.
const BYTES: u64 = 4 << 10;
/// Requests under way on each session when too much is asked, where it is one otherwise. What is asked before the node has
/// time for it waits with its client, in the sockets: so a node that keeps up with what it has read refuses nothing, and
/// that no request waits for longer than [`WAITED_US`], answered or refused, is what shows that it sheds load.
const TOO_MUCH: usize = 10;
/// KiB resident of each idle session.
const IDLE_KIB: Bound = Bound::AtMost(40.0);
/// Good answers a second of those without the overload.
const KEPT: Bound = Bound::AtLeast(0.8);
/// From asking to `E_BUSY`, in microseconds.
const BUSY_US: Bound = Bound::AtMost(50_000.0);
/// From asking to any answer when too much is asked, in microseconds: as long as the node lets a request wait.
const WAITED_US: Bound = Bound::AtMost(REMOTE_WAIT_MS_MAX as f64 * 1e3);
/// What honest clients lose by slow peers, of their operations a second.
const LOST: Bound = Bound::AtMost(0.2);
/// Reads of an honest session there, before its client leaves and comes again.
const VISIT: usize = 256;
const TURN: Duration = Duration::from_secs(2);
const QUICK: Duration = Duration::from_millis(200);
const TURNS: usize = 3;
/// Sessions that are tried to begin when there is no place left.
const KNOCKS: usize = 100;
/// Descriptors of a node and of its clients beside their sessions, where these are few.
const SPARE: u64 = 4_096;

/// How many sessions there are of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    pub idle: usize,
    pub active: usize,
    pub slow: usize,
}

impl Many {
    pub const FULL: Self = Self { idle: 10_000, active: 500, slow: 1_000 };
    /// Where descriptors are few.
    pub const FEW: Self = Self { idle: 1_000, active: 250, slow: 400 };
    pub const QUICK: Self = Self { idle: 20, active: 5, slow: 8 };

    /// All of them, with the benchmark's own.
    pub const fn sum(self) -> usize {
        self.idle + self.active + self.slow + 4 * CONNECTIONS
    }
}

/// Measures.
pub fn measure(stage: &Stage, shape: &Shape, report: &mut Report) -> Result<()> {
    let turn = if shape.quick { QUICK } else { TURN };
    let idle = idle(stage, shape.many.idle, report)?;
    overload(stage, shape.many.active, turn, report)?;
    // Elsewhere nobody is refused: a node whose places are not taken lets everybody in.
    if shape.many.idle == Many::FULL.idle {
        refused(stage, shape.many, report)?;
    }
    drop(idle);
    slow(stage, shape.many.slow, turn, report)
}

/// Proves idle sessions and looks at the node's memory before and after. They stay as long as what is returned.
fn idle(stage: &Stage, sessions: usize, report: &mut Report) -> Result<Vec<Process>> {
    let pid = stage.node.pid()?;
    let before = machine::resident_bytes(pid)?;
    let guest = stage.node.honest.guest(stage.node.address);
    let shares = (0..sessions).step_by(IDLE_EACH).map(|from| IDLE_EACH.min(sessions - from));
    let mut processes: Vec<_> = shares
        .map(|sessions| Process::start(&Order::Idle { guest: guest.clone(), sessions }))
        .collect::<Result<_>>()?;
    let stand = processes.iter_mut().map(Process::stands).sum::<Result<usize>>()?;
    let kib = (machine::resident_bytes(pid)? - before) as f64 / 1024.0 / stand.max(1) as f64;
    let value = json!({ "sessions": stand, "resident_kib_each": round(kib) });
    tell(report, Who::Leasehold, "idle", value, format!("{stand} sessions, {kib:.1} KiB resident each"));
    report.bound("idle_resident_kib_each", kib, IDLE_KIB);
    Ok(processes)
}

/// As many requests as the node can answer at once, and ten times as many.
fn overload(stage: &Stage, sessions: usize, turn: Duration, report: &mut Report) -> Result<()> {
    let guest = stage.node.honest.guest(stage.node.address);
    let mut crowd = Process::start(&Order::Crowd { guest, sessions })?;
    crowd.stands()?;
    let ms = turn.as_millis() as u64;
    crowd.load(BYTES, 1, ms.div_ceil(4))?; // not measured: the first of everything
    let (mut before, mut under) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        before.push(crowd.load(BYTES, 1, ms)?);
        under.push(crowd.load(BYTES, TOO_MUCH, ms)?);
    }
    let goodput = |loads: &[Loaded]| Spread::of(loads.iter().map(Loaded::goodput).collect()).median();
    let (normal, kept) = (goodput(&before), goodput(&under));
    for (name, loads, per_s) in [("active", &before, normal), ("overload", &under, kept)] {
        let sum = |count: fn(&Loaded) -> u64| loads.iter().map(count).sum::<u64>();
        let most = |time: fn(&Loaded) -> f64| loads.iter().map(time).fold(0.0, f64::max);
        let value = json!({
            "sessions": sessions,
            "good_per_s": round(per_s),
            "good": sum(|load| load.good),
            "busy": sum(|load| load.busy),
            "failed": sum(|load| load.failed),
            "ended": sum(|load| load.ended),
            "good_p99_us": round(most(|load| load.good_p99_us)),
            "good_max_us": round(most(|load| load.good_max_us)),
            "busy_max_us": round(most(|load| load.busy_max_us)),
        });
        let text = format!(
            "{sessions} sessions, {per_s:.0} good per s, {} refused (at most {}), {} failed, {} ended",
            sum(|load| load.busy),
            micros(most(|load| load.busy_max_us)),
            sum(|load| load.failed),
            sum(|load| load.ended)
        );
        tell(report, Who::Leasehold, name, value, text);
    }
    report.bound("overload_goodput_kept", kept / normal.max(f64::MIN_POSITIVE), KEPT);
    const BUSY_MAX: &str = "overload_busy_max_us";
    if under.iter().any(|load| load.busy > 0) {
        report.bound(BUSY_MAX, under.iter().map(|load| load.busy_max_us).fold(0.0, f64::max), BUSY_US);
    } else {
        report.not_measured(BUSY_MAX, BUSY_US);
    }
    report.bound(
        "overload_waited_max_us",
        under.iter().map(|load| load.busy_max_us.max(load.good_max_us)).fold(0.0, f64::max),
        WAITED_US,
    );
    Ok(())
}

/// Takes the places that are left, so that who comes then is refused, and looks at how long that takes while the node has
/// all of them. The idle sessions stand.
fn refused(stage: &Stage, many: Many, report: &mut Report) -> Result<()> {
    let guest = stage.node.honest.guest(stage.node.address);
    let sessions = REMOTE_SESSIONS_PER_NETWORK_MAX.saturating_sub(many.idle);
    let mut rest = Process::start(&Order::Idle { guest: guest.clone(), sessions })?;
    let stand = rest.stands()?;
    let (let_in, refused) = Process::start(&Order::Knock { guest, times: KNOCKS })?.knocked()?;
    let refused = Times::of(refused);
    let value = json!({
        "sessions": many.idle + stand,
        "let_in": let_in,
        "refused": refused.len(),
        "p50_us": round(refused.p50()),
        "max_us": round(refused.max()),
    });
    let text =
        format!("{} of {KNOCKS} beyond {} sessions; {}", refused.len(), many.idle + stand, refused.text());
    tell(report, Who::Leasehold, "refused", value, text);
    report.bound("refused_session_max_us", refused.max(), BUSY_US);
    Ok(())
}

/// The same honest clients alone, and beside slow peers. They come and go: to be let in is what slow peers are in the way of.
fn slow(stage: &Stage, peers: usize, turn: Duration, report: &mut Report) -> Result<()> {
    let address = stage.node.address;
    let connect = || stage.connect(Who::Leasehold, address);
    let honest = |what| visits(CONNECTIONS, &connect, what, VISIT, turn);
    let what = What::Read(BYTES as usize);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        alone.push(honest(what)?);
        let guest = stage.node.slow.guest(address);
        let mut slow = Process::start(&Order::Slow { guest, peers })?;
        slow.stands()?;
        beside.push(honest(what)?);
    }
    let (alone, beside) = (Spread::of(alone).median(), Spread::of(beside).median());
    let lost = 1.0 - beside / alone.max(f64::MIN_POSITIVE);
    let value = json!({ "peers": peers, "alone_per_s": round(alone), "beside_per_s": round(beside) });
    let text = format!("{peers} peers: {beside:.0} per s of honest clients, {alone:.0} without");
    tell(report, Who::Leasehold, "slow_peers", value, text);
    report.bound("slow_peers_honest_lost", lost, LOST);
    Ok(())
}

/// As many as the descriptors of this machine allow, and what is said of that.
pub fn possible(many: Many) -> (Many, String) {
    // The node has the limit that this process has when it is started, and gives at most half of it to sessions.
    let wanted = if many.idle < Many::FULL.idle { 3 * many.sum() as u64 + SPARE } else { 2 * FDS_REMOTE_MAX };
    match idle::raise(wanted) {
        Ok(()) => (many, format!("{} idle, {} active, {} slow", many.idle, many.active, many.slow)),
        Err(error) => (Many::FEW, format!("fewer than they should be: {}", error.detail())),
    }
}
