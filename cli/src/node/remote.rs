//! Where a node serves TLS, and by which credentials.
//!
//! What the configuration says of certificates counts; what it does not say is taken from the node's own authority
//! (`leasehold pki`), if there is one in its state directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::time::UnixMicros;
use caps::wire::Name;
use policy::{config, limits};
use provider::gate::remote::RemoteConfig;
use transport::{Domain, Files, PeerId, Reload, Reloaded, Role};

use crate::dirs::Dirs;
use crate::failure::Failure;
use crate::files;
use crate::pki::Authority;

/// What a node is, and whether it speaks to others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of a cluster: it speaks to clients alone.
    Whole,
    /// A broker that providers come to.
    Broker,
    /// A provider that goes to a broker.
    Provider,
}

impl Part {
    /// What its certificate says that it is.
    const fn role(self) -> Role {
        match self {
            Self::Whole | Self::Provider => Role::Provider,
            Self::Broker => Role::Broker,
        }
    }
}

/// The node's credentials, loaded.
#[derive(Debug)]
pub(super) struct Remote {
    /// Where clients of other machines are served; `None` for nowhere.
    listen: Option<SocketAddr>,
    domain: Domain,
    files: Files,
    credentials: Arc<Reload>,
}

impl Remote {
    /// Finds and loads the node's credentials. A node that is whole has none, and nothing is looked for, unless `listen` or
    /// the configuration says where it serves TLS.
    ///
    /// # Errors
    /// `E_CONFIG_TLS` with what to do.
    pub(super) fn load(
        part: Part,
        listen: Option<SocketAddr>,
        config: config::Remote,
        dirs: &Dirs,
        now: UnixMicros,
    ) -> Result<Option<Self>, Failure> {
        let listen = listen.or(config.listen);
        if listen.is_none() && part == Part::Whole {
            return Ok(None);
        }
        let authority = Authority::new(dirs.pki());
        let role = part.role().name();
        let says = |what: String| {
            let dir = dirs.argument();
            let help = match part {
                // An authority of its own would be another trust domain than the broker's.
                Part::Provider => format!(
                    "where the broker's authority is: `leasehold pki issue NAME --role {role}`; bring NAME.pem, NAME.key, \
                     roots.pem and lists.pem here, and name them in [remote] of leasehold.toml"
                ),
                Part::Whole | Part::Broker => format!(
                    "`leasehold{dir} pki init --domain DOMAIN`, then `leasehold{dir} pki issue NODE --role {role}`; or \
                     name the files of your own authority in [remote] of leasehold.toml"
                ),
            };
            Failure::of(Code::ConfigTls, what).help(help)
        };
        let domain = match config.domain {
            Some(domain) => Domain::new(&domain)?,
            None => authority.domain().map_err(|_| {
                says(format!(
                    "serving TLS takes certificates, and there is no authority in {}",
                    files::show(&dirs.pki())
                ))
            })?,
        };
        let (chain, key) = match (config.certificate, config.key) {
            (Some(chain), Some(key)) => (chain, key),
            (None, None) => own(&authority, part.role(), dirs, now, says)?,
            (Some(_), None) => return Err(says("`remote.certificate` is there without `remote.key`".into())),
            (None, Some(_)) => return Err(says("`remote.key` is there without `remote.certificate`".into())),
        };
        // Lists belong to their roots: who names other roots names other lists, or none.
        let (roots, lists) = match (config.roots, config.lists) {
            (Some(roots), lists) => (roots, lists),
            (None, lists) => (authority.roots(), Some(lists.unwrap_or_else(|| authority.lists()))),
        };
        let files = Files { chain, key, roots, lists };
        let credentials =
            Reload::load(domain.clone(), files.clone()).map_err(|error| says(error.detail().to_owned()))?;
        let id = credentials.now().id().clone();
        if id.role != part.role() {
            let what = match part {
                Part::Whole => "a node's",
                Part::Broker => "a broker's",
                Part::Provider => "a provider's",
            };
            return Err(says(format!("{id} is not {what} certificate (--role {role})")));
        }
        Ok(Some(Self { listen, domain, files, credentials: Arc::new(credentials) }))
    }

    /// The name in the certificate.
    pub(super) fn name(&self) -> Name {
        self.credentials.now().id().name.clone()
    }

    /// Whether clients of other machines are served.
    pub(super) const fn serves(&self) -> bool {
        self.listen.is_some()
    }

    /// Credentials for the link between broker and provider, which follow their files from here on. Read from the same
    /// files as the gate's, and by themselves: of two that look at one, only the first sees a change.
    ///
    /// # Errors
    /// `E_CONFIG_TLS`.
    pub(super) fn link(&self) -> Result<Arc<Reload>, Error> {
        let credentials = Arc::new(Reload::load(self.domain.clone(), self.files.clone())?);
        let followed = credentials.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(limits::REMOTE_RELOAD_MS)).await;
                if let Reloaded::Kept(error) = followed.look() {
                    tracing::warn!(%error, "the link's credentials stay as they were");
                }
            }
        });
        Ok(credentials)
    }

    /// The gate's, with at most so many connections; `None` if clients of other machines are not served.
    pub(super) fn gate(&self, sessions_max: usize) -> Option<RemoteConfig> {
        let listen = self.listen?;
        Some(RemoteConfig::for_this_machine(listen, self.credentials.clone(), sessions_max))
    }
}

/// The one certificate that the node's own authority has issued to somebody of this role.
fn own(
    authority: &Authority,
    role: Role,
    dirs: &Dirs,
    now: UnixMicros,
    says: impl Fn(String) -> Failure,
) -> Result<(PathBuf, PathBuf), Failure> {
    let node = |id: &str| PeerId::parse(id).ok().filter(|id| id.role == role);
    let good = authority.issued(now)?.into_iter().filter(|(_, issued)| issued.revoked.is_none());
    let mut names: Vec<_> = good.filter_map(|(_, issued)| node(&issued.id)).map(|id| id.name).collect();
    names.sort();
    names.dedup();
    match &names[..] {
        [name] => {
            let file = |ending| dirs.pki().join(format!("{name}.{ending}"));
            Ok((file("pem"), file("key")))
        }
        [] => {
            Err(says(format!("{} has issued no certificate to a {}", files::show(&dirs.pki()), spoken(role))))
        }
        several => Err(says(format!(
            "{} nodes have a certificate here; name this one's in [remote]: certificate and key",
            several.len()
        ))),
    }
}

/// What somebody of this role is called here. A whole node is one that has memory, to its clients.
const fn spoken(role: Role) -> &'static str {
    match role {
        Role::Broker => "broker",
        Role::Provider | Role::Principal => "node",
    }
}

/// What a gate that could not be opened means to the operator.
pub(super) fn not_listening(error: Error) -> Error {
    if error.code() != Code::ConfigIo {
        return error;
    }
    Error::with(
        Code::ConfigIo,
        format!("{}; choose another in [remote] of leasehold.toml, or with `up --listen`", error.detail()),
    )
}
