//! A node that serves TLS, with an authority of its own, and what a user types beside it.
#![allow(dead_code)] // each test program uses a part

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A node in a directory of its own. Dropping it kills it.
pub(crate) struct Node {
    dir: TempDir,
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Node {
    /// Starts it, as the provider `node-1` of `mem.example`, with these people registered and certified.
    pub(crate) fn start(people: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
        // Tests count leases: the canary's are not theirs.
        std::fs::write(dir.path().join("leasehold.toml"), "[canary]\nevery = \"off\"\n").unwrap();
        let done = |args: &[&str]| {
            let output = leasehold(dir.path(), &[], args, b"");
            assert!(output.status.success(), "{args:?}: {output:?}");
        };
        done(&["pki", "init", "--domain", "mem.example"]);
        done(&["pki", "issue", "node-1", "--role", "provider"]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(["up", "--json", "--pool", "256MiB", "--listen", "127.0.0.1:0"])
            .env_clear()
            .env("LEASEHOLD_DIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        // To the end, so that it never writes in vain.
        std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no node: {line}"));
        let address = ready["ready"]["address"].as_str().unwrap().to_owned();
        for name in people {
            done(&["id", "new", name, "--register"]);
            done(&["pki", "issue", name]);
        }
        Self { dir, child, address }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file of the authority's.
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.path().join("pki").join(file)
    }

    /// Types a command over the network.
    pub(crate) fn remote(&self, args: &[&str], stdin: &[u8]) -> Output {
        leasehold(self.path(), &[("LEASEHOLD_BROKER", &self.address)], args, stdin)
    }

    /// Types a command on the node's own machine.
    pub(crate) fn local(&self, args: &[&str], stdin: &[u8]) -> Output {
        leasehold(self.path(), &[], args, stdin)
    }

    /// The one document of a command over the network that must succeed.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.remote(&[args, &["--json"]].concat(), b"");
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn leasehold(dir: &Path, environment: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(args)
        .env_clear()
        .env("LEASEHOLD_DIR", dir)
        .envs(environment.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = input.write_all(stdin); // a command that fails early reads no further
        });
        child.wait_with_output().unwrap()
    })
}
