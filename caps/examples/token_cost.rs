//! Prints what tokens cost on this machine: medians in microseconds.
//!
//! ```sh
//! cargo run --release -p caps --example token_cost
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use caps::limits::TOKEN_BYTES_MAX;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Narrow, attenuate, delegate, forge, gate, hmac, inspect, seal};
use support::*;

const ROUNDS: usize = 2_000;

/// Median time of one call in microseconds; `batch` calls are timed together where one is too short to time.
fn median(batch: usize, mut call: impl FnMut()) -> f64 {
    let mut times = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..batch).for_each(|_| call());
            start.elapsed().as_nanos() as f64 / 1_000.0 / batch as f64
        })
        .collect::<Vec<_>>();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn narrow(step: u64) -> Narrow {
    Narrow {
        rights: Some(Rights::READ),
        range: Some(range(8_192, 65_536 - step * 4_096)),
        expires: Some(UnixMicros(END - step)),
        max_hops: Some(0),
        ..Narrow::default()
    }
}

fn main() {
    let (root, keys, terms, one) = (root(), keys(), terms(), token());
    let first_party =
        |count: u64| (1..count).fold(one.clone(), |token, step| attenuate(&token, &narrow(step)).unwrap());
    let mut delegations = vec![root.mint(&caps::token::Terms { max_hops: 7, ..terms }).unwrap()];
    for hop in 0..7 {
        let parent = delegations.last().unwrap();
        delegations.push(
            delegate(
                parent,
                &person(hop),
                public(hop + 1),
                &Narrow { max_hops: None, ..narrow(u64::from(hop)) },
            )
            .unwrap(),
        );
    }
    println!(
        "{:34} {:>6} {:>8} {:>8} {:>10} {:>10}",
        "token", "bytes", "gate", "verify", "authorize", "Datalog"
    );
    let tokens = [
        ("1 block", one.clone(), 0),
        ("1 block, sealed", seal(&one).unwrap(), 0),
        ("3 blocks, narrowed", first_party(3), 0),
        ("8 blocks, narrowed", first_party(8), 0),
        ("3 blocks = 2 delegations", delegations[2].clone(), 2),
        ("8 blocks = 7 delegations", delegations[7].clone(), 7),
    ];
    for (name, token, holder) in &tokens {
        let bytes = token.as_bytes();
        let verified = verify(bytes).unwrap();
        let request =
            caps::token::Request { proven: proven(*holder), range: range(8_192, 12_288), ..request() };
        assert!(verified.authorize(&request).is_ok());
        let gating = median(10, || drop(black_box(gate(black_box(bytes)))));
        let verifying = median(1, || drop(black_box(gate(bytes).unwrap().verify(&keys))));
        let native = median(1_000, || drop(black_box(verified.authorize(black_box(&request)))));
        let datalog = median(1, || drop(black_box(verified.authorize_by_datalog(bytes, &keys, &request))));
        println!(
            "{name:34} {:>6} {gating:>8.2} {:>8.1} {native:>10.4} {datalog:>10.1}",
            bytes.len(),
            verifying - gating
        );
    }
    println!();
    for (name, cost) in [
        ("mint", median(1, || drop(black_box(root.mint(&terms))))),
        ("attenuate", median(1, || drop(black_box(attenuate(&one, &narrow(1)))))),
        ("delegate", median(1, || drop(black_box(delegate(&one, &person(0), public(1), &narrow(1)))))),
        ("seal", median(1, || drop(black_box(seal(&one))))),
        ("inspect, without keys", median(1, || drop(black_box(inspect(&one, None))))),
        ("hmac", median(10, || _ = black_box(hmac(b"salt", &one)))),
    ] {
        println!("{name:34} {cost:>8.2}");
    }
    println!();
    let junk = vec![0xff; 4_096];
    let large = vec![0xff; TOKEN_BYTES_MAX + 1];
    let mut facts = vec![0x18, 0x03];
    facts.extend([0x22, 0x04, 0x0a, 0x02, 0x08, 0x00].repeat(1_200));
    let facts = forge::append_raw(one.as_bytes(), &facts, None, &[9; 32]).unwrap();
    // The dearest refusal there is: everything passes, in the most blocks, but the last byte is one too many.
    let late = [delegations[7].as_bytes(), &[0]].concat();
    // Eight blocks of as much vocabulary as fits, of which the last holds a symbol that nothing names.
    let mut full = one.as_bytes().to_vec();
    let most = "check if operation($o), {\"read\", \"write\"}.contains($o);".repeat(8);
    for _ in 1..7 {
        full = append_datalog(&full, &most);
    }
    let last = [&[0x0a, 0x01, b'x'][..], &forge::blocks(&full).unwrap().pop().unwrap()].concat();
    let full = forge::append_raw(&full, &last, None, &[9; 32]).unwrap();
    for (name, bytes) in [
        ("refused: 4 KiB of 0xff", &junk),
        ("refused: too big", &large),
        ("refused: 1,200 facts", &facts),
        ("refused: trailing byte, 8 blocks", &late),
        ("refused: in the last of 8 blocks", &full),
    ] {
        let code = gate(bytes).unwrap_err().code();
        let cost = median(1, || drop(black_box(gate(black_box(bytes)))));
        println!("{name:34} {:>6} {cost:>8.2}  {code}", bytes.len());
    }
    let other =
        forge::mint_raw(&[42; 32], Some(root.id()), &forge::blocks(one.as_bytes()).unwrap()[0], &NEXT_SEED);
    let cost = median(1, || drop(black_box(gate(&other).unwrap().verify(&keys))));
    println!("{:34} {:>6} {cost:>8.2}", "refused: wrong root signature", other.len());
}
