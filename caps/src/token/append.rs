//! What a holder does offline: narrow a token, delegate it, seal it. None of these needs the root key or a server.
//!
//! Each of them gates the token first, so that nobody is made to parse hostile Datalog by being handed a token, and
//! gates the result, so that nobody makes a token that will be refused. Signatures are not checked: the holder may
//! not know the root key, and whoever receives the token checks them all.

use biscuit_auth::{KeyPair, UnverifiedBiscuit};

use super::Token;
use super::gate::{Gated, gate};
use super::keys::pair_of;
use super::terms::Narrow;
use super::vocabulary::{built, delegation, narrowing};
use super::weak;
use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;
use crate::key::{SigningKey, VerifyingKey};
use crate::limits::TOKEN_BLOCKS_MAX;

/// Narrows a token: appends a block of checks.
///
/// # Errors
/// `E_RANGE` if `narrow` is empty or wider than what the token has left; `E_DENIED` if the token is sealed;
/// `E_TOKEN_TOO_BIG` if there is no room for one more block; as [`gate`] if it is no token, and `E_TOKEN_SIG` if its
/// chain of holders is broken.
pub fn attenuate(token: &Token, narrow: &Narrow) -> Result<Token> {
    attenuate_with(token, narrow, &KeyPair::new())
}

pub(super) fn attenuate_with(token: &Token, narrow: &Narrow, next: &KeyPair) -> Result<Token> {
    if *narrow == Narrow::default() {
        return Err(Error::new(Code::Range, "say what to narrow"));
    }
    let gated = gate(token.as_bytes())?;
    extensible(&gated)?;
    let now = gated.walk()?.effective();
    let block = narrowing(&narrow.resolve(&now, now.hops)?)?;
    let biscuit = parse(&gated)?;
    finish(&built(biscuit.append_with_keypair(next, block))?)
}

/// Delegates a token: appends a block that names the next holder, signed by the present one.
///
/// Sign only tokens that you hold. The receiver may delegate on, within the hops that are left; hand over a sealed
/// token to forbid it.
///
/// # Errors
/// `E_TOKEN_BOUND` if `from` is not the present holder; `E_DENIED` if no hop is left or the token is sealed;
/// `E_RANGE` if `to` is no usable key or `narrow` is wider than what is left; else as [`attenuate`].
pub fn delegate(token: &Token, from: &SigningKey, to: PrincipalKey, narrow: &Narrow) -> Result<Token> {
    delegate_with(token, from, to, narrow, KeyPair::new())
}

#[expect(clippy::disallowed_methods, reason = "appends a block that is our own, made two lines above")]
pub(super) fn delegate_with(
    token: &Token,
    from: &SigningKey,
    to: PrincipalKey,
    narrow: &Narrow,
    next: KeyPair,
) -> Result<Token> {
    VerifyingKey::parse(to)?;
    weak::refuse(&to.0).map_err(|_| Error::new(Code::Range, "not an Ed25519 public key of full order"))?;
    let gated = gate(token.as_bytes())?;
    extensible(&gated)?;
    let walk = gated.walk()?;
    if walk.chain.holder != from.public() {
        return Err(Error::new(Code::TokenBound, "only the token's present holder can delegate it"));
    }
    let now = walk.effective();
    if now.hops_left().is_none_or(|left| left == 0) {
        return Err(Error::new(Code::Denied, "hops: the token may not be delegated any further"));
    }
    let block = delegation(to, &narrow.resolve(&now, now.hops + 1)?)?;
    let biscuit = parse(&gated)?;
    let request = built(biscuit.third_party_request())?;
    let signed = built(request.create_block(&pair_of(&from.seed()).private(), block))?;
    let contents = built(signed.serialize())?;
    finish(&built(biscuit.append_third_party_with_keypair(&contents, next))?)
}

/// Seals a token: no block can be appended any more. What travels should be sealed, because a copy of a sealed token
/// is of no use without the holder's key and cannot be made into another. Sealing a sealed token changes nothing.
///
/// # Errors
/// As [`gate`] if it is no token, and `E_TOKEN_SIG` if its chain of holders is broken.
pub fn seal(token: &Token) -> Result<Token> {
    let gated = gate(token.as_bytes())?;
    gated.walk()?;
    if gated.sealed {
        return Ok(token.clone());
    }
    finish(&built(parse(&gated)?.seal())?)
}

fn extensible(gated: &Gated<'_>) -> Result<()> {
    if gated.sealed {
        return Err(Error::new(Code::Denied, "sealed: nothing can be appended to a sealed token"));
    }
    if gated.blocks.len() == TOKEN_BLOCKS_MAX {
        return Err(Error::new(Code::TokenTooBig, "the token has 8 blocks, which is the most"));
    }
    Ok(())
}

/// The library's view of gated bytes. It can still find that a key is no point of the curve.
#[expect(clippy::disallowed_methods, reason = "the gate has seen these bytes")]
fn parse(gated: &Gated<'_>) -> Result<UnverifiedBiscuit> {
    let unreadable = |_| Error::new(Code::TokenSignature, "a key in the token is no point of the curve");
    UnverifiedBiscuit::from(gated.bytes).map_err(unreadable)
}

fn finish(biscuit: &UnverifiedBiscuit) -> Result<Token> {
    let token = Token::from_bytes(built(biscuit.to_vec())?)?;
    gate(token.as_bytes())?;
    Ok(token)
}
