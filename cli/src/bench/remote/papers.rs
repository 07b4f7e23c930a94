//! Certificates of all who take part, from an authority that lives as long as the benchmark.
//!
//! Leasehold, the bare TLS server and Redis show the same kind of certificate and ask for one; the client of all three
//! has one configuration. So no side has the cheaper handshake, cipher or key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;
use caps::wire::Name;
use serde::{Deserialize, Serialize};
use transport::{Credentials, Domain, Files, PeerId, Role};

use crate::pki::Authority;

/// Whose certificates they are.
pub const DOMAIN: &str = "bench.leasehold";
/// What the node's certificate says that it is.
pub const NODE: &str = "bench-node";
/// Longer than any benchmark runs.
const LIFE: Duration = Duration::from_secs(86_400);

/// The authority, with a certificate for a node.
pub struct Papers {
    authority: Authority,
    node: Files,
}

/// Where somebody's certificate lies, as it is told to a process of the benchmark. The key itself stays in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    pub chain: PathBuf,
    pub key: PathBuf,
    pub roots: PathBuf,
    pub lists: PathBuf,
}

impl Papers {
    /// Begins an authority in a directory that is there, and issues the node's certificate.
    pub fn begin(directory: &Path) -> Result<Self> {
        let authority = Authority::new(directory.join("bench-pki"));
        authority.begin(&Domain::new(DOMAIN)?, now())?;
        let node = issue(&authority, Role::Provider, NODE)?;
        Ok(Self { authority, node })
    }

    /// The node's, and of the servers that it is compared with.
    pub fn node(&self) -> Paper {
        Paper::of(&self.node, &self.authority)
    }

    /// Issues a client's.
    pub fn client(&self, name: &str) -> Result<Paper> {
        issue(&self.authority, Role::Principal, name).map(|files| Paper::of(&files, &self.authority))
    }
}

impl Paper {
    fn of(files: &Files, authority: &Authority) -> Self {
        let (chain, key, roots) = (files.chain.clone(), files.key.clone(), files.roots.clone());
        Self { chain, key, roots, lists: authority.lists() }
    }

    /// Reads them.
    pub fn load(&self) -> Result<Arc<Credentials>> {
        let files = Files {
            chain: self.chain.clone(),
            key: self.key.clone(),
            roots: self.roots.clone(),
            lists: Some(self.lists.clone()),
        };
        Credentials::load(&Domain::new(DOMAIN)?, &files).map(Arc::new)
    }
}

fn issue(authority: &Authority, role: Role, name: &str) -> Result<Files> {
    let id = PeerId { domain: Domain::new(DOMAIN)?, role, name: Name::new(name)?, key: None };
    let issue = authority.issue(&id, LIFE, now())?;
    Ok(Files { chain: issue.chain, key: issue.key, roots: authority.roots(), lists: Some(authority.lists()) })
}

fn now() -> UnixMicros {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// An error of this benchmark's own plumbing.
pub fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::with(Code::System, format!("{what}: {error}"))
}
