//! A lease's time is over: under readers, under tokens, and not one moment because somebody's clock stepped.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{MINUTE, SMALL, USERS, World, log, refused, until};
use libmem::{Code, LeaseOptions, Lifetime, Rights};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// A short life. Long enough to be opened in by a loaded machine, most of the time.
const SHORT_MS: u64 = 300;

#[test]
fn a_lease_expires_under_its_readers_as_they_chose() {
    let world = World::new();
    let key = world.register();
    let mut owner = world.actor(&key, USERS[0]);
    let mut raw = world.actor(&key, USERS[0]);
    let mut mediated = world.actor(&key, USERS[0]);
    // Opened while there is time; the end is moved close only when all of them are at work.
    let (lease, token) = owner.lease(SMALL, 60_000, true);
    let guarded = owner.open(&token, Rights::READ, true);
    let unguarded = raw.open(&token, Rights::READ, true);
    let served = mediated.open(&token, Rights::READ, false);
    owner.start_using(guarded, false, false);
    raw.start_using(unguarded, false, true);
    mediated.start_using(served, false, false);
    let client = world.connect(&key);
    let started = Instant::now();
    client.renew(lease.id, Duration::from_millis(SHORT_MS)).unwrap();
    assert_eq!(owner.hear_stopped(), "E_REVOKED");
    assert!(started.elapsed() >= Duration::from_millis(SHORT_MS), "not before its time");
    // Between its time and the fence a request is told the one, afterwards the other.
    let code = mediated.hear_stopped();
    assert!(["E_LEASE_EXPIRED", "E_REVOKED"].contains(&&code[..]), "{code}");
    assert_eq!(raw.wait_for_signal(), libc::SIGBUS);

    let row = until("the row says how the lease ended", || {
        client.leases().map(Result::unwrap).find(|row| row.id == lease.id && row.cause.is_some())
    });
    assert_eq!(format!("{:?}", row.cause), "Some(Expired)");
    assert_eq!(row.expires_in.0, 0);
    let token = libmem::Token::parse_text(&token).unwrap();
    assert!(client.open_mediated(&token, Rights::READ).is_err());
    refused(client.renew(lease.id, MINUTE), Code::LeaseExpired);
    let fault = log::await_provider(&world.node.audit(), "the fault of whoever read raw", |entry| {
        entry["event"] == "fault.access" && entry["method"] == "mapped"
    });
    assert_eq!(fault["signal"], libc::SIGBUS);
    drop((owner, raw, mediated, client));
    world.balances();
    let log = world.finish();
    assert_eq!(log::about(&log.broker, "lease.expire", lease.id).len(), 1);
    assert_eq!(log::about(&log.provider, "lease.expire", lease.id).len(), 1);
}

#[test]
fn a_short_lease_ends_by_itself_and_its_token_says_so() {
    let world = World::new();
    let alice = world.person();
    let options = LeaseOptions::new(SMALL, Duration::from_millis(SHORT_MS)).lifetime(Lifetime::Detached);
    let leased = alice.client.lease(options).unwrap();
    world.balances();
    for result in [
        alice.client.open_mapped(&leased.token, Rights::READ).map(drop),
        alice.client.open_mediated(&leased.token, Rights::READ).map(drop),
    ] {
        refused(result, Code::TokenExpired);
    }
    refused(alice.client.renew(leased.lease.id, MINUTE), Code::LeaseExpired);
    drop(alice);
    let log = world.finish();
    let denied = log::about(&log.provider, "lease.deny", leased.lease.id);
    assert!(denied.iter().any(|entry| entry["code"] == "E_TOKEN_EXPIRED"), "{denied:?}");
}

#[test]
fn a_renewal_outlives_the_first_end_and_the_first_token_does_not() {
    let world = World::new();
    let alice = world.person();
    let options = LeaseOptions::new(SMALL, Duration::from_millis(2 * SHORT_MS)).lifetime(Lifetime::Detached);
    let leased = alice.client.lease(options).unwrap();
    let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(0, b"kept").unwrap();
    let renewed = alice.client.renew(leased.lease.id, MINUTE).unwrap();
    // The first token names the first end, and is over then, whatever became of the lease.
    until("the first token expires", || match alice.client.open_mediated(&leased.token, Rights::READ) {
        Err(error) if error.code() == Code::TokenExpired => Some(()),
        other => {
            other.unwrap();
            None
        }
    });
    let mut bytes = [0; 4];
    region.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept", "a mapping lives as long as the lease");
    alice.client.open_mediated(&renewed.token, Rights::READ).unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    drop(region);
    alice.client.release(leased.lease.id).unwrap();
    drop(alice);
    world.balances();
    world.finish();
}

#[test]
fn many_leases_end_in_one_moment_and_all_come_back() {
    let world = World::new();
    let alice = world.person();
    let end = Instant::now() + Duration::from_millis(800);
    let mut opened = Vec::new();
    for _ in 0..200 {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let options = LeaseOptions::new(4096, left).lifetime(Lifetime::Detached);
        let leased = alice.client.lease(options).unwrap();
        opened.push(alice.client.open_mapped(&leased.token, Rights::READ).ok());
    }
    world.balances();
    for region in opened.iter().flatten() {
        refused(region.read_at(0, &mut [0]), Code::Revoked);
    }
    drop((opened, alice));
    let log = world.finish();
    assert_eq!(log::of(&log.broker, "lease.expire").len(), 200);
    assert_eq!(log::of(&log.provider, "lease.expire").len(), 200);
}
