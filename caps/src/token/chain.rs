//! The chain of holders: who gave the token to whom, walked on the gated blocks.
//!
//! A block with an external signature counts as a delegation only if the current holder signed it. The token library
//! accepts such a block from anybody: a thief with a copy of an unsealed token can append one that names himself, and
//! every signature verifies. It is this walk that refuses him.

use serde::{Deserialize, Serialize};

use super::gate::Gated;
use super::terms::Effective;
use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;

/// A signature inside a token, which names the block (or the delegation) that it vouches for.
///
/// A child holds its ancestors' blocks unchanged, so revoking the id of a block kills all that descends from it. A
/// delegation has two ids: its block can be appended again to the same parent with a fresh block signature, but then
/// the holder's signature is the same. A revocation set takes both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevocationId(#[serde(with = "serde_bytes")] pub [u8; 64]);

impl RevocationId {
    /// Reads the hexadecimal digits that logs and `leasehold token inspect` show.
    ///
    /// # Errors
    /// `E_RANGE` if these are not 128 lowercase digits.
    pub fn parse(text: &str) -> Result<Self> {
        crate::hex::parse(text)
            .map(Self)
            .ok_or(Error::new(Code::Range, "a revocation id has 128 hexadecimal digits"))
    }
}

crate::hex::shown_as_hex!(RevocationId);

/// One delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The block's place in the token; the authority block is 0.
    pub block: u8,
    /// The holder who delegated, and signed.
    pub from: PrincipalKey,
    /// The next holder.
    pub to: PrincipalKey,
    /// The block's signature.
    pub revocation_id: RevocationId,
    /// The delegating holder's signature, which stays when the block is appended again.
    pub delegation_id: RevocationId,
}

/// Everybody who has held the token, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Whom the broker named.
    pub first_holder: PrincipalKey,
    /// Whose key must be proven now.
    pub holder: PrincipalKey,
    /// The delegations between the two.
    pub hops: Vec<Hop>,
}

/// What a walk over the blocks finds.
pub(super) struct Walk {
    pub(super) chain: Chain,
    /// What is left after each block; as many as there are blocks.
    pub(super) after: Vec<Effective>,
}

impl Walk {
    /// What is left after the last block.
    pub(super) fn effective(&self) -> Effective {
        *self.after.last().expect("a token has an authority block")
    }
}

impl Gated<'_> {
    /// Walks the blocks. Says nothing about signatures.
    ///
    /// # Errors
    /// `E_TOKEN_SIG` if a delegation names another signer than the holder at that point.
    pub(super) fn walk(&self) -> Result<Walk> {
        let mut chain =
            Chain { first_holder: self.terms.holder, holder: self.terms.holder, hops: Vec::new() };
        let mut effective = self.terms.effective();
        let mut after = Vec::with_capacity(self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            if let Some(delegation) = &block.delegation {
                if delegation.from != chain.holder {
                    let detail =
                        format!("block {index} is signed by a key that is not the holder at that point");
                    return Err(Error::with(Code::TokenSignature, detail));
                }
                effective.hops += 1;
                chain.holder = delegation.to;
                chain.hops.push(Hop {
                    block: index as u8,
                    from: delegation.from,
                    to: delegation.to,
                    revocation_id: block.signature,
                    delegation_id: delegation.signature,
                });
            }
            effective = effective.narrowed(&block.narrowing);
            after.push(effective);
        }
        Ok(Walk { chain, after })
    }

    /// Every block's signature and every delegation's, in the order of the blocks.
    pub(super) fn revocation_ids(&self) -> Vec<RevocationId> {
        let ids = |block: &super::gate::GatedBlock| {
            [Some(block.signature), block.delegation.map(|delegation| delegation.signature)]
                .into_iter()
                .flatten()
        };
        self.blocks.iter().flat_map(ids).collect()
    }
}
