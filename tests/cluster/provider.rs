//! A provider is killed, or cut off: its leases say so, and others do not notice.

use std::time::{Duration, Instant};

use libmem::Code;
use policy::limits::PROVIDER_LOST_MS;

use crate::common::faults::{BOTH, Fault, Way};
use crate::common::{code, netns, until};
use crate::held::{self, Held};
use crate::stage::Stage;

/// Bytes of a held lease, as a log has them.
const WIPED: &str = "1048576";
/// What is said of a lease whose provider is gone, as long as nobody knows for how long.
const GONE: [Code; 2] = [Code::Unreachable, Code::Timeout];
/// What is said of it once that is known.
const LOST: [Code; 3] = [Code::ProviderLost, Code::Epoch, Code::LeaseUnknown];
/// How long a command may take that concerns somebody who does not answer.
const IN_VAIN: Duration = Duration::from_secs(40);

/// Waits until using it says that its provider's life is over.
fn await_loss(stage: &Stage, held: &Held) {
    let said = until("the loss is said", || {
        let code = held.read(stage).err()?.code();
        (!GONE.contains(&code)).then_some(code)
    });
    assert!(LOST.contains(&said), "{said}");
}

#[test]
fn a_provider_that_is_killed_takes_its_leases_along_and_no_others() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [a, mut b] = Held::on_both(&mut stage);
    stage.a.kill();
    let said = a.fails(&stage);
    assert!(GONE.contains(&said) || LOST.contains(&said), "{said}");
    b.is_whole(&stage);
    // New leases go where somebody is.
    let other = until("a new lease is placed", || {
        let create = ["lease", "create", "--as", "alice", "--size", "1MiB", "--ttl", "10m", "--json"];
        let output = stage.typed(&create, b"");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    });
    assert_eq!(stage.node_of(other["lease"]["id"].as_str().unwrap()), "node-b");

    // The next life proves that the one before is over.
    stage.a.start();
    until("the broker records the loss", || {
        let log = stage.broker.log();
        log.iter().any(|entry| entry["event"] == "provider.lost").then_some(())
    });
    await_loss(&stage, &a);
    let shown = stage.typed(&["get", &a.lease, "--as", "alice", "--len", "16", "--json"], b"");
    assert!(!shown.status.success(), "{shown:?}");
    b.is_whole(&stage);
    let [mut again, _other] = Held::on_both(&mut stage);
    again.is_whole(&stage);
    stage.finish();
}

/// The lives of a provider's name that the broker knows of: their ids, and whether each is lost.
fn lives(stage: &Stage, name: &str) -> Vec<(serde_json::Value, bool)> {
    let rows = stage.providers().into_iter().filter(|row| row["name"] == name);
    rows.map(|row| (row["id"].clone(), row["state"] == "lost")).collect()
}

/// The only life of a provider that there has been.
#[track_caller]
fn life(stage: &Stage, name: &str) -> serde_json::Value {
    until(&format!("{name} is there"), || match &lives(stage, name)[..] {
        [(id, false)] => Some(id.clone()),
        _ => None,
    })
}

/// That this one goes on, whatever the broker has heard of it lately.
#[track_caller]
fn goes_on(stage: &Stage, name: &str, before: &serde_json::Value) {
    assert_eq!(life(stage, name), *before, "the same life goes on");
}

#[test]
fn a_revoke_that_cannot_be_told_says_so_and_is_done_as_soon_as_it_can() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [mut a, mut b] = Held::on_both(&mut stage);
    let before = life(&stage, "node-a");
    // The broker loses its link, and gets no other until the command has ended: which then says so, and long before the
    // provider is given up.
    stage.link.reset_and_cut(Way::ToNear);
    until("the link is cut", || (stage.link.counts(Way::ToNear).reset > 0).then_some(()));
    let said = stage.refused(&["revoke", "lease", &a.lease, "--as", "alice", "--reason", "over"], IN_VAIN);
    assert!(["E_UNREACHABLE", "E_TIMEOUT", "E_UNCERTAIN"].contains(&&said[..]), "{said}");
    // The provider has not heard of it: no more was promised to anybody.
    a.is_whole(&stage);
    stage.link.mend();
    let ended = until("the provider takes it back", || {
        let log = stage.a.log();
        log.into_iter().find(|e| e["event"] == "lease.revoke" && e["lease"] == a.lease[..])
    });
    assert_eq!(ended["wiped_bytes"], WIPED, "{ended}");
    let over = until("the right is over", || {
        let code = a.read(&stage).err()?.code();
        (!GONE.contains(&code)).then_some(code)
    });
    assert!([Code::Revoked, Code::TokenRevoked, Code::LeaseUnknown].contains(&over), "{over}");
    goes_on(&stage, "node-a", &before);
    b.is_whole(&stage);
    stage.finish();
}

#[test]
fn a_provider_that_the_broker_does_not_reach_for_too_long_begins_anew() {
    away_for_too_long(&BOTH);
}

#[test]
fn a_provider_that_does_not_hear_the_broker_for_too_long_begins_anew() {
    away_for_too_long(&[Way::ToFar]);
}

fn away_for_too_long(ways: &[Way]) {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [mut a, mut b] = Held::on_both(&mut stage);
    let before = life(&stage, "node-a");
    let began = Instant::now();
    stage.link.cut(ways);
    until("the broker gives it up", || {
        let log = stage.broker.log();
        log.iter().any(|entry| entry["event"] == "provider.lost").then_some(())
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(PROVIDER_LOST_MS / 2), "not at the first silence: {took:?}");
    // Nobody has proved that it serves no more, and it does: who takes back what it has is told so.
    a.is_whole(&stage);
    let said = stage.refused(&["revoke", "lease", &a.lease, "--as", "alice", "--reason", "over"], IN_VAIN);
    assert_eq!(said, "E_UNREACHABLE");
    a.is_whole(&stage);
    b.is_whole(&stage);

    stage.link.mend();
    until("another life of it has come", || {
        lives(&stage, "node-a").into_iter().find(|(id, is_lost)| *id != before && !is_lost)
    });
    await_loss(&stage, &a);
    // What the life before had was wiped by it.
    let log = stage.a.log();
    assert!(
        log.iter().any(|entry| entry["lease"] == a.lease[..] && entry["wiped_bytes"] == WIPED),
        "the memory was taken back before the new life began"
    );
    b.is_whole(&stage);
    let [mut again, _other] = Held::on_both(&mut stage);
    again.is_whole(&stage);
    stage.finish();
}

#[test]
fn a_provider_whose_cable_is_pulled_for_a_moment_goes_on() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [mut a, mut b] = Held::on_both(&mut stage);
    let before = life(&stage, "node-a");
    stage.a.host.unplug();
    let said = a.fails(&stage);
    assert!(GONE.contains(&said), "{said}");
    let token = a.token.clone();
    let opened = held::open(&mut stage, "node-a", &token).map(drop);
    assert!(["E_UNREACHABLE", "E_TIMEOUT"].contains(&code(&opened)), "{opened:?}");
    b.is_whole(&stage);
    stage.a.host.plug();
    until("it is reached again", || a.read(&stage).ok());
    a.is_whole(&stage);
    goes_on(&stage, "node-a", &before);
    stage.finish();
}

#[test]
fn leases_come_and_go_over_a_link_that_loses_reorders_and_doubles() {
    if !netns::possible() {
        return;
    }
    let stage = Stage::set();
    let before = life(&stage, "node-a");
    stage.link.set_both(Fault {
        delay: Duration::from_millis(5),
        loss: 60,
        reorder: (100, Duration::from_millis(8)),
        duplicate: 100,
        ..Fault::default()
    });
    for round in 0..24 {
        let name = format!("r{round}");
        let made = stage.lease(&name, "1MiB", "10m");
        let lease = made["lease"]["id"].as_str().unwrap();
        stage.json(&["lease", "renew", lease, "--as", "alice", "--ttl", "20m"]);
        let receipt = stage.json(&["lease", "release", lease, "--as", "alice"]);
        assert_eq!(receipt["receipt"]["wiped_bytes"], 1 << 20, "{receipt}");
    }
    for way in BOTH {
        let counts = stage.link.counts(way);
        assert!(counts.lost > 0 && counts.late > 0 && counts.doubled > 0, "{way:?}: {counts:?}");
    }
    stage.balances();
    goes_on(&stage, "node-a", &before);
    stage.finish();
}
