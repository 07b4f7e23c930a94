//! Golden tokens: each verifies, and each block is shown with what it says and what is left after it.

use caps::id::GrantId;
use caps::limits::TOKEN_HOPS_MAX;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Narrow, Narrowing, RootKey, RootKeys, Terms, Token, forge, gate, inspect, seal};
use serde_json::{Value, json};

use super::{file, hex, people};
use crate::support::*;

/// The root key that is trusted beside the first, as during a rotation.
const SECOND_ROOT_SEED: [u8; 32] = [2; 32];
/// Person 0 and seven who hold a token after it.
const PEOPLE: u8 = 8;

/// A token that verifies.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) why: &'static str,
    pub(crate) token: Token,
}

/// Both root keys are believed.
pub(crate) fn trusted() -> RootKeys {
    let mut keys = keys();
    keys.add(RootKey::from_seed(&SECOND_ROOT_SEED).public()).expect("a sound key");
    keys
}

pub(super) fn document() -> Value {
    let roots = [ROOT_SEED, SECOND_ROOT_SEED].map(|seed| {
        let root = RootKey::from_seed(&seed);
        json!({ "seed": hex(&seed), "public": root.public().to_string(), "id": root.id() })
    });
    let own = json!({ "roots": roots, "holders": people(PEOPLE) });
    let about = "tokens that every verifier accepts, with what each block says and what is left after it";
    file(about, own, golden().iter().map(case).collect())
}

fn case(golden: &Golden) -> Value {
    let Golden { name, why, token } = golden;
    let shown = inspect(token, Some(&trusted())).expect("a token");
    let verified = gate(token.as_bytes()).and_then(|gated| gated.verify(&trusted())).expect("it verifies");
    let terms = verified.terms();
    let blocks = shown.blocks.iter().map(|block| {
        let marks = verified.marks_until(block.index as u8); // at most 8 blocks
        let delegation = block.delegation_id.as_ref();
        let delegation = delegation
            .map(|signature| json!({ "from": block.signer, "to": block.delegate, "signature": signature }));
        json!({
            "kind": block.kind,
            "narrows": block.narrows,
            "signature": block.revocation_id,
            "delegation": delegation,
            "after": block.after,
            "marks": marks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    let meters = verified.meters().iter().map(|meter| {
        json!({
            "key": meter.key.to_string(),
            "opens": meter.opens,
            "bytes_per_second": meter.bytes_per_second,
            "bytes_total": meter.bytes_total,
        })
    });
    let (blocks, meters) = (blocks.collect::<Vec<_>>(), meters.collect::<Vec<_>>());
    json!({
        "name": name,
        "why": why,
        "token": hex(token.as_bytes()),
        "verdict": "ok",
        "root_id": shown.root_key_id,
        "sealed": shown.sealed,
        "terms": {
            "lease": terms.lease.to_string(),
            "region": terms.region.to_string(),
            "grant": terms.grant.map(|grant| grant.to_string()),
            "range": [terms.range.start(), terms.range.end()],
            "rights": terms.rights.to_string(),
            "holder": terms.holder.to_string(),
            "not_before": terms.not_before.0,
            "expires": terms.expires.0,
            "max_hops": terms.max_hops,
            "cluster": terms.cluster.to_string(),
            "provider": terms.provider.to_string(),
        },
        "holders": shown.holders,
        "blocks": blocks,
        "meters": meters,
    })
}

/// Narrows in every dimension there is.
fn everything() -> Narrow {
    Narrow {
        rights: Some(Rights::READ.union(Rights::SHARE)),
        range: Some(range(8_192, 16_384)),
        expires: Some(UnixMicros(END - 5)),
        not_before: Some(UnixMicros(BEGIN + 5)),
        max_hops: Some(1),
        opens: Some(10),
        bytes_per_second: Some(1 << 20),
        bytes_total: Some(1 << 30),
    }
}

/// The secret that signs the block after the `number`th of these tokens' later blocks.
const fn next(number: u8) -> [u8; 32] {
    [10 + number; 32]
}

fn attenuate(token: &Token, narrow: Narrow, number: u8) -> Token {
    forge::attenuate(token, &narrow, &next(number)).expect("it is narrower")
}

fn delegate(token: &Token, [from, to]: [u8; 2], narrow: Narrow, number: u8) -> Token {
    forge::delegate(token, &person(from), public(to), &narrow, &next(number))
        .expect("it is the holder's to give")
}

/// Appends the checks of `by`, whether or not they are narrower, with a given next secret.
fn anyhow(token: &Token, by: &Narrowing, number: u8) -> Token {
    let drawn = forge::narrow_anyhow(token, by).expect("checks that the vocabulary has");
    let block = forge::blocks(drawn.as_bytes()).expect("a token").pop().expect("it has blocks");
    let bytes = forge::append_raw(token.as_bytes(), &block, None, &next(number)).expect("it is not sealed");
    Token::from_bytes(bytes).expect("a token's size")
}

/// Every token, in families: what is made of what is said by their blocks.
pub(crate) fn golden() -> Vec<Golden> {
    let mut golden = Vec::new();
    let mut add = |name: &str, why, token: &Token| {
        golden.push(Golden { name: name.to_owned(), why, token: token.clone() });
    };
    let (read, nothing) = (Narrow { rights: Some(Rights::READ), ..Narrow::default() }, Narrow::default());

    let minted = token();
    add("minted", "one authority block", &minted);
    let narrowed = attenuate(&minted, read, 1);
    add("narrowed", "one first-party block", &narrowed);
    add("narrowed-sealed", "the same, and nobody can append to it", &seal(&narrowed).expect("it is open"));
    let full = attenuate(&minted, everything(), 2);
    add("narrowed-in-every-dimension", "every template there is", &full);
    let delegated = delegate(&minted, [0, 1], nothing, 3);
    add("delegated", "one block signed by the holder", &delegated);
    let again = forge::replay(minted.as_bytes(), delegated.as_bytes(), &next(14)).expect("it is open");
    let again = Token::from_bytes(again).expect("a token's size");
    add(
        "delegated-again",
        "the same delegation appended a second time: one delegation id, two signatures",
        &again,
    );
    let twice = delegate(&delegated, [1, 2], everything(), 4);
    add("delegated-twice", "the second hop narrows as well", &twice);
    let after = attenuate(&twice, read, 5);
    add("narrowed-after-delegation", "signature version 1 from there on", &after);
    add("sealed", "ends with a signature, not a secret", &seal(&after).expect("it is open"));

    let limited = attenuate(&minted, Narrow { opens: Some(3), ..nothing }, 6);
    add("opens", "three opens", &limited);
    let rate = Narrow { bytes_per_second: Some(1 << 20), ..nothing };
    add("rate", "1 MiB a second", &attenuate(&minted, rate, 7));
    let budget = attenuate(&minted, Narrow { bytes_total: Some(1 << 16), ..nothing }, 8);
    add("budget", "64 KiB in all", &budget);
    let nested =
        delegate(&budget, [0, 1], Narrow { opens: Some(2), bytes_total: Some(1 << 12), ..nothing }, 9);
    add("budget-within-a-budget", "two meters: a use counts on both", &nested);
    add(
        "nothing-to-open",
        "an opens limit of 0",
        &attenuate(&limited, Narrow { opens: Some(0), ..nothing }, 15),
    );

    let wider =
        Narrowing { rights: Some(Rights::ALL), start: Some(0), end: Some(1 << 40), ..Narrowing::default() };
    add(
        "says-more",
        "a later block that names more than is left gives no more",
        &anyhow(&narrowed, &wider, 16),
    );
    let apart = Narrowing { start: Some(32_768), ..Narrowing::default() };
    add("no-byte-left", "two ranges that do not meet", &anyhow(&full, &apart, 17));
    let write = Narrowing { rights: Some(Rights::WRITE), ..Narrowing::default() };
    add("no-right-left", "two sets of rights that do not meet", &anyhow(&narrowed, &write, 18));
    let bound = Narrow { max_hops: Some(0), ..nothing };
    let last = attenuate(&minted, bound, 19);
    add("not-to-be-delegated", "a holder allows no delegation below", &last);
    let block = forge::blocks(delegated.as_bytes()).expect("a token").pop().expect("it has blocks");
    let beyond = forge::append_raw(last.as_bytes(), &block, Some(&seed(0)), &next(20)).expect("it is open");
    let beyond = Token::from_bytes(beyond).expect("a token's size");
    add("delegated-too-often", "every signature verifies, and every request is denied", &beyond);

    let granted = Terms { grant: Some(GrantId([8; 16])), rights: Rights::READ, ..terms() };
    let granted = forge::mint(&root(), &granted, &NEXT_SEED).expect("sound terms");
    add("minted-for-a-grant", "names the MEM_SHARE it comes from", &granted);
    let second =
        forge::mint(&RootKey::from_seed(&SECOND_ROOT_SEED), &terms(), &NEXT_SEED).expect("sound terms");
    add("second-root", "of the other root key that is trusted", &second);

    let most = Terms { max_hops: TOKEN_HOPS_MAX, ..terms() };
    let mut chain = forge::mint(&root(), &most, &NEXT_SEED).expect("sound terms");
    for hop in 1..=TOKEN_HOPS_MAX {
        let tighter = Narrow { expires: Some(UnixMicros(END - u64::from(hop))), ..nothing };
        chain = delegate(&chain, [hop - 1, hop], tighter, 30 + hop);
        add(&format!("hops-{hop}"), "from person to person, a microsecond shorter each time", &chain);
    }
    add(
        "hops-7-sealed",
        "as many hops as there can be, and the end of it",
        &seal(&chain).expect("it is open"),
    );
    golden
}
