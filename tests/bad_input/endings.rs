//! Rows I7 and I9: a lease's end in the middle of its use, with another tenant waiting for its bytes; and an end that no
//! device can record.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use caps::error::Code;
use caps::id::SlotHandle;
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::request::LeaseSpec;
use caps::wire::row::{Revocation, Target};
use caps::wire::{Name, Reason, Reply, Request};

use super::bed::Bed;
use super::node::until;
use super::wire::{Raw, spec};

/// A chunk of a mediated read or write.
const CHUNK: usize = 64 << 10;
/// Bytes of the lease that both tenants want: the pool has no room for two of them.
const WANTED: u64 = 12 << 20;
/// A pool for one of them, the bystander's lease and the one of each bed.
const POOL: &str = "[node]\npool = \"16MiB\"\n";
/// How long the first tenant has its lease: long enough to be at work on a loaded machine.
const SHORT: Micros = Micros::from_millis(300);
/// What the tenants write. No wipe leaves it.
const FIRST: u8 = 0xa1;
const SECOND: u8 = 0xb2;

fn register(bed: &Bed, name: &str) -> SigningKey {
    let key = SigningKey::generate();
    let (mut admin, _) = Raw::session(&bed.node.socket(), &bed.node.admin()).unwrap();
    let add = Request::PrincipalAdd { name: Name::new(name).unwrap(), key: key.public() };
    assert!(matches!(admin.ask(&add), Ok(Reply::Done)));
    key
}

fn fill(raw: &mut Raw, handle: SlotHandle, byte: u8) -> Result<(), caps::error::Error> {
    (0..WANTED / CHUNK as u64).try_for_each(|n| raw.write(handle, n * CHUNK as u64, &[byte; CHUNK]))
}

/// Reads the first page through a descriptor; what is there, if anything is.
fn first_byte(descriptor: &OwnedFd) -> Option<u8> {
    let mut byte = [0];
    matches!(rustix::io::pread(descriptor, &mut byte, 0), Ok(1)).then_some(byte[0])
}

#[test]
fn i7_expiry_at_access_and_the_freed_bytes_to_another_tenant_at_once() {
    let mut bed = Bed::new(POOL);
    let bob = register(&bed, "bob");
    let mut second = Raw::session(&bed.node.socket(), &bob).unwrap().0;
    let mut ended = 0;
    for round in 0..6 {
        let mut first = bed.session();
        let asked = Request::LeaseCreate(LeaseSpec { ttl: SHORT, ..spec(WANTED) });
        let token = until("the first tenant's lease", || match first.ask(&asked) {
            Ok(Reply::Leased { token, .. }) => Some(token),
            Err(error) if error.code() == Code::NoMemory => None,
            other => panic!("{other:?}"),
        });
        // A very busy machine may take longer than the lease lives.
        let Ok((_, descriptors)) = first.open_mapped(&token, Rights::READ_WRITE) else { continue };
        let mut users: Vec<_> = (0..2)
            .filter_map(|_| {
                let mut raw = bed.session();
                let handle = raw.open(&token, Rights::READ_WRITE).ok()?.handle;
                Some((raw, handle))
            })
            .collect();
        let granted = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (n, (raw, handle)) in users.iter_mut().enumerate() {
                let (granted, descriptor) = (&granted, &descriptors[0]);
                scope.spawn(move || {
                    let mut at = 0;
                    loop {
                        let after = granted.load(SeqCst);
                        assert_ne!(first_byte(descriptor), Some(SECOND), "a byte of the other tenant's");
                        at = (at + CHUNK as u64) % WANTED;
                        let outcome = match n {
                            0 => raw.write(*handle, at, &[FIRST; CHUNK]),
                            _ => raw.read(*handle, at, CHUNK as u32).map(|bytes| {
                                assert!(
                                    bytes.iter().all(|&byte| byte == FIRST || byte == 0),
                                    "only its own bytes"
                                );
                            }),
                        };
                        match outcome {
                            Ok(()) => {
                                assert!(!after, "the first tenant is served after the second has its bytes")
                            }
                            Err(error) => {
                                let over = [Code::Revoked, Code::LeaseExpired];
                                return assert!(over.contains(&error.code()), "{error}");
                            }
                        }
                    }
                });
            }
            let asked = Request::LeaseCreate(spec(WANTED));
            let (lease, token) = until("the bytes of the first", || match second.ask(&asked) {
                Ok(Reply::Leased { lease, token }) => Some((lease, token)),
                // A pool without room, until the last byte of the first is wiped.
                Err(error) if error.code() == Code::NoMemory => None,
                other => panic!("{other:?}"),
            });
            granted.store(true, SeqCst);
            assert_eq!(
                first_byte(&descriptors[0]),
                None,
                "round {round}: nothing is behind the first's descriptor"
            );
            let handle = second.open(&token, Rights::READ_WRITE).unwrap().handle;
            for n in 0..WANTED / CHUNK as u64 {
                let bytes = second.read(handle, n * CHUNK as u64, CHUNK as u32).unwrap();
                assert!(bytes.iter().all(|&byte| byte == 0), "round {round}: pages come zeroed");
            }
            fill(&mut second, handle, SECOND).unwrap();
            assert_eq!(first_byte(&descriptors[0]), None);
            let bytes = second.read(handle, 0, CHUNK as u32).unwrap();
            assert!(bytes.iter().all(|&byte| byte == SECOND), "and nobody writes into them");
            assert!(matches!(second.ask(&Request::LeaseRelease { lease: lease.id }), Ok(Reply::Receipt(_))));
        });
        ended += users.len();
        bed.check_bystander();
    }
    assert!(ended > 0, "nobody was at work when a lease ended");
    bed.finish();
}

#[test]
fn i9_a_revoke_without_a_device_takes_effect_and_is_recorded_after_the_gap() {
    const LOGS: [&str; 2] = ["broker", "provider-1"];
    let mut bed = Bed::new("");
    let (mut owner, mut user) = (bed.session(), bed.session());
    let (lease, token) = owner.lease(4096);
    let handle = user.open(&token, Rights::READ_WRITE).unwrap().handle;
    user.write(handle, 0, b"secret").unwrap();
    let (_, descriptors) = user.open_mapped(&token, Rights::READ_WRITE).unwrap();
    let audit = bed.node.dir.path().join("audit");
    let away = |log: &str| audit.join(format!("{log}.away"));
    for log in LOGS {
        fs::rename(audit.join(log), away(log)).unwrap();
    }
    // Whoever asks for something that must be recorded finds that it cannot be, and has nothing.
    assert_eq!(owner.refusal(&Request::LeaseCreate(spec(4096))), Code::AuditUnavailable);
    until("the node knows that nothing records", || match owner.ask(&Request::Status) {
        Ok(Reply::Status(status)) => (!status.audit).then_some(()),
        other => panic!("{other:?}"),
    });

    let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::default() };
    let Ok(Reply::Receipt(receipt)) = owner.ask(&Request::Revoke(revocation)) else { panic!("a receipt") };
    assert_eq!(receipt.body.log_index, None, "it claims no entry");
    assert_eq!(user.read(handle, 0, 6).unwrap_err().code(), Code::Revoked);
    assert_eq!(user.write(handle, 0, b"again!").unwrap_err().code(), Code::Revoked);
    assert_eq!(user.open(&token, Rights::READ).unwrap_err().code(), Code::TokenRevoked);
    assert_eq!(first_byte(&descriptors[0]), None, "nothing is behind the mapping");
    bed.check_bystander();
    assert_eq!(owner.refusal(&Request::LeaseCreate(spec(4096))), Code::AuditUnavailable, "still");

    for log in LOGS {
        fs::rename(away(log), audit.join(log)).unwrap();
    }
    until("the devices record again", || match owner.ask(&Request::LeaseCreate(spec(4096))) {
        Ok(Reply::Leased { .. }) => Some(()),
        Err(error) if error.code() == Code::AuditUnavailable => None,
        other => panic!("{other:?}"),
    });
    let id = lease.id.to_string();
    for log in LOGS {
        until("the revoke is in the log, after the gap", || {
            let entries = bed.node.log(log);
            let gap = entries.iter().position(|entry| entry.contains("\"event\":\"audit.gap\""))?;
            let is_revoke =
                |entry: &String| entry.contains("\"event\":\"lease.revoke\"") && entry.contains(&id);
            let revokes: Vec<_> = (0..entries.len()).filter(|&n| is_revoke(&entries[n])).collect();
            assert!(revokes.iter().all(|&revoke| gap < revoke), "{log}: {revokes:?} {gap}");
            (revokes.len() == 1).then_some(())
        });
    }
    bed.finish();
}
