//! A node with one lease, and programs that are started in the sandbox to use it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use libmem::{Client, Endpoint, Lifetime, Reason, Rights, ShareOptions, SigningKey, Target};

use crate::common::node::Node;
use crate::common::shell::Shell;
use crate::common::until;

/// What the lease is called.
pub const LEASE: &str = "frames";

/// A node, alice with a lease of 4 MiB, and bob.
pub struct Scene {
    pub node: Node,
    pub shell: Shell,
}

impl Scene {
    pub fn set() -> Self {
        let node = Node::start("");
        let shell = Shell::new(node.path());
        lease(&shell);
        Self { node, shell }
    }

    /// Starts this binary's program `role` in the sandbox.
    pub fn run(&self, role: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command.args(["run", "--as", "alice", "--token", LEASE, "--"]).arg(own_path());
        command.arg("program").args(role).env_clear().env("LEASEHOLD_DIR", self.node.path());
        Program::start(command)
    }

    /// Has bob look at alice's lease, and takes that back: everybody else's mappings get fresh memory.
    pub fn rotate(&self) {
        let (alice, key) = connect(self.node.path(), "alice");
        let (bob, his_key) = connect(self.node.path(), "bob");
        let lease = alice.leases().next().unwrap().unwrap();
        let grant =
            alice.share_offer(&lease, &ShareOptions::new(his_key.public(), Rights::READ), &key).unwrap();
        let proposal = bob.share_show(grant.id).unwrap();
        let accepted = bob.share_accept(&proposal.contract, Lifetime::Process, &his_key).unwrap();
        let region = bob.open_mapped(&accepted.token, Rights::READ).unwrap();
        region.read_at(0, &mut [0]).unwrap();
        let rotations = || alice.lease_show(lease.id).unwrap().memory.unwrap().rotations;
        let before = rotations();
        alice.revoke(Target::Grant(grant.id), Reason::new("").unwrap()).unwrap();
        assert!(rotations() > before);
    }

    /// Files of its state that a program must not read.
    pub fn secret(&self) -> PathBuf {
        self.node.path().join("ids/alice.key")
    }
}

/// A session of somebody whose key the command line made in `directory`, and the key.
pub fn connect(directory: &Path, name: &str) -> (Client, SigningKey) {
    let text = std::fs::read_to_string(directory.join(format!("ids/{name}.key"))).unwrap();
    let seed = data_encoding::BASE64URL_NOPAD
        .decode(text.trim_end().rsplit_once(':').unwrap().1.as_bytes())
        .unwrap();
    let key = SigningKey::from_seed(&seed.try_into().unwrap());
    (Client::connect(&Endpoint::unix(directory.join("node.sock")), &key).unwrap(), key)
}

/// Makes alice and her lease, and bob, with the command line.
pub fn lease(shell: &Shell) {
    shell.bytes(&["id", "new", "alice"]);
    shell.bytes(&["id", "new", "bob"]);
    shell.bytes(&["lease", "create", "--as", "alice", "--size", "4MiB", "--ttl", "10m", "--name", LEASE]);
}

/// This binary.
pub fn own_path() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A process whose output is read line by line. Dropping it kills it.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line; empty at the end of its output.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn tell(&mut self, line: &str) {
        let _ = writeln!(self.stdin.as_mut().unwrap(), "{line}"); // it may have ended, which shows soon
    }

    /// All the rest that it says, and how it ended.
    pub fn end(mut self) -> (Vec<String>, ExitStatus) {
        self.stdin = None;
        let lines = (&mut self.stdout).lines().map(Result::unwrap).collect();
        let status = until("the program ends", || self.child.try_wait().unwrap());
        (lines, status)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ours, and perhaps gone already
        let _ = self.child.wait();
    }
}

/// Waits until a thread of the process sleeps in this system call, or the process is over.
pub fn until_in_call(pid: u32, wanted: libc::c_long) {
    let wanted = wanted.to_string();
    until("a thread is in the system call", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z") {
            return Some(());
        }
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("syscall")).ok())
            .any(|text| text.split(' ').next() == Some(&wanted))
            .then_some(())
    });
}

/// One line of `/proc/PID/status`.
pub fn status(pid: u32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
}

/// Copies this binary to where every user can start it.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::copy(from, to).unwrap();
    to.to_owned()
}
