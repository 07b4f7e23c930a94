//! What the broker said last: principals, quotas, the policy, the administrator.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::wire::Name;
use caps::wire::cluster::{Allowance, PolicyText, Quotas};
use policy::{Policy, Quota};

/// What a provider knows. While the broker is away it goes on by what was true when that was last heard.
#[derive(Default)]
pub(in crate::node) struct Known {
    /// Each held for one look-up or one change; a change is one call, so a panic leaves them whole.
    people: RwLock<HashMap<PrincipalKey, Name>>,
    quotas: RwLock<(Option<Quota>, BTreeMap<Name, Quota>)>,
    policy: RwLock<Option<Arc<Policy>>>,
    admin: RwLock<Option<PrincipalKey>>,
}

impl Known {
    /// Who the administrator is.
    pub(in crate::node) fn tell_admin(&self, admin: PrincipalKey) {
        *write(&self.admin) = Some(admin);
    }

    /// Whether a key is the administrator's.
    pub(super) fn is_admin(&self, key: PrincipalKey) -> bool {
        *read(&self.admin) == Some(key)
    }

    /// Names, beside those that are known.
    pub(super) fn tell_people(&self, page: Vec<(PrincipalKey, Name)>) {
        write(&self.people).extend(page);
    }

    /// The registered name of a key.
    pub(super) fn name(&self, key: PrincipalKey) -> Option<Name> {
        read(&self.people).get(&key).cloned()
    }

    /// Quotas, beside those that are known.
    pub(super) fn tell_quotas(&self, page: Quotas) {
        let mut quotas = write(&self.quotas);
        quotas.0 = Some(quota(page.default));
        quotas.1.extend(page.named.into_iter().map(|(name, allowance)| (name, quota(allowance))));
    }

    /// The quota of a principal: its own, or the default for one that has none or is not registered.
    pub(super) fn quota(&self, key: PrincipalKey) -> Quota {
        let name = self.name(key);
        let quotas = read(&self.quotas);
        let own = name.and_then(|name| quotas.1.get(&name).copied());
        own.or(quotas.0).unwrap_or(NOTHING)
    }

    /// The policy in force.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if the text says something else here than at the broker: then the one before stays.
    pub(super) fn tell_policy(&self, said: &PolicyText) -> Result<()> {
        let other = || Error::new(Code::ConfigValue, "the broker's policy is none to this release");
        let policy = Policy::parse(&said.text, "the broker's policy").map_err(|_| other())?;
        if policy.hash().0 != said.hash {
            return Err(other());
        }
        *write(&self.policy) = Some(Arc::new(policy));
        Ok(())
    }

    /// The policy.
    ///
    /// # Errors
    /// `E_UNREACHABLE` before the broker said one: nothing is allowed by a policy that nobody knows.
    pub(super) fn policy(&self) -> Result<Arc<Policy>> {
        read(&self.policy)
            .clone()
            .ok_or(Error::new(Code::Unreachable, "the broker has not said its policy yet"))
    }
}

/// Before the broker said a quota.
const NOTHING: Quota = Quota {
    leases: 0,
    leased_bytes: 0,
    resident_bytes: 0,
    shared_bytes: 0,
    grants: 0,
    opens: 0,
    mappings: 0,
};

const fn quota(said: Allowance) -> Quota {
    let Allowance { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings } = said;
    Quota { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings }
}

/// A quota as a link carries it.
pub(in crate::node) const fn allowance(quota: &Quota) -> Allowance {
    let Quota { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings } = *quota;
    Allowance { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use caps::key::SigningKey;
    use caps::rights::Rights;

    use super::*;

    fn key(number: u8) -> PrincipalKey {
        SigningKey::from_seed(&[number; 32]).public()
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_provider_that_was_told_nothing_lets_nobody_do_anything() {
        let known = Known::default();
        assert_eq!(known.quota(key(1)), NOTHING);
        assert_eq!(known.policy().unwrap_err().code(), Code::Unreachable);
        assert!(!known.is_admin(key(1)) && known.name(key(1)).is_none());
    }

    #[test]
    fn a_quota_is_the_name_s_or_the_default() {
        let known = Known::default();
        let of = |opens| Quota { opens, ..NOTHING };
        let page = |named: Vec<(Name, Allowance)>| Quotas { default: allowance(&of(7)), named };
        known.tell_people(vec![(key(1), name("alice")), (key(2), name("bob"))]);
        known.tell_quotas(page(vec![(name("alice"), allowance(&of(1)))]));
        known.tell_quotas(page(vec![(name("carol"), allowance(&of(3)))]));
        assert_eq!([1, 2, 9].map(|number| known.quota(key(number)).opens), [1, 7, 7]);
    }

    #[test]
    fn a_policy_of_another_hash_is_not_taken() {
        let known = Known::default();
        let text = policy::datalog::DEFAULT;
        let hash = Policy::parse(text, "p").unwrap().hash().0;
        known.tell_policy(&PolicyText { text: text.into(), hash }).unwrap();
        let allowed = known.policy().unwrap().may_open((key(1), Some(name("alice"))), None, 4096, Rights::READ, 0);
        allowed.unwrap();
        for (text, hash) in [(text, [0; 32]), ("nonsense", hash)] {
            let told = known.tell_policy(&PolicyText { text: text.into(), hash });
            assert_eq!(told.unwrap_err().code(), Code::ConfigValue);
        }
        assert_eq!(known.policy().unwrap().hash().0, hash, "the one before stays");
    }
}
