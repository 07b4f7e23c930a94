//! Tokens that any holder can make, signed properly, and that ungated would cost seconds, gigabytes or the process.
//! The gate refuses each before the token library parses its Datalog; the library's answer is never asked for.

#![expect(
    clippy::disallowed_methods,
    reason = "hostile tokens are made by the library's own means, out of text of ours"
)]

mod support;

use caps::error::Code;
use caps::limits::TOKEN_BYTES_MAX;
use caps::token::hostile::{self, Hostile};
use caps::token::{Narrow, Token, attenuate, forge, gate};
use support::*;

fn refused(datalog: &str, expected: Code) {
    let appended = append_datalog(token().as_bytes(), datalog);
    assert_eq!(gate_code(&appended), expected, "{}", &datalog[..datalog.len().min(80)]);
    // The same under the root key's signature: not even the broker can make the gate pass it.
    let minted = mint_datalog(datalog);
    let code = gate_code(&minted);
    assert!(code == expected || code == Code::TokenProfile, "{code}");
}

#[test]
fn nested_closures() {
    let list = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]";
    let nested = (0..6).fold("true".to_owned(), |inner, level| format!("{list}.all($v{level} -> {inner})"));
    refused(&format!("check if {nested}"), Code::TokenVersion);
}

#[test]
fn a_five_way_join() {
    let facts = (0..40).map(|n| format!("f({n});")).collect::<String>();
    refused(
        &format!("{facts} check if f($a), f($b), f($c), f($d), f($e), $a + $b + $c + $d + $e < 0"),
        Code::TokenProfile,
    );
}

#[test]
fn a_cross_product_rule() {
    let facts = (0..150).map(|n| format!("f({n});")).collect::<String>();
    refused(&format!("{facts} g($a, $b, $c) <- f($a), f($b), f($c)"), Code::TokenProfile);
}

#[test]
fn rules_of_any_kind() {
    for rule in ["a($x) <- operation($x)", "right($x) <- operation($x) trusting previous", "a(1) <- true"] {
        refused(rule, Code::TokenProfile);
    }
}

#[test]
fn strings_that_grow() {
    let sum = vec!["\"aaaaaaaa\""; 600].join(" + ");
    let appended = append_datalog(token().as_bytes(), &format!("check if {sum} === \"a\""));
    assert_eq!(
        gate_code(&appended),
        if appended.len() > TOKEN_BYTES_MAX { Code::TokenTooBig } else { Code::TokenProfile }
    );
    let sum = vec!["\"aaaaaaaa\""; 100].join(" + ");
    refused(&format!("check if {sum} === \"a\""), Code::TokenProfile);
}

#[test]
fn twenty_thousand_symbols() {
    let symbols = |count: usize| {
        let mut block = Vec::new();
        for number in 0..count {
            let symbol = format!("s{number}");
            block.extend([0x0a, symbol.len() as u8]);
            block.extend(symbol.as_bytes());
        }
        block.extend([0x18, 0x03]);
        forge::append_raw(token().as_bytes(), &block, None, &[9; 32]).unwrap()
    };
    assert_eq!(gate_code(&symbols(20_000)), Code::TokenTooBig);
    assert_eq!(gate_code(&symbols(500)), Code::TokenProfile);
    assert_eq!(gate_code(&symbols(33)), Code::TokenProfile);
}

#[test]
fn fifty_thousand_facts() {
    let facts = [&[0x18, 0x03][..], &[0x22, 0x04, 0x0a, 0x02, 0x08, 0x00].repeat(50_000)].concat();
    let appended = forge::append_raw(token().as_bytes(), &facts, None, &[9; 32]).unwrap();
    assert_eq!(gate_code(&appended), Code::TokenTooBig);
}

#[test]
fn nested_values() {
    refused(&format!("check if {}1{}.length() > 0", "[".repeat(20), "]".repeat(20)), Code::TokenProfile);
    // A set in a set in a set, as raw bytes: term { set { term { set ... } } }, in a check's expression.
    let mut term = vec![0x10, 0x01];
    for _ in 0..50 {
        let inner = [&[0x0a, term.len() as u8], &term[..]].concat();
        term = [&[0x3a, inner.len() as u8], &inner[..]].concat();
        if term.len() > 100 {
            break;
        }
    }
    let wrap = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
    let expression = wrap(0x0a, &wrap(0x0a, &term));
    let query = [wrap(0x0a, &[0x08, 27]), wrap(0x1a, &expression)].concat();
    let block = [&[0x18, 0x03][..], &wrap(0x32, &wrap(0x0a, &query))].concat();
    let appended = forge::append_raw(token().as_bytes(), &block, None, &[9; 32]).unwrap();
    assert_eq!(gate_code(&appended), Code::TokenProfile);
}

/// An expression whose operators lack operands: the library's printer panics on it.
#[test]
fn a_malformed_stack_of_operations() {
    let binary = |kind: u8| [0x0a, 0x04, 0x1a, 0x02, 0x08, kind];
    for ops in [binary(2).to_vec(), [binary(2), binary(2)].concat(), Vec::new()] {
        let expression = [&[0x1a, ops.len() as u8], &ops[..]].concat();
        let query = [&[0x0a, 0x02, 0x08, 27][..], &[0x12, 0x02, 0x08, 5], &expression].concat();
        let block =
            [&[0x18, 0x03, 0x32, query.len() as u8 + 2, 0x0a, query.len() as u8], &query[..]].concat();
        let appended = forge::append_raw(token().as_bytes(), &block, None, &[9; 32]).unwrap();
        assert_eq!(gate_code(&appended), Code::TokenProfile);
    }
}

/// A query whose head has a variable that nothing binds: the library prints to standard output per match, and panics
/// when that is closed.
#[test]
fn a_head_with_a_free_variable() {
    let check = forge::blocks(&append_datalog(token().as_bytes(), "check if hops($hops), $hops <= 3"))
        .unwrap()
        .pop()
        .unwrap();
    let at =
        check.windows(4).position(|window| window == [0x0a, 0x02, 0x08, 27]).expect("the head `query()`");
    // The head becomes `query($read)`; the two lengths around it grow by four.
    let mut block = check.clone();
    block.splice(at..at + 4, [0x0a, 0x06, 0x08, 27, 0x12, 0x02, 0x08, 0x00]);
    for length in [at - 3, at - 1] {
        block[length] += 4;
    }
    let appended = forge::append_raw(token().as_bytes(), &block, None, &[9; 32]).unwrap();
    biscuit_auth::UnverifiedBiscuit::from(&appended)
        .unwrap()
        .print_block_source(1)
        .expect("the library reads it");
    assert_eq!(gate_code(&appended), Code::TokenProfile);
}

#[test]
fn contexts_scopes_and_keys() {
    let block = biscuit_auth::BlockBuilder::new().context("x".repeat(3_000));
    let appended = biscuit_auth::UnverifiedBiscuit::from(token().as_bytes()).unwrap().append(block).unwrap();
    assert_eq!(gate_code(&appended.to_vec().unwrap()), Code::TokenProfile);
    let key = biscuit_auth::KeyPair::new().public();
    refused("check if operation($o) trusting previous", Code::TokenProfile);
    refused(&format!("check if operation($o) trusting {key}"), Code::TokenProfile);
    refused(&format!("trusting {key}; check if operation($o)"), Code::TokenProfile);
}

/// The set that benchmarks and tests through sockets take their hostile tokens from. None
/// of it reaches a decision, and nobody narrows what the gate refuses.
#[test]
fn the_whole_set() {
    let set = hostile::set().unwrap();
    assert!(set.len() > 80, "{}", set.len());
    for Hostile { name, bytes, code, .. } in set {
        assert_eq!(judge(&bytes, &request()), Err(code), "{name}");
        // What carries it does not open it either.
        if let Ok(token) = Token::from_bytes(bytes.clone()) {
            let narrow = Narrow { opens: Some(1), ..Narrow::default() };
            let narrowed = attenuate(&token, &narrow);
            assert!(gate(&bytes).is_ok() || narrowed.is_err(), "{name}: narrowed into {narrowed:?}");
        }
    }
}

/// Checks that look like the vocabulary and are not.
#[test]
fn near_misses() {
    for check in [
        "check if true",
        "check if time($t)",
        "check if time($t), $t <= 5",
        "check if time($t), $t > 5",
        "check if time($t), 5 < $t",
        "check if time($t), $t < 5, 4 <= $t",
        "check if time($t), $t < 5, $t < 6",
        "check if time($t), $t < -5",
        "check if time($t), $t < 2030-01-01T00:00:00Z",
        "check if time($t), $t < $t",
        "check if time(5)",
        "check if req($a, $a), 0 <= $a",
        "check if req($a, $b), $b <= 5, 0 <= $a",
        "check if req($a, $b), 0 <= $b",
        "check if req($a), 0 <= $a",
        "check if hops($n), $n < 3",
        "check if hops($n), 3 <= $n",
        "check if hops($n), $n <= 3 or hops($n), $n <= 9",
        "check all hops($n), $n <= 3",
        "check if operation($o), {\"write\", \"delete\"}.contains($o)",
        "check if operation($o), {1, 2}.contains($o)",
        "check if operation(\"read\")",
        "check if range($a, $b), 0 <= $a",
        "check if right($o), {\"read\"}.contains($o)",
        "check if pop($k), effective_holder($k)",
        "check if unheard_of($n), $n <= 3",
    ] {
        let code = gate_code(&append_datalog(token().as_bytes(), check));
        assert_eq!(code, Code::TokenProfile, "{check}");
    }
    refused("reject if hops($n), $n <= 3", Code::TokenVersion);
    refused("check if hops($n), $n == 3", Code::TokenVersion);
    // The same things said as they must be, under any names of variables.
    for check in [
        "check if time($t), $t < 5",
        "check if time($now), 4 <= $now, $now < 5",
        "check if req($a, $b), 4096 <= $a, $b <= 8192",
        "check if req($from, $to), $to <= 8192",
        "check if operation($o), {\"share\", \"read\"}.contains($o)",
        "check if hops($n), $n <= 1; check if opens($n), $n <= 1; check if rate($n), $n <= 1; check if budget($n), $n <= 1",
    ] {
        let appended = append_datalog(token().as_bytes(), check);
        gate(&appended).unwrap_or_else(|error| panic!("{check}: {error}")).verify(&keys()).unwrap();
    }
}

/// An authority block signed by the true root key whose checks do not say what its facts say.
#[test]
fn a_root_key_that_signs_nonsense() {
    let honest =
        biscuit_auth::UnverifiedBiscuit::from(token().as_bytes()).unwrap().print_block_source(0).unwrap();
    gate(&mint_datalog(&honest)).unwrap();
    let lines = honest.lines().map(str::to_owned).collect::<Vec<_>>();
    for drop in 0..lines.len() {
        let without =
            lines.iter().enumerate().filter(|(index, _)| *index != drop).map(|(_, line)| line.as_str());
        let without = without.collect::<Vec<_>>().join("\n");
        // One right fewer is another honest fact, but then the check on operations says more than the facts.
        assert_eq!(gate_code(&mint_datalog(&without)), Code::TokenProfile, "without `{}`", lines[drop]);
    }
    for (from, to) in [
        ("max_hops(3)", "max_hops(4)"),
        ("max_hops(3)", "max_hops(300)"),
        ("range(4096, 65536)", "range(0, 65536)"),
        ("range(4096, 65536)", "range(65536, 4096)"),
        ("right(\"read\")", "right(\"delete\")"),
        ("pop($pop), effective_holder($pop)", "pop($pop), effective_holder($other)"),
        ("pop($pop), effective_holder($pop)", "pop($pop), pop($pop)"),
        (
            "at($cluster, $provider), node($cluster, $provider)",
            "at($cluster, $provider), node($provider, $cluster)",
        ),
    ] {
        assert!(honest.contains(from), "{from} in {honest}");
        assert_eq!(gate_code(&mint_datalog(&honest.replace(from, to))), Code::TokenProfile, "{to}");
    }
    for extra in ["check if hops($n), $n <= 1;", "check if opens($n), $n <= 1;"] {
        gate(&mint_datalog(&format!("{honest}\n{extra}")))
            .expect("room for the capabilities that come later");
    }
}
