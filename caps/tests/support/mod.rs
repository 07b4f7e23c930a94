//! One cluster, one lease, a few people: what the token tests share.
#![expect(
    clippy::disallowed_methods,
    reason = "hostile tokens are made by the library's own means, out of text of ours"
)]
#![allow(dead_code)] // each test program uses a part

use biscuit_auth::{BlockBuilder, KeyPair, UnverifiedBiscuit};
use caps::error::{Code, Result};
use caps::id::{ClusterEpoch, LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::pop::{Nonce, Proven, Transcript};
use caps::range::ByteRange;
use caps::rights::{Operation, Rights};
use caps::time::UnixMicros;
use caps::token::{Request, RootKey, RootKeys, Terms, Token, Usage, VerifiedToken, forge, gate};

pub(crate) const ROOT_SEED: [u8; 32] = [1; 32];
pub(crate) const NEXT_SEED: [u8; 32] = [7; 32];
pub(crate) const BEGIN: u64 = 1_700_000_000_000_000;
pub(crate) const END: u64 = 1_800_000_000_000_000;

pub(crate) fn root() -> RootKey {
    RootKey::from_seed(&ROOT_SEED)
}

pub(crate) fn keys() -> RootKeys {
    RootKeys::of(root().public()).unwrap()
}

/// The seed of person `number`; 0 is the lease's owner.
pub(crate) const fn seed(number: u8) -> [u8; 32] {
    [100 + number; 32]
}

pub(crate) fn person(number: u8) -> SigningKey {
    SigningKey::from_seed(&seed(number))
}

pub(crate) fn public(number: u8) -> PrincipalKey {
    person(number).public()
}

pub(crate) fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

pub(crate) fn terms() -> Terms {
    Terms {
        lease: LeaseId([3; 16]),
        region: RegionId([4; 16]),
        grant: None,
        range: range(4_096, 65_536),
        rights: Rights::ALL,
        holder: public(0),
        not_before: UnixMicros(BEGIN),
        expires: UnixMicros(END),
        max_hops: 3,
        cluster: ClusterEpoch([5; 16]),
        provider: ProviderId([6; 16]),
    }
}

/// The owner's token, the same each time.
pub(crate) fn token() -> Token {
    forge::mint(&root(), &terms(), &NEXT_SEED).unwrap()
}

pub(crate) fn proven(number: u8) -> Proven {
    let key = person(number);
    let transcript = Transcript {
        node: ProviderId([0; 16]),
        server: Nonce([1; 32]),
        client: Nonce([2; 32]),
        holder: key.public(),
    };
    transcript.verify(&transcript.sign(&key)).unwrap()
}

/// A request that the owner's token allows.
pub(crate) fn request() -> Request {
    Request {
        operation: Operation::Read,
        range: range(8_192, 12_288),
        now: UnixMicros(BEGIN + 5),
        proven: proven(0),
        lease: terms().lease,
        region: terms().region,
        cluster: terms().cluster,
        provider: terms().provider,
        usage: Some(Usage { opens: 1, bytes_per_second: 1, bytes_total: 1 }),
    }
}

pub(crate) fn verify(bytes: &[u8]) -> Result<VerifiedToken> {
    gate(bytes)?.verify(&keys())
}

/// Gate, verify, authorize: what a provider does. The code of the first refusal.
pub(crate) fn judge(bytes: &[u8], request: &Request) -> Result<(), Code> {
    let verified = verify(bytes).map_err(|error| error.code())?;
    verified.authorize(request).map(drop).map_err(|error| error.code())
}

pub(crate) fn gate_code(bytes: &[u8]) -> Code {
    gate(bytes).map(drop).expect_err("the gate must refuse this").code()
}

/// What a hostile holder does: appends any Datalog, properly signed by the token's own next key.
pub(crate) fn append_datalog(token: &[u8], datalog: &str) -> Vec<u8> {
    let block = BlockBuilder::new().code(datalog).unwrap();
    UnverifiedBiscuit::from(token).unwrap().append(block).unwrap().to_vec().unwrap()
}

/// The same as a block signed by `signer`.
pub(crate) fn append_signed_datalog(token: &[u8], signer: u8, datalog: &str) -> Vec<u8> {
    let private =
        biscuit_auth::PrivateKey::from_bytes(&seed(signer), biscuit_auth::Algorithm::Ed25519).unwrap();
    let token = UnverifiedBiscuit::from(token).unwrap();
    let block = BlockBuilder::new().code(datalog).unwrap();
    let block = token.third_party_request().unwrap().create_block(&private, block).unwrap();
    token.append_third_party(&block.serialize().unwrap()).unwrap().to_vec().unwrap()
}

/// A token whose authority block is any Datalog, signed by the true root key.
pub(crate) fn mint_datalog(datalog: &str) -> Vec<u8> {
    let private = biscuit_auth::PrivateKey::from_bytes(&ROOT_SEED, biscuit_auth::Algorithm::Ed25519).unwrap();
    let builder = biscuit_auth::Biscuit::builder().root_key_id(root().id()).code(datalog).unwrap();
    builder.build(&KeyPair::from(&private)).unwrap().to_vec().unwrap()
}
