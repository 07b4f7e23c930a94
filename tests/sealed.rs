//! Encrypted leases: who has the key reads, and nobody else, the node least of all.

#[path = "common/mod.rs"]
mod common;

use std::os::unix::fs::PermissionsExt;

use common::shell::Shell;
use common::{SMALL, World, refused};
use libmem::sealed::{Bytes, DataKey, Envelope, PAYLOAD_BYTES, Sealed};
use libmem::{Code, Rights, SigningKey};

/// What nobody else may see.
const SECRET: &[u8] = b"The key is under the third flower pot. ";
/// How often it is written: over several blocks.
const TIMES: usize = 400;

/// Whether any 8 bytes of the secret are there.
fn shows(bytes: &[u8]) -> bool {
    let parts: std::collections::HashSet<_> = SECRET.windows(8).collect();
    bytes.windows(8).any(|window| parts.contains(window))
}

#[test]
fn what_shows_is_found() {
    assert!(shows(&[&[0; 100], &SECRET[3..12], &[0; 100]].concat()));
    assert!(!shows(&[0; 1000]));
}

/// A node with three people who have a shell, and a lease of the first one's that is encrypted and has the secret in it.
struct Scene {
    world: World,
    shell: Shell,
    lease: String,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let shell = Shell::new(world.node.path());
        for name in ["alice", "bob", "carol"] {
            shell.bytes(&["id", "new", name]);
        }
        shell.bytes(&["id", "list", "--as", "alice"]);
        let made = shell.json(&[
            "lease",
            "create",
            "--as",
            "alice",
            "--size",
            "64KiB",
            "--ttl",
            "5m",
            "--hops",
            "1",
            "--name",
            "frames",
            "--encrypt",
        ]);
        let file = made["key_file"].as_str().unwrap();
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
        let put = shell.pipe(&["put", "frames", "--as", "alice", "--offset", "100"], &SECRET.repeat(TIMES));
        assert!(put.status.success(), "{put:?}");
        let said = String::from_utf8(put.stderr).unwrap();
        let fingerprint = made["key_fingerprint"].as_str().unwrap();
        assert!(said.contains("encrypted with the key") && said.contains(fingerprint), "{said}");
        let lease = made["lease"]["id"].as_str().unwrap().to_owned();
        Self { world, shell, lease }
    }

    /// What `who` reads of the lease, from its name or from a token's file.
    #[track_caller]
    fn get(&self, what: &str, who: &str) -> Vec<u8> {
        self.shell.bytes(&["get", what, "--as", who])
    }

    /// Gives the memory to bob by a grant.
    fn share_with_bob(&self) {
        self.shell.bytes(&["share", "offer", "frames", "--as", "alice", "--to", "bob", "--rights", "rw"]);
        self.shell.bytes(&["share", "accept", "--as", "bob"]);
    }

    /// Gives the memory to carol by a delegated token.
    fn delegate_to_carol(&self) {
        self.shell.bytes(&[
            "token",
            "delegate",
            "frames",
            "--as",
            "alice",
            "--to",
            "carol",
            "-o",
            "carol.token",
        ]);
    }

    fn finish(self) {
        let Self { world, shell, .. } = self;
        drop(shell);
        world.balances();
        world.finish();
    }
}

/// The lease as who has the key reads it.
fn plain() -> Vec<u8> {
    let mut bytes = vec![0; 16 * PAYLOAD_BYTES as usize];
    bytes[100..100 + SECRET.len() * TIMES].copy_from_slice(&SECRET.repeat(TIMES));
    bytes
}

#[test]
fn who_is_given_the_key_reads_and_who_has_the_memory_alone_does_not() {
    let scene = Scene::new();
    let shell = &scene.shell;
    assert!(scene.get("frames", "alice") == plain());
    scene.share_with_bob();
    scene.delegate_to_carol();

    // A right is not a key.
    for (what, who) in [(&scene.lease[..], "bob"), ("carol.token", "carol")] {
        let bytes = scene.get(what, who);
        assert_eq!(bytes.len(), SMALL as usize);
        assert!(!shows(&bytes), "{who}");
        assert!(
            bytes.chunks(64).all(|chunk| chunk.iter().any(|&byte| byte != 0)),
            "not even which parts are empty"
        );
    }

    let sent =
        shell.json(&["lease", "key", "export", "frames", "--as", "alice", "--to", "bob", "-o", "bob.key"]);
    assert_eq!(sent["lease_key"]["lease"], scene.lease[..]);
    // It is for bob, whoever else it falls to, and from alice, whoever says otherwise.
    shell.fails(&["lease", "key", "import", "bob.key", "--as", "carol"], 3, "E_DENIED");
    shell.fails(&["lease", "key", "import", "bob.key", "--as", "bob", "--from", "carol"], 3, "E_DENIED");
    let got = shell.json(&["lease", "key", "import", "bob.key", "--as", "bob", "--from", "alice"]);
    assert_eq!(got["lease_key"]["fingerprint"], sent["lease_key"]["fingerprint"]);
    assert!(scene.get(&scene.lease, "bob") == plain());
    let again = shell.json(&["lease", "key", "import", "bob.key", "--as", "bob"]);
    assert_eq!((&got["lease_key"]["new"], &again["lease_key"]["new"]), (&true.into(), &false.into()));

    // Both write, and carol still reads nothing.
    let put = shell.pipe(&["put", &scene.lease, "--as", "bob", "--offset", "4060"], SECRET);
    assert!(put.status.success(), "{put:?}");
    let read = shell.bytes(&["get", "frames", "--as", "alice", "--offset", "4060", "--len", "39"]);
    assert_eq!(read, SECRET);
    assert!(!shows(&scene.get("carol.token", "carol")));
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    scene.finish();
}

#[test]
fn a_stranger_cannot_slip_a_key_under_a_receiver() {
    let scene = Scene::new();
    let (shell, dir) = (&scene.shell, scene.world.node.path().to_owned());
    let lease = libmem::LeaseId::parse(&scene.lease).unwrap();
    let bob = shell.json(&["id", "show", "bob"]);
    let bob = libmem::PrincipalKey::parse(bob["identity"]["key"].as_str().unwrap()).unwrap();
    let mallory = SigningKey::generate();
    let forged = Envelope::seal(&DataKey::generate(lease), &mallory, bob).unwrap();
    std::fs::write(dir.join("forged.key"), forged.to_text()).unwrap();
    shell.fails(&["lease", "key", "import", "forged.key", "--as", "bob"], 3, "E_DENIED");
    shell.fails(&["lease", "key", "import", "forged.key", "--as", "bob", "--from", "alice"], 3, "E_DENIED");

    shell.bytes(&["lease", "key", "export", "frames", "--as", "alice", "--to", "bob", "-o", "bob.key"]);
    let good = std::fs::read_to_string(dir.join("bob.key")).unwrap();
    let mut lines: Vec<_> = good.lines().collect();
    let turned: String = lines[3].chars().rev().collect();
    lines[3] = &turned;
    std::fs::write(dir.join("changed.key"), lines.join("\n") + "\n").unwrap();
    shell.fails(&["lease", "key", "import", "changed.key", "--as", "bob", "--from", "alice"], 5, "E_SEAL");
    std::fs::write(dir.join("cut.key"), &good[..good.len() - 1]).unwrap();
    shell.fails(&["lease", "key", "import", "cut.key", "--as", "bob"], 1, "E_CONFIG_SYNTAX");

    // One that he has is not replaced by another.
    shell.bytes(&["lease", "key", "import", "bob.key", "--as", "bob"]);
    let other = mallory.public().to_string();
    shell.fails(&["lease", "key", "import", "forged.key", "--as", "bob", "--from", &other], 1, "E_EXISTS");
    shell.fails(&["lease", "key", "export", "frames", "--as", "carol", "--to", "bob"], 1, "E_LEASE_UNKNOWN");
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    scene.finish();
}

#[test]
fn a_key_that_the_node_told_is_not_taken_for_its_name() {
    let scene = Scene::new();
    let (shell, dir) = (&scene.shell, scene.world.node.path().to_owned());
    // A name that only the node vouches for: it could have told a key of its own.
    let dave = scene.world.register();
    let list = shell.json(&["id", "list", "--as", "alice"]);
    let told =
        list["contacts"].as_array().unwrap().iter().find(|row| row["key"] == dave.public().to_string());
    let told = told.expect("it is met");
    assert_eq!(told["by_hand"], false);
    let (name, key) = (told["name"].as_str().unwrap(), dave.public().to_string());

    let export = |to: &str, exit, code: &str| {
        shell.fails(&["lease", "key", "export", "frames", "--as", "alice", "--to", to], exit, code);
    };
    export(name, 3, "E_DENIED");
    let alice = shell.json(&["id", "show", "alice"]);
    let alice = libmem::PrincipalKey::parse(alice["identity"]["key"].as_str().unwrap()).unwrap();
    let other = libmem::LeaseId::parse("00112233445566778899aabbccddeeff").unwrap();
    let sent = Envelope::seal(&DataKey::generate(other), &dave, alice).unwrap();
    std::fs::write(dir.join("dave.key"), sent.to_text()).unwrap();
    let import = ["lease", "key", "import", "dave.key", "--as", "alice"];
    shell.fails(&import, 3, "E_DENIED");
    shell.fails(&[&import[..], &["--from", name]].concat(), 3, "E_DENIED");

    // The key itself is the user's word, and so is a name that the user gave it to.
    shell.json(&["lease", "key", "export", "frames", "--as", "alice", "--to", &key, "-o", "by-key"]);
    shell.json(&["id", "trust", name, &key]);
    shell.json(&["lease", "key", "export", "frames", "--as", "alice", "--to", name, "-o", "by-name"]);
    shell.json(&import);
    shell.bytes(&["id", "list", "--as", "alice"]);
    shell.json(&[&import[..], &["--from", name]].concat());
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    scene.finish();
}

#[test]
fn what_somebody_without_the_key_writes_is_refused() {
    let scene = Scene::new();
    let shell = &scene.shell;
    scene.delegate_to_carol();
    // One bit of the second block.
    let stored = shell.bytes(&["get", "carol.token", "--as", "carol", "--offset", "5000", "--len", "1"]);
    let put = shell.pipe(&["put", "carol.token", "--as", "carol", "--offset", "5000"], &[stored[0] ^ 1]);
    assert!(put.status.success(), "{put:?}");

    let read = shell.pipe(&["get", "frames", "--as", "alice"], b"");
    assert_eq!(read.status.code(), Some(5));
    assert!(String::from_utf8(read.stderr).unwrap().contains("error[E_SEAL]: block 1 "));
    // Nothing of that block, and the others as they were.
    assert!(plain().starts_with(&read.stdout) && read.stdout.len() <= PAYLOAD_BYTES as usize);
    let beside = shell.bytes(&["get", "frames", "--as", "alice", "--len", "4068"]);
    assert!(beside == plain()[..4068]);
    let after = shell.bytes(&["get", "frames", "--as", "alice", "--offset", "8136"]);
    assert!(after == plain()[8136..]);
    // A part of it cannot be written, all of it can.
    let part = shell.pipe(&["put", "frames", "--as", "alice", "--offset", "4068"], b"a part");
    assert_eq!(part.status.code(), Some(5), "{part:?}");
    let whole = shell.pipe(&["put", "frames", "--as", "alice", "--offset", "4068"], &plain()[4068..8136]);
    assert!(whole.status.success(), "{whole:?}");
    assert!(scene.get("frames", "alice") == plain());
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    scene.finish();
}

#[test]
fn a_destroyed_key_shreds_and_the_nodes_memory_never_showed_anything() {
    let scene = Scene::new();
    let shell = &scene.shell;
    shell.bytes(&["lease", "key", "destroy", "frames", "--as", "alice"]);
    // Neither are the stored bytes taken for hers, nor plain ones put in their place.
    shell.fails(&["put", "frames", "--as", "alice", "--input", "/etc/hostname"], 1, "E_CONFIG_IO");
    let read = shell.pipe(&["get", "frames", "--as", "alice"], b"");
    assert_eq!((read.status.code(), read.stdout.len()), (Some(1), 0));
    shell.fails(&["lease", "key", "export", "frames", "--as", "alice", "--to", "bob"], 1, "E_CONFIG_IO");
    shell.fails(&["lease", "key", "destroy", "frames", "--as", "alice"], 1, "E_CONFIG_IO");

    // What the node itself has, as its administrator takes it.
    shell.json(&["quarantine", "add", &scene.lease, "--as", "admin"]);
    let list = shell.json(&["quarantine", "list", "--as", "admin"]);
    let id = list["quarantine"][0]["id"].to_string();
    let kept = shell.bytes(&["quarantine", "read", &id, "--as", "admin"]);
    assert_eq!(kept.len(), SMALL as usize);
    assert!(!shows(&kept));
    assert!(kept.chunks(64).all(|chunk| chunk.iter().any(|&byte| byte != 0)), "it is what was stored");
    shell.json(&["quarantine", "release", &id, "--as", "admin"]);
    scene.finish();
}

#[test]
fn on_every_way_the_bytes_are_the_same_and_a_revoke_ends_them() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let key = DataKey::generate(leased.lease.id);
    let mapped =
        Sealed::new(alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap(), &key).unwrap();
    refused(mapped.read_at(0, &mut [0; 8]), Code::Seal);
    mapped.format().unwrap();
    let accepted = alice.share(&leased.lease, &bob, Rights::READ);
    let through =
        Sealed::new(bob.client.open_mediated(&accepted.token, Rights::READ).unwrap(), &key).unwrap();

    mapped.write_at(4000, &SECRET.repeat(TIMES)).unwrap();
    let mut bytes = vec![0; SECRET.len() * TIMES];
    through.read_at(4000, &mut bytes).unwrap();
    assert!(bytes == SECRET.repeat(TIMES));
    refused(through.write_at(0, b"not his"), Code::Denied);
    let mut stored = vec![0; SMALL as usize];
    through.memory().read_at(0, &mut stored).unwrap();
    assert!(!shows(&stored));
    Bytes::read_at(mapped.memory(), 0, &mut stored).unwrap();
    assert!(!shows(&stored));

    // Readers of a block that is being written see it as it was or as it is.
    mapped.write_at(0, &[200; 4068]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for turn in 0..200_u8 {
                mapped.write_at(0, &[turn; 4068]).unwrap();
            }
        });
        while !writer.is_finished() {
            let mut block = [0; 4068];
            match through.read_at(0, &mut block) {
                Ok(()) => assert!(block.iter().all(|&byte| byte == block[0])),
                // It met the writer each time: said, and nothing torn was given out.
                Err(error) => assert_eq!(error.code(), Code::Seal),
            }
        }
    });

    alice.client.release(leased.lease.id).unwrap();
    refused(mapped.read_at(0, &mut [0; 8]), Code::Revoked);
    refused(through.read_at(0, &mut [0; 8]), Code::Revoked);
    drop((mapped, through, alice, bob));
    world.balances();
    world.finish();
}

#[test]
fn a_snapshot_is_encrypted_under_a_key_of_its_own() {
    let scene = Scene::new();
    let shell = &scene.shell;
    let snapshot = ["lease", "snapshot", "frames", "--ttl", "5m", "--as"];
    let made = shell.json(&[&snapshot[..], &["alice", "--name", "copy"]].concat());
    let copy = made["lease"]["id"].as_str().unwrap();
    let key_file = std::path::Path::new(made["key_file"].as_str().unwrap());
    assert!(key_file.file_name().unwrap().to_str().unwrap().starts_with(copy), "{key_file:?}");
    // It lives on without the original, and without the original's key.
    shell.bytes(&["lease", "key", "destroy", "frames", "--as", "alice"]);
    shell.bytes(&["lease", "release", "frames", "--as", "alice"]);
    assert!(scene.get("copy", "alice") == plain());
    // What the node has of it shows nothing.
    shell.bytes(&["share", "offer", "copy", "--as", "alice", "--to", "carol", "--rights", "r"]);
    shell.bytes(&["share", "accept", "--as", "carol"]);
    assert!(!shows(&scene.get(copy, "carol")));
    // What fails leaves neither a lease nor a key behind.
    let files = || std::fs::read_dir(key_file.parent().unwrap()).unwrap().count();
    let before = files();
    let nowhere = ["lease", "snapshot", "copy", "--ttl", "5m", "--as", "alice", "-o", "no/such/dir.token"];
    assert!(!shell.pipe(&nowhere, b"").status.success());
    assert_eq!(files(), before);
    assert_eq!(shell.json(&["lease", "list", "--as", "alice"])["leases"].as_array().unwrap().len(), 1);
    shell.bytes(&["lease", "release", "copy", "--as", "alice"]);
    scene.finish();
}
