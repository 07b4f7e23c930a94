//! Where a node serves TLS, and by which credentials.
//!
//! What the configuration says of certificates counts; what it does not say is taken from the node's own authority
//! (`leasehold pki`), if there is one in its state directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use caps::error::{Code, Error};
use caps::time::UnixMicros;
use policy::config;
use provider::gate::remote::RemoteConfig;
use transport::{Domain, Files, PeerId, Reload, Role};

use crate::dirs::Dirs;
use crate::failure::Failure;
use crate::files;
use crate::pki::Authority;

/// What the gate over TLS needs, loaded.
#[derive(Debug)]
pub(super) struct Remote {
    listen: SocketAddr,
    credentials: Arc<Reload>,
}

impl Remote {
    /// Finds and loads the node's credentials. Nothing is served over TLS, and so nothing looked for, unless `listen` or
    /// the configuration says where.
    ///
    /// # Errors
    /// `E_CONFIG_TLS` with what to do.
    pub(super) fn load(
        listen: Option<SocketAddr>,
        config: config::Remote,
        dirs: &Dirs,
        now: UnixMicros,
    ) -> Result<Option<Self>, Failure> {
        let Some(listen) = listen.or(config.listen) else { return Ok(None) };
        let authority = Authority::new(dirs.pki());
        let says = |what: String| {
            let dir = dirs.argument();
            let help = format!(
                "`leasehold{dir} pki init --domain DOMAIN`, then `leasehold{dir} pki issue NODE --role provider`; or \
                 name the files of your own authority in [remote] of leasehold.toml"
            );
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
            (None, None) => own(&authority, dirs, now, says)?,
            (Some(_), None) => return Err(says("`remote.certificate` is there without `remote.key`".into())),
            (None, Some(_)) => return Err(says("`remote.key` is there without `remote.certificate`".into())),
        };
        // Lists belong to their roots: who names other roots names other lists, or none.
        let (roots, lists) = match (config.roots, config.lists) {
            (Some(roots), lists) => (roots, lists),
            (None, lists) => (authority.roots(), Some(lists.unwrap_or_else(|| authority.lists()))),
        };
        let credentials = Reload::load(domain, Files { chain, key, roots, lists })
            .map_err(|error| says(error.detail().to_owned()))?;
        let id = credentials.now().id().clone();
        if id.role != Role::Provider {
            return Err(says(format!("{id} is no node's certificate (--role provider)")));
        }
        Ok(Some(Self { listen, credentials: Arc::new(credentials) }))
    }

    /// With at most so many connections.
    pub(super) fn gate(self, sessions_max: usize) -> RemoteConfig {
        RemoteConfig::for_this_machine(self.listen, self.credentials, sessions_max)
    }
}

/// The one certificate that the node's own authority has issued to a provider.
fn own(
    authority: &Authority,
    dirs: &Dirs,
    now: UnixMicros,
    says: impl Fn(String) -> Failure,
) -> Result<(PathBuf, PathBuf), Failure> {
    let provider = |id: &str| PeerId::parse(id).ok().filter(|id| id.role == Role::Provider);
    let good = authority.issued(now)?.into_iter().filter(|(_, issued)| issued.revoked.is_none());
    let mut names: Vec<_> = good.filter_map(|(_, issued)| provider(&issued.id)).map(|id| id.name).collect();
    names.sort();
    names.dedup();
    match &names[..] {
        [name] => {
            let file = |ending| dirs.pki().join(format!("{name}.{ending}"));
            Ok((file("pem"), file("key")))
        }
        [] => Err(says(format!("{} has issued no certificate to a node", files::show(&dirs.pki())))),
        several => Err(says(format!(
            "{} nodes have a certificate here; name this one's in [remote]: certificate and key",
            several.len()
        ))),
    }
}

/// What a gate that could not be opened means to the operator.
pub(super) fn not_listening(error: Error) -> Error {
    if error.code() != Code::ConfigIo {
        return error;
    }
    Error::with(Code::ConfigIo, format!("{}; choose another with --listen", error.detail()))
}
