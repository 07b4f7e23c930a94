//! For fuzz targets: any bytes as a stream of commands, and any bytes as a story that a few people with keys tell.
//!
//! | file | idea |
//! |---|---|
//! | this one | the small cluster, and commands in CBOR |
//! | `fuzzing/story.rs` | steps that are really signed, or damaged in one place |
//! | `fuzzing/model.rs` | what must come of them, said by a naive broker |

mod model;
mod story;

use std::collections::BTreeMap;

use caps::id::{ClusterEpoch, PrincipalKey, ProviderId, Seat};
use caps::time::{Micros, UnixMicros};
use caps::wire::Name;
use caps::wire::provider::Registration;
use policy::Quota;

pub use story::{Told, story_any, story_seeds};

use crate::state::{Bounds, Broker, Capacity, Command, Genesis};

/// Most commands of one input.
const COMMANDS_MAX: usize = 256;

/// A small cluster: every table and quota can be filled by a short input.
#[must_use]
pub fn small_genesis() -> Genesis {
    let name = |text| Name::new(text).expect("a literal that is a name");
    Genesis {
        cluster: ClusterEpoch([0xc; 16]),
        provider: Some(Registration {
            id: ProviderId([0xd; 16]),
            name: name("own"),
            address: None,
            bytes: 64 * 1024,
            regions: 6,
            classes: Vec::new(),
            locality: None,
            seat: Some(Seat([0x5e; 16])),
        }),
        at: UnixMicros(1_000_000),
        admin: PrincipalKey([0xa; 32]),
        admin_name: name("admin"),
        policy: [0x9; 32],
        capacity: Capacity { principals: 4, leases: 6, grants: 6, ended: 3, donations: 4, providers: 3 },
        bounds: Bounds {
            pool_bytes: 64 * 1024,
            lease_bytes_min: 1,
            lease_bytes_max: 64 * 1024,
            page_bytes: 4096,
            segment_bytes_max: 32 * 1024,
            segments_per_lease: 4,
            ttl_min: Micros(10),
            ttl_max: Micros(10_000),
            claim_within: Micros(100),
            accept_within: Micros(1_000),
            cosign_within: Micros(700),
            grants_per_lease: 3,
            take_again: Micros(50),
            hops_max: 7,
            donations_per_giver: 3,
            heartbeat_every: Micros(20),
            silent_after: Micros(60),
            lost_after: Micros(200),
            skew: Micros(30),
        },
        quota: Quota {
            leases: 4,
            leased_bytes: 32 * 1024,
            resident_bytes: 40 * 1024,
            shared_bytes: 16 * 1024,
            grants: 4,
            opens: 4,
            mappings: 4,
        },
        quotas: BTreeMap::from([(
            name("small"),
            Quota {
                leases: 1,
                leased_bytes: 4096,
                resident_bytes: 8192,
                shared_bytes: 4096,
                grants: 1,
                opens: 1,
                mappings: 1,
            },
        )]),
    }
}

/// Reads `data` as commands in CBOR, one after the other, applies them, and checks what must always hold: the
/// invariants after each step, that the form is stable, and that a restored snapshot is the state.
///
/// # Panics
/// If something that must hold does not.
pub fn command_any(data: &[u8]) {
    let mut broker = Broker::new(small_genesis()).expect("the small cluster is valid");
    let mut rest = data;
    for _ in 0..COMMANDS_MAX {
        let Ok(command) = ciborium::from_reader::<Command, _>(&mut rest) else { break };
        let again = encode(&command);
        let back: Command = ciborium::from_reader(&again[..]).expect("what was encoded decodes");
        assert_eq!(back, command);
        let _ = broker.apply(&command);
        if let Err(rule) = broker.check_invariants() {
            panic!("{rule}");
        }
    }
    let snapshot = broker.snapshot();
    let restored = Broker::restore(&snapshot).expect("a snapshot restores");
    assert_eq!(restored, broker);
    assert_eq!(restored.snapshot(), snapshot);
}

/// A command's serialized form.
#[must_use]
pub fn encode(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Infallible: the writer is memory and every field has a CBOR form.
    ciborium::into_writer(command, &mut bytes).expect("a command encodes");
    bytes
}
