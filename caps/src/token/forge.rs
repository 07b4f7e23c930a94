//! Tokens that our own API would not make, for tests and fuzzing: any bytes as a block, signed properly, so that what
//! refuses them is not the signature. It knows no secret that its caller does not have.

use ed25519_dalek::{Signer, SigningKey as RawKey};

use super::Token;
use super::append::{attenuate_with, delegate_with};
use super::container::{Container, External, Proof, SIGNATURE_V1, SignedBlock};
use super::keys::{RootKey, pair_of};
use super::terms::{Narrow, Narrowing, Terms};
use super::vocabulary::{built, narrowing};
use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;
use crate::key::SigningKey;

/// Mints with a given next secret: the same token each time.
///
/// # Errors
/// As [`RootKey::mint`].
pub fn mint(root: &RootKey, terms: &Terms, next: &[u8; 32]) -> Result<Token> {
    root.mint_with(terms, &pair_of(next))
}

/// Narrows with a given next secret.
///
/// # Errors
/// As [`attenuate`](super::attenuate).
pub fn attenuate(token: &Token, narrow: &Narrow, next: &[u8; 32]) -> Result<Token> {
    attenuate_with(token, narrow, &pair_of(next))
}

/// Delegates with a given next secret.
///
/// # Errors
/// As [`delegate`](super::delegate).
pub fn delegate(
    token: &Token,
    from: &SigningKey,
    to: PrincipalKey,
    narrow: &Narrow,
    next: &[u8; 32],
) -> Result<Token> {
    delegate_with(token, from, to, narrow, pair_of(next))
}

/// Narrows without asking whether it is narrower: what another tool may write.
///
/// # Errors
/// If the token is sealed, or the library refuses the block.
#[expect(clippy::disallowed_methods, reason = "for tests: a token of our own")]
pub fn narrow_anyhow(token: &Token, by: &Narrowing) -> Result<Token> {
    let biscuit = built(biscuit_auth::UnverifiedBiscuit::from(token.as_bytes()))?;
    Token::from_bytes(built(built(biscuit.append(narrowing(by)?))?.to_vec())?)
}

/// Signs any bytes as an authority block.
#[must_use]
pub fn mint_raw(root: &[u8; 32], root_key_id: Option<u32>, block: &[u8], next: &[u8; 32]) -> Vec<u8> {
    let key = *RawKey::from_bytes(next).verifying_key().as_bytes();
    let signature = RawKey::from_bytes(root).sign(&payload_v0(block, &key)).to_bytes();
    let authority = SignedBlock { block, next_key: &key, signature: &signature, external: None, version: 0 };
    Container { root_key_id, blocks: vec![authority], proof: Proof::NextSecret(next) }.to_bytes().to_vec()
}

/// Appends any bytes as a block, with the external signature of `holder` if there is one.
///
/// # Errors
/// `E_DENIED` if the token is sealed; as the gate if its outer half is no token.
pub fn append_raw(token: &[u8], block: &[u8], holder: Option<&[u8; 32]>, next: &[u8; 32]) -> Result<Vec<u8>> {
    let container = Container::read(token)?;
    let previous = container.blocks.last().expect("a container has an authority block").signature;
    let external = holder.map(|holder| {
        let holder = RawKey::from_bytes(holder);
        let message = [
            b"\0EXTERNAL\0\0VERSION\0",
            &1u32.to_le_bytes()[..],
            b"\0PAYLOAD\0",
            block,
            b"\0PREVSIG\0",
            previous,
        ];
        (holder.sign(&message.concat()).to_bytes(), *holder.verifying_key().as_bytes())
    });
    let external = external.as_ref().map(|(signature, key)| External { signature, key });
    append_signed(container, block, external, next)
}

/// Appends the last block of `from`, with the external signature that it has there, if any: what somebody can do with
/// tokens of others and no key.
///
/// # Errors
/// As [`append_raw`].
pub fn replay(token: &[u8], from: &[u8], next: &[u8; 32]) -> Result<Vec<u8>> {
    let from = Container::read(from)?;
    let last = from.blocks.last().expect("a container has an authority block");
    append_signed(Container::read(token)?, last.block, last.external, next)
}

fn append_signed<'a>(
    container: Container<'a>,
    block: &'a [u8],
    external: Option<External<'a>>,
    next: &'a [u8; 32],
) -> Result<Vec<u8>> {
    let Proof::NextSecret(secret) = container.proof else { return Err(Error::new(Code::Denied, "sealed")) };
    let previous = container.blocks.last().expect("a container has an authority block").signature;
    let key = *RawKey::from_bytes(next).verifying_key().as_bytes();
    let chained = external.is_some() || container.blocks.iter().any(|block| block.version == SIGNATURE_V1);
    let message = if chained {
        let mut message = [b"\0BLOCK\0\0VERSION\0", &1u32.to_le_bytes()[..], b"\0PAYLOAD\0", block].concat();
        message.extend(
            [b"\0ALGORITHM\0", &0i32.to_le_bytes()[..], b"\0NEXTKEY\0", &key, b"\0PREVSIG\0", previous]
                .concat(),
        );
        if let Some(external) = &external {
            message.extend([&b"\0EXTERNALSIG\0"[..], external.signature].concat());
        }
        message
    } else {
        payload_v0(block, &key)
    };
    let signature = RawKey::from_bytes(secret).sign(&message).to_bytes();
    let version = if chained { SIGNATURE_V1 } else { 0 };
    let mut blocks = container.blocks;
    blocks.push(SignedBlock { block, next_key: &key, signature: &signature, external, version });
    Ok(Container { blocks, proof: Proof::NextSecret(next), ..container }.to_bytes().to_vec())
}

/// The content of every block of a token.
///
/// # Errors
/// As the gate, if its outer half is no token.
pub fn blocks(token: &[u8]) -> Result<Vec<Vec<u8>>> {
    Ok(Container::read(token)?.blocks.iter().map(|block| block.block.to_vec()).collect())
}

fn payload_v0(block: &[u8], next: &[u8; 32]) -> Vec<u8> {
    [block, &0i32.to_le_bytes(), next].concat()
}
