//! What ends while something else is under way.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{Lifetime, MemoryRow, Revocation, Target};
use caps::wire::{Reason, Reply, Request};

use super::bed::Bed;
use super::node::until;
use super::wire::{Raw, spec};

/// Bytes that take a while to zero: more than a worker of the gate builds itself.
const LARGE_BYTES: u64 = 128 << 20;

/// Not a test of its own: a process that asks for memory and dies at once.
#[test]
#[ignore = "started by others"]
fn child_that_leases_and_dies() {
    let mut lines = std::io::stdin().lines();
    let socket = std::path::PathBuf::from(lines.next().unwrap().unwrap());
    let seed = data_encoding::HEXLOWER.decode(lines.next().unwrap().unwrap().as_bytes()).unwrap();
    let key = SigningKey::from_seed(&seed.try_into().unwrap());
    let (mut raw, _) = Raw::session(&socket, &key).unwrap();
    raw.post(&Request::LeaseCreate(LeaseSpec { lifetime: Lifetime::Process, ..spec(LARGE_BYTES) })).unwrap();
    std::process::exit(0);
}

fn lease_and_die(bed: &Bed) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "races::child_that_leases_and_dies", "--ignored"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let seed = data_encoding::HEXLOWER.encode(&*bed.mallory.seed());
    write!(stdin, "{}\n{seed}\n", bed.node.socket().display()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Bytes that the broker has given, and that the provider has committed.
fn given(raw: &mut Raw) -> (u64, u64) {
    match raw.ask(&Request::Status) {
        Ok(Reply::Status(status)) => (status.leased_bytes, status.committed_bytes),
        other => panic!("{other:?}"),
    }
}

fn memory(raw: &mut Raw, bed: &Bed) -> MemoryRow {
    match raw.ask(&Request::LeaseShow { lease: bed.lease.id }) {
        Ok(Reply::Lease { memory: Some(memory), .. }) => memory,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_dies_while_its_memory_is_built_leaves_nothing() {
    let mut bed = Bed::new("");
    let mut raw = bed.session();
    let before = given(&mut raw);
    let reserved = |bed: &Bed| {
        bed.node.entries().iter().filter(|entry| entry.contains("\"event\":\"lease.offer\"")).count()
    };
    for _ in 0..3 {
        let known = reserved(&bed);
        // A node that hears of the death first never looks at the request: then somebody else has to die.
        until("a request is seen", || {
            lease_and_die(&bed);
            let looked = Instant::now();
            while reserved(&bed) == known && looked.elapsed() < Duration::from_millis(500) {
                std::thread::sleep(Duration::from_millis(5));
            }
            (reserved(&bed) > known).then_some(())
        });
        // The reservation's deadline takes it, whatever the claim came to.
        until("the pool has its bytes back", || (given(&mut raw) == before).then_some(()));
    }
    let (lease, _) = raw.lease(LARGE_BYTES);
    assert!(raw.ask(&Request::LeaseRelease { lease: lease.id }).is_ok());
    bed.check_bystander();
    bed.finish();
}

#[test]
fn a_second_mapping_that_cannot_be_handed_out_is_not_opened() {
    let bed = Bed::new("");
    let mut raw = bed.session();
    let open = Request::Open { token: bed.token.clone(), rights: Rights::READ, path: Path::Mapped };
    for _ in 0..2 {
        raw.post(&open).unwrap();
    }
    // Both are judged before the first answer is read.
    until("the first is opened", || (memory(&mut bed.session(), &bed).opens == 1).then_some(()));
    let (mut given, mut busy) = (0, 0);
    for _ in 0..2 {
        match raw.answer() {
            Ok(Reply::Opened(_)) => given += 1,
            Err(error) if error.code() == Code::Busy => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(given >= 1 && given + busy == 2, "{given} {busy}");
    assert_eq!(memory(&mut bed.session(), &bed).opens, given, "what was refused is not open");
    bed.finish();
}

#[test]
fn a_session_that_ends_with_requests_in_flight_leaves_nothing_open() {
    let mut bed = Bed::new("");
    let before = bed.node.held().descriptors;
    for n in 0..200 {
        let mut raw = bed.session();
        let path = if n % 2 == 0 { Path::Mapped } else { Path::Mediated };
        raw.post(&Request::Open { token: bed.token.clone(), rights: Rights::READ, path }).unwrap();
    }
    let mut raw = bed.session();
    until("nothing is open", || {
        let memory = memory(&mut raw, &bed);
        (memory.opens == 0 && memory.mappings == 0).then_some(())
    });
    drop(raw);
    // One descriptor more: the sealed one that the region keeps for its next holder.
    until("descriptors come back", || (bed.node.held().descriptors <= before + 1).then_some(()));
    bed.check_bystander();
    bed.finish();
}

/// How many accesses race with revocations: `LEASEHOLD_RACE_ACCESSES`, of all rounds together.
fn accesses() -> u64 {
    std::env::var("LEASEHOLD_RACE_ACCESSES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000)
}

#[test]
fn no_access_that_begins_after_a_revoke_is_acknowledged_succeeds() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    /// Least accesses before a revoke, so that it comes into the middle of them; a third of it of each user.
    const A_ROUND: u64 = 300;
    let bed = Bed::new("");
    let wanted = accesses();
    let (mut succeeded, mut refused) = (0, 0);
    while succeeded < wanted {
        let mut owner = bed.session();
        let (lease, token) = owner.lease(16 * 4096);
        let (acknowledged, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let users: Vec<_> = (0..3)
                .map(|n| {
                    let (token, acknowledged, done, mut raw) = (&token, &acknowledged, &done, bed.session());
                    let mut handle = raw.open(token, Rights::READ_WRITE).unwrap().handle;
                    scope.spawn(move || {
                        loop {
                            let after = acknowledged.load(SeqCst);
                            let outcome = match n {
                                0 => raw.read(handle, 0, 4096).map(drop),
                                1 => raw.write(handle, 0, &[7; 4096]),
                                _ => raw.open(token, Rights::READ).map(|opened| {
                                    raw.ask(&Request::Close { handle }).unwrap_or(Reply::Done);
                                    handle = opened.handle;
                                }),
                            };
                            match outcome {
                                Ok(()) => assert!(!after, "it began after the acknowledgement"),
                                Err(error) => {
                                    let code = error.code();
                                    assert!(matches!(code, Code::Revoked | Code::TokenRevoked), "{error}");
                                    return;
                                }
                            }
                            done.fetch_add(1, SeqCst);
                        }
                    })
                })
                .collect();
            while done.load(SeqCst) < A_ROUND && !users.iter().any(|user| user.is_finished()) {
                std::thread::yield_now();
            }
            let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::default() };
            assert!(matches!(owner.ask(&Request::Revoke(revocation)), Ok(Reply::Receipt(_))));
            acknowledged.store(true, SeqCst);
            users.into_iter().for_each(|user| user.join().unwrap());
        });
        (succeeded, refused) = (succeeded + done.load(SeqCst), refused + 3);
    }
    println!("{succeeded} accesses, {refused} refused");
    bed.finish();
}

#[test]
fn i2_a_long_transfer_stops_at_the_next_chunk() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: u64 = 1_024; // 64 MiB
    let bed = Bed::new("");
    let (mut owner, mut user) = (bed.session(), bed.session());
    let (lease, token) = owner.lease(CHUNKS * CHUNK as u64);
    let handle = user.open(&token, Rights::READ_WRITE).unwrap().handle;
    let (begun, acknowledged) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    let moved = std::thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            for chunk in 0..CHUNKS {
                if chunk == CHUNKS / 8 {
                    begun.wait();
                }
                let after = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
                match user.write(handle, chunk * CHUNK as u64, &[7; CHUNK]) {
                    Ok(()) => assert!(!after, "a chunk that began after the acknowledgement"),
                    Err(error) => {
                        assert_eq!(error.code(), Code::Revoked);
                        return chunk;
                    }
                }
            }
            CHUNKS
        });
        begun.wait();
        let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::default() };
        assert!(matches!(owner.ask(&Request::Revoke(revocation)), Ok(Reply::Receipt(_))));
        acknowledged.store(true, std::sync::atomic::Ordering::SeqCst);
        transfer.join().unwrap()
    });
    assert!((CHUNKS / 8..CHUNKS).contains(&moved), "it stopped in the middle, after {moved} chunks");
    bed.finish();
}

#[test]
fn i5_revoke_and_renew_at_once_twice_and_of_nothing() {
    let mut bed = Bed::new("");
    let (mut owner, mut other) = (bed.session(), bed.session());
    let revoke =
        |lease| Request::Revoke(Revocation { target: Target::Lease(lease), reason: Reason::default() });
    for _ in 0..50 {
        let (lease, token) = owner.lease(4096);
        let renew = Request::LeaseRenew { lease: lease.id, ttl: caps::time::Micros::from_millis(900_000) };
        let (revoked, renewed) = std::thread::scope(|scope| {
            let renewed = scope.spawn(|| other.ask(&renew));
            (owner.ask(&revoke(lease.id)), renewed.join().unwrap())
        });
        assert!(matches!(revoked, Ok(Reply::Receipt(_))), "{revoked:?}");
        // Either the renewal came first, or the lease was being taken back or gone; never one that lives on.
        if let Err(error) = renewed {
            assert_eq!(error.code(), Code::TokenRevoked, "its time is not over: {error}");
        }
        assert_eq!(other.open(&token, Rights::READ).unwrap_err().code(), Code::TokenRevoked);
        assert!(matches!(owner.ask(&revoke(lease.id)), Ok(Reply::Receipt(_))), "again, with the same effect");
    }
    let nothing = revoke(caps::id::LeaseId::random());
    bed.row_in_session("I5 nothing", Code::LeaseUnknown, |raw| raw.refusal(&nothing));
    bed.finish();
}

#[test]
fn a_descriptor_of_a_revoked_lease_reaches_nothing() {
    let bed = Bed::new("");
    let mut raw = bed.session();
    let (lease, token) = raw.lease(4096);
    let (_, descriptors) = raw.open_mapped(&token, Rights::READ_WRITE).unwrap();
    assert_eq!(descriptors.len(), 1);
    let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::default() };
    assert!(matches!(raw.ask(&Request::Revoke(revocation)), Ok(Reply::Receipt(_))));
    // Every call through it fails, or finds nothing.
    let mut byte = [7];
    match rustix::io::pread(&descriptors[0], &mut byte, 0) {
        Ok(0) | Err(_) => {}
        Ok(n) => panic!("{n} bytes of a dead lease"),
    }
    bed.finish();
}
