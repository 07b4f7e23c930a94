//! What the broker said last: principals, quotas, the policy, the administrator.

use std::sync::{Arc, PoisonError, RwLock};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::wire::Name;
use caps::wire::cluster::{Fact, PolicyText};
use link::Facts;
use policy::{Policy, Quota};

/// What a provider knows. While the broker is away it goes on by what was true when that was last heard.
pub(in crate::node) struct Known {
    /// Held for one look-up or one change.
    told: RwLock<Told>,
}

struct Told {
    facts: Facts,
    policy: Arc<Policy>,
}

impl Known {
    /// What was told at the beginning.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub(in crate::node) fn new(facts: Facts) -> Result<Self> {
        let policy = Arc::new(parse(&facts.policy)?);
        Ok(Self { told: RwLock::new(Told { facts, policy }) })
    }

    /// Knows all this from now on, and nothing of what was known before.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if the policy says something else here than at the broker: then nothing has changed.
    pub(super) fn replace(&self, facts: Facts) -> Result<()> {
        let policy = Arc::new(parse(&facts.policy)?);
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = Told { facts, policy };
        Ok(())
    }

    /// Knows one thing more, or better.
    ///
    /// # Errors
    /// As [`Self::replace`]; `E_FRAME_TYPE` for more than a cluster has.
    pub(super) fn learn(&self, fact: Fact) -> Result<()> {
        let policy = if let Fact::Policy(said) = &fact { Some(Arc::new(parse(said)?)) } else { None };
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        told.facts.apply(fact)?;
        told.policy = policy.unwrap_or(told.policy.clone());
        Ok(())
    }

    fn look<T>(&self, at: impl FnOnce(&Told) -> T) -> T {
        at(&self.told.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The registered name of a key, and whether it is the administrator's.
    pub(super) fn who(&self, key: PrincipalKey) -> (Option<Name>, bool) {
        self.look(|told| (told.facts.principals.get(&key).cloned(), told.facts.admin == key))
    }

    /// The quota of a principal: its own, or the default for one that has none or is not registered.
    pub(super) fn quota(&self, key: PrincipalKey) -> Quota {
        self.look(|told| told.facts.quota_of(told.facts.principals.get(&key)))
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.look(|told| told.policy.clone())
    }
}

/// The policy that its hash says.
fn parse(said: &PolicyText) -> Result<Policy> {
    let other = || Error::new(Code::ConfigValue, "the broker's policy is another one to this release");
    let policy = Policy::parse(&said.text, "the broker's policy").map_err(|_| other())?;
    if policy.hash().0 == said.hash { Ok(policy) } else { Err(other()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use caps::id::ClusterEpoch;
    use caps::key::SigningKey;
    use caps::rights::Rights;

    use super::*;

    fn key(number: u8) -> PrincipalKey {
        SigningKey::from_seed(&[number; 32]).public()
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn of(opens: u32) -> Quota {
        Quota { opens, ..policy::config::Quotas::default().default }
    }

    fn text(text: &str) -> PolicyText {
        PolicyText { text: text.into(), hash: Policy::parse(text, "p").unwrap().hash().0 }
    }

    fn facts() -> Facts {
        Facts {
            cluster: ClusterEpoch([1; 16]),
            admin: key(9),
            roots: caps::wire::cluster::Roots::default(),
            policy: text(policy::datalog::DEFAULT),
            quota: of(7),
            quotas: BTreeMap::from([(name("alice"), of(1)), (name("carol"), of(3))]),
            principals: BTreeMap::from([(key(1), name("alice")), (key(2), name("bob"))]),
        }
    }

    fn may_open(known: &Known, number: u8) -> Result<()> {
        let (name, _) = known.who(key(number));
        known.policy().may_open((key(number), name), None, 4096, Rights::READ, 0)
    }

    #[test]
    fn a_quota_is_the_name_s_or_the_default() {
        let known = Known::new(facts()).unwrap();
        assert_eq!([1, 2, 5].map(|number| known.quota(key(number)).opens), [1, 7, 7]);
        known.learn(Fact::Principals(vec![(key(5), name("carol"))])).unwrap();
        assert_eq!([1, 2, 5].map(|number| known.quota(key(number)).opens), [1, 7, 3]);
        assert_eq!((known.who(key(5)), known.who(key(9))), ((Some(name("carol")), false), (None, true)));
    }

    #[test]
    fn a_policy_of_another_hash_is_not_taken() {
        let known = Known::new(facts()).unwrap();
        may_open(&known, 1).unwrap();
        let none = text("deny if true;");
        let odd = PolicyText { text: none.text.clone(), hash: [0; 32] };
        let nonsense = PolicyText { text: "nonsense".into(), hash: none.hash };
        for wrong in [odd, nonsense] {
            assert_eq!(known.learn(Fact::Policy(wrong.clone())).unwrap_err().code(), Code::ConfigValue);
            let replaced = known.replace(Facts { policy: wrong.clone(), admin: key(3), ..facts() });
            assert_eq!(replaced.unwrap_err().code(), Code::ConfigValue);
            assert!(Known::new(Facts { policy: wrong, ..facts() }).is_err());
        }
        assert!(may_open(&known, 1).is_ok() && known.who(key(9)).1, "what was known before stays");
        known.learn(Fact::Policy(none)).unwrap();
        assert_eq!(may_open(&known, 1).unwrap_err().code(), Code::PolicyDenied);
        // All is as it is told then, whatever was known.
        known.replace(Facts { principals: BTreeMap::new(), ..facts() }).unwrap();
        assert_eq!(known.who(key(1)).0, None);
        known.learn(Fact::Principals(vec![(key(5), name("carol"))])).unwrap();
        assert!(may_open(&known, 5).is_ok(), "by the policy of the beginning");
    }
}
