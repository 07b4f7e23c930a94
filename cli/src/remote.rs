//! The way to nodes on other machines: their addresses, and the certificate that their client shows.
//!
//! The certificates are where `leasehold pki issue` leaves them, `<state>/pki`, or in a directory that has the same files:
//!
//! | file | |
//! |---|---|
//! | `NAME.pem`, `NAME.key` | the certificate of the identity NAME, and the certificate's own key, of mode 0600 |
//! | `roots.pem` | who is believed |
//! | `domain` | the trust domain, on one line |
//! | `lists.pem` | who is believed no longer; may be missing, and nobody is asked about revocation then |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caps::error::Code;
use caps::id::PrincipalKey;
use caps::wire::Name;
use libmem::Endpoint;
use transport::{Credentials, Domain, Files, Role};

use crate::args::remote::Remote;
use crate::dirs::Dirs;
use crate::failure::{Failure, Result};
use crate::files;
use crate::nodes::{self, Entry};

/// Largest file with a trust domain: the longest and a line end.
const DOMAIN_FILE_BYTES_MAX: usize = 256;

/// Where nodes are, and where the certificates are.
#[derive(Clone)]
pub(crate) struct Way {
    nodes: Vec<Entry>,
    directory: PathBuf,
    /// Whether they were named by a list.
    listed: bool,
}

impl Way {
    /// The way that the options name; `None` if the node is on this machine.
    ///
    /// # Errors
    /// Those of a list.
    pub(crate) fn of(remote: &Remote, dirs: &Dirs) -> Result<Option<Self>> {
        let (nodes, listed) = match (&remote.broker, &remote.nodes) {
            (Some(address), _) => {
                (vec![Entry { address: address.clone(), name: remote.node.clone() }], false)
            }
            (None, Some(list)) => (nodes::read(list)?, true),
            (None, None) => return Ok(None),
        };
        let directory = remote.tls.clone().unwrap_or_else(|| dirs.pki());
        Ok(Some(Self { nodes, directory, listed }))
    }

    /// The way to nodes that nobody named.
    pub(crate) fn aside(remote: &Remote, dirs: &Dirs) -> Self {
        let directory = remote.tls.clone().unwrap_or_else(|| dirs.pki());
        Self { nodes: Vec::new(), directory, listed: false }
    }

    /// Whether it is a list of nodes, each its own.
    pub(crate) const fn is_list(&self) -> bool {
        self.listed
    }

    /// `HOST:PORT`, of each.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| &node.address[..])
    }

    /// The nodes for the identity `name`, whose key is `key`, in the order in which they were named.
    ///
    /// # Errors
    /// `E_CONFIG_TLS` if there is no certificate of that identity, or it is not good, or it is somebody else's;
    /// `E_CONFIG_PERMS` for a directory that others may write to.
    pub(crate) fn endpoints(&self, name: &Name, key: PrincipalKey) -> Result<Vec<Endpoint>> {
        let credentials = self.believed(name, key)?;
        let endpoint = |node: &Entry| {
            let endpoint = Endpoint::tls(&node.address, credentials.clone());
            match &node.name {
                Some(name) => endpoint.node(name.clone()),
                None => endpoint,
            }
        };
        Ok(self.nodes.iter().map(endpoint).collect())
    }

    /// The certificate of the identity `name`, whose key is `key`, and who is believed.
    ///
    /// # Errors
    /// As [`Self::endpoints`].
    pub(crate) fn believed(&self, name: &Name, key: PrincipalKey) -> Result<Arc<Credentials>> {
        let credentials = self.credentials(name)?;
        let id = credentials.id();
        let chain = files::show(&self.path(&format!("{name}.pem")));
        let issue = format!("`leasehold pki issue {name}` makes one, where the authority is");
        if id.role != Role::Principal || id.name != *name {
            let message = format!("{chain} is the certificate of the {} `{}`", id.role.name(), id.name);
            return Err(Failure::of(Code::ConfigTls, message).help(issue));
        }
        if id.key.is_some_and(|vouched| vouched != key) {
            let message = format!("{chain} vouches for another key than that of the identity `{name}`");
            return Err(Failure::of(Code::ConfigTls, message).help(issue));
        }
        Ok(Arc::new(credentials))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn credentials(&self, name: &Name) -> Result<Credentials> {
        let (chain, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let [roots, domain, lists] = ["roots.pem", "domain", "lists.pem"].map(|file| self.path(file));
        if !there(&self.directory) {
            let message = format!("there is no directory {} with certificates", files::show(&self.directory));
            return Err(Failure::of(Code::ConfigTls, message).help(format!(
                "name it with --tls; `leasehold pki init` and `leasehold pki issue {name}` make what belongs there"
            )));
        }
        files::check_directory(&self.directory)?;
        if !there(&chain) {
            let message = format!("there is no certificate of `{name}` in {}", files::show(&self.directory));
            return Err(Failure::of(Code::ConfigTls, message).help(format!(
                "`leasehold pki issue {name}` makes one, where the authority is; or name another directory with --tls"
            )));
        }
        for (path, what) in
            [(&key, "the certificate's key"), (&roots, "who is believed"), (&domain, "the trust domain")]
        {
            if !there(path) {
                let message = format!("{} is missing: {what}", files::show(path));
                let help = "bring it from where `leasehold pki issue` made it";
                return Err(Failure::of(Code::ConfigTls, message).help(help));
            }
        }
        let text = files::read_text(&domain, DOMAIN_FILE_BYTES_MAX)?;
        let domain = Domain::new(text.trim_end_matches('\n')).map_err(|error| {
            Failure::of(Code::ConfigTls, format!("{}: {}", files::show(&domain), error.detail()))
        })?;
        let lists = there(&lists).then_some(lists);
        Ok(Credentials::load(&domain, &Files { chain, key, roots, lists })?)
    }
}

/// Whether something is there, or nobody can say that it is not.
fn there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use caps::key::SigningKey;
    use caps::time::UnixMicros;
    use transport::PeerId;

    use super::*;
    use crate::pki::Authority;

    struct Scene {
        _directory: tempfile::TempDir,
        authority: Authority,
        way: Way,
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn key(number: u8) -> PrincipalKey {
        SigningKey::from_seed(&[number; 32]).public()
    }

    fn scene() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let authority = Authority::new(dirs.pki());
        let remote = Remote { broker: Some("node.example:7171".into()), tls: None, node: None, nodes: None };
        let way = Way::of(&remote, &dirs).unwrap().unwrap();
        Scene { _directory: directory, authority, way }
    }

    impl Scene {
        fn begin(&self) {
            self.authority.begin(&Domain::new("mem.example").unwrap(), now()).unwrap();
        }

        fn issue(&self, role: Role, name: &str, key: Option<PrincipalKey>) {
            let id = PeerId { domain: self.authority.domain().unwrap(), role, name: self::name(name), key };
            self.authority.issue(&id, Duration::from_secs(3_600), now()).unwrap();
        }

        fn refused(&self, who: &str) -> Failure {
            self.way.endpoints(&name(who), key(1)).map(|_| ()).unwrap_err()
        }
    }

    fn now() -> UnixMicros {
        UnixMicros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64)
    }

    #[test]
    fn without_an_address_the_node_is_here() {
        let remote = Remote { broker: None, tls: Some("x".into()), node: None, nodes: None };
        assert!(Way::of(&remote, &Dirs::below(Path::new("d"))).unwrap().is_none());
    }

    #[test]
    fn the_certificate_is_where_it_was_issued() {
        let scene = scene();
        scene.begin();
        scene.issue(Role::Principal, "alice", None);
        scene.way.endpoints(&name("alice"), key(1)).unwrap();
        scene.issue(Role::Principal, "bob", Some(key(1)));
        scene.way.endpoints(&name("bob"), key(1)).unwrap();
        // Without a list nobody is asked about revocation.
        std::fs::remove_file(scene.way.path("lists.pem")).unwrap();
        scene.way.endpoints(&name("alice"), key(1)).unwrap();
    }

    #[test]
    fn whatever_is_missing_is_named_with_what_makes_it() {
        let scene = scene();
        let nothing = scene.refused("alice");
        assert_eq!(nothing.code, "E_CONFIG_TLS");
        assert!(nothing.help.contains("leasehold pki init"), "{}", nothing.help);
        scene.begin();
        let nobody = scene.refused("alice");
        assert_eq!(nobody.code, "E_CONFIG_TLS");
        assert!(nobody.help.contains("leasehold pki issue alice"), "{}", nobody.help);
        scene.issue(Role::Principal, "alice", None);
        for file in ["alice.key", "roots.pem", "domain"] {
            let (path, aside) = (scene.way.path(file), scene.way.path("aside"));
            std::fs::rename(&path, &aside).unwrap();
            let refused = scene.refused("alice");
            assert_eq!(refused.code, "E_CONFIG_TLS");
            assert!(refused.message.contains(file), "{}", refused.message);
            std::fs::rename(&aside, &path).unwrap();
        }
        scene.way.endpoints(&name("alice"), key(1)).unwrap();
    }

    #[test]
    fn a_certificate_of_somebody_else_is_refused_before_it_is_shown() {
        let scene = scene();
        scene.begin();
        scene.issue(Role::Provider, "alice", None);
        assert!(scene.refused("alice").message.contains("provider"));
        scene.issue(Role::Principal, "bob", Some(key(2)));
        assert!(scene.refused("bob").message.contains("another key"));
        scene.issue(Role::Principal, "carol", None);
        std::fs::copy(scene.way.path("carol.pem"), scene.way.path("dave.pem")).unwrap();
        std::fs::copy(scene.way.path("carol.key"), scene.way.path("dave.key")).unwrap();
        assert!(scene.refused("dave").message.contains("carol"));
    }

    #[test]
    fn a_key_or_a_directory_that_others_may_use_is_refused() {
        let scene = scene();
        scene.begin();
        scene.issue(Role::Principal, "alice", None);
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&scene.way.path("alice.key"), 0o640);
        let refused = scene.refused("alice");
        assert_eq!(refused.code, "E_CONFIG_TLS");
        assert!(refused.message.contains("0600"), "{}", refused.message);
        mode(&scene.way.path("alice.key"), 0o600);
        mode(&scene.way.directory, 0o777);
        assert_eq!(scene.refused("alice").code, "E_CONFIG_PERMS");
        mode(&scene.way.directory, 0o700);
        for text in ["", "MEM.example\n", "a b\n"] {
            std::fs::write(scene.way.path("domain"), text).unwrap();
            assert_eq!(scene.refused("alice").code, "E_CONFIG_TLS", "{text:?}");
        }
    }
}
