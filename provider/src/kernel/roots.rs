//! What is open under the tokens of one root key, and how it ends when the key is believed no longer.
//!
//! A file that was handed out is everybody's who got it, under whatever key: exposures know grants and no keys. So a
//! region remembers under which keys any of its segments was handed out, and when one of these goes, all segments that
//! anybody maps are rotated. Those whose tokens are of other keys survive, as in any rotation.

use caps::id::LeaseId;
use caps::wire::row::EndCause;

use super::Kernel;
use super::event::{Answer, Effect};

impl Kernel {
    /// The leases of which something is open, or may be mapped, under tokens of a root key.
    #[must_use]
    pub fn leases_under(&self, root: u32) -> Vec<LeaseId> {
        let under = |row: &super::region::RegionRow| {
            let mut opens = row.opens.iter().filter_map(|open| self.opens.get(*open));
            row.roots.contains(&root) || opens.any(|open| open.root == root)
        };
        self.regions.iter().filter(|(_, row)| under(row)).map(|(_, row)| row.lease).collect()
    }

    /// Ends what is open of a lease under tokens of a root key. Where it was only used by mediated access, refusing new
    /// operations is all. Where it was mapped, what is mapped is rotated; and where that cannot be done, because not
    /// every page is pinned or the pool has no room for it, the whole region is taken back.
    pub(super) fn take_root(
        &mut self,
        lease: LeaseId,
        root: u32,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let region = match self.region_to_part(lease, cause, effects) {
            Ok(region) => region,
            Err(answer) => return answer,
        };
        let Some(row) = self.regions.get(region) else { return Answer::Gone };
        let mapped = row.roots.contains(&root);
        let doomed = row.doomed(|_, _| mapped);
        // The owner's own mappings end with the region, so nobody kept room for a rotation of what only they map.
        let longest = row.longest(&doomed.segments);
        let rotates = longest.is_none_or(|length| row.pinned && self.has_room(length).is_ok());
        if !rotates {
            return self.take_lease(lease, cause, effects);
        }
        let opens: Vec<_> = row.opens.iter().copied().collect();
        for open in opens {
            if self.opens.get(open).is_some_and(|right| right.root == root) {
                self.close_open(open, cause, effects);
            }
        }
        self.promise_room(region, &doomed.segments);
        self.forget_root_of(region, root);
        let upto = self.rotate(region, &doomed, cause, effects);
        Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) }
    }

    /// From here on these segments need room, as every segment does that is about to be rotated.
    pub(super) fn promise_room(&mut self, region: super::region::RegionKey, segments: &[u32]) {
        for &index in segments {
            self.change_segment(region, index, |segment| segment.promised = true);
        }
    }

    /// The last token of a root key has expired, and the key is believed no longer. What its holders may still map goes
    /// on by what was renewed since, or ends by deadlines of its own.
    pub(super) fn root_expired(&mut self, root: u32) {
        let regions: Vec<_> = self.regions.iter().map(|(key, _)| key).collect();
        for region in regions {
            self.forget_root_of(region, root);
        }
    }

    fn forget_root_of(&mut self, region: super::region::RegionKey, root: u32) {
        if let Some(row) = self.regions.get_mut(region) {
            row.roots.retain(|known| *known != root);
        }
    }
}
