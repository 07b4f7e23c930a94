//! A provider is killed, or cut off: its leases say so, and others do not notice.

use std::time::{Duration, Instant};

use libmem::Code;
use policy::limits::PROVIDER_LOST_MS;

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

#[test]
fn a_revoke_that_cannot_be_told_says_so_and_is_done_as_soon_as_it_can() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [a, mut b] = Held::on_both(&mut stage);
    let life = |stage: &Stage| {
        let row = stage.providers().into_iter().find(|row| row["name"] == "node-a");
        row.expect("it has a row")["id"].clone()
    };
    let before = life(&stage);
    // Neither the broker nor a client reaches it.
    stage.a.host.unplug();
    let revoke = ["revoke", &a.lease, "--as", "alice", "--reason", "over"];
    let said = std::thread::scope(|scope| {
        let asked = scope.spawn(|| stage.typed(&[&revoke[..], &["--json"]].concat(), b""));
        // Long enough for the take-back to be under way, and shorter than the provider is given up in.
        let since = Instant::now();
        until("the provider is silent", || {
            let row = stage.providers().into_iter().find(|row| row["name"] == "node-a")?;
            let silent = row["silent_for_ms"].as_u64()? >= PROVIDER_LOST_MS / 4;
            (silent || since.elapsed() >= Duration::from_millis(PROVIDER_LOST_MS / 3)).then_some(())
        });
        stage.a.host.plug();
        asked.join().unwrap()
    });
    if !said.status.success() {
        let error: serde_json::Value = serde_json::from_slice(&said.stderr).unwrap();
        let code = error["error"]["code"].as_str().unwrap();
        assert!(["E_UNREACHABLE", "E_TIMEOUT", "E_UNCERTAIN"].contains(&code), "{error}");
    }
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
    assert_eq!(life(&stage), before, "the same life goes on");
    b.is_whole(&stage);
    stage.finish();
}

#[test]
fn a_provider_that_is_away_for_too_long_begins_anew() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [a, mut b] = Held::on_both(&mut stage);
    let id = |stage: &Stage| {
        let rows = stage.providers();
        rows.into_iter()
            .find(|row| row["name"] == "node-a" && row["state"] == "up")
            .map(|row| row["id"].clone())
    };
    let before = id(&stage).expect("it is there");
    stage.a.host.unplug();
    let began = Instant::now();
    until("the broker gives it up", || {
        let log = stage.broker.log();
        log.iter().any(|entry| entry["event"] == "provider.lost").then_some(())
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(PROVIDER_LOST_MS / 2), "not at the first silence: {took:?}");
    // Nobody has proved that it serves no more: who asks is told so.
    let said = stage.refused(&["revoke", &a.lease, "--as", "alice", "--reason", "over"], IN_VAIN);
    assert!(["E_UNREACHABLE", "E_PROVIDER_LOST"].contains(&&said[..]), "{said}");
    assert_eq!(code(&held::open(&mut stage, "node-a", &a.token.clone()).map(drop)), "E_UNREACHABLE");
    b.is_whole(&stage);

    stage.a.host.plug();
    stage.a.await_ready();
    let after = until("it is back", || id(&stage));
    assert_ne!(after, before, "another life");
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
