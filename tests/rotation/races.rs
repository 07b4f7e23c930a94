//! Rights are taken back while other processes use them on every path. Nothing that began after the acknowledgement
//! succeeds.
//!
//! A round: bob is given a grant to each segment of a region of alice's. Processes of his, of several users, open each
//! on every path, some times each, and use all of that at once. Then alice takes it back, in the round's [`Manner`]. What
//! counts as one race, and when it is lost, [`race`](crate::common::race) says: it is one way of one process in one round.
//! A right that is given once, and raced for on four paths by two processes that opened it four times each, is 32 races, of
//! which each has a mapping, a slot or a descriptor of its own to lose.

use std::fmt;
use std::time::{Duration, Instant};

use libmem::{
    ByteRange, Client, Code, GrantId, LeaseOptions, Leased, Lifetime, Region, Result, Rights, ShareOptions,
    SigningKey, Target,
};

use crate::common::board::Board;
use crate::common::race::{PATHS, Trace};
use crate::common::{Actor, Ask, Said, USERS, refused};
use crate::scene::{Scene, reason};

/// Segments of a region, and so grants of a round.
const GRANTS: usize = 4;
const SEGMENT: u64 = 64 << 10;
const BYTES: u64 = SEGMENT * GRANTS as u64;
/// Processes of bob's.
const RACERS: usize = 2;
/// Longer than any run takes.
const LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Rounds that one region is rotated in. A provider remembers so many revoked grants of a region, and no more.
const ROUNDS_PER_REGION: u32 = policy::limits::REVOCATIONS_PER_REGION_MAX as u32 / GRANTS as u32 / 2;
/// Where alice counts in each segment. Bob's processes write to the first word.
const COUNTER: u64 = 2048;
/// Of the rounds, those that need not have been: a disk that is slow for a second records nothing, and what is not recorded
/// is not opened. More is a defect.
const UNRECORDED_PERCENT_MAX: u32 = 2;
/// Of the ways, those that need not have raced: their process waited for a processor when it mattered.
const UNRACED_PERCENT_MAX: u64 = 50;
/// Below so many, percentages say nothing.
const FEW: u32 = 10;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(30);

/// How rights are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All that alice gave bob, in one revoke: its segments are rotated, in one rotation.
    Holder,
    /// The lease, with every grant of it: the region is cut and gone.
    Lease,
    /// Each grant by a revoke of its own, all at once: rotations beside one another.
    Grants,
    /// The whole region once more, by its own name.
    Region,
}

/// Each, in the order that they are declared in.
const MANNERS: [Manner; 4] = [Manner::Holder, Manner::Lease, Manner::Grants, Manner::Region];

/// A region of alice's that she maps and counts in.
struct Ground {
    leased: Leased,
    mine: Region,
    rounds: u32,
}

/// Alice, bob, and bob's processes.
pub struct Races {
    scene: Scene,
    bob: SigningKey,
    /// Sessions, so that what is recorded for each grant is recorded at once.
    owners: Vec<Client>,
    receivers: Vec<Client>,
    racers: Vec<Actor>,
    board: Board,
    ground: Option<Ground>,
    opens: usize,
    pub tally: Tally,
}

/// What came of the races so far.
#[derive(Default)]
pub struct Tally {
    /// By path.
    pub raced: [u64; PATHS.len()],
    /// Of these, those that still succeeded after the revoke was called.
    pub contested: [u64; PATHS.len()],
    /// Ways that succeeded after the acknowledgement, whether they raced or not.
    pub late: [u64; PATHS.len()],
    /// Ways that were no race.
    pub unraced: [u64; PATHS.len()],
    /// All that were tried.
    pub rounds: u32,
    /// Rounds that were not, because the node could not record them.
    pub unrecorded: u32,
    /// From the call to the acknowledgement, in nanoseconds, by manner.
    took_ns: [Vec<u64>; MANNERS.len()],
}

/// A grant of a round.
struct Given {
    grant: GrantId,
    token: String,
}

impl Races {
    /// With processes that open each grant so often on each path; nothing where rotation cannot be seen.
    pub fn set(opens: usize) -> Option<Self> {
        let scene = Scene::with(BYTES, Some(SEGMENT), LIFE)?;
        let bob = scene.world.register();
        let connect = |key: &SigningKey| (0..GRANTS).map(|_| scene.world.connect(key)).collect();
        let (owners, receivers, board) = (connect(&scene.alice.key), connect(&bob), Board::new());
        let mut racers: Vec<_> = USERS[..RACERS].iter().map(|&uid| scene.world.actor(&bob, uid)).collect();
        for racer in &mut racers {
            assert!(matches!(racer.ask(&Ask::TakeBoard), Said::Ready));
            racer.give(board.as_fd());
            assert!(matches!(racer.hear(), Some(Said::Done)));
        }
        let (ground, tally) = (None, Tally::default());
        Some(Self { scene, bob, owners, receivers, racers, board, ground, opens, tally })
    }

    /// Races in every manner until there were so many on each path, or one was lost.
    pub fn run(&mut self, races: u64) {
        let (started, mut told) = (Instant::now(), Instant::now());
        let each = races.div_ceil(PATHS.len() as u64);
        for manner in MANNERS.into_iter().cycle() {
            if self.tally.raced.iter().all(|&raced| raced >= each) {
                break;
            }
            self.round(manner, |races, given| races.take_back(manner, given));
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                eprintln!("{:?}: {}", started.elapsed(), self.tally);
            }
            self.tally.check();
        }
        let (all, took) = (self.tally.raced.iter().sum::<u64>(), started.elapsed());
        eprintln!(
            "{all} races in {took:.1?}, {:.0} a second\n{}",
            all as f64 / took.as_secs_f64(),
            self.tally
        );
    }

    /// One round, ended by `end`, which says on the board when that was called and acknowledged.
    fn round(&mut self, manner: Manner, end: impl FnOnce(&Self, &[Given])) {
        self.tally.rounds += 1;
        self.board.clear();
        let given = self.prepare().and_then(|()| self.give());
        let Some(given) = given else {
            self.tally.unrecorded += 1;
            return self.abandon();
        };
        let tokens: Vec<_> = given.iter().map(|given| given.token.clone()).collect();
        for racer in &mut self.racers {
            racer.tell(&Ask::Race { tokens: tokens.clone(), opens: self.opens });
        }
        let started = self.racers.iter_mut().map(|racer| match racer.hear() {
            Some(Said::Started) => true,
            Some(Said::Refused { code }) if code == Code::AuditUnavailable.text() => false,
            said => panic!("no race: {said:?}"),
        });
        let started: Vec<_> = started.collect();
        self.tally.unrecorded += u32::from(started.contains(&false));
        end(self, &given);
        for (racer, _) in self.racers.iter_mut().zip(started).filter(|(_, started)| *started) {
            let Some(Said::Raced { traces }) = racer.hear() else { panic!("a racer is gone") };
            assert_eq!(traces.len(), PATHS.len() * GRANTS * self.opens);
            self.tally.take(&traces, &self.board);
        }
        let took_ns = |grant| self.board.acknowledged_ns(grant) - self.board.called_ns(grant);
        self.tally.took_ns[manner as usize].extend((0..GRANTS).map(took_ns));
        self.look(manner);
    }

    /// A region to race for, a fresh one where that is due. `None` if it is not recorded.
    fn prepare(&mut self) -> Option<()> {
        if self.ground.as_ref().is_some_and(|ground| ground.rounds == ROUNDS_PER_REGION) {
            self.abandon();
        }
        if self.ground.is_none() {
            let alice = &self.scene.alice.client;
            let options = LeaseOptions::new(BYTES, LIFE).segment(SEGMENT).lifetime(Lifetime::Detached);
            let leased = recorded(alice.lease(options))?;
            let mine = recorded(alice.open_mapped(&leased.token, Rights::READ_WRITE));
            let Some(mine) = mine else {
                self.scene.alice.client.release(leased.lease.id).unwrap();
                return None;
            };
            self.ground = Some(Ground { leased, mine, rounds: 0 });
        }
        Some(())
    }

    /// Gives the region back, whatever there is of it.
    fn abandon(&mut self) {
        if let Some(ground) = self.ground.take() {
            self.scene.alice.client.release(ground.leased.lease.id).unwrap();
        }
    }

    /// Gives bob a grant to each segment. `None` if one of them is not recorded.
    fn give(&self) -> Option<Vec<Given>> {
        let ground = self.ground.as_ref().expect("prepared");
        let (alice, bob) = (&self.scene.alice.key, &self.bob);
        let one = |segment: u64, owner: &Client, receiver: &Client| {
            let range = ByteRange::new(segment * SEGMENT, (segment + 1) * SEGMENT).unwrap();
            let options = ShareOptions::new(bob.public(), Rights::READ_WRITE).range(range);
            let grant = recorded(owner.share_offer(&ground.leased.lease, &options, alice))?.id;
            let contract = receiver.share_show(grant).unwrap().contract;
            let accepted = recorded(receiver.share_accept(&contract, Lifetime::Detached, bob))?;
            Some(Given { grant, token: accepted.token.to_text().to_string() })
        };
        std::thread::scope(|scope| {
            let pairs = (0..).zip(self.owners.iter().zip(&self.receivers));
            let threads: Vec<_> =
                pairs.map(|(segment, (from, to))| scope.spawn(move || one(segment, from, to))).collect();
            // All of them, before the first that failed is looked at.
            let given: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            given.into_iter().collect()
        })
    }

    /// Takes all of it back.
    fn take_back(&self, manner: Manner, given: &[Given]) {
        let lease = &self.ground.as_ref().expect("prepared").leased.lease;
        match manner {
            Manner::Grants => self.take_each(given),
            Manner::Holder => self.take_together(Target::Holder(self.bob.public())),
            Manner::Lease => self.take_together(Target::Lease(lease.id)),
            Manner::Region => self.take_together(Target::Region(lease.region)),
        }
    }

    fn take_together(&self, target: Target) {
        (0..GRANTS).for_each(|grant| self.board.call(grant));
        let receipt = self.scene.alice.client.revoke(target, reason()).unwrap();
        (0..GRANTS).for_each(|grant| self.board.acknowledge(grant));
        receipt.verify(self.scene.world.node.issuer()).unwrap();
    }

    fn take_each(&self, given: &[Given]) {
        std::thread::scope(|scope| {
            for (place, (given, owner)) in given.iter().zip(&self.owners).enumerate() {
                scope.spawn(move || {
                    self.board.call(place);
                    let receipt = owner.revoke(Target::Grant(given.grant), reason()).unwrap();
                    self.board.acknowledge(place);
                    receipt.verify(self.scene.world.node.issuer()).unwrap();
                });
            }
        });
    }

    /// Alice has lost what she took back from everybody, and nothing else.
    fn look(&mut self, manner: Manner) {
        let ground = self.ground.as_mut().expect("raced for");
        match manner {
            Manner::Holder | Manner::Grants => {
                for segment in 0..GRANTS as u64 {
                    let at = segment * SEGMENT + COUNTER;
                    assert_eq!(
                        ground.mine.load_u64(at).unwrap(),
                        u64::from(ground.rounds),
                        "segment {segment}"
                    );
                    ground.mine.store_u64(at, u64::from(ground.rounds) + 1).unwrap();
                }
                ground.rounds += 1;
            }
            Manner::Lease | Manner::Region => {
                refused(ground.mine.load_u64(COUNTER), Code::Revoked);
                self.ground = None;
            }
        }
    }

    /// The books balance, and the logs verify.
    pub fn end(mut self) {
        self.abandon();
        let Self { scene, owners, receivers, racers, .. } = self;
        drop((owners, receivers, racers));
        scene.end();
    }
}

/// What was done, or `None` if it could not be recorded and so was not done.
fn recorded<T>(result: Result<T>) -> Option<T> {
    match result {
        Err(error) if error.code() == Code::AuditUnavailable => None,
        done => Some(done.unwrap()),
    }
}

impl Tally {
    fn take(&mut self, traces: &[Trace], board: &Board) {
        for trace in traces {
            let verdict = trace.judge(board);
            let path = trace.path;
            if verdict.late {
                let by = trace.last_ns - board.acknowledged_ns(trace.grant);
                eprintln!("{} was late by {by} ns: {trace:?}", PATHS[path]);
            }
            self.late[path] += u64::from(verdict.late);
            self.raced[path] += u64::from(verdict.raced);
            self.contested[path] += u64::from(verdict.raced && verdict.contested);
            self.unraced[path] += u64::from(!verdict.raced);
        }
    }

    /// None was lost, and few were none.
    fn check(&self) {
        assert_eq!(
            self.late,
            [0; PATHS.len()],
            "accesses that began after the acknowledgement, by {PATHS:?}"
        );
        let unrecorded = FEW.max(self.rounds * UNRECORDED_PERCENT_MAX / 100);
        assert!(self.unrecorded <= unrecorded, "the node does not record: {self}");
        let (raced, unraced): (u64, u64) = (self.raced.iter().sum(), self.unraced.iter().sum());
        let bound = (raced + unraced) * UNRACED_PERCENT_MAX / 100;
        assert!(self.rounds < FEW || unraced <= bound, "too few of them raced: {self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, unrecorded, .. } = self;
        write!(f, "{rounds} rounds, {unrecorded} skipped because nothing was recorded")?;
        let numbers = self.raced.iter().zip(&self.contested).zip(&self.unraced).zip(&self.late);
        for (path, (((raced, contested), unraced), late)) in PATHS.iter().zip(numbers) {
            write!(
                f,
                "\n  {path:<10} {raced:>8} races, late {late}; {contested} succeeded after the call; {unraced} ways were no race"
            )?;
        }
        for (manner, took_ns) in MANNERS.iter().zip(&self.took_ns).filter(|(_, took)| !took.is_empty()) {
            let mut took_ns = took_ns.clone();
            took_ns.sort_unstable();
            let at = |percent: usize| Duration::from_nanos(took_ns[(took_ns.len() - 1) * percent / 100]);
            let manner = format!("{manner:?}");
            write!(
                f,
                "\n  {manner:<10} acknowledged after {:.2?} (median), {:.2?} (99 %), {:.2?} (longest)",
                at(50),
                at(99),
                at(100)
            )?;
        }
        Ok(())
    }
}

#[test]
fn a_right_that_was_not_taken_back_is_judged_late_on_every_path() {
    let Some(mut races) = Races::set(2) else { return };
    let spared = GRANTS - 1;
    races.round(Manner::Grants, |races, given| {
        races.take_each(&given[..spared]);
        races.board.call(spared);
        races.board.acknowledge(spared);
    });
    assert_eq!(races.tally.late, [RACERS as u64 * 2; PATHS.len()], "{}", races.tally);
    races.end();
}
