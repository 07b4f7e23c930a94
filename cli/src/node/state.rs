//! A node's directory: one lock, the keys, the configuration, the policy, the registered principals.
//!
//! ```text
//! runtime/  lock  node.sock
//! state/    leasehold.toml  policy.dl
//!           seat        which directory this is, for a broker elsewhere: locked, too, since one state may have two runtimes
//!           keys/       root  roots  log-broker  log-provider-1  salt-broker  salt-provider-1  receipt   (0600 each)
//!           ids/        admin.key ...                                                              (0600 each)
//!           principals/ NAME.pub    who is registered again at the next start: the broker forgets, RAM only
//!           audit/      broker/  provider-1/  vkeys  issuer  root
//! ```
//! A provider of a broker on another machine has no keys but those of its log, `provider-NAME`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use audit::key::{LogKey, Origin};
use audit::salt::Salt;
use caps::error::{Code, Error, Result};
use caps::id::{PrincipalKey, Seat};
use caps::key::SigningKey;
use caps::time::UnixMicros;
use caps::token::RootKey;
use caps::wire::Name;
use policy::limits;
use zeroize::Zeroizing;

use super::ring::Ring;
use crate::dirs::Dirs;
use crate::files;
use crate::identity;

/// The administrator's identity.
pub const ADMIN: &str = "admin";

/// A locked directory: no other node uses it while this lives.
pub struct NodeDir {
    dirs: Dirs,
    seat: Seat,
    _locks: [File; 2],
}

/// The secrets of one node.
pub struct Keys {
    /// Signs biscuits and nothing else.
    pub root: RootKey,
    /// All root keys that are believed.
    pub roots: Ring,
    /// Signs receipts.
    pub receipt: SigningKey,
    /// The administrator's.
    pub admin: SigningKey,
    /// The logs' keys and the salts of the token HMACs in them.
    pub broker_log: (LogKey, Salt),
    /// As `broker_log`.
    pub provider_log: (LogKey, Salt),
}

impl NodeDir {
    /// Makes the directories that are missing and takes the lock. It is waited for, for as long as a node that is ending may
    /// have it: see [`limits::NODE_LOCK_MS_MAX`].
    ///
    /// # Errors
    /// `E_LOCKED` if another node has it; `E_CONFIG_IO`, `E_CONFIG_PERMS`.
    pub fn lock(dirs: Dirs) -> Result<Self> {
        // Clients of other uids reach the socket through the runtime directory and see nothing else of the node: what
        // is not public is in directories of its own.
        make_dir(&dirs.runtime, 0o755)?;
        if dirs.state != dirs.runtime {
            make_dir(&dirs.state, 0o700)?;
        }
        for inner in ["keys", "ids", "principals", "audit"] {
            make_dir(&dirs.state.join(inner), 0o700)?;
        }
        let lock = locked(&dirs.runtime.join("lock"))?;
        // The runtime directory is a machine's own; the state may be one that several machines see.
        let mut seated = locked(&dirs.state.join("seat"))?;
        let seat = seat(&mut seated)
            .map_err(|_| Error::new(Code::ConfigIo, "cannot read or write the state directory's seat"))?;
        Ok(Self { dirs, seat, _locks: [lock, seated] })
    }

    /// Which directory this is: the same for every node that has it, one after the other, and for no other directory. One
    /// that is copied has to lose its file `seat`, or both claim to be one.
    #[must_use]
    pub const fn seat(&self) -> Seat {
        self.seat
    }

    /// The directories.
    #[must_use]
    pub const fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Where the gate listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dirs.socket()
    }

    /// The directory of both logs.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.dirs.audit()
    }

    /// A file of the operator's, written with `text` if there is none.
    ///
    /// # Errors
    /// `E_CONFIG_IO`.
    pub fn default_file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dirs.state.join(name);
        match OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path) {
            Ok(mut file) => file
                .write_all(text.as_bytes())
                .map_err(|_| Error::new(Code::ConfigIo, "cannot write the default configuration"))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(_) => return Err(Error::new(Code::ConfigIo, "cannot write into the state directory")),
        }
        Ok(path)
    }

    /// Reads the keys, and makes those that are missing.
    ///
    /// # Errors
    /// `E_CONFIG_PERMS` if a key file has the wrong owner or mode; `E_CONFIG_IO`.
    pub fn keys(&self, now: UnixMicros) -> Result<Keys> {
        let seed = |name: &str| self.seed(name);
        let log = |role: &str| self.log_keys(role);
        let admin = identity::seed_or_new(&self.dirs.state.join("ids").join(format!("{ADMIN}.key")))?;
        let (roots, root) = Ring::load(&self.dirs.state.join("keys"), now)?;
        Ok(Keys {
            root,
            roots,
            receipt: SigningKey::from_seed(&*seed("receipt")?),
            admin: SigningKey::from_seed(&admin),
            broker_log: log("broker")?,
            provider_log: log("provider-1")?,
        })
    }

    fn seed(&self, name: &str) -> Result<Zeroizing<[u8; 32]>> {
        identity::seed_or_new(&self.dirs.state.join("keys").join(name))
    }

    /// The key of one log and the salt of the token HMACs in it, made if they are missing.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn log_keys(&self, role: &str) -> Result<(LogKey, Salt)> {
        let (key, salt) = (self.seed(&format!("log-{role}"))?, self.seed(&format!("salt-{role}"))?);
        Ok((LogKey::from_seed(&key), Salt::new(&salt)))
    }

    /// Writes what an auditor needs beside the logs: their vkeys and the key that signs receipts. Public.
    ///
    /// # Errors
    /// `E_CONFIG_IO`.
    pub fn publish(&self, name: &str, text: &str) -> Result<()> {
        publish(&self.audit(), name, text)
    }

    /// The principals registered in an earlier life, in the order of their names. A file that is no principal is
    /// reported and left alone.
    pub fn principals(&self) -> Vec<(Name, PrincipalKey)> {
        let Ok(entries) = fs::read_dir(self.dirs.state.join("principals")) else { return Vec::new() };
        let mut known: Vec<_> = entries
            .filter_map(std::result::Result::ok)
            .filter_map(|entry| {
                let read = principal(&entry.path());
                if read.is_none() {
                    tracing::warn!(file = ?entry.file_name(), "not a registered principal; left alone");
                }
                read
            })
            .take(limits::PRINCIPALS_MAX)
            .collect();
        known.sort();
        known
    }

    /// Remembers a registered principal for the next start.
    ///
    /// # Errors
    /// `E_CONFIG_IO`.
    pub fn remember(state: &Path, name: &Name, key: PrincipalKey) -> Result<()> {
        let path = state.join("principals").join(format!("{name}.pub"));
        fs::write(path, format!("{key}\n"))
            .map_err(|_| Error::new(Code::ConfigIo, "cannot remember the principal for the next start"))
    }
}

/// As [`NodeDir::publish`], given the directory.
///
/// # Errors
/// `E_CONFIG_IO`.
pub fn publish(audit: &Path, name: &str, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let path = audit.join(name);
        let temporary = path.with_extension("new");
        fs::write(&temporary, text)?;
        fs::rename(temporary, path)
    };
    write().map_err(|_| Error::new(Code::ConfigIo, "cannot write into the audit directory"))
}

fn principal(path: &Path) -> Option<(Name, PrincipalKey)> {
    let name = Name::new(path.file_name()?.to_str()?.strip_suffix(".pub")?).ok()?;
    let mut text = String::new();
    File::open(path).ok()?.take(256).read_to_string(&mut text).ok()?;
    Some((name, PrincipalKey::parse(text.trim_end()).ok()?))
}

/// Opens a file that is locked while it is open, or by whoever inherited it.
fn locked(path: &Path) -> Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|_| Error::new(Code::ConfigIo, "cannot open a lock of the node's directories"))?;
    // The kernel has no lock that is waited for with a bound, short of a signal.
    let by = Instant::now() + Duration::from_millis(limits::NODE_LOCK_MS_MAX);
    while rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= by {
            return Err(Error::new(Code::Locked, "another node uses this directory"));
        }
        std::thread::sleep(Duration::from_millis(limits::NODE_LOCK_LOOK_MS));
    }
    Ok(lock)
}

/// The seat that a locked file says. If it says none, one is drawn and written, which proves nothing about any before.
fn seat(file: &mut File) -> std::io::Result<Seat> {
    let mut text = Vec::new();
    std::io::Read::by_ref(file).take(64).read_to_end(&mut text)?;
    if let Some(seat) = std::str::from_utf8(&text).ok().and_then(|text| Seat::parse(text.trim_end()).ok()) {
        return Ok(seat);
    }
    let seat = Seat::random();
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(format!("{seat}\n").as_bytes())?;
    file.sync_all()?;
    Ok(seat)
}

/// Makes a directory with exactly this mode, or checks that the one that stands there is ours.
fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        fs::create_dir_all(parent)
            .map_err(|_| Error::new(Code::ConfigIo, "cannot make the node's directory"))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask may have taken bits away that other uids need to reach the socket.
            let exact = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, exact)
                .map_err(|_| Error::new(Code::ConfigIo, "cannot set a directory's mode"))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path)
                .map_err(|_| Error::new(Code::ConfigIo, "cannot look at the node's directory"))?;
            let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
            let others_write = meta.mode() & 0o022 != 0;
            if ours && !others_write {
                Ok(())
            } else {
                Err(Error::with(
                    Code::ConfigPerms,
                    format!(
                        "{} must be a directory of the node's user that nobody else can write to",
                        files::show(path)
                    ),
                ))
            }
        }
        Err(_) => Err(Error::new(Code::ConfigIo, "cannot make the node's directory")),
    }
}

/// The names of the two logs of a node that has both.
///
/// # Errors
/// `E_CONFIG_VALUE` if the cluster's name cannot be part of one.
pub fn origins(cluster: &Name) -> Result<(Origin, Origin)> {
    Ok((origin(cluster, "broker")?, origin(cluster, "provider-1")?))
}

/// The name of a log.
///
/// # Errors
/// As [`origins`].
pub fn origin(cluster: &Name, role: &str) -> Result<Origin> {
    Origin::parse(&format!("{cluster}/audit/{role}"))
        .map_err(|_| Error::new(Code::ConfigValue, "the cluster's name cannot name a log"))
}
