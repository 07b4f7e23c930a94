//! What a holder does offline, and what an inspection shows of it.

mod support;

use caps::error::Code;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{
    Kind, Limit, Narrow, Question, RootKey, RootKeys, Signatures, Terms, Token, attenuate, delegate, gate,
    inspect, seal,
};
use support::*;

fn narrowed() -> Token {
    let narrow = Narrow {
        rights: Some(Rights::READ.union(Rights::SHARE)),
        range: Some(range(8_192, 16_384)),
        expires: Some(UnixMicros(END - 10)),
        not_before: Some(UnixMicros(BEGIN + 10)),
        max_hops: Some(1),
        opens: Some(5),
        bytes_per_second: Some(100),
        bytes_total: Some(1_000),
    };
    attenuate(&token(), &narrow).unwrap()
}

#[test]
fn the_same_bound_again_is_allowed_and_a_wider_one_refused() {
    let nothing = Narrow::default();
    for (equal, wider) in [
        (
            Narrow { rights: Some(Rights::READ.union(Rights::SHARE)), ..nothing },
            Narrow { rights: Some(Rights::READ_WRITE), ..nothing },
        ),
        (
            Narrow { range: Some(range(8_192, 16_384)), ..nothing },
            Narrow { range: Some(range(8_191, 16_384)), ..nothing },
        ),
        (
            Narrow { range: Some(range(16_383, 16_384)), ..nothing },
            Narrow { range: Some(range(16_383, 16_385)), ..nothing },
        ),
        (
            Narrow { expires: Some(UnixMicros(END - 10)), ..nothing },
            Narrow { expires: Some(UnixMicros(END - 9)), ..nothing },
        ),
        (
            Narrow { not_before: Some(UnixMicros(BEGIN + 10)), ..nothing },
            Narrow { not_before: Some(UnixMicros(BEGIN + 9)), ..nothing },
        ),
        (Narrow { max_hops: Some(1), ..nothing }, Narrow { max_hops: Some(2), ..nothing }),
        (Narrow { opens: Some(5), ..nothing }, Narrow { opens: Some(6), ..nothing }),
        (
            Narrow { bytes_per_second: Some(100), ..nothing },
            Narrow { bytes_per_second: Some(101), ..nothing },
        ),
        (Narrow { bytes_total: Some(1_000), ..nothing }, Narrow { bytes_total: Some(1_001), ..nothing }),
    ] {
        let parent = narrowed();
        let child = attenuate(&parent, &equal).unwrap();
        let (before, after) = (verify(parent.as_bytes()).unwrap(), verify(child.as_bytes()).unwrap());
        assert!(before.effective().contains(after.effective()), "{equal:?}");
        assert_eq!(attenuate(&parent, &wider).unwrap_err().code(), Code::Range, "{wider:?}");
        if wider.max_hops.is_none() {
            let delegated = delegate(&parent, &person(0), public(1), &wider);
            assert_eq!(delegated.unwrap_err().code(), Code::Range, "{wider:?}");
        }
    }
    for never in [
        nothing,
        Narrow { rights: Some(Rights::NONE), ..nothing },
        Narrow { opens: Some(u64::MAX), ..nothing },
        Narrow { not_before: Some(UnixMicros(u64::MAX)), ..nothing },
        Narrow { expires: Some(UnixMicros(u64::MAX)), ..nothing },
    ] {
        assert_eq!(attenuate(&token(), &never).unwrap_err().code(), Code::Range, "{never:?}");
    }
}

#[test]
fn terms_that_no_token_can_hold() {
    let good = terms();
    for bad in [
        Terms { rights: Rights::NONE, ..good },
        Terms { expires: good.not_before, ..good },
        Terms { expires: UnixMicros(u64::MAX), ..good },
        Terms { max_hops: 8, ..good },
        Terms { holder: caps::id::PrincipalKey([0; 32]), ..good },
    ] {
        assert_eq!(root().mint(&bad).unwrap_err().code(), Code::Range, "{bad:?}");
    }
    let extreme = Terms {
        range: ByteRange::new(0, ByteRange::END_MAX).unwrap(),
        not_before: UnixMicros(0),
        expires: UnixMicros::MAX,
        max_hops: 7,
        ..good
    };
    let token = root().mint(&extreme).unwrap();
    assert_eq!(verify(token.as_bytes()).unwrap().terms(), &extreme);
}

#[test]
fn hops_are_counted_from_here() {
    let one_more = Narrow { max_hops: Some(1), ..Narrow::default() };
    let first = delegate(&token(), &person(0), public(1), &one_more).unwrap();
    assert_eq!(verify(first.as_bytes()).unwrap().effective().hops_left(), Some(1));
    assert_eq!(delegate(&first, &person(1), public(2), &one_more).unwrap_err().code(), Code::Range);
    let second = delegate(&first, &person(1), public(2), &Narrow::default()).unwrap();
    let verified = verify(second.as_bytes()).unwrap();
    assert_eq!(verified.effective().hops_left(), Some(0));
    let hops = verified.chain().hops.iter().map(|hop| (hop.block, hop.from, hop.to)).collect::<Vec<_>>();
    assert_eq!(hops, [(1, public(0), public(1)), (2, public(1), public(2))]);
    assert_eq!(
        delegate(&second, &person(2), public(3), &Narrow::default()).unwrap_err().code(),
        Code::Denied
    );
    // Seven hops are the most that a token has room for.
    let mut token = root().mint(&Terms { max_hops: 7, ..terms() }).unwrap();
    for hop in 0..7 {
        token = delegate(&token, &person(hop), public(hop + 1), &Narrow::default()).unwrap();
    }
    assert_eq!(verify(token.as_bytes()).unwrap().chain().holder, public(7));
    assert_eq!(
        delegate(&token, &person(7), public(8), &Narrow::default()).unwrap_err().code(),
        Code::TokenTooBig
    );
}

#[test]
fn a_block_by_who_is_not_the_holder_breaks_the_token_for_every_tool() {
    let theft = format!("delegate(hex:{})", public(2));
    let stolen = Token::from_bytes(append_signed_datalog(token().as_bytes(), 2, &theft)).unwrap();
    let narrow = Narrow { max_hops: Some(0), ..Narrow::default() };
    assert_eq!(attenuate(&stolen, &narrow).unwrap_err().code(), Code::TokenSignature);
    assert_eq!(seal(&stolen).unwrap_err().code(), Code::TokenSignature);
    assert_eq!(inspect(&stolen, None).unwrap_err().code(), Code::TokenSignature);
    assert_eq!(delegate(&stolen, &person(2), public(3), &narrow).unwrap_err().code(), Code::TokenSignature);
}

#[test]
fn an_inspection_shows_every_block_and_says_who_checked() {
    let delegated = delegate(&narrowed(), &person(0), public(1), &Narrow::default()).unwrap();
    let sealed = seal(&delegated).unwrap();
    let shown = inspect(&sealed, None).unwrap();
    assert_eq!(shown.signatures, Signatures::NotChecked);
    assert!(shown.sealed && !inspect(&delegated, None).unwrap().sealed);
    assert_eq!(shown.holders, [public(0).to_string(), public(1).to_string()]);
    let kinds = shown.blocks.iter().map(|block| block.kind).collect::<Vec<_>>();
    assert_eq!(kinds, [Kind::Authority, Kind::Attenuation, Kind::Delegation]);
    assert_eq!(shown.blocks[0].signer, format!("root key {:08x}", root().id()));
    assert_eq!(shown.blocks[1].signer, "whoever held the token");
    assert_eq!(shown.blocks[2].signer, public(0).to_string());
    assert_eq!(shown.blocks[2].delegate, Some(public(1).to_string()));
    assert_eq!(shown.blocks[0].after.rights, "rws");
    assert_eq!(shown.blocks[1].narrows.bytes_total, Some(1_000));
    assert_eq!(shown.effective.rights, "rs");
    assert_eq!(shown.effective.range, Some([8_192, 16_384]));
    assert_eq!((shown.effective.hops, shown.effective.hops_left), (1, Some(0)));
    assert_eq!(shown.revocation_ids.len(), 4);
    // What each block took, and nothing of what it only says again.
    assert!(shown.blocks[0].took.is_nothing() && shown.blocks[2].took.is_nothing());
    let taken = serde_json::to_value(&shown.blocks[1].took).unwrap();
    let before = token();
    let before = verify(before.as_bytes()).unwrap();
    let before = before.effective();
    let expected = serde_json::json!({
        "rights": "w",
        "bytes": [[before.range.unwrap().start(), 8_192], [16_384, before.range.unwrap().end()]],
        "begins_later": 10,
        "ends_earlier": 10,
        "hops": before.max_hops - 1,
        "opens": { "to": 5 },
        "bytes_per_second": { "to": 100 },
        "bytes_total": { "to": 1_000 },
    });
    assert_eq!(taken, expected);
    assert_eq!(serde_json::to_value(&shown.blocks[2].took).unwrap(), serde_json::json!({}));
    // With keys it says more, and a token of strangers is shown as what it is.
    assert_eq!(inspect(&sealed, Some(&keys())).unwrap().signatures, Signatures::Verified);
    let others = RootKeys::of(RootKey::from_seed(&[42; 32]).public()).unwrap();
    let unknown = inspect(&sealed, Some(&others)).unwrap();
    assert_eq!(unknown.signatures, Signatures::Refused { code: "E_TOKEN_UNKNOWN_KEY" });
    // Nothing of it is a secret: the last bytes of an unsealed token are.
    let json = serde_json::to_string(&inspect(&delegated, None).unwrap()).unwrap();
    let bytes = delegated.as_bytes();
    let secret = data_encoding::HEXLOWER.encode(&bytes[bytes.len() - 32..]);
    assert!(json.contains("\"not_checked\"") && !json.contains(&secret));
    for shown in [format!("{delegated:?}"), format!("{:?}", caps::token::gate(bytes).unwrap())] {
        assert!(!shown.contains(&secret) && shown.len() < 80, "{shown}");
    }
}

#[test]
fn effective_knows_what_a_mapping_cannot_do() {
    assert!(!verify(token().as_bytes()).unwrap().effective().mediated_only());
    assert!(verify(narrowed().as_bytes()).unwrap().effective().mediated_only());
    let opens = attenuate(&token(), &Narrow { opens: Some(1), ..Narrow::default() }).unwrap();
    assert!(!verify(opens.as_bytes()).unwrap().effective().mediated_only());
}

#[test]
fn limits_on_use_fail_closed() {
    let limits = [
        ("opens: ", Narrow { opens: Some(1), ..Narrow::default() }),
        ("rate: ", Narrow { bytes_per_second: Some(1), ..Narrow::default() }),
        ("budget: ", Narrow { bytes_total: Some(1), ..Narrow::default() }),
    ];
    for (name, narrow) in limits {
        let token = attenuate(&token(), &narrow).unwrap();
        let verified = verify(token.as_bytes()).unwrap();
        assert!(verified.authorize(&request()).is_ok());
        let two = caps::token::Usage { opens: 2, bytes_per_second: 2, bytes_total: 2 };
        for usage in [None, Some(two)] {
            let request = caps::token::Request { usage, ..request() };
            let error = verified.authorize(&request).unwrap_err();
            assert!(error.code() == Code::Denied && error.detail().starts_with(name), "{error}");
            let reference = verified.authorize_by_datalog(token.as_bytes(), &keys(), &request);
            assert_eq!(reference.unwrap_err().code(), Code::Denied);
        }
        // Whoever counts the token's meters by itself leaves these limits out of both decisions, and nothing else.
        let usage = Some(caps::token::Usage::judged_by_meters());
        assert_eq!(verified.meters().len(), 1);
        for (lease, allowed) in [(request().lease, true), (caps::id::LeaseId([99; 16]), false)] {
            let request = caps::token::Request { usage, lease, ..request() };
            assert_eq!(verified.authorize(&request).is_ok(), allowed);
            assert_eq!(verified.authorize_by_datalog(token.as_bytes(), &keys(), &request).is_ok(), allowed);
        }
    }
}

#[test]
fn the_reference_judges_only_the_token_it_is_asked_about() {
    let verified = verify(token().as_bytes()).unwrap();
    let other = narrowed();
    let refused = verified.authorize_by_datalog(other.as_bytes(), &keys(), &request());
    assert_eq!(refused.unwrap_err().code(), Code::TokenSignature);
}

#[test]
fn a_question_names_every_limit_it_falls_outside_of_and_the_block_that_set_it() {
    let delegated = delegate(
        &narrowed(),
        &person(0),
        public(1),
        &Narrow { range: Some(range(8_192, 12_288)), ..Narrow::default() },
    );
    let delegated = delegated.unwrap();
    let gated = gate(delegated.as_bytes()).unwrap();
    let ask = |rights, range, at| {
        let question = Question { rights, range, at: UnixMicros(at) };
        let found = gated.shortfalls(&question).unwrap().into_iter();
        found.map(|short| (short.limit, short.block)).collect::<Vec<_>>()
    };
    assert_eq!(ask(Rights::READ, Some(range(8_192, 12_288)), BEGIN + 10), []);
    assert_eq!(ask(Rights::NONE, None, BEGIN + 10), []);
    assert_eq!(ask(Rights::READ, Some(range(8_192, 12_289)), BEGIN + 10), [(Limit::Range, 2)]);
    assert_eq!(ask(Rights::READ, Some(range(4_096, 8_192)), BEGIN + 10), [(Limit::Range, 1)]);
    assert_eq!(ask(Rights::READ, Some(range(0, 1)), BEGIN + 10), [(Limit::Range, 0)]);
    assert_eq!(ask(Rights::READ_WRITE, None, END - 10), [(Limit::Expires, 1), (Limit::Rights, 1)]);
    assert_eq!(ask(Rights::READ, None, END), [(Limit::Expires, 0)]);
    assert_eq!(ask(Rights::READ, None, BEGIN), [(Limit::NotBefore, 1)]);
    assert_eq!(ask(Rights::READ, None, 0), [(Limit::NotBefore, 0)]);
    let used_up =
        attenuate(&delegated, &Narrow { opens: Some(0), bytes_total: Some(0), ..Narrow::default() });
    let used_up = used_up.unwrap();
    let question = Question { rights: Rights::NONE, range: None, at: UnixMicros(BEGIN + 10) };
    let short = gate(used_up.as_bytes()).unwrap().shortfalls(&question).unwrap();
    let short: Vec<_> = short.iter().map(|short| (short.limit, short.block)).collect();
    assert_eq!(short, [(Limit::Opens, 3), (Limit::Budget, 3)]);
}

#[test]
fn the_marks_of_a_token_grow_block_by_block() {
    let delegated = delegate(&narrowed(), &person(0), public(1), &Narrow::default()).unwrap();
    let again = attenuate(&delegated, &Narrow { rights: Some(Rights::READ), ..Narrow::default() }).unwrap();
    let whole = verify(again.as_bytes()).unwrap();
    assert_eq!(whole.blocks(), 4);
    for (block, ancestor) in [token(), narrowed(), delegated.clone(), again.clone()].iter().enumerate() {
        let ancestor = verify(ancestor.as_bytes()).unwrap();
        assert_eq!(usize::from(ancestor.blocks()), block + 1);
        let until = whole.marks_until(block as u8);
        assert_eq!(until.len(), ancestor.marks().len());
        assert!(until.iter().all(|mark| whole.marks().contains(mark)));
    }
    // Of the same bytes, to the same marks.
    let parent = verify(delegated.as_bytes()).unwrap();
    assert_eq!(whole.marks_until(2), parent.marks());
    assert_eq!(whole.marks_until(3), whole.marks());
}
