//! The `leasehold` command, as a second terminal has it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs commands against one directory.
pub struct Shell {
    dir: PathBuf,
}

impl Shell {
    /// A shell whose node is in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Runs a command with something on standard input.
    pub fn pipe(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(args)
            .env_clear()
            .env("LEASEHOLD_DIR", &self.dir)
            .current_dir(&self.dir)
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

    /// Runs a command that must succeed; what it printed.
    #[track_caller]
    pub fn bytes(&self, args: &[&str]) -> Vec<u8> {
        let output = self.pipe(args, b"");
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    }

    /// Runs a command with `--json` that must succeed; the one document that it printed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.pipe(&args, b"");
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must fail, once for people and once for programs: in both with this exit code and error
    /// code, on standard error, with help, and nothing on standard output.
    #[track_caller]
    pub fn fails(&self, args: &[&str], exit: i32, code: &str) {
        let plain = self.pipe(args, b"");
        assert_eq!(plain.status.code(), Some(exit), "{args:?}: {plain:?}");
        let text = String::from_utf8(plain.stderr).unwrap();
        assert!(
            text.starts_with(&format!("error[{code}]: ")) && text.contains("\nhelp: "),
            "{args:?}: {text}"
        );
        assert!(plain.stdout.is_empty(), "{args:?}: {:?}", plain.stdout);
        let json = self.pipe(&[args, &["--json"]].concat(), b"");
        assert_eq!(json.status.code(), Some(exit), "{args:?}: {json:?}");
        let document: Value = serde_json::from_slice(&json.stderr).unwrap();
        assert_eq!(document["error"]["code"], code, "{args:?}: {document}");
        for key in ["message", "help"] {
            assert!(
                document["error"][key].as_str().is_some_and(|text| !text.is_empty()),
                "{args:?}: {document}"
            );
        }
        assert!(json.stdout.is_empty(), "{args:?}: {:?}", json.stdout);
    }
}
