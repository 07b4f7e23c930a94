//! What a token says, for people and for `--json`, without a key and without a node.

use serde::Serialize;

use super::Token;
use super::gate::gate;
use super::keys::RootKeys;
use super::terms::{Effective, Narrowing, Terms};
use super::took::Took;
use crate::error::Result;

/// Everything that can be read off a token. Ids and keys are lowercase hexadecimal, times Unix microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Whether anything below can be believed.
    pub signatures: Signatures,
    /// The root key that the token names.
    pub root_key_id: Option<u32>,
    /// Length of the token.
    pub bytes: usize,
    /// Whether no block can be appended any more.
    pub sealed: bool,
    /// The lease.
    pub lease: String,
    /// The region.
    pub region: String,
    /// The `MEM_SHARE` that it comes from.
    pub grant: Option<String>,
    /// The life of the control plane.
    pub cluster: String,
    /// The life of the provider.
    pub provider: String,
    /// Everybody who has held it, the broker's choice first, the present holder last.
    pub holders: Vec<String>,
    /// What the present holder may do.
    pub effective: View,
    /// Block by block.
    pub blocks: Vec<BlockView>,
    /// The ids that kill this token when they are revoked.
    pub revocation_ids: Vec<String>,
}

/// Whether the signatures were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Signatures {
    /// No root key was given: anybody could have written this token.
    NotChecked,
    /// Every signature verifies, from a trusted root key to the last block.
    Verified,
    /// They do not: the token is worthless here.
    Refused {
        /// The stable code.
        code: &'static str,
    },
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockView {
    /// 0 is the authority block.
    pub index: usize,
    /// What it is.
    pub kind: Kind,
    /// Who vouches for it: a key, or nobody but whoever held the token.
    pub signer: String,
    /// Whom it names as the next holder.
    pub delegate: Option<String>,
    /// What its checks say. Empty for an authority block, whose checks are its terms.
    pub narrows: Narrowing,
    /// What it took away. Less than its checks say where an earlier block had said so already.
    pub took: Took,
    /// What is left after it.
    pub after: View,
    /// Its signature.
    pub revocation_id: String,
    /// The delegating holder's signature.
    pub delegation_id: Option<String>,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The broker's grant.
    Authority,
    /// Narrowing by whoever held the token.
    Attenuation,
    /// A holder names the next one.
    Delegation,
}

/// What is left at some point of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// As `rws`, or `-` for none.
    pub rights: String,
    /// First byte and one past the last; absent if no byte is left.
    pub range: Option<[u64; 2]>,
    /// From when on.
    pub not_before: u64,
    /// Until just before when.
    pub expires: u64,
    /// Delegations so far.
    pub hops: u8,
    /// Delegations still allowed; absent if there are more than allowed, and then the token allows nothing.
    pub hops_left: Option<u8>,
    /// Most opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<u64>,
    /// Most bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Most bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

impl From<&Effective> for View {
    fn from(effective: &Effective) -> Self {
        Self {
            rights: effective.rights.to_string(),
            range: effective.range.map(|range| [range.start(), range.end()]),
            not_before: effective.not_before.0,
            expires: effective.expires.0,
            hops: effective.hops,
            hops_left: effective.hops_left(),
            opens: effective.opens,
            bytes_per_second: effective.bytes_per_second,
            bytes_total: effective.bytes_total,
        }
    }
}

/// Reads a token. With `keys`, says whether its signatures verify; without, says that nobody checked.
///
/// # Errors
/// As [`gate`] if it is no token, and `E_TOKEN_SIG` if its chain of holders is broken: what such a token says is not
/// worth showing.
pub fn inspect(token: &Token, keys: Option<&RootKeys>) -> Result<Inspection> {
    let gated = gate(token.as_bytes())?;
    let walk = gated.walk()?;
    let signatures = match keys.map(|keys| gated.verify(keys)) {
        None => Signatures::NotChecked,
        Some(Ok(_)) => Signatures::Verified,
        Some(Err(error)) => Signatures::Refused { code: error.code().text() },
    };
    let root = || {
        gated.root_key_id.map_or_else(|| "no root key named".to_owned(), |id| format!("root key {id:08x}"))
    };
    let blocks = gated.blocks.iter().zip(&walk.after).enumerate();
    let blocks = blocks.map(|(index, (block, after))| {
        let (kind, signer) = match &block.delegation {
            _ if index == 0 => (Kind::Authority, root()),
            None => (Kind::Attenuation, "whoever held the token".to_owned()),
            Some(delegation) => (Kind::Delegation, delegation.from.to_string()),
        };
        BlockView {
            index,
            kind,
            signer,
            delegate: block.delegation.map(|delegation| delegation.to.to_string()),
            narrows: block.narrowing,
            took: index
                .checked_sub(1)
                .map_or_else(Took::default, |last| Took::between(&walk.after[last], after)),
            after: after.into(),
            revocation_id: block.signature.to_string(),
            delegation_id: block.delegation.map(|delegation| delegation.signature.to_string()),
        }
    });
    let Terms { lease, region, grant, cluster, provider, .. } = &gated.terms;
    let holders = std::iter::once(walk.chain.first_holder).chain(walk.chain.hops.iter().map(|hop| hop.to));
    Ok(Inspection {
        signatures,
        root_key_id: gated.root_key_id,
        bytes: gated.bytes.len(),
        sealed: gated.sealed,
        lease: lease.to_string(),
        region: region.to_string(),
        grant: grant.as_ref().map(ToString::to_string),
        cluster: cluster.to_string(),
        provider: provider.to_string(),
        holders: holders.map(|holder| holder.to_string()).collect(),
        effective: (&walk.effective()).into(),
        blocks: blocks.collect(),
        revocation_ids: gated.revocation_ids().iter().map(ToString::to_string).collect(),
    })
}
