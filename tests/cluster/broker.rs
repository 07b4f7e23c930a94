//! The broker is stopped, or cut off: what exists goes on, and nothing new begins.

use std::time::Duration;

use libmem::Code;

use crate::common::{code, netns, until};
use crate::held::{self, Held};
use crate::stage::Stage;

/// How long a command may take that finds nobody: a command's own time, and what a busy machine adds.
const IN_VAIN: Duration = Duration::from_secs(40);

#[test]
fn without_the_broker_what_exists_works_and_nothing_new_begins() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [mut a, mut b] = Held::on_both(&mut stage);
    stage.broker.stop();
    for held in [&mut a, &mut b] {
        held.is_whole(&stage);
        // Also a right that nobody has opened before.
        held.open_again(&stage).unwrap();
    }
    let token = a.token.clone();
    held::open(&mut stage, "node-a", &token).unwrap();
    let create = ["lease", "create", "--as", "alice", "--size", "1MiB", "--ttl", "10m", "--name", "new"];
    assert_eq!(stage.refused(&create, IN_VAIN), "E_UNREACHABLE");
    a.is_whole(&stage);

    // A broker that comes back is another cluster: the providers begin anew, and what was is over.
    stage.broker.start();
    stage.await_providers("both come to the new broker", |rows| {
        rows.iter().filter(|row| row["state"] == "up").count() == 2
    });
    for held in [&a, &b] {
        let over = until("the life is over", || {
            let code = held.read(&stage).err()?.code();
            (code != Code::Unreachable && code != Code::Timeout).then_some(code)
        });
        assert!([Code::Epoch, Code::ProviderLost, Code::Revoked].contains(&over), "{over}");
    }
    stage.balances();
    Held::on_both(&mut stage);
    stage.finish();
}

#[test]
fn a_broker_that_was_cut_off_hears_afterwards_what_it_missed() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let lives = |stage: &Stage| -> Vec<_> {
        stage.providers().into_iter().map(|row| (row["name"].clone(), row["id"].clone())).collect()
    };
    let before = lives(&stage);
    let [mut a, mut b] = Held::on_both(&mut stage);
    let short = Held::new(&mut stage, "short", "3s");
    stage.broker.host.unplug();
    // The provider ends it by its own clock, and nobody can tell the broker.
    let node = short.node.clone();
    until("the lease ends at its provider", || {
        let log = stage.provider(&node).log();
        log.iter().any(|e| e["event"] == "lease.expire" && e["lease"] == short.lease[..]).then_some(())
    });
    assert!(["E_REVOKED", "E_LEASE_EXPIRED"].contains(&code(&short.read(&stage))));
    for held in [&mut a, &mut b] {
        held.is_whole(&stage);
        held.open_again(&stage).unwrap();
    }
    stage.broker.host.plug();
    until("the broker knows of the end", || {
        let log = stage.broker.log();
        log.iter().any(|e| e["event"] == "lease.expire" && e["lease"] == short.lease[..]).then_some(())
    });
    stage.await_providers("both are heard again", |rows| {
        rows.iter().all(|row| row["state"] == "up" && row["silent_for_ms"].as_u64().unwrap() < 3_000)
    });
    assert_eq!(lives(&stage), before, "the same lives go on");
    for held in [&mut a, &mut b] {
        held.is_whole(&stage);
        let receipt = stage.json(&["lease", "release", &held.lease, "--as", "alice"]);
        assert_eq!(receipt["receipt"]["wiped_bytes"], 1 << 20, "{receipt}");
    }
    stage.finish();
}
