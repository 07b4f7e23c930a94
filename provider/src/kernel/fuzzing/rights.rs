//! Rights: opened, handed out, narrowed.

use super::owner::first_owner;
use super::*;
use crate::kernel::meters::{SHARE_FULL, SIDE_FULL};

/// By how much a token outlives what a later block left of it, in microseconds: counts must.
const MINTED_LONGER: u64 = 5_000;

/// Up to two blocks that limit how often a right is opened, of three each.
fn meters(under: u8) -> Box<[Meter]> {
    let block = |depth: u8, which: u8| {
        let key = Mark::from_bytes([depth << 4 | which; 32]);
        let opens = Some(u64::from(which));
        (which != 0).then_some(Meter { key, opens, bytes_per_second: None, bytes_total: None })
    };
    [block(1, under >> 2 & 3), block(2, under >> 4 & 3)].into_iter().flatten().collect()
}

impl World {
    /// How often a right was opened below a block.
    fn counted(&self, of: RegionKey, key: Mark) -> u64 {
        self.counted.iter().filter(|&&(region, by, ..)| (region, by) == (of, key)).count() as u64
    }

    /// The blocks that were ever counted in a region for one side, all of whose receivers are one here.
    fn blocks_of(&self, of: RegionKey, receiver: bool) -> BTreeSet<Mark> {
        let theirs = |&&(region, _, _, owner): &&Counted| region == of && owner != receiver;
        self.counted.iter().filter(theirs).map(|&(_, key, ..)| key).collect()
    }

    pub(super) fn open(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, by, under) = (lease(bytes.byte()?), bytes.byte()?, bytes.byte()?);
        let session = session(by);
        let (left, pages, flags) = (bytes.number(1_000)?, bytes.number(PAGE)?, bytes.byte()?);
        let start = u64::from(bytes.byte()?) * 512;
        let grant = (under % 4 != 0).then(|| grant(under % 4));
        let Ok(range) = ByteRange::new(start, pages.min(ByteRange::END_MAX)) else { return Some(()) };
        // Who had the lease first may have kept a token of that time, and the receivers of its grants theirs.
        let (owner, since) = self
            .find(lease)
            .map_or((first_owner(lease), UnixMicros(0)), |(_, known)| (known.owner, known.since));
        let (owner, not_before) =
            if by >= 128 { (first_owner(lease), UnixMicros(0)) } else { (owner, since.max(self.unix())) };
        let payer = if grant.is_some() { PrincipalKey([0xff; 32]) } else { owner };
        let path = if flags & 1 == 1 { Path::Mediated } else { Path::Mapped };
        let rights = if flags & 8 != 0 { Rights::READ } else { Rights::READ_WRITE };
        let (metered, narrowed, sandboxed) = (flags & 16 != 0, flags & 32 != 0, flags & 4 != 0);
        let (uid, meters) = (u32::from(flags >> 6), meters(under));
        let made = under >> 6;
        let marks = if made == 0 { vec![root(grant)] } else { vec![root(grant), child(made)] };
        let request = OpenRequest {
            session,
            uid: Some(uid),
            sandboxed,
            holder: payer,
            lease,
            grant,
            rights,
            range,
            expires: UnixMicros(self.unix().0.saturating_add(left)),
            minted_until: UnixMicros(self.unix().0.saturating_add(left).saturating_add(MINTED_LONGER)),
            now_unix: self.unix(),
            metered,
            narrowed,
            path,
            first_holder: payer,
            delegate: None,
            marks: marks.clone().into(),
            meters: meters.clone(),
            quota: asked(payer, path),
            root: self.roots.minting(flags >> 1),
            not_before,
        };
        let (counted_until, root) = (request.minted_until, request.root);
        let answer = self.step(Event::Open(request));
        if let Err(error) = &answer
            && error.code() == caps::Code::Denied
            && error.detail().starts_with("opens: ")
        {
            let of = self.find(lease).map(|(region, _)| region).expect("what is counted is of a region");
            let used_up = |meter: &Meter| self.counted(of, meter.key) >= meter.opens.unwrap_or(u64::MAX);
            assert!(meters.iter().any(used_up), "what is not used up is not refused");
        }
        if let Err(error) = &answer
            && (*error == SHARE_FULL || *error == SIDE_FULL)
        {
            let (of, _) = self.find(lease).expect("what is counted is of a region");
            let mut made = self.blocks_of(of, grant.is_some());
            made.extend(meters.iter().map(|meter| meter.key));
            let most = if grant.is_some() { METERS_PER_RECEIVER } else { METERS_PER_SIDE };
            assert!(made.len() > most, "nobody is kept out by what others made");
        }
        if let Ok(answer) = answer {
            let Answer::Opened(opening) = answer else { panic!("an open was answered with {answer:?}") };
            for meter in &meters {
                let of = |&&(region, key, until, _): &&Counted| {
                    (region, key) == (opening.region, meter.key) && until > self.unix()
                };
                let known = self.counted.iter().any(|one| of(&one));
                let within = self.counted(opening.region, meter.key) < meter.opens.unwrap_or(u64::MAX);
                assert!(within || !known, "nothing is opened more often than a block allows");
            }
            let counted =
                meters.iter().map(|meter| (opening.region, meter.key, counted_until, grant.is_none()));
            self.counted.extend(counted);
            let pays = |right: &&Right| !right.fenced && right.payer == payer;
            let open = self.rights.iter().filter(pays);
            assert!(open.clone().count() < OPENS_MAX as usize, "nobody has more open than its quota");
            let mapped = open.filter(|right| right.opening.path == Path::Mapped).count();
            assert!(path == Path::Mediated || mapped < MAPPINGS_MAX as usize, "nor mapped");
            assert!(self.keys.insert(opening.open), "a key names one right, ever");
            let region = self.regions.get(&opening.region).expect("a right is to memory that exists");
            assert_eq!((region.lease, region.life), (lease, Life::Live));
            assert!(not_before >= region.since, "nothing opens by a token of a former owner's time");
            assert!(grant.is_some() || owner == region.owner, "nor by one of somebody else's");
            assert!(range.contains(opening.range), "no byte that the token does not reach");
            assert!(opening.range.end() <= region.bytes, "and none past the region");
            assert_eq!((opening.rights, opening.path), (rights, path));
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
                opening.deadline <= self.boot().plus(Micros(left)) || grant.is_none() && !narrowed,
                "and nothing lives past it"
            );
            if opening.path == Path::Mapped {
                let border = |at: u64| at.is_multiple_of(region.segment_bytes) || at == region.bytes;
                let (start, end) = (opening.range.start(), opening.range.end());
                assert!(border(start) && border(end), "a mapping is of whole segments");
                let whole = opening.range.len() == region.bytes && opening.deadline == region.deadline;
                assert!(region.pinned || whole, "and of whole regions where nothing can be rotated");
                assert!(!metered, "what is metered is not mapped");
                let step = self.kernel.config().mapping_end_step;
                let on_step = opening.deadline.0.is_multiple_of(step) || opening.deadline == region.deadline;
                assert!(!narrowed || on_step, "ends that clients choose fall together");
                let guarded = self.kernel.config().tier == Tier::Sealed
                    || sandboxed
                    || [0, UID].contains(&uid)
                    || !rights.contains(Rights::WRITE);
                assert!(guarded, "strangers write through the provider where nothing holds them");
            }
            assert!(
                !marks.iter().any(|mark| self.is_cut(opening.region, *mark)),
                "nor by a token that was taken back"
            );
            let follows = grant.is_none() && !narrowed && marks.len() == 1;
            self.rights.push(Right {
                opening,
                session,
                lease,
                grant,
                follows,
                ends_grant: grant.is_some() && !narrowed,
                handed_out: false,
                fenced: false,
                marks: marks.into(),
                root,
                payer,
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
            let marks = self.rights[index].marks.clone();
            let root = self.rights[index].root;
            file.out.push(Descriptor {
                region: opening.region,
                segment: range,
                grant,
                write,
                until,
                marks,
                root,
                former: false,
            });
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

    pub(super) fn take_mark(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let (lease, which) = (lease(bytes.byte()?), bytes.byte()? % 8);
        let expires = UnixMicros(self.unix().0.saturating_add(bytes.number(1_000)?));
        // Tokens of a grant are of no other; what they were made into may be of any.
        let (mark, grant) = match which {
            0 => (root(None), None),
            1..=3 => (root(Some(grant(which))), Some(grant(which))),
            _ => (child(which), None),
        };
        let region = self.find(lease).map(|(region, _)| region);
        let range = ByteRange::new(0, ByteRange::END_MAX).expect("not empty");
        let take = Take::Marks { lease, marks: [None, Some(mark)], grant, range, expires };
        let now_unix = self.unix();
        self.cutting = region.map(|region| (region, mark, grant));
        self.grant_went = false;
        let answer = self.step(Event::Take { take, cause: EndCause::Revoked, now_unix });
        match (region, grant) {
            (Some(region), Some(grant)) if self.grant_went => {
                self.revoked.push((region, grant, UnixMicros::MAX));
            }
            (Some(region), _) => self.cut.push((region, mark, expires)),
            (None, _) => {}
        }
        self.check_cut(lease, mark, &answer.expect("a revoke is never refused"));
        self.cutting = None;
        Some(())
    }
}
