//! A copy of leased memory in a lease of one's own: whole, or nothing at all.

#[path = "common/mod.rs"]
mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use caps::token::{Narrow, attenuate};
use caps::wire::row::LeaseState;
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, PATIENCE, SMALL, World, pattern, refused, until, within_patience};
use libmem::{
    ByteRange, Client, Code, LeaseOptions, Leased, Lifetime, Reason, Rights, ShareOptions, SnapshotOptions,
    Target, Token, aio,
};
use rustix::process::{Pid, Signal, kill_process};

const MIB: u64 = 1 << 20;
/// Bytes of a segment.
const SEGMENT: u64 = MIB;

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> SnapshotOptions {
    SnapshotOptions::new(MINUTE).lifetime(Lifetime::Detached)
}

fn bytes_of(client: &Client, token: &Token, from: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    client.open(token, Rights::READ).unwrap().read_at(from, &mut bytes).unwrap();
    bytes
}

/// A lease in segments, with bytes in it.
fn lease(who: &Person, length: u64) -> (Leased, Vec<u8>) {
    let options = LeaseOptions::new(length, MINUTE).lifetime(Lifetime::Detached).segment(SEGMENT);
    let leased = who.client.lease(options).unwrap();
    let bytes = pattern(length, length as usize);
    who.client.open(&leased.token, Rights::READ_WRITE).unwrap().write_at(0, &bytes).unwrap();
    (leased, bytes)
}

/// Shares a part of a lease for reading.
fn share(alice: &Person, leased: &Leased, bob: &Person, range: ByteRange) -> libmem::Accepted {
    let options = ShareOptions::new(bob.key.public(), Rights::READ).range(range);
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
    let contract = bob.client.share_show(grant.id).unwrap().contract;
    bob.client.share_accept(&contract, Lifetime::Detached, &bob.key).unwrap()
}

/// How many leases of its own live.
fn live(client: &Client) -> usize {
    let live = |row: &libmem::LeaseRow| row.owner == client.holder() && row.state == LeaseState::Live;
    client.leases().map(Result::unwrap).filter(live).count()
}

fn reason() -> Reason {
    Reason::new("a test ends it").unwrap()
}

#[test]
fn an_owners_copy_is_whole_of_the_same_shape_and_its_own() {
    let world = World::new();
    let alice = world.person();
    // No multiple of a step, nor of a segment.
    let length = 3 * MIB + 5 * 4096;
    let (leased, bytes) = lease(&alice, length);
    let mut told = Vec::new();
    let tell = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    let copy = alice.client.snapshot(&leased.token, options().name("copy").unwrap(), tell).unwrap().unwrap();
    assert!(told.is_sorted() && told.len() == 4 && told.last() == Some(&(length, length)), "{told:?}");

    assert_eq!(copy.lease.range.len(), length);
    assert_eq!(copy.lease.segment_bytes, SEGMENT);
    assert_eq!((copy.lease.owner, copy.lease.name.as_ref().unwrap().as_str()), (alice.key.public(), "copy"));
    assert_ne!(copy.lease.region, leased.lease.region);
    // What happens to either does not happen to the other.
    let original = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    original.write_at(0, b"changed after that").unwrap();
    assert!(bytes_of(&alice.client, &copy.token, 0, length) == bytes);
    drop(original);
    alice.client.release(leased.lease.id).unwrap();
    assert!(bytes_of(&alice.client, &copy.token, 0, length) == bytes);
    alice.client.release(copy.lease.id).unwrap();
    world.balances();
    drop(alice);
    world.finish();
}

#[test]
fn a_receivers_copy_is_of_the_part_that_it_was_given_and_outlives_the_grant() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let (leased, bytes) = lease(&alice, 4 * MIB);
    // One part falls on segments and is mapped, the other is read through the node.
    let parts = [(SEGMENT, 3 * SEGMENT), (4096, 4096 + 2 * SEGMENT + 100)];
    for (start, end) in parts {
        let part = ByteRange::new(start, end).unwrap();
        let accepted = share(&alice, &leased, &bob, part);
        let copy = bob.client.snapshot(&accepted.token, options(), go_on).unwrap().unwrap();
        let whole = part.len().next_multiple_of(4096);
        assert_eq!((copy.lease.owner, copy.lease.range.len()), (bob.key.public(), whole));
        assert_eq!(copy.lease.segment_bytes, SEGMENT);
        alice.client.revoke(Target::Grant(accepted.grant.id), reason()).unwrap();
        refused(bob.client.open_mediated(&accepted.token, Rights::READ), Code::TokenRevoked);
        let found = bytes_of(&bob.client, &copy.token, 0, whole);
        let (part, rest) = found.split_at((end - start) as usize);
        assert!(part == &bytes[start as usize..end as usize]);
        assert!(rest.iter().all(|&byte| byte == 0), "the rest of the last page is fresh");
        // The new owner may write, though it could only read.
        bob.client.open(&copy.token, Rights::READ_WRITE).unwrap().write_at(0, b"mine").unwrap();
        bob.client.release(copy.lease.id).unwrap();
    }
    alice.client.release(leased.lease.id).unwrap();
    world.balances();
    drop((alice, bob));
    world.finish();
}

#[test]
fn a_source_that_is_revoked_midway_leaves_no_half_copy() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    for mapped in [true, false] {
        let (leased, _) = lease(&alice, 4 * MIB);
        let start = if mapped { 0 } else { 4096 };
        let accepted = share(&alice, &leased, &bob, ByteRange::new(start, 4 * MIB).unwrap());
        let mut pieces = 0;
        let revoke = |_, _| {
            pieces += 1;
            if pieces == 2 {
                assert_eq!(live(&bob.client), 1, "the copy is under way");
                alice.client.revoke(Target::Grant(accepted.grant.id), reason()).unwrap();
            }
            ControlFlow::Continue(())
        };
        refused(bob.client.snapshot(&accepted.token, options(), revoke), Code::Revoked);
        assert_eq!((pieces, live(&bob.client)), (2, 0));
        alice.client.release(leased.lease.id).unwrap();
    }
    world.balances();
    drop((alice, bob));
    world.finish();
}

#[test]
fn what_may_not_be_read_or_leased_leaves_nothing_behind() {
    let world = World::with("[quota.default]\nleased_bytes = \"5MiB\"\n");
    let (alice, bob) = (world.person(), world.person());
    let (leased, _) = lease(&alice, 3 * MIB);
    // A second one of that size is more than her quota.
    refused(alice.client.snapshot(&leased.token, options(), go_on), Code::Quota);
    assert_eq!(live(&alice.client), 1);
    // Half of it is not.
    let half = Narrow { range: Some(ByteRange::new(0, MIB).unwrap()), ..Narrow::default() };
    let copy = alice.client.snapshot(&attenuate(&leased.token, &half).unwrap(), options(), go_on);
    alice.client.release(copy.unwrap().unwrap().lease.id).unwrap();

    // Nobody copies by somebody else's token, nor without the right to read: nothing is leased for it.
    refused(bob.client.snapshot(&leased.token, options(), go_on), Code::TokenBound);
    let blind = Narrow { rights: Some(Rights::WRITE), ..Narrow::default() };
    refused(
        alice.client.snapshot(&attenuate(&leased.token, &blind).unwrap(), options(), go_on),
        Code::Denied,
    );
    // A budget that is spent midway.
    let short = Narrow { bytes_total: Some(MIB + MIB / 2), ..half };
    let short = Narrow { range: Some(ByteRange::new(0, 2 * MIB).unwrap()), ..short };
    refused(
        alice.client.snapshot(&attenuate(&leased.token, &short).unwrap(), options(), go_on),
        Code::Denied,
    );
    assert_eq!((live(&alice.client), live(&bob.client)), (1, 0));
    alice.client.release(leased.lease.id).unwrap();
    world.balances();
    drop((alice, bob));
    world.finish();
}

#[test]
fn one_that_is_told_to_stop_stops_and_leaves_nothing_in_both_clients() {
    let world = World::new();
    let alice = world.person();
    let (leased, bytes) = lease(&alice, 3 * MIB);
    let stop = |done: u64, _| if done > MIB { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(alice.client.snapshot(&leased.token, options(), stop).unwrap().is_none());
    assert_eq!(live(&alice.client), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = aio::Client::connect(&world.node.endpoint(), &alice.key).await.unwrap();
        assert!(client.snapshot(&leased.token, options(), stop).await.unwrap().is_none());
        let copy = client.snapshot(&leased.token, options(), go_on).await.unwrap().unwrap();
        assert!(bytes_of(&alice.client, &copy.token, 0, 3 * MIB) == bytes);
        client.release(copy.lease.id).await.unwrap();
    });
    assert_eq!(live(&alice.client), 1);
    alice.client.release(leased.lease.id).unwrap();
    world.balances();
    drop((alice, runtime));
    world.finish();
}

#[test]
fn on_the_command_line_the_copy_has_a_name_and_a_token() {
    let world = World::new();
    let dir = world.node.path().to_owned();
    let shell = Shell::new(&dir);
    shell.bytes(&["id", "new", "alice"]);
    shell.bytes(&["lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "5m", "--name", "frames"]);
    let put = shell.pipe(&["put", "frames", "--as", "alice"], b"as it was");
    assert!(put.status.success());
    let snapshot = ["lease", "snapshot", "frames", "--as", "alice", "--ttl", "5m", "--name", "copy", "-o"];
    let made = shell.json(&[&snapshot[..], &["copy.token"]].concat());
    assert_eq!((&made["lease"]["name"], &made["lease"]["range"][1]), (&"copy".into(), &SMALL.into()));
    shell.pipe(&["put", "frames", "--as", "alice"], b"no longer");
    for copy in ["copy", "copy.token"] {
        assert_eq!(shell.bytes(&["get", copy, "--as", "alice", "--len", "9"]), b"as it was");
    }
    // Neither a name nor a file is taken twice, and what is refused leaves nothing.
    shell.fails(&[&snapshot[..], &["copy.token"]].concat(), 1, "E_EXISTS");
    shell.fails(&[&snapshot[..], &["other.token"]].concat(), 1, "E_EXISTS");
    // A file that cannot be made is found out when the copy is whole: then that goes, too.
    let nowhere = ["lease", "snapshot", "frames", "--as", "alice", "--ttl", "5m", "-o", "no/such/dir.token"];
    let failed = shell.pipe(&nowhere, b"");
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(!failed.status.success() && text.contains("no/such/dir.token"), "{text}");
    let leases = shell.json(&["lease", "list", "--as", "alice"]);
    assert_eq!(leases["leases"].as_array().unwrap().len(), 2);
    for name in ["frames", "copy"] {
        shell.bytes(&["lease", "release", name, "--as", "alice"]);
    }
    world.balances();
    drop(shell);
    world.finish();
}

#[test]
fn a_command_that_is_interrupted_releases_the_half_copy() {
    let world = World::new();
    let dir = world.node.path().to_owned();
    let shell = Shell::new(&dir);
    shell.bytes(&["id", "new", "alice"]);
    shell.bytes(&["lease", "create", "--as", "alice", "--size", "96MiB", "--ttl", "5m", "--name", "frames"]);
    let alice = world.connect(&world.node.key("alice"));
    for signal in [Signal::INT, Signal::HUP] {
        let (status, text) = interrupted(&dir, &alice, signal);
        assert_eq!(status.code(), Some(130), "{signal:?}: {text}");
        assert!(text.starts_with("error[E_INTERRUPTED]: "), "{signal:?}: {text}");
        assert_eq!(live(&alice), 1);
    }
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    world.balances();
    drop((alice, shell));
    world.finish();
}

/// What a command says that was ended by `signal` while it copied.
fn interrupted(dir: &Path, alice: &Client, signal: Signal) -> (ExitStatus, String) {
    // Whether a command that was told to stop was done already is for the machine to say, not for the test: then it is
    // tried again.
    let interrupted = within_patience(|| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(["lease", "snapshot", "frames", "--as", "alice", "--ttl", "5m"])
            .env_clear()
            .env("LEASEHOLD_DIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        until("it listens for signals, or is done", || {
            (catches(pid, signal) || child.try_wait().unwrap().is_some()).then_some(())
        });
        if child.try_wait().unwrap().is_none() {
            kill_process(pid, signal).unwrap(); // not reaped, so its number is still its own
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let Some(0) = output.status.code() else { return Some((output.status, text)) };
        let done = alice
            .leases()
            .map(Result::unwrap)
            .find(|row| row.name.is_none() && row.state == LeaseState::Live);
        alice.release(done.unwrap().id).unwrap();
        None
    });
    interrupted.unwrap_or_else(|| panic!("never interrupted within {PATIENCE:?}"))
}

/// Whether a process has a handler for a signal, of which `SigCgt` of its status has a bit.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}
