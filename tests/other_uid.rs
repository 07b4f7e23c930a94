//! What a holder of another user can do with the descriptor of its lease: map it as its right says, and nothing else.
//!
//! In the tier `sealed` the descriptor is good for `mmap` alone, and every other call fails at once. In the tier `open`
//! another user gets a read-only one, in a file system that is read-only to it.

#[path = "common/mod.rs"]
mod common;

use common::attack::Attack;
use common::world::Person;
use common::{Actor, Ask, NOBODY, SMALL, Said, World, is_root, log, pattern};
use libc::{EACCES, EBADF, EINVAL, ENOTCONN, EPERM, EROFS, EXDEV};
use libmem::{Code, Leased, Rights, ShareOptions, SigningKey};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// Everything but writing by a mapping, which a read-write lease is for; and by which errno it fails on a descriptor of
/// a sealed region: opened read-only, opened read-write.
const SEALED: [(Attack, i32, i32); 20] = [
    (Attack::Truncate, EINVAL, ENOTCONN),
    (Attack::Extend, EINVAL, ENOTCONN),
    (Attack::Grow, EBADF, ENOTCONN),
    (Attack::Punch, EBADF, ENOTCONN),
    (Attack::Zero, EBADF, ENOTCONN),
    (Attack::Write, EBADF, ENOTCONN),
    (Attack::WriteBeyond, EBADF, ENOTCONN),
    (Attack::Read, ENOTCONN, ENOTCONN),
    (Attack::MapExecutable, EPERM, EPERM),
    (Attack::ProtectExecutable, EACCES, EACCES),
    (Attack::ReopenWritable, ENOTCONN, ENOTCONN),
    (Attack::ReopenTruncate, ENOTCONN, ENOTCONN),
    (Attack::ChangeMode, ENOTCONN, ENOTCONN),
    (Attack::ChangeOwner, ENOTCONN, ENOTCONN),
    (Attack::Splice, ENOTCONN, ENOTCONN),
    (Attack::Link, EXDEV, EXDEV),
    (Attack::SetLease, EACCES, EACCES),
    (Attack::Seal, EPERM, EINVAL),
    (Attack::Remove { writable: false }, EACCES, EPERM),
    (Attack::Remove { writable: true }, EACCES, EPERM),
];

/// What only a read-only descriptor must refuse.
const WRITING: [(Attack, i32); 2] = [(Attack::MapWritable, EACCES), (Attack::ProtectWritable, EACCES)];

/// What must fail on a read-only descriptor of an open region, whoever has it: no way to the file leads to a change.
const OPEN: [(Attack, &[i32]); 15] = [
    (Attack::Truncate, &[EINVAL]),
    (Attack::Extend, &[EINVAL]),
    (Attack::Grow, &[EBADF]),
    (Attack::Punch, &[EBADF]),
    (Attack::Zero, &[EBADF]),
    (Attack::Write, &[EBADF]),
    (Attack::WriteBeyond, &[EBADF]),
    (Attack::MapExecutable, &[EPERM]),
    (Attack::ProtectExecutable, &[EACCES]),
    (Attack::ReopenWritable, &[EROFS, EACCES]),
    (Attack::ReopenTruncate, &[EROFS, EACCES]),
    (Attack::MapWritable, &[EACCES]),
    (Attack::ProtectWritable, &[EACCES]),
    (Attack::Remove { writable: false }, &[EACCES]),
    (Attack::Seal, &[EPERM, EINVAL]),
];

/// A lease with bytes in it, and a share of it for a process of another user.
struct Scene {
    world: World,
    alice: Person,
    leased: Leased,
    key: SigningKey,
    bytes: Vec<u8>,
}

impl Scene {
    fn set() -> Self {
        let world = World::new();
        let (alice, key) = (world.person(), world.register());
        let leased = alice.lease(SMALL);
        let bytes = pattern(5, SMALL as usize);
        alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap().write_at(0, &bytes).unwrap();
        Self { world, alice, leased, key, bytes }
    }

    /// A process of another user with a token for `rights`.
    fn other(&self, rights: Rights) -> (Actor, String) {
        let mut other = self.world.actor(&self.key, NOBODY);
        let options = ShareOptions::new(self.key.public(), rights);
        let grant = self.alice.client.share_offer(&self.leased.lease, &options, &self.alice.key).unwrap();
        match other.ask(&Ask::Accept { grant: grant.id, detached: true }) {
            Said::Accepted { token } => (other, token),
            said => panic!("not accepted: {said:?}"),
        }
    }

    /// The owner's bytes are as they were, and its lease can be taken back.
    fn end(self) -> common::log::Log {
        let mut found = vec![0; self.bytes.len()];
        let region = self.alice.client.open_mapped(&self.leased.token, Rights::READ_WRITE).unwrap();
        region.read_at(0, &mut found).unwrap();
        assert!(found == self.bytes, "somebody changed the owner's bytes");
        region.write_at(0, &found).unwrap();
        let receipt = self.alice.client.release(self.leased.lease.id).unwrap();
        assert!(receipt.body.dead.0 < 1_000_000, "nothing held up the cut: {:?}", receipt.body);
        drop((region, self.alice));
        self.world.balances();
        self.world.finish()
    }
}

fn tried(actor: &mut Actor, attacks: Vec<Attack>) -> Vec<(Attack, i32)> {
    let asked = attacks.clone();
    match actor.ask(&Ask::Attack { attacks }) {
        Said::Tried { errnos } => asked.into_iter().zip(errnos).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sealed_descriptor_of_another_user_maps_and_does_nothing_else() {
    if !is_root() {
        eprintln!("not run: only root can start a client of another user");
        return;
    }
    let scene = Scene::set();
    if !scene.world.node.is_sealed() {
        eprintln!("not run: this machine has no sealed descriptors");
        return;
    }
    for (rights, writable) in [(Rights::READ, false), (Rights::READ_WRITE, true)] {
        let (mut other, token) = scene.other(rights);
        let said = other.ask(&Ask::OpenBare { token, rights });
        assert!(matches!(said, Said::Done), "{said:?}");
        let expected: Vec<_> = SEALED
            .iter()
            .map(|&(attack, read_only, read_write)| (attack, if writable { read_write } else { read_only }))
            .chain(WRITING.iter().map(|&(attack, errno)| (attack, if writable { 0 } else { errno })))
            .collect();
        let found = tried(&mut other, expected.iter().map(|(attack, _)| *attack).collect());
        assert_eq!(found, expected, "rights {rights:?}");
        other.leave();
    }
    scene.end();
}

#[test]
fn a_read_only_right_cannot_be_opened_for_writing_by_another_user() {
    let scene = Scene::set();
    let (mut other, token) = scene.other(Rights::READ);
    for mapped in [true, false] {
        let said = other.ask(&Ask::Open { token: token.clone(), rights: Rights::READ_WRITE, mapped });
        assert!(matches!(&said, Said::Refused { code } if code == "E_DENIED"), "{said:?}");
    }
    let memory = other.open(&token, Rights::READ, true);
    assert_eq!(other.read(memory, 0, SMALL as usize), scene.bytes);
    let said = other.ask(&Ask::Write { memory, offset: 0, bytes: vec![0; 8] });
    assert!(matches!(&said, Said::Refused { code } if code == "E_DENIED"), "{said:?}");
    other.leave();
    let log = scene.end();
    assert!(log::of(&log.provider, "lease.deny").iter().any(|entry| entry["code"] == "E_DENIED"));
}

#[test]
fn an_open_regions_descriptor_changes_nothing_and_writing_goes_through_the_node() {
    let scene = Scene::set();
    if scene.world.node.is_sealed() {
        // The other tests say what holds here; that a stronger tier is not asked for less is seen by its own.
        scene.end();
        return;
    }
    let (mut other, token) = scene.other(Rights::READ);
    let said = other.ask(&Ask::OpenBare { token, rights: Rights::READ });
    assert!(matches!(said, Said::Done), "{said:?}");
    for (attack, errno) in tried(&mut other, OPEN.iter().map(|(attack, _)| *attack).collect()) {
        let (_, allowed) = OPEN.iter().find(|(listed, _)| *listed == attack).unwrap();
        assert!(allowed.contains(&errno), "{attack:?}: {errno}");
    }
    other.leave();
    if is_root() {
        let (mut other, token) = scene.other(Rights::READ_WRITE);
        let said = other.ask(&Ask::OpenBare { token: token.clone(), rights: Rights::READ_WRITE });
        assert!(matches!(&said, Said::Refused { code } if code == Code::MediatedOnly.text()), "{said:?}");
        let memory = other.open(&token, Rights::READ_WRITE, false);
        assert_eq!(other.read(memory, 0, 64), scene.bytes[..64]);
        other.leave();
    }
    scene.end();
}

#[test]
fn a_user_who_is_not_on_the_list_is_not_let_in() {
    if !is_root() {
        eprintln!("not run: only root can start a client of another user");
        return;
    }
    const STRANGER: u32 = 61_999;
    let world = World::new();
    let key = world.register();
    let mut stranger = Actor::start(STRANGER);
    let socket = world.node.endpoint().path().expect("a socket").to_owned();
    let said = stranger.ask(&Ask::Begin { socket, seed: *key.seed() });
    assert!(matches!(&said, Said::Refused { code } if code == Code::PeerUid.text()), "{said:?}");
    stranger.wait();
    let log = world.finish();
    let rejects = log::of(&log.provider, "reject.burst");
    assert!(rejects.iter().any(|entry| entry["code"] == "E_PEER_UID"), "{rejects:?}");
}
