//! The bodies of the fuzz targets over tokens, each with its oracle. A finding is a panic.

mod chain;

use std::sync::LazyLock;

use super::{
    Gated, Narrow, Request, RootKey, RootKeys, Terms, Token, Usage, VerifiedToken, attenuate, forge, gate,
    inspect,
};
use crate::error::Code;
use crate::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use crate::key::SigningKey;
use crate::pop::{Nonce, Proven, Transcript};
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

pub use chain::{chain, chain_seeds};

/// Any bytes to the gate. Whatever passes has one encoding, can be inspected, and can be narrowed unless it is
/// sealed or full; narrowing gives another token that passes.
///
/// # Panics
/// If any of that does not hold.
#[expect(clippy::disallowed_methods, reason = "the oracle reads what the gate has passed")]
pub fn gate_any(data: &[u8]) {
    let Ok(gated) = gate(data) else { return };
    let token = Token::from_bytes(data.to_vec()).expect("the gate bounds the size");
    let same = biscuit_auth::UnverifiedBiscuit::from(data).map(|biscuit| biscuit.to_vec());
    // The library may still refuse a key that is no point of the curve; if it reads the token, it reads it as we do.
    if let Ok(Ok(same)) = same {
        assert_eq!(same, data, "a gated token has one encoding");
    }
    let _ = gated.verify(&WORLD.keys);
    let Ok(inspection) = inspect(&token, Some(&WORLD.keys)) else { return };
    let narrow = Narrow { expires: Some(UnixMicros(inspection.effective.expires)), ..Narrow::default() };
    match attenuate(&token, &narrow) {
        Ok(child) => {
            let child = inspect(&child, None).expect("a narrowed token passes the gate");
            assert_eq!(child.effective, inspection.effective, "the same bound again changes nothing");
        }
        Err(error) => {
            let expected = [Code::Denied, Code::TokenTooBig, Code::TokenSignature, Code::TokenProfile];
            assert!(expected.contains(&error.code()), "{error}");
        }
    }
}

/// Any bytes as a block that is signed properly: the first byte says whether as a narrowing or as a delegation by the
/// holder. Whatever passes allows nothing that its parent does not, and Datalog agrees with every native decision.
///
/// # Panics
/// If any of that does not hold.
pub fn block_signed_by_holder(data: &[u8]) {
    let Some((&kind, block)) = data.split_first() else { return };
    let world = &*WORLD;
    let holder = (kind & 1 == 1).then_some(&HOLDER_SEED);
    let bytes =
        forge::append_raw(world.parent.as_bytes(), block, holder, &[9; 32]).expect("the parent is a token");
    let Ok(child) = gate(&bytes).and_then(|gated: Gated<'_>| gated.verify(&world.keys)) else { return };
    assert!(world.verified.effective().contains(child.effective()), "a block widened its parent");
    assert_eq!(child.terms(), world.verified.terms());
    for request in &world.requests {
        let native = child.authorize(request).is_ok();
        let reference = child.authorize_by_datalog(&bytes, &world.keys, request).is_ok();
        assert_eq!(native, reference, "the two decisions differ on {request:?}");
        let parent = Request { proven: world.proven, ..*request };
        assert!(
            !native || world.verified.authorize(&parent).is_ok(),
            "a block widened its parent: {request:?}"
        );
    }
}

const HOLDER_SEED: [u8; 32] = [2; 32];

/// One parent token, and questions to its children.
struct World {
    keys: RootKeys,
    parent: Token,
    verified: VerifiedToken,
    proven: Proven,
    requests: Vec<Request>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = RootKey::from_seed(&[1; 32]);
    let keys = RootKeys::of(root.public()).expect("a root key is a key");
    let holder = SigningKey::from_seed(&HOLDER_SEED);
    let terms = Terms {
        lease: LeaseId([3; 16]),
        region: RegionId([4; 16]),
        grant: None,
        range: ByteRange::new(0, 65_536).expect("a range"),
        rights: Rights::READ.union(Rights::SHARE),
        holder: holder.public(),
        not_before: UnixMicros(1_000),
        expires: UnixMicros(1_000_000),
        max_hops: 3,
        cluster: ClusterEpoch([5; 16]),
        provider: ProviderId([6; 16]),
    };
    let parent = forge::mint(&root, &terms, &[7; 32]).expect("the terms are sound");
    let verified = gate(parent.as_bytes()).and_then(|gated| gated.verify(&keys)).expect("our own token");
    let proven = prove(&holder);
    let base = Request {
        operation: Operation::Read,
        range: ByteRange::new(4_096, 8_192).expect("a range"),
        now: UnixMicros(5_000),
        proven,
        lease: terms.lease,
        region: terms.region,
        cluster: terms.cluster,
        provider: terms.provider,
        usage: Some(Usage { opens: 1, bytes_per_second: 100, bytes_total: 4_096 }),
    };
    let requests = vec![
        base,
        Request { operation: Operation::Write, ..base },
        Request { operation: Operation::Share, usage: None, ..base },
        Request { range: ByteRange::new(65_535, 65_537).expect("a range"), ..base },
        Request { now: UnixMicros(1_000_000), ..base },
        Request { proven: prove(&SigningKey::from_seed(&[8; 32])), ..base },
    ];
    World { keys, parent, verified, proven, requests }
});

/// Proof of possession of a key, by the real transcript.
fn prove(key: &SigningKey) -> Proven {
    let transcript = Transcript {
        node: ProviderId([0; 16]),
        server: Nonce([1; 32]),
        client: Nonce([2; 32]),
        holder: key.public(),
    };
    transcript.verify(&transcript.sign(key)).expect("a proof of our own")
}

/// Blocks to start from: the parent's own, a narrowing, a delegation (each after the byte that says which).
#[must_use]
pub fn block_seeds() -> Vec<Vec<u8>> {
    let world = &*WORLD;
    let narrow = Narrow {
        rights: Some(Rights::READ),
        range: ByteRange::new(0, 8_192).ok(),
        expires: Some(UnixMicros(9_000)),
        not_before: Some(UnixMicros(2_000)),
        max_hops: Some(1),
        opens: Some(5),
        bytes_per_second: Some(1_000),
        bytes_total: Some(1_000_000),
    };
    let holder = SigningKey::from_seed(&HOLDER_SEED);
    let narrowed = forge::attenuate(&world.parent, &narrow, &[9; 32]).expect("narrower");
    let to = SigningKey::from_seed(&[8; 32]).public();
    let delegated = forge::delegate(&world.parent, &holder, to, &narrow, &[9; 32]).expect("narrower");
    let last = |token: &Token| forge::blocks(token.as_bytes()).expect("a token").pop().expect("a block");
    [(0, last(&narrowed)), (1, last(&delegated)), (0, last(&world.parent))]
        .into_iter()
        .map(|(kind, block)| [&[kind], block.as_slice()].concat())
        .collect()
}

/// Tokens to start from: as minted, narrowed, delegated, sealed.
#[must_use]
pub fn token_seeds() -> Vec<Vec<u8>> {
    let parent = &WORLD.parent;
    let seeds = block_seeds();
    let append = |seed: &[u8], holder| {
        forge::append_raw(parent.as_bytes(), &seed[1..], holder, &[9; 32]).expect("a token")
    };
    let sealed = super::seal(parent).expect("a token");
    vec![
        parent.as_bytes().to_vec(),
        append(&seeds[0], None),
        append(&seeds[1], Some(&HOLDER_SEED)),
        sealed.as_bytes().to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        for seed in token_seeds() {
            gate(&seed).unwrap().verify(&WORLD.keys).unwrap();
            gate_any(&seed);
        }
        let world = &*WORLD;
        for (seed, accepted) in block_seeds().iter().zip([true, true, false]) {
            let holder = (seed[0] == 1).then_some(&HOLDER_SEED);
            let bytes = forge::append_raw(world.parent.as_bytes(), &seed[1..], holder, &[9; 32]).unwrap();
            assert_eq!(gate(&bytes).is_ok(), accepted);
            block_signed_by_holder(seed);
        }
        gate_any(b"");
        block_signed_by_holder(b"");
    }

    #[test]
    fn every_changed_byte_of_a_block_is_judged_without_harm() {
        for seed in block_seeds() {
            for index in 1..seed.len() {
                for change in [1, 0x80, 0xff] {
                    let mut changed = seed.clone();
                    changed[index] ^= change;
                    block_signed_by_holder(&changed);
                }
            }
        }
    }
}
