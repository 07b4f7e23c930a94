//! Root keys: two mint at any time, and each can be retired, or expire, and is then another's place.

use super::*;

/// The keys, by number. A number is used once, as a key's id in a node's ring is.
pub(super) struct Roots {
    /// Those that mint.
    minting: [u32; 2],
    /// Those that are believed no longer, and nothing of them is to be reached.
    retired: BTreeSet<u32>,
    /// Whether one is being retired in the step under way.
    retiring: bool,
    last: u32,
}

impl Default for Roots {
    fn default() -> Self {
        Self { minting: [1, 2], retired: BTreeSet::new(), retiring: false, last: 2 }
    }
}

impl Roots {
    pub(super) fn minting(&self, which: u8) -> u32 {
        self.minting[usize::from(which) % 2]
    }

    pub(super) fn is_retired(&self, root: u32) -> bool {
        self.retired.contains(&root)
    }

    pub(super) const fn is_retiring(&self) -> bool {
        self.retiring
    }

    /// Puts a new key into one's place: nobody opens by the old one from here on, as its tokens no longer verify.
    fn replace(&mut self, which: u8) -> u32 {
        self.last += 1;
        std::mem::replace(&mut self.minting[usize::from(which) % 2], self.last)
    }
}

impl World {
    /// A key is retired: what the node does with every lease of which something is open under it.
    pub(super) fn retire_root(&mut self, which: u8) {
        let root = self.roots.replace(which);
        self.roots.retired.insert(root);
        self.roots.retiring = true;
        for lease in self.kernel.leases_under(root) {
            let (take, now_unix) = (Take::Root { lease, root }, self.unix());
            let answer = self.step(Event::Take { take, cause: EndCause::Revoked, now_unix });
            match answer.expect("a revoke is never refused") {
                Answer::Gone => assert!(self.find(lease).is_none()),
                Answer::Taking { region, .. } => assert_eq!(self.regions[&region].lease, lease),
                Answer::Fenced { region, upto, .. } => {
                    let known = &self.regions[&region];
                    assert_ne!(known.life, Life::Ending, "what is taken whole is waited for whole");
                    for file in known.files.iter().filter(|file| file.out.iter().any(|out| out.root == root))
                    {
                        assert!(
                            file.rotating.is_some() && file.rotating <= upto,
                            "on its way out, and waited for"
                        );
                    }
                }
                other => panic!("a take-back was answered with {other:?}"),
            }
        }
        self.roots.retiring = false;
        let lives = |right: &Right| right.root == root && !right.fenced;
        assert!(!self.rights.iter().any(lives), "nothing opened under a retired key lives on");
    }

    /// The last token of a key is over: its rights end by deadlines of their own, and nothing else does.
    pub(super) fn root_expired(&mut self, which: u8) {
        let root = self.roots.replace(which);
        let open = |world: &Self| world.rights.iter().filter(|right| !right.fenced).count();
        let before = open(self);
        assert_eq!(self.step(Event::RootExpired { root }), Ok(Answer::Done));
        assert_eq!(open(self), before, "who renewed goes on");
    }
}
