//! The kernel in lockstep with a naive model: a list of leases that is searched from end to end.

use std::collections::BTreeSet;

use caps::error::Code;
use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Lifetime};
use proptest::prelude::*;

use super::fuzzing::{PAGE, POOL_PAGES, REGIONS_MAX, small_config};
use super::{Answer, Effect, Event, Kernel, OpenRequest, SessionId};

/// What a test does. Small numbers name things, so that wrong names, repeats and races come up often.
#[derive(Clone, Debug)]
enum Act {
    Claim { lease: u8, pages: u64, ttl: u64, tied: bool, session: u8 },
    Created { lease: u8, works: bool },
    Renew { lease: u8, ttl: u64 },
    Open { lease: u8, session: u8, grant: Option<u8>, left: u64, pages: u64, path: Path },
    HandOut { open: usize },
    Close { open: usize, session: u8 },
    SessionEnded { session: u8 },
    TakeLease { lease: u8 },
    TakeGrant { lease: u8, grant: u8, left: u64 },
    Taken { lease: u8 },
    Wait { millis: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let (lease, session, grant) = (0..6u8, 0..3u8, 0..3u8);
    let path = prop_oneof![Just(Path::Mapped), Just(Path::Mediated)];
    prop_oneof![
        3 => (lease.clone(), 1..5u64, 1..40u64, any::<bool>(), session.clone())
            .prop_map(|(lease, pages, ttl, tied, session)| Act::Claim { lease, pages, ttl, tied, session }),
        4 => (lease.clone(), prop::bool::weighted(0.9)).prop_map(|(lease, works)| Act::Created { lease, works }),
        1 => (lease.clone(), 1..40u64).prop_map(|(lease, ttl)| Act::Renew { lease, ttl }),
        4 => (lease.clone(), session.clone(), prop::option::of(grant.clone()), 0..40u64, 1..5u64, path)
            .prop_map(|(lease, session, grant, left, pages, path)| {
                Act::Open { lease, session, grant, left, pages, path }
            }),
        2 => (0..8usize).prop_map(|open| Act::HandOut { open }),
        1 => (0..8usize, session.clone()).prop_map(|(open, session)| Act::Close { open, session }),
        1 => session.prop_map(|session| Act::SessionEnded { session }),
        1 => lease.clone().prop_map(|lease| Act::TakeLease { lease }),
        1 => (lease.clone(), grant, 1..40u64).prop_map(|(lease, grant, left)| Act::TakeGrant { lease, grant, left }),
        3 => lease.prop_map(|lease| Act::Taken { lease }),
        2 => (0..15u64).prop_map(|millis| Act::Wait { millis }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Building,
    Live,
    Ending,
}

/// What the model knows of a lease.
#[derive(Debug)]
struct Known {
    lease: u8,
    key: super::RegionKey,
    pages: u64,
    life: Life,
    until: u64,
    tied: Option<u8>,
}

#[derive(Default)]
struct Model {
    leases: Vec<Known>,
    revoked: Vec<(u8, u64)>,
}

impl Model {
    fn get(&mut self, lease: u8) -> Option<&mut Known> {
        self.leases.iter_mut().find(|known| known.lease == lease)
    }

    /// Regions that end with these effects leave the life; each is taken back once, and only if it was live.
    fn follow(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::TakeBack { region, .. } = effect {
                let known =
                    self.leases.iter_mut().find(|known| known.key == *region).expect("a region we know");
                assert_eq!(known.life, Life::Live, "taken back once");
                known.life = Life::Ending;
            }
        }
    }
}

fn key(n: u8) -> PrincipalKey {
    PrincipalKey([n; 32])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_agrees_with_the_model(acts in prop::collection::vec(act(), 1..60)) {
        let (mut kernel, mut model) = (Kernel::new(small_config()), Model::default());
        let mut now = 0; // milliseconds on both clocks
        let mut handles: Vec<(super::event::Opening, u8)> = Vec::new();
        let mut fenced = BTreeSet::new();
        for act in acts {
            let boot = BootNanos(now * 1_000_000);
            let unix = UnixMicros(now * 1_000);
            let mut effects = Vec::new();
            let mut step = |kernel: &mut Kernel, event| {
                let step = kernel.step(boot, event);
                effects.extend(step.effects);
                step.answer
            };
            match act {
                Act::Claim { lease, pages, ttl, tied, session } => {
                    let ticket = ClaimTicket {
                        lease: LeaseId([lease; 16]),
                        region: RegionId([lease; 16]),
                        owner: key(lease),
                        bytes: pages * PAGE,
                        ttl: Micros::from_millis(ttl),
                        lifetime: if tied { Lifetime::Process } else { Lifetime::Detached },
                        claim_by: UnixMicros(u64::MAX),
                    };
                    let session_id = Some(SessionId(session.into()));
                    let gone = kernel.ended.contains(LeaseId([lease; 16]));
                    let answer = step(&mut kernel, Event::Claim { ticket, session: session_id, now_unix: unix });
                    let used: u64 = model.leases.iter().map(|known| known.pages).sum();
                    let expected = if model.get(lease).is_some() {
                        Some(Code::Exists)
                    } else if gone {
                        Some(Code::LeaseExpired)
                    } else if used + pages > POOL_PAGES {
                        Some(Code::NoMemory)
                    } else if model.leases.len() == REGIONS_MAX {
                        Some(Code::Busy)
                    } else {
                        None
                    };
                    match answer {
                        Ok(Answer::Build { region, bytes, .. }) => {
                            prop_assert_eq!((expected, bytes), (None, pages * PAGE));
                            let tied = tied.then_some(session);
                            let known = Known { lease, key: region, pages, life: Life::Building, until: now + ttl, tied };
                            model.leases.push(known);
                        }
                        Ok(other) => prop_assert!(false, "{other:?}"),
                        Err(error) => prop_assert_eq!(Some(error.code()), expected),
                    }
                }
                Act::Created { lease, works } => {
                    // The runtime reports once for each region it was asked to build.
                    let Some(known) = model.get(lease).filter(|known| known.life == Life::Building) else { continue };
                    let (region, late) = (known.key, known.until <= now);
                    if works {
                        known.life = Life::Live; // for `follow`, if it ends at once
                        let answer =
                            step(&mut kernel, Event::Created { region, page_bytes: 4096, pinned: true });
                        if late {
                            prop_assert!(answer.is_err());
                        }
                    } else {
                        step(&mut kernel, Event::CreateFailed { region }).unwrap();
                        model.leases.retain(|known| known.lease != lease);
                    }
                }
                Act::Renew { lease, ttl } => {
                    let answer = step(&mut kernel, Event::Renew { lease: LeaseId([lease; 16]), ttl: Micros::from_millis(ttl) });
                    match model.get(lease) {
                        Some(known) if known.life == Life::Live => {
                            if answer.is_ok() {
                                known.until = now + ttl;
                            } else {
                                prop_assert_eq!(answer.unwrap_err().code(), Code::ShareOrder);
                            }
                        }
                        _ => prop_assert!(answer.is_err()),
                    }
                }
                Act::Open { lease, session, grant, left, pages, path } => {
                    let request = OpenRequest {
                        session: SessionId(session.into()),
                        uid: 7,
                        sandboxed: false,
                        holder: if grant.is_some() { key(99) } else { key(lease) },
                        lease: LeaseId([lease; 16]),
                        grant: grant.map(|n| GrantId([n; 16])),
                        rights: Rights::READ_WRITE,
                        range: ByteRange::new(0, pages * PAGE).unwrap(),
                        expires: UnixMicros((now + left) * 1_000),
                        now_unix: unix,
                        metered: false,
                        narrowed: false,
                        path,
                    };
                    let answer = step(&mut kernel, Event::Open(request));
                    model.revoked.retain(|&(_, until)| until > now);
                    let revoked = grant.is_some_and(|grant| model.revoked.iter().any(|&(known, _)| known == grant));
                    let live = model.get(lease).is_some_and(|known| known.life == Life::Live && known.until > now);
                    if let Ok(Answer::Opened(opening)) = answer {
                        prop_assert!(live && !revoked && left > 0);
                        prop_assert!(!fenced.contains(&opening.open), "a key is used once");
                        let known = model.get(lease).unwrap();
                        if path == Path::Mapped {
                            prop_assert!(pages >= known.pages, "a mapping is of the whole region");
                            prop_assert!(grant.is_none() || now + left >= known.until, "and lasts as long");
                        }
                        handles.push((opening, session));
                    } else if live && !revoked && left > 0 && path == Path::Mediated {
                        let code = answer.unwrap_err().code();
                        prop_assert!(code == Code::Quota || code == Code::Busy, "{code}");
                    }
                }
                Act::HandOut { open } => {
                    if let Some((opening, _)) = handles.get(open).filter(|(opening, _)| opening.path == Path::Mapped) {
                        // The runtime hands out once, right after opening.
                        let already = kernel.opens.get(opening.open).is_some_and(|row| row.handed_out);
                        if !already {
                            let answer = step(&mut kernel, Event::HandedOut { open: opening.open });
                            prop_assert_eq!(answer.is_err(), fenced.contains(&opening.open));
                        }
                    }
                }
                Act::Close { open, session } => {
                    if let Some((opening, owner)) = handles.get(open) {
                        let handle = SlotHandle { slot: opening.open.index, epoch: opening.open.generation };
                        let answer = step(&mut kernel, Event::Close { session: SessionId(session.into()), handle });
                        let alive = !fenced.contains(&opening.open);
                        prop_assert_eq!(answer.is_ok(), alive && *owner == session);
                    }
                }
                Act::SessionEnded { session } => {
                    step(&mut kernel, Event::SessionEnded { session: SessionId(session.into()) }).unwrap();
                    model.follow(&effects);
                    for known in &model.leases {
                        prop_assert!(known.tied != Some(session) || known.life != Life::Live);
                    }
                    effects.retain(|effect| !matches!(effect, Effect::TakeBack { .. }));
                }
                Act::TakeLease { lease } => {
                    let take = Take::Lease(LeaseId([lease; 16]));
                    let answer = step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    prop_assert_eq!(answer == Answer::Gone, model.get(lease).is_none());
                }
                Act::TakeGrant { lease, grant, left } => {
                    let take = Take::Grant {
                        lease: LeaseId([lease; 16]),
                        grant: GrantId([grant; 16]),
                        expires: UnixMicros((now + left) * 1_000),
                    };
                    step(&mut kernel, Event::Take { take, cause: EndCause::Revoked, now_unix: unix }).unwrap();
                    if kernel.revoked.contains(GrantId([grant; 16])) {
                        match model.revoked.iter_mut().find(|(known, _)| *known == grant) {
                            Some((_, until)) => *until = (*until).max(now + left),
                            None => model.revoked.push((grant, now + left)),
                        }
                    }
                    for (_, row) in kernel.opens.iter() {
                        let same = row.grant == Some(GrantId([grant; 16]))
                            && kernel.regions.get(row.region).unwrap().lease == LeaseId([lease; 16]);
                        prop_assert!(!same, "no right of a revoked grant is open");
                    }
                }
                Act::Taken { lease } => {
                    let Some(known) = model.get(lease).filter(|known| known.life == Life::Ending) else { continue };
                    let region = known.key;
                    step(&mut kernel, Event::Taken { region }).unwrap();
                    model.leases.retain(|known| known.lease != lease);
                }
                Act::Wait { millis } => {
                    now += millis;
                    let boot = BootNanos(now * 1_000_000);
                    let ticked = kernel.step(boot, Event::Tick);
                    effects.extend(ticked.effects);
                    model.follow(&effects);
                    for known in &model.leases {
                        prop_assert!(known.life != Life::Live || known.until > now, "ended at its deadline");
                    }
                    for (_, row) in kernel.opens.iter() {
                        prop_assert!(row.deadline > boot, "no right outlives its deadline");
                    }
                    effects.retain(|effect| !matches!(effect, Effect::TakeBack { .. }));
                }
            }
            model.follow(&effects);
            for effect in &effects {
                if let Effect::Fence { open } = effect {
                    fenced.insert(*open);
                }
            }
            prop_assert_eq!(kernel.check_invariants(), Ok(()));
            let committed: u64 = model.leases.iter().map(|known| known.pages * PAGE).sum();
            prop_assert_eq!(kernel.committed_bytes(), committed);
        }
    }
}
