//! A node as a child process in a temporary directory: what the demo and the benchmarks run against.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use caps::error::{Code, Error, Result};
use caps::key::SigningKey;
use libmem::{Client, Endpoint};

use super::state::ADMIN;
use crate::dirs::Dirs;
use crate::identity;

/// A node and its directory, both gone when this is dropped.
pub struct Spawned {
    dir: PathBuf,
    child: Option<Child>,
    admin: Option<Client>,
    ready: String,
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |_| Error::new(Code::System, what)
}

impl Spawned {
    /// Starts a node with a pool of `pool_bytes` in a directory named after `purpose` in `parent`, waits until it
    /// serves, and connects as its administrator. `config` is its `leasehold.toml`, if not the default; it has no
    /// canary, whose revocations would be in the way of what is shown or measured.
    ///
    /// # Errors
    /// `E_SYSTEM` if there is no directory or process to be had, `E_UNREACHABLE` if the node did not start (it has said
    /// why on standard error), and what connecting answers.
    pub fn start(parent: &Path, purpose: &str, pool_bytes: u64, config: Option<&str>) -> Result<Self> {
        Self::start_with(parent, purpose, pool_bytes, config, &[])
    }

    /// The same, with more arguments for `leasehold up`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        parent: &Path,
        purpose: &str,
        pool_bytes: u64,
        config: Option<&str>,
        arguments: &[&OsStr],
    ) -> Result<Self> {
        let dir = parent.join(format!("leasehold-{purpose}-{}", std::process::id()));
        fs::create_dir(&dir).map_err(failed("cannot make a temporary directory"))?;
        let mut spawned = Self { dir, child: None, admin: None, ready: String::new() };
        // Clients of other uids pass through it to the socket.
        fs::set_permissions(&spawned.dir, fs::Permissions::from_mode(0o755))
            .map_err(failed("cannot set the temporary directory's mode"))?;
        let config = format!("{}\n[canary]\nevery = \"off\"\n", config.unwrap_or_default());
        fs::write(spawned.dir.join("leasehold.toml"), config)
            .map_err(failed("cannot write the node's configuration"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("leasehold")
            .args(["up", "--json", "--dir"])
            .arg(&spawned.dir)
            .args(["--pool", &pool_bytes.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = spawned.child.insert(command.spawn().map_err(failed("cannot start the node"))?);
        let ready = child.stdout.take().and_then(|stdout| BufReader::new(stdout).lines().next());
        let ready = ready.and_then(std::io::Result::ok).filter(|line| line.contains("\"ready\""));
        spawned.ready = ready.ok_or(Error::new(Code::Unreachable, "the node did not start"))?;
        let seed = identity::load_seed(&spawned.dirs().state.join(format!("ids/{ADMIN}.key")))?;
        spawned.admin = Some(Client::connect(&spawned.endpoint(), &SigningKey::from_seed(&seed))?);
        Ok(spawned)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its directories.
    pub fn dirs(&self) -> Dirs {
        Dirs::below(&self.dir)
    }

    /// Where its clients connect.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.dirs().socket())
    }

    /// The document with which it said that it serves.
    ///
    /// # Errors
    /// `E_INTERNAL` if it was none.
    pub fn ready(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.ready)
            .map_err(|_| Error::new(Code::Internal, "the node did not say in JSON that it serves"))
    }

    /// A session of its administrator.
    ///
    /// # Errors
    /// `E_UNREACHABLE` once it was stopped.
    pub fn admin(&self) -> Result<&Client> {
        self.admin.as_ref().ok_or(Error::new(Code::Unreachable, "the node was stopped"))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it as SIGTERM does, and waits. Its directory stays until this is dropped.
    ///
    /// # Errors
    /// `E_INTERNAL` if it did not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        self.admin = None;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        terminate(&child);
        let status = child.wait().map_err(failed("cannot wait for the node"))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(Code::Internal, "the node did not end cleanly"))
        }
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // it may be gone
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.stop(); // a node that did not end cleanly has said so
        let _ = fs::remove_dir_all(&self.dir); // throw-away keys, in a temporary directory
    }
}
