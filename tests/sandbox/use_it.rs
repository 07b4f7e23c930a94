//! What a program in the sandbox can do, and what it starts with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::common::{USERS, is_root};
use crate::scene::{LEASE, Program, Scene, copy, own_path, status, until_in_call};

pub fn programs_use_their_leases() {
    let scene = Scene::set();
    let (said, status) = scene.run(&["client"]).end();
    assert!(status.success(), "{status} {said:?}");
    assert_eq!(said, [format!("used {LEASE}")]);
    let leasehold = env!("CARGO_BIN_EXE_leasehold");
    let run = ["run", "--as", "alice", "--token", LEASE, "--", leasehold];
    let put =
        scene.shell.pipe(&[&run[..], &["put", LEASE, "--offset", "64KiB"]].concat(), b"from the sandbox");
    assert!(put.status.success(), "{put:?}");
    let get = ["get", LEASE, "--offset", "64KiB", "--len", "16"];
    assert_eq!(scene.shell.bytes(&[&run[..], &get].concat()), b"from the sandbox");
    assert_eq!(scene.shell.bytes(&[&["--as", "alice"][..], &get].concat()), b"from the sandbox");
    // What is taken back from another receiver does not disturb it.
    let mut survivor = scene.run(&["survivor"]);
    assert_eq!(survivor.hear(), "waiting");
    until_in_call(survivor.pid(), libc::SYS_futex_waitv);
    scene.rotate();
    survivor.tell("look");
    let (said, status) = survivor.end();
    assert!(status.success(), "{status}");
    assert_eq!(said, ["woken"]);
    // A revoke reaches it as it reaches anybody.
    let mut holder = scene.run(&["holder"]);
    assert!(!holder.hear().is_empty());
    scene.shell.bytes(&["revoke", "lease", LEASE, "--as", "alice"]);
    holder.tell("look");
    let (said, status) = holder.end();
    assert_eq!(said, ["E_REVOKED"], "{status}");
}

pub fn a_program_starts_with_nothing_but_what_it_may_use() {
    let scene = Scene::set();
    let mut holder = scene.run(&["holder"]);
    holder.hear();
    let pid = holder.pid();
    for (key, value) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(status(pid, key), value, "{key}");
    }
    if is_root() {
        assert_eq!(status(pid, "CapBnd"), "0000000000000000");
        assert_eq!(status(pid, "Groups"), "");
    }
    let mut open: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, 3, 4, 5], "streams, session, token; the rotation channel since it mapped");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment: Vec<_> =
        environment.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).collect();
    let inherited = format!("LEASEHOLD_TOKEN_FDS={LEASE}:4");
    assert_eq!(environment, [&b"LEASEHOLD_SESSION_FD=3"[..], inherited.as_bytes()]);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["64", "64"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
}

pub fn a_confined_session_is_for_memory_alone() {
    let scene = Scene::set();
    let (said, status) = scene.run(&["asker"]).end();
    assert!(status.success(), "{status} {said:?}");
    assert_eq!(said, ["E_DENIED"; 6]);
    let leasehold = env!("CARGO_BIN_EXE_leasehold");
    let run = ["run", "--as", "alice", "--token", LEASE, "--", leasehold];
    refused(&scene, &[&run[..], &["lease", "list"]].concat(), 3, "E_DENIED");
    refused(&scene, &[&run[..], &["get", "other"]].concat(), 1, "E_LEASE_UNKNOWN");
}

/// A node without privileges has no sealed tier; its own user's programs are then held by the sandbox alone.
pub fn the_tier_is_sandboxed() {
    let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let leasehold = copy(env!("CARGO_BIN_EXE_leasehold").as_ref(), &dir.path().join("leasehold"));
    let own = copy(&own_path(), &dir.path().join("programs"));
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let command = || {
        let mut command = Command::new(&leasehold);
        command.env_clear().env("LEASEHOLD_DIR", &home).current_dir(&home);
        if is_root() {
            command.uid(USERS[0]).gid(USERS[0]);
        }
        command
    };
    if is_root() {
        std::os::unix::fs::chown(&home, Some(USERS[0]), Some(USERS[0])).unwrap();
    }
    let mut up = command();
    up.args(["up", "--json", "--allow-swap", "--pool", "64MiB"]);
    let mut node = Program::start(up);
    let ready = node.hear();
    assert!(ready.contains(r#""tier":"open""#), "{ready}");
    let said = |arguments: &[&str]| {
        let output = command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    said(&["id", "new", "alice"]);
    said(&["lease", "create", "--as", "alice", "--size", "4MiB", "--ttl", "10m", "--name", LEASE]);
    let tier = || {
        let shown: serde_json::Value =
            serde_json::from_str(&said(&["lease", "show", LEASE, "--as", "alice", "--json"])).unwrap();
        shown["lease"]["memory"]["tier"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
    };
    assert_eq!(tier(), "open");
    let mut run = command();
    run.args(["run", "--as", "alice", "--token", LEASE, "--"]).arg(&own).args(["program", "holder"]);
    let mut holder = Program::start(run);
    assert_eq!(holder.hear(), "Sandboxed Sandboxed");
    assert_eq!(tier(), "sandboxed");
    holder.tell("look");
    assert_eq!(holder.end().0, ["OK"]);
    let log = home.join("audit/provider-1");
    let logged = said(&["audit", "tail", log.to_str().unwrap(), "-n", "50"]);
    assert!(logged.contains("lease.open") && logged.contains("sandboxed"), "{logged}");
    drop(node);
}

pub fn what_cannot_be_run_is_refused() {
    let scene = Scene::set();
    let script = scene.node.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    let run = ["run", "--as", "alice", "--token"];
    let script = script.to_str().unwrap();
    refused(&scene, &[&run[..], &[LEASE, "--", script]].concat(), 1, "E_CONFIG_IO");
    refused(&scene, &[&run[..], &[LEASE, "--", "/no/such/program"]].concat(), 1, "E_CONFIG_IO");
    refused(&scene, &[&run[..], &["nothing", "--", "/bin/true"]].concat(), 1, "E_LEASE_UNKNOWN");
    let many: Vec<&str> = std::iter::repeat_n(["--token", LEASE], 17).flatten().collect();
    refused(&scene, &[&["run", "--as", "alice"][..], &many, &["--", "/bin/true"]].concat(), 2, "E_USAGE");
}

/// Checks that a command fails with this exit code and error code. What stands after `--` is the program's, so the form
/// for programs cannot be asked for at the end.
#[track_caller]
fn refused(scene: &Scene, arguments: &[&str], exit: i32, code: &str) {
    let output = scene.shell.pipe(arguments, b"");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {text}");
    assert!(
        text.starts_with(&format!("error[{code}]: ")) && text.contains("\nhelp: "),
        "{arguments:?}: {text}"
    );
    assert!(output.stdout.is_empty(), "{arguments:?}");
}
