//! Tokens that were taken back below their grant: which marks a region refuses, and under which grants it ever handed
//! a mapping to a token that carries a mark.
//!
//! A grant's end is known by its id. What a holder narrowed or delegated has none: it is known by its marks, which every
//! token that descends from it carries. Each region has its own, as with grants, so that nobody fills another's memory.
//! A mark is remembered until the tokens that carry it would have ended by themselves.
//!
//! Exposures say by which grant a descriptor left and not by which token, so a revoke of one token under a grant rotates
//! what all tokens under the grant have mapped. [`Mapped`] keeps that from being done for a token that never mapped
//! anything.

use std::collections::{BTreeMap, BTreeSet};

use caps::id::{GrantId, LeaseId};
use caps::range::ByteRange;
use caps::time::UnixMicros;
use caps::token::Mark;
use caps::wire::row::EndCause;

use super::event::{Answer, Effect};
use super::segment::Exposure;
use super::table::Key;
use super::{Kernel, RegionKey};

/// At most `capacity` marks that are refused, which the caller gives with every call that adds some.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<Mark, UnixMicros>);

impl Marks {
    /// Whether a token with these marks is refused.
    pub(super) fn refuse(&self, marks: &[Mark], now: UnixMicros) -> bool {
        marks.iter().any(|mark| self.0.get(mark).is_some_and(|&until| until > now))
    }

    /// Remembers all of `marks`, at least until `until`. `false` if there is no room for all of them, and then it
    /// remembers none: the caller must end what carries them by stronger means.
    #[must_use]
    pub(super) fn revoke(
        &mut self,
        marks: impl Iterator<Item = Mark> + Clone,
        until: UnixMicros,
        now: UnixMicros,
        capacity: usize,
    ) -> bool {
        let added = |known: &BTreeMap<_, _>| marks.clone().filter(|mark| !known.contains_key(mark)).count();
        if self.0.len() + added(&self.0) > capacity {
            self.0.retain(|_, until| *until > now);
            if self.0.len() + added(&self.0) > capacity {
                return false;
            }
        }
        for mark in marks {
            let known = self.0.entry(mark).or_insert(until);
            *known = until.max(*known);
        }
        true
    }

    /// Remembers all that `others` remembers. `false` if there is no room for all of it.
    #[must_use]
    pub(super) fn add(&mut self, others: Self, now: UnixMicros, capacity: usize) -> bool {
        let mut live = others.0.into_iter().filter(|&(_, until)| until > now);
        live.all(|(mark, until)| self.revoke(std::iter::once(mark), until, now, capacity))
    }

    /// Number of marks remembered.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Which marks were ever in a token whose holder received a descriptor, and under which grant.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapped {
    known: Bounded<(Mark, Option<GrantId>)>,
    /// Marks of rights that live as long as the region, which are the owner's own. There is no room kept to rotate what
    /// only they map.
    lasting: Bounded<Mark>,
}

/// At most `capacity` entries. Once there was one more, everything counts as an entry.
#[derive(Clone, Debug)]
struct Bounded<T> {
    entries: BTreeSet<T>,
    full: bool,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { entries: BTreeSet::new(), full: false }
    }
}

impl<T: Ord> Bounded<T> {
    fn extend(&mut self, entries: impl Iterator<Item = T>, capacity: usize) {
        if self.full {
            return;
        }
        self.entries.extend(entries);
        if self.entries.len() > capacity {
            (self.entries, self.full) = (BTreeSet::new(), true);
        }
    }

    fn may_have(&self, entry: &T) -> bool {
        self.full || self.entries.contains(entry)
    }
}

impl Mapped {
    /// Notes that a token with these marks maps, `lasting` for as long as the region.
    pub(super) fn note(&mut self, marks: &[Mark], grant: Option<GrantId>, lasting: bool, capacity: usize) {
        if lasting {
            self.lasting.extend(marks.iter().copied(), capacity);
        } else {
            self.known.extend(marks.iter().map(|&mark| (mark, grant)), capacity);
        }
    }

    /// Whether a token with this mark may have mapped under `grant`.
    pub(super) fn may_have(&self, mark: Mark, grant: Option<GrantId>) -> bool {
        self.known.may_have(&(mark, grant)) || grant.is_none() && self.lasting.may_have(&mark)
    }

    /// The region goes over to another owner: what lived as long as it did was the former one's, and ends.
    pub(super) fn lasts_no_longer(&mut self, capacity: usize) {
        let former = std::mem::take(&mut self.lasting);
        self.known.extend(former.entries.into_iter().map(|mark| (mark, None)), capacity);
        if former.full {
            self.known = Bounded { entries: BTreeSet::new(), full: true };
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.known.entries.len() + self.lasting.entries.len()
    }
}

/// What is taken back of a region.
pub(super) struct Cut {
    pub(super) lease: LeaseId,
    /// What the tokens carry, each alone enough.
    pub(super) marks: [Option<Mark>; 2],
    /// What to take instead if the marks cannot be remembered; `None`: the lease.
    pub(super) grant: Option<GrantId>,
    /// The bytes that the tokens can reach.
    pub(super) range: ByteRange,
    /// When the last of the tokens ends by itself.
    pub(super) expires: UnixMicros,
}

impl Kernel {
    /// Ends every right that carries one of the marks, and what it mapped. A mapping may have outlived its right, so
    /// all that was mapped under the same grants is rotated, as far as it lies in the tokens' bytes; who keeps a right
    /// survives.
    pub(super) fn take_marks(
        &mut self,
        now_unix: UnixMicros,
        cut: &Cut,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let region = match self.region_to_part(cut.lease, cause, effects) {
            Ok(region) => region,
            Err(answer) => return answer,
        };
        let Some(row) = self.regions.get_mut(region) else { return Answer::Gone };
        let marks = || cut.marks.iter().flatten().copied();
        if !row.marks.revoke(marks(), cut.expires, now_unix, self.config.marks_per_region_max) {
            return self.take_more(now_unix, cut, cause, effects);
        }
        // What cannot end alone is the owner's, who alone may ask for it.
        let lasts = |exposure: &Exposure| !exposure.can_end();
        let lasting = &row.mapped.lasting;
        if marks().any(|mark| lasting.entries.contains(&mark) || cut.grant.is_none() && lasting.full)
            && row.segments.iter().any(|segment| segment.exposed.rows().iter().any(lasts))
        {
            return self.take_lease(cut.lease, cause, effects);
        }
        let doomed = row.doomed(|segment, exposure: &Exposure| {
            exposure.can_end()
                && segment.intersect(cut.range).is_some()
                && marks().any(|mark| row.mapped.may_have(mark, exposure.grant))
        });
        if !row.pinned && !doomed.segments.is_empty() {
            return self.take_lease(cut.lease, cause, effects);
        }
        for open in self.opens_marked(region, &cut.marks) {
            self.close_open(open, cause, effects);
        }
        let upto = self.rotate(region, &doomed, cause, effects);
        Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) }
    }

    /// There is no room to remember: the grant goes, and the broker is told, or the lease.
    fn take_more(
        &mut self,
        now_unix: UnixMicros,
        cut: &Cut,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(grant) = cut.grant else { return self.take_lease(cut.lease, cause, effects) };
        effects.push(Effect::GrantEnded { grant, cause });
        // Tokens of the grant may end later than those that were to be taken back, and nobody here knows when.
        self.take_grant(now_unix, cut.lease, grant, UnixMicros::MAX, cause, effects)
    }

    fn opens_marked(&self, region: RegionKey, marks: &[Option<Mark>]) -> Vec<Key> {
        let Some(row) = self.regions.get(region) else { return Vec::new() };
        let carries = |open: &Key| {
            self.opens
                .get(*open)
                .is_some_and(|right| right.marks.iter().any(|mark| marks.contains(&Some(*mark))))
        };
        row.opens.iter().copied().filter(carries).collect()
    }
}
