//! The revocation canary: what a node tells of its own revocations, and what it does when nobody tells any more.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::time::{Duration, Instant};

use caps::wire::Name;
use caps::wire::row::{CanaryRow, CanaryState};
use common::node::Node;
use common::shell::Shell;
use common::{MINUTE, code, log, until};
use libmem::{Client, LeaseOptions, SigningKey};
use rustix::process::{Pid, Signal, kill_process};

/// As often as a node allows.
const OFTEN: &str = "[canary]\nevery = \"500ms\"\n";

fn canary(admin: &Client) -> CanaryRow {
    admin.status().unwrap().canary.expect("a canary")
}

fn state(admin: &Client, wanted: CanaryState) -> CanaryRow {
    until(&format!("{wanted:?}"), || Some(canary(admin)).filter(|row| row.state == wanted))
}

/// The canary's process, a child of the node's.
fn process(node: &Node) -> Pid {
    let node = node.pid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{node}/task/{node}/children")).unwrap();
    let is_canary = |pid: &&str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"leasehold-canary"))
    };
    let pid = children.split_whitespace().find(is_canary).expect("the canary's process");
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_err() || status.is_ok_and(|status| status.contains(") Z "))
}

#[test]
fn it_measures_goes_on_and_stops_with_the_node() {
    let mut node = Node::start(OFTEN);
    let shell = Shell::new(node.path());
    let admin = node.admin();
    let first = state(&admin, CanaryState::Ok);
    assert!(first.runs >= 1 && first.last.0 > 0 && first.receipt.0 > 0, "{first:?}");
    assert!(first.p50 <= first.p99 && first.failures == 0, "{first:?}");
    let later = until("more runs", || Some(canary(&admin)).filter(|row| row.runs >= first.runs + 2));
    assert_eq!((later.state, later.failures), (CanaryState::Ok, 0), "{later:?}");
    assert!(later.age.is_some_and(|age| age.0 < 20_000_000), "{later:?}");

    let status = &shell.json(&["status"])["status"]["canary"];
    for key in
        ["last_us", "p50_us", "p99_us", "receipt_us", "runs", "failures", "skipped", "age_ms", "every_ms"]
    {
        assert!(status[key].is_u64(), "{key}: {status}");
    }
    assert_eq!((&status["state"], &status["said"]), (&"ok".into(), &"".into()));
    let text = String::from_utf8(shell.bytes(&["status"])).unwrap();
    assert!(text.contains("canary") && text.contains("dead after "), "{text}");
    let checks = shell.json(&["doctor"]);
    let checks = checks["doctor"]["checks"].as_array().unwrap();
    assert!(
        checks.iter().any(|check| check["name"] == "revocation canary" && check["ok"] == true),
        "{checks:?}"
    );

    // It is confined, and took one page; real revocations go on beside it.
    let pid = process(&node);
    let about = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        assert!(about.contains(line), "{line}: {about}");
    }
    assert_eq!(admin.status().unwrap().leased_bytes, 4096);
    let key = SigningKey::from_seed(&[7; 32]);
    admin.principal_add(Name::new("alice").unwrap(), key.public()).unwrap();
    let taken =
        admin.principal_add(Name::new("canary-owner").unwrap(), SigningKey::from_seed(&[8; 32]).public());
    assert_eq!(code(&taken), "E_EXISTS", "its names are its own");

    // A pool that is full does not keep it from running: it has what it needs.
    let alice = Client::connect(&node.endpoint(), &key).unwrap();
    let mut leases = 0;
    for bytes in (12..28).rev().map(|bits| 1 << bits) {
        while alice.lease(LeaseOptions::new(bytes, MINUTE)).is_ok() {
            leases += 1;
        }
    }
    assert!(leases > 0);
    let runs = canary(&admin).runs;
    until("runs beside a full pool", || Some(canary(&admin)).filter(|row| row.runs >= runs + 2));

    drop((admin, alice));
    let started = Instant::now();
    node.stop();
    assert!(started.elapsed() < Duration::from_secs(10), "it does not hold a node up");
    until("the canary ended with its node", || is_gone(pid).then_some(()));
    assert!(!node.said().contains("ERROR"), "{}", node.said());
    log::verify(&node.audit());
}

#[test]
fn one_that_dies_is_missed() {
    let mut node = Node::start(OFTEN);
    let shell = Shell::new(node.path());
    let admin = node.admin();
    state(&admin, CanaryState::Ok);
    let pid = process(&node);
    kill_process(pid, Signal::KILL).unwrap();
    let row = state(&admin, CanaryState::Stopped);
    assert!(row.runs >= 1 && !row.said.is_empty(), "{row:?}");
    until("its parent has looked", || {
        fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).is_err().then_some(())
    });
    until("its lease ended with it", || (admin.status().unwrap().leases == 0).then_some(()));

    let doctor = shell.pipe(&["doctor"], b"");
    let (text, said) = (String::from_utf8(doctor.stdout).unwrap(), String::from_utf8(doctor.stderr).unwrap());
    assert_eq!(doctor.status.code(), Some(1), "{text} {said}");
    assert!(text.contains("STOPPED") && said.contains("the canary has stopped"), "{text} {said}");
    let status = String::from_utf8(shell.bytes(&["status"])).unwrap();
    assert!(status.contains("STOPPED"), "{status}");
    assert!(node.said().contains("the revocation canary has stopped"), "{}", node.said());
    drop(admin);
    node.stop();
}

#[test]
fn one_that_is_refused_says_so_and_is_no_failure() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    let denies = "deny if request(\"share.issue\");\nallow if request($any), principal($key, $name);\n";
    fs::write(policy.path(), denies).unwrap();
    let mut node = Node::start(&format!("{OFTEN}[policy]\nfile = {:?}\n", policy.path()));
    let admin = node.admin();
    let row = state(&admin, CanaryState::CouldNotRun);
    assert_eq!((row.runs, row.failures, &row.said[..]), (0, 0, "E_POLICY_DENIED"));
    until("it tries again", || Some(canary(&admin)).filter(|row| row.skipped >= 3));
    let shell = Shell::new(node.path());
    assert!(shell.pipe(&["doctor"], b"").status.success(), "it is no failure");
    let status = String::from_utf8(shell.bytes(&["status"])).unwrap();
    assert!(status.contains("could not run: E_POLICY_DENIED"), "{status}");
    // What a refused run had leased goes back.
    until("one lease at most", || (admin.status().unwrap().leases == 0).then_some(()));
    drop(admin);
    node.stop();
}

#[test]
fn off_is_off() {
    let mut node = Node::start("[canary]\nevery = \"off\"\n");
    let status = node.admin().status().unwrap();
    assert_eq!((status.canary, status.principals, status.leases), (None, 1, 0));
    let shell = Shell::new(node.path());
    assert!(shell.json(&["status"])["status"]["canary"].is_null());
    assert!(shell.pipe(&["doctor"], b"").status.success());
    node.stop();
}
