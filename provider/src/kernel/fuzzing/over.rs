//! Which descriptors give what was taken back, and what a revoke promises about them.

use super::*;

impl World {
    /// Whether a descriptor gives what was taken back.
    pub(super) fn is_over(&self, out: &Descriptor) -> bool {
        if out.former || self.giving == Some(out.region) {
            return true;
        }
        let cut = |mark: &Mark| self.is_cut(out.region, *mark);
        if out.marks.iter().any(cut) || self.roots.is_retired(out.root) {
            return true;
        }
        let Some(grant) = out.grant else { return false };
        let needed = if out.write { Rights::READ_WRITE } else { Rights::READ };
        self.taking == Some((out.region, grant))
            || self.is_revoked(out.region, grant)
            || self.narrowed.iter().any(|to| {
                (to.region, to.grant) == (out.region, grant)
                    && !(to.rights.contains(needed) && to.range.contains(out.segment))
            })
    }

    /// Whether a descriptor's time is over.
    pub(super) fn is_late(&self, out: &Descriptor) -> bool {
        out.until.is_some_and(|until| until <= self.boot())
            || self
                .narrowed
                .iter()
                .any(|to| (to.region, Some(to.grant)) == (out.region, out.grant) && to.expires <= self.unix())
    }

    pub(super) fn is_revoked(&self, region: RegionKey, grant: GrantId) -> bool {
        self.revoked.iter().any(|&(of, by, until)| (of, by) == (region, grant) && until > self.unix())
    }

    pub(super) fn is_cut(&self, region: RegionKey, mark: Mark) -> bool {
        self.cutting.is_some_and(|(of, cut, _)| (of, cut) == (region, mark))
            || self.cut.iter().any(|&(of, cut, until)| (of, cut) == (region, mark) && until > self.unix())
    }

    /// What the revoke of a token promises: as of a grant.
    pub(super) fn check_cut(&self, lease: LeaseId, mark: Mark, answer: &Answer) {
        let open = |right: &Right| right.lease == lease && right.marks.contains(&mark) && !right.fenced;
        assert!(!self.rights.iter().any(open), "no right outlives its token");
        match *answer {
            Answer::Gone => assert!(self.find(lease).is_none()),
            Answer::Taking { region, .. } => assert_eq!(self.regions[&region].lease, lease),
            Answer::Fenced { region, upto, .. } => {
                let known = &self.regions[&region];
                assert_ne!(known.life, Life::Ending, "what is taken whole is waited for whole");
                for file in &known.files {
                    if file.out.iter().any(|out| out.marks.contains(&mark)) {
                        assert!(
                            file.rotating.is_some() && file.rotating <= upto,
                            "on its way out, and waited for"
                        );
                    }
                }
            }
            _ => panic!("a take-back was answered with {answer:?}"),
        }
    }

    /// What a revoke promises: nobody holds more of a grant than what is left of it but through files that are being
    /// replaced, all by a rotation up to the one that the answer names.
    pub(super) fn check_fenced(&self, lease: LeaseId, grant: GrantId, answer: &Answer) {
        let mine = |right: &&Right| right.lease == lease && right.grant == Some(grant) && !right.fenced;
        let taken = self.taking.is_some_and(|(_, taken)| taken == grant);
        assert!(!taken || !self.rights.iter().any(|right| mine(&right)), "no right outlives its grant");
        match *answer {
            Answer::Gone => assert!(self.find(lease).is_none()),
            Answer::Taking { region, .. } => assert_eq!(self.regions[&region].lease, lease),
            Answer::Fenced { region, upto, .. } => {
                let known = &self.regions[&region];
                assert_ne!(known.life, Life::Ending, "what is taken whole is waited for whole");
                let mut named = upto.is_none();
                for file in &known.files {
                    let theirs = |out: &&Descriptor| out.grant == Some(grant);
                    if file.out.iter().filter(theirs).any(|out| self.is_over(out)) {
                        assert!(file.rotating.is_some(), "what is over is on its way out");
                        assert!(file.rotating <= upto, "and waited for");
                    }
                    named |= file.rotating == upto && file.out.iter().any(|out| theirs(&out));
                }
                assert!(named, "nobody waits for a rotation that is none of theirs");
            }
            _ => panic!("a take-back was answered with {answer:?}"),
        }
    }
}
