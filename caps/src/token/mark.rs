//! What can be revoked of a token, in one size.
//!
//! A token descends from signatures and passes through keys. Either can be taken back: one block with all that was made
//! of it, or one person as a delegate. A provider remembers what was taken back as marks, which take half the room of a
//! signature and tell nobody what they stand for.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::chain::{Chain, RevocationId};
use crate::id::PrincipalKey;

/// Names a signature in a token, or a key as one that a token was delegated to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(#[serde(with = "serde_bytes")] [u8; 32]);

/// Keeps the two kinds apart, and both apart from every other use of the hash.
const SIGNATURE: &[u8] = b"leasehold-mark-v1\0signature\0";
const DELEGATE: &[u8] = b"leasehold-mark-v1\0delegate\0";

impl Mark {
    /// The mark of a block's signature, or of a delegation's.
    #[must_use]
    pub fn signature(id: &RevocationId) -> Self {
        Self::of(SIGNATURE, &id.0)
    }

    /// The mark of everybody's delegations to `holder`. The first holder, whom the broker named, is not marked so: what
    /// the broker gives is taken back by lease or grant, and may be given anew.
    #[must_use]
    pub fn delegate(holder: PrincipalKey) -> Self {
        Self::of(DELEGATE, &holder.0)
    }

    fn of(kind: &[u8], bytes: &[u8]) -> Self {
        Self(Sha256::new().chain_update(kind).chain_update(bytes).finalize().into())
    }

    /// For tests and fuzz targets of whoever remembers marks.
    #[doc(hidden)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

crate::hex::shown_as_hex!(Mark);

/// Every mark of a token: its signatures first, ancestors before descendants, then whom it was delegated to.
pub(super) fn marks(ids: &[RevocationId], chain: &Chain) -> Box<[Mark]> {
    let signatures = ids.iter().map(Mark::signature);
    signatures.chain(chain.hops.iter().map(|hop| Mark::delegate(hop.to))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_which_kind_it_is_of() {
        let (id, key) = (RevocationId([7; 64]), PrincipalKey([7; 32]));
        assert_eq!(Mark::signature(&id), Mark::signature(&id));
        assert_ne!(Mark::signature(&id), Mark::signature(&RevocationId([8; 64])));
        assert_ne!(Mark::delegate(key), Mark::delegate(PrincipalKey([8; 32])));
        assert_ne!(Mark::signature(&id).0, Mark::delegate(key).0);
        assert_eq!(Mark::delegate(key).to_string().len(), 64);
    }
}
