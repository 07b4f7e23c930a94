//! What a holder of another user can do with the descriptor of its lease: map it as its right says, and nothing else.

#[path = "common/mod.rs"]
mod common;

use common::attack::Attack;
use common::{Ask, NOBODY, SMALL, Said, USERS, World, is_root, pattern};
use libmem::{Rights, ShareOptions};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// Everything, with writing by mapping set apart: that is what a read-write lease is for.
const ATTACKS: [Attack; 17] = [
    Attack::Truncate,
    Attack::Extend,
    Attack::Grow,
    Attack::Punch,
    Attack::Zero,
    Attack::Write,
    Attack::WriteBeyond,
    Attack::Read,
    Attack::MapExecutable,
    Attack::ProtectExecutable,
    Attack::ReopenWritable,
    Attack::ReopenTruncate,
    Attack::ChangeMode,
    Attack::Splice,
    Attack::Link,
    Attack::SetLease,
    Attack::ChangeOwner,
];

#[test]
fn print() {
    let world = World::new();
    let (alice, key) = (world.person(), world.register());
    let leased = alice.lease(SMALL);
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let bytes = pattern(5, SMALL as usize);
    mine.write_at(0, &bytes).unwrap();
    for rights in [Rights::READ, Rights::READ_WRITE] {
        let mut other = world.actor(&key, NOBODY);
        let options = ShareOptions::new(key.public(), rights);
        let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
        let Said::Accepted { token } = other.ask(&Ask::Accept { grant: grant.id, detached: true }) else {
            panic!()
        };
        let said = other.ask(&Ask::OpenBare { token, rights });
        eprintln!("{rights:?} {said:?}");
        if !matches!(said, Said::Done) {
            continue;
        }
        let mut attacks = ATTACKS.to_vec();
        attacks.extend([
            Attack::MapWritable,
            Attack::ProtectWritable,
            Attack::Remove { writable: false },
            Attack::Remove { writable: true },
        ]);
        let Said::Tried { errnos } = other.ask(&Ask::Attack { attacks: attacks.clone() }) else { panic!() };
        for (attack, errno) in attacks.iter().zip(errnos) {
            eprintln!("{rights:?} {attack:?} {}", std::io::Error::from_raw_os_error(errno));
        }
    }
    let mut found = vec![0; bytes.len()];
    mine.read_at(0, &mut found).unwrap();
    assert!(found == bytes);
    let _ = (is_root(), USERS);
}
