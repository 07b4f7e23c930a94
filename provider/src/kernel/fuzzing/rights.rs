//! Rights: opened, handed out, narrowed.

use super::*;

impl World {
    pub(super) fn open(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, session, under) = (lease(bytes.byte()?), session(bytes.byte()?), bytes.byte()?);
        let (left, pages, flags) = (bytes.number(1_000)?, bytes.number(PAGE)?, bytes.byte()?);
        let start = u64::from(bytes.byte()?) * 512;
        let grant = (under % 4 != 0).then(|| grant(under % 4));
        let Ok(range) = ByteRange::new(start, pages.min(ByteRange::END_MAX)) else { return Some(()) };
        let request = OpenRequest {
            session,
            uid: u32::from(flags >> 6),
            sandboxed: flags & 4 != 0,
            holder: PrincipalKey(if grant.is_some() { [0xff; 32] } else { [lease.0[0]; 32] }),
            lease,
            grant,
            rights: if flags & 8 != 0 { Rights::READ } else { Rights::READ_WRITE },
            range,
            expires: UnixMicros(self.unix().0.saturating_add(left)),
            now_unix: self.unix(),
            metered: flags & 16 != 0,
            narrowed: flags & 32 != 0,
            path: if flags & 1 == 1 { Path::Mediated } else { Path::Mapped },
            first_holder: PrincipalKey(if grant.is_some() { [0xff; 32] } else { [lease.0[0]; 32] }),
            marks: Box::default(),
            meters: Box::default(),
            root: 1,
        };
        let asked = request.clone();
        if let Ok(answer) = self.step(Event::Open(request)) {
            let Answer::Opened(opening) = answer else { panic!("an open was answered with {answer:?}") };
            assert!(self.keys.insert(opening.open), "a key names one right, ever");
            let region = self.regions.get(&opening.region).expect("a right is to memory that exists");
            assert_eq!((region.lease, region.life), (lease, Life::Live));
            assert!(asked.range.contains(opening.range), "no byte that the token does not reach");
            assert!(opening.range.end() <= region.bytes, "and none past the region");
            assert_eq!((opening.rights, opening.path), (asked.rights, asked.path));
            assert!(left > 0 && opening.deadline > self.boot(), "nothing opens after its time");
            assert!(
                opening.deadline <= region.deadline && region.deadline > self.boot(),
                "nor after its lease's"
            );
            let revoked = grant.is_some_and(|grant| self.is_revoked(opening.region, grant));
            assert!(!revoked, "nor under a grant that was taken back");
            for to in self.narrowed.iter().filter(|to| (to.region, Some(to.grant)) == (opening.region, grant))
            {
                assert!(
                    to.rights.contains(opening.rights) && to.range.contains(opening.range),
                    "nor beyond its rest"
                );
                assert!(to.expires > self.unix() && opening.deadline.0 <= to.expires.0.saturating_mul(1_000));
            }
            assert!(
                opening.deadline <= self.boot().plus(Micros(left)) || grant.is_none() && !asked.narrowed,
                "and nothing lives past it"
            );
            if opening.path == Path::Mapped {
                let border = |at: u64| at.is_multiple_of(region.segment_bytes) || at == region.bytes;
                let (start, end) = (opening.range.start(), opening.range.end());
                assert!(border(start) && border(end), "a mapping is of whole segments");
                let whole = opening.range.len() == region.bytes && opening.deadline == region.deadline;
                assert!(region.pinned || whole, "and of whole regions where nothing can be rotated");
                assert!(!asked.metered, "what is metered is not mapped");
                let step = self.kernel.config().mapping_end_step;
                let on_step = opening.deadline.0.is_multiple_of(step) || opening.deadline == region.deadline;
                assert!(!asked.narrowed || on_step, "ends that clients choose fall together");
                let guarded = self.kernel.config().tier == Tier::Sealed
                    || asked.sandboxed
                    || [0, UID].contains(&asked.uid)
                    || !asked.rights.contains(Rights::WRITE);
                assert!(guarded, "strangers write through the provider where nothing holds them");
            }
            let follows = grant.is_none() && !asked.narrowed;
            self.rights.push(Right {
                opening,
                session,
                lease,
                grant,
                follows,
                ends_grant: grant.is_some() && !asked.narrowed,
                handed_out: false,
                fenced: false,
            });
        }
        Some(())
    }

    pub(super) fn hand_out(&mut self, index: usize, segment: usize, flags: u8) {
        let Some(right) = self.rights.get(index) else { return };
        let (opening, fenced, grant, follows) = (right.opening, right.fenced, right.grant, right.follows);
        let Some(known) = self.regions.get(&opening.region) else { return };
        let segment = segment % (known.files.len() + 1); // one past the last
        let file = known.files.get(segment);
        let generation = file.map_or(0, |file| file.generation) - u32::from(flags & 2 != 0 && file.is_some());
        let write = flags & 1 == 1;
        let now = self.boot();
        let event = Event::HandedOut { open: opening.open, segment: segment as u32, generation, write };
        let answer = self.step(event);
        let promised = self.promised.contains(&(opening.open, segment));
        if let Err(error) = &answer {
            assert!(!promised || error.code() != caps::Code::NoMemory, "a survivor has its room");
            return;
        }
        assert!(!fenced && now < opening.deadline, "no descriptor of a dead right leaves the provider");
        assert_eq!(opening.path, Path::Mapped);
        let known = self.regions.get_mut(&opening.region).expect("as above");
        let range = known.segment(segment);
        assert!(opening.range.contains(range), "nor one of bytes that it does not reach");
        let file = &mut known.files[segment];
        let stale = file.rotating.is_some()
            || file.generation != generation
            || (write && !opening.rights.contains(Rights::WRITE));
        assert_eq!(answer == Ok(Answer::Stale), stale);
        if !stale {
            let until = (!follows).then_some(opening.deadline);
            file.out.push(Descriptor { region: opening.region, segment: range, grant, write, until });
            self.rights[index].handed_out = true;
        }
    }

    pub(super) fn narrow(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, grant, rights) = (lease(bytes.byte()?), grant(bytes.byte()?), bytes.byte()? % 4);
        let (start, length) =
            (u64::from(bytes.byte()?) * PAGE / 2, u64::from(bytes.byte()?).max(1) * PAGE / 2);
        let expires = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
        let rights = Rights::try_from(rights).expect("two bits");
        let range = ByteRange::at(start, length).expect("small");
        let region = self.find(lease).map(|(region, _)| region);
        self.narrowed.extend(region.map(|region| Narrowing { region, grant, rights, range, expires }));
        let take = Take::Narrow { lease, grant, rights, range, expires };
        let now_unix = self.unix();
        let answer = self.step(Event::Take { take, cause: EndCause::Revoked, now_unix });
        self.check_fenced(lease, grant, &answer.expect("a revoke is never refused"));
        Some(())
    }
}
