//! What a client does wrong: on record with who did it and what it held, and followed by what the operator chose.
//!
//! Every violator is a process of another user. Each kind is played with each reaction, and a bystander's bytes are
//! what they were at the end.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::node::Node;
use common::script::{Handle, Trespass};
use common::world::Person;
use common::{Actor, Ask, MINUTE, SMALL, Said, USERS, World, is_root, log, refused, until};
use libmem::{Client, Code, LeaseOptions, Leased, Lifetime, Reason, Rights, SigningKey, Target};
use policy::limits;
use serde_json::{Value, json};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// A node that reacts in one way to everything, an owner, and what she leased.
struct Scene {
    world: World,
    reaction: &'static str,
    alice: Person,
    leased: Leased,
}

/// A violator: a process of another user with a session by hand.
struct Violator {
    actor: Actor,
    key: SigningKey,
}

impl Violator {
    #[track_caller]
    fn does(&mut self, trespass: Trespass) -> Said {
        self.actor.ask(&Ask::Trespass(trespass))
    }

    #[track_caller]
    fn opens(&mut self, token: &str, rights: Rights) -> Handle {
        match self.does(Trespass::Open { token: token.to_owned(), rights }) {
            Said::Handle { handle } => handle,
            said => panic!("{said:?}"),
        }
    }
}

impl Scene {
    fn set(reaction: &'static str) -> Option<Self> {
        let kinds: String = ["access", "right", "protocol", "quota"]
            .map(|kind| format!("{kind} = \"{reaction}\"\n"))
            .concat();
        Self::with(reaction, &format!("[faults]\n{kinds}[quota.default]\nleased_bytes = \"16MiB\"\n"))
    }

    fn with(reaction: &'static str, config: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("not run: only root can start a client of another user");
            return None;
        }
        let world = World::with(config);
        let alice = world.person();
        let leased = alice.lease(SMALL);
        Some(Self { world, reaction, alice, leased })
    }

    fn violator(&self) -> Violator {
        let key = self.world.register();
        let mut actor = self.world.actor(&key, USERS[0]);
        let said = actor.ask(&Ask::Trespass(Trespass::Enter));
        assert!(matches!(said, Said::Done), "{said:?}");
        Violator { actor, key }
    }

    /// A violator with a token for reading alice's lease.
    fn receiver(&self) -> (Violator, libmem::Accepted) {
        let violator = self.violator();
        let key = SigningKey::from_seed(&violator.key.seed());
        let to = Person { client: self.world.connect(&key), key };
        let accepted = self.alice.share(&self.leased.lease, &to, Rights::READ);
        (violator, accepted)
    }

    /// Has a violator do something, and sees that it is refused, recorded and followed by the reaction.
    #[track_caller]
    fn judge(&self, mut violator: Violator, does: Trespass, code: &str, expected: Value) -> Value {
        violator.actor.tell(&Ask::Trespass(does));
        let said = violator.actor.hear();
        let pid = violator.actor.pid();
        match self.reaction {
            "kill" | "revoke" => assert_eq!(violator.actor.wait_for_signal(), libc::SIGKILL, "{said:?}"),
            _ => {
                assert!(matches!(&said, Some(Said::Refused { code: found }) if found == code), "{said:?}");
                let next = violator.does(Trespass::Lease { bytes: 4096, times: 1 });
                match (self.reaction, next) {
                    ("fault", Said::Refused { code }) => assert_eq!(code, "E_UNREACHABLE"),
                    ("log", Said::Done) => {}
                    (_, said) => panic!("{said:?}"),
                }
                violator.actor.leave();
            }
        }
        let event = expected["event"].clone();
        let entry = log::await_provider(&self.world.node.audit(), "the fault", |entry| {
            entry["event"] == event && entry["peer_pid"] == pid
        });
        let mut expected = expected;
        for (key, value) in [
            ("outcome", json!("deny")),
            ("code", json!(code)),
            ("reaction", json!(self.reaction)),
            ("peer_uid", json!(USERS[0])),
            ("subject", json!(violator.key.public().to_string())),
        ] {
            expected[key] = value;
        }
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&entry[key], value, "{key} of {entry}");
        }
        // Nothing is said that is not known.
        for key in
            ["lease", "grant", "rights", "range", "asked", "offset", "bytes", "epoch", "cause", "count"]
        {
            assert_eq!(entry.get(key), expected.get(key), "{key} of {entry}");
        }
        assert_eq!(entry["exe_sha"].as_str().map(str::len), Some(64), "{entry}");
        if matches!(self.reaction, "kill" | "revoke") {
            let exit = log::await_provider(&self.world.node.audit(), "how it died", |entry| {
                entry["event"] == "holder.exit" && entry["peer_pid"] == pid && entry["reaction"] == "kill"
            });
            assert_eq!(exit["signal"], libc::SIGKILL);
        }
        entry
    }

    fn end(self) -> log::Log {
        self.alice.client.release(self.leased.lease.id).unwrap();
        drop(self.alice);
        self.world.balances();
        self.world.finish()
    }
}

fn all_kinds(reaction: &'static str) {
    let Some(scene) = Scene::set(reaction) else { return };
    let lease = scene.leased.lease.id.to_string();
    let whole = json!(["0", SMALL.to_string()]);

    // Use after revoke: the right is known, and how long it has been over.
    let (mut violator, accepted) = scene.receiver();
    let handle = violator.opens(&accepted.token.to_text(), Rights::READ);
    scene.alice.client.revoke(Target::Grant(accepted.grant.id), Reason::new("").unwrap()).unwrap();
    let fault = scene.judge(
        violator,
        Trespass::Read { handle, offset: 7 },
        "E_REVOKED",
        json!({
            "event": "fault.access", "cause": "after_end", "method": "mediated", "lease": lease,
            "grant": accepted.grant.id.to_string(), "rights": "r", "range": whole, "asked": "r", "offset": "7",
            "bytes": "1", "epoch": handle.1.to_string(),
        }),
    );
    let after: u64 = fault["after_us"].as_str().unwrap().parse().unwrap();
    assert!(after < MINUTE.as_micros() as u64, "{fault}");

    // A write by a right to read.
    let (mut violator, accepted) = scene.receiver();
    let handle = violator.opens(&accepted.token.to_text(), Rights::READ);
    scene.judge(
        violator,
        Trespass::Write { handle, offset: 9 },
        "E_DENIED",
        json!({
            "event": "fault.right", "cause": "right", "method": "mediated", "lease": lease,
            "grant": accepted.grant.id.to_string(), "rights": "r", "range": whole, "asked": "w", "offset": "9",
            "bytes": "1", "epoch": handle.1.to_string(),
        }),
    );

    // Past the end of the region.
    let (mut violator, accepted) = scene.receiver();
    let handle = violator.opens(&accepted.token.to_text(), Rights::READ);
    scene.judge(
        violator,
        Trespass::Read { handle, offset: u64::MAX },
        "E_RANGE",
        json!({
            "event": "fault.access", "cause": "outside", "method": "mediated", "lease": lease,
            "grant": accepted.grant.id.to_string(), "rights": "r", "range": whole, "asked": "r",
            "offset": u64::MAX.to_string(), "bytes": "1", "epoch": handle.1.to_string(),
        }),
    );

    // A handle that nobody was ever given, one of another session, and the closing of it: told apart in the log only.
    let forged = scene.violator();
    scene.judge(
        forged,
        Trespass::Read { handle: (3, 4_000_000), offset: 0 },
        "E_REVOKED",
        json!({
            "event": "fault.access", "cause": "forged", "method": "mediated", "asked": "r", "offset": "0",
            "bytes": "1", "epoch": "4000000",
        }),
    );
    let (mut victim, accepted) = scene.receiver();
    let handle = victim.opens(&accepted.token.to_text(), Rights::READ);
    let foreign = json!({
        "event": "fault.access", "cause": "foreign", "method": "mediated", "asked": "r", "offset": "0",
        "bytes": "1", "epoch": handle.1.to_string(),
    });
    scene.judge(scene.violator(), Trespass::Read { handle, offset: 0 }, "E_REVOKED", foreign);
    scene.judge(
        scene.violator(),
        Trespass::Close { handle },
        "E_REVOKED",
        json!({
            "event": "fault.access", "cause": "foreign", "method": "handle", "epoch": handle.1.to_string(),
        }),
    );
    let said = victim.does(Trespass::Read { handle, offset: 0 });
    assert!(matches!(said, Said::Done), "the victim's right is untouched: {said:?}");
    victim.actor.leave();

    // Too many refusals by quota.
    let times = limits::QUOTA_REFUSALS_MAX + 1;
    scene.judge(
        scene.violator(),
        Trespass::Lease { bytes: 32 << 20, times },
        "E_QUOTA",
        json!({ "event": "fault.quota", "count": times.to_string() }),
    );

    // No message at all ends the session whatever the policy: the frame after it could not be trusted.
    if reaction != "log" {
        scene.judge(
            scene.violator(),
            Trespass::Junk,
            "E_FRAME_TRUNCATED",
            json!({ "event": "fault.protocol" }),
        );
    }
    scene.end();
}

#[test]
fn logged_faults_are_refused_and_recorded_and_the_session_goes_on() {
    all_kinds("log");
}

#[test]
fn a_fault_ends_the_session() {
    all_kinds("fault");
}

#[test]
fn a_fault_kills_the_process() {
    all_kinds("kill");
}

#[test]
fn patience_with_one_session_ends_but_not_with_the_use_of_what_was_revoked() {
    let Some(scene) = Scene::set("log") else { return };
    let (mut violator, accepted) = scene.receiver();
    let handle = violator.opens(&accepted.token.to_text(), Rights::READ);
    scene.alice.client.revoke(Target::Grant(accepted.grant.id), Reason::new("").unwrap()).unwrap();
    for _ in 0..2 * limits::FAULTS_PER_SESSION_MAX {
        let said = violator.does(Trespass::Read { handle, offset: 0 });
        assert!(matches!(&said, Said::Refused { code } if code == "E_REVOKED"), "{said:?}");
    }
    for _ in 0..=limits::FAULTS_PER_SESSION_MAX {
        let said = violator.does(Trespass::Read { handle: (0, 0), offset: 0 });
        assert!(matches!(&said, Said::Refused { code } if code == "E_REVOKED"), "{said:?}");
    }
    let said = violator.does(Trespass::Read { handle: (0, 0), offset: 0 });
    assert!(matches!(&said, Said::Refused { code } if code == "E_UNREACHABLE"), "{said:?}");
    violator.actor.leave();
    scene.end();
}

#[test]
fn a_quota_breach_can_cost_everything_that_the_principal_holds() {
    let Some(scene) =
        Scene::with("revoke", "[faults]\nquota = \"revoke\"\n[quota.default]\nleased_bytes = \"16MiB\"\n")
    else {
        return;
    };
    let violator = scene.violator();
    let own = Client::connect(&scene.world.node.endpoint(), &violator.key).unwrap();
    let held = own.lease(LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached)).unwrap();
    let times = limits::QUOTA_REFUSALS_MAX + 1;
    let expected = json!({ "event": "fault.quota", "count": times.to_string() });
    scene.judge(violator, Trespass::Lease { bytes: 32 << 20, times }, "E_QUOTA", expected);
    until("what it held is taken back", || own.open_mediated(&held.token, Rights::READ).err());
    refused(own.open_mediated(&held.token, Rights::READ), Code::TokenRevoked);
    // What is not its own is untouched.
    scene.alice.client.open_mediated(&scene.leased.token, Rights::READ).unwrap();
    drop(own);
    let log = scene.end();
    let revoked = log::about(&log.broker, "lease.revoke", held.lease.id);
    assert_eq!(revoked[0]["reason"], "the operator's reaction to a fault", "{revoked:?}");
}

#[test]
fn a_region_in_quarantine_is_reached_by_nobody_and_keeps_its_bytes() {
    let config = "[faults]\nquarantine = [\"right\"]\n";
    let Some(scene) = Scene::with("log", config) else { return };
    let region = scene.alice.client.open_mapped(&scene.leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(0, b"evidence").unwrap();
    let before = scene.alice.client.status().unwrap().committed_bytes;
    let (mut violator, accepted) = scene.receiver();
    let handle = violator.opens(&accepted.token.to_text(), Rights::READ);
    let said = violator.does(Trespass::Write { handle, offset: 0 });
    assert!(matches!(&said, Said::Refused { code } if code == "E_DENIED"), "{said:?}");
    let audit = scene.world.node.audit();
    let kept = log::await_provider(&audit, "the quarantine", |entry| entry["event"] == "region.quarantine");
    let lease = scene.leased.lease.id.to_string();
    for (key, value) in [
        ("outcome", "ok"),
        ("cause", "right"),
        ("lease", &lease[..]),
        ("wiped_bytes", "0"),
        ("bytes", "65536"),
    ] {
        assert_eq!(kept[key], value, "{key} of {kept}");
    }
    refused(region.read_at(0, &mut [0; 8]), Code::Revoked);
    refused(scene.alice.client.open_mediated(&scene.leased.token, Rights::READ), Code::TokenRevoked);
    // Revoking it again is answered, and the ledger still has its bytes.
    let again =
        scene.world.admin.revoke(Target::Lease(scene.leased.lease.id), Reason::new("").unwrap()).unwrap();
    assert_eq!(again.body.wiped_bytes, 0);
    assert_eq!(scene.alice.client.status().unwrap().committed_bytes, before);
    violator.actor.leave();
    drop((region, scene.alice));
    let mut node = scene.world.node;
    node.stop();
    let log = log::verify(&node.audit());
    let ends = log::about(&log.provider, "lease.revoke", lease);
    let wiped: Vec<_> = ends.iter().map(|entry| (&entry["cause"], &entry["wiped_bytes"])).collect();
    assert_eq!(wiped, [(&json!("revoked"), &json!("0")), (&json!("quarantine_over"), &json!("65536"))]);
}

/// A client of the node's own user in the tier `open` holds the lock that the cut needs.
#[test]
fn who_holds_up_a_cut_for_too_long_is_killed() {
    let device = std::fs::File::open("/dev/userfaultfd");
    let (true, Ok(device)) = (is_root(), device) else {
        eprintln!("not run: only root can start a node of another user, and hand on /dev/userfaultfd");
        return;
    };
    let world = World::of(Node::start_as(USERS[3], ""));
    assert!(!world.node.is_sealed(), "a node without privileges seals nothing");
    let key = world.register();
    let mut blocker = world.actor(&key, USERS[3]);
    let (lease, token) = blocker.lease(SMALL, 60_000, true);
    let said = blocker.ask(&Ask::OpenBare { token, rights: Rights::READ_WRITE });
    assert!(matches!(said, Said::Done), "{said:?}");
    let said = blocker.ask(&Ask::HoldLock);
    assert!(matches!(said, Said::Ready), "{said:?}");
    blocker.give(std::os::fd::AsFd::as_fd(&device));
    assert!(matches!(blocker.hear(), Some(Said::Started)));
    let other = world.person();
    let beside = other.lease(SMALL);
    let pid = blocker.pid();
    let (receipt, took) = std::thread::scope(|scope| {
        let revoke = scope.spawn(|| {
            let started = Instant::now();
            let receipt = world.admin.revoke(Target::Lease(lease.id), Reason::new("").unwrap()).unwrap();
            (receipt, started.elapsed())
        });
        // Nobody else's cut waits for it.
        let released = other.client.release(beside.lease.id).unwrap();
        assert!(released.body.dead.0 < limits::KILL_MS_MAX * 1_000, "{:?}", released.body);
        assert_eq!(blocker.wait_for_signal(), libc::SIGKILL);
        revoke.join().unwrap()
    });
    let bound = Duration::from_millis(limits::KILL_MS_MAX);
    assert!(took >= bound && receipt.body.dead.0 >= bound.as_micros() as u64, "{took:?} {:?}", receipt.body);
    assert!(took < 3 * bound, "{took:?}");
    let fault = log::await_provider(&world.node.audit(), "why it was killed", |entry| {
        entry["event"] == "fault.access" && entry["peer_pid"] == pid
    });
    let id = lease.id.to_string();
    for (key, value) in
        [("cause", "blocks_take_back"), ("reaction", "kill"), ("lease", &id[..]), ("code", "E_TIMEOUT")]
    {
        assert_eq!(fault[key], value, "{key} of {fault}");
    }
    assert_eq!(fault["signal"], libc::SIGKILL);
    drop(other);
    world.finish();
}
