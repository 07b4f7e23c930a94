//! A node: the built binary in a directory of its own.

use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr::null;
use std::sync::mpsc;

use libmem::{Client, Endpoint, PrincipalKey, SigningKey};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use tempfile::TempDir;

use super::netns::Space;
use super::{NOBODY, PATIENCE, USERS, until};

/// Bytes of a test node's pool.
pub const POOL: u64 = 256 << 20;
/// What key files begin with.
const KEY_PREFIX: &str = "leasehold-key-v1:";

/// A node that runs, or ran. Dropping it kills it.
pub struct Node {
    dir: TempDir,
    child: Option<Child>,
    /// The user that it runs as, where that is not the tests'.
    uid: Option<u32>,
    /// What it sees in the place of /dev/zero.
    zero: Option<PathBuf>,
    /// How many descriptors it may have, where that is not what this process may.
    descriptors: Option<u64>,
    /// The network that it is in, where that is not the tests'.
    space: Option<Space>,
    /// What it said when it was ready.
    pub ready: serde_json::Value,
}

/// How many of the node's resources are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors; `None` where only root may count those of a process that leaves no core dumps.
    pub descriptors: Option<usize>,
    /// Threads, those of pools left out: they are bounded and stay.
    pub threads: usize,
}

impl Node {
    /// Starts a node in a fresh directory and waits until it is ready. `config` is its leasehold.toml, to which the
    /// users of client processes are added.
    pub fn start(config: &str) -> Self {
        Self::begin(config, None, None)
    }

    /// As [`Self::start`], as another user. Only root can.
    pub fn start_as(uid: u32, config: &str) -> Self {
        Self::begin(config, Some(uid), None)
    }

    /// As [`Self::start`], with a file in the place of /dev/zero, from which the node wipes: as long as it is empty, no
    /// wipe can be done. Only root can.
    pub fn start_wiping_from(zero: &Path) -> Self {
        Self::begin("", None, Some(zero.to_owned()))
    }

    /// As [`Self::start`], serving TLS at a port of the kernel's choice, with an authority of its own for the domain
    /// `test.example` that has issued a certificate to the node `node-1`. See [`super::tls`].
    pub fn start_with_tls(config: &str) -> Self {
        Self::serving(config, Ipv4Addr::LOCALHOST, None, None)
    }

    /// The same with at most so many descriptors.
    pub fn start_with_tls_and_descriptors(config: &str, descriptors: Option<u64>) -> Self {
        Self::serving(config, Ipv4Addr::LOCALHOST, None, descriptors)
    }

    /// As [`Self::start_with_tls`], in a network of its own, at this address there.
    pub fn start_in(space: &Space, address: Ipv4Addr, config: &str) -> Self {
        Self::serving(config, address, Some(space.clone()), None)
    }

    fn serving(config: &str, address: Ipv4Addr, space: Option<Space>, descriptors: Option<u64>) -> Self {
        let config = format!("{config}\n[remote]\nlisten = \"{address}:0\"\n");
        let mut node = Self::prepare(&config, None, None);
        node.descriptors = descriptors;
        node.space = space;
        let shell = super::shell::Shell::new(node.path());
        shell.bytes(&["pki", "init", "--domain", super::tls::DOMAIN]);
        shell.bytes(&["pki", "issue", "node-1", "--role", "provider"]);
        node.restart();
        node
    }

    fn begin(config: &str, uid: Option<u32>, zero: Option<PathBuf>) -> Self {
        let mut node = Self::prepare(config, uid, zero);
        node.restart();
        node
    }

    fn prepare(config: &str, uid: Option<u32>, zero: Option<PathBuf>) -> Self {
        let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
        // Clients of other users pass through it to the socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let [a, b, c, d] = USERS;
        let users = format!("[node]\nallow_uids = [{a}, {b}, {c}, {d}, {NOBODY}]\n");
        // Tests count leases, entries and bytes: the canary is in those that ask for it.
        let quiet = if config.contains("[canary]") { "" } else { "\n[canary]\nevery = \"off\"\n" };
        fs::write(dir.path().join("leasehold.toml"), users + config + quiet).unwrap();
        std::os::unix::fs::chown(dir.path(), uid, uid).unwrap();
        std::os::unix::fs::chown(dir.path().join("leasehold.toml"), uid, uid).unwrap();
        Self { dir, child: None, uid, zero, descriptors: None, space: None, ready: serde_json::Value::Null }
    }

    /// Where it serves TLS.
    pub fn address(&self) -> std::net::SocketAddr {
        self.ready["address"].as_str().expect("a node that serves TLS").parse().unwrap()
    }

    /// Starts the node again in the directory it had, once the one before is gone.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "one node uses a directory at a time");
        let errors = fs::OpenOptions::new().create(true).append(true).open(self.errors()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        if let Some(zero) = &self.zero {
            let zero = CString::new(zero.as_os_str().as_bytes()).unwrap();
            // SAFETY: between fork and exec, system calls alone: their texts were made before.
            unsafe { command.pre_exec(move || put_for_dev_zero(&zero)) };
        }
        if let Some(most) = self.descriptors {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            // SAFETY: between fork and exec, one system call.
            unsafe { command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?)) };
        }
        if let Some(space) = &self.space {
            space.place(&mut command);
        }
        let mut child = command
            .args(["up", "--json", "--dir"])
            .arg(self.path())
            .args(["--pool", &POOL.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        self.child = Some(child);
        let (tell, told) = mpsc::channel();
        // Ends with the node, whose standard output it reads to the end so that the node never writes in vain.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line); // only the first is waited for
            }
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no node: {}", self.said()));
        self.ready = serde_json::from_str::<serde_json::Value>(&line).unwrap()["ready"].clone();
        assert!(self.ready.is_object(), "{line}");
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its logs.
    pub fn audit(&self) -> PathBuf {
        self.path().join("audit")
    }

    fn errors(&self) -> PathBuf {
        self.path().join("stderr")
    }

    /// What it wrote to standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(self.errors()).unwrap_or_default()
    }

    /// How strongly mappings are held here: `sealed` or `open`.
    pub fn is_sealed(&self) -> bool {
        self.ready["tier"] == "sealed"
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the node runs"))
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.path().join("node.sock"))
    }

    /// The key of an identity in its directory.
    pub fn key(&self, name: &str) -> SigningKey {
        let text = fs::read_to_string(self.path().join(format!("ids/{name}.key"))).unwrap();
        let base64 = text.trim_end().strip_prefix(KEY_PREFIX).expect("a key file");
        let seed = data_encoding::BASE64URL_NOPAD.decode(base64.as_bytes()).unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }

    /// The key that signs its receipts, as it is published for auditors.
    pub fn issuer(&self) -> PrincipalKey {
        PrincipalKey::parse(fs::read_to_string(self.audit().join("issuer")).unwrap().trim_end()).unwrap()
    }

    /// A session of the administrator's.
    pub fn admin(&self) -> Client {
        Client::connect(&self.endpoint(), &self.key("admin")).unwrap()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_nonzero())).expect("the node runs");
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        tasks.map_while(Result::ok).filter_map(name).map(|name| name.trim_end().to_owned()).collect()
    }

    /// What it holds now.
    pub fn held(&self) -> Held {
        // Pools grow under load, to a bound of their own, and keep what they have.
        // The kernel has a worker for those among them that use io_uring, and ends it with them.
        let kept = |name: &&String| {
            !["lh-cut", "lh-wipe", "lh-rotate", "lh-gate"].contains(&&name[..])
                && !name.starts_with("iou-wrk-")
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero()));
        let descriptors = descriptors.map(|list| list.map_while(Result::ok).count()).ok();
        Held { descriptors, threads: self.threads().iter().filter(kept).count() }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let status = until("the node ends", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Ends it as an operator does, and checks that it ends well.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "the node ended with {status}: {}", self.said());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

/// Gives this process a view of its own of the file systems, in which `file` is /dev/zero.
fn put_for_dev_zero(file: &CStr) -> std::io::Result<()> {
    let mount = |source: &CStr, target: &CStr, flags| {
        // SAFETY: terminated texts; a bind mount and a change of propagation take neither type nor data.
        let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), null(), flags, null()) };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: takes a number; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    mount(file, c"/dev/zero", libc::MS_BIND)
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the node's standard error:\n{}", self.said());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // ours, and perhaps gone already
            let _ = child.wait();
        }
    }
}
