//! A node with one lease, and programs that are started in the sandbox to use it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use crate::common::node::Node;
use crate::common::shell::Shell;
use crate::common::until;

/// What the lease is called.
pub const LEASE: &str = "frames";

/// A node, and alice with a lease of 4 MiB.
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

    /// Files of its state that a program must not read.
    pub fn secret(&self) -> PathBuf {
        self.node.path().join("ids/alice.key")
    }
}

/// Makes alice and her lease with the command line.
pub fn lease(shell: &Shell) {
    shell.bytes(&["id", "new", "alice"]);
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
