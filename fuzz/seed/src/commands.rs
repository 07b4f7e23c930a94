//! Runs of broker commands: a lease's life and a share's, with real signatures.

use broker::fuzzing::{encode, small_genesis};
use broker::state::{
    Acceptance, Actor, Answer, Broker, Command, Kind, PolicyVerdict, TokenCut, TransferAcceptance, Undo,
};
use caps::id::{DonationId, GrantId, LeaseId, ProviderId, TransferId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{ShareContract, TransferContract};
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::link::{ClaimTicket, Notice, Take};
use caps::wire::provider::{Load, Registration};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime, Revocation, Target};
use caps::wire::{Name, Reason};

const GRANT: GrantId = GrantId([9; 16]);
const TRANSFER: TransferId = TransferId([8; 16]);

/// The provider that the small cluster begins with.
fn own() -> ProviderId {
    small_genesis().provider.expect("the small cluster has a provider").id
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a literal name")
}

/// Builds one input while the broker that it is for follows.
struct Run {
    broker: Broker,
    bytes: Vec<u8>,
    now: u64,
    draws: u8,
}

/// Of Alice with Bob.
fn contract(ticket: &ClaimTicket) -> ShareContract {
    ShareContract {
        cluster: small_genesis().cluster,
        grant: GRANT,
        lease: ticket.lease,
        region: ticket.region,
        owner: key(1).public(),
        receiver: key(2).public(),
        rights: Rights::READ,
        range: ByteRange::new(0, 4096).expect("a range"),
        ttl: Micros(500),
        max_hops: 1,
        cosigner: None,
    }
}

impl Run {
    /// Alice and Bob are registered.
    fn new() -> Self {
        let genesis = small_genesis();
        let mut run = Self {
            now: genesis.at.0,
            broker: Broker::new(genesis).expect("the small cluster is valid"),
            bytes: Vec::new(),
            draws: 0,
        };
        for (n, name) in [(1, "alice"), (2, "bob")] {
            let name = Name::new(name).expect("a literal name");
            run.apply(
                Actor::Principal(small_genesis().admin),
                Kind::PrincipalAdd { name, key: key(n).public() },
            );
        }
        run
    }

    fn apply(&mut self, by: Actor, kind: Kind) -> Answer {
        self.draws += 1;
        let policy = PolicyVerdict { allowed: true, rule: Some(0), hash: small_genesis().policy };
        let mut random = [self.draws; 32];
        random[16..].fill(self.draws ^ 0x80);
        let command = Command { at: UnixMicros(self.now), by, random, policy: Some(policy), kind };
        self.bytes.extend(encode(&command));
        self.broker.apply(&command).answer.expect("a seed is accepted")
    }

    fn by(&mut self, n: u8, kind: Kind) -> Answer {
        self.apply(Actor::Principal(key(n).public()), kind)
    }

    fn admin(&mut self, kind: Kind) -> Answer {
        self.apply(Actor::Principal(small_genesis().admin), kind)
    }

    fn node(&mut self, kind: Kind) -> Answer {
        self.apply(Actor::System, kind)
    }

    fn lease(&mut self, lifetime: Lifetime) -> ClaimTicket {
        self.lease_with(8192, lifetime)
    }

    fn lease_of(&mut self, bytes: u64) -> ClaimTicket {
        self.lease_with(bytes, Lifetime::Detached)
    }

    fn lease_with(&mut self, bytes: u64, lifetime: Lifetime) -> ClaimTicket {
        let spec = LeaseSpec {
            bytes,
            ttl: Micros(5_000),
            name: None,
            class: None,
            lifetime,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        };
        let Answer::Reserved(ticket, _) = self.by(1, Kind::Reserve { spec, session: 1 }) else {
            unreachable!("a reservation is answered with a ticket")
        };
        self.node(Kind::Commit { lease: ticket.lease, bytes: ticket.bytes });
        ticket
    }

    fn share(&mut self, ticket: &ClaimTicket) {
        let contract = contract(ticket);
        self.by(1, Kind::Offer { contract, signature: contract.sign(&key(1)) });
        self.by(1, Kind::Issue { grant: GRANT });
        let signature = contract.sign(&key(2));
        let acceptance = Acceptance { grant: GRANT, signature, lifetime: Lifetime::Detached, session: 2 };
        self.by(2, Kind::Accept(acceptance));
        let notice = Notice::GrantOpened { grant: GRANT };
        self.node(Kind::Notice { provider: own(), notice });
    }

    /// Offered by Alice to Bob, and signed by Carol as the third party.
    fn cosigned(&mut self, ticket: &ClaimTicket) {
        let name = Name::new("carol").expect("a literal name");
        let add = Kind::PrincipalAdd { name, key: key(3).public() };
        self.apply(Actor::Principal(small_genesis().admin), add);
        let contract = ShareContract {
            rights: Rights::READ_WRITE,
            max_hops: 0,
            cosigner: Some(key(3).public()),
            ..contract(ticket)
        };
        self.by(1, Kind::OfferToCosign { contract, signature: contract.sign(&key(1)), uid: Some(1000) });
        self.by(3, Kind::Cosign { grant: GRANT, signature: contract.sign(&key(3)) });
        self.by(3, Kind::Issue { grant: GRANT });
        let signature = contract.sign(&key(2));
        let acceptance = Acceptance { grant: GRANT, signature, lifetime: Lifetime::Detached, session: 2 };
        self.by(2, Kind::Accept(acceptance));
    }

    fn hand_over(&mut self, ticket: &ClaimTicket) {
        let contract = TransferContract {
            cluster: small_genesis().cluster,
            transfer: TRANSFER,
            lease: ticket.lease,
            region: ticket.region,
            from: key(1).public(),
            to: key(2).public(),
            ttl: Micros(500),
        };
        self.by(1, Kind::TransferOffer { contract, signature: contract.sign(&key(1)) });
        let (signature, lifetime) = (contract.sign(&key(2)), Lifetime::Process);
        let acceptance = TransferAcceptance { transfer: TRANSFER, signature, lifetime, session: 2 };
        let accept = |story: &mut Self| match story.by(2, Kind::TransferAccept(acceptance)) {
            Answer::HandingOver { give: Take::Owner { since, .. }, .. } => since,
            other => panic!("{other:?}"),
        };
        let (transfer, since) = (TRANSFER, accept(self));
        self.node(Kind::TransferBack { transfer, since });
        let since = accept(self);
        self.node(Kind::TransferDone { transfer, since });
        self.node(Kind::HolderExit { session: 2 });
    }

    fn revoke(&mut self, n: u8, target: Target) {
        let reason = Reason::new("over").expect("a literal reason");
        self.by(n, Kind::Revoke(Revocation { target, reason }));
    }

    fn revoke_token(&mut self, n: u8, lease: LeaseId) {
        let id = RevocationId([4; 64]);
        self.by(
            n,
            Kind::RevokeToken(TokenCut {
                lease,
                grant: Some(GRANT),
                id,
                marks: [Some(Mark::signature(&id)), None],
                range: None,
                not_before: UnixMicros(8_000_000_000_000_000),
                until: UnixMicros(9_000_000_000_000_000),
                held: true,
                reason: Reason::new("over").expect("a literal reason"),
            }),
        );
    }

    fn taken(&mut self, lease: LeaseId) {
        self.node(Kind::Taken { lease });
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

/// The inputs.
pub fn runs() -> Vec<Vec<u8>> {
    let run = |acts: &dyn Fn(&mut Run)| {
        let mut run = Run::new();
        acts(&mut run);
        run.bytes
    };
    vec![
        run(&|run| {
            let lease = run.lease(Lifetime::Detached).lease;
            run.by(1, Kind::Renew { lease, ttl: Micros(9_000) });
            run.by(1, Kind::Release { lease });
            run.taken(lease);
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Detached);
            run.share(&ticket);
            run.revoke_token(2, ticket.lease);
            run.revoke(1, Target::Block { lease: ticket.lease, id: RevocationId([3; 64]) });
            run.revoke(1, Target::Grant(GRANT));
            run.revoke(1, Target::Lease(ticket.lease));
            run.taken(ticket.lease);
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Process);
            run.share(&ticket);
            run.node(Kind::HolderExit { session: 1 });
            let notice = Notice::LeaseEnded { lease: ticket.lease, cause: EndCause::HolderExit };
            run.node(Kind::Notice { provider: own(), notice });
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Detached);
            run.share(&ticket);
            run.now += 6_000;
            run.node(Kind::Tick);
            let mut provider = small_genesis().provider.unwrap();
            run.node(Kind::ProviderLost { provider: provider.id, proved: true });
            provider.id = ProviderId([7; 16]);
            run.node(Kind::ProviderRegister { provider, attached: true });
            run.node(Kind::ProviderHeartbeat { provider: ProviderId([7; 16]), load: Load::default() });
        }),
        run(&|run| {
            // At another provider, which does not answer, then does, and then is lost, given up and back.
            let provider = ProviderId([6; 16]);
            let east = Registration {
                id: provider,
                name: name("east"),
                ..small_genesis().provider.expect("the small cluster has a provider")
            };
            run.node(Kind::ProviderRegister { provider: east.clone(), attached: false });
            run.admin(Kind::ProviderDrain { name: name("own"), drain: true });
            let lease = run.lease(Lifetime::Detached).lease;
            let take = Take::Grant { lease, grant: GRANT, expires: UnixMicros(2_000_000) };
            run.node(Kind::Untold { provider, take, cause: EndCause::Revoked });
            run.node(Kind::ProviderHeartbeat { provider, load: Load::default() });
            run.node(Kind::Told { provider, take });
            run.node(Kind::ProviderRefused { provider });
            run.node(Kind::ProviderLost { provider, proved: false });
            run.revoke(1, Target::Lease(lease));
            run.now += 20_000;
            run.node(Kind::Tick);
            run.admin(Kind::ProviderGiveUp { name: name("east") });
            run.node(Kind::ProviderRegister {
                provider: Registration { id: ProviderId([8; 16]), ..east },
                attached: false,
            });
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Detached);
            run.node(Kind::Undo(Undo::Lease { lease: ticket.lease }));
            run.node(Kind::PolicyLoad { hash: [3; 32] });
        }),
        run(&|run| {
            let give = |n: u8, bytes: u64| {
                let (id, to) = (DonationId([n; 16]), key(1).public());
                Kind::QuotaGive { id, to, bytes, ttl: Micros(1_000) }
            };
            run.by(2, give(1, 8192));
            run.by(2, give(1, 8192));
            run.by(2, give(2, 1));
            run.node(Kind::Undo(Undo::QuotaGive { id: DonationId([2; 16]) }));
            let leases = [(); 3].map(|()| run.lease_of(12_288).lease);
            run.by(2, Kind::QuotaTakeBack { id: DonationId([1; 16]) });
            run.now += 2_000;
            run.node(Kind::Tick);
            run.by(1, Kind::Release { lease: leases[0] });
            run.taken(leases[0]);
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Detached);
            run.cosigned(&ticket);
            run.revoke(1, Target::Grant(GRANT));
        }),
        run(&|run| {
            let ticket = run.lease(Lifetime::Detached);
            run.share(&ticket);
            run.hand_over(&ticket);
        }),
    ]
}
