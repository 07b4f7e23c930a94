//! Quarantine: an administrator keeps what a holder left, an investigator reads it, and nobody else has any of it; and
//! what could not be wiped is kept until it can.
//!
//! A wipe fails here for a real cause: the node wipes by reading zeros from /dev/zero into the pinned pages, and it sees
//! a file in that place, which the test empties.

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;

use common::shell::Shell;
use common::{MINUTE, Node, SMALL, USERS, World, is_root, log, pattern, refused};
use libmem::{
    Code, LeaseId, LeaseOptions, Lifetime, QuarantineCause, QuarantineId, QuarantineRow, Reason, Rights,
    Target,
};
use serde_json::json;

/// Bytes of three reads, the last a short one, and of whole pages.
const SOME: u64 = (128 << 10) + 4096;
/// Bytes that a node wipes by one request, at most.
const WIPED_AT_ONCE: u64 = 2 << 20;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

fn reason() -> Reason {
    Reason::new("case 7").unwrap()
}

/// The one thing in quarantine.
#[track_caller]
fn only(world: &World) -> QuarantineRow {
    let rows = world.admin.quarantine().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0]
}

fn committed(world: &World) -> u64 {
    world.admin.status().unwrap().committed_bytes
}

#[test]
fn what_a_holder_left_is_kept_for_the_investigator_and_for_nobody_else() {
    let world = World::new();
    let key = world.register();
    let mut holder = world.actor(&key, USERS[0]);
    let (lease, token) = holder.lease(SOME, 60_000, true);
    // The last bytes that the holder writes before its memory goes are the evidence.
    let evidence = pattern(5, SOME as usize);
    let own = world.connect(&key);
    let token = libmem::Token::parse_text(&token).unwrap();
    let through_the_node = own.open_mediated(&token, Rights::READ_WRITE).unwrap();
    through_the_node.write_at(0, &evidence).unwrap();
    let memory = holder.open(&token.to_text(), Rights::READ, true);
    holder.start_using(memory, false, true);
    let before = committed(&world);

    let receipt = world.admin.quarantine_add(lease.id, reason()).unwrap();
    assert_eq!(holder.wait_for_signal(), libc::SIGBUS, "dead as by any revoke");
    receipt.verify(world.node.issuer()).unwrap();
    assert_eq!(receipt.body.target, Target::Lease(lease.id));
    assert_eq!((receipt.body.wiped_bytes, receipt.body.quarantined_bytes), (0, SOME));
    assert!(receipt.body.mappings_closed > 0 && receipt.body.log_index.is_some());
    let mut bytes = [0; 8];
    refused(through_the_node.read_at(0, &mut bytes), Code::Revoked);
    refused(own.open_mediated(&token, Rights::READ), Code::TokenRevoked);
    assert_eq!(committed(&world), before, "nobody else can have its bytes");
    let row = only(&world);
    assert_eq!((row.lease, row.owner), (lease.id, key.public()));
    assert_eq!((row.range.start(), row.range.end()), (0, SOME));
    assert_eq!(row.cause, QuarantineCause::ByHand);
    // Once more is the same, and takes nothing twice.
    let again = world.admin.quarantine_add(lease.id, reason()).unwrap();
    assert_eq!(again, receipt);
    assert_eq!(only(&world), row);

    // The owner of the lease is as much of a stranger to it as anybody.
    let mallory = world.person();
    let hers = mallory.lease(SMALL);
    for client in [&own, &mallory.client] {
        for lease in [lease.id, hers.lease.id, LeaseId([9; 16])] {
            refused(client.quarantine_add(lease, reason()), Code::Denied);
        }
        refused(client.quarantine(), Code::Denied);
        for id in [row.id, QuarantineId(77)] {
            refused(client.quarantine_read(id, 0, &mut bytes), Code::Denied);
            refused(client.quarantine_release(id), Code::Denied);
        }
    }
    drop(mallory.client.open_mediated(&hers.token, Rights::READ).unwrap()); // she could not lose hers by it
    mallory.client.release(hers.lease.id).unwrap();

    let mut read = vec![0; SOME as usize];
    world.admin.quarantine_read(row.id, 0, &mut read).unwrap();
    assert!(read == evidence, "the last bytes that were written");
    // Across pages, and not on their borders.
    let mut part = vec![0; 5_000];
    world.admin.quarantine_read(row.id, SOME - 5_000, &mut part).unwrap();
    assert_eq!(part, evidence[SOME as usize - 5_000..]);
    for (offset, id, code) in [
        (SOME - 7, row.id, Code::Range),
        (SOME, row.id, Code::Range),
        (u64::MAX - 8, row.id, Code::Range),
        (u64::MAX, row.id, Code::Range),
        (0, QuarantineId(77), Code::LeaseUnknown),
        (0, QuarantineId(0), Code::LeaseUnknown),
    ] {
        refused(world.admin.quarantine_read(id, offset, &mut bytes), code);
    }

    assert_eq!(world.admin.quarantine_release(row.id).unwrap(), SOME);
    assert_eq!(world.admin.quarantine().unwrap(), []);
    refused(world.admin.quarantine_release(row.id), Code::LeaseUnknown);
    refused(world.admin.quarantine_read(row.id, 0, &mut bytes), Code::LeaseUnknown);
    refused(world.admin.quarantine_add(lease.id, reason()), Code::LeaseUnknown);
    drop((through_the_node, own, holder, mallory));
    world.balances();
    let (admin, stranger) = (world.admin.holder().to_string(), key.public().to_string());
    let log = world.finish();
    let revoked = log::about(&log.broker, "lease.revoke", lease.id);
    assert_eq!((&revoked[0]["subject"], &revoked[0]["reason"]), (&json!(admin), &json!("case 7")));
    let entries = log::about(&log.provider, "region.quarantine", lease.id);
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            assert_eq!((&entry["outcome"], &entry["subject"]), (&json!("ok"), &json!(admin)), "{entry}");
            (entry["cause"].as_str().unwrap(), entry["bytes"].as_str().unwrap())
        })
        .collect();
    let reads = [("read", "65536"), ("read", "65536"), ("read", "4096"), ("read", "5000")];
    let kept = ("by_hand", "135168");
    assert_eq!(told, [&[kept][..], &reads, &[("release", "135168")]].concat());
    let ends = log::about(&log.provider, "lease.revoke", lease.id);
    let wiped: Vec<_> = ends.iter().map(|entry| (&entry["cause"], &entry["wiped_bytes"])).collect();
    assert_eq!(wiped, [(&json!("revoked"), &json!("0")), (&json!("quarantine_over"), &json!("135168"))]);
    let denied = log::of(&log.provider, "lease.deny");
    let denied = denied.iter().filter(|entry| entry["code"] == "E_DENIED" && entry["subject"] == stranger);
    assert!(denied.count() > 0, "who tried is on record");
}

#[test]
fn an_order_without_room_takes_nothing() {
    let world = World::new();
    let alice = world.person();
    // A quarter of the pool is all that may be kept.
    let large = alice.lease(common::node::POOL / 4 + 4096);
    refused(world.admin.quarantine_add(large.lease.id, reason()), Code::NoMemory);
    drop(alice.client.open_mediated(&large.token, Rights::READ).unwrap());
    // Nor does the order stand: its own end is one like any other.
    let receipt = alice.client.release(large.lease.id).unwrap();
    assert_eq!((receipt.body.wiped_bytes, receipt.body.quarantined_bytes), (large.lease.range.len(), 0));
    assert_eq!(world.admin.quarantine().unwrap(), []);
    drop(alice);
    world.balances();
    world.finish();
}

#[test]
fn by_commands() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    shell.json(&["id", "new", "alice"]);
    let create = ["lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "10m", "--name", "frames"];
    let made = shell.json(&create);
    let lease = made["lease"]["id"].as_str().unwrap();
    assert!(shell.pipe(&["put", "frames", "--as", "alice"], b"the last words").status.success());
    let nothing = shell.json(&["quarantine", "list", "--as", "admin"]);
    assert_eq!(nothing, json!({ "quarantine": [] }));

    shell.fails(&["quarantine", "add", lease, "--as", "alice"], 3, "E_DENIED");
    shell.fails(&["quarantine", "list", "--as", "alice"], 3, "E_DENIED");
    shell.fails(&["quarantine", "add", &"9".repeat(32), "--as", "admin"], 1, "E_LEASE_UNKNOWN");
    let receipt = shell.json(&["quarantine", "add", lease, "--as", "admin", "--reason", "case-7"]);
    let body = &receipt["receipt"];
    assert_eq!((&body["wiped_bytes"], &body["quarantined_bytes"]), (&json!(0), &json!(65_536)));
    std::fs::write(node.path().join("receipt"), receipt.to_string()).unwrap();
    shell.bytes(&["audit", "receipt", "receipt", "--issuer", "audit/issuer"]);
    let mut lying = receipt.clone();
    lying["receipt"]["quarantined_bytes"] = 0.into();
    std::fs::write(node.path().join("lie"), lying.to_string()).unwrap();
    shell.fails(&["audit", "receipt", "lie", "--issuer", "audit/issuer"], 5, "E_CONTRACT_SIG");

    let list = shell.json(&["quarantine", "list", "--as", "admin"]);
    let row = &list["quarantine"][0];
    assert_eq!((&row["id"], &row["lease"], &row["cause"]), (&json!(1), &json!(lease), &json!("by_hand")));
    assert_eq!((&row["bytes"], &row["readable_bytes"]), (&json!(65_536), &json!(65_536)));
    assert_eq!((&row["owner"], &row["range"]), (&made["lease"]["owner"], &json!([0, 65_536])));
    assert!(row["since_us"].as_u64().is_some_and(|at| at > 0));
    let table = String::from_utf8(shell.bytes(&["quarantine", "list", "--as", "admin"])).unwrap();
    assert!(table.contains("by_hand") && table.contains("64KiB"), "{table}");

    shell.fails(&["quarantine", "read", "1", "--as", "alice", "-o", "got"], 3, "E_DENIED");
    shell.fails(&["quarantine", "release", "1", "--as", "alice"], 3, "E_DENIED");
    shell.fails(&["quarantine", "read", "7", "--as", "admin", "-o", "got"], 1, "E_LEASE_UNKNOWN");
    let outside =
        ["quarantine", "read", "1", "--as", "admin", "--offset", "64KiB", "--len", "1", "-o", "got"];
    shell.fails(&outside, 1, "E_RANGE");
    let read = ["quarantine", "read", "1", "--as", "admin", "--offset", "4", "--len", "10"];
    assert_eq!(shell.bytes(&read), b"last words");
    let told = shell.json(&["quarantine", "read", "1", "--as", "admin", "-o", "evidence"]);
    assert_eq!(told["quarantine"]["bytes"], 65_536);
    let file = node.path().join("evidence");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let evidence = std::fs::read(&file).unwrap();
    assert!(evidence.starts_with(b"the last words") && evidence.len() == 65_536);

    let released = shell.json(&["quarantine", "release", "1", "--as", "admin"]);
    assert_eq!(released, json!({ "quarantine": { "id": 1, "lease": lease, "wiped_bytes": 65_536 } }));
    shell.fails(&["quarantine", "release", "1", "--as", "admin"], 1, "E_LEASE_UNKNOWN");
    assert_eq!(shell.json(&["status", "--as", "admin"])["status"]["committed_bytes"], 0);
    node.stop();
    log::verify(&node.audit());
}

/// A node whose wipes fail for as long as `zero` is empty.
struct Unwiping {
    world: World,
    zero: File,
    _file: tempfile::NamedTempFile,
}

impl Unwiping {
    fn begin() -> Option<Self> {
        if !is_root() {
            eprintln!("not run: only root can give a node another /dev/zero");
            return None;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let zero = file.reopen().unwrap();
        zero.set_len(WIPED_AT_ONCE).unwrap();
        let world = World::of(Node::start_wiping_from(file.path()));
        assert!(world.node.is_sealed(), "a wipe is only promised where all is pinned");
        Some(Self { world, zero, _file: file })
    }

    fn fail_wipes(&self) {
        self.zero.set_len(0).unwrap();
    }

    fn mend(&self) {
        self.zero.set_len(WIPED_AT_ONCE).unwrap();
    }
}

#[test]
fn a_region_that_cannot_be_wiped_is_kept_until_it_can() {
    let Some(node) = Unwiping::begin() else { return };
    let world = &node.world;
    let alice = world.person();
    let leased = alice.lease(SMALL);
    let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(100, b"not to be seen").unwrap();
    let before = committed(world);
    node.fail_wipes();
    let receipt = alice.client.revoke(Target::Lease(leased.lease.id), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    assert_eq!((receipt.body.wiped_bytes, receipt.body.quarantined_bytes), (0, SMALL), "no wipe is claimed");
    refused(region.read_at(0, &mut [0; 8]), Code::Revoked);
    assert_eq!(committed(world), before);
    let row = only(world);
    assert_eq!((row.lease, row.range.len(), row.cause), (leased.lease.id, SMALL, QuarantineCause::Unwiped));
    let mut bytes = [0; 14];
    world.admin.quarantine_read(row.id, 100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"not to be seen");
    // It is not given back as long as it cannot be wiped.
    refused(world.admin.quarantine_release(row.id), Code::System);
    assert_eq!((only(world), committed(world)), (row, before));
    node.mend();
    assert_eq!(world.admin.quarantine_release(row.id).unwrap(), SMALL);
    drop((region, alice));
    world.balances();
    let log = node.world.finish();
    let told: Vec<_> = log::about(&log.provider, "region.quarantine", leased.lease.id)
        .iter()
        .map(|entry| [&entry["outcome"], &entry["cause"]].map(|value| value.as_str().unwrap()))
        .collect();
    let release = ["ok", "release"];
    assert_eq!(
        told,
        [["ok", "unwiped"], ["ok", "read"], release, ["error", "unwiped"], release],
        "the read, both releases, and why the first one failed"
    );
}

#[test]
fn a_rotated_segment_that_cannot_be_wiped_is_kept_until_it_can() {
    let Some(node) = Unwiping::begin() else { return };
    let world = &node.world;
    let (alice, bob) = (world.person(), world.person());
    let options = LeaseOptions::new(2 * SMALL, MINUTE).lifetime(Lifetime::Detached).segment(SMALL);
    let leased = alice.client.lease(options).unwrap();
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let offer = libmem::ShareOptions::new(bob.key.public(), Rights::READ_WRITE)
        .range(libmem::ByteRange::new(SMALL, 2 * SMALL).unwrap());
    let grant = alice.client.share_offer(&leased.lease, &offer, &alice.key).unwrap();
    let contract = bob.client.share_show(grant.id).unwrap().contract;
    let accepted = bob.client.share_accept(&contract, Lifetime::Detached, &bob.key).unwrap();
    let his = bob.client.open_mapped(&accepted.token, Rights::READ_WRITE).unwrap();
    his.write_at(SMALL, b"by bob").unwrap();
    let before = committed(world);

    node.fail_wipes();
    let receipt = alice.client.revoke(Target::Grant(grant.id), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    let body = &receipt.body;
    assert_eq!(body.method, caps::wire::link::Method::Rotate);
    assert_eq!((body.wiped_bytes, body.quarantined_bytes), (0, SMALL), "no wipe is claimed");
    refused(his.read_at(SMALL, &mut [0; 8]), Code::Revoked);
    // The survivor goes on in fresh memory, and what is in quarantine is not hers to change.
    let mut bytes = [0; 6];
    mine.read_at(SMALL, &mut bytes).unwrap();
    assert_eq!(&bytes, b"by bob");
    mine.write_at(SMALL, b"alice!").unwrap();
    assert_eq!(committed(world), before + SMALL, "the old file's bytes are counted beside the fresh one's");
    let row = only(world);
    assert_eq!((row.lease, row.owner), (leased.lease.id, alice.key.public()));
    assert_eq!((row.range.start(), row.range.len(), row.cause), (SMALL, SMALL, QuarantineCause::Unwiped));
    world.admin.quarantine_read(row.id, SMALL, &mut bytes).unwrap();
    assert_eq!(&bytes, b"by bob", "as it was at the cut");
    refused(world.admin.quarantine_read(row.id, 0, &mut bytes), Code::Range);

    // Its region may end, and it stays; and it stays as long as it cannot be wiped.
    refused(world.admin.quarantine_release(row.id), Code::System);
    node.mend();
    let receipt = alice.client.release(leased.lease.id).unwrap();
    assert_eq!((receipt.body.wiped_bytes, receipt.body.quarantined_bytes), (2 * SMALL, 0));
    assert_eq!((only(world), committed(world)), (row, before + SMALL - 2 * SMALL));
    assert_eq!(world.admin.quarantine_release(row.id).unwrap(), SMALL);
    assert_eq!(world.admin.quarantine().unwrap(), []);
    drop((mine, his, alice, bob));
    world.balances();
    node.world.finish();
}
