//! Whether the policy lets a principal open a right. The provider asks before it opens one; the token says what the
//! right is, the policy whether this principal may use it here and now.

use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::{Code, Error, Result};
use policy::{Facts, Kind, Quota};

use super::{Caller, Handle};

impl Handle {
    /// Judges the opening of a right to `bytes` bytes, by a token that was delegated `hops` times.
    ///
    /// Not ordered: nothing of the state depends on it. The provider records the opening, and the denial.
    ///
    /// # Errors
    /// `E_POLICY_DENIED`; `E_TOKEN_LIMIT` if the policy could not be decided within its bounds.
    pub fn may_open(&self, caller: Caller, bytes: u64, rights: Rights, hops: u8) -> Result<()> {
        let name = self.shared.directory.get(caller.holder);
        let facts = Facts {
            bytes: Some(bytes),
            rights,
            hops: Some(hops),
            ..Facts::new(Kind::LeaseOpen, caller.holder, name, caller.uid)
        };
        if self.shared.policy().decide(&facts)?.allowed {
            Ok(())
        } else {
            Err(Error::new(Code::PolicyDenied, "the policy does not let this principal open this right"))
        }
    }

    /// The quota of a principal; of one that is not registered, the default.
    #[must_use]
    pub fn quota(&self, principal: PrincipalKey) -> Quota {
        let genesis = &self.shared.genesis;
        self.shared.directory.get(principal).map_or(genesis.quota, |name| genesis.quota_of(&name))
    }
}
