//! The oracles of the fuzz targets. A target is one line; what must hold stands here.

use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::Name;

use crate::config::{self, Config};
use crate::datalog::{Facts, Kind, Policy};
use crate::machine::Machine;

/// A machine on which every pool fits, so that a finding does not depend on where the fuzzer runs.
const MACHINE: Machine = Machine { total_bytes: u64::MAX, available_bytes: u64::MAX };

/// Any bytes are either refused with at least one mistake that lies inside the text, or are a configuration that
/// writes itself and reads back as the same.
///
/// # Panics
/// If that does not hold.
pub fn config_any(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::check_on(text, "fuzz", &MACHINE) {
        Ok(config) => {
            let written = config.to_string();
            let again = config::check_on(&written, "fuzz", &MACHINE);
            assert_eq!(again.as_ref(), Ok(&config), "{written}");
            limits_hold(&config);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "a refusal says why");
            places_are_inside(&mistakes, text);
        }
    }
}

/// Any bytes are either refused with at least one mistake that lies inside the text, or are a policy that lints and
/// decides without a panic, in bounded time, and twice the same.
///
/// # Panics
/// If that does not hold.
pub fn policy_any(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(Policy::parse_bytes(bytes, "fuzz").is_err(), "not UTF-8, not a policy");
        return;
    };
    match Policy::parse(text, "fuzz") {
        Ok(policy) => {
            places_are_inside(&policy.lint(false), text);
            for facts in samples() {
                let first = policy.decide_uncached(&facts);
                assert_eq!(first, policy.decide_uncached(&facts), "a decision is a function of its facts");
                assert_eq!(first, policy.decide(&facts), "and so is the remembered one");
                assert_eq!(first, policy.decide(&facts));
                if let Ok(decision) = first {
                    assert!(
                        !decision.allowed || decision.rule.is_some(),
                        "nothing is allowed without a rule"
                    );
                }
            }
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "a refusal says why");
            places_are_inside(&mistakes, text);
        }
    }
}

fn places_are_inside(mistakes: &[crate::Diagnostic], text: &str) {
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() as u32 + 1;
    for mistake in mistakes {
        assert!(mistake.line <= lines, "{mistake}");
        assert!(!mistake.message.is_empty() && !mistake.help.is_empty(), "{mistake}");
        assert!(mistake.to_string().chars().all(|c| (' '..='~').contains(&c)), "{mistake:?}");
    }
}

fn limits_hold(config: &Config) {
    assert!(config.lease.ttl_default <= config.lease.ttl_max);
    assert!(config.lease.bytes_min <= config.lease.bytes_max);
    assert!(config.node.pool.is_none_or(|pool| pool >= crate::limits::POOL_BYTES_MIN));
}

fn samples() -> Vec<Facts> {
    let name = |text| Name::new(text).expect("a literal name");
    let key = PrincipalKey([7; 32]);
    let mut samples = vec![Facts::new(Kind::LeaseCreate, key, None, None)];
    for kind in Kind::ALL {
        let mut facts = Facts::new(kind, key, Some(name("alice")), Some(1000));
        facts.bytes = Some(65_536);
        facts.ttl = Some(Micros(60_000_000));
        facts.class = Some(name("training"));
        facts.receiver = Some((PrincipalKey([9; 32]), name("bob")));
        facts.rights = Rights::READ_WRITE;
        facts.cosigner = Some((PrincipalKey([11; 32]), name("security")));
        samples.push(facts);
    }
    samples
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_pass() {
        for text in ["", config::default_text(), "[node]\npool = \"10GB\"", "a = [[[[[[", "\u{feff}"] {
            config_any(text.as_bytes());
        }
        for text in
            ["", crate::datalog::DEFAULT, "allow if true;", "allow if ((((", "f(\"x\"); r($x) <- f($x);"]
        {
            policy_any(text.as_bytes());
        }
        policy_any(&[0xff, 0xfe]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            config_any(&bytes);
            policy_any(&bytes);
        }

        /// Text made of the pieces of the two languages gets past the first checks.
        #[test]
        fn any_pieces(pieces in proptest::collection::vec(0_usize..PIECES.len(), 0..40)) {
            let text: String = pieces.into_iter().map(|at| PIECES[at]).collect();
            config_any(text.as_bytes());
            policy_any(text.as_bytes());
        }
    }

    const PIECES: &[&str] = &[
        "allow if ",
        "deny if ",
        "check if ",
        "request(",
        "\"lease.create\"",
        ")",
        "(",
        "$x",
        "$y",
        ", ",
        ";",
        "\n",
        "size($x)",
        "principal($k, $n)",
        "$n == \"alice\"",
        "!",
        "true",
        "or ",
        "{\"a\", \"b\"}",
        ".contains($x)",
        "[1]",
        " <- ",
        "f($x)",
        "f(\"a\")",
        "&&",
        "||",
        "<= 5",
        "1 + 1",
        "// c\n",
        "/* c */",
        "trusting authority",
        "hex:00",
        "[node]",
        "pool",
        " = ",
        "\"1GiB\"",
        "[quota.a]",
        "[[",
        "]",
        "'",
        "0x1",
        "ttl_max",
        "[lease]",
        "2026-01-01",
        ".length()",
        "null",
        "{p}",
        "extern::x(",
        "\u{e4}",
    ];
}
