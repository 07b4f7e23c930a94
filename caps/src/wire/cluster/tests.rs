//! Every message comes back as it was sent; what is no message is refused with its code.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, ReceiptId, RegionId, Seat};
use crate::key::{Signature, SigningKey};
use crate::limits::{
    LINK_EXPIRED_ROOTS_MAX, LINK_FRAME_BYTES_MAX, LINK_HELLO_BYTES_MAX, LINK_NOTICES_PER_FRAME_MAX,
    LINK_PAGE_MAX, LINK_POLICY_BYTES_MAX, PROVIDER_CLASSES_MAX, TOKEN_BLOCKS_MAX,
};
use crate::range::ByteRange;
use crate::receipt::{Receipt, ReceiptBody};
use crate::rights::Rights;
use crate::time::{Micros, UnixMicros};
use crate::token::{Cut, Mark, ROOT_KEYS_MAX, RevocationId, RootPublic};
use crate::wire::link::{ClaimTicket, Method, Notice, Take, Taken};
use crate::wire::provider::{Address, Registration};
use crate::wire::row::{EndCause, Lifetime, MemoryRow, Target, Tier};
use crate::wire::{Name, Reason, Reply};

const CAUSES: [EndCause; 11] = [
    EndCause::Released,
    EndCause::Expired,
    EndCause::Revoked,
    EndCause::HolderExit,
    EndCause::ParentEnded,
    EndCause::NotClaimed,
    EndCause::NotRecorded,
    EndCause::ProviderLost,
    EndCause::NodeStopped,
    EndCause::Narrowed,
    EndCause::Transfer,
];

fn lease() -> impl Strategy<Value = LeaseId> {
    any::<[u8; 16]>().prop_map(LeaseId)
}

fn grant() -> impl Strategy<Value = GrantId> {
    any::<[u8; 16]>().prop_map(GrantId)
}

fn key() -> impl Strategy<Value = PrincipalKey> {
    any::<[u8; 32]>().prop_map(PrincipalKey)
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_][A-Za-z0-9._-]{0,63}".prop_map(|text| Name::new(&text).unwrap())
}

fn reason() -> impl Strategy<Value = Reason> {
    "[ -~]{0,256}".prop_map(|text| Reason::new(&text).unwrap())
}

fn cause() -> impl Strategy<Value = EndCause> {
    proptest::sample::select(&CAUSES[..])
}

fn tier() -> impl Strategy<Value = Tier> {
    proptest::sample::select(&[Tier::Open, Tier::Sandboxed, Tier::Sealed][..])
}

fn range() -> impl Strategy<Value = ByteRange> {
    (0..1_u64 << 40, 1..1_u64 << 40).prop_map(|(from, bytes)| ByteRange::new(from, from + bytes).unwrap())
}

fn time() -> impl Strategy<Value = UnixMicros> {
    any::<u64>().prop_map(UnixMicros)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let code = proptest::sample::select(Code::ALL);
    (code, option::of(reason())).prop_map(|(code, detail)| Refusal { code, detail })
}

fn marks() -> impl Strategy<Value = [Option<Mark>; 2]> {
    let mark = || option::of(key().prop_map(Mark::delegate));
    (mark(), mark()).prop_map(|(first, second)| [first, second])
}

fn ticket() -> impl Strategy<Value = ClaimTicket> {
    let lifetime = proptest::sample::select(&[Lifetime::Process, Lifetime::Detached][..]);
    let ids = (lease(), any::<[u8; 16]>(), key());
    (ids, any::<(u64, u64, u64)>(), lifetime, time()).prop_map(
        |((lease, region, owner), (bytes, segment_bytes, ttl), lifetime, claim_by)| ClaimTicket {
            lease,
            region: RegionId(region),
            owner,
            bytes,
            segment_bytes,
            ttl: Micros(ttl),
            lifetime,
            claim_by,
        },
    )
}

fn take() -> impl Strategy<Value = Take> {
    let rights = || Just(Rights::READ);
    prop_oneof![
        lease().prop_map(Take::Lease),
        (lease(), grant(), time()).prop_map(|(lease, grant, expires)| Take::Grant { lease, grant, expires }),
        (lease(), grant(), rights(), range(), time()).prop_map(|(lease, grant, rights, range, expires)| {
            Take::Narrow { lease, grant, rights, range, expires }
        }),
        (lease(), marks(), option::of(grant()), range(), time()).prop_map(
            |(lease, marks, grant, range, expires)| Take::Marks { lease, marks, grant, range, expires }
        ),
        (lease(), any::<u32>()).prop_map(|(lease, root)| Take::Root { lease, root }),
        (lease(), key(), time(), time(), option::of(time())).prop_map(|(lease, to, since, until, undoes)| {
            Take::Owner { lease, to, since, until, undoes }
        }),
    ]
}

fn notice() -> impl Strategy<Value = Notice> {
    prop_oneof![
        (lease(), cause()).prop_map(|(lease, cause)| Notice::LeaseEnded { lease, cause }),
        grant().prop_map(|grant| Notice::GrantOpened { grant }),
        (grant(), cause()).prop_map(|(grant, cause)| Notice::GrantEnded { grant, cause }),
    ]
}

fn registration() -> impl Strategy<Value = Registration> {
    let address = option::of((name(), 1..=u16::MAX));
    let classes = proptest::collection::btree_set(name(), 0..=PROVIDER_CLASSES_MAX);
    let sizes = (1..u64::MAX, 1..u32::MAX);
    let seat = option::of(any::<[u8; 16]>());
    (any::<[u8; 16]>(), name(), address, sizes, classes, option::of(name()), seat).prop_map(
        |(id, name, address, (bytes, regions), classes, locality, seat)| Registration {
            id: ProviderId(id),
            name,
            address: address.map(|(host, port)| Address::new(&format!("{host}:{port}")).unwrap()),
            bytes,
            regions,
            classes: classes.into_iter().collect(),
            locality,
            seat: seat.map(Seat),
        },
    )
}

fn allowance() -> impl Strategy<Value = Allowance> {
    any::<([u64; 3], [u32; 4])>().prop_map(|([leased_bytes, resident_bytes, shared_bytes], counts)| {
        let [leases, grants, opens, mappings] = counts;
        Allowance { leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings }
    })
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (vec(any::<[u8; 32]>().prop_map(RootPublic), 0..=ROOT_KEYS_MAX), vec(any::<u32>(), 0..9))
            .prop_map(|(keys, expired)| Fact::Roots(Roots { keys, expired })),
        (".{0,200}", any::<[u8; 32]>())
            .prop_map(|(text, hash)| Fact::Policy(PolicyText { text: text.into(), hash })),
        (allowance(), vec((name(), allowance()), 0..20))
            .prop_map(|(default, named)| Fact::Quotas(Quotas { default, named })),
        vec((key(), name()), 0..20).prop_map(Fact::Principals),
    ]
}

fn cut() -> impl Strategy<Value = Cut> {
    let id = any::<[[u8; 32]; 2]>().prop_map(|halves| RevocationId(halves.concat().try_into().unwrap()));
    let times = (time(), time());
    (lease(), option::of(grant()), id, marks(), option::of(range()), times, vec(key(), 1..=TOKEN_BLOCKS_MAX))
        .prop_map(|(lease, grant, id, marks, range, (not_before, expires), holders)| Cut {
            lease,
            grant,
            id,
            marks,
            range,
            not_before,
            expires,
            holders,
        })
}

fn to_broker() -> impl Strategy<Value = ToBroker> {
    let hello = (registration(), option::of(any::<[u8; 16]>()), any::<u32>()).prop_map(
        |(registration, cluster, protocol)| {
            let cluster = cluster.map(ClusterEpoch);
            ToBroker::Hello(Box::new(Hello { protocol, registration, cluster }))
        },
    );
    let asks = prop_oneof![
        (0..u64::MAX / 2, vec(notice(), 1..20))
            .prop_map(|(first, notices)| ProviderAsks::Notices { first, notices }),
        key().prop_map(|holder| ProviderAsks::RevokeHolder { holder }),
        (key(), cut(), reason()).prop_map(|(holder, cut, reason)| {
            ProviderAsks::RevokeToken { holder, cut: Box::new(cut), reason }
        }),
    ];
    let memory = (any::<[u64; 2]>(), any::<[u32; 4]>(), tier(), any::<bool>()).prop_map(
        |([bytes, huge_bytes], [segments, rotations, mappings, opens], tier, pinned)| MemoryRow {
            bytes,
            huge_bytes,
            segments,
            rotations,
            tier,
            mappings,
            opens,
            pinned,
        },
    );
    let method = proptest::sample::select(&[Method::Fence, Method::Cut, Method::Rotate][..]);
    let taken = (option::of(lease()), any::<u32>(), method, any::<[u64; 4]>()).prop_map(
        |(lease, mappings_closed, method, [fence, dead, wiped_bytes, quarantined_bytes])| Taken {
            lease,
            mappings_closed,
            method,
            fence: Micros(fence),
            dead: Micros(dead),
            wiped_bytes,
            quarantined_bytes,
        },
    );
    let says = prop_oneof![
        any::<u64>().prop_map(|bytes| ProviderSays::Claimed { bytes }),
        Just(ProviderSays::Done),
        taken.prop_map(ProviderSays::Taken),
        option::of(memory).prop_map(ProviderSays::Memory),
        (any::<u64>(), any::<u32>(), tier(), any::<u64>()).prop_map(
            |(committed_bytes, sessions, tier, entries)| {
                ProviderSays::Status(Pulse { committed_bytes, sessions, tier, entries })
            }
        ),
    ];
    prop_oneof![
        hello,
        Just(ToBroker::Ready),
        (any::<u64>(), asks).prop_map(|(number, ask)| ToBroker::Ask { number, ask }),
        (any::<u64>(), says).prop_map(|(number, says)| ToBroker::Answer { number, says }),
        (any::<u64>(), refusal()).prop_map(|(number, why)| ToBroker::Failed { number, why }),
        (any::<u64>(), option::of(refusal())).prop_map(|(number, why)| ToBroker::Recorded { number, why }),
        refusal().prop_map(ToBroker::Bye),
        Just(ToBroker::Gone),
    ]
}

fn receipt(leases: Vec<LeaseId>, target: Target) -> Reply {
    let body = ReceiptBody {
        id: ReceiptId([1; 16]),
        target,
        leases,
        mappings_closed: 3,
        method: Method::Rotate,
        fence: Micros(4),
        dead: Micros(5),
        wiped_bytes: 6,
        log_index: Some(7),
        issuer: PrincipalKey([8; 32]),
        left: None,
        quarantined_bytes: 9,
    };
    Reply::Receipt(Receipt { body, signature: Signature([10; 64]) })
}

fn to_provider() -> impl Strategy<Value = ToProvider> {
    let welcome = (any::<u32>(), any::<[u8; 16]>(), key()).prop_map(|(protocol, cluster, admin)| {
        ToProvider::Welcome(Welcome { protocol, cluster: ClusterEpoch(cluster), admin })
    });
    let asks = prop_oneof![
        ticket().prop_map(|ticket| BrokerAsks::Claim { ticket }),
        (lease(), any::<u64>(), time()).prop_map(|(lease, ttl, by)| BrokerAsks::Renew {
            lease,
            ttl: Micros(ttl),
            by
        }),
        (take(), cause()).prop_map(|(take, cause)| BrokerAsks::Take { take, cause }),
        lease().prop_map(|lease| BrokerAsks::Memory { lease }),
        Just(BrokerAsks::Status),
        fact().prop_map(BrokerAsks::Fact),
    ];
    let block = (lease(), vec(lease(), 0..9)).prop_map(|(lease, leases)| {
        BrokerSays::Revoked(Box::new(receipt(leases, Target::Block { lease, id: RevocationId([2; 64]) })))
    });
    let says =
        prop_oneof![any::<u64>().prop_map(|next| BrokerSays::Noted { next }), Just(BrokerSays::Done), block,];
    prop_oneof![
        welcome,
        fact().prop_map(ToProvider::Fact),
        Just(ToProvider::Told),
        any::<u64>().prop_map(|noted| ToProvider::Joined { noted }),
        (any::<u64>(), asks).prop_map(|(number, ask)| ToProvider::Ask { number, ask }),
        (any::<u64>(), says).prop_map(|(number, says)| ToProvider::Answer { number, says }),
        (any::<u64>(), refusal()).prop_map(|(number, why)| ToProvider::Failed { number, why }),
        refusal().prop_map(ToProvider::Bye),
    ]
}

fn back<T: Message>(message: &T) -> T {
    let frame = encode(message).unwrap();
    let (prefix, body) = frame.split_first_chunk().unwrap();
    assert_eq!(length(*prefix, LINK_FRAME_BYTES_MAX).unwrap(), body.len());
    fuzz(body);
    decode(body).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "many cases")]
    fn what_a_provider_says_comes_back(message in to_broker()) {
        prop_assert_eq!(&back(&message), &message);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many cases")]
    fn what_a_broker_says_comes_back(message in to_provider()) {
        prop_assert_eq!(&back(&message), &message);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many cases")]
    fn damage_is_refused_or_is_another_message(
        message in to_broker(),
        at: proptest::sample::Index,
        bit in 0..8_u32,
        cut: bool,
    ) {
        let mut body = encode(&message).unwrap().split_off(PREFIX_BYTES);
        let at = at.index(body.len());
        if cut {
            body.truncate(at);
            prop_assert_eq!(decode::<ToBroker>(&body).unwrap_err().code(), Code::FrameType);
        } else {
            body[at] ^= 1 << bit;
        }
        fuzz(&body);
    }

    #[test]
    #[cfg_attr(miri, ignore = "many cases")]
    fn any_bytes_are_refused_or_a_message(body in vec(any::<u8>(), 0..300)) {
        fuzz(&body);
    }
}

fn refused<T: Message + std::fmt::Debug>(message: &T) -> Code {
    decode::<T>(&encode(message).unwrap()[PREFIX_BYTES..]).unwrap_err().code()
}

#[test]
fn lengths_have_borders() {
    let prefix = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
    for most in [LINK_HELLO_BYTES_MAX, LINK_FRAME_BYTES_MAX] {
        assert_eq!(length(prefix(1), most).unwrap(), 1);
        assert_eq!(length(prefix(most - PREFIX_BYTES), most).unwrap(), most - PREFIX_BYTES);
        for bad in [0, most - PREFIX_BYTES + 1, most, u32::MAX as usize] {
            assert_eq!(length(prefix(bad), most).unwrap_err().code(), Code::FrameSize, "{bad}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "messages as long as they may be")]
fn what_may_be_several_has_a_bound() {
    let name = |n: usize| Name::new(&format!("n{n}")).unwrap();
    let ask = |ask| ToBroker::Ask { number: 1, ask };
    let notices = |first, count| {
        ask(ProviderAsks::Notices {
            first,
            notices: vec![Notice::GrantOpened { grant: GrantId([1; 16]) }; count],
        })
    };
    back(&notices(u64::MAX - 1, 1));
    back(&notices(0, LINK_NOTICES_PER_FRAME_MAX));
    for bad in [notices(0, 0), notices(0, LINK_NOTICES_PER_FRAME_MAX + 1), notices(u64::MAX, 1)] {
        assert_eq!(refused(&bad), Code::FrameType);
    }
    let facts: [fn(usize) -> Fact; 5] = [
        |n| Fact::Roots(Roots { keys: vec![RootPublic([1; 32]); n], expired: vec![] }),
        |n| Fact::Roots(Roots { keys: vec![], expired: vec![u32::MAX; n] }),
        |n| Fact::Policy(PolicyText { text: "x".repeat(n).into(), hash: [0; 32] }),
        |n| {
            let one = (Name::new(&"n".repeat(64)).unwrap(), Allowance { leased_bytes: u64::MAX, ..NOTHING });
            Fact::Quotas(Quotas { default: NOTHING, named: vec![one; n] })
        },
        |n| Fact::Principals(vec![(PrincipalKey([1; 32]), Name::new(&"n".repeat(64)).unwrap()); n]),
    ];
    for (fact, most) in facts.into_iter().zip([
        ROOT_KEYS_MAX,
        LINK_EXPIRED_ROOTS_MAX,
        LINK_POLICY_BYTES_MAX,
        LINK_PAGE_MAX,
        LINK_PAGE_MAX,
    ]) {
        back(&ToProvider::Fact(fact(most)));
        assert_eq!(refused(&ToProvider::Fact(fact(most + 1))), Code::FrameType);
        let asked = ToProvider::Ask { number: 1, ask: BrokerAsks::Fact(fact(most + 1)) };
        assert_eq!(refused(&asked), Code::FrameType);
    }
    let cut = |held: usize| {
        let cut = Cut {
            lease: LeaseId([1; 16]),
            grant: None,
            id: RevocationId([2; 64]),
            marks: [None, None],
            range: None,
            not_before: UnixMicros(1),
            expires: UnixMicros(2),
            holders: vec![PrincipalKey([3; 32]); held],
        };
        ask(ProviderAsks::RevokeToken {
            holder: PrincipalKey([3; 32]),
            cut: Box::new(cut),
            reason: Reason::default(),
        })
    };
    back(&cut(TOKEN_BLOCKS_MAX + 1));
    assert_eq!([refused(&cut(0)), refused(&cut(TOKEN_BLOCKS_MAX + 2))], [Code::FrameType; 2]);

    // The largest first message fits the frame that is read before anybody is known.
    let registration = Registration {
        id: ProviderId([1; 16]),
        name: Name::new(&"n".repeat(64)).unwrap(),
        address: Some(Address::new(&format!("{}:65535", "h".repeat(253))).unwrap()),
        bytes: u64::MAX,
        regions: u32::MAX,
        classes: (0..PROVIDER_CLASSES_MAX).map(|n| Name::new(&format!("{n:064}")).unwrap()).collect(),
        locality: Some(Name::new(&"l".repeat(64)).unwrap()),
        seat: Some(Seat([u8::MAX; 16])),
    };
    let hello = |registration| {
        ToBroker::Hello(Box::new(Hello {
            protocol: u32::MAX,
            registration,
            cluster: Some(ClusterEpoch([1; 16])),
        }))
    };
    assert!(encode(&hello(registration.clone())).unwrap().len() <= LINK_HELLO_BYTES_MAX);
    assert_eq!(refused(&hello(Registration { bytes: 0, ..registration.clone() })), Code::Range);
    let classes = (0..=PROVIDER_CLASSES_MAX).map(name).collect();
    assert_eq!(refused(&hello(Registration { classes, ..registration })), Code::Range);
}

const NOTHING: Allowance = Allowance {
    leases: u32::MAX,
    leased_bytes: u64::MAX,
    resident_bytes: u64::MAX,
    shared_bytes: u64::MAX,
    grants: u32::MAX,
    opens: u32::MAX,
    mappings: u32::MAX,
};

#[test]
#[cfg_attr(miri, ignore = "messages as long as they may be")]
fn the_largest_receipt_fits_and_nothing_else_is_an_answer_to_a_revocation() {
    let says = |reply| ToProvider::Answer { number: u64::MAX, says: BrokerSays::Revoked(Box::new(reply)) };
    // As many leases as a receipt names.
    let many: Vec<_> = (0..4_096_u32).map(|n| LeaseId([n as u8; 16])).collect();
    back(&says(receipt(many, Target::Holder(SigningKey::from_seed(&[1; 32]).public()))));
    assert_eq!(
        refused(&says(Reply::Challenge { node: ProviderId([1; 16]), nonce: crate::pop::Nonce([0; 32]) })),
        Code::FrameType
    );
    let huge = says(receipt(vec![LeaseId([1; 16]); 20_000], Target::Lease(LeaseId([1; 16]))));
    assert_eq!(encode(&huge).unwrap_err().code(), Code::FrameSize);
}

#[test]
fn unknown_fields_messages_and_trailing_bytes_are_refused() {
    let is = |value: ciborium::Value| {
        let mut body = Vec::new();
        ciborium::into_writer(&value, &mut body).unwrap();
        decode::<ToBroker>(&body).map_err(|error| error.code())
    };
    use ciborium::Value::{Integer, Map, Text};
    let text = |text: &str| Text(text.to_owned());
    let bye = |extra: Option<&str>| {
        let mut fields = vec![(text("code"), Integer(309.into()))];
        fields.extend(extra.map(|name| (text(name), Integer(1.into()))));
        Map(vec![(text("Bye"), Map(fields))])
    };
    assert_eq!(is(text("Ready")), Ok(ToBroker::Ready));
    assert_eq!(is(bye(None)), Ok(ToBroker::Bye(Refusal { code: Code::Unreachable, detail: None })));
    for bad in [bye(Some("more")), bye(Some("code")), text("Told"), text(""), Integer(1.into()), Map(vec![])]
    {
        assert_eq!(is(bad.clone()), Err(Code::FrameType), "{bad:?}");
    }
    let mut ready = encode(&ToBroker::Ready).unwrap().split_off(PREFIX_BYTES);
    ready.push(0xf6);
    assert_eq!(decode::<ToBroker>(&ready).unwrap_err().code(), Code::FrameType);
    // No code, and a text that is none of ours.
    let loud = Map(vec![(
        text("Bye"),
        Map(vec![(text("code"), Integer(309.into())), (text("detail"), text("\u{1b}[2J"))]),
    )]);
    assert_eq!(is(loud), Err(Code::FrameType));
}
