//! Groups A and B at the gate: tokens that are none, or say what they may not. `caps` tests every form of them on the
//! functions; here a few of each go through a node's socket.

use std::sync::atomic::{AtomicU64, Ordering};

use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use caps::error::Code;
use caps::id::{ClusterEpoch, LeaseId, ProviderId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::{Narrow, RootKey, Terms, Token, attenuate, forge, seal};
use caps::wire::row::{Revocation, Target};
use caps::wire::{FrameKind, Reason, Reply, Request, frame};
use ciborium::value::Value;

use super::bed::{Bed, Logged};
use super::wire::Raw;

/// An `Open` with any bytes as its token.
fn open_packet(bytes: &[u8]) -> Vec<u8> {
    // Above what the sessions themselves count: a number stands for one request.
    static NUMBER: AtomicU64 = AtomicU64::new(1 << 32);
    let number = caps::id::RequestId(NUMBER.fetch_add(1, Ordering::Relaxed));
    let text = |text: &str| Value::Text(text.into());
    let fields = Value::Map(vec![
        (text("token"), Value::Bytes(bytes.to_vec())),
        (text("rights"), Value::Integer(Rights::READ.bits().into())),
        (text("path"), text("mediated")),
    ]);
    let body = Value::Map(vec![(text("Open"), fields)]);
    frame::encode(FrameKind::Request, number, &body).unwrap()
}

/// The code that a token is refused with.
fn open_code(raw: &Raw, bytes: &[u8]) -> Code {
    raw.code_of(&open_packet(bytes))
}

/// What a hostile holder appends, properly signed by the token's own next key.
#[expect(
    clippy::disallowed_methods,
    reason = "hostile tokens are made by the library's own means, out of text of ours"
)]
fn with_datalog(token: &Token, datalog: &str) -> Vec<u8> {
    let block = BlockBuilder::new().code(datalog).unwrap();
    UnverifiedBiscuit::from(token.as_bytes()).unwrap().append(block).unwrap().to_vec().unwrap()
}

fn with_block(token: &Token, block: &[u8]) -> Vec<u8> {
    forge::append_raw(token.as_bytes(), block, None, &[9; 32]).unwrap()
}

/// The terms of mallory's lease.
fn terms(bed: &Bed) -> Terms {
    let now = now();
    Terms {
        lease: bed.lease.id,
        region: bed.lease.region,
        grant: None,
        range: bed.lease.range,
        rights: Rights::ALL,
        holder: bed.mallory.public(),
        not_before: UnixMicros(now - 60_000_000),
        expires: UnixMicros(now + 60_000_000),
        max_hops: 3,
        cluster: bed.welcome.cluster,
        provider: bed.welcome.provider,
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

fn minted(bed: &Bed, terms: &Terms) -> Token {
    bed.node.root().mint(terms).unwrap()
}

/// Rows whose token does not change: each is refused with `code`, and the session goes on.
fn refused(bed: &mut Bed, row: &str, code: Code, token: &[u8]) {
    let packet = open_packet(token);
    bed.row_in_session(row, code, |raw| raw.code_of(&packet));
}

#[test]
fn a1_a2_a5_a6_a8_a10_a11_a12_tokens_that_are_none() {
    let mut bed = Bed::new("");
    let token = bed.token.clone();
    let bytes = token.as_bytes();
    refused(&mut bed, "A1", Code::TokenMalformed, &[]);
    refused(&mut bed, "A2 one byte", Code::TokenMalformed, &[0xff]);
    refused(&mut bed, "A2 4 KiB", Code::TokenMalformed, &[0xff; 4096]);
    refused(&mut bed, "A5 a byte too many", Code::TokenTooBig, &vec![0xff; 8193]);
    refused(&mut bed, "A5 nearly a frame", Code::TokenTooBig, &vec![0xff; 127 * 1024]);
    assert_eq!(bytes[0], 0x08, "the root key's id comes first");
    for (row, encoding) in [
        ("a field of no meaning", [bytes, &[0x28, 0]].concat()),
        ("a trailing byte", [bytes, &[0]].concat()),
        ("an unknown field", [bytes, &[0xf8, 0x01, 0x01]].concat()),
        ("a tag in two bytes", [&[0x88, 0x00], &bytes[1..]].concat()),
        ("an unknown field in a signed block", with_block(&token, &[0x18, 0x03, 0xf8, 0x01, 0x01])),
        ("a version in two bytes", with_block(&token, &[0x18, 0x83, 0x00])),
    ] {
        refused(&mut bed, &format!("A6 {row}"), Code::TokenNoncanonical, &encoding);
    }
    refused(&mut bed, "A8", Code::TokenMalformed, &[0x12, 0xff, 0xff, 0xff, 0xff, 0x07]);
    refused(
        &mut bed,
        "A8 2^63",
        Code::TokenMalformed,
        &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    );
    for version in [&[2][..], &[7], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let block = [&[0x18], version].concat();
        refused(&mut bed, "A10", Code::TokenVersion, &with_block(&token, &block));
    }
    for (row, symbol) in [("NUL", &b"re\0ad"[..]), ("invalid UTF-8", b"\xff\xfe"), ("a line end", b"a\nb")] {
        let block = [&[0x0a, symbol.len() as u8], symbol, &[0x18, 0x03]].concat();
        refused(&mut bed, &format!("A11 {row}"), Code::TokenProfile, &with_block(&token, &block));
    }
    refused(
        &mut bed,
        "A11",
        Code::TokenProfile,
        &with_datalog(&token, "check if operation($o), {\"re\u{202e}ad\"}.contains($o)"),
    );
    // A check over a symbol that no table has.
    let mut block =
        forge::blocks(&with_datalog(&token, "check if hops($hops), $hops <= 3")).unwrap().remove(1);
    let at = block.iter().rposition(|byte| *byte == 0x80).unwrap_or(block.len() - 1);
    block[at] ^= 0x7f;
    let code = open_code(&bed.session(), &with_block(&token, &block));
    assert!(
        matches!(
            code,
            Code::TokenMalformed | Code::TokenProfile | Code::TokenNoncanonical | Code::TokenVersion
        ),
        "A12: {code}"
    );
    bed.finish();
}

#[test]
fn a3_a4_cut_at_every_byte_and_every_bit_flipped() {
    let mut bed = Bed::new("");
    let sealed = seal(&bed.token).unwrap();
    let mut raw = bed.session();
    for token in [bed.token.clone(), sealed] {
        let bytes = token.as_bytes();
        for end in 0..bytes.len() {
            let code = open_code(&raw, &bytes[..end]);
            assert!(matches!(code, Code::TokenMalformed | Code::TokenSignature), "cut at {end}: {code}");
        }
        let mut bytes = bytes.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let code = open_code(&raw, &bytes);
            assert_eq!(code.blame(), caps::error::Blame::Client, "bit {bit}: {code}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(raw.open(&token, Rights::READ).is_ok(), "the token itself is good");
    }
    bed.check_bystander();
    bed.finish();
}

#[test]
fn b1_b2_b3_b4_b6_signatures_of_somebody_else() {
    let mut bed = Bed::new("");
    let (root, terms) = (bed.node.root(), terms(&bed));
    let stranger = forge::mint(&RootKey::from_seed(&[42; 32]), &terms, &[7; 32]).unwrap();
    let block = forge::blocks(stranger.as_bytes()).unwrap().remove(0);
    refused(
        &mut bed,
        "B1",
        Code::TokenSignature,
        &forge::mint_raw(&[42; 32], Some(root.id()), &block, &[7; 32]),
    );
    let seed = bed.node.root_seed();
    refused(&mut bed, "B2 of another cluster", Code::TokenUnknownKey, stranger.as_bytes());
    refused(&mut bed, "B2 absent", Code::TokenUnknownKey, &forge::mint_raw(&seed, None, &block, &[7; 32]));
    let token = minted(&bed, &terms);
    let bytes = token.as_bytes();
    // The authority's signature is the only 64 bytes field of an unsealed token of one block.
    let at = bytes.windows(2).position(|pair| pair == [0x1a, 0x40]).unwrap() + 2;
    let mut zero = bytes.to_vec();
    zero[at..at + 64].fill(0);
    refused(&mut bed, "B3 zero", Code::TokenSignature, &zero);
    let mut large = bytes.to_vec();
    large[at + 32..at + 64].fill(0xff); // S >= L
    refused(&mut bed, "B3 S", Code::TokenSignature, &large);
    // Algorithm 1 is secp256r1.
    let key = bytes.windows(4).position(|field| field == [0x08, 0x00, 0x12, 0x20]).unwrap();
    let mut curve = bytes.to_vec();
    curve[key + 1] = 1;
    refused(&mut bed, "B4", Code::TokenAlgorithm, &curve);
    let mut proof = bytes.to_vec();
    let last = proof.len() - 1;
    proof[last] ^= 1;
    refused(&mut bed, "B6", Code::TokenSignature, &proof);
    bed.finish();
}

/// The largest a frame holds, and what no frame holds.
#[test]
fn a5_more_blocks_and_bytes_than_a_frame_holds() {
    let mut bed = Bed::new("");
    // Blocks as short as they can be signed: 2,001 of them are 220 KB, of which a frame holds the first thousand.
    let next = SigningKey::from_seed(&[9; 32]).public();
    let head = [0x1a, 108, 0x0a, 2, 0x18, 3, 0x12, 36, 0x08, 0, 0x12, 32];
    let block = [&head[..], &next.0, &[0x1a, 64], &[7; 64]].concat();
    assert_eq!(block.len(), 110);
    let many = [bed.token.as_bytes(), &block.repeat(2_001)].concat();
    assert!(many.len() > 220_000);
    refused(&mut bed, "A5 a thousand blocks", Code::TokenTooBig, &many[..120 * 1024]);
    let whole = [&open_packet(&many[..120 * 1024])[..], &many[120 * 1024..]].concat();
    bed.row_with("A5 2,001 blocks", Code::FrameSize, Logged::Entry, 100, &mut |bed| {
        let raw = bed.session();
        rustix::net::sockopt::set_socket_send_buffer_size(&raw.socket, 2 * whole.len()).unwrap();
        raw.send(&whole).expect("it reaches the node");
        let code = raw.answer().unwrap_err().code();
        assert!(raw.is_ended(), "the node hangs up");
        code
    });
    // 16 MiB are no packet of this socket: the kernel refuses them to the sender, and the session goes on.
    let mut raw = bed.session();
    assert_eq!(raw.send(&vec![0xff; 16 << 20]), Err(rustix::io::Errno::MSGSIZE));
    assert!(raw.ask(&Request::Status).is_ok());
    bed.finish();
}

/// Every class of hostile token there is. Its root key is not this node's: what the gate does not refuse, the first
/// signature does.
#[test]
fn the_whole_hostile_set() {
    let mut bed = Bed::new("");
    let mut raw = bed.session();
    for hostile in caps::token::hostile::set().unwrap() {
        if hostile.bytes.len() > 127 * 1024 {
            continue; // More than a frame holds.
        }
        let code = open_code(&raw, &hostile.bytes);
        let gated = caps::token::gate(&hostile.bytes).is_ok();
        let expected = if gated { Code::TokenUnknownKey } else { hostile.code };
        assert_eq!(code, expected, "{}", hostile.name);
        assert!(raw.ask(&Request::Status).is_ok(), "{}: the session goes on", hostile.name);
    }
    bed.check_bystander();
    bed.finish();
}

#[test]
fn b7_b8_b9_b10_datalog_that_is_no_narrowing() {
    let mut bed = Bed::new("");
    let token = bed.token.clone();
    let join = "check if right($a), right($b), right($c), right($d)";
    let many = "check if hops($hops), $hops <= 3;".repeat(17);
    for (row, datalog) in [
        ("B7 a fact", "right(\"write\")"),
        ("B7 a rule", "right($r) <- operation($r)"),
        ("B8", join),
        ("B9", "check if operation($o), $o.matches(\"((\\\\pL{50}){50}){5}\")"),
        ("B10 checks", &many),
        ("B10 overflow", "check if 9223372036854775807 + 1 > 0"),
    ] {
        refused(&mut bed, row, Code::TokenProfile, &with_datalog(&token, datalog));
    }
    let facts = [&[0x18, 0x03][..], &[0x22, 0x04, 0x0a, 0x02, 0x08, 0x00].repeat(1_001)].concat();
    refused(&mut bed, "B10 1,001 facts", Code::TokenProfile, &with_block(&token, &facts));
    bed.finish();
}

#[test]
fn b12_b14_b17_the_wrong_time_holder_or_life() {
    let mut bed = Bed::new("");
    let terms = terms(&bed);
    for past in [1, 1_000_000, 10 * 365 * 24 * 3_600 * 1_000_000] {
        let expires = UnixMicros(now() - past);
        let not_before = UnixMicros(expires.0 - 1_000_000);
        let token = minted(&bed, &Terms { not_before, expires, ..terms });
        refused(&mut bed, "B12 over", Code::TokenExpired, token.as_bytes());
    }
    let not_before = UnixMicros(now() + 30_000_000);
    let token = minted(&bed, &Terms { not_before, ..terms });
    refused(&mut bed, "B12 not yet", Code::TokenNotYet, token.as_bytes());
    let token = minted(&bed, &Terms { holder: SigningKey::generate().public(), ..terms });
    refused(&mut bed, "B14", Code::TokenBound, token.as_bytes());
    let token = minted(&bed, &Terms { cluster: ClusterEpoch::random(), ..terms });
    refused(&mut bed, "B17 cluster", Code::Epoch, token.as_bytes());
    let token = minted(&bed, &Terms { provider: ProviderId::random(), ..terms });
    refused(&mut bed, "B13 provider", Code::Denied, token.as_bytes());
    // Signed by the true key, of a lease that never was: nothing tells it from one that ended.
    let token = minted(&bed, &Terms { lease: LeaseId::random(), ..terms });
    refused(&mut bed, "B13 lease", Code::TokenRevoked, token.as_bytes());
    bed.finish();
}

#[test]
fn b13_more_than_the_token_allows() {
    let mut bed = Bed::new("");
    let range = ByteRange::new(4096, 8192).unwrap();
    let narrow = Narrow { rights: Some(Rights::READ), range: Some(range), ..Narrow::default() };
    let narrowed = attenuate(&bed.token, &narrow).unwrap();
    let open = Request::Open {
        token: narrowed.clone(),
        rights: Rights::READ_WRITE,
        path: caps::wire::request::Path::Mediated,
    };
    bed.row_in_session("B13 write asked", Code::Denied, |raw| raw.refusal(&open));

    let mut raw = bed.session();
    let handle = raw.open(&narrowed, Rights::READ).unwrap().handle;
    assert_eq!(raw.read(handle, 4096, 4096).unwrap(), [0; 4096]);
    let mut fresh = bed.session();
    let handle_of_it = fresh.open(&narrowed, Rights::READ).unwrap().handle;
    let mut held = (fresh, handle_of_it);
    let mut detail = String::new();
    for (row, offset, length) in [("before", 4095, 1), ("after", 8192, 1), ("over", 8191, 2)] {
        bed.row_with(&format!("B13 a byte {row}"), Code::Denied, Logged::Entry, 1_000, &mut |bed| {
            bed.wrong(&mut held, &narrowed, Rights::READ, |raw, handle| {
                let error = raw.read(handle, offset, length).unwrap_err();
                detail = error.detail().to_owned();
                error.code()
            })
        });
        assert!(detail.starts_with("range"), "the check that failed is named: {detail}");
    }
    bed.row_with("B13 a write", Code::Denied, Logged::Entry, 1_000, &mut |bed| {
        bed.wrong(&mut held, &narrowed, Rights::READ, |raw, handle| {
            raw.write(handle, 4096, b"no").unwrap_err().code()
        })
    });
    assert_eq!(raw.read(handle, 4096, 2).unwrap(), [0, 0], "nothing was written");
    bed.finish();
}

#[test]
fn b15_revoked() {
    let mut bed = Bed::new("");
    let mut raw = bed.session();
    let (lease, token) = raw.lease(4096);
    let narrow = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let child = attenuate(&token, &narrow).unwrap();
    let handle = raw.open(&child, Rights::READ).unwrap().handle;
    let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::new("test").unwrap() };
    assert!(matches!(raw.ask(&Request::Revoke(revocation)), Ok(Reply::Receipt(_))));
    assert_eq!(raw.read(handle, 0, 1).unwrap_err().code(), Code::Revoked, "the open right died");
    refused(&mut bed, "B15", Code::TokenRevoked, token.as_bytes());
    refused(&mut bed, "B15 the child", Code::TokenRevoked, child.as_bytes());
    let again = attenuate(&token, &narrow).unwrap();
    refused(&mut bed, "B15 narrowed anew", Code::TokenRevoked, again.as_bytes());
    bed.row_with("B15 the open right", Code::Revoked, Logged::Entry, 1_000, &mut |_| {
        raw.read(handle, 0, 1).unwrap_err().code()
    });
    bed.finish();
}

#[test]
fn b18_honest_under_four_times_as_many_threads_as_cores() {
    let bed = Bed::new("");
    let busy = std::sync::atomic::AtomicBool::new(true);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..cores * 4 {
            scope.spawn(|| {
                while busy.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut raw = bed.session();
        for _ in 0..20 {
            let narrow = Narrow { expires: Some(UnixMicros(now() + 50_000_000)), ..Narrow::default() };
            let fresh = attenuate(&bed.token, &narrow).unwrap();
            let opened = raw.open(&fresh, Rights::READ).expect("an honest token is never too slow");
            assert!(opened.expires_in <= Micros::from_millis(50_000));
            raw.ask(&Request::Close { handle: opened.handle }).unwrap();
        }
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    bed.finish();
}
