//! The example session of the document: both sides' frames, from fixed keys, nonces and answers.

use caps::error::{Code, Error, Result};
use caps::id::{
    ClientId, ClusterEpoch, LeaseId, PrincipalKey, ProviderId, ReceiptId, RegionId, RequestId, SlotHandle,
};
use caps::key::{Purpose, SigningKey};
use caps::pop::{Nonce, Transcript};
use caps::range::ByteRange;
use caps::receipt::ReceiptBody;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::{Terms, Token, forge};
use caps::wire::link::Method;
use caps::wire::remote::leases::{Create, Created, Creations, Delete, Deletions};
use caps::wire::remote::{Add, Flags, Header, Piece, Span, Standing, Swap, Verb};
use caps::wire::reply::{Opened, Welcome};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{LeaseRow, LeaseState, Lifetime, Target, Tier};
use caps::wire::{Name, Reply, Request, cbor};
use serde::Serialize;
use zerocopy::IntoBytes;

use crate::lines::{self, Line};
use crate::{support, tables};

/// Who sends a step's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Node,
}

/// A few lines of the document: one message, or bytes that are signed.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// `None`: the bytes are not sent.
    pub(crate) side: Option<Side>,
    parts: Vec<(Option<Header>, Vec<Line>)>,
}

impl Step {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let part = |(header, lines): &(Option<Header>, Vec<Line>)| {
            let header = header.map(|header| header.encode().to_vec());
            let body = lines.iter().flat_map(Line::bytes);
            header.into_iter().flatten().chain(body).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(part).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (header, lines) in &self.parts {
            if let Some(header) = header {
                text += &header_text(header);
            }
            text.extend(lines.iter().map(Line::text));
        }
        text
    }
}

fn header_text(header: &Header) -> String {
    let bytes = header.encode();
    let groups: [&[u8]; 9] = [
        &bytes[..4],
        &bytes[4..5],
        &bytes[5..6],
        &bytes[6..8],
        &bytes[8..16],
        &bytes[16..20],
        &bytes[20..24],
        &bytes[24..28],
        &bytes[28..],
    ];
    let more = if header.has_more() { ", more follows" } else { "" };
    let whose = if header.flags.contains(Flags::ANSWER) { "answer" } else { "request" };
    let (verb, number, body) = (tables::name(header.verb), header.request.0, header.body);
    let bytes_word = if body == 1 { "byte" } else { "bytes" };
    let note = format!("# {verb} {whose} {number}, body of {body} {bytes_word}{more}\n");
    note + Line::new(groups, "").text().trim_end() + "\n"
}

/// The lines of a body under a header that fits them.
struct Part {
    verb: Verb,
    request: u64,
    flags: Flags,
    number: u32,
    items: usize,
    lines: Vec<Line>,
}

impl Part {
    fn of(verb: Verb, request: u64, lines: Vec<Line>) -> Self {
        Self { verb, request, flags: Flags::NONE, number: 0, items: 0, lines }
    }

    fn more(self) -> Self {
        Self { flags: self.flags.and(Flags::MORE), ..self }
    }

    fn crc(self) -> Self {
        Self { flags: self.flags.and(Flags::CRC), ..self }
    }

    fn items(self, items: usize) -> Self {
        Self { items, ..self }
    }

    /// A request's deadline, or an answer's code.
    fn number(self, number: u32) -> Self {
        Self { number, ..self }
    }

    fn whole(self, side: Side) -> (Option<Header>, Vec<Line>) {
        let body: Vec<u8> = self.lines.iter().flat_map(Line::bytes).collect();
        let flags = if side == Side::Node { self.flags.and(Flags::ANSWER) } else { self.flags };
        let header = Header::of(self.verb, flags, RequestId(self.request), body.len()).unwrap();
        let header = Header { deadline_or_code: self.number, items: self.items as u32, ..header };
        let header = if flags.contains(Flags::CRC) { header.checked(&body) } else { header };
        (Some(header), self.lines)
    }
}

fn step<const N: usize>(name: &'static str, side: Side, parts: [Part; N]) -> Step {
    Step { name, side: Some(side), parts: parts.into_iter().map(|part| part.whole(side)).collect() }
}

fn said(value: &impl Serialize) -> Vec<Line> {
    let mut bytes = Vec::new();
    cbor::append(value, &mut bytes).unwrap();
    lines::cbor(&bytes)
}

fn ask(name: &'static str, request: u64, value: &Request) -> Step {
    step(name, Side::Client, [Part::of(Verb::Control, request, said(value))])
}

fn reply(name: &'static str, request: u64, value: &Reply) -> Step {
    step(name, Side::Node, [Part::of(Verb::Control, request, said(value))])
}

fn failure(name: &'static str, verb: Verb, request: u64, error: &Error) -> Step {
    let line = Line::new([error.detail().as_bytes()], format!("{:?}", error.detail()));
    step(name, Side::Node, [Part::of(verb, request, vec![line]).number(error.code() as u32)])
}

/// A span's fields, which other bodies begin with as well.
fn span_line(span: &Span) -> Line {
    let (at, bytes) = (span.handle(), span.as_bytes());
    let note =
        format!("slot {}, epoch {}, offset {}, length {}", at.slot, at.epoch, span.offset(), span.length());
    Line::new([&bytes[..4], &bytes[4..8], &bytes[8..16], &bytes[16..]], note)
}

fn piece_line(index: u32, code: Option<Code>, length: u64) -> Line {
    let piece = Piece::new(index, code, length);
    let bytes = piece.as_bytes();
    let code = code.map_or(String::new(), |code| format!(", {}", code.text()));
    Line::new([&bytes[..4], &bytes[4..8], &bytes[8..]], format!("item {index}{code}, {length} bytes"))
}

fn number_line(number: u64, what: &str) -> Line {
    Line::new([&number.to_le_bytes()], format!("{what} {number}"))
}

const BYTES: u64 = 65_536;
const LEASE: LeaseId = LeaseId([3; 16]);
const REGION: RegionId = RegionId([4; 16]);
const CLUSTER: ClusterEpoch = ClusterEpoch([5; 16]);
const NODE: ProviderId = ProviderId([6; 16]);
/// The right that the session opens, and one that it once had.
const OPEN: SlotHandle = SlotHandle { slot: 3, epoch: 2 };
const OVER: SlotHandle = SlotHandle { slot: 3, epoch: 1 };

/// 32 bytes that count up.
fn count(from: u8) -> Nonce {
    Nonce(std::array::from_fn(|index| from + index as u8))
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn range() -> ByteRange {
    ByteRange::new(0, BYTES).unwrap()
}

fn token(lease: LeaseId, region: RegionId, holder: PrincipalKey) -> Token {
    let terms = Terms { lease, region, range: range(), holder, max_hops: 0, ..support::terms() };
    forge::mint(&support::root(), &terms, &support::NEXT_SEED).unwrap()
}

fn spec(name: Option<&str>) -> LeaseSpec {
    LeaseSpec {
        bytes: BYTES,
        ttl: Micros::from_millis(60_000),
        name: name.map(|name| Name::new(name).unwrap()),
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

fn row(id: LeaseId, region: RegionId, name: Option<&str>, owner: PrincipalKey) -> LeaseRow {
    LeaseRow {
        id,
        region,
        name: name.map(|name| Name::new(name).unwrap()),
        owner,
        owner_name: Some(Name::new("alice").unwrap()),
        rights: Rights::ALL,
        range: range(),
        segment_bytes: BYTES,
        expires_in: Micros::from_millis(60_000),
        state: LeaseState::Live,
        cause: None,
        epoch: 0,
        provider: NODE,
        grants: 0,
        placement: None,
        address: None,
        node: None,
    }
}

/// Every step, in its order.
pub(crate) fn steps() -> Vec<Step> {
    [beginning(), leasing(), bytes(), batches(), words(), many(), ending()].into_iter().flatten().collect()
}

fn beginning() -> Vec<Step> {
    let (key, channel) = (key(), count(0xa0));
    let holder = key.public();
    let (client, server) = (count(0x80), count(0x20));
    let transcript = Transcript { node: NODE, server, client, holder };
    let signature = transcript.sign_over(&channel, &key);
    let signed = vec![
        Line::new([Purpose::PossessionOverTls.prefix()], "\"leasehold-pop-tls-v1\" and a zero byte"),
        Line::new([&NODE.0[..]], "the node"),
        Line::new([&server.0[..]], "the node's nonce"),
        Line::new([&client.0[..]], "the client's nonce"),
        Line::new([&holder.0[..]], "the key"),
        Line::new([&channel.0[..]], "what the exporter gave"),
    ];
    // What is shown is what is signed: the code's own message is not public.
    let shown: Vec<u8> = signed.iter().flat_map(Line::bytes).collect();
    let prefix = Purpose::PossessionOverTls.prefix().len();
    assert_eq!(key.sign(Purpose::PossessionOverTls, &shown[prefix..]), signature);
    let welcome = Welcome {
        cluster: CLUSTER,
        provider: NODE,
        name: Some(Name::new("alice").unwrap()),
        admin: false,
        tier: Tier::Open,
    };
    vec![
        Step {
            name: "seed",
            side: None,
            parts: vec![(
                None,
                vec![
                    Line::new([&key.seed()[..]], "seed of the key (RFC 8032); published, so it is no secret"),
                    Line::new([&holder.0[..]], "the key"),
                    Line::new([&channel.0[..]], "what the exporter gave"),
                ],
            )],
        },
        ask("hello", 1, &Request::Hello { holder, nonce: client }),
        reply("challenge", 1, &Reply::Challenge { node: NODE, nonce: server }),
        Step { name: "signed", side: None, parts: vec![(None, signed)] },
        ask("prove", 2, &Request::Prove { signature }),
        reply("welcome", 2, &Reply::Welcome(welcome)),
        ask("resume", 3, &Request::Resume { client: ClientId([8; 16]) }),
        reply("resumed", 3, &Reply::Resumed { known: false }),
    ]
}

fn leasing() -> Vec<Step> {
    let holder = key().public();
    let token = token(LEASE, REGION, holder);
    let opened = Opened {
        handle: OPEN,
        rights: Rights::READ_WRITE,
        range: range(),
        region_bytes: BYTES,
        segment_bytes: BYTES,
        mapped: false,
        tier: Tier::Open,
        expires_in: Micros(59_990_000),
        audit: Micros(740),
    };
    vec![
        ask("lease-create", 4, &Request::LeaseCreate(spec(Some("frames")))),
        reply(
            "leased",
            4,
            &Reply::Leased { lease: row(LEASE, REGION, Some("frames"), holder), token: token.clone() },
        ),
        ask("open", 5, &Request::Open { token, rights: Rights::READ_WRITE, path: Path::Mediated }),
        reply("opened", 5, &Reply::Opened(opened)),
    ]
}

fn bytes() -> Vec<Step> {
    let span = |offset, length| span_line(&Span::new(OPEN, offset, length));
    let read = |name, request, offset, length| {
        step(name, Side::Client, [Part::of(Verb::Read, request, vec![span(offset, length)]).number(2_000)])
    };
    let written = |name, request, bytes| {
        step(name, Side::Node, [Part::of(Verb::Write, request, vec![number_line(bytes, "bytes written:")])])
    };
    let got = |request, bytes: &[u8]| Part::of(Verb::Read, request, vec![lines::data(bytes)]);
    vec![
        step(
            "write",
            Side::Client,
            [Part::of(Verb::Write, 6, vec![span(0, 12), lines::data(b"hello, world")]).crc()],
        ),
        written("written", 6, 12),
        step(
            "write-frames",
            Side::Client,
            [
                Part::of(Verb::Write, 7, vec![span(4_096, 16), lines::data(b"first, ")]).more(),
                Part::of(Verb::Write, 7, vec![lines::data(b"second, ")]).more(),
                Part::of(Verb::Write, 7, vec![lines::data(b"x")]),
            ],
        ),
        written("written-frames", 7, 16),
        read("read", 8, 0, 12),
        step("data", Side::Node, [got(8, b"hello, world").crc()]),
        read("read-frames", 9, 4_096, 16),
        step("data-frames", Side::Node, [got(9, b"first, second").more(), got(9, b", x")]),
        read("read-end", 10, BYTES - 4, 64),
        step("data-end", Side::Node, [got(10, &[0; 4])]),
        step("read-over", Side::Client, [Part::of(Verb::Read, 11, vec![span_line(&Span::new(OVER, 0, 12))])]),
        failure(
            "revoked",
            Verb::Read,
            11,
            &Error::new(Code::Revoked, "no open right of this session has that handle"),
        ),
    ]
}

fn batches() -> Vec<Step> {
    let span = |at, offset, length| span_line(&Span::new(at, offset, length));
    vec![
        step(
            "gather",
            Side::Client,
            [Part::of(Verb::Gather, 12, vec![span(OPEN, 7, 5), span(OVER, 0, 8), span(OPEN, 0, 5)]).items(3)],
        ),
        step(
            "gathered",
            Side::Node,
            [
                Part::of(
                    Verb::Gather,
                    12,
                    vec![
                        piece_line(0, None, 5),
                        piece_line(1, Some(Code::Revoked), 0),
                        piece_line(2, None, 2),
                        lines::data(b"worldhe"),
                    ],
                )
                .items(3)
                .more(),
                Part::of(Verb::Gather, 12, vec![piece_line(2, None, 3), lines::data(b"llo")]).items(1),
            ],
        ),
        step(
            "scatter",
            Side::Client,
            [Part::of(
                Verb::Scatter,
                13,
                vec![span(OPEN, 100, 3), span(OPEN, BYTES - 1, 2), lines::data(b"abcde")],
            )
            .items(2)],
        ),
        step(
            "scattered",
            Side::Node,
            [Part::of(Verb::Scatter, 13, vec![piece_line(0, None, 3), piece_line(1, None, 1)]).items(2)],
        ),
    ]
}

fn words() -> Vec<Step> {
    let span = || span_line(&Span::new(OPEN, 8_192, 8));
    let word = |name, verb, request, before| {
        step(name, Side::Node, [Part::of(verb, request, vec![number_line(before, "before it was")])])
    };
    let swap = |name, request, expected, desired| {
        let whole = Swap::new(OPEN, 8_192, expected, desired);
        let bytes = &whole.as_bytes()[Span::BYTES..];
        let note = format!("expected {expected}, desired {desired}");
        let rest = Line::new([&bytes[..8], &bytes[8..]], note);
        step(name, Side::Client, [Part::of(Verb::Cas, request, vec![span(), rest])])
    };
    let add = Add::new(OPEN, 8_192, 5);
    let addend = Line::new([&add.as_bytes()[Span::BYTES..]], "addend 5");
    let standing = Standing::new(BYTES, (0, BYTES), Rights::READ_WRITE, 59_000_000);
    let parts: Vec<_> = standing.as_bytes().chunks(8).collect();
    let notes =
        ["bytes of the region: 65536", "from 0", "to 65536", "microseconds left: 59000000", "rights: 3"];
    let standing = parts.iter().zip(notes).map(|(part, note)| Line::new([part], note)).collect();
    let whole = span_line(&Span::new(OPEN, 0, 0));
    vec![
        swap("cas", 14, 0, 7),
        word("swapped", Verb::Cas, 14, 0),
        swap("cas-late", 15, 0, 9),
        word("not-swapped", Verb::Cas, 15, 7),
        step("fetch-add", Side::Client, [Part::of(Verb::FetchAdd, 16, vec![span(), addend])]),
        word("added", Verb::FetchAdd, 16, 7),
        step("stat", Side::Client, [Part::of(Verb::Stat, 17, vec![whole])]),
        step("standing", Side::Node, [Part::of(Verb::Stat, 17, standing)]),
    ]
}

fn many() -> Vec<Step> {
    let holder = key().public();
    let (id, region) = (LeaseId([9; 16]), RegionId([10; 16]));
    let create = Create { leases: vec![spec(None), LeaseSpec { bytes: 4_096, ..spec(None) }] };
    let created =
        Created { lease: row(id, region, None, holder), token: token(id, region, holder), written: 5 };
    let small: Result<Created> = Err(Error::new(Code::Range, "a value has 64 KiB to 1 GiB"));
    let creations: Creations = vec![Ok(created), small];
    let unknown = LeaseId([0xee; 16]);
    let delete = Delete { leases: vec![id, unknown] };
    let deletions: Deletions = vec![Ok(()), Err(Error::new(Code::LeaseUnknown, "no such lease"))];
    vec![
        step(
            "create",
            Side::Client,
            [
                Part::of(Verb::Create, 18, said(&create)).more(),
                Part::of(Verb::Create, 18, vec![piece_line(0, None, 5), lines::data(b"begin")]).items(1),
            ],
        ),
        step("create-done", Side::Node, [Part::of(Verb::Create, 18, said(&creations))]),
        step("delete", Side::Client, [Part::of(Verb::Delete, 19, said(&delete))]),
        step("deleted", Side::Node, [Part::of(Verb::Delete, 19, said(&deletions))]),
    ]
}

fn ending() -> Vec<Step> {
    let issuer = SigningKey::from_seed(&[11; 32]);
    let receipt = ReceiptBody {
        id: ReceiptId([12; 16]),
        target: Target::Lease(LEASE),
        leases: vec![LEASE],
        mappings_closed: 0,
        method: Method::Fence,
        fence: Micros(9),
        dead: Micros(9),
        wiped_bytes: BYTES,
        log_index: Some(41),
        issuer: issuer.public(),
        left: None,
        quarantined_bytes: 0,
    };
    vec![
        ask("close", 20, &Request::Close { handle: OPEN }),
        reply("closed", 20, &Reply::Done),
        ask("lease-release", 21, &Request::LeaseRelease { lease: LEASE }),
        reply("released", 21, &Reply::Receipt(receipt.sign(&issuer))),
        failure(
            "frame-error",
            Verb::Control,
            0,
            &Error::new(Code::FrameVersion, "the protocol version is not 1"),
        ),
    ]
}
