//! What it takes to take back one block of a token, with all that was made of it.

use serde::{Deserialize, Serialize};

use super::chain::RevocationId;
use super::mark::Mark;
use super::verify::VerifiedToken;
use crate::error::{Code, Error, Result};
use crate::id::{GrantId, LeaseId, PrincipalKey};
use crate::range::ByteRange;
use crate::time::UnixMicros;

/// One block of a verified token, as whoever revokes it needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The token's lease.
    pub lease: LeaseId,
    /// The grant that it came by.
    pub grant: Option<GrantId>,
    /// Names the block: the delegating holder's signature if it is a delegation, else the block's own.
    pub id: RevocationId,
    /// Every token that descends from the block carries both, and one that the same delegation was appended to again
    /// carries the second.
    pub marks: [Option<Mark>; 2],
    /// The bytes that the token reached at that block, and no descendant reaches others; `None`: no byte.
    pub range: Option<ByteRange>,
    /// When the token's time began: one that began before its lease's present owner had it opens nothing.
    pub not_before: UnixMicros,
    /// When it ended at that block, and no descendant ends later.
    pub expires: UnixMicros,
    /// Who has held it up to that block, this included.
    pub holders: Vec<PrincipalKey>,
}

impl VerifiedToken {
    /// What it takes to take back block `block`; the authority block is 0.
    ///
    /// # Errors
    /// `E_RANGE` if it has no such block.
    pub fn cut(&self, block: u8) -> Result<Cut> {
        let none = Error::new(Code::Range, "the token has no such block");
        let after = self.after.get(usize::from(block)).ok_or(none.clone())?;
        let hops = &self.chain.hops;
        let delegation = hops.iter().find(|hop| hop.block == block).map(|hop| hop.delegation_id);
        // Every delegation before it has two ids.
        let at = usize::from(block) + hops.iter().filter(|hop| hop.block < block).count();
        let signature = *self.revocation_ids.get(at).ok_or(none)?;
        let held = hops.iter().filter(|hop| hop.block <= block).map(|hop| hop.to);
        Ok(Cut {
            lease: self.terms.lease,
            grant: self.terms.grant,
            id: delegation.unwrap_or(signature),
            marks: [Some(Mark::signature(&signature)), delegation.as_ref().map(Mark::signature)],
            range: after.range,
            not_before: self.terms.not_before,
            expires: after.expires,
            holders: std::iter::once(self.chain.first_holder).chain(held).collect(),
        })
    }
}
