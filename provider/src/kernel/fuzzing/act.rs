//! Reads one event from the input and carries it out.

use super::*;

impl World {
    /// Reads one event and carries it out; `None` at the end of the input.
    pub(super) fn act(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        match bytes.byte()? % KINDS {
            CLAIM => self.claim(bytes)?,
            BUILT => {
                let (region, works) = (self.pick(bytes.byte()?, Life::Building), bytes.byte()?);
                if let Some(region) = region {
                    self.built(region, works);
                }
            }
            RENEW => {
                let (lease, ttl) = (lease(bytes.byte()?), Micros(bytes.number(1_000)?));
                let due = self.find(lease).is_some_and(|(_, known)| known.deadline <= self.boot());
                match self.step(Event::Renew { lease, ttl }) {
                    Ok(Answer::Renewed { region, deadline }) => {
                        let known = self.regions.get_mut(&region).expect("a renewed lease has memory");
                        assert_eq!(
                            (known.lease, known.life),
                            (lease, Life::Live),
                            "only live leases are renewed"
                        );
                        assert!(!due, "what is over is not renewed");
                        known.deadline = deadline;
                    }
                    Ok(other) => panic!("a renewal was answered with {other:?}"),
                    Err(_) => {}
                }
            }
            OPEN => self.open(bytes)?,
            HAND_OUT => {
                let (index, segment, flags) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
                self.hand_out(index.into(), segment.into(), flags);
            }
            NARROW => self.narrow(bytes)?,
            TAKE_MARK => self.take_mark(bytes)?,
            TAKE_OWNER => self.take_owner(bytes)?,
            PROGRESS => {
                let (number, index) = (usize::from(bytes.byte()?), usize::from(bytes.byte()?));
                let all: Vec<_> = self.regions.keys().copied().collect();
                if !all.is_empty() {
                    let region = all[number % all.len()];
                    self.progress(region, index % self.regions[&region].files.len());
                }
            }
            SPEND => {
                let byte = bytes.byte()?;
                let (number, what) = (usize::from(byte & 0x3f), byte >> 6);
                let all: Vec<_> = self.regions.keys().copied().collect();
                match (all.is_empty(), what) {
                    (_, 3) => self.unkeep(),
                    (true, _) => {}
                    (false, 2) => self.keep(all[number % all.len()]),
                    (false, _) => {
                        self.spend(all[number % all.len()]);
                    }
                }
            }
            CLOSE => {
                let (right, session) = (usize::from(bytes.byte()?), session(bytes.byte()?));
                // An index past the rights is a handle out of thin air.
                let (key, owner, fenced) = match self.rights.get(right) {
                    Some(right) => (right.opening.open, Some(right.session), right.fenced),
                    None => (Key { index: right as u32, generation: 0 }, None, true),
                };
                let handle = SlotHandle { slot: key.index, epoch: key.generation };
                let answer = self.step(Event::Close { session, handle });
                assert_eq!(answer.is_ok(), owner == Some(session) && !fenced, "only the owner closes, once");
            }
            SESSION_ENDED => {
                let session = session(bytes.byte()?);
                self.session_ended(session);
            }
            TAKE_LEASE => {
                let lease = lease(bytes.byte()?);
                self.take_lease(lease);
            }
            TAKE_GRANT => {
                let (lease, grant) = (lease(bytes.byte()?), grant(bytes.byte()?));
                let until = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
                self.revoked.extend(self.find(lease).map(|(region, _)| (region, grant, until)));
                let taken = Take::Grant { lease, grant, expires: until };
                let now_unix = self.unix();
                self.taking = self.find(lease).map(|(region, _)| (region, grant));
                let answer = self.step(Event::Take { take: taken, cause: EndCause::Revoked, now_unix });
                self.check_fenced(lease, grant, &answer.expect("a revoke is never refused"));
                self.taking = None;
            }
            TAKEN => {
                if let Some(region) = self.pick(bytes.byte()?, Life::Ending) {
                    self.taken(region);
                }
            }
            WAIT => {
                let millis = u64::from(bytes.byte()?);
                self.wait(millis);
            }
            SLEEP => self.now_ms = self.now_ms.saturating_add(bytes.byte()?.into()), // the tick is late
            RETIRE_ROOT => {
                let which = bytes.byte()?;
                self.retire_root(which);
            }
            ROOT_EXPIRED => {
                let which = bytes.byte()?;
                self.root_expired(which);
            }
            JUMP.. => {
                // To the next deadline, or one millisecond short of it.
                let short = u64::from(bytes.byte()? & 1);
                let at = self.kernel.next_deadline().map_or(self.now_ms, |at| at.0.div_ceil(1_000_000));
                self.wait(at.saturating_sub(self.now_ms).saturating_sub(short));
            }
        }
        self.check();
        Some(())
    }
}
