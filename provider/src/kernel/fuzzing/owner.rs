//! A region goes over to another owner.

use super::*;

impl World {
    pub(super) fn take_owner(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, to) = (lease(bytes.byte()?), PrincipalKey([0x80 | (bytes.byte()? % 3); 32]));
        let until = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
        let since = UnixMicros(self.unix().0.saturating_add(1));
        let known = self.find(lease).map(|(region, known)| (region, known.owner, known.life));
        let at = known.map(|(region, ..)| self.regions[&region].since);
        let undoes = match bytes.byte()? % 4 {
            0 | 1 => None,
            2 => at,
            _ => Some(UnixMicros(since.0.saturating_add(1))), // one that has not come yet
        };
        let changes = known.is_some_and(|(region, owner, life)| {
            let known = &self.regions[&region];
            let due = match undoes {
                None => since > known.tried,
                Some(attempt) => known.given == Some(attempt),
            };
            (owner, known.since) != (to, since) && due && life == Life::Live
        });
        let open =
            |world: &Self| world.rights.iter().filter(|right| right.lease == lease && !right.fenced).count();
        let before = open(self);
        self.giving = known.filter(|_| changes).map(|(region, ..)| region);
        let take = Take::Owner { lease, to, since, until, undoes };
        let now_unix = self.unix();
        let due = self.kernel.next_deadline().is_some_and(|at| at <= self.boot());
        let answer = self.step(Event::Take { take, cause: EndCause::Transfer, now_unix });
        self.giving = None;
        if let (Some((region, _, Life::Live)), Some(attempt)) = (known, undoes) {
            let known = self.regions.get_mut(&region).expect("as above");
            known.tried = known.tried.max(attempt);
        }
        match answer {
            Ok(Answer::Fenced { region, upto, .. }) => {
                assert_eq!(known.map(|(region, ..)| region), Some(region));
                if !changes {
                    assert_eq!(open(self), before, "who owns it already keeps what is open");
                    return Some(());
                }
                assert!(now_unix < until, "not after its time");
                assert_eq!(open(self), 0, "nothing of the former owner's is open");
                let known = self.regions.get_mut(&region).expect("as above");
                (known.owner, known.since) = (to, since);
                let mut aside = Aside {
                    revoked: self.revoked.extract_if(.., |of| of.0 == region).collect(),
                    narrowed: self.narrowed.extract_if(.., |of| of.region == region).collect(),
                    cut: self.cut.extract_if(.., |of| of.0 == region).collect(),
                    counted: self.counted.extract_if(.., |of| of.0 == region).collect(),
                };
                std::mem::swap(&mut known.aside, &mut aside);
                if undoes.is_some() {
                    // What was taken back meanwhile stays so; what was counted meanwhile was of other tokens.
                    let meanwhile = std::mem::take(&mut known.aside);
                    self.revoked.extend(meanwhile.revoked.into_iter().chain(aside.revoked));
                    self.narrowed.extend(meanwhile.narrowed.into_iter().chain(aside.narrowed));
                    self.cut.extend(meanwhile.cut.into_iter().chain(aside.cut));
                    self.counted.extend(aside.counted);
                }
                known.tried = known.tried.max(since);
                known.given = undoes.is_none().then_some(since);
                for file in &mut known.files {
                    let out = !file.out.is_empty();
                    assert!(
                        !out || file.rotating.is_some() && file.rotating <= upto,
                        "on its way out, and waited for"
                    );
                    file.out.iter_mut().for_each(|out| out.former = true);
                }
            }
            Ok(Answer::Taking { region, .. }) => {
                assert!(
                    changes && undoes.is_some(),
                    "only what was revoked meanwhile and has no room takes the lease"
                );
                assert_eq!(self.regions[&region].life, Life::Ending);
            }
            Ok(other) => panic!("a change of the owner was answered with {other:?}"),
            // What is due ends meanwhile.
            Err(_) => assert!(due || open(self) == before, "what is refused changes nothing"),
        }
        Some(())
    }
}

/// Who has a lease at its claim.
pub(super) const fn first_owner(lease: LeaseId) -> PrincipalKey {
    PrincipalKey([lease.0[0]; 32])
}
