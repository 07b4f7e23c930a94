//! A region that an honest owner, an honest receiver and an attacker share; its end; and what must hold then.

use std::time::{Duration, Instant};

use libmem::{Code, LeaseOptions, Leased, Lifetime, Reason, Receipt, Region, Rights, SigningKey, Target};
use policy::limits;

use super::common::log::{self, Log};
use super::common::world::Person;
use super::common::{Actor, MINUTE, SMALL, USERS, World, is_root, refused};
use super::villain::{Brief, Crime, Outcome, Tried, Villain};

/// The user that attackers are.
pub const ATTACKER: u32 = USERS[0];
/// The user that the honest receiver is.
const SURVIVOR: u32 = USERS[1];
/// What every byte of the region is before it is taken back.
const SECRET: u8 = 0x5a;

/// What is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The lease, with all that was shared of it.
    WholeRegion,
    /// What the attacker was given. The owner and the other receiver go on writing.
    OneAmongSeveral,
}

/// A node, its people and a shared region.
pub struct Scene {
    setting: Setting,
    bytes: u64,
    pub world: World,
    pub alice: Person,
    pub leased: Leased,
    /// Alice's mapping.
    region: Region,
    survivor: Actor,
    pub attacker: SigningKey,
    grant: libmem::Accepted,
    /// A lease that was made after the take-back, from the same pool.
    fresh: Option<(Person, Leased, Region)>,
    receipt: Option<Receipt>,
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
        if !is_root() {
            eprintln!("not run: only root can start a client of another user");
            return None;
        }
        let world = World::new();
        if !world.node.is_sealed() {
            eprintln!(
                "not run: this machine has no sealed descriptors, and without them other users do not write"
            );
            return None;
        }
        let alice = world.person();
        let leased = alice.lease(bytes);
        let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        region.write_at(0, &vec![SECRET; bytes as usize]).unwrap();
        let share = |key: &SigningKey| {
            let to = Person { key: SigningKey::from_seed(&key.seed()), client: world.connect(key) };
            alice.share(&leased.lease, &to, Rights::READ_WRITE)
        };
        let (attacker, honest) = (world.register(), world.register());
        let (grant, shared) = (share(&attacker), share(&honest));
        let mut survivor = world.actor(&honest, SURVIVOR);
        let memory = survivor.open(&shared.token.to_text(), Rights::READ_WRITE, true);
        survivor.start_using(memory, true, false);
        let (fresh, receipt) = (None, None);
        Some(Self { setting, bytes, world, alice, leased, region, survivor, attacker, grant, fresh, receipt })
    }

    /// The attacker's process, with a token for reading and writing the region.
    pub fn villain(&self, crime: Crime) -> Villain {
        let brief = Brief {
            crime,
            socket: self.world.node.endpoint().path().to_owned(),
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
        let started = Instant::now();
        let reason = Reason::new("a test ends it").unwrap();
        let receipt = self.alice.client.revoke(self.target(), reason).unwrap();
        let took = started.elapsed();
        receipt.verify(self.world.node.issuer()).unwrap();
        let dead = Duration::from_micros(receipt.body.dead.0);
        assert!(dead <= Duration::from_millis(limits::KILL_MS_MAX), "it was held up: {:?}", receipt.body);
        assert!(took <= Duration::from_millis(limits::RESERVATION_MS_MAX), "acknowledged after {took:?}");
        assert_eq!(receipt.body.wiped_bytes, self.bytes, "{:?}", receipt.body);
        self.receipt = Some(receipt);
        match self.setting {
            Setting::WholeRegion => {
                refused(self.region.read_at(0, &mut [0; 8]), Code::Revoked);
                assert_eq!(self.survivor.hear_stopped(), "E_REVOKED");
            }
            Setting::OneAmongSeveral => self.others_go_on(),
        }
        let carol = self.world.person();
        let options = LeaseOptions::new(self.bytes, MINUTE).lifetime(Lifetime::Detached);
        let leased = carol.client.lease(options).unwrap();
        let region = carol.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        self.fresh = Some((carol, leased, region));
        self.fresh_is_clean();
    }

    /// What the others wrote is there, and they can write. The honest receiver writes back what it reads of the first
    /// bytes of each page, so the owner's marks stand behind those.
    #[track_caller]
    fn others_go_on(&mut self) {
        let mark = [0xa1; 64];
        self.region.write_at(2048, &mark).unwrap();
        let mut found = [0; 64];
        self.region.read_at(2048, &mut found).unwrap();
        assert_eq!(found, mark);
        self.region.read_at(1024, &mut found).unwrap();
        assert_eq!(found, [SECRET; 64], "the owner's bytes changed");
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
            self.survivor.kill();
            assert!(self.survivor.hear().is_none(), "the honest receiver was to write until its end");
        }
        // While the attacker still has all that it kept: the ledger counts what is leased, not what it clings to.
        let (carol, leased, region) = self.fresh.take().expect("it was made at the take-back");
        drop(region);
        carol.client.release(leased.lease.id).unwrap();
        drop(carol);
        if self.setting == Setting::OneAmongSeveral {
            self.alice.client.release(self.leased.lease.id).unwrap();
        }
        drop((self.region, self.alice, self.survivor));
        self.world.balances();
        drop(villain);
        let log = self.world.finish();
        let receipt = self.receipt.expect("it was taken back");
        let index = receipt.body.log_index.expect("it was recorded");
        let revoked = &log.broker[index as usize];
        match self.setting {
            Setting::WholeRegion => {
                assert_eq!(revoked["event"], "lease.revoke", "{revoked}");
                let cut = log::about(&log.provider, "lease.revoke", self.leased.lease.id);
                assert_eq!(cut.len(), 1);
                assert_eq!((&cut[0]["method"], &cut[0]["cause"]), (&"cut".into(), &"revoked".into()));
            }
            Setting::OneAmongSeveral => {
                assert_eq!(revoked["event"], "share.end", "{revoked}");
                assert_eq!(revoked["grant"], self.grant.grant.id.to_string());
            }
        }
        log
    }
}
