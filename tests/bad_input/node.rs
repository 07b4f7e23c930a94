//! A node of the test's own: the built binary, in a directory of its own, stopped and its logs verified at the end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use audit::key::Vkey;
use caps::key::SigningKey;
use caps::token::RootKey;
use data_encoding::BASE64URL_NOPAD;
use tempfile::TempDir;

/// How long anything may take that has no bound of its own.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node.
pub struct Node {
    pub dir: TempDir,
    child: Child,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub descriptors: usize,
    pub threads: usize,
    pub resident_kib: u64,
}

/// A directory that every user may pass through.
pub fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// `leasehold up` on a directory.
pub fn up(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command.args(["up", "--json", "--dir"]).arg(dir).stdin(Stdio::null());
    // One allocator arena: what a node holds on to is then the node's doing, and not how many threads happened to run.
    command.env("MALLOC_ARENA_MAX", "1").env_remove("RUST_LOG");
    command
}

/// Waits until `done` says something.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a node in a directory, and waits until it serves.
fn launch(dir: &Path, config: &str) -> Child {
    // Sessions and descriptors are counted here: no canary of the node's own is among them.
    let config = format!("{config}\n[canary]\nevery = \"off\"\n");
    fs::write(dir.join("leasehold.toml"), config).unwrap();
    let mut child = up(dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"ready\""), "the node starts: {line}");
    child
}

impl Node {
    /// Starts a node with `config` as its configuration.
    pub fn start(config: &str) -> Self {
        Self::start_in(directory(), config)
    }

    /// The same in a directory that is there already.
    pub fn start_in(dir: TempDir, config: &str) -> Self {
        let child = launch(dir.path(), config);
        Self { dir, child }
    }

    /// Stops it, does something to its directory, and starts another life there.
    pub fn again(&mut self, between: impl FnOnce(&Path)) {
        self.terminate();
        between(self.dir.path());
        self.child = launch(self.dir.path(), "");
    }

    fn terminate(&mut self) {
        assert!(self.is_alive(), "the node lives");
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let status = until("the node ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "the node ends cleanly: {status}");
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("node.sock")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn seed(&self, file: &str) -> [u8; 32] {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap();
        let base64 = text.trim_end().split(':').nth(1).unwrap();
        BASE64URL_NOPAD.decode(base64.as_bytes()).unwrap().try_into().unwrap()
    }

    pub fn admin(&self) -> SigningKey {
        SigningKey::from_seed(&self.seed("ids/admin.key"))
    }

    /// The key that signs this node's tokens: so that what refuses a forged one is not its signature.
    pub fn root(&self) -> RootKey {
        RootKey::from_seed(&self.root_seed())
    }

    pub fn root_seed(&self) -> [u8; 32] {
        self.seed("keys/root")
    }

    /// What the node's process holds now.
    pub fn held(&self) -> Held {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let count = |what: &str| fs::read_dir(process.join(what)).unwrap().count();
        let status = fs::read_to_string(process.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        Held {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Every entry of both logs that there is now, as text.
    pub fn entries(&self) -> Vec<String> {
        ["broker", "provider-1"].iter().flat_map(|log| self.log(log)).collect()
    }

    /// Every entry of one log.
    pub fn log(&self, name: &str) -> Vec<String> {
        let dir = self.dir.path().join("audit").join(name);
        // Files change while they are read; the reader says so, and is asked again.
        until("a readable log", || {
            let entries: Result<Vec<_>, _> = audit::read::entries(&dir, 0).ok()?.collect();
            Some(entries.ok()?.into_iter().map(|entry| String::from_utf8(entry.bytes).unwrap()).collect())
        })
    }

    /// Stops the node and verifies both logs from their files. Returns every entry.
    pub fn stop(mut self) -> Vec<String> {
        self.terminate();
        let audit = self.dir.path().join("audit");
        let vkeys = fs::read_to_string(audit.join("vkeys")).unwrap();
        let vkeys: Vec<_> = vkeys.lines().map(|line| Vkey::parse(line).unwrap()).collect();
        let report = audit::verify::verify_dir(&audit, &vkeys).unwrap();
        assert_eq!(report.damage(), None);
        assert_eq!(report.logs.len(), 2);
        self.entries()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have been stopped
        let _ = self.child.wait();
    }
}
