//! The node's configuration: `leasehold.toml`.
//!
//! ```text
//! path ──load──▶ text ──check──▶ Config            every key has a safe default
//!                   │
//!                   └──────────▶ Vec<Diagnostic>   every mistake at once, each with line and column
//! ```
//!
//! There is no key that turns encryption, authentication or the audit log off, so such a mistake cannot be written.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | what a configuration says, and the two doors: [`check`] and [`load`] |
//! | `tables.rs` | the tables and keys, and what each may be |
//! | `read.rs` | from a TOML value with its place to a Rust value, or a mistake |
//! | `write.rs` | a configuration as TOML again |
//! | `default.toml` | the commented file that a first start writes |
//! | `cluster.rs` | the table of a node that is one of several |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use caps::Code;
use caps::time::Micros;
use caps::wire::Name;

use crate::diagnostic::{Collector, Diagnostic};
use crate::fault::Faults;
use crate::limits::*;
use crate::machine::Machine;
use crate::quota::Quota;

mod cluster;
mod read;
mod tables;
mod write;

pub use cluster::Cluster;

/// What a node is told by its operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[lease]`
    pub lease: Lease,
    /// `[quota.*]`
    pub quotas: Quotas,
    /// `[audit]`
    pub audit: Audit,
    /// `[faults]`
    pub faults: Faults,
    /// `[policy]`
    pub policy: PolicyFile,
    /// `[canary]`
    pub canary: Canary,
    /// `[remote]`
    pub remote: Remote,
    /// `[cluster]`
    pub cluster: Cluster,
}

/// `[remote]`: the gate over TLS. Paths are relative to the configuration's directory; what is not said is looked for among
/// what `leasehold pki` made for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Where it listens; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// The trust domain.
    pub domain: Option<String>,
    /// The node's certificate.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Who is believed.
    pub roots: Option<PathBuf>,
    /// Who is believed no longer.
    pub lists: Option<PathBuf>,
}

/// `[canary]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// How often the node tries its own revocations; `None` for never.
    pub every: Option<Micros>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The cluster's name.
    pub cluster: Name,
    /// Bytes of the pool, whole pages, 0 for a broker without memory of its own; `None` for a share of the RAM at start
    /// ([`Node::pool_bytes`]).
    pub pool: Option<u64>,
    /// User ids that may connect; `None` for the node's own.
    pub allow_uids: Option<Vec<u32>>,
    /// Whether the node may run where leased memory could be swapped.
    pub allow_swap: bool,
    /// A key file of the root key that mints, instead of keys that the node draws itself: nodes of a plain list are given the
    /// same. Relative to the configuration's directory.
    pub root: Option<PathBuf>,
}

/// `[lease]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Life of a lease whose request does not say.
    pub ttl_default: Micros,
    /// Longest life.
    pub ttl_max: Micros,
    /// Smallest size in bytes.
    pub bytes_min: u64,
    /// Largest size in bytes.
    pub bytes_max: u64,
    /// Most leases of a principal whose quota does not say.
    pub per_principal: u32,
}

/// `[quota.*]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Of principals without one of their own.
    pub default: Quota,
    /// By the principal's name.
    pub named: BTreeMap<Name, Quota>,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Directories that each get the whole log; none for the one in the state directory.
    pub devices: Vec<PathBuf>,
    /// What happens when no device can record.
    pub on_full: OnFull,
    /// Longest time between two checkpoints.
    pub checkpoint_every: Micros,
    /// Most entries between two checkpoints.
    pub checkpoint_entries: u32,
}

/// What happens when no audit device can record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Every request but a revoke is refused.
    #[default]
    Deny,
    /// The node stops, which takes everything back.
    Halt,
}

/// `[policy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFile {
    /// The Datalog file; relative to the configuration's directory. `None` for the default policy.
    pub file: Option<PathBuf>,
    /// Whether the operator means a policy that allows everything.
    pub allow_all: bool,
}

impl Node {
    /// The file of the root key that the node is given, for a configuration in `file`.
    #[must_use]
    pub fn root_file(&self, file: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        Some(file.parent().unwrap_or(Path::new("")).join(root))
    }
}

impl Default for Node {
    fn default() -> Self {
        let cluster = Name::new("leasehold").expect("a literal name");
        Self { cluster, pool: None, allow_uids: None, allow_swap: false, root: None }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            ttl_default: Micros::from_millis(LEASE_TTL_MS_DEFAULT),
            ttl_max: Micros::from_millis(LEASE_TTL_MS_MAX_DEFAULT),
            bytes_min: LEASE_BYTES_MIN,
            bytes_max: REGION_BYTES_MAX,
            per_principal: LEASES_PER_PRINCIPAL_DEFAULT,
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        let default = Quota {
            leases: LEASES_PER_PRINCIPAL_DEFAULT,
            leased_bytes: QUOTA_LEASED_BYTES_DEFAULT,
            resident_bytes: QUOTA_RESIDENT_BYTES_DEFAULT,
            shared_bytes: QUOTA_SHARED_BYTES_DEFAULT,
            grants: GRANTS_PER_PRINCIPAL_DEFAULT,
            opens: OPENS_PER_PRINCIPAL_DEFAULT,
            mappings: MAPPINGS_PER_PRINCIPAL_DEFAULT,
        };
        Self { default, named: BTreeMap::new() }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            devices: Vec::new(),
            on_full: OnFull::Deny,
            checkpoint_every: Micros::from_millis(CHECKPOINT_MS_DEFAULT),
            checkpoint_entries: CHECKPOINT_ENTRIES_DEFAULT,
        }
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self { every: Some(Micros::from_millis(CANARY_EVERY_MS_DEFAULT)) }
    }
}

impl OnFull {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Deny, Self::Halt];

    /// The word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Halt => "halt",
        }
    }
}

impl Node {
    /// Bytes of the pool on this machine, whole pages: what is configured, or a share of what is available.
    #[must_use]
    pub fn pool_bytes(&self, machine: &Machine) -> u64 {
        let pool = self.pool.unwrap_or(machine.pool_bytes_default().clamp(POOL_BYTES_MIN, POOL_BYTES_MAX));
        pool / PAGE_BYTES * PAGE_BYTES
    }
}

impl Quotas {
    /// The quota of the principal with this name.
    #[must_use]
    pub fn of(&self, name: Option<&Name>) -> &Quota {
        name.and_then(|name| self.named.get(name)).unwrap_or(&self.default)
    }
}

impl Remote {
    /// The same with its paths as they are to be opened, if the configuration stands at `config`.
    #[must_use]
    pub fn beside(self, config: &Path) -> Self {
        let beside =
            |path: Option<PathBuf>| path.map(|path| config.parent().unwrap_or(Path::new("")).join(path));
        Self {
            certificate: beside(self.certificate),
            key: beside(self.key),
            roots: beside(self.roots),
            lists: beside(self.lists),
            ..self
        }
    }
}

impl PolicyFile {
    /// Where the policy stands, if the configuration stands at `config`; `None` for the default policy.
    #[must_use]
    pub fn path(&self, config: &Path) -> Option<PathBuf> {
        self.file.as_ref().map(|file| config.parent().unwrap_or(Path::new("")).join(file))
    }
}

/// Checks the text of a configuration against the bounds of the system and the RAM of this machine. `file` is the
/// name that mistakes carry.
///
/// # Errors
/// Every mistake, in the order of the text: `E_CONFIG_SYNTAX` for what is no TOML, a repeated key or an unknown one;
/// `E_CONFIG_VALUE` for a value of the wrong type or outside its bounds.
pub fn check(text: &str, file: &str) -> Result<Config, Vec<Diagnostic>> {
    let machine = Machine::detect().map_err(|error| {
        vec![Diagnostic::of_file(error.code(), file, error.detail(), "is /proc mounted?")]
    })?;
    check_on(text, file, &machine)
}

/// [`check`] for a stated machine.
///
/// # Errors
/// Those of [`check`].
pub fn check_on(text: &str, file: &str, machine: &Machine) -> Result<Config, Vec<Diagnostic>> {
    let mut found = Collector::new(file, text);
    if text.len() > CONFIG_BYTES_MAX {
        let message = format!("is larger than {} bytes", CONFIG_BYTES_MAX);
        return Err(vec![Diagnostic::of_file(Code::ConfigIo, file, message, "name the right file")]);
    }
    let config = tables::config(text, machine, &mut found);
    if found.is_clean() { Ok(config) } else { Err(found.finish()) }
}

/// Reads and checks a configuration file.
///
/// # Errors
/// `E_CONFIG_IO` if there is no regular, non-empty file of UTF-8 text of at most [`CONFIG_BYTES_MAX`] bytes; else the
/// errors of [`check`].
pub fn load(path: &Path) -> Result<Config, Vec<Diagnostic>> {
    let text = crate::file::read(path, CONFIG_BYTES_MAX, Code::ConfigIo)?;
    check(&text, &crate::file::shown(path))
}

/// The configuration that a first start writes: every key in a comment, with its default and what it does.
#[must_use]
pub const fn default_text() -> &'static str {
    include_str!("default.toml")
}

#[cfg(test)]
mod tests;
