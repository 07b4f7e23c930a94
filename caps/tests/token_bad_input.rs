//! Bad input to tokens: parsing (A) and meaning (B). Each test is named after its row in the catalogue.

#![expect(
    clippy::disallowed_methods,
    reason = "hostile tokens are made by the library's own means, out of text of ours"
)]

mod support;

use biscuit_auth::builder::Algorithm;
use biscuit_auth::{Biscuit, BlockBuilder, KeyPair};
use caps::error::Code;
use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use caps::limits::TOKEN_BYTES_MAX;
use caps::rights::{Operation, Rights};
use caps::time::UnixMicros;
use caps::token::{
    Mark, Narrow, Request, RootKey, RootKeys, Terms, Token, attenuate, delegate, forge, gate, seal,
};
use support::*;

/// A token of every kind that an honest person makes: minted, narrowed, delegated, sealed.
fn honest() -> Vec<Token> {
    let minted = token();
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let narrowed = forge::attenuate(&minted, &narrow, &[8; 32]).unwrap();
    let delegated = forge::delegate(&narrowed, &person(0), public(1), &Narrow::default(), &[9; 32]).unwrap();
    let sealed = seal(&delegated).unwrap();
    vec![minted, narrowed, delegated, sealed]
}

#[test]
fn a1_empty_token() {
    assert_eq!(gate_code(&[]), Code::TokenMalformed);
    assert_eq!(gate_code(Token::from_bytes(Vec::new()).unwrap().as_bytes()), Code::TokenMalformed);
}

#[test]
fn a2_one_byte_and_4_kib_of_ff() {
    for byte in 0..=u8::MAX {
        let code = gate_code(&[byte]);
        // One byte that is a whole tag of an unknown field is refused as that.
        assert!(matches!(code, Code::TokenMalformed | Code::TokenNoncanonical), "{byte:#x}: {code}");
    }
    assert_eq!(gate_code(&[0xff]), Code::TokenMalformed);
    assert_eq!(gate_code(&[0xff; 4096]), Code::TokenMalformed);
}

#[test]
fn a3_cut_at_every_byte() {
    for token in honest() {
        let bytes = token.as_bytes();
        for end in 0..bytes.len() {
            assert_eq!(gate_code(&bytes[..end]), Code::TokenMalformed, "cut at {end}");
        }
        verify(bytes).unwrap();
    }
}

#[test]
fn a4_every_bit_flipped() {
    for token in honest() {
        let mut bytes = token.as_bytes().to_vec();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                bytes[index] ^= 1 << bit;
                let refused = verify(&bytes).map(drop).unwrap_err().code();
                assert_eq!(refused.blame(), caps::Blame::Client, "byte {index} bit {bit}: {refused}");
                bytes[index] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn a5_too_big_before_decoding() {
    for bytes in [TOKEN_BYTES_MAX + 1, 252 * 1024, 16 << 20] {
        // Bytes that are no token at all: the size is what is judged.
        assert_eq!(gate_code(&vec![0xff; bytes]), Code::TokenTooBig);
        assert_eq!(Token::from_bytes(vec![0; bytes]).unwrap_err().code(), Code::TokenTooBig);
    }
    let mut bytes = token().as_bytes().to_vec();
    let block =
        forge::blocks(&append_datalog(&bytes, "check if hops($hops), $hops <= 3")).unwrap().pop().unwrap();
    for _ in 1..8 {
        gate(&bytes).unwrap();
        bytes = forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap();
    }
    // Eight blocks, the most; a ninth is refused by its number, not by its size.
    verify(&bytes).unwrap();
    let full = Token::from_bytes(bytes.clone()).unwrap();
    let more = Narrow { max_hops: Some(0), ..Narrow::default() };
    assert_eq!(attenuate(&full, &more).unwrap_err().code(), Code::TokenTooBig);
    let ninth = forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap();
    assert!(ninth.len() < TOKEN_BYTES_MAX);
    assert_eq!(gate_code(&ninth), Code::TokenTooBig);
}

/// The honest token with `extra` at the end of the whole (depth 0), of its authority block (1) or of that block's
/// next key (2), every length around it put right.
fn rebuilt_with(extra: &[u8], depth: usize) -> Vec<u8> {
    fn varint(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }
    fn read(bytes: &[u8], at: &mut usize) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    /// Puts `extra` at the end of the first nested message at `depth`.
    fn rebuild(bytes: &[u8], extra: &[u8], depth: usize, top: bool) -> Vec<u8> {
        if depth == 0 {
            return [bytes, extra].concat();
        }
        let (mut out, mut at, mut done) = (Vec::new(), 0, false);
        while at < bytes.len() {
            let start = at;
            let tag = read(bytes, &mut at);
            if tag & 7 == 0 {
                read(bytes, &mut at);
                out.extend(&bytes[start..at]);
                continue;
            }
            let length = read(bytes, &mut at);
            let body = &bytes[at..at + length];
            at += length;
            // From the top into the authority block; from there into its next key.
            if !done && (top || tag >> 3 == 2) {
                done = true;
                let body = rebuild(body, extra, depth - 1, false);
                out.extend(varint(tag));
                out.extend(varint(body.len()));
                out.extend(body);
            } else {
                out.extend(&bytes[start..at]);
            }
        }
        assert!(done);
        out
    }
    rebuild(token().as_bytes(), extra, depth, true)
}

#[test]
fn a6_trailing_bytes_unknown_fields_and_long_tags() {
    let bytes = token().as_bytes().to_vec();
    assert_eq!(rebuilt_with(&[], 2), bytes, "the helper rebuilds what it took apart");
    for trailing in [&[0x00][..], &[0x0a], &[0x22, 0x00], &[0xf8, 0x01, 0x01]] {
        let code = gate_code(&[&bytes, trailing].concat());
        assert_eq!(code, Code::TokenNoncanonical, "{trailing:x?}");
    }
    // Field 31 as an integer and as bytes, at the end of the token, of the authority block, of its next key.
    for depth in 0..=2 {
        for unknown in [&[0xf8, 0x01, 0x01][..], &[0xfa, 0x01, 0x01, 0x61]] {
            assert_eq!(gate_code(&rebuilt_with(unknown, depth)), Code::TokenNoncanonical, "depth {depth}");
        }
    }
    // The first tag (root key id, 0x08) in two bytes.
    assert_eq!(bytes[0], 0x08);
    assert_eq!(gate_code(&[&[0x88, 0x00], &bytes[1..]].concat()), Code::TokenNoncanonical);
    // The root key id twice, and after the authority block.
    let id_end = bytes.iter().skip(1).position(|byte| *byte < 0x80).unwrap() + 2;
    assert_eq!(gate_code(&[&bytes[..id_end], &bytes].concat()), Code::TokenNoncanonical);
    // Inside the Datalog of a block that is signed properly: an unknown field, and a version in two bytes.
    let block =
        forge::blocks(&append_datalog(&bytes, "check if hops($hops), $hops <= 3")).unwrap().pop().unwrap();
    let unknown = [&block[..], &[0xf8, 0x01, 0x01]].concat();
    let appended = forge::append_raw(&bytes, &unknown, None, &[9; 32]).unwrap();
    assert_eq!(gate_code(&appended), Code::TokenNoncanonical);
    assert_eq!(block[..2], [0x18, 0x03], "no symbol, version 3");
    let long = [&[0x18, 0x83, 0x00], &block[2..]].concat();
    assert_eq!(
        gate_code(&forge::append_raw(&bytes, &long, None, &[9; 32]).unwrap()),
        Code::TokenNoncanonical
    );
}

#[test]
fn a8_lengths_that_lie() {
    let varints: [&[u8]; 3] = [
        &[0x7f],                                                       // more than is left
        &[0x80, 0x80, 0x80, 0x80, 0x08],                               // 2^31
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], // 2^63
    ];
    for length in varints {
        for tag in [0x12, 0x1a, 0x22] {
            assert_eq!(gate_code(&[&[tag], length, b"short"].concat()), Code::TokenMalformed);
        }
        let appended =
            forge::append_raw(token().as_bytes(), &[&[0x0a], length].concat(), None, &[9; 32]).unwrap();
        assert_eq!(gate_code(&appended), Code::TokenMalformed);
    }
}

#[test]
fn a10_block_versions() {
    let bytes = token().as_bytes().to_vec();
    let block =
        forge::blocks(&append_datalog(&bytes, "check if hops($hops), $hops <= 3")).unwrap().pop().unwrap();
    for version in [&[0x02][..], &[0x06], &[0x07], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x00]] {
        let block = [&[0x18], version, &block[2..]].concat();
        let appended = forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap();
        assert_eq!(gate_code(&appended), Code::TokenVersion, "{version:x?}");
        // The same under the root key.
        assert_eq!(gate_code(&forge::mint_raw(&ROOT_SEED, Some(1), &block, &[9; 32])), Code::TokenVersion);
    }
    let missing = forge::append_raw(&bytes, &block[2..], None, &[9; 32]).unwrap();
    assert_eq!(gate_code(&missing), Code::TokenVersion);
    for version in [4, 5] {
        let block = [&[0x18, version], &block[2..]].concat();
        verify(&forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap()).unwrap();
    }
}

#[test]
fn a11_text_that_misleads() {
    let bytes = token().as_bytes().to_vec();
    for symbol in
        [&b"\xff\xfe"[..], b"a\0b", "\u{202e}daer".as_bytes(), b"Read", b"a b", b"", &[b'a'; 65], b"w\");"]
    {
        let block = [&[0x0a, symbol.len() as u8], symbol, &[0x18, 0x03]].concat();
        let appended = forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap();
        assert_eq!(gate_code(&appended), Code::TokenProfile, "{symbol:x?}");
        let detail = gate(&appended).unwrap_err().detail().to_owned();
        assert!(detail.is_ascii() && !detail.contains("daer"), "no byte of the token is quoted");
    }
}

#[test]
fn a12_symbol_tables() {
    let bytes = token().as_bytes().to_vec();
    let check = |name: u8, table: &[&str]| {
        // check if <name>($<name>), $<name> <= 3, with any symbol number below 128 + 1024
        let symbol = |tag: u8| [tag, name | 0x80, 0x08];
        let predicate = [&symbol(0x08)[..], &[0x12, 0x03], &symbol(0x08)].concat();
        let expression =
            [&[0x0a, 0x05, 0x0a, 0x03][..], &symbol(0x08), &[0x0a, 0x04, 0x0a, 0x02, 0x10, 0x03, 0x0a, 0x04]];
        let expression = [&expression.concat()[..], &[0x1a, 0x02, 0x08, 0x02]].concat();
        let rule = [
            &[0x0a, 0x02, 0x08, 27, 0x12, predicate.len() as u8],
            &predicate[..],
            &[0x1a, expression.len() as u8],
            &expression,
        ]
        .concat();
        let mut block = Vec::new();
        for symbol in table {
            block.extend([0x0a, symbol.len() as u8]);
            block.extend(symbol.as_bytes());
        }
        block.extend([0x18, 0x03, 0x32, rule.len() as u8 + 2, 0x0a, rule.len() as u8]);
        block.extend(rule);
        forge::append_raw(&bytes, &block, None, &[9; 32]).unwrap()
    };
    // The authority block of `token()` brings 16 symbols, so that the next one is number 16.
    gate(&check(16, &["opens"])).unwrap();
    assert_eq!(gate_code(&check(17, &["opens"])), Code::TokenMalformed, "out of the table");
    assert_eq!(gate_code(&check(16, &["opens", "opens"])), Code::TokenMalformed, "twice in one block");
    assert_eq!(gate_code(&check(16, &["lease"])), Code::TokenMalformed, "in the authority block already");
    assert_eq!(gate_code(&check(16, &["time"])), Code::TokenMalformed, "in the default table already");
    assert_eq!(gate_code(&check(16, &["opens", "rate"])), Code::TokenProfile, "nothing names it");
}

#[test]
fn b1_unknown_root_key() {
    let other = RootKey::from_seed(&[42; 32]);
    let token = forge::mint(&other, &terms(), &NEXT_SEED).unwrap();
    // Under its own id the key is unknown; under ours, the signature is wrong.
    assert_eq!(verify(token.as_bytes()).unwrap_err().code(), Code::TokenUnknownKey);
    let block = forge::blocks(token.as_bytes()).unwrap().remove(0);
    let posed = forge::mint_raw(&[42; 32], Some(root().id()), &block, &NEXT_SEED);
    assert_eq!(verify(&posed).unwrap_err().code(), Code::TokenSignature);
}

#[test]
fn b2_root_key_ids() {
    let block = forge::blocks(token().as_bytes()).unwrap().remove(0);
    for id in [None, Some(0), Some(root().id() ^ 1), Some(RootKey::from_seed(&[42; 32]).id())] {
        let token = forge::mint_raw(&ROOT_SEED, id, &block, &NEXT_SEED);
        assert_eq!(verify(&token).unwrap_err().code(), Code::TokenUnknownKey, "{id:?}");
    }
    let token = forge::mint_raw(&ROOT_SEED, Some(root().id()), &block, &NEXT_SEED);
    verify(&token).unwrap();
    assert_eq!(token, support::token().as_bytes(), "two ways to mint give the same bytes");
    let mut keys = RootKeys::of(RootKey::from_seed(&[42; 32]).public()).unwrap();
    assert_eq!(
        gate(&token).unwrap().verify(&keys).unwrap_err().code(),
        Code::TokenUnknownKey,
        "another cluster"
    );
    keys.add(root().public()).unwrap();
    gate(&token).unwrap().verify(&keys).unwrap();
    keys.remove(root().public());
    assert_eq!(gate(&token).unwrap().verify(&keys).unwrap_err().code(), Code::TokenUnknownKey, "retired");
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("the bytes are there");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

#[test]
fn b3_signatures_that_are_none() {
    let token = delegate(&token(), &person(0), public(1), &Narrow::default()).unwrap();
    let bytes = token.as_bytes();
    let verified = verify(bytes).unwrap();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    for id in verified.revocation_ids() {
        assert_eq!(verify(&replaced(bytes, &id.0, &[0; 64])).unwrap_err().code(), Code::TokenSignature);
        // S + L: the same scalar, not reduced.
        let (mut larger, mut carry) = (id.0, 0u16);
        for (byte, order) in larger[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(verify(&replaced(bytes, &id.0, &larger)).unwrap_err().code(), Code::TokenSignature);
    }
    let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
    one[0] = 1;
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    for weak in [[0; 32], one, minus_one] {
        // As the signer of a delegation, as the next key, as the holder, as the one delegated to.
        let next =
            KeyPair::from(&biscuit_auth::PrivateKey::from_bytes(&NEXT_SEED, Algorithm::Ed25519).unwrap());
        for key in [public(0).0.to_vec(), public(1).0.to_vec(), next.public().to_bytes()] {
            assert_eq!(verify(&replaced(bytes, &key, &weak)).unwrap_err().code(), Code::TokenSignature);
        }
    }
}

#[test]
fn b4_secp256r1() {
    // An honest P-256 signer of a delegation, and P-256 next keys and root keys.
    let p256 = KeyPair::new_with_algorithm(Algorithm::Secp256r1);
    let ours = biscuit_auth::UnverifiedBiscuit::from(token().as_bytes()).unwrap();
    let checks = || BlockBuilder::new().code("check if hops($hops), $hops <= 3").unwrap();
    let next = ours.append_with_keypair(&p256, checks()).unwrap().to_vec().unwrap();
    assert_eq!(gate_code(&next), Code::TokenAlgorithm);
    let block = ours.third_party_request().unwrap().create_block(&p256.private(), checks()).unwrap();
    let external = ours.append_third_party(&block.serialize().unwrap()).unwrap().to_vec().unwrap();
    assert_eq!(gate_code(&external), Code::TokenAlgorithm);
    let builder = Biscuit::builder().root_key_id(root().id()).code("right(\"read\")").unwrap();
    assert_eq!(gate_code(&builder.build(&p256).unwrap().to_vec().unwrap()), Code::TokenAlgorithm);
}

#[test]
fn b6_proofs_that_do_not_fit() {
    let parent = token();
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let child = forge::attenuate(&parent, &narrow, &[8; 32]).unwrap();
    // The child's blocks with another secret at the end, and the parent's proof under the child's blocks.
    for secret in [&[9; 32], &NEXT_SEED] {
        assert_eq!(
            verify(&replaced(child.as_bytes(), &[8; 32], secret)).unwrap_err().code(),
            Code::TokenSignature
        );
    }
    // A sealed token: nothing extends it, neither the API nor by hand.
    let sealed = seal(&parent).unwrap();
    assert_eq!(seal(&sealed).unwrap(), sealed);
    assert_eq!(attenuate(&sealed, &narrow).unwrap_err().code(), Code::Denied);
    assert_eq!(delegate(&sealed, &person(0), public(1), &narrow).unwrap_err().code(), Code::Denied);
    assert!(forge::append_raw(sealed.as_bytes(), &[0x18, 3], None, &[9; 32]).is_err());
    let proof = |bytes: &[u8], length: usize| bytes[bytes.len() - length..].to_vec();
    let sealed_proof = proof(sealed.as_bytes(), 68);
    let open_proof = proof(child.as_bytes(), 36);
    assert_eq!((sealed_proof[0], open_proof[0]), (0x22, 0x22));
    let body = |bytes: &[u8], length: usize| bytes[..bytes.len() - length].to_vec();
    let extended = [body(child.as_bytes(), 36), sealed_proof].concat();
    assert_eq!(verify(&extended).unwrap_err().code(), Code::TokenSignature, "the seal is of another block");
    let stripped = [body(sealed.as_bytes(), 68), open_proof].concat();
    assert_eq!(verify(&stripped).unwrap_err().code(), Code::TokenSignature, "the secret is of another block");
}

#[test]
fn b7_blocks_that_claim_more() {
    let parent = attenuate(&token(), &Narrow { rights: Some(Rights::READ), ..Narrow::default() }).unwrap();
    for claim in [
        "right(\"write\")",
        "right(\"write\") trusting previous",
        "right($o) <- operation($o)",
        "right($o) <- operation($o) trusting authority, previous",
        "right(\"write\") <- right(\"read\") trusting authority",
        "range(0, 9223372036854775807)",
        "expires(9223372036854775807); time(0)",
        "pop(hex:00); effective_holder(hex:00); holder(hex:00); hops(0)",
        "effective_holder($k) <- pop($k)",
        "lease(hex:00, hex:00)",
        "operation(\"read\"); req(0, 1)",
        "delegate(hex:0000000000000000000000000000000000000000000000000000000000000000)",
    ] {
        let datalog = claim
            .strip_suffix(" trusting previous")
            .map_or(claim.to_owned(), |fact| format!("trusting previous; {fact}"));
        for bytes in [
            append_datalog(parent.as_bytes(), &datalog),
            append_signed_datalog(parent.as_bytes(), 0, &datalog),
        ] {
            let code = gate_code(&bytes);
            let expected = if claim.starts_with("delegate") {
                [Code::TokenProfile, Code::TokenSignature]
            } else {
                [Code::TokenProfile; 2]
            };
            assert!(expected.contains(&code), "{claim}: {code}");
        }
    }
    // Two holders at once, a holder that is no key, a check beside a fact of another name.
    for claim in ["delegate(hex:00)", "delegate(\"read\")", "delegate(1)", ""] {
        let bytes = append_signed_datalog(parent.as_bytes(), 0, claim);
        assert!(matches!(gate_code(&bytes), Code::TokenProfile | Code::TokenMalformed), "{claim}");
    }
    let two = format!("delegate(hex:{}); delegate(hex:{})", public(1), public(2));
    assert_eq!(gate_code(&append_signed_datalog(parent.as_bytes(), 0, &two)), Code::TokenProfile);
}

#[test]
fn b8_a_join_that_costs() {
    let facts = (0..60).map(|n| format!("f({n});")).collect::<String>();
    let datalog = format!("{facts} check if f($a), f($b), f($c), f($d), $a + $b + $c + $d < 0;");
    assert_eq!(gate_code(&append_datalog(token().as_bytes(), &datalog)), Code::TokenProfile);
    // The join alone, over facts that the authority block has.
    let join = "check if right($a), right($b), right($c), right($d), right($e)";
    assert_eq!(gate_code(&append_datalog(token().as_bytes(), join)), Code::TokenProfile);
    assert_eq!(
        gate_code(&append_datalog(token().as_bytes(), "check if right($a), right($b)")),
        Code::TokenProfile
    );
}

#[test]
fn b9_regular_expressions() {
    for check in [
        r#"check if operation($o), $o.matches("((\\pL{50}){50}){5}")"#,
        r#"check if operation($o), $o.matches("read")"#,
        r#"check if operation($o), $o.starts_with("re")"#,
    ] {
        assert_eq!(gate_code(&append_datalog(token().as_bytes(), check)), Code::TokenProfile);
    }
}

#[test]
fn b10_too_many_checks_facts_and_sums() {
    let bytes = token().as_bytes().to_vec();
    let checks = |count: usize| "check if hops($hops), $hops <= 3;".repeat(count);
    verify(&append_datalog(&bytes, &checks(8))).unwrap();
    assert_eq!(gate_code(&append_datalog(&bytes, &checks(9))), Code::TokenProfile);
    assert_eq!(gate_code(&append_datalog(&bytes, &checks(17))), Code::TokenProfile);
    let overflow = "check if hops($hops), 9223372036854775807 + 1 > 0";
    assert_eq!(gate_code(&append_datalog(&bytes, overflow)), Code::TokenProfile);
    // 1,001 facts of the smallest kind, `read()`, fit into 8 KiB.
    let facts = [&[0x18, 0x03][..], &[0x22, 0x04, 0x0a, 0x02, 0x08, 0x00].repeat(1_001)].concat();
    let appended = forge::append_raw(&bytes, &facts, None, &[9; 32]).unwrap();
    assert!(appended.len() <= TOKEN_BYTES_MAX, "{}", appended.len());
    assert_eq!(gate_code(&appended), Code::TokenProfile);
}

#[test]
fn b12_before_and_after_its_time() {
    let token = token();
    let at = |now: u64| judge(token.as_bytes(), &Request { now: UnixMicros(now), ..request() });
    let ten_years = 10 * 365 * 86_400_000_000;
    assert_eq!(at(END - 1), Ok(()));
    for late in [0, 1, 1_000_000, ten_years] {
        assert_eq!(at(END + late), Err(Code::TokenExpired), "{late} us late");
    }
    assert_eq!(at(u64::MAX), Err(Code::TokenExpired));
    assert_eq!(at(BEGIN), Ok(()));
    for early in [1, 1_000_000, ten_years] {
        assert_eq!(at(BEGIN - early), Err(Code::TokenNotYet), "{early} us early");
    }
    let narrow = Narrow {
        expires: Some(UnixMicros(BEGIN + 100)),
        not_before: Some(UnixMicros(BEGIN + 50)),
        ..Narrow::default()
    };
    let narrowed = attenuate(&token, &narrow).unwrap();
    for (now, expected) in
        [(49, Err(Code::TokenNotYet)), (50, Ok(())), (99, Ok(())), (100, Err(Code::TokenExpired))]
    {
        let request = Request { now: UnixMicros(BEGIN + now), ..request() };
        assert_eq!(judge(narrowed.as_bytes(), &request), expected, "at {now}");
    }
}

#[test]
fn b13_outside_its_limits_with_the_limits_name() {
    let narrow =
        Narrow { rights: Some(Rights::READ), range: Some(range(8_192, 16_384)), ..Narrow::default() };
    let verified = verify(attenuate(&token(), &narrow).unwrap().as_bytes()).unwrap();
    let ask = Request { range: range(8_192, 16_384), ..request() };
    assert!(verified.authorize(&ask).is_ok());
    for (request, name) in [
        (Request { operation: Operation::Write, ..ask }, "rights: "),
        (Request { operation: Operation::Share, ..ask }, "rights: "),
        (Request { range: range(8_191, 16_384), ..ask }, "range: "),
        (Request { range: range(8_192, 16_385), ..ask }, "range: "),
        (Request { lease: LeaseId([9; 16]), ..ask }, "lease: "),
        (Request { region: RegionId([9; 16]), ..ask }, "region: "),
        (Request { provider: ProviderId([9; 16]), ..ask }, "provider: "),
    ] {
        let error = verified.authorize(&request).unwrap_err();
        assert_eq!(error.code(), Code::Denied);
        assert!(error.detail().starts_with(name), "{}", error.detail());
    }
}

#[test]
fn b14_another_session_than_the_holders() {
    let stranger = Request { proven: proven(1), ..request() };
    assert_eq!(judge(token().as_bytes(), &stranger), Err(Code::TokenBound));
    // He learns nothing else from a token that is not his, not even that it has expired.
    let late = Request { now: UnixMicros(END), operation: Operation::Write, ..stranger };
    assert_eq!(judge(token().as_bytes(), &late), Err(Code::TokenBound));
    // Delegated, it is the next holder's and no longer the first one's.
    let delegated = delegate(&token(), &person(0), public(1), &Narrow::default()).unwrap();
    assert_eq!(judge(delegated.as_bytes(), &stranger), Ok(()));
    assert_eq!(judge(delegated.as_bytes(), &request()), Err(Code::TokenBound));
    // A thief with a copy names himself: unsigned the gate refuses, signed by himself the walk does.
    let theft = format!("delegate(hex:{})", public(2));
    assert_eq!(gate_code(&append_datalog(token().as_bytes(), &theft)), Code::TokenProfile);
    let stolen = append_signed_datalog(token().as_bytes(), 2, &theft);
    gate(&stolen).unwrap();
    assert_eq!(verify(&stolen).unwrap_err().code(), Code::TokenSignature);
    assert_eq!(
        delegate(&token(), &person(2), public(2), &Narrow::default()).unwrap_err().code(),
        Code::TokenBound
    );
}

#[test]
fn b15_revoked() {
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let parent = token();
    let child = attenuate(&parent, &narrow).unwrap();
    let again = attenuate(&parent, &narrow).unwrap();
    let delegated = delegate(&child, &person(0), public(1), &Narrow::default()).unwrap();
    let ids = |token: &Token| verify(token.as_bytes()).unwrap().revocation_ids().to_vec();
    let live = |token: &Token, revoked: &[_]| {
        let verdict = verify(token.as_bytes()).unwrap().check_revoked(|id| revoked.contains(id));
        verdict.map_err(|error| error.code())
    };
    assert_eq!([&parent, &child, &delegated].map(|token| ids(token).len()), [1, 2, 4]);
    // The parent's id kills all; the child's kills it and what it became; a sibling from the parent lives.
    for token in [&parent, &child, &again, &delegated] {
        assert_eq!(live(token, &ids(&parent)), Err(Code::TokenRevoked));
    }
    let last = &ids(&child)[1..];
    assert_eq!(live(&child, last), Err(Code::TokenRevoked));
    assert_eq!(live(&delegated, last), Err(Code::TokenRevoked));
    assert_eq!(live(&again, last), Ok(()));
    assert_eq!(live(&parent, last), Ok(()));
    // A delegation that is appended again has a fresh block signature, but its holder's signature gives it away.
    let block = forge::blocks(delegated.as_bytes()).unwrap().pop().unwrap();
    let replayed = forge::append_raw(child.as_bytes(), &block, Some(&seed(0)), &[77; 32]).unwrap();
    let replayed = Token::from_bytes(replayed).unwrap();
    assert_ne!(ids(&replayed)[2], ids(&delegated)[2]);
    assert_eq!(live(&replayed, &ids(&delegated)[2..]), Err(Code::TokenRevoked));
    // What is counted for it goes by that too, so a fresh copy has no fresh count.
    let budget = Narrow { bytes_total: Some(9), ..Narrow::default() };
    let counted = delegate(&child, &person(0), public(1), &budget).unwrap();
    let block = forge::blocks(counted.as_bytes()).unwrap().pop().unwrap();
    let copied = forge::append_raw(child.as_bytes(), &block, Some(&seed(0)), &[77; 32]).unwrap();
    assert_ne!(copied, counted.as_bytes());
    let meters = |bytes: &[u8]| verify(bytes).unwrap().meters().to_vec();
    assert_eq!(meters(counted.as_bytes()).len(), 1);
    assert_eq!(meters(&copied), meters(counted.as_bytes()));
    assert_eq!(meters(seal(&counted).unwrap().as_bytes()), meters(counted.as_bytes()));
    // What it takes to revoke each block: a delegation goes by the signature that cannot be made anew.
    let shown = verify(delegated.as_bytes()).unwrap();
    let [narrowed, handed] = [1, 2].map(|block| shown.cut(block).unwrap());
    let of = ids(&delegated);
    assert_eq!((narrowed.id, narrowed.marks), (of[1], [Some(Mark::signature(&of[1])), None]));
    assert_eq!((handed.id, handed.marks), (of[3], [&of[2], &of[3]].map(|id| Some(Mark::signature(id)))));
    assert_eq!((narrowed.holders, handed.holders), (vec![public(0)], vec![public(0), public(1)]));
    assert!(
        [narrowed.marks, handed.marks]
            .as_flattened()
            .iter()
            .flatten()
            .all(|mark| shown.marks().contains(mark))
    );
    assert!(!verify(again.as_bytes()).unwrap().marks().contains(&narrowed.marks[0].unwrap()));
    assert_eq!((shown.cut(0).unwrap().range, shown.cut(0).unwrap().id), (Some(terms().range), of[0]));
    assert_eq!(shown.cut(3).unwrap_err().code(), Code::Range);
    let verified = verify(replayed.as_bytes()).unwrap();
    assert!(
        verified.marks().contains(&handed.marks[1].unwrap())
            && !verified.marks().contains(&handed.marks[0].unwrap())
    );
    // Sealing keeps the ids.
    assert_eq!(ids(&seal(&delegated).unwrap()), ids(&delegated));
}

#[test]
fn b17_another_epoch() {
    let bumped = Request { cluster: ClusterEpoch([9; 16]), ..request() };
    assert_eq!(judge(token().as_bytes(), &bumped), Err(Code::Epoch));
    let reminted = root().mint(&Terms { cluster: ClusterEpoch([9; 16]), ..terms() }).unwrap();
    assert_eq!(judge(reminted.as_bytes(), &bumped), Ok(()));
    assert_eq!(judge(reminted.as_bytes(), &request()), Err(Code::Epoch));
}

#[test]
fn b18_honest_under_four_times_as_many_threads_as_cores() {
    let token = seal(&delegate(&token(), &person(0), public(1), &Narrow::default()).unwrap()).unwrap();
    let request = Request { proven: proven(1), ..request() };
    let threads = 4 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let verified = verify(token.as_bytes()).unwrap();
                for _ in 0..50 {
                    let allowed = verified.authorize_by_datalog(token.as_bytes(), &keys(), &request).unwrap();
                    assert_eq!(allowed.holder(), public(1));
                }
            });
        }
    });
}
