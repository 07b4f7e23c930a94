//! One step of the kernel, every check that fits any step, and what must hold between any two.

use super::*;

impl World {
    /// One step of the kernel, and every check that fits any step.
    pub(super) fn step(&mut self, event: Event) -> caps::Result<Answer> {
        let step = self.kernel.step(self.boot(), event);
        assert!(step.effects.is_sorted_by_key(Effect::phase), "fences, then cuts, then records");
        for effect in &step.effects {
            match effect {
                Effect::Fence { open } => {
                    let right = self.rights.iter_mut().rfind(|right| right.opening.open == *open);
                    let right = right.expect("a right is open before it is fenced");
                    assert!(!right.fenced, "a right is fenced once");
                    right.fenced = true;
                }
                Effect::Closed { open, row, .. } => {
                    let right = self.right(*open);
                    assert!(right.fenced, "a right is fenced before it is forgotten");
                    assert_eq!((row.session, row.grant), (right.session, right.grant));
                    assert_eq!(row.handed_out, right.handed_out);
                }
                Effect::TakeBack { region, lease, .. } => {
                    let known = self.regions.get_mut(region).expect("memory that exists is taken back");
                    assert_eq!((known.life, known.lease), (Life::Live, *lease), "and it is taken back once");
                    known.life = Life::Ending;
                    for index in 0..known.files.len() {
                        if std::mem::take(&mut known.files[index].fresh) {
                            known.unspent.push(known.segment(index).len());
                        }
                    }
                    let open =
                        self.rights.iter().any(|right| right.opening.region == *region && !right.fenced);
                    assert!(!open, "every right is fenced before its memory is cut");
                }
                Effect::Rotate { region, lease, rotation, segments, grant, cause, mappings } => {
                    assert!(rotation.0 > self.last_rotation, "a rotation's name is never used again");
                    self.last_rotation = rotation.0;
                    self.rotate(*region, *lease, *rotation, segments, *grant, *cause, *mappings);
                }
                Effect::Narrowed { open } => {
                    let row = self.kernel.open_row(*open).expect("what is narrowed goes on").clone();
                    let narrowed = &self.narrowed;
                    let right = self.rights.iter_mut().rfind(|right| right.opening.open == *open);
                    let right = right.filter(|right| !right.fenced).expect("an open right is narrowed");
                    let mut expected = right.opening;
                    for to in
                        narrowed.iter().filter(|to| (to.region, Some(to.grant)) == (row.region, right.grant))
                    {
                        expected.rights = expected.rights.intersect(to.rights);
                        expected.range = expected.range.intersect(to.range).expect("something is left");
                        expected.deadline =
                            expected.deadline.min(BootNanos(to.expires.0.saturating_mul(1_000)));
                    }
                    assert_ne!(expected, right.opening, "something changed");
                    assert_eq!((expected.rights, expected.range), (row.rights, row.range));
                    assert_eq!(expected.deadline, row.deadline);
                    right.opening = expected;
                }
                Effect::GrantEnded { grant, .. } => {
                    if self.cutting.is_some_and(|(.., of)| of == Some(*grant)) {
                        self.grant_went = true;
                        continue;
                    }
                    let now = self.unix();
                    let own = |right: &Right| {
                        let narrowed = |to: &Narrowing| {
                            (to.region, to.grant) == (right.opening.region, *grant) && to.expires <= now
                        };
                        right.grant == Some(*grant)
                            && right.fenced
                            && (right.ends_grant || self.narrowed.iter().any(narrowed))
                    };
                    assert!(self.rights.iter().any(own), "its own time is over, not a delegate's");
                }
            }
        }
        step.answer
    }

    #[allow(clippy::too_many_arguments)] // the fields of one effect
    pub(super) fn rotate(
        &mut self,
        region: RegionKey,
        lease: LeaseId,
        rotation: RotationId,
        segments: &[u32],
        grant: Option<GrantId>,
        cause: EndCause,
        mappings: u32,
    ) {
        let known = &self.regions[&region];
        assert_eq!((known.life, known.lease), (Life::Live, lease), "live memory is rotated");
        assert!(known.pinned, "and only what is pinned");
        assert!(!segments.is_empty() && segments.is_sorted_by(|a, b| a < b));
        let mut gone = 0;
        for &index in segments {
            let file = &known.files[index as usize];
            assert_eq!(file.rotating, None, "a segment is rotated once at a time");
            let over: Vec<_> = file.out.iter().filter(|out| self.is_over(out) || self.is_late(out)).collect();
            // Whoever came by the same grant as a token that was taken back loses what it maps, too, for a moment; and
            // where a key is retired, so does everybody.
            let with = (self.cutting.is_some() || self.roots.is_retiring()) && !file.out.is_empty();
            assert!(with || !over.is_empty(), "a segment that nobody loses is left alone");
            assert!(
                grant.is_none() || with || over.iter().any(|out| out.grant == grant),
                "the grant lost it"
            );
            gone += over.len() as u32;
        }
        match cause {
            EndCause::Expired => assert!(mappings >= gone, "who came by one grant goes with the first"),
            _ if self.cutting.is_some() || self.roots.is_retiring() => {
                assert!(mappings >= gone, "and so do they")
            }
            _ => assert_eq!(mappings, gone, "every descriptor that does not come back is counted"),
        }
        let known = self.regions.get_mut(&region).expect("as above");
        for &index in segments {
            known.files[index as usize].rotating = Some(rotation);
        }
    }

    /// What must hold between any two steps.
    pub(super) fn check(&self) {
        assert_eq!(self.kernel.check_invariants(self.unix()), Ok(()));
        let bytes: u64 = self.regions.values().map(|region| region.bytes + region.rotating()).sum();
        let bytes = bytes + self.kept.iter().sum::<u64>();
        assert_eq!(self.kernel.committed_bytes(), bytes, "the ledger counts until the memory is gone");
        assert_eq!(self.kernel.regions(), self.regions.len());
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        for file in live.flat_map(|region| &region.files).filter(|file| file.rotating.is_none()) {
            assert!(!file.out.iter().any(|out| self.is_over(out)), "nobody keeps what was taken back");
        }
        for right in &self.rights {
            let row = self.kernel.open_row(right.opening.open);
            assert_eq!(row.is_none(), right.fenced, "a right is open until it is fenced");
            let life = self.regions.get(&right.opening.region).map(|region| region.life);
            assert!(right.fenced || life == Some(Life::Live), "a right is to live memory");
        }
    }
}
