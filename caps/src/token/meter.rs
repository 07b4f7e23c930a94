//! What a provider counts for a token.
//!
//! A limit on use stands in a block, and whoever narrows on inherits it: one budget is shared by the block's holder and
//! by everybody below. So there is one meter for each block that limits use, not one for each token, and a use counts on
//! all of a token's meters.

use super::chain::RevocationId;
use super::gate::GatedBlock;
use super::mark::Mark;

/// The limits that one block sets on use, and the name that its count goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Names the count. For a delegation it is the holder's signature, which stays when the block is appended again: a
    /// fresh copy of it has no fresh count.
    pub key: Mark,
    /// How often rights may be opened in all.
    pub opens: Option<u64>,
    /// How many bytes a second may be moved.
    pub bytes_per_second: Option<u64>,
    /// How many bytes may be moved in all.
    pub bytes_total: Option<u64>,
}

/// The meters of gated blocks, ancestors first.
pub(super) fn meters(blocks: &[GatedBlock]) -> Box<[Meter]> {
    blocks.iter().filter_map(meter).collect()
}

fn meter(block: &GatedBlock) -> Option<Meter> {
    let super::terms::Narrowing { opens, bytes_per_second, bytes_total, .. } = block.narrowing;
    if opens.is_none() && bytes_per_second.is_none() && bytes_total.is_none() {
        return None;
    }
    let key: RevocationId = block.delegation.map_or(block.signature, |delegation| delegation.signature);
    Some(Meter { key: Mark::signature(&key), opens, bytes_per_second, bytes_total })
}
