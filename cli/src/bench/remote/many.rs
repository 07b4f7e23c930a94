//! Sixteen connections: operations a second, and what one of them costs the server in processor time.

use std::time::Duration;

use caps::error::Result;
use serde_json::json;

use super::side::{Side, What, together};
use super::stage::{Stage, Who};
use super::{Shape, tell};
use crate::bench::machine;
use crate::bench::numbers::{Spread, round};
use crate::bench::report::{Bound, Report};

/// Connections, each with a thread that waits for its answers.
pub const CONNECTIONS: usize = 16;
const WHAT: What = What::Read(4 << 10);
/// How long each side has in a turn.
const TURN: Duration = Duration::from_secs(2);
const QUICK: Duration = Duration::from_millis(200);
const TURNS_MAX: u32 = 5;
/// Operations a second over those of Redis.
const VS_REDIS: Bound = Bound::AtLeast(1.2);

pub fn measure(stage: &Stage, shape: &Shape, report: &mut Report) -> Result<()> {
    let who = stage.who();
    let connect = |&who: &Who| {
        (0..CONNECTIONS).map(|_| stage.connect(who, stage.address(who)?)).collect::<Result<Vec<_>>>()
    };
    let mut sides: Vec<Vec<Box<dyn Side>>> = who.iter().map(connect).collect::<Result<_>>()?;
    let turn = if shape.quick { QUICK } else { TURN };
    let mut found = vec![(Vec::new(), Vec::new()); who.len()];
    for round in 0..shape.rounds.min(TURNS_MAX) as usize {
        for n in 0..who.len() {
            let n = (round + n) % who.len();
            let pid = stage.pid(who[n])?;
            let before = machine::processor_us(pid)?;
            let per_s = together(&mut sides[n], WHAT, turn)?;
            let used = machine::processor_us(pid)? - before;
            found[n].0.push(per_s);
            found[n].1.push(used / (per_s * turn.as_secs_f64()));
        }
    }
    let found: Vec<_> =
        found.into_iter().map(|(rates, costs)| (Spread::of(rates), Spread::of(costs))).collect();
    for (&who, (rate, cost)) in who.iter().zip(&found) {
        let value = json!({
            "per_s": round(rate.median()),
            "per_s_min": round(rate.min()),
            "per_s_max": round(rate.max()),
            "server_cpu_us": round(cost.median()),
        });
        let text = format!(
            "{:.0} per s ({:.0} to {:.0}), {:.1} us of the server's processors each",
            rate.median(),
            rate.min(),
            rate.max(),
            cost.median()
        );
        tell(report, who, "clients_16_read_4k", value, text);
    }
    for (&who, (theirs, _)) in who.iter().zip(&found).skip(1) {
        let ratio = found[0].0.median() / theirs.median().max(f64::MIN_POSITIVE);
        let bound = (who == Who::Redis).then_some(VS_REDIS);
        report.ratio(&format!("clients_16_read_4k_rate_vs_{}", who.name()), ratio, bound);
    }
    Ok(())
}
