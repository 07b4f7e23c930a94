//! One connection: how long a value takes, how many bytes come in a second, and how many of them are nobody's value.

use caps::error::Result;
use serde_json::{Value, json};

use super::relay::Relay;
use super::side::{Side, What, turns};
use super::stage::{Stage, Who};
use super::{Shape, tell};
use crate::bench::numbers::{Times, micros, round};
use crate::bench::report::{Bound, Report};

/// A name, what is measured, how often in a round, and what it must be of the bare server's and of Redis'.
type Row = (&'static str, What, usize, Option<f64>, Option<f64>);

/// What is measured as a time.
const LATENCIES: [Row; 3] = [
    ("read_64", What::Read(64), 200, Some(1.3), Some(0.6)),
    ("read_4k", What::Read(4 << 10), 200, Some(1.3), Some(0.6)),
    ("write_64k", What::Write(64 << 10), 20, None, None), // what it must be is known when it was measured: see `write`
];
/// The 99th of a hundred reads up to 4 KiB, in microseconds.
const P99: Bound = Bound::AtMost(100.0);
/// What is measured as a rate.
const RATES: [Row; 2] = [
    ("read_1m", What::Read(1 << 20), 10, Some(0.9), Some(2.0)),
    ("gather_64x64k", What::Gather, 4, None, Some(2.0)),
];
/// A write that takes longer than this in microseconds, over a loopback, waits for a timer: one side holds back the end of
/// a message until the beginning is acknowledged, and the other delays the acknowledgement.
const STALL_US: f64 = 10_000.0;
/// Bytes of the writes in which such a wait is looked for: around the sizes of segments, TLS records and frames.
pub const STALL_BYTES: [usize; 18] = [
    1, 7, 64, 512, 1_400, 1_461, 4_096, 4_097, 16_384, 16_385, 32_768, 65_483, 65_536, 65_537, 131_072,
    262_144, 524_288, 1_048_576,
];
/// Writes of each of them.
const STALL_TIMES: usize = 7;
/// Bytes on the wire beyond the value's, of the value's.
const OVERHEAD: Bound = Bound::AtMost(0.05);
/// What the bytes on the wire are counted of, and how often.
const COUNTED: [(&str, What); 5] = [
    ("read_4k", What::Read(4 << 10)),
    ("write_4k", What::Write(4 << 10)),
    ("read_64k", What::Read(64 << 10)),
    ("write_64k", What::Write(64 << 10)),
    ("read_1m", What::Read(1 << 20)),
];
const COUNTED_TIMES: u64 = 20;

/// Measures all of it.
pub fn measure(stage: &Stage, shape: &Shape, report: &mut Report) -> Result<()> {
    let who = stage.who();
    let mut sides: Vec<Box<dyn Side>> =
        who.iter().map(|&who| stage.connect(who, stage.address(who)?)).collect::<Result<_>>()?;
    for (name, what, often, vs_echo, vs_redis) in LATENCIES {
        let found = all(&mut sides, what, shape, often)?;
        for (&who, times) in who.iter().zip(&found) {
            tell(report, who, name, times.json(), times.text());
        }
        if name == "read_64" {
            headlines(report, &who, &found);
        }
        let ours = &found[0];
        if matches!(what, What::Read(_)) {
            report.bound(&format!("{name}_p99_us"), ours.p99(), P99);
        }
        for (&who, theirs) in who.iter().zip(&found).skip(1) {
            let most = match who {
                Who::Redis if matches!(what, What::Write(_)) => Some(write(theirs)),
                Who::Redis => vs_redis,
                Who::Echo | Who::Leasehold => vs_echo,
            };
            let ratio = ours.p50() / theirs.p50().max(f64::MIN_POSITIVE);
            report.ratio(&format!("{name}_time_vs_{}", who.name()), ratio, most.map(Bound::AtMost));
        }
    }
    for (name, what, often, vs_echo, vs_redis) in RATES {
        let found = all(&mut sides, what, shape, often)?;
        let rate = |times: &Times| what.bytes() as f64 / times.p50().max(f64::MIN_POSITIVE);
        for (&who, times) in who.iter().zip(&found) {
            let value = rated(times, rate(times));
            tell(report, who, name, value, format!("{:.0} MB/s; {}", rate(times), times.text()));
        }
        for (&who, theirs) in who.iter().zip(&found).skip(1) {
            let least = if who == Who::Redis { vs_redis } else { vs_echo };
            let ratio = rate(&found[0]) / rate(theirs);
            report.ratio(&format!("{name}_rate_vs_{}", who.name()), ratio, least.map(Bound::AtLeast));
        }
    }
    stalls(&mut sides, &who, report)?;
    overhead(stage, &who, report)
}

/// Each side in turns. Leasehold's are the first.
fn all(sides: &mut [Box<dyn Side>], what: What, shape: &Shape, often: usize) -> Result<Vec<Times>> {
    let mut sides: Vec<_> = sides.iter_mut().collect();
    let found = turns(&mut sides, what, shape.rounds, if shape.quick { often.div_ceil(10) } else { often })?;
    Ok(found.into_iter().map(Times::of).collect())
}

fn headlines(report: &mut Report, who: &[Who], found: &[Times]) {
    for (&who, times) in who.iter().zip(found) {
        match who {
            Who::Leasehold => report.headline(times),
            Who::Echo | Who::Redis => report.headline_of(who.name(), times),
        }
    }
}

/// What a write must be of Redis' time: where Redis waits for a timer, nothing to speak of.
fn write(theirs: &Times) -> f64 {
    if theirs.p50() > STALL_US { 0.05 } else { 0.7 }
}

fn rated(times: &Times, mb_per_s: f64) -> Value {
    let mut value = times.json();
    value["mb_per_s"] = json!(round(mb_per_s));
    value
}

/// Looks for writes of any length that wait for a timer.
fn stalls(sides: &mut [Box<dyn Side>], who: &[Who], report: &mut Report) -> Result<()> {
    let mut worst = vec![(0.0_f64, 0); sides.len()];
    for bytes in STALL_BYTES {
        let mut sides: Vec<_> = sides.iter_mut().collect();
        let found = turns(&mut sides, What::Write(bytes), STALL_TIMES as u32, 1)?;
        for (worst, times) in worst.iter_mut().zip(found) {
            let median = Times::of(times).p50();
            if median > worst.0 {
                *worst = (median, bytes);
            }
        }
    }
    for (&who, (median, bytes)) in who.iter().zip(worst) {
        let value = json!({ "p50_max_us": round(median), "at_bytes": bytes });
        tell(report, who, "write_any", value, format!("p50 at most {}, of {bytes} bytes", micros(median)));
        if who == Who::Leasehold {
            report.bound("write_any_p50_max_us", median, Bound::AtMost(STALL_US));
        }
    }
    Ok(())
}

/// Counts the bytes between client and server. Nothing is timed here.
fn overhead(stage: &Stage, who: &[Who], report: &mut Report) -> Result<()> {
    for &who in who {
        let relay = Relay::to(stage.address(who)?)?;
        let mut side = stage.connect(who, relay.address)?;
        for (name, what) in COUNTED {
            what.of(side.as_mut())?;
            let before = relay.passed();
            (0..COUNTED_TIMES).try_for_each(|_| what.of(side.as_mut()))?;
            let each = (relay.passed() - before) as f64 / COUNTED_TIMES as f64;
            let share = each / what.bytes() as f64 - 1.0;
            let text = format!("{each:.0} bytes, {:.2} % more than the value", share * 100.0);
            let value = json!({ "bytes": round(each), "overhead": round(share) });
            tell(report, who, &format!("wire_{name}"), value, text);
            if who == Who::Leasehold {
                report.bound(&format!("wire_overhead_{name}"), share, OVERHEAD);
            }
        }
    }
    Ok(())
}
