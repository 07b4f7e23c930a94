//! The baselines, without a node: what a figure is compared with has to do what it says.

use std::sync::Arc;

use caps::error::Code;
use transport::Credentials;

use super::echo::{self, Echo};
use super::papers::Papers;
use super::redis::{self, Redis};
use super::relay::Relay;
use super::side::{GATHER_ITEM_BYTES, GATHER_ITEMS, Side, What};

const LENGTHS: [usize; 4] = [1, 64, 4 << 10, 1 << 20];

fn papers() -> (tempfile::TempDir, Papers, Arc<Credentials>) {
    let directory = tempfile::tempdir().unwrap();
    let papers = Papers::begin(directory.path()).unwrap();
    let credentials = papers.client("somebody").unwrap().load().unwrap();
    (directory, papers, credentials)
}

fn everything(side: &mut dyn Side) {
    for bytes in LENGTHS {
        side.write(bytes).unwrap();
        side.read(bytes).unwrap();
    }
    side.gather().unwrap();
}

#[test]
fn the_bare_server_answers_with_as_many_bytes_as_leasehold_sends() {
    let (_directory, papers, credentials) = papers();
    let address = echo::serve(&papers.node().load().unwrap()).unwrap();
    let relay = Relay::to(address).unwrap();
    let mut side = Echo::connect(relay.address, &credentials).unwrap();
    everything(&mut side);
    let mut counted = |what: What| {
        let before = relay.passed();
        what.of(&mut side).unwrap();
        relay.passed() - before
    };
    // A record has 5 bytes before it and 17 behind it; a request 32 and 24, an answer 32 for each frame.
    assert_eq!(counted(What::Read(64)), (22 + 56) + (22 + 32 + 64));
    assert_eq!(counted(What::Write(64)), (22 + 56 + 64) + (22 + 40));
    let gathered = counted(What::Gather) as usize;
    assert!(
        (GATHER_ITEMS * GATHER_ITEM_BYTES..GATHER_ITEMS * GATHER_ITEM_BYTES * 101 / 100).contains(&gathered)
    );
}

#[test]
fn nobody_is_answered_without_a_certificate_of_the_same_authority() {
    let (_directory, papers, _) = papers();
    let (_elsewhere, _, stranger) = self::papers();
    let address = echo::serve(&papers.node().load().unwrap()).unwrap();
    let refused = Echo::connect(address, &stranger).and_then(|mut side| side.read(1)).unwrap_err();
    assert!(matches!(refused.code(), Code::System | Code::Unreachable), "{refused:?}");
}

#[test]
fn redis_keeps_what_it_is_given_where_it_is_installed() {
    let (directory, papers, credentials) = papers();
    let Some(server) = redis::Server::start(directory.path(), &papers.node()).unwrap() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let mut side = Redis::connect(server.address, &credentials).unwrap();
    side.fill(&LENGTHS).unwrap();
    everything(&mut side);
    assert_eq!(side.read(5).unwrap_err().code(), Code::Protocol, "nothing of that length was put there");
    let (_elsewhere, _, stranger) = self::papers();
    assert!(Redis::connect(server.address, &stranger).and_then(|mut side| side.read(1)).is_err());
}
