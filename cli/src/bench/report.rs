//! What a benchmark found, as JSON and as a table.

use caps::error::{Code, Error, Result};
use serde_json::{Map, Value, json};

use super::numbers::{Times, round};
use crate::output::json::document;
use crate::output::table::{Align, Table};

/// A bound that a number must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn is_met(self, number: f64) -> bool {
        match self {
            Self::AtLeast(least) => number >= least,
            Self::AtMost(most) => number <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {least}"),
            Self::AtMost(most) => format!("<= {most}"),
        }
    }
}

/// The keys are a promise to scripts: `bench`, `params`, `leasehold`, `baselines`, `ratios`, `ok`.
#[derive(Debug)]
pub struct Report {
    bench: &'static str,
    params: Map<String, Value>,
    leasehold: Map<String, Value>,
    baselines: Map<String, Value>,
    ratios: Map<String, Value>,
    rows: Vec<[String; 3]>,
    /// Without a number where there was nothing to measure.
    bounds: Vec<(String, Option<f64>, Bound)>,
}

impl Report {
    pub fn new(bench: &'static str) -> Self {
        Self {
            bench,
            params: Map::new(),
            leasehold: Map::new(),
            baselines: Map::new(),
            ratios: Map::new(),
            rows: Vec::new(),
            bounds: Vec::new(),
        }
    }

    pub fn param(&mut self, name: &str, value: impl Into<Value>) {
        self.params.insert(name.into(), value.into());
    }

    /// A time that stands for the whole benchmark: its keys are on the first level of `leasehold`.
    pub fn headline(&mut self, times: &Times) {
        if let Value::Object(keys) = times.json() {
            self.leasehold.extend(keys);
        }
    }

    /// A figure of Leasehold's.
    pub fn ours(&mut self, name: &str, value: Value, text: String) {
        self.leasehold.insert(name.into(), value);
        self.rows.push([name.into(), "Leasehold".into(), text]);
    }

    /// A figure of what it is compared with.
    pub fn theirs(&mut self, name: &str, value: Value, text: String) {
        self.baselines.insert(name.into(), value);
        self.rows.push([name.into(), "baseline".into(), text]);
    }

    /// A time that stands for one of several baselines.
    pub fn headline_of(&mut self, baseline: &str, times: &Times) {
        if let Value::Object(keys) = times.json() {
            self.baseline(baseline).extend(keys);
        }
    }

    /// A figure of one of several baselines.
    pub fn of_baseline(&mut self, baseline: &str, name: &str, value: Value, text: String) {
        self.baseline(baseline).insert(name.into(), value);
        self.rows.push([name.into(), baseline.into(), text]);
    }

    fn baseline(&mut self, name: &str) -> &mut Map<String, Value> {
        let figures = self.baselines.entry(name).or_insert_with(|| json!({}));
        if !figures.is_object() {
            *figures = json!({}); // one figure had that name: now it is several
        }
        match figures {
            Value::Object(figures) => figures,
            _ => unreachable!("it was made an object"),
        }
    }

    /// Leasehold over baseline. The direction is in the name.
    pub fn ratio(&mut self, name: &str, ratio: f64, bound: Option<Bound>) {
        self.ratios.insert(name.into(), json!(round(ratio)));
        match bound {
            Some(bound) => self.bound(name, ratio, bound),
            None => self.rows.push([name.into(), "ratio".into(), format!("{ratio:.3}")]),
        }
    }

    /// A number that must keep a bound.
    pub fn bound(&mut self, name: &str, number: f64, bound: Bound) {
        self.bounds.push((name.into(), Some(number), bound));
    }

    /// A bound of something that did not happen: it is neither kept nor missed.
    pub fn not_measured(&mut self, name: &str, bound: Bound) {
        self.bounds.push((name.into(), None, bound));
    }

    pub fn is_ok(&self) -> bool {
        self.bounds.iter().all(|(_, number, bound)| number.is_none_or(|number| bound.is_met(number)))
    }

    fn json(&self) -> Value {
        let bounds: Map<_, _> = self
            .bounds
            .iter()
            .map(|(name, number, bound)| {
                let (is, met) = (number.map(round), number.map(|number| bound.is_met(number)));
                let value = json!({"is": is, "must": bound.text(), "met": met});
                (name.clone(), value)
            })
            .collect();
        json!({
            "bench": self.bench,
            "params": self.params,
            "leasehold": self.leasehold,
            "baselines": self.baselines,
            "ratios": self.ratios,
            "bounds": bounds,
            "ok": self.is_ok(),
        })
    }

    fn text(&self) -> String {
        let params: Vec<_> = self.params.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let mut text = format!("bench {}: {}\n\n", self.bench, params.join(", "));
        let mut figures = Table::new([("WHAT", Align::Left), ("OF", Align::Left), ("MEASURED", Align::Left)]);
        for row in &self.rows {
            figures.row(row.clone());
        }
        text += &figures.render(false, "nothing was measured");
        let mut bounds = Table::new([
            ("BOUND", Align::Left),
            ("IS", Align::Right),
            ("MUST", Align::Right),
            ("MET", Align::Left),
        ]);
        for (name, number, bound) in &self.bounds {
            let Some(number) = *number else {
                bounds.row([name.clone(), "not measured".into(), bound.text(), "not judged".into()]);
                continue;
            };
            let digits = if number < 10.0 { 3 } else { 0 };
            let met = if bound.is_met(number) { "yes" } else { "NO" };
            bounds.row([name.clone(), format!("{number:.digits$}"), bound.text(), met.into()]);
        }
        text.push('\n');
        text + &bounds.render(false, "no bound is set")
    }

    pub fn print(&self, json: bool) -> Result<()> {
        use std::io::Write;
        let text = if json { document(&self.json()) } else { self.text() };
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|_| Error::new(Code::System, "cannot write to standard output"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_the_promised_ones_and_ok_follows_the_bounds() {
        let mut report = Report::new("map");
        report.param("rounds", 3);
        report.headline(&Times::of(vec![1.0, 2.0, 3.0]));
        report.theirs("mmap", Times::of(vec![1.0]).json(), "1 us".into());
        report.ratio("time_vs_mmap", 2.0, Some(Bound::AtMost(2.0)));
        assert!(report.is_ok());
        let json = report.json();
        assert_eq!(json["leasehold"]["p50_us"], 2.0);
        assert_eq!(json["baselines"]["mmap"]["p99_us"], 1.0);
        assert_eq!((&json["ratios"]["time_vs_mmap"], &json["ok"]), (&json!(2.0), &json!(true)));
        report.ratio("rate_vs_disk", 0.96, Some(Bound::AtLeast(0.97)));
        assert!(!report.is_ok());
        assert_eq!(report.json()["bounds"]["rate_vs_disk"]["met"], false);
        assert!(report.text().contains("NO"));
    }

    #[test]
    fn what_did_not_happen_is_not_judged() {
        let mut report = Report::new("map");
        report.not_measured("refused_us", Bound::AtMost(1.0));
        assert!(report.is_ok());
        let bound = &report.json()["bounds"]["refused_us"];
        assert!(bound["is"].is_null() && bound["met"].is_null() && bound["must"] == "<= 1", "{bound}");
        assert!(report.text().contains("not judged"));
    }
}
