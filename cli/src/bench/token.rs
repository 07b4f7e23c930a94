//! `bench token`: what it costs to believe a token, and to refuse one.
//!
//! *Cold*: gate, every signature, one decision, as for a token that a provider sees for the first time; beside it, in
//! turns, the token library alone on the same bytes: parsed, verified, decided by Datalog, with its root key and policy
//! prepared beforehand. *Open*: one decision by a token that a session has verified. *Hostile*: everything in
//! `caps::token::hostile::set`, which anybody or any holder of a genuine token can send.
//!
//! Nothing here waits, so costs are counted on the thread's own processor clock: what else runs is not in them. A time
//! of less than a microsecond is that of many repetitions. The figure for a token is the median of its turns; the worst
//! of all is the largest of those medians, because one turn also counts interrupts.

use caps::error::{Error, Result};
use caps::token::hostile::{self, Hostile};
use caps::token::sample::{self, Honest};
use caps::token::yardstick::Library;
use caps::token::{RootKeys, gate};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::numbers::{Spread, Times, micros, round};
use super::report::{Bound, Report};

/// Turns of everything.
pub const ROUNDS: u32 = 200;
/// Decisions of an open session in one sample.
const DECISIONS: u32 = 10_000;
/// Cold, over the library alone.
const COLD: Bound = Bound::AtMost(1.25);
/// A decision of an open session, in nanoseconds.
const OPEN: Bound = Bound::AtMost(100.0);
/// Hostile tokens that one core puts through the gate in a second.
const GATE: Bound = Bound::AtLeast(20_000.0);
/// Microseconds of processor for a token that needs no genuine one to be made, or that the gate refuses.
const REFUSED: Bound = Bound::AtMost(300.0);
/// Microseconds of processor for a token that is accepted, or whose signatures have to be checked to the last.
const ACCEPTED: Bound = Bound::AtMost(1_000.0);

pub fn bench(rounds: u32) -> Result<Report> {
    let keys = sample::keys()?;
    let mut shapes =
        sample::honest()?.into_iter().map(|honest| Shape::new(honest, &keys)).collect::<Result<Vec<_>>>()?;
    let mut attacks = hostile::set()?.into_iter().map(Attack::new).collect::<Vec<_>>();
    let session = gate(shapes[0].honest.token.as_bytes())?.verify(&keys)?;
    let request = shapes[0].honest.request;
    let (mut opens, mut gates) = (Vec::new(), Vec::new());
    for round in 0..rounds.saturating_add(1) {
        let warm = round > 0; // The first turn of everything is not measured.
        for shape in &mut shapes {
            shape.turn(&keys, warm)?;
        }
        let (took, ()) = spent(|| {
            for _ in 0..DECISIONS {
                let _ = std::hint::black_box(session.authorize(std::hint::black_box(&request)));
            }
        });
        let (gated, ()) = spent(|| {
            for attack in &attacks {
                let _ = std::hint::black_box(gate(std::hint::black_box(&attack.hostile.bytes)));
            }
        });
        for attack in &mut attacks {
            attack.turn(&keys, warm)?;
        }
        if warm {
            opens.push(took / f64::from(DECISIONS));
            gates.push(attacks.len() as f64 * 1e6 / gated);
        }
    }
    let mut report = Report::new("token");
    report.param("rounds", rounds);
    report.param("hostile_tokens", attacks.len());
    report.param("clock", "of the thread's processor time");
    let mut accepted = 0.0_f64;
    for shape in shapes {
        let Shape { honest, ours, theirs, .. } = shape;
        let (name, ours, theirs) = (honest.name, Times::of(ours), Times::of(theirs));
        if name == "1_block" {
            report.headline(&ours);
        }
        accepted = accepted.max(ours.p50());
        let mut figures = ours.json();
        figures["token_bytes"] = json!(honest.token.as_bytes().len());
        report.ours(&format!("cold_{name}"), figures, ours.text());
        report.theirs(&format!("biscuit_{name}"), theirs.json(), theirs.text());
        report.ratio(&format!("time_vs_biscuit_{name}"), ours.p50() / theirs.p50(), Some(COLD));
    }
    let opens = Times::of(opens);
    report.ours("open_session", opens.json(), opens.text());
    let gates = Spread::of(gates);
    report.ours(
        "gate_hostile",
        json!({"per_s": round(gates.median()), "per_s_min": round(gates.min()), "per_s_max": round(gates.max())}),
        format!("{:.0} per s of a core ({:.0} to {:.0})", gates.median(), gates.min(), gates.max()),
    );
    let refused = refusals(&mut report, attacks);
    report.bound("open_session_ns", opens.p50() * 1e3, OPEN);
    report.bound("gate_hostile_per_s", gates.median(), GATE);
    report.bound("cpu_refused_max_us", refused.cheap, REFUSED);
    report.bound("cpu_refused_at_last_signature_max_us", refused.dear, ACCEPTED);
    report.bound("cpu_accepted_max_us", accepted, ACCEPTED);
    Ok(report)
}

/// The largest medians of microseconds.
struct Refused {
    cheap: f64,
    dear: f64,
}

/// Reports the worst of either kind: refused for what it is, and refused only when its signatures were checked.
fn refusals(report: &mut Report, attacks: Vec<Attack>) -> Refused {
    let mut refused = Refused { cheap: 0.0, dear: 0.0 };
    let (genuine, others): (Vec<_>, Vec<_>) =
        attacks.into_iter().partition(|attack| attack.hostile.genuine_prefix);
    for (name, attacks, worst) in
        [("refused", others, &mut refused.cheap), ("refused_at_last_signature", genuine, &mut refused.dear)]
    {
        let medians = attacks.into_iter().map(|attack| (Times::of(attack.took), attack.hostile.name));
        let Some((times, what)) = medians.max_by(|(one, _), (other, _)| one.p50().total_cmp(&other.p50()))
        else {
            continue;
        };
        *worst = times.p50();
        let mut figures = times.json();
        figures["worst"] = json!(what);
        report.ours(name, figures, format!("worst, {what}: {}", times.text()));
    }
    tracing::debug!(cheap = micros(refused.cheap), dear = micros(refused.dear), "measured");
    refused
}

/// An honest token, by both sides.
struct Shape {
    honest: Honest,
    biscuit: Library,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Shape {
    fn new(honest: Honest, keys: &RootKeys) -> Result<Self> {
        let verified = gate(honest.token.as_bytes())?.verify(keys)?;
        let biscuit = Library::new(verified, keys, honest.request)?;
        Ok(Self { honest, biscuit, ours: Vec::new(), theirs: Vec::new() })
    }

    fn turn(&mut self, keys: &RootKeys, warm: bool) -> Result<()> {
        let bytes = self.honest.token.as_bytes();
        let (ours, allowed) = spent(|| gate(bytes)?.verify(keys)?.authorize(&self.honest.request));
        let (theirs, decided) = spent(|| self.biscuit.decide(bytes));
        let _evidence = allowed?;
        decided?;
        if warm {
            self.ours.push(ours);
            self.theirs.push(theirs);
        }
        Ok(())
    }
}

/// A hostile token.
struct Attack {
    hostile: Hostile,
    took: Vec<f64>,
}

impl Attack {
    const fn new(hostile: Hostile) -> Self {
        Self { hostile, took: Vec::new() }
    }

    fn turn(&mut self, keys: &RootKeys, warm: bool) -> Result<()> {
        let (took, verdict) = spent(|| gate(&self.hostile.bytes).and_then(|gated| gated.verify(keys)));
        match verdict {
            Err(error) if error.code() == self.hostile.code => {}
            _ => {
                return Err(Error::new(
                    caps::Code::Internal,
                    "a hostile token was not refused as it must be",
                ));
            }
        }
        if warm {
            self.took.push(took);
        }
        Ok(())
    }
}

/// Microseconds of this thread's processor for `work`.
fn spent<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let began = now();
    let result = work();
    (now() - began, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the figures come to is for a build that is optimised; that they are there is for every one.
    #[test]
    fn a_turn_measures_everything() {
        let report = bench(1).unwrap();
        report.print(true).unwrap();
        let (took, sum) = spent(|| (0..1_000_000_u64).map(std::hint::black_box).sum::<u64>());
        assert!(took > 0.0 && sum > 0);
    }
}
