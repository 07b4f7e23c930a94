//! A region's life, from its claim to the report that its memory is gone.

use super::*;

impl World {
    pub(super) fn claim(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, size, ttl) = (lease(bytes.byte()?), bytes.number(PAGE)?, bytes.number(1_000)?);
        let (who, pieces) = (bytes.byte()?, bytes.byte()?);
        let segment_bytes = if pieces == 0 { size } else { PAGE << (pieces % 8) >> 1 };
        let ticket = ClaimTicket {
            lease,
            region: RegionId(lease.0),
            owner: super::owner::first_owner(lease),
            bytes: size,
            segment_bytes,
            ttl: Micros(ttl),
            lifetime: if who & 1 == 1 { Lifetime::Process } else { Lifetime::Detached },
            claim_by: UnixMicros(if who & 0x80 == 0 { u64::MAX } else { 50_000 }),
        };
        let session = (who & 0x40 == 0).then_some(session(who >> 1));
        let used: u64 = self.regions.values().map(|region| region.bytes + region.rotating()).sum();
        let used = used + self.kept.iter().sum::<u64>();
        let known = self.life(lease).is_some();
        match self.step(Event::Claim { ticket, session, now_unix: self.unix() }) {
            Ok(Answer::Build { region, bytes, deadline, .. }) => {
                assert!(!known, "a lease is claimed once");
                assert_eq!(bytes, size);
                assert!(
                    used.checked_add(size).is_some_and(|sum| sum <= POOL_PAGES * PAGE),
                    "the pool is the pool"
                );
                let pieces = bytes.div_ceil(segment_bytes);
                assert!(segment_bytes <= bytes && pieces <= 4, "segments are few and within the region");
                let file = || File { generation: 1, rotating: None, fresh: false, out: Vec::new() };
                let region_row = Region {
                    lease,
                    bytes,
                    segment_bytes,
                    life: Life::Building,
                    pinned: false,
                    deadline,
                    files: (0..pieces).map(|_| file()).collect(),
                    unspent: Vec::new(),
                    owner: super::owner::first_owner(lease),
                    since: UnixMicros(0),
                    tried: UnixMicros(0),
                    given: None,
                    aside: Aside::default(),
                };
                let fresh = self.regions.insert(region, region_row);
                assert!(fresh.is_none(), "a key names one region");
            }
            Ok(other) => panic!("a claim was answered with {other:?}"),
            Err(_) => {}
        }
        Some(())
    }

    /// `works`: 0 means that it does not, and an odd number that every page could be pinned.
    pub(super) fn built(&mut self, region: RegionKey, works: u8) {
        if works != 0 {
            let pinned = works % 2 == 1;
            let known = self.regions.get_mut(&region).expect("picked");
            (known.life, known.pinned) = (Life::Live, pinned); // the memory exists from here on
            let answer = self.step(Event::Created { region, huge_bytes: 0, pinned });
            let live = self.regions[&region].life == Life::Live;
            assert_eq!(answer.is_ok(), live, "who is told of memory has it");
        } else {
            self.step(Event::CreateFailed { region }).expect("a build may fail");
            self.regions.remove(&region);
        }
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        self.step(Event::SessionEnded { session }).expect("a death is never refused");
        let alive = self.rights.iter().any(|right| right.session == session && !right.fenced);
        assert!(!alive, "no right outlives its session");
    }

    pub(super) fn take_lease(&mut self, lease: LeaseId) {
        let life = self.life(lease);
        let now_unix = self.unix();
        let answer = self.step(Event::Take { take: Take::Lease(lease), cause: EndCause::Revoked, now_unix });
        assert_eq!(answer.expect("a revoke is never refused") == Answer::Gone, life.is_none());
        assert_ne!(self.life(lease), Some(Life::Live), "a revoke takes the memory back");
        assert!(
            self.rights.iter().all(|right| right.lease != lease || right.fenced),
            "and fences every right"
        );
    }

    pub(super) fn taken(&mut self, region: RegionKey) {
        let all = self.regions[&region].unspent.is_empty();
        let answer = self.step(Event::Taken { region });
        assert_eq!(answer.is_ok(), all, "memory is gone when its rotations' is");
        if all {
            self.regions.remove(&region);
        }
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now_ms = self.now_ms.saturating_add(millis);
        self.step(Event::Tick).expect("time is never refused");
        let now = self.boot();
        assert!(self.kernel.next_deadline().is_none_or(|at| at > now), "what is due is done");
        let late =
            |right: &Right| self.kernel.open_row(right.opening.open).is_some_and(|row| row.deadline <= now);
        assert!(!self.rights.iter().any(late), "no right outlives its deadline");
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        for file in live.flat_map(|region| &region.files).filter(|file| file.rotating.is_none()) {
            assert!(!file.out.iter().any(|out| self.is_late(out)), "and no mapping outlives its right");
        }
    }

    /// Ends everything. What is left in the kernel then would stay for ever.
    pub(super) fn end(&mut self) {
        for region in self.all(Life::Building) {
            self.built(region, 1);
        }
        self.finish_rotations();
        for lease in self.kernel.leases() {
            self.take_lease(lease);
        }
        for region in self.all(Life::Ending) {
            while self.spend(region) {}
            self.taken(region);
        }
        while !self.kept.is_empty() {
            self.unkeep();
        }
        self.check();
        assert_eq!((self.kernel.regions(), self.kernel.committed_bytes()), (0, 0), "every byte came back");
        assert_eq!(self.kernel.next_deadline(), None, "nothing is left to fall due");
        assert!(self.kernel.by_session.is_empty() && self.kernel.tied.is_empty(), "no session is remembered");
    }
}
