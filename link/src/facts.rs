//! What a provider has to know of its cluster: whole, as a node has it, and in pages, as it travels.

use std::collections::BTreeMap;

use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, PrincipalKey};
use caps::wire::Name;
use caps::wire::cluster::{Allowance, Fact, PolicyText, Quotas, Roots, Welcome};
use policy::Quota;
use policy::limits::{LINK_PAGE_MAX, PRINCIPALS_MAX, QUOTAS_MAX};

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This life of the control plane.
    pub cluster: ClusterEpoch,
    /// The administrator.
    pub admin: PrincipalKey,
    /// The root keys whose tokens are believed, and which of those that were before have expired.
    pub roots: Roots,
    /// The policy in force.
    pub policy: PolicyText,
    /// The quota of who has none by name.
    pub quota: Quota,
    /// Quotas by name.
    pub quotas: BTreeMap<Name, Quota>,
    /// Registered names.
    pub principals: BTreeMap<PrincipalKey, Name>,
}

impl Facts {
    /// What a principal of this name may have.
    #[must_use]
    pub fn quota_of(&self, name: Option<&Name>) -> Quota {
        name.and_then(|name| self.quotas.get(name)).copied().unwrap_or(self.quota)
    }

    /// The quotas in pages: at least one, for the default.
    pub(crate) fn quota_pages(&self) -> Vec<Fact> {
        let named: Vec<_> =
            self.quotas.iter().map(|(name, quota)| (name.clone(), allowance(*quota))).collect();
        let page = |named: &[(Name, Allowance)]| {
            Fact::Quotas(Quotas { default: allowance(self.quota), named: named.to_vec() })
        };
        if named.is_empty() { vec![page(&[])] } else { named.chunks(LINK_PAGE_MAX).map(page).collect() }
    }

    /// Takes in what was told.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` if there would be more than a node has.
    pub fn apply(&mut self, fact: Fact) -> Result<()> {
        let full = || Err(Error::new(Code::FrameType, "more quotas or names than a cluster has"));
        match fact {
            Fact::Roots(roots) => self.roots = roots,
            Fact::Policy(policy) => self.policy = policy,
            Fact::Quotas(Quotas { default, named }) => {
                self.quota = quota(default);
                self.quotas.extend(named.into_iter().map(|(name, one)| (name, quota(one))));
                if self.quotas.len() > QUOTAS_MAX {
                    return full();
                }
            }
            Fact::Principals(page) => {
                self.principals.extend(page);
                if self.principals.len() > PRINCIPALS_MAX {
                    return full();
                }
            }
        }
        Ok(())
    }
}

/// Facts that are being told.
#[derive(Default)]
pub(crate) struct Gathering {
    roots: bool,
    policy: bool,
    quotas: bool,
    facts: Option<Facts>,
}

impl Gathering {
    /// Takes in one more.
    ///
    /// # Errors
    /// As [`Facts::apply`].
    pub(crate) fn add(&mut self, welcome: &Welcome, fact: Fact) -> Result<()> {
        match &fact {
            Fact::Roots(_) => self.roots = true,
            Fact::Policy(_) => self.policy = true,
            Fact::Quotas(_) => self.quotas = true,
            Fact::Principals(_) => {}
        }
        let none = || Facts {
            cluster: welcome.cluster,
            admin: welcome.admin,
            roots: Roots::default(),
            policy: PolicyText { text: "".into(), hash: [0; 32] },
            quota: quota(NOTHING),
            quotas: BTreeMap::new(),
            principals: BTreeMap::new(),
        };
        self.facts.get_or_insert_with(none).apply(fact)
    }

    /// All of them.
    ///
    /// # Errors
    /// `E_PROTOCOL` if keys, policy or quotas were left out.
    pub(crate) fn whole(self) -> Result<Facts> {
        let all = self.roots && self.policy && self.quotas;
        let missing = Error::new(Code::Protocol, "the broker left out keys, policy or quotas");
        self.facts.filter(|_| all).ok_or(missing)
    }
}

const NOTHING: Allowance = Allowance {
    leases: 0,
    leased_bytes: 0,
    resident_bytes: 0,
    shared_bytes: 0,
    grants: 0,
    opens: 0,
    mappings: 0,
};

const fn allowance(quota: Quota) -> Allowance {
    let Quota { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings } = quota;
    Allowance { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings }
}

const fn quota(allowance: Allowance) -> Quota {
    let Allowance { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings } = allowance;
    Quota { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings }
}
