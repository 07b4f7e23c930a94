//! For the fuzz target `broker_story`: any bytes as what a few people with keys of their own do to one broker.
//!
//! Bytes alone do not get past a signature, so that a stream of commands rarely has an offer in it that is accepted. Here
//! each byte chooses a step, and the step is signed by whoever takes it, or damaged in one place. What must come of it is
//! said beforehand by a naive [`Model`].

use std::sync::OnceLock;

use caps::Code;
use caps::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::{Signature, SigningKey};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::link::{Notice, Take};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime, Revocation, Target};
use caps::wire::{Name, Reason};

use super::model::{Model, Said, Stage, Verdict};
use super::{encode, small_genesis};
use crate::state::{
    Acceptance, Actor, Answer, Applied, Broker, Command, Effect, Genesis, Kind, Narrowing, PolicyVerdict,
    TokenCut, Undo,
};

/// Most steps of one story.
const STEPS_MAX: usize = 160;
/// The administrator, three who may be registered, and one more than the table has room for.
pub(super) const PEOPLE: u8 = 5;
const NAMES: [&str; PEOPLE as usize] = ["admin", "alice", "bob", "small", "eve"];
const PAGE: u64 = 4096;
/// What no row is called.
const NOBODY: [u8; 16] = [0xee; 16];

/// The story's people. Their seeds look like nothing else, so that a secret in an entry would be found.
struct People {
    seeds: Vec<[u8; 32]>,
    keys: Vec<SigningKey>,
    publics: Vec<PrincipalKey>,
}

/// Derived once: that is the slowest part of a story.
fn people() -> &'static People {
    static PEOPLE_ONCE: OnceLock<People> = OnceLock::new();
    PEOPLE_ONCE.get_or_init(|| {
        let seed =
            |n: u8| std::array::from_fn(|index| (index as u8).wrapping_mul(37).wrapping_add(n * 11 + 5));
        let seeds: Vec<[u8; 32]> = (0..PEOPLE).map(seed).collect();
        let keys: Vec<_> = seeds.iter().map(SigningKey::from_seed).collect();
        let publics = keys.iter().map(SigningKey::public).collect();
        People { seeds, keys, publics }
    })
}

pub(super) fn public(n: u8) -> PrincipalKey {
    people().publics[usize::from(n)]
}

fn name(n: u8) -> Name {
    Name::new(NAMES[usize::from(n)]).expect("a literal that is a name")
}

fn genesis() -> Genesis {
    Genesis { admin: public(0), ..small_genesis() }
}

/// The bytes that choose. After the last there is nothing.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, count: usize) -> Option<usize> {
        self.next().map(|byte| usize::from(byte) % count)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.below(of.len()).map(|at| of[at])
    }

    /// Mostly no.
    fn rarely(&mut self) -> Option<bool> {
        self.next().map(|byte| byte >= 0xe0)
    }
}

/// What became of a story, for tests of the target itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Commands that were applied.
    pub steps: usize,
    /// Contracts that both parties signed.
    pub accepted: usize,
    /// Signatures that were refused.
    pub forged: usize,
    /// Steps in the wrong order.
    pub disordered: usize,
}

struct Story<'a> {
    choices: Choices<'a>,
    broker: Broker,
    model: Model,
    draws: u16,
    told: Told,
    /// The present life of the provider.
    provider: ProviderId,
}

/// Tells the story that `data` chooses, step by step beside the model: the answer's code, every row's state, the
/// invariants, what the provider must be told, that no entry holds a secret, and that a restored snapshot goes on as the
/// state would have.
///
/// # Panics
/// If something that must hold does not.
pub fn story_any(data: &[u8]) -> Told {
    let genesis = genesis();
    let model = Model::new(&genesis, PEOPLE);
    let broker = Broker::new(genesis).expect("the small cluster is valid");
    let provider = broker.genesis().provider.as_ref().expect("the small cluster has a provider").id;
    let told = Told::default();
    let mut story = Story { choices: Choices(data), broker, model, draws: 0, told, provider };
    for n in 1..4 {
        let kind = Kind::PrincipalAdd { name: name(n), key: public(n) };
        let said = story.model.add(0, n);
        story.take(Some(0), None, kind, said);
    }
    while story.told.steps < STEPS_MAX {
        if story.step().is_none() {
            break;
        }
    }
    story.restore();
    story.told
}

impl Story<'_> {
    /// Takes one step; `None` once nothing more is chosen.
    fn step(&mut self) -> Option<()> {
        let what = self.choices.next()?;
        let after = self.choices.next()?;
        // Mostly a moment, at times past a deadline, and at times back: the state's time does not follow.
        let now = self.model.now();
        self.model.proceed(match after {
            0..0xe8 => now + u64::from(after & 7),
            0xe8..0xf8 => now + u64::from(after & 15) * 80,
            _ => now.saturating_sub(u64::from(after & 15)),
        });
        // Half of all steps lead on, or few stories would come to a share's end.
        match if what < 0x80 { what % 24 } else { self.model.onward() } {
            0..3 => self.reserve(),
            3..6 => self.commit(),
            6 => self.renew(),
            7 => self.release(),
            8..11 => self.offer(),
            11..13 => self.issue(),
            13..16 => self.accept(),
            16 => self.narrow(),
            17 => self.revoke(),
            18 => self.revoke_token(),
            19 => {
                let (kind, said) = (Kind::Tick, self.model.tick());
                self.take(None, None, kind, said);
                Some(())
            }
            20 => self.provider(),
            21 => self.undo(),
            22 => self.presume(),
            _ => self.rest(),
        }
    }

    /// Who takes the step: mostly whose it is.
    fn who(&mut self, rightful: Option<u8>) -> Option<u8> {
        let byte = self.choices.next()?;
        Some(match rightful {
            Some(n) if byte < 0xd0 => n,
            _ => byte % PEOPLE,
        })
    }

    /// What the policy said: mostly yes; no, nothing, or yes by a policy that is no longer in force.
    fn policy(&mut self) -> Option<(Option<PolicyVerdict>, Result<(), Code>)> {
        let hash = self.model.policy;
        let verdict = PolicyVerdict { allowed: true, rule: Some(0), hash };
        let mut stale = hash;
        stale[0] ^= 1;
        Some(match self.choices.next()? {
            0xff => (None, Err(Code::PolicyDenied)),
            0xfc..0xff => (Some(PolicyVerdict { hash: stale, ..verdict }), Err(Code::Busy)),
            0xf4..0xfc => (Some(PolicyVerdict { allowed: false, ..verdict }), Err(Code::PolicyDenied)),
            _ => (Some(verdict), Ok(())),
        })
    }

    /// A lease by how many reservations ago, among those that suit if any does; one that never was if there is none.
    fn lease(&mut self, suits: fn(Stage) -> bool) -> Option<usize> {
        let back = self.choices.below(256)?;
        self.model.pick_lease(back, suits)
    }

    fn grant(&mut self, suits: fn(Stage) -> bool) -> Option<GrantId> {
        let back = self.choices.below(256)?;
        Some(self.model.pick_grant(back, suits).unwrap_or(GrantId(NOBODY)))
    }

    fn reserve(&mut self) -> Option<()> {
        let by = self.choices.below(PEOPLE.into())? as u8;
        let bytes =
            self.choices.one(&[PAGE, PAGE, PAGE, 2 * PAGE, 3 * PAGE - 1, 1, 0, 16 * PAGE, 16 * PAGE + 1])?;
        let ttl = self.choices.one(&[5_000, 5_000, 10_000, 200, 10, 9, 10_001])?;
        let tied = self.choices.rarely()?;
        let (policy, permitted) = self.policy()?;
        self.draws += 1;
        let random = random(self.draws);
        let lifetime = if tied { Lifetime::Process } else { Lifetime::Detached };
        let spec = LeaseSpec {
            bytes,
            ttl: Micros(ttl),
            name: None,
            class: None,
            lifetime,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        };
        let said = self.model.reserve(by, ids(&random), bytes, ttl, tied, permitted);
        let kind = Kind::Reserve { spec, session: by.into() };
        let _ = self.apply(Some(by), policy, random, kind, said);
        Some(())
    }

    fn commit(&mut self) -> Option<()> {
        let (id, _, _) = self.lease_id(|row| row == Stage::Reserved);
        let wrong = self.choices.rarely()?;
        let bytes = self.model.bytes(id).unwrap_or(PAGE) + u64::from(wrong);
        let said = self.model.commit(id, bytes);
        self.take(None, None, Kind::Commit { lease: id, bytes }, said);
        Some(())
    }

    fn lease_id(&mut self, suits: fn(Stage) -> bool) -> (LeaseId, RegionId, Option<u8>) {
        match self.lease(suits) {
            Some(at) => self.model.lease_names(at),
            None => (LeaseId(NOBODY), RegionId(NOBODY), None),
        }
    }

    fn renew(&mut self) -> Option<()> {
        let (lease, _, owner) = self.lease_id(|row| row == Stage::Live);
        let by = self.who(owner)?;
        let ttl = self.choices.one(&[5_000, 10_000, 50, 10, 9, 10_001])?;
        let (policy, permitted) = self.policy()?;
        let said = self.model.renew(by, lease, ttl, permitted);
        self.take(Some(by), policy, Kind::Renew { lease, ttl: Micros(ttl) }, said);
        Some(())
    }

    fn release(&mut self) -> Option<()> {
        let (lease, _, owner) = self.lease_id(|row| row == Stage::Live);
        let by = self.who(owner)?;
        let said = self.model.release(by, lease);
        self.take(Some(by), None, Kind::Release { lease }, said);
        Some(())
    }

    /// A contract that is signed by its owner, or is damaged in one place.
    fn offer(&mut self) -> Option<()> {
        let (lease, region, owner) = self.lease_id(|row| row == Stage::Live);
        let by = self.who(owner)?;
        let receiver = self.choices.below(PEOPLE.into())? as u8;
        let bytes = self.choices.one(&[PAGE, PAGE / 2, 1, 2 * PAGE, 5 * PAGE])?;
        let ttl = self.choices.one(&[4_000, 4_000, 500, 9_000, 1, 0, u64::MAX])?;
        let again = self.choices.rarely()?;
        let damage = self.choices.next()?;
        self.draws += 1;
        let fresh = GrantId(random(self.draws)[16..].try_into().expect("16 bytes"));
        let grant = if again { self.model.pick_grant(0, |_| true).unwrap_or(fresh) } else { fresh };
        let mut contract = ShareContract {
            cluster: small_genesis().cluster,
            grant,
            lease,
            region,
            owner: public(by),
            receiver: public(receiver),
            rights: Rights::READ_WRITE,
            range: ByteRange::new(0, bytes).expect("a range"),
            ttl: Micros(ttl),
            max_hops: 1,
            cosigner: None,
        };
        match damage {
            0xf0 => contract.cluster = ClusterEpoch([1; 16]),
            0xf1 => contract.region = RegionId([1; 16]),
            0xf2 => contract.owner = public((by + 1) % PEOPLE),
            0xf3 => contract.rights = Rights::NONE,
            0xf4 => contract.max_hops = 8,
            _ => {}
        }
        let (signature, signed) = damaged(&contract, by, damage);
        let said = self.model.offer(by, self.broker.genesis(), &contract, signed);
        self.take(Some(by), None, Kind::Offer { contract, signature }, said);
        Some(())
    }

    fn issue(&mut self) -> Option<()> {
        let grant = self.grant(|row| row == Stage::Offered)?;
        let owner = self.model.contract(grant).and_then(|contract| number(contract.owner));
        let by = self.who(owner)?;
        let (policy, permitted) = self.policy()?;
        let said = self.model.issue(by, grant, permitted);
        self.take(Some(by), policy, Kind::Issue { grant }, said);
        Some(())
    }

    fn accept(&mut self) -> Option<()> {
        let grant = self.grant(|row| row == Stage::Issued)?;
        let contract = self.model.contract(grant);
        let by = self.who(contract.and_then(|contract| number(contract.receiver)))?;
        let (policy, permitted) = self.policy()?;
        let damage = self.choices.next()?;
        let tied = self.choices.rarely()?;
        // Of a grant that is not known the signature does not matter.
        let (signature, signed) =
            contract.map_or((Signature([0; 64]), false), |contract| damaged(&contract, by, damage));
        let lifetime = if tied { Lifetime::Process } else { Lifetime::Detached };
        let said = self.model.accept(by, grant, signed, tied, permitted);
        let kind = Kind::Accept(Acceptance { grant, signature, lifetime, session: by.into() });
        if let Ok(Answer::Accepted { terms, .. }) = self.apply(Some(by), policy, [0; 32], kind, said).answer {
            let left = self.model.left(grant).expect("it was accepted");
            assert_eq!((terms.rights, terms.range, terms.expires), (left.rights, left.range, left.expires));
            assert_eq!((terms.holder, terms.grant), (public(by), Some(grant)));
            self.told.accepted += 1;
        }
        Some(())
    }

    fn narrow(&mut self) -> Option<()> {
        let grant = self.grant(|row| matches!(row, Stage::Issued | Stage::Out))?;
        let owner = self.model.contract(grant).and_then(|contract| number(contract.owner));
        let by = self.who(owner)?;
        let (policy, permitted) = self.policy()?;
        let rights = self.choices.one(&[None, Some(Rights::READ), Some(Rights::ALL), Some(Rights::NONE)])?;
        let range = self.choices.one(&[None, Some(PAGE / 2), Some(1), Some(2 * PAGE)])?;
        let ttl = self.choices.one(&[None, Some(300), Some(40), Some(9_000), Some(0)])?;
        let range = range.map(|bytes| ByteRange::new(0, bytes).expect("a range"));
        let narrowing = Narrowing { grant, rights, range, ttl: ttl.map(Micros) };
        let said = self.model.narrow(by, &narrowing, permitted);
        self.take(Some(by), policy, Kind::Narrow(narrowing), said);
        Some(())
    }

    fn revoke(&mut self) -> Option<()> {
        let level = self.choices.below(8)?;
        let grant = self.grant(|row| row != Stage::Over)?;
        let (lease, region, owner) = self.lease_id(|row| row != Stage::Over);
        let giver = self.model.contract(grant).and_then(|contract| number(contract.owner));
        let by = self.who(if (2..5).contains(&level) { giver } else { owner })?;
        let holder = self.choices.below(PEOPLE.into())? as u8;
        let (policy, permitted) = self.policy()?;
        let target = match level {
            0 => Target::Lease(lease),
            1 => Target::Region(region),
            2 | 3 => Target::Grant(grant),
            4 => Target::Subtree(grant),
            5 => Target::Subtree(GrantId(lease.0)),
            6 => Target::Holder(public(holder)),
            _ => Target::Block { lease, id: RevocationId([level as u8; 64]) },
        };
        let was_out = self.model.is_out(grant);
        let said = self.model.revoke(by, &target, permitted);
        let reason = Reason::new("over").expect("a literal reason");
        let aimed =
            matches!(target, Target::Grant(_)) || matches!(target, Target::Subtree(root) if root == grant);
        let kind = Kind::Revoke(Revocation { target, reason });
        let applied = self.apply(Some(by), policy, [0; 32], kind, said);
        if applied.answer.is_ok() && aimed && was_out {
            let told = |effect: &Effect| matches!(effect, Effect::Take(Take::Grant { grant: id, .. }, _) if *id == grant);
            assert!(applied.effects.iter().any(told), "rights that are out are taken at the provider");
        }
        Some(())
    }

    fn revoke_token(&mut self) -> Option<()> {
        let (lease, _, _) = self.lease_id(|row| row == Stage::Live);
        let grant = self.grant(|row| row == Stage::Out)?;
        let by = self.choices.below(PEOPLE.into())? as u8;
        let held = self.choices.rarely()?;
        let below = self.choices.rarely()?.then_some(grant);
        let (policy, permitted) = self.policy()?;
        let id = RevocationId([self.choices.next()?; 64]);
        let cut = TokenCut {
            lease,
            grant: below,
            id,
            marks: [Some(Mark::signature(&id)), None],
            range: None,
            not_before: UnixMicros(8_000_000_000),
            until: UnixMicros(9_000_000_000),
            held,
            reason: Reason::default(),
        };
        let said = self.model.revoke_token(by, &cut, permitted);
        self.take(Some(by), policy, Kind::RevokeToken(cut), said);
        Some(())
    }

    /// What the provider says, and what happens to it and to sessions.
    fn provider(&mut self) -> Option<()> {
        let cause = EndCause::Released;
        let (kind, said) = match self.choices.below(12)? {
            0..3 => {
                let lease = self.lease_id(|row| row == Stage::Ending).0;
                (Kind::Taken { lease }, self.model.taken(lease))
            }
            3 => {
                let lease = self.lease_id(|row| row != Stage::Over).0;
                let (provider, ours) = self.speaker()?;
                let notice = Notice::LeaseEnded { lease, cause };
                (Kind::Notice { provider, notice }, self.model.lease_ended(lease, ours))
            }
            4..7 => {
                let grant = self.grant(|row| row == Stage::Out)?;
                let (provider, notice) = (self.provider, Notice::GrantOpened { grant });
                (Kind::Notice { provider, notice }, self.model.opened(grant))
            }
            7 => {
                let grant = self.grant(|row| row == Stage::Out)?;
                let (provider, ours) = self.speaker()?;
                let notice = Notice::GrantEnded { grant, cause };
                (Kind::Notice { provider, notice }, self.model.grant_ended(grant, ours))
            }
            8 | 9 => {
                let session = self.choices.below(PEOPLE.into())? as u64;
                (Kind::HolderExit { session }, self.model.exit(session))
            }
            10 if self.choices.rarely()? => {
                let (provider, proved) = (self.provider, self.choices.rarely()?);
                (Kind::ProviderLost { provider, proved }, self.model.lost(proved))
            }
            // A life that is here, or over, cannot come; another one can, and ends the one before.
            _ => {
                let rarely = self.choices.rarely()?;
                if self.model.is_up() == rarely {
                    self.provider.0[0] = self.provider.0[0].wrapping_add(1);
                    (self.comes(), self.model.up())
                } else {
                    (self.comes(), self.model.again())
                }
            }
        };
        self.take(None, None, kind, said);
        Some(())
    }

    /// Who says something: mostly the present life of the provider, and whether it is that.
    fn speaker(&mut self) -> Option<(ProviderId, bool)> {
        let other = self.choices.rarely()?;
        Some(if other { (ProviderId([0xfe; 16]), false) } else { (self.provider, true) })
    }

    /// The present life of the provider comes.
    fn comes(&self) -> Kind {
        let mut said = genesis().provider.expect("the small cluster has a provider");
        said.id = self.provider;
        Kind::ProviderRegister { provider: said, attached: true }
    }

    fn undo(&mut self) -> Option<()> {
        let level = self.choices.below(4)?;
        let grant = self.grant(|row| row != Stage::Over)?;
        let lease = self.lease_id(|row| row != Stage::Over).0;
        let expires = UnixMicros(self.model.now() + 100);
        let undo = match level {
            0 => Undo::Lease { lease },
            1 => Undo::Renew { lease, expires, since: self.model.since(lease) },
            2 => Undo::Offer { grant },
            _ => Undo::Accept { grant },
        };
        let said = self.model.undo(&undo);
        self.take(None, None, Kind::Undo(undo), said);
        Some(())
    }

    /// Asks as somebody for what only the node proposes, and as the node for what only people do.
    fn presume(&mut self) -> Option<()> {
        let (lease, _, _) = self.lease_id(|row| row != Stage::Over);
        let grant = self.grant(|row| row != Stage::Over)?;
        let by = self.choices.below(PEOPLE.into())? as u8;
        let (by, kind) = match self.choices.below(8)? {
            0 => (Some(by), Kind::Commit { lease, bytes: PAGE }),
            1 => (Some(by), Kind::Taken { lease }),
            2 => {
                let (provider, notice) = (self.provider, Notice::GrantOpened { grant });
                (Some(by), Kind::Notice { provider, notice })
            }
            3 => (Some(by), Kind::Undo(Undo::Accept { grant })),
            4 => (Some(by), Kind::PolicyLoad { hash: [1; 32] }),
            5 => (None, Kind::Issue { grant }),
            6 => (None, Kind::Release { lease }),
            _ => (None, Kind::PrincipalAdd { name: name(by), key: public(by) }),
        };
        self.take(by, None, kind, Verdict::no(Code::Protocol));
        Some(())
    }

    /// People, policies, and a replica that begins here.
    fn rest(&mut self) -> Option<()> {
        match self.choices.below(4)? {
            0 => {
                let (by, n) = (self.who(Some(0))?, self.choices.below(PEOPLE.into())? as u8);
                let said = self.model.add(by, n);
                self.take(Some(by), None, Kind::PrincipalAdd { name: name(n), key: public(n) }, said);
            }
            1 => {
                let hash = [self.choices.next()?; 32];
                self.model.policy = hash;
                self.take(None, None, Kind::PolicyLoad { hash }, Verdict::yes());
            }
            _ => {
                self.restore();
                let said = self.model.tick();
                self.take(None, None, Kind::Tick, said);
            }
        }
        Some(())
    }

    /// Applies a command that draws no id and whose answer says no more than its code.
    fn take(&mut self, by: Option<u8>, policy: Option<PolicyVerdict>, kind: Kind, said: Verdict) {
        let _ = self.apply(by, policy, [0; 32], kind, said);
    }

    /// Applies one command and holds it against what the model said.
    fn apply(
        &mut self,
        by: Option<u8>,
        policy: Option<PolicyVerdict>,
        random: [u8; 32],
        kind: Kind,
        said: Verdict,
    ) -> Applied {
        let by = by.map_or(Actor::System, |n| Actor::Principal(public(n)));
        let command = Command { at: UnixMicros(self.model.clock), by, random, policy, kind };
        let back: Command = ciborium::from_reader(&encode(&command)[..]).expect("what was encoded decodes");
        assert_eq!(back, command);
        let applied = self.broker.apply(&command);
        let code = applied.answer.as_ref().err().map(caps::Error::code);
        assert!(said.admits(code), "{code:?} is not {said:?}, to {command:?}");
        if let Said::No(Code::ContractSignature) = said.said {
            self.told.forged += usize::from(code == Some(Code::ContractSignature));
        }
        self.told.disordered += usize::from(code == Some(Code::ShareOrder));
        if code.is_some() {
            assert!(applied.effects.is_empty(), "a refusal has no effect");
        }
        self.model.settle(code.is_none());
        self.told.steps += 1;
        self.keep(&applied);
        if let Err(rule) = self.broker.check_invariants() {
            panic!("{rule}: {command:?}");
        }
        self.model.compare(&self.broker);
        applied
    }

    /// No entry holds a secret.
    fn keep(&self, applied: &Applied) {
        for draft in &applied.entries {
            let shown = format!("{draft:?}");
            for seed in &people().seeds {
                let hex = data_encoding::HEXLOWER.encode(seed);
                assert!(
                    !shown.contains(&hex[..32]) && !shown.contains(&hex[32..]),
                    "an entry holds a secret"
                );
            }
        }
    }

    /// A replica begins from a snapshot, and goes on.
    fn restore(&mut self) {
        let snapshot = self.broker.snapshot();
        let restored = Broker::restore(&snapshot).expect("a snapshot restores");
        assert_eq!(restored, self.broker);
        assert_eq!(restored.snapshot(), snapshot);
        self.broker = restored;
    }
}

/// The signature of `by`, or another one, and whether it is `by`'s on this contract.
fn damaged(contract: &ShareContract, by: u8, damage: u8) -> (Signature, bool) {
    let key = |n: u8| &people().keys[usize::from(n)];
    let mut signature = contract.sign(key(by));
    match damage {
        0xd0..0xd8 => (contract.sign(key((by + 1 + damage % (PEOPLE - 1)) % PEOPLE)), false),
        0xd8..0xe8 => {
            signature.0[usize::from(damage & 15) * 4] ^= 1 << (damage & 7);
            (signature, false)
        }
        // Of another contract.
        0xe8..0xf0 => (ShareContract { max_hops: contract.max_hops + 1, ..*contract }.sign(key(by)), false),
        _ => (signature, true),
    }
}

fn number(key: PrincipalKey) -> Option<u8> {
    (0..PEOPLE).find(|n| public(*n) == key)
}

/// Bytes for new ids that no other draw has.
fn random(draws: u16) -> [u8; 32] {
    let [high, low] = draws.to_be_bytes();
    let mut random = [high | 0x40; 32];
    random[16..].fill(high | 0x80);
    random[15] = low;
    random[31] = low;
    random
}

fn ids(random: &[u8; 32]) -> (LeaseId, RegionId) {
    (
        LeaseId(random[..16].try_into().expect("16 bytes")),
        RegionId(random[16..].try_into().expect("16 bytes")),
    )
}

/// Stories to start from: a share's life, and ones in which something goes wrong on the way.
#[must_use]
pub fn story_seeds() -> Vec<Vec<u8>> {
    // Each step: what, how long after, and then what it chooses. The people are 1 (owner) and 2 (receiver).
    let reserve: &[u8] = &[0, 1, 1, 0, 0, 0, 0];
    let tied: &[u8] = &[0, 1, 1, 0, 0, 0xff, 0];
    let commit: &[u8] = &[3, 1, 0, 0];
    let offer: &[u8] = &[8, 1, 0, 0, 2, 0, 0, 0, 0];
    let issue: &[u8] = &[11, 1, 0, 0, 0];
    let accept: &[u8] = &[13, 1, 0, 0, 0, 0, 0];
    let open: &[u8] = &[20, 1, 4, 0];
    let narrow: &[u8] = &[16, 1, 0, 0, 0, 1, 1, 1];
    let taken: &[u8] = &[20, 1, 0, 0];
    let tick: &[u8] = &[19, 0xf7];
    let restore: &[u8] = &[23, 1, 2];
    let revoke = |level: u8| [17, 1, level, 0, 0, 0, 2, 0];
    let begun = [reserve, commit, offer].concat();
    let shared = [&begun[..], issue, accept, open].concat();
    let told = |rest: &[&[u8]]| [&shared[..], &rest.concat()].concat();
    let mut seeds = vec![
        told(&[narrow, restore, &[7, 1, 0, 0], taken]),
        told(&[&[6, 1, 0, 0, 1, 0], tick, tick, tick, taken]),
        told(&[&[18, 1, 0, 0, 2, 0xff, 0xff, 0, 9], &revoke(0), &revoke(0), taken]),
        told(&[&[21, 1, 3, 0, 0], accept]),
        told(&[&[20, 1, 10, 0xff, 0xff], &[20, 1, 11, 0], reserve, commit]),
        // Lost without proof: renewed and revoked in vain, until its time is over, or another life proves it.
        told(&[
            &[20, 1, 10, 0xff, 0],
            &[6, 1, 0, 0, 1, 0],
            &revoke(0),
            &revoke(2),
            tick,
            tick,
            tick,
            &revoke(0),
        ]),
        told(&[
            &revoke(2),
            &[20, 1, 10, 0xff, 0],
            restore,
            &revoke(6),
            &[20, 1, 11, 0],
            &revoke(0),
            reserve,
            commit,
        ]),
        // Tied to their sessions, which end.
        [tied, commit, offer, issue, &[13, 1, 0, 0, 0, 0, 0xff], &[20, 1, 8, 2], &[20, 1, 8, 1], taken]
            .concat(),
        // In the wrong order, by the wrong people, under the wrong policy.
        [&begun[..], accept, &[11, 1, 0, 0xd2, 0], &[11, 1, 0, 0, 0xff], issue].concat(),
        [&begun[..], issue, issue, &[13, 1, 0, 0xd1, 0, 0, 0], open, accept, accept, open, open].concat(),
        [&begun[..], &[23, 1, 1, 5], issue, &[22, 1, 0, 0, 1, 3]].concat(),
        // Signatures of others, with one bit flipped, and of another contract.
        [reserve, commit, &[8, 1, 0, 0, 2, 0, 0, 0, 0xd0], &[8, 1, 0, 0, 2, 0, 0, 0, 0xd9]].concat(),
        [
            &begun[..],
            issue,
            &[13, 1, 0, 0, 0, 0xe8, 0],
            &[13, 1, 0, 0, 0, 0xda, 0],
            &[13, 1, 0, 0, 0, 0xd0, 0],
        ]
        .concat(),
    ];
    seeds.extend((0..8).map(|level| told(&[&revoke(level), taken, restore])));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of our own, so that a failure names the number of its story.
    fn noise(mut state: u64) -> impl FnMut() -> u8 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        }
    }

    /// A few seconds of them, unoptimised.
    const STORIES: u64 = 2_000;

    /// Stories of random bytes reach every part of a share's life, or they would test nothing.
    #[test]
    fn thousands_of_stories_are_as_the_model_says() {
        let mut all = Told::default();
        for number in 0..STORIES {
            let mut byte = noise(number);
            let length = 24 * (1 + usize::from(byte()) % 16);
            let story: Vec<u8> = (0..length).map(|_| byte()).collect();
            let told = std::panic::catch_unwind(|| story_any(&story)).unwrap_or_else(|panic| {
                eprintln!("story {number}: {}", data_encoding::HEXLOWER.encode(&story));
                std::panic::resume_unwind(panic)
            });
            all.steps += told.steps;
            all.accepted += told.accepted;
            all.forged += told.forged;
            all.disordered += told.disordered;
        }
        assert!(
            all.steps > 20_000 && all.accepted > 500 && all.forged > 200 && all.disordered > 100,
            "{all:?}"
        );
    }

    #[test]
    fn seeds_go_where_they_are_meant_to() {
        let told: Vec<_> = story_seeds().iter().map(|seed| story_any(seed)).collect();
        assert!(told[..8].iter().all(|told| told.accepted >= 1), "{told:?}");
        assert!(told[8..11].iter().any(|told| told.disordered >= 2), "{told:?}");
        assert!(told[11..13].iter().all(|told| told.forged >= 2), "{told:?}");
        assert!(told[13..].iter().all(|told| told.accepted == 1), "{told:?}");
    }
}
