//! A region that an honest owner, an honest receiver and an attacker share; its end; and what must hold then.

use std::io::Write;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use caps::wire::link::Method;
use libmem::{
    ByteRange, Code, LeaseOptions, Leased, Lifetime, Reason, Receipt, Region, Rights, ShareOptions,
    SigningKey, Target,
};
use policy::limits;

use super::common::log::{self, Log};
use super::common::world::Person;
use super::common::{Actor, MINUTE, NOBODY, SMALL, USERS, World, is_root, refused, until};
use super::stage::PAGE;
use super::villain::{Brief, Crime, Outcome, Tried, Villain};

/// The user that attackers are.
pub const ATTACKER: u32 = USERS[0];
/// The users that the honest receivers are.
const SURVIVORS: [u32; 2] = [USERS[1], NOBODY];
/// What every byte of the region is before it is taken back, but for the words that the honest receivers count in.
const SECRET: u8 = 0x5a;
/// Where in each page the honest receivers count: the first word is where attackers write.
const COUNTERS: [u64; 2] = [0, 8];
/// Where the owner keeps bytes of its own, in the first page.
const MARKS: u64 = 2048;
/// Exposed by whoever sets a scene: by those whose bound is a time, alone. An attack on the processors by another test of
/// this program would be measured with theirs.
static PROCESSORS: RwLock<()> = RwLock::new(());

/// What is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The lease, with all that was shared of it.
    WholeRegion,
    /// What the attacker was given. The owner and the other receiver go on writing.
    OneAmongSeveral,
}

/// What of the region the attacker's end must have wiped, in [`Setting::OneAmongSeveral`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// So many bytes were handed out to it, and are rotated.
    Bytes(u64),
    /// No descriptor ever went to it: closing its rights is all.
    Nothing,
    /// It died while the descriptor was on its way: either is right.
    Perhaps,
}

#[expect(dead_code, reason = "held for what its end means")]
enum Turn {
    Together(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A node, its people and a shared region.
pub struct Scene {
    setting: Setting,
    bytes: u64,
    /// What the attacker was given a descriptor of.
    pub exposed: Exposed,
    pub world: World,
    pub alice: Person,
    pub leased: Leased,
    /// Alice's mapping.
    region: Region,
    survivors: [Actor; 2],
    /// What the owner wrote last.
    mark: u8,
    pub attacker: SigningKey,
    grant: libmem::Accepted,
    /// A lease that was made after the take-back, from the same pool.
    fresh: Option<(Person, Leased, Region)>,
    receipt: Option<Receipt>,
    _turn: Turn,
}

/// Plays an attack on a small region that needs nobody's help.
pub fn play(setting: Setting, crime: Crime) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    let mut villain = scene.villain(crime);
    villain.ready();
    scene.take_back();
    scene.judge(villain.after());
    scene.end(villain);
}

impl Scene {
    /// Sets it, or says why this machine cannot.
    pub fn set(setting: Setting, bytes: u64) -> Option<Self> {
        let turn = Turn::Together(PROCESSORS.read().unwrap_or_else(PoisonError::into_inner));
        Self::with(setting, LeaseOptions::new(bytes, MINUTE), None, turn)
    }

    /// Sets it when no other scene of this program is played.
    pub fn alone(setting: Setting, bytes: u64) -> Option<Self> {
        let turn = Turn::Alone(PROCESSORS.write().unwrap_or_else(PoisonError::into_inner));
        Self::with(setting, LeaseOptions::new(bytes, MINUTE), None, turn)
    }

    /// Sets it with a region of several segments, of which the attacker is given the first.
    pub fn of_segments(setting: Setting, bytes: u64, segment: u64) -> Option<Self> {
        let turn = Turn::Together(PROCESSORS.read().unwrap_or_else(PoisonError::into_inner));
        let options = LeaseOptions::new(bytes, MINUTE).segment(segment);
        Self::with(setting, options, Some(ByteRange::new(0, segment).unwrap()), turn)
    }

    fn with(
        setting: Setting,
        options: LeaseOptions,
        attacked: Option<ByteRange>,
        turn: Turn,
    ) -> Option<Self> {
        if !is_root() {
            return not_run("only root can start a client of another user");
        }
        let world = World::new();
        if !world.node.is_sealed() {
            return not_run(
                "this machine has no sealed descriptors, and without them other users do not write",
            );
        }
        let alice = world.person();
        let leased = alice.client.lease(options.lifetime(Lifetime::Detached)).unwrap();
        let bytes = leased.lease.range.len();
        let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        let mut secret = vec![SECRET; bytes as usize];
        for page in secret.chunks_mut(PAGE) {
            page[..16].fill(0);
        }
        region.write_at(0, &secret).unwrap();
        let attacker = world.register();
        let grant = share(&world, &alice, &leased, &attacker, attacked);
        let survivors = [0, 1].map(|n| {
            let honest = world.register();
            let shared = share(&world, &alice, &leased, &honest, None);
            let mut survivor = world.actor(&honest, SURVIVORS[n]);
            let memory = survivor.open(&shared.token.to_text(), Rights::READ_WRITE, true);
            survivor.start_counting(memory, COUNTERS[n]);
            survivor
        });
        let exposed = Exposed::Bytes(attacked.map_or(bytes, ByteRange::len));
        let (fresh, receipt, mark, _turn) = (None, None, 0, turn);
        Some(Self {
            setting,
            bytes,
            exposed,
            world,
            alice,
            leased,
            region,
            survivors,
            mark,
            attacker,
            grant,
            fresh,
            receipt,
            _turn,
        })
    }

    /// Takes back what somebody else was given and maps, so that the region is rotated; in time, whatever the attacker
    /// does meanwhile.
    #[track_caller]
    pub fn rotate(&mut self) {
        let other = self.world.register();
        let shared = share(&self.world, &self.alice, &self.leased, &other, None);
        let client = self.world.connect(&other);
        let theirs = client.open_mapped(&shared.token, Rights::READ_WRITE).unwrap();
        let receipt = self.revoke(Target::Grant(shared.grant.id));
        assert_eq!((receipt.body.method, receipt.body.wiped_bytes), (Method::Rotate, self.bytes));
        refused(theirs.read_at(0, &mut [0; 8]), Code::Revoked);
        self.others_go_on();
    }

    /// Takes something back, which must be acknowledged in time.
    #[track_caller]
    fn revoke(&self, target: Target) -> Receipt {
        let started = Instant::now();
        let reason = Reason::new("a test ends it").unwrap();
        let receipt = self.alice.client.revoke(target, reason).unwrap();
        let took = started.elapsed();
        receipt.verify(self.world.node.issuer()).unwrap();
        let dead = Duration::from_micros(receipt.body.dead.0);
        assert!(dead <= Duration::from_millis(limits::KILL_MS_MAX), "it was held up: {:?}", receipt.body);
        // A rotation copies at the speed of the machine, before it is acknowledged; but whoever asked still listens.
        let bound = match receipt.body.method {
            Method::Rotate => limits::REQUEST_MS_DEFAULT,
            _ => limits::RESERVATION_MS_MAX,
        };
        assert!(took <= Duration::from_millis(bound), "acknowledged after {took:?}");
        receipt
    }

    /// The attacker's process, with a token for reading and writing the region.
    pub fn villain(&self, crime: Crime) -> Villain {
        let brief = Brief {
            crime,
            socket: self.world.node.endpoint().path().expect("a socket").to_owned(),
            seed: *self.attacker.seed(),
            token: self.grant.token.to_text().to_string(),
        };
        Villain::start(ATTACKER, &brief)
    }

    /// What the setting takes back.
    fn target(&self) -> Target {
        match self.setting {
            Setting::WholeRegion => Target::Lease(self.leased.lease.id),
            Setting::OneAmongSeveral => Target::Grant(self.grant.grant.id),
        }
    }

    /// Takes the attacker's right back, which must be acknowledged in time; and sees that the others have what the
    /// setting leaves them.
    #[track_caller]
    pub fn take_back(&mut self) {
        let receipt = self.revoke(self.target());
        let wiped = receipt.body.wiped_bytes;
        match self.setting {
            Setting::WholeRegion => {
                assert_eq!((receipt.body.method, wiped), (Method::Cut, self.bytes), "{:?}", receipt.body);
                refused(self.region.read_at(0, &mut [0; 8]), Code::Revoked);
                for survivor in &mut self.survivors {
                    assert_eq!(survivor.hear_stopped(), "E_REVOKED");
                }
            }
            Setting::OneAmongSeveral => {
                let right = match self.exposed {
                    Exposed::Bytes(bytes) => (receipt.body.method, wiped) == (Method::Rotate, bytes),
                    Exposed::Nothing => (receipt.body.method, wiped) == (Method::Fence, 0),
                    Exposed::Perhaps => wiped == 0 || wiped == self.bytes,
                };
                assert!(right, "{:?}, and it was exposed to {:?}", receipt.body, self.exposed);
                self.others_go_on();
            }
        }
        self.receipt = Some(receipt);
        let carol = self.world.person();
        // A reservation waits for its memory no longer than RESERVATION_MS_MAX. Where an attack keeps the processors busy
        // that may be too short; then it was given up, and is asked for again.
        let leased = until("memory for a fresh lease", || {
            let options = LeaseOptions::new(self.bytes, MINUTE).lifetime(Lifetime::Detached);
            match carol.client.lease(options) {
                Err(error) if error.code() == Code::TokenRevoked => None,
                leased => Some(leased.unwrap()),
            }
        });
        let region = carol.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        self.fresh = Some((carol, leased, region));
        self.fresh_is_clean();
    }

    /// What the owner wrote before is there, and it can write; the honest receivers count on, and have missed nothing,
    /// or they would have stopped.
    #[track_caller]
    fn others_go_on(&mut self) {
        let mut found = [0; 64];
        self.region.read_at(MARKS, &mut found).unwrap();
        let before = if self.mark == 0 { SECRET } else { self.mark };
        assert_eq!(found, [before; 64], "the owner's bytes changed");
        self.mark += 1;
        self.region.write_at(MARKS, &[self.mark; 64]).unwrap();
        self.region.read_at(MARKS, &mut found).unwrap();
        assert_eq!(found, [self.mark; 64]);
        let last = self.bytes - PAGE as u64;
        for at in [0, last / 2 / PAGE as u64 * PAGE as u64, last] {
            self.region.read_at(at + 1024, &mut found).unwrap();
            assert_eq!(found, [SECRET; 64], "the owner's bytes changed");
            for counter in COUNTERS {
                let before = self.region.load_u64(at + counter).unwrap();
                until("an honest receiver counts on", || {
                    (self.region.load_u64(at + counter).unwrap() > before).then_some(())
                });
            }
        }
    }

    /// Nothing of the old region, and nothing that the attacker writes, is in a lease that was made since.
    #[track_caller]
    fn fresh_is_clean(&self) {
        let (_, _, region) = self.fresh.as_ref().expect("it was made at the take-back");
        let mut bytes = vec![1; self.bytes as usize];
        region.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "bytes of another lease");
    }

    /// No try may have reached anything.
    #[track_caller]
    pub fn judge(&self, tried: Vec<Tried>) {
        assert!(!tried.is_empty(), "an attack that tries nothing shows nothing");
        let holds = |outcome| match outcome {
            Outcome::Signal(signal) => signal == libc::SIGBUS,
            Outcome::Errno(errno) => errno != 0,
            Outcome::Zeros | Outcome::Orphaned | Outcome::Answered => true,
            Outcome::Leak | Outcome::Done => false,
        };
        let broken: Vec<_> = tried.iter().filter(|tried| !holds(tried.outcome)).collect();
        assert!(broken.is_empty(), "{broken:?}");
        if self.fresh.is_some() {
            self.fresh_is_clean();
        }
    }

    /// Everybody leaves, the attacker too; then the books balance, the bystander is well, and the logs verify and have
    /// the revocation and the end of the region.
    #[track_caller]
    pub fn end(mut self, villain: Villain) -> Log {
        if self.setting == Setting::OneAmongSeveral {
            self.others_go_on();
            for survivor in &mut self.survivors {
                survivor.kill();
                let last = survivor.hear();
                assert!(last.is_none(), "the honest receiver was to count until its end: {last:?}");
            }
        }
        // While the attacker still has all that it kept: the ledger counts what is leased, not what it clings to.
        let (carol, leased, region) = self.fresh.take().expect("it was made at the take-back");
        drop(region);
        carol.client.release(leased.lease.id).unwrap();
        drop(carol);
        if self.setting == Setting::OneAmongSeveral {
            self.alice.client.release(self.leased.lease.id).unwrap();
        }
        drop((self.region, self.alice, self.survivors));
        self.world.balances();
        drop(villain);
        let log = self.world.finish();
        let receipt = self.receipt.expect("it was taken back");
        let index = receipt.body.log_index.expect("it was recorded");
        let revoked = &log.broker[index as usize];
        match self.setting {
            Setting::WholeRegion => {
                assert_eq!(revoked["event"], "lease.revoke", "{revoked}");
                let mut cut = log::about(&log.provider, "lease.revoke", self.leased.lease.id);
                cut.retain(|entry| entry["method"] == "cut");
                assert_eq!(cut.len(), 1);
                assert_eq!(cut[0]["cause"], "revoked");
            }
            Setting::OneAmongSeveral => {
                assert_eq!(revoked["event"], "share.end", "{revoked}");
                assert_eq!(revoked["grant"], self.grant.grant.id.to_string());
                let cut = log::about(&log.provider, "lease.revoke", self.grant.grant.id);
                let rotated = cut.iter().any(|entry| entry["method"] == "rotate");
                assert!(
                    self.exposed == Exposed::Perhaps || rotated == (self.exposed != Exposed::Nothing),
                    "{cut:?}"
                );
            }
        }
        log
    }
}

/// Says why an attack is not played: past the test framework, which keeps what a test that passes prints to itself.
pub fn not_run<T>(why: &str) -> Option<T> {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "{}: not run: {why}", test.name().unwrap_or("a test"));
    None
}

/// Has `key` given a right to read and write the lease, or a part of it.
fn share(
    world: &World,
    alice: &Person,
    leased: &Leased,
    key: &SigningKey,
    range: Option<ByteRange>,
) -> libmem::Accepted {
    let mut options = ShareOptions::new(key.public(), Rights::READ_WRITE);
    if let Some(range) = range {
        options = options.range(range);
    }
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
    let client = world.connect(key);
    let proposal = client.share_show(grant.id).unwrap();
    client.share_accept(&proposal.contract, Lifetime::Detached, key).unwrap()
}
