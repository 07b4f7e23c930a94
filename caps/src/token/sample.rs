//! Honest tokens of every size, the same each time: what benchmarks measure, and what hostile tokens are made of.

use super::{Narrow, Request, RootKey, RootKeys, Terms, Token, Usage, forge, seal};
use crate::error::Result;
use crate::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use crate::key::SigningKey;
use crate::limits::{TOKEN_BLOCKS_MAX, TOKEN_HOPS_MAX};
use crate::pop::{Nonce, Proven, Transcript};
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

/// The seed of the root key that grants these tokens.
pub const ROOT_SEED: [u8; 32] = [1; 32];
/// The secret that signs the block after the authority block.
pub const NEXT_SEED: [u8; 32] = [7; 32];

/// An honest token, and a request that it allows.
#[derive(Clone, Debug)]
pub struct Honest {
    /// Its shape, as a word of lower case.
    pub name: &'static str,
    /// The token.
    pub token: Token,
    /// What it allows.
    pub request: Request,
}

/// The root key.
#[must_use]
pub fn root() -> RootKey {
    RootKey::from_seed(&ROOT_SEED)
}

/// The one root key that is believed.
///
/// # Errors
/// None: the key is sound.
pub fn keys() -> Result<RootKeys> {
    RootKeys::of(root().public())
}

/// The seed of person `number`; 0 is the lease's owner.
#[must_use]
pub const fn seed(number: u8) -> [u8; 32] {
    [100 + number; 32]
}

/// Person `number`.
#[must_use]
pub fn person(number: u8) -> SigningKey {
    SigningKey::from_seed(&seed(number))
}

/// What the broker grants to person 0.
///
/// # Errors
/// None: the range is sound.
pub fn terms() -> Result<Terms> {
    Ok(Terms {
        lease: LeaseId([3; 16]),
        region: RegionId([4; 16]),
        grant: None,
        range: ByteRange::new(0, 1 << 20)?,
        rights: Rights::ALL,
        holder: person(0).public(),
        not_before: UnixMicros(1_000_000),
        expires: UnixMicros(2_000_000_000_000_000),
        max_hops: TOKEN_HOPS_MAX,
        cluster: ClusterEpoch([5; 16]),
        provider: ProviderId([6; 16]),
    })
}

/// The owner's token of one block.
///
/// # Errors
/// None: the terms are sound.
pub fn owned() -> Result<Token> {
    forge::mint(&root(), &terms()?, &NEXT_SEED)
}

/// The secret that signs the block after block `number`.
#[must_use]
pub const fn next_seed(number: u8) -> [u8; 32] {
    if number == 0 { NEXT_SEED } else { [200 + number; 32] }
}

/// What block `number` narrows to: four checks that hold for [`request`], each a little tighter than the one before.
fn four_checks(number: u8) -> Result<Narrow> {
    let end = (1 << 20) - 4_096 * u64::from(number);
    Ok(Narrow {
        rights: Some(Rights::READ_WRITE),
        range: Some(ByteRange::new(0, end)?),
        expires: Some(UnixMicros(1_900_000_000_000_000 - u64::from(number))),
        max_hops: Some(TOKEN_HOPS_MAX - number),
        ..Narrow::default()
    })
}

/// The same with every check there is.
fn all_checks(number: u8) -> Result<Narrow> {
    Ok(Narrow {
        not_before: Some(UnixMicros(2_000_000 + u64::from(number))),
        opens: Some(1_000_000 - u64::from(number)),
        bytes_per_second: Some(1_000_000_000 - u64::from(number)),
        bytes_total: Some(1_000_000_000_000 - u64::from(number)),
        ..four_checks(number)?
    })
}

/// A token that is narrowed until it has `blocks` blocks.
fn narrowed(blocks: u8) -> Result<Token> {
    (1..blocks).try_fold(owned()?, |token, number| {
        forge::attenuate(&token, &four_checks(number)?, &next_seed(number))
    })
}

/// A token that is delegated `hops` times, from person to person.
///
/// # Errors
/// `E_DENIED` for more hops than a token may have.
pub fn delegated(hops: u8, narrow: impl Fn(u8) -> Result<Narrow>) -> Result<Token> {
    (1..=hops).try_fold(owned()?, |token, number| {
        let (from, to) = (person(number - 1), person(number).public());
        forge::delegate(&token, &from, to, &narrow(number)?, &next_seed(number))
    })
}

/// The longest chain with every check in every block: what costs most of all that is accepted.
///
/// # Errors
/// None: it is within the bounds.
pub fn longest() -> Result<Token> {
    delegated(TOKEN_HOPS_MAX, all_checks)
}

/// The proof of person `number`'s key, by the real transcript.
///
/// # Errors
/// None: the proof is person `number`'s.
pub fn proven(number: u8) -> Result<Proven> {
    let key = person(number);
    let transcript = Transcript {
        node: ProviderId([0; 16]),
        server: Nonce([1; 32]),
        client: Nonce([2; 32]),
        holder: key.public(),
    };
    transcript.verify(&transcript.sign(&key))
}

/// A request of person `number` that every token here allows to its holder.
///
/// # Errors
/// None: it is sound.
pub fn request(number: u8) -> Result<Request> {
    let terms = terms()?;
    Ok(Request {
        operation: Operation::Read,
        range: ByteRange::new(4_096, 8_192)?,
        now: UnixMicros(1_800_000_000_000_000),
        proven: proven(number)?,
        lease: terms.lease,
        region: terms.region,
        cluster: terms.cluster,
        provider: terms.provider,
        usage: Some(Usage { opens: 1, bytes_per_second: 100_000_000, bytes_total: 8_192 }),
    })
}

/// One block, three, eight; eight of which seven delegate, as it is handed on, sealed, and with all that it can say.
///
/// # Errors
/// None: all are within the bounds.
pub fn honest() -> Result<Vec<Honest>> {
    let (eight, hops) = (TOKEN_BLOCKS_MAX as u8, TOKEN_HOPS_MAX);
    let seven = delegated(hops, |_| Ok(Narrow { rights: Some(Rights::READ_WRITE), ..Narrow::default() }))?;
    let tokens = [
        ("1_block", owned()?, 0),
        ("3_blocks", narrowed(3)?, 0),
        ("8_blocks", narrowed(eight)?, 0),
        ("7_delegations", seven.clone(), hops),
        ("7_delegations_sealed", seal(&seven)?, hops),
        ("7_delegations_all_checks_sealed", seal(&longest()?)?, hops),
    ];
    tokens
        .into_iter()
        .map(|(name, token, holder)| Ok(Honest { name, token, request: request(holder)? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::gate;

    #[test]
    fn honest_tokens_have_their_shapes_and_allow_their_requests() {
        let keys = keys().unwrap();
        let shapes = [(1, 0), (3, 0), (8, 0), (8, 7), (8, 7), (8, 7)];
        for (honest, (blocks, hops)) in honest().unwrap().into_iter().zip(shapes) {
            let verified = gate(honest.token.as_bytes()).unwrap().verify(&keys).unwrap();
            assert_eq!(verified.chain().hops.len(), hops, "{}", honest.name);
            assert_eq!(verified.revocation_ids().len(), blocks + hops, "{}", honest.name);
            assert_eq!(verified.is_sealed(), honest.name.ends_with("sealed"));
            let native = verified.authorize(&honest.request).unwrap();
            let bytes = honest.token.as_bytes();
            assert_eq!(native, verified.authorize_by_datalog(bytes, &keys, &honest.request).unwrap());
        }
    }
}
