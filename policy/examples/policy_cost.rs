//! What a policy decision costs: parse, first decision, repeated decision, and the dearest policy that is accepted.
//!
//! `cargo run --release -p policy --example policy_cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use caps::id::PrincipalKey;
use caps::wire::Name;
use policy::datalog::{DEFAULT, Facts, Kind, Policy};

fn main() {
    let policy = Policy::parse(DEFAULT, "default.dl").expect("the default is a policy");
    let mut facts = Facts::new(Kind::LeaseCreate, PrincipalKey([7; 32]), Name::new("alice").ok(), Some(1000));
    facts.bytes = Some(65_536);
    facts.ttl = Some(caps::time::Micros(60_000_000));
    report("parse the default", 200, || drop(black_box(Policy::parse(DEFAULT, "default.dl"))));
    report("lint the default", 200, || drop(black_box(policy.lint(false))));
    for kind in Kind::ALL {
        facts.kind = kind;
        facts.receiver = Some((PrincipalKey([9; 32]), Name::new("bob").expect("a name")));
        report(&format!("decide {}", kind.name()), 2_000, || drop(black_box(policy.decide_uncached(&facts))));
    }
    facts.kind = Kind::LeaseCreate;
    report("decide again (remembered)", 20_000, || drop(black_box(policy.decide(&facts))));

    let roles: String = (0..24).map(|at| format!("role(\"user{at}\", {at});\n")).collect();
    let text = format!(
        "{roles}{}",
        DEFAULT.replace("principal($key, $name)", "principal($key, $name), role($name, $r)")
    );
    let policy = Policy::parse(&text, "roles.dl").expect("a policy");
    facts.name = Name::new("user23").ok();
    report("decide with 24 roles", 2_000, || drop(black_box(policy.decide_uncached(&facts))));

    let links: String = (0..25).map(|at| format!("f({at}, {at});\n")).collect();
    let text = format!("{links}allow if f($a, $b), f($c, $d), f($e, $g), $a > 100;");
    let policy = Policy::parse(&text, "dear.dl").expect("within the bounds");
    report("decide by the dearest join (15,625 combinations)", 20, || {
        drop(black_box(policy.decide_uncached(&facts)))
    });
}

fn report(what: &str, rounds: usize, mut run: impl FnMut()) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[(rounds - 1) * percent / 100].as_nanos() as f64 / 1_000.0;
    println!("{what:<52} p50 {:>10.2} us   p99 {:>10.2} us", at(50), at(99));
}
