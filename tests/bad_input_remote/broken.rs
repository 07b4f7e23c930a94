//! One request with one thing wrong: built whole, of any verb, and then broken in one place.

use caps::id::{
    ClientId, ClusterEpoch, DonationId, GrantId, LeaseId, QuarantineId, RequestId, SlotHandle, TransferId,
};
use caps::key::Signature;
use caps::limits::{CHUNK_BYTES_MAX, REMOTE_LEASES_MAX, VALUE_BYTES_MIN};
use caps::pop::Nonce;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::Micros;
use caps::wire::remote::body::Span;
use caps::wire::remote::header::{BODY_BYTES_MAX, HEADER_BYTES, Header};
use caps::wire::remote::leases::{Create, Delete};
use caps::wire::remote::{Add, Flags, Piece, Swap, Verb};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{Lifetime, Revocation, Target};
use caps::wire::wrap::WrapId;
use caps::wire::{Name, Reason, Request, cbor};
use ciborium::value::Value;
use zerocopy::IntoBytes;

use super::bed::BYTES;
use super::dice::Dice;
use super::ground::{Ground, Handles};

/// A request as it is sent.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its verb, and what is wrong with it.
    pub what: String,
    /// Its frames.
    pub frames: Vec<Vec<u8>>,
    /// Whether the stream may be out of step from here on.
    pub last: bool,
}

/// What is wrong with a request that can be read: the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soft {
    Nothing,
    Handle,
    Offset,
    Length,
    Deadline,
    Number,
    Items,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hard {
    /// One bit of the header.
    HeaderBit,
    /// One field of the header, anything.
    HeaderField,
    /// The body's length: a little off, or far.
    Length,
    /// A checksum of other bytes.
    Checksum,
    /// Any flags.
    Flags,
    /// One bit of the body.
    BodyBit,
    /// The body is cut, with a header that says so.
    BodyCut,
    /// Bytes behind it, with a header that says so.
    BodyLonger,
    /// One frame twice, none, or two in the wrong order.
    Order,
    /// `MORE` where nothing follows, or none where something does.
    More,
    /// A frame of another request within.
    Mixed,
    /// An answer instead of a request.
    Answer,
    /// Anything instead of it.
    Noise,
    /// Another version.
    Version,
}

const HARD: &[Hard] = &[
    Hard::HeaderBit,
    Hard::HeaderField,
    Hard::Length,
    Hard::Checksum,
    Hard::Flags,
    Hard::BodyBit,
    Hard::BodyCut,
    Hard::BodyLonger,
    Hard::Order,
    Hard::More,
    Hard::Mixed,
    Hard::Answer,
    Hard::Noise,
    Hard::Version,
];

/// Makes requests for one session.
pub struct Maker<'a> {
    pub ground: &'a Ground,
    pub handles: Handles,
    /// The number of the next request.
    pub next: u64,
    /// Handles that never were this session's still to be used: too many of them end it.
    pub trespasses: u32,
}

type Frames = Vec<(Header, Vec<u8>)>;

impl Maker<'_> {
    /// A request that can be read and is wrong.
    pub fn soft(&mut self, dice: &mut Dice) -> Broken {
        let verb = *dice.one(Verb::ALL);
        if verb == Verb::Control {
            let (name, body) = self.control(dice);
            let header = self.header(dice, verb, &body, Soft::Nothing);
            return Broken {
                what: format!("Control {name}"),
                frames: vec![raw(&header, &body)],
                last: false,
            };
        }
        let flaws: &[Soft] = match verb {
            Verb::Create | Verb::Delete => &[Soft::Deadline, Soft::Number, Soft::Nothing],
            Verb::Gather => &[Soft::Handle, Soft::Offset, Soft::Length, Soft::Items, Soft::Deadline],
            Verb::Read => &[Soft::Handle, Soft::Offset, Soft::Length, Soft::Deadline],
            Verb::Stat => &[Soft::Handle, Soft::Handle, Soft::Number],
            _ => &[Soft::Handle, Soft::Offset, Soft::Length, Soft::Deadline, Soft::Number],
        };
        let flaw = *dice.one(flaws);
        let frames = self.build(dice, verb, flaw);
        let frames = frames.iter().map(|(header, body)| raw(header, body)).collect();
        Broken { what: format!("{verb:?} {flaw:?}"), frames, last: false }
    }

    /// A request that cannot be read, or not to its end.
    pub fn hard(&mut self, dice: &mut Dice) -> Broken {
        let verb = *dice.one(Verb::ALL);
        let how = *dice.one(HARD);
        let mut frames = if verb == Verb::Control {
            let (_, body) = self.control(dice);
            let header = self.header(dice, verb, &body, Soft::Nothing);
            vec![(header, body)]
        } else {
            self.build(dice, verb, Soft::Nothing)
        };
        let at = dice.below(frames.len());
        let mut bytes: Option<Vec<u8>> = None;
        {
            let (header, body) = &mut frames[at];
            match how {
                Hard::BodyCut => body.truncate(dice.below(body.len().max(1))),
                Hard::BodyLonger => {
                    let more = 1 + dice.below(40);
                    body.extend(dice.bytes(more));
                }
                Hard::BodyBit if !body.is_empty() => {
                    let bit = dice.below(8 * body.len());
                    body[bit / 8] ^= 1 << (bit % 8);
                }
                Hard::Checksum => {
                    *header = header.checked(body);
                    header.crc ^= 1 << dice.below(32);
                }
                Hard::Answer => header.flags = header.flags.and(Flags::ANSWER),
                _ => {}
            }
            header.body = body.len().min(BODY_BYTES_MAX) as u32;
            if how != Hard::Checksum && header.flags.contains(Flags::CRC) {
                *header = header.checked(body);
            }
            let mut encoded = raw(header, body);
            match how {
                Hard::HeaderBit => {
                    let bit = dice.below(8 * HEADER_BYTES);
                    encoded[bit / 8] ^= 1 << (bit % 8);
                    bytes = Some(encoded);
                }
                Hard::HeaderField => {
                    let (from, length) =
                        *dice.one(&[(0, 4), (4, 1), (5, 1), (6, 2), (16, 4), (24, 4), (28, 4)]);
                    let value = dice.border().to_le_bytes();
                    encoded[from..from + length].copy_from_slice(&value[..length]);
                    bytes = Some(encoded);
                }
                Hard::Length => {
                    let length = u32::from_le_bytes(encoded[16..20].try_into().unwrap());
                    let other = *dice.one(&[
                        0,
                        length.wrapping_sub(1),
                        length + 1,
                        length + 31,
                        BODY_BYTES_MAX as u32,
                        BODY_BYTES_MAX as u32 + 1,
                        1 << 30,
                        u32::MAX,
                    ]);
                    encoded[16..20].copy_from_slice(&other.to_le_bytes());
                    bytes = Some(encoded);
                }
                Hard::Flags => {
                    let flags = if dice.chance(1, 2) { dice.next() as u16 & 7 } else { dice.next() as u16 };
                    encoded[6..8].copy_from_slice(&flags.to_le_bytes());
                    bytes = Some(encoded);
                }
                Hard::More => {
                    encoded[6] ^= 1;
                    bytes = Some(encoded);
                }
                Hard::Noise => {
                    let length = 1 + dice.below(200);
                    bytes = Some(dice.bytes(length));
                }
                Hard::Version => {
                    encoded[4] = *dice.one(&[0, 2, 3, 255]);
                    bytes = Some(encoded);
                }
                _ => {}
            }
        }
        let mut sent: Vec<_> = frames.iter().map(|(header, body)| raw(header, body)).collect();
        if let Some(bytes) = bytes {
            sent[at] = bytes;
        }
        match how {
            Hard::Order => match dice.below(3) {
                0 => sent.insert(at, sent[at].clone()),
                1 => drop(sent.remove(at)),
                _ => sent.reverse(),
            },
            Hard::Mixed => {
                let other = self.build(dice, *dice.clone().one(&Verb::ALL[1..]), Soft::Nothing);
                let (header, body) = &other[0];
                sent.insert(dice.below(sent.len() + 1), raw(header, body));
            }
            _ => {}
        }
        Broken { what: format!("{verb:?} {how:?}"), frames: sent, last: true }
    }

    /// Any handle but a good one.
    fn bad_handle(&mut self, dice: &mut Dice) -> SlotHandle {
        if self.trespasses == 0 || dice.chance(3, 4) {
            return self.handles.closed;
        }
        self.trespasses -= 1;
        match dice.below(3) {
            0 => SlotHandle { slot: dice.next() as u32, epoch: dice.next() as u32 },
            1 => SlotHandle { slot: self.handles.good.slot, epoch: self.handles.good.epoch.wrapping_add(1) },
            _ => SlotHandle { slot: dice.below(64) as u32, epoch: dice.below(64) as u32 },
        }
    }

    /// Which bytes, by which right.
    fn span(&mut self, dice: &mut Dice, flaw: Soft, writes: bool, most: usize) -> Span {
        let length = dice.below(most) as u64;
        let offset = dice.below(BYTES as usize - most) as u64 & !7;
        let good = self.handles.good;
        match flaw {
            Soft::Handle if writes && self.trespasses > 0 && dice.chance(1, 4) => {
                self.trespasses -= 1;
                Span::new(self.handles.read_only, offset, length)
            }
            Soft::Handle => Span::new(self.bad_handle(dice), offset, length),
            Soft::Offset if self.trespasses > 0 => {
                self.trespasses -= 1;
                match dice.below(3) {
                    0 => Span::new(self.handles.narrow, offset, length),
                    1 => Span::new(good, BYTES - dice.below(3) as u64, length),
                    _ => Span::new(good, dice.border(), length),
                }
            }
            Soft::Offset => Span::new(self.handles.closed, dice.border(), length),
            // What is announced longer than one operation is may not be told from the header alone.
            Soft::Length => Span::new(good, offset, (1 << 30) + 1 + (dice.border() >> 1)),
            _ => Span::new(good, offset, length),
        }
    }

    /// A whole request of a verb that is not `CONTROL`.
    fn build(&mut self, dice: &mut Dice, verb: Verb, flaw: Soft) -> Frames {
        let (mut items, mut more) = (0, Vec::new());
        let body = match verb {
            Verb::Read => self.span(dice, flaw, false, 2_048).as_bytes().to_vec(),
            Verb::Stat => self.span(dice, flaw, false, 64).as_bytes().to_vec(),
            Verb::Write => {
                let span = self.span(dice, flaw, true, 600);
                let length = span.length().min(600) as usize;
                let pieces = if flaw == Soft::Length { 0 } else { dice.below(3) };
                let first = if pieces == 0 { length } else { length / 2 };
                if pieces > 0 && length > first {
                    more.push((0, dice.bytes(length - first)));
                }
                [span.as_bytes(), &dice.bytes(first)].concat()
            }
            Verb::Gather => {
                let wrong = dice.below(4);
                let count = 1 + dice.below(4).max(wrong);
                items = count as u32;
                let spans: Vec<_> = (0..count)
                    .map(|at| self.span(dice, if at == wrong { flaw } else { Soft::Nothing }, false, 512))
                    .collect();
                if flaw == Soft::Items {
                    items = *dice.one(&[0, 513, 1 << 20, u32::MAX]);
                }
                spans.as_bytes().to_vec()
            }
            Verb::Scatter => {
                let frames = 1 + dice.below(3);
                let mut bodies: Vec<(u32, Vec<u8>)> = (0..frames)
                    .map(|_| {
                        let count = 1 + dice.below(3);
                        let spans: Vec<_> = (0..count)
                            .map(|_| {
                                let flaw = if flaw == Soft::Length { Soft::Offset } else { flaw };
                                self.span(dice, flaw, true, 128)
                            })
                            .collect();
                        let bytes: usize = spans.iter().map(|span| span.length() as usize).sum();
                        (count as u32, [spans.as_bytes(), &dice.bytes(bytes)].concat())
                    })
                    .collect();
                let (count, body) = bodies.remove(0);
                items = count;
                more = bodies;
                body
            }
            Verb::Cas | Verb::FetchAdd => {
                let span = self.span(dice, flaw, true, 8);
                let crooked = flaw == Soft::Length;
                let offset = if crooked { span.offset() | 3 } else { span.offset() };
                if verb == Verb::Cas {
                    Swap::new(span.handle(), offset, dice.next(), dice.next()).as_bytes().to_vec()
                } else {
                    Add::new(span.handle(), offset, dice.border()).as_bytes().to_vec()
                }
            }
            Verb::Create => {
                let count = *dice.one(&[0, 1, 1, 1, 2, REMOTE_LEASES_MAX + 1]);
                let leases: Vec<_> = (0..count).map(|_| self.spec(dice)).collect();
                if dice.chance(1, 2) && count > 0 {
                    let index = *dice.one(&[0, 0, 0, 1, u32::MAX]);
                    let data = dice.bytes(300);
                    more.push((1, [Piece::new(index, None, 300).as_bytes(), &data].concat()));
                }
                encoded(&Create { leases })
            }
            Verb::Delete | Verb::Control => {
                let count = *dice.one(&[0, 1, 2, 3, REMOTE_LEASES_MAX + 1]);
                encoded(&Delete { leases: (0..count).map(|_| self.nobodys(dice)).collect() })
            }
        };
        let mut header = self.header(dice, verb, &body, flaw);
        header.items = items;
        let request = header.request;
        if !more.is_empty() {
            header.flags = header.flags.and(Flags::MORE);
        }
        let mut frames = vec![(header, body)];
        let last = more.len();
        for (at, (items, body)) in more.into_iter().enumerate() {
            let flags = if at + 1 < last { Flags::MORE } else { Flags::NONE };
            let header = Header::of(verb, flags, request, body.len()).unwrap();
            frames.push((Header { items, ..header }, body));
        }
        if dice.chance(1, 4) {
            frames.iter_mut().for_each(|(header, body)| *header = header.checked(body));
        }
        frames
    }

    fn header(&mut self, dice: &mut Dice, verb: Verb, body: &[u8], flaw: Soft) -> Header {
        let fresh = self.next;
        self.next += 1;
        let number = match flaw {
            Soft::Number => fresh.wrapping_sub(1 + dice.below(40) as u64),
            _ => fresh,
        };
        let body = body.len().min(BODY_BYTES_MAX);
        let header = Header::of(verb, Flags::NONE, RequestId(number), body).unwrap();
        let deadline_or_code = match flaw {
            Soft::Deadline => *dice.one(&[1, 1, 1, 2, 1 << 31, u32::MAX]),
            _ if dice.chance(1, 16) => *dice.one(&[1, u32::MAX]),
            _ => 0,
        };
        Header { deadline_or_code, ..header }
    }

    /// A lease that is none of the attacker's.
    fn nobodys(&self, dice: &mut Dice) -> LeaseId {
        match dice.below(3) {
            0 => self.ground.foreign_lease,
            1 => self.ground.released,
            _ => LeaseId(dice.bytes(16).try_into().unwrap()),
        }
    }

    /// What a lease may not be. One in a while is as it should be, for a moment.
    fn spec(&self, dice: &mut Dice) -> LeaseSpec {
        let good = LeaseSpec {
            bytes: VALUE_BYTES_MIN,
            ttl: Micros::from_millis(200),
            name: None,
            class: None,
            lifetime: Lifetime::Process,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        };
        match dice.below(8) {
            0 => good,
            1 => LeaseSpec { bytes: 0, ..good },
            2 => LeaseSpec { bytes: dice.border() | (1 << 40), ..good },
            3 => LeaseSpec { bytes: 40 << 20, ..good }, // more than the quota
            4 => LeaseSpec { ttl: Micros(*dice.one(&[0, 1, 1 << 63, u64::MAX])), ..good },
            5 => LeaseSpec { segment_bytes: Some(dice.border()), ..good },
            6 => LeaseSpec { max_hops: 8 + dice.next() as u8 / 2, ..good },
            _ => LeaseSpec { class: Some(Name::new("no-such-class").unwrap()), bytes: 1, ..good },
        }
    }

    /// A request of the local socket that is to be refused, and its name.
    fn control(&self, dice: &mut Dice) -> (&'static str, Vec<u8>) {
        let ground = self.ground;
        let reason = || Reason::new("because").unwrap();
        let id = |dice: &mut Dice| -> [u8; 16] { dice.bytes(16).try_into().unwrap() };
        let signature = |dice: &mut Dice| Signature(dice.bytes(64).try_into().unwrap());
        let lease = self.nobodys(dice);
        let request = match dice.below(34) {
            0 => Request::LeaseCreate(self.spec(dice)),
            1 => Request::LeaseCreate(LeaseSpec {
                bytes: 4_096,
                name: ground.lease.name.clone(),
                ..self.spec(dice)
            }),
            2 => Request::LeaseRenew { lease, ttl: Micros(1_000_000) },
            3 => {
                let ttl = Micros(*dice.one(&[0, 1, 1 << 63, u64::MAX]));
                Request::LeaseRenew { lease: ground.lease.id, ttl }
            }
            4 => Request::LeaseRelease { lease },
            5 => Request::LeaseShow { lease },
            6 => Request::ShareAccept {
                grant: GrantId(id(dice)),
                signature: signature(dice),
                lifetime: Lifetime::Process,
            },
            7 => Request::ShareShow { grant: GrantId(id(dice)) },
            8 => Request::ShareNarrow {
                grant: GrantId(id(dice)),
                rights: Some(Rights::READ),
                range: None,
                ttl: None,
            },
            9 => Request::ShareCosign { grant: GrantId(id(dice)), signature: signature(dice) },
            10 => Request::ShareOffer { contract: self.contract(dice), signature: signature(dice) },
            11 => {
                let contract = ShareContract { owner: ground.forger.public(), ..self.contract(dice) };
                let signature = contract.sign(&ground.forger);
                Request::ShareOffer { contract, signature }
            }
            12 => Request::Revoke(Revocation { target: Target::Lease(lease), reason: reason() }),
            13 => {
                Request::Revoke(Revocation { target: Target::Holder(ground.foreign_key), reason: reason() })
            }
            14 => Request::Revoke(Revocation { target: Target::Grant(GrantId(id(dice))), reason: reason() }),
            15 => Request::RootRotate,
            16 => Request::RootRetire { id: dice.next() as u32 },
            17 => Request::QuarantineAdd { lease, reason: reason() },
            18 => {
                Request::QuarantineRead { id: QuarantineId(dice.border()), offset: dice.border(), length: 1 }
            }
            19 => Request::PrincipalAdd { name: Name::new("eve").unwrap(), key: ground.forger.public() },
            20 => Request::RevokeToken {
                token: ground.foreign.clone(),
                block: dice.next() as u8,
                reason: reason(),
            },
            21 => Request::Unwrap { id: WrapId(id(dice)) },
            22 => Request::WrapShow { id: WrapId(id(dice)) },
            23 => Request::QuotaGive {
                id: DonationId(id(dice)),
                to: *dice.one(&[ground.forger.public(), ground.own_key, ground.foreign_key]),
                bytes: 1 << 50,
                ttl: Micros(1_000_000),
            },
            24 => Request::QuotaTakeBack { id: DonationId(id(dice)) },
            25 => Request::TransferShow { transfer: TransferId(id(dice)) },
            26 => Request::TransferWithdraw { transfer: TransferId(id(dice)) },
            27 => Request::Close { handle: self.handles.closed },
            28 => match dice.below(4) {
                0 => Request::Channel,
                1 => Request::Confine,
                2 => Request::Segment { handle: self.handles.good, index: dice.next() as u32 },
                _ => Request::Read { handle: self.handles.good, offset: 0, length: 1 },
            },
            29 => Request::Resume { client: ClientId([dice.below(3) as u8; 16]) },
            30 => return ("TokenCheck", self.with_token(dice, "TokenCheck", &[])),
            31 => {
                let fields = [("to", Value::Null), ("ttl", Value::from(1_000_000))];
                return ("Wrap", self.with_token(dice, "Wrap", &fields));
            }
            _ => {
                let rights = *dice.one(&[1, 3, 3, 7, 0, 2]);
                let path = *dice.one(&["mediated", "mediated", "mediated", "mapped"]);
                let fields = [("rights", Value::from(rights)), ("path", Value::from(path))];
                return ("Open", self.with_token(dice, "Open", &fields));
            }
        };
        (request.kind(), encoded(&request))
    }

    fn contract(&self, dice: &mut Dice) -> ShareContract {
        let ground = self.ground;
        ShareContract {
            cluster: if dice.chance(1, 4) {
                ClusterEpoch(dice.bytes(16).try_into().unwrap())
            } else {
                ground.cluster
            },
            grant: GrantId(dice.bytes(16).try_into().unwrap()),
            lease: ground.lease.id,
            region: ground.lease.region,
            owner: ground.own_key,
            receiver: ground.foreign_key,
            rights: Rights::READ,
            range: ground.lease.range,
            ttl: Micros(1_000_000),
            max_hops: dice.next() as u8,
            cosigner: None,
        }
    }

    /// A request with a token that is not good, in any way.
    fn with_token(&self, dice: &mut Dice, name: &str, fields: &[(&str, Value)]) -> Vec<u8> {
        let ground = self.ground;
        let token = ground.token.as_bytes();
        let bytes = match dice.below(12) {
            0 => ground.foreign.as_bytes().to_vec(),
            1 => ground.revoked.as_bytes().to_vec(),
            2 => ground.expired.as_bytes().to_vec(),
            3 => ground.not_yet.as_bytes().to_vec(),
            4 => ground.read_only.as_bytes().to_vec(),
            5 => token[..dice.below(token.len())].to_vec(),
            6 => {
                let length = dice.below(9_000);
                dice.bytes(length)
            }
            7 => vec![0xff; 8_193],
            8 => [token, &dice.bytes(2)].concat(),
            _ => {
                let mut bytes = token.to_vec();
                let bit = dice.below(8 * bytes.len());
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            }
        };
        let text = |text: &str| Value::Text(text.into());
        let mut map = vec![(text("token"), Value::Bytes(bytes))];
        map.extend(fields.iter().map(|(name, value)| (text(name), value.clone())));
        encoded(&Value::Map(vec![(text(name), Value::Map(map))]))
    }

    /// What a session does not begin with: `true` if it is proof of a key, and not one.
    pub fn beginning(&self, dice: &mut Dice) -> (bool, Vec<u8>) {
        let prove = Request::Prove { signature: Signature(dice.bytes(64).try_into().unwrap()) };
        let request = match dice.below(4) {
            0 => Request::Status,
            1 | 2 => return (true, encoded(&prove)),
            _ => Request::Hello {
                holder: self.ground.own_key,
                nonce: Nonce(dice.bytes(32).try_into().unwrap()),
            },
        };
        let mut body = encoded(&request);
        if dice.chance(1, 2) {
            let bit = dice.below(8 * body.len());
            body[bit / 8] ^= 1 << (bit % 8);
        }
        (false, body)
    }
}

/// A value in CBOR.
pub fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
    let mut body = Vec::new();
    cbor::append(value, &mut body).unwrap();
    body
}

/// A frame as it travels.
pub fn raw(header: &Header, body: &[u8]) -> Vec<u8> {
    [&header.encode()[..], body].concat()
}

const _: () = assert!(CHUNK_BYTES_MAX < BODY_BYTES_MAX);
