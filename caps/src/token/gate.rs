//! The gate: nobody parses a token before its shape, its size and its vocabulary are known.
//!
//! Any holder of a token that is not sealed may append any Datalog to it. Ungated, about a kilobyte of it keeps a
//! core busy for half a minute. So the gate reads the bytes itself, in bounded time and memory, and passes only
//! tokens that are a lease and bounds on it, in the one canonical encoding.
//!
//! Passing the gate proves nothing about who wrote the token: see [`Gated`].

use super::block::Block;
use super::chain::RevocationId;
use super::container::{Container, Proof};
use super::profile;
use super::symbols::Symbols;
use super::terms::{Narrowing, Terms};
use crate::error::Result;
use crate::id::PrincipalKey;

/// A token whose shape is known. What holding one proves: the bytes are a canonical token of at most 8 blocks, every
/// block is in the vocabulary of leases, and judging it costs a bounded number of steps. What it does not prove: any
/// signature. The one way on is [`Gated::verify`].
///
/// ```compile_fail
/// fn forge<'a>(honest: caps::token::Gated<'a>, bytes: &'a [u8]) -> caps::token::Gated<'a> {
///     caps::token::Gated { bytes, ..honest }
/// }
/// ```
/// ```
/// fn honest<'a>(bytes: &'a [u8]) -> caps::Result<caps::token::Gated<'a>> {
///     caps::token::gate(bytes)
/// }
/// ```
pub struct Gated<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) root_key_id: Option<u32>,
    pub(super) sealed: bool,
    pub(super) terms: Terms,
    pub(super) blocks: Vec<GatedBlock>,
}

/// What one block says, and what vouches for it.
pub(super) struct GatedBlock {
    pub(super) signature: RevocationId,
    pub(super) narrowing: Narrowing,
    pub(super) delegation: Option<Delegation>,
}

/// A block by which one holder names the next.
#[derive(Clone, Copy)]
pub(super) struct Delegation {
    pub(super) from: PrincipalKey,
    pub(super) to: PrincipalKey,
    pub(super) signature: RevocationId,
}

/// Judges the shape of a token without trusting a byte of it. No allocation is larger than the token.
///
/// # Errors
/// `E_TOKEN_TOO_BIG`, `E_TOKEN_MALFORMED`, `E_TOKEN_NONCANONICAL`, `E_TOKEN_VERSION`, `E_TOKEN_ALG`,
/// `E_TOKEN_PROFILE`, or `E_TOKEN_SIG` for a key of small order.
pub fn gate(bytes: &[u8]) -> Result<Gated<'_>> {
    let container = Container::read(bytes)?;
    let mut symbols = Symbols::default();
    let mut blocks = Vec::with_capacity(container.blocks.len());
    let mut terms = None;
    for signed in &container.blocks {
        let block = Block::read(signed.block)?;
        let (narrowing, delegation) = match (&terms, signed.external) {
            (None, _) => {
                let (read, narrowing) = profile::authority(&block, &mut symbols)?;
                terms = Some(read);
                (narrowing, None)
            }
            (Some(_), None) => (profile::attenuation(&block, &mut symbols)?, None),
            (Some(_), Some(external)) => {
                let (to, narrowing) = profile::delegation(&block)?;
                let (from, signature) = (PrincipalKey(*external.key), RevocationId(*external.signature));
                (narrowing, Some(Delegation { from, to, signature }))
            }
        };
        blocks.push(GatedBlock { signature: RevocationId(*signed.signature), narrowing, delegation });
    }
    let terms = terms.expect("a container has an authority block");
    let sealed = matches!(container.proof, Proof::Final(_));
    Ok(Gated { bytes, root_key_id: container.root_key_id, sealed, terms, blocks })
}

impl std::fmt::Debug for Gated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gated")
            .field("blocks", &self.blocks.len())
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}
