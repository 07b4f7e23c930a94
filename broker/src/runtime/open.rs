//! Whether the policy lets a principal open a right. The provider asks before it opens one; the token says what the
//! right is, the policy whether this principal may use it here and now.

use caps::Result;
use caps::id::PrincipalKey;
use caps::rights::Rights;
use policy::Quota;

use super::{Caller, Handle};

impl Handle {
    /// Judges the opening of a right to `bytes` bytes, by a token that was delegated `hops` times.
    ///
    /// Not ordered: nothing of the state depends on it. The provider records the opening, and the denial.
    ///
    /// # Errors
    /// `E_POLICY_DENIED`; `E_TOKEN_LIMIT` if the policy could not be decided within its bounds.
    pub fn may_open(&self, caller: Caller, bytes: u64, rights: Rights, hops: u8) -> Result<()> {
        let who = (caller.holder, self.shared.directory.get(caller.holder));
        self.shared.policies.now().may_open(who, caller.uid, bytes, rights, hops)
    }

    /// The quota of a principal; of one that is not registered, the default.
    #[must_use]
    pub fn quota(&self, principal: PrincipalKey) -> Quota {
        let genesis = &self.shared.genesis;
        self.shared.directory.get(principal).map_or(genesis.quota, |name| genesis.quota_of(&name))
    }
}
