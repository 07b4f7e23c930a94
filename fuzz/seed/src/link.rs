//! Bodies of a link's frames: one for each shape of message, of both directions.

use caps::error::Code;
use caps::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId, Seat};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::{Cut, Mark, RevocationId, RootPublic};
use caps::wire::cluster::{
    Allowance, BrokerAsks, BrokerSays, Fact, Hello, Message, PREFIX_BYTES, PROTOCOL, PolicyText,
    ProviderAsks, ProviderSays, Pulse, Quotas, Refusal, Roots, ToBroker, ToProvider, Welcome, encode,
};
use caps::wire::link::{ClaimTicket, Method, Notice, Take, Taken};
use caps::wire::provider::{Address, Registration};
use caps::wire::row::{EndCause, Lifetime, MemoryRow, Tier};
use caps::wire::{Name, Reason, Reply};

const LEASE: LeaseId = LeaseId([1; 16]);
const GRANT: GrantId = GrantId([2; 16]);
const SOMEBODY: PrincipalKey = PrincipalKey([7; 32]);
const LATER: UnixMicros = UnixMicros(1_800_000_000_000_000);

/// What either side may say.
pub fn bodies() -> Vec<Vec<u8>> {
    let of_provider = of_provider().into_iter().map(|message| body(&message));
    of_provider.chain(of_broker().into_iter().map(|message| body(&message))).collect()
}

fn of_provider() -> Vec<ToBroker> {
    let ask = |ask| ToBroker::Ask { number: 1, ask };
    let says = |says| ToBroker::Answer { number: 1, says };
    let registration = Registration {
        id: ProviderId([5; 16]),
        name: name("east"),
        address: Some(Address::new("east.example:7171").expect("a literal address")),
        bytes: 1 << 30,
        regions: 1_024,
        classes: vec![name("training")],
        locality: Some(name("rack-1")),
        seat: Some(Seat([6; 16])),
    };
    let hello = Hello { protocol: PROTOCOL, registration, cluster: Some(ClusterEpoch([4; 16])) };
    let notices = vec![
        Notice::LeaseEnded { lease: LEASE, cause: EndCause::Expired },
        Notice::GrantOpened { grant: GRANT },
        Notice::GrantEnded { grant: GRANT, cause: EndCause::Revoked },
    ];
    let cut = Cut {
        lease: LEASE,
        grant: Some(GRANT),
        id: RevocationId([3; 64]),
        marks: [Some(Mark::delegate(SOMEBODY)), None],
        range: Some(range()),
        not_before: LATER,
        expires: LATER,
        holders: vec![SOMEBODY],
    };
    let taken = Taken {
        lease: Some(LEASE),
        mappings_closed: 2,
        method: Method::Cut,
        fence: Micros(10),
        dead: Micros(200),
        wiped_bytes: 65_536,
        quarantined_bytes: 0,
    };
    let memory = MemoryRow {
        bytes: 65_536,
        huge_bytes: 0,
        segments: 1,
        rotations: 0,
        mappings: 1,
        opens: 2,
        tier: Tier::Sealed,
        pinned: true,
    };
    let pulse = Pulse { committed_bytes: 65_536, sessions: 3, tier: Tier::Open, entries: 9 };
    vec![
        ToBroker::Hello(Box::new(hello)),
        ToBroker::Ready,
        ToBroker::Gone,
        ask(ProviderAsks::Notices { first: 7, notices }),
        ask(ProviderAsks::RevokeHolder { holder: SOMEBODY }),
        ask(ProviderAsks::RevokeToken { holder: SOMEBODY, cut: Box::new(cut), reason: reason() }),
        says(ProviderSays::Claimed { bytes: 65_536 }),
        says(ProviderSays::Done),
        says(ProviderSays::Taken(taken)),
        says(ProviderSays::Memory(Some(memory))),
        says(ProviderSays::Status(pulse)),
        ToBroker::Failed { number: 1, why: refusal() },
        ToBroker::Recorded { number: 1, why: Some(refusal()) },
        ToBroker::Bye(refusal()),
    ]
}

fn of_broker() -> Vec<ToProvider> {
    let ask = |ask| ToProvider::Ask { number: 1, ask };
    let take = |take| ask(BrokerAsks::Take { take, cause: EndCause::Revoked });
    let (marks, expires) = ([Some(Mark::delegate(SOMEBODY)), None], LATER);
    let ticket = ClaimTicket {
        lease: LEASE,
        region: RegionId([6; 16]),
        owner: SOMEBODY,
        bytes: 65_536,
        segment_bytes: 65_536,
        ttl: Micros::from_millis(60_000),
        lifetime: Lifetime::Detached,
        claim_by: LATER,
    };
    let allowance = Allowance {
        leases: 10,
        leased_bytes: 1 << 20,
        resident_bytes: 1 << 20,
        shared_bytes: 0,
        grants: 4,
        opens: 8,
        mappings: 2,
    };
    let facts = [
        Fact::Roots(Roots { keys: vec![RootPublic([8; 32])], expired: vec![1] }),
        Fact::Policy(PolicyText { text: "allow if true;".into(), hash: [9; 32] }),
        Fact::Quotas(Quotas { default: allowance, named: vec![(name("alice"), allowance)] }),
        Fact::Principals(vec![(SOMEBODY, name("alice"))]),
    ];
    let mut said = vec![
        ToProvider::Welcome(Welcome { protocol: PROTOCOL, cluster: ClusterEpoch([4; 16]), admin: SOMEBODY }),
        ToProvider::Told,
        ToProvider::Joined { noted: 7 },
        ask(BrokerAsks::Claim { ticket }),
        ask(BrokerAsks::Renew { lease: LEASE, ttl: Micros(9), by: LATER }),
        take(Take::Lease(LEASE)),
        take(Take::Grant { lease: LEASE, grant: GRANT, expires }),
        take(Take::Narrow { lease: LEASE, grant: GRANT, rights: Rights::READ, range: range(), expires }),
        take(Take::Marks { lease: LEASE, marks, grant: Some(GRANT), range: range(), expires }),
        take(Take::Root { lease: LEASE, root: 1 }),
        take(Take::Owner { lease: LEASE, to: SOMEBODY, since: LATER, until: LATER, undoes: None }),
        ask(BrokerAsks::Memory { lease: LEASE }),
        ask(BrokerAsks::Status),
        ToProvider::Answer { number: 1, says: BrokerSays::Noted { next: 8 } },
        ToProvider::Answer { number: 1, says: BrokerSays::Done },
        ToProvider::Answer { number: 1, says: BrokerSays::Revoked(Box::new(Reply::Done)) },
        ToProvider::Failed { number: 1, why: refusal() },
        ToProvider::Bye(refusal()),
    ];
    said.extend(facts.iter().cloned().map(ToProvider::Fact));
    said.extend(facts.into_iter().map(|fact| ask(BrokerAsks::Fact(fact))));
    said
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a literal name")
}

fn range() -> ByteRange {
    ByteRange::new(0, 4_096).expect("a range")
}

fn reason() -> Reason {
    Reason::new("left").expect("a reason")
}

fn refusal() -> Refusal {
    Refusal { code: Code::Quota, detail: Some(reason()) }
}

fn body(message: &impl Message) -> Vec<u8> {
    encode(message).expect("a message of ours encodes").split_off(PREFIX_BYTES)
}
