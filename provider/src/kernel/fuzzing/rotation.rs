//! Rotations as the runtime would carry them out, late and in any order.

use super::*;

impl World {
    /// One step of a rotation. Whether there was one to take that could be taken now.
    pub(super) fn progress(&mut self, region: RegionKey, index: usize) -> bool {
        let known = &self.regions[&region];
        let segment = index as u32;
        let file = &known.files[index];
        let (range, fresh, generation) = (known.segment(index), file.fresh, file.generation);
        let rotates = file.rotating.is_some() && known.life == Life::Live;
        let ending = known.life == Life::Ending && file.rotating.is_some();
        if !fresh {
            let bytes = self.kernel.committed_bytes() + range.len();
            let others: u64 = self.regions.values().map(Region::rotating).sum();
            let answer = self.step(Event::Fresh { region, segment });
            if !rotates {
                assert!(answer.is_err(), "only what rotates gets room");
                let told = answer.is_err_and(|error| error.code() != caps::Code::Internal);
                assert!(!ending || told, "who rotates what is taken back is told so");
                return false;
            }
            let granted = bytes <= POOL_PAGES * PAGE;
            assert!(granted || others > 0, "room for one rotation is always there");
            assert_eq!(
                answer.expect("a segment that rotates"),
                if granted { Answer::Granted } else { Answer::Wait }
            );
            self.regions.get_mut(&region).expect("as above").files[index].fresh = granted;
            return granted;
        }
        let expected: Vec<_> = {
            let maps = |right: &&Right| {
                !right.fenced
                    && right.handed_out
                    && right.opening.region == region
                    && right.opening.range.contains(range)
            };
            let keys = self.rights.iter().filter(maps);
            let by_key: BTreeMap<_, _> = keys.map(|right| (right.opening.open, right.session)).collect();
            by_key.into_iter().map(|(open, session)| Survivor { open, session }).collect()
        };
        let answer = self.step(Event::Rotated { region, segment }).expect("a fresh file is ready");
        assert_eq!(answer, Answer::Rotated { generation: generation + 1, survivors: expected.clone() });
        self.promised.retain(|&(open, of)| {
            of != index
                || self
                    .rights
                    .iter()
                    .rfind(|right| right.opening.open == open)
                    .is_none_or(|right| right.opening.region != region)
        });
        self.promised.extend(expected.iter().map(|survivor| (survivor.open, index)));
        let known = self.regions.get_mut(&region).expect("as above");
        known.files[index] =
            File { generation: generation + 1, rotating: None, fresh: false, out: Vec::new() };
        known.unspent.push(range.len());
        true
    }

    /// A replaced file could not be wiped and is kept, where rotations have their room all the same.
    pub(super) fn keep(&mut self, region: RegionKey) {
        let known = self.regions.get_mut(&region).expect("one of ours");
        let Some(bytes) = known.unspent.pop() else { return };
        let answer = self.step(Event::Kept { region, bytes });
        if answer.is_ok() {
            self.kept.push(bytes);
        } else {
            self.regions.get_mut(&region).expect("as above").unspent.push(bytes);
        }
    }

    pub(super) fn unkeep(&mut self) {
        if let Some(bytes) = self.kept.pop() {
            self.step(Event::Unkept { bytes }).expect("what is kept is given back");
        }
    }

    pub(super) fn spend(&mut self, region: RegionKey) -> bool {
        let Some(bytes) = self.regions.get_mut(&region).and_then(|known| known.unspent.pop()) else {
            return false;
        };
        self.step(Event::Spent { region, bytes }).expect("bytes of a rotation come back");
        true
    }

    /// Brings every rotation to its end, one after another where the pool is full.
    pub(super) fn finish_rotations(&mut self) {
        loop {
            let mut moved = false;
            for region in self.all(Life::Live).into_iter().chain(self.all(Life::Ending)) {
                for index in 0..self.regions[&region].files.len() {
                    let file = &self.regions[&region].files[index];
                    if self.regions[&region].life == Life::Live && file.rotating.is_some() {
                        moved |= self.progress(region, index);
                    }
                }
                while self.spend(region) {
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let live = self.regions.values().filter(|region| region.life == Life::Live);
        let rotating = live.flat_map(|region| &region.files).any(|file| file.rotating.is_some());
        assert!(!rotating, "a rotation never waits for ever");
    }
}
