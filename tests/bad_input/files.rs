//! Group K: the operator's files, as `leasehold up` and the checking commands find them.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;

use caps::error::Code;

use super::node::{directory, up};

/// Whether a program said a code: as people see it.
pub fn says(text: &str, code: Code) -> bool {
    text.contains(code.text()) || text.contains(&format!("{code:?}"))
}

/// Starts a node on a directory that `make` filled, and expects it to refuse.
fn refused(row: &str, code: Code, make: impl Fn(&Path)) -> String {
    let dir = directory();
    make(dir.path());
    let began = Instant::now();
    let Output { status, stdout, stderr } =
        up(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(began.elapsed() < super::node::PATIENCE, "{row}");
    let said = String::from_utf8_lossy(&stderr).into_owned() + &String::from_utf8_lossy(&stdout);
    assert_eq!(status.code(), Some(1), "{row}: {said}");
    assert!(says(&said, code), "{row}: {code} in {said}");
    assert!(!dir.path().join("node.sock").exists(), "{row}: nothing was started");
    said
}

fn config(row: &str, code: Code, text: impl AsRef<[u8]>) -> String {
    refused(row, code, |dir| fs::write(dir.join("leasehold.toml"), text.as_ref()).unwrap())
}

fn policy(row: &str, code: Code, text: impl AsRef<[u8]>) -> String {
    refused(row, code, |dir| fs::write(dir.join("policy.dl"), text.as_ref()).unwrap())
}

#[test]
fn k1_files_that_cannot_be_read() {
    for file in ["leasehold.toml", "policy.dl"] {
        refused("K1 a directory", Code::ConfigIo, |dir| fs::create_dir(dir.join(file)).unwrap());
        refused("K1 a FIFO", Code::ConfigIo, |dir| {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, dir.join(file), kind, 0o600.into(), 0).unwrap();
        });
        refused("K1 a device", Code::ConfigIo, |dir| {
            std::os::unix::fs::symlink("/dev/zero", dir.join(file)).unwrap();
        });
        refused("K1 1 GiB", Code::ConfigIo, |dir| {
            fs::File::create(dir.join(file)).unwrap().set_len(1 << 30).unwrap();
        });
    }
}

#[test]
fn k2_mistakes_have_a_place() {
    for (row, text, place) in [
        ("syntax", "[node]\npool = \n", "2:"),
        ("a key twice", "[node]\npool = \"1GiB\"\npool = \"1GiB\"\n", "3:"),
        ("an unknown key", "[node]\nalow_uids = [1]\n", "2:1"),
        ("an unknown table", "[nodes]\n", "1:"),
    ] {
        let said = config(&format!("K2 {row}"), Code::ConfigSyntax, text);
        let line = place.split(':').next().unwrap();
        let found =
            said.contains(&format!("leasehold.toml:{place}")) || said.contains(&format!("line: {line}"));
        assert!(found, "K2 {row}: {place} in {said}");
    }
    let said = config("K2 both", Code::ConfigSyntax, "[node]\nalow_uids = [1]\n[lease]\ntttl = 1\n");
    assert!(said.contains("alow_uids") && said.contains("tttl"), "all at once: {said}");
}

#[test]
fn k3_values_out_of_their_bounds() {
    for text in [
        "[node]\npool = -1\n",
        "[node]\npool = \"10GB\"\n",
        "[node]\npool = \"17592186044416TiB\"\n",
        "[node]\npool = \"1KiB\"\n",
        "[node]\nallow_uids = [-1]\n",
        "[lease]\nttl_max = \"1y\"\n",
        "[lease]\nttl_max = \"0s\"\n",
        "[lease]\nbytes_min = 0\n",
        "[faults]\naccess = \"forgive\"\n",
        "[node]\ncluster = \"../../etc\"\n",
    ] {
        config(text, Code::ConfigValue, text);
    }
}

#[test]
fn k5_no_option_turns_a_protection_off() {
    for text in ["[node]\ntls = false\n", "[node]\nlisten = \"0.0.0.0:1\"\n", "[audit]\nenabled = false\n"] {
        config(text, Code::ConfigSyntax, text);
    }
    config("ignore", Code::ConfigValue, "[audit]\non_full = \"ignore\"\n");
}

#[test]
fn k7_policies_that_do_not_parse() {
    let deep = format!("allow if {}true{};", "(".repeat(5_000), ")".repeat(5_000));
    let bangs = format!("allow if {}true;", "!".repeat(10_000));
    let long = format!("// {}\nallow if true;", "x".repeat(1 << 20));
    for (row, text) in [
        ("parentheses", deep.as_bytes()),
        ("bangs", bangs.as_bytes()),
        ("a line of 1 MiB", long.as_bytes()),
        ("no UTF-8", b"allow if \xff;"),
        ("nothing at the end", b"allow if"),
        ("a text that misleads", "allow if user(\"a\u{202e}b\");".as_bytes()),
    ] {
        policy(&format!("K7 {row}"), Code::PolicySyntax, text);
    }
}

#[test]
fn k8_policies_that_are_almost_certainly_wrong() {
    policy("K8 everything to everybody", Code::PolicyLint, "allow if true;\n");
    policy("K8 an unknown word", Code::PolicyLint, "allow if requst(\"lease.create\");\ndeny if true;\n");
}

/// Runs one of the commands that check a file and start nothing.
fn checked(noun: &str, file: &Path) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args([noun, "check"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code(), said)
}

#[test]
fn k1_k2_k3_k7_k8_the_checking_commands_say_the_same() {
    let dir = directory();
    let file = dir.path().join("file");
    for (noun, code, text) in [
        ("config", Code::ConfigSyntax, &b"[node]\nalow_uids = [1]\n"[..]),
        ("config", Code::ConfigSyntax, b"[node]\npool = \n"),
        ("config", Code::ConfigValue, b"[node]\npool = \"10GB\"\n"),
        ("config", Code::ConfigIo, b""),
        ("policy", Code::PolicySyntax, b"allow if"),
        ("policy", Code::PolicySyntax, b"allow if \xff;"),
        ("policy", Code::PolicyLint, b"allow if true;\n"),
    ] {
        fs::write(&file, text).unwrap();
        let (status, said) = checked(noun, &file);
        assert_eq!(status, Some(1), "{noun} {code}: {said}");
        assert!(says(&said, code), "{noun} {code}: {said}");
        assert!(code == Code::ConfigIo || said.contains("file:"), "{noun} {code} has a place: {said}");
    }
    let missing = dir.path().join("missing");
    for noun in ["config", "policy"] {
        for path in [missing.as_path(), dir.path()] {
            let (status, said) = checked(noun, path);
            assert_eq!(status, Some(1), "{noun} {}: {said}", path.display());
            assert!(says(&said, Code::ConfigIo), "{noun} {}: {said}", path.display());
        }
    }
}
