//! From a gated token to one that is believed: every signature, and the chain of holders.

use biscuit_auth::error::Format;
use biscuit_auth::format::SerializedBiscuit;
use zeroize::Zeroizing;

use super::chain::{Chain, RevocationId};
use super::gate::Gated;
use super::keys::RootKeys;
use super::mark::{self, Mark};
use super::meter::{self, Meter};
use super::terms::{Effective, Terms};
use crate::error::{Code, Error, Result};

/// A token whose every signature verifies. What holding one proves: a trusted root key granted [`Self::terms`], each
/// later block was appended by somebody who held the token, and each delegation was signed by the holder at that
/// point. What it does not prove: that the session is the holder, that the time is right, that nothing was revoked.
/// The one way on is [`authorize`](Self::authorize).
///
/// It keeps no token bytes and no secret, so a session can hold it for long.
///
/// ```compile_fail
/// fn forge(honest: caps::token::VerifiedToken, terms: caps::token::Terms) -> caps::token::VerifiedToken {
///     caps::token::VerifiedToken { terms, ..honest }
/// }
/// ```
/// ```
/// fn honest(token: &caps::token::Token, keys: &caps::token::RootKeys) -> caps::Result<caps::token::VerifiedToken> {
///     caps::token::gate(token.as_bytes())?.verify(keys)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    pub(super) terms: Terms,
    pub(super) effective: Effective,
    pub(super) chain: Chain,
    pub(super) revocation_ids: Vec<RevocationId>,
    pub(super) marks: Box<[Mark]>,
    /// What is left after each block.
    pub(super) after: Box<[Effective]>,
    pub(super) meters: Box<[Meter]>,
    pub(super) root_key_id: u32,
    pub(super) sealed: bool,
}

impl Gated<'_> {
    /// Checks every signature and walks the chain of holders.
    ///
    /// # Errors
    /// `E_TOKEN_UNKNOWN_KEY` if the token names no trusted root key; `E_TOKEN_SIG` if a signature does not verify or
    /// a delegation was not signed by the holder at that point.
    #[expect(clippy::disallowed_methods, reason = "the gate has seen these bytes")]
    pub fn verify(&self, keys: &RootKeys) -> Result<VerifiedToken> {
        let (root_key_id, root) = keys.choose(self.root_key_id)?;
        let walk = self.walk()?;
        let container = SerializedBiscuit::from_slice(self.bytes, root).map_err(|error| refused(&error))?;
        // The gate has read the same bytes by other code. If the two ever disagreed about what the bytes are, the
        // signatures would vouch for something else than what the gate saw.
        // As a token may, it has the secret that signs the next block.
        let written = Zeroizing::new(container.to_vec().map_err(|error| refused(&error))?);
        if *written != self.bytes {
            return Err(Error::new(Code::TokenNoncanonical, "the token has another encoding"));
        }
        let revocation_ids = self.revocation_ids();
        Ok(VerifiedToken {
            terms: self.terms,
            effective: walk.effective(),
            marks: mark::marks(&revocation_ids, &walk.chain),
            meters: meter::meters(&self.blocks),
            chain: walk.chain,
            after: walk.after.into(),
            revocation_ids,
            root_key_id,
            sealed: self.sealed,
        })
    }
}

/// The code of a refusal by the library. Its text is not passed on: it quotes the token.
pub(super) fn refused(error: &Format) -> Error {
    match error {
        Format::UnknownPublicKey => Error::new(Code::TokenUnknownKey, "the token names no trusted root key"),
        // What the gate has passed can fail only in its keys (no point of the curve) or signatures.
        _ => Error::new(Code::TokenSignature, "a signature does not verify"),
    }
}

impl VerifiedToken {
    /// What the broker granted, before any narrowing.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What every block together leaves.
    #[must_use]
    pub const fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Who has held the token.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Which ids kill this token when they are revoked: every block's signature and every delegation's.
    #[must_use]
    pub fn revocation_ids(&self) -> &[RevocationId] {
        &self.revocation_ids
    }

    /// The same as marks, and everybody whom it was delegated to: any of them, taken back, kills this token.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The marks of the blocks up to `block`: what kills the token from which that one was made, and with it this.
    #[must_use]
    pub fn marks_until(&self, block: u8) -> Vec<Mark> {
        let hops = || self.chain.hops.iter().filter(|hop| hop.block <= block);
        // A block has one signature, and a delegation one more.
        let signatures = usize::from(block) + 1 + hops().count();
        let signatures = self.revocation_ids.iter().take(signatures).map(Mark::signature);
        signatures.chain(hops().map(|hop| Mark::delegate(hop.to))).collect()
    }

    /// How many blocks the token has, the broker's grant included.
    #[must_use]
    pub fn blocks(&self) -> u8 {
        // At most 8 blocks, of which each has one signature and each delegation one more.
        (self.revocation_ids.len() - self.chain.hops.len()) as u8
    }

    /// What has to be counted for it, ancestors first; empty for a token without limits on use.
    #[must_use]
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }

    /// The root key that granted it.
    #[must_use]
    pub const fn root_key_id(&self) -> u32 {
        self.root_key_id
    }

    /// Whether no block can be appended any more.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Asks `revoked` about every id of the token.
    ///
    /// A token that is narrowed again from a parent after its child was revoked is a new child with new ids, and
    /// lives as long as the parent: to take a right back from who holds the parent, revoke the parent.
    ///
    /// # Errors
    /// `E_TOKEN_REVOKED` if any of them is.
    pub fn check_revoked(&self, revoked: impl FnMut(&RevocationId) -> bool) -> Result<()> {
        if self.revocation_ids.iter().any(revoked) {
            return Err(Error::new(
                Code::TokenRevoked,
                "the token, or one that it descends from, was revoked",
            ));
        }
        Ok(())
    }
}
