//! Which directories a node and its clients use.
//!
//! | | `--dir DIR` or `LEASEHOLD_DIR` | otherwise |
//! |---|---|---|
//! | runtime: socket, lock | `DIR` | `$XDG_RUNTIME_DIR/leasehold`, else `/run/leasehold` |
//! | state: keys, tokens, configuration, audit | `DIR` | `$XDG_STATE_HOME/leasehold`; else `/var/lib/leasehold` for root, and for others the place that XDG names in its stead, `~/.local/state/leasehold` |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::files;

/// The name of our directory in those of the system.
const NAME: &str = "leasehold";

/// The two directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dirs {
    /// Where the socket and the lock are.
    pub(crate) runtime: PathBuf,
    /// Where keys, tokens, the configuration and the audit log are.
    pub(crate) state: PathBuf,
    /// What was said with `--dir` or `LEASEHOLD_DIR`.
    named: Option<PathBuf>,
}

impl Dirs {
    /// The directories of this process.
    pub(crate) fn of_process(dir: Option<&Path>) -> Self {
        Self::resolve(dir, |name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    /// As the table above says, for any environment.
    fn resolve(dir: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>, root: bool) -> Self {
        if let Some(dir) = dir {
            return Self::below(dir);
        }
        // XDG: a relative path in such a variable is invalid and ignored.
        let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let runtime = path("XDG_RUNTIME_DIR").unwrap_or("/run".into());
        let state = path("XDG_STATE_HOME")
            .or_else(|| path("HOME").filter(|_| !root).map(|home| home.join(".local/state")))
            .unwrap_or("/var/lib".into());
        Self { runtime: runtime.join(NAME), state: state.join(NAME), named: None }
    }

    /// Both in one directory.
    pub(crate) fn below(dir: &Path) -> Self {
        Self { runtime: dir.into(), state: dir.into(), named: Some(dir.into()) }
    }

    /// ` --dir DIR` for a command line that somebody is told to type, if it takes one to mean these directories.
    pub(crate) fn argument(&self) -> String {
        self.named.as_ref().map_or(String::new(), |dir| format!(" --dir {}", files::show(dir)))
    }

    /// The node's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("node.sock")
    }

    /// The keys of identities.
    pub(crate) fn identities(&self) -> PathBuf {
        self.state.join("ids")
    }

    /// The public keys of others.
    pub(crate) fn contacts(&self) -> PathBuf {
        self.state.join("contacts")
    }

    /// The tokens that this user holds, by identity.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.state.join("tokens")
    }

    /// The certificate authority.
    pub(crate) fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// The logs.
    pub(crate) fn audit(&self) -> PathBuf {
        self.state.join("audit")
    }

    /// The public half of the key that mints tokens: 64 hexadecimal digits, for whoever verifies offline.
    pub(crate) fn root_public(&self) -> PathBuf {
        self.audit().join("root")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(dir: Option<&str>, variables: &[(&str, &str)], root: bool) -> (String, String) {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let dirs = Dirs::resolve(dir.map(Path::new), find, root);
        (dirs.runtime.to_str().unwrap().into(), dirs.state.to_str().unwrap().into())
    }

    fn pair(runtime: &str, state: &str) -> (String, String) {
        (runtime.into(), state.into())
    }

    #[test]
    fn the_table_holds() {
        let xdg = [("XDG_RUNTIME_DIR", "/r"), ("XDG_STATE_HOME", "/s"), ("HOME", "/h")];
        assert_eq!(resolve(Some("d"), &xdg, true), pair("d", "d"));
        assert_eq!(resolve(None, &xdg, true), pair("/r/leasehold", "/s/leasehold"));
        assert_eq!(resolve(None, &xdg[2..], true), pair("/run/leasehold", "/var/lib/leasehold"));
        assert_eq!(resolve(None, &xdg[2..], false), pair("/run/leasehold", "/h/.local/state/leasehold"));
        assert_eq!(resolve(None, &[], false), pair("/run/leasehold", "/var/lib/leasehold"));
        assert_eq!(resolve(None, &[("XDG_RUNTIME_DIR", "r")], true).0, "/run/leasehold");
        assert_eq!(Dirs::below(Path::new("d")).argument(), " --dir d");
        assert_eq!(Dirs::resolve(None, |_| None, true).argument(), "");
    }
}
