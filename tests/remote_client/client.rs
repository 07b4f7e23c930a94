//! A client written from `docs/protocol.md` alone: frames, CBOR and the proof, over any stream. Nothing of it is fast.

use std::io::{Read, Write};

use ciborium::Value;
use ed25519_dalek::{Signer, SigningKey};

/// Why a request did not do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node said no.
    Refused(u32, String),
    /// The connection is gone.
    Gone(std::io::ErrorKind),
    /// The node does not speak as the page says.
    Strange(String),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

fn strange<T>(what: impl Into<String>) -> Result<T> {
    Err(Failure::Strange(what.into()))
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error.kind())
    }
}

const CONTROL: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 3;
const GATHER: u8 = 4;
const SCATTER: u8 = 5;
const CAS: u8 = 6;
const FETCH_ADD: u8 = 7;
const STAT: u8 = 8;
const CREATE: u8 = 9;
const DELETE: u8 = 10;

const MORE: u16 = 1;
const CRC: u16 = 2;
const ANSWER: u16 = 4;

const BODY_MAX: u32 = 131_040;
const CHUNK: usize = 65_536;

/// An open right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
}

/// What `Open` answered, as far as this client wants it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) handle: Handle,
    pub(crate) region_bytes: u64,
    pub(crate) rights: u64,
}

/// What `Welcome` said.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub(crate) provider: Vec<u8>,
    pub(crate) name: Option<String>,
}

/// A part of an answer to GATHER or SCATTER.
type Piece = (u32, u32, u64);

/// What becomes of each item: its bytes, and why it ended if it did not end well.
pub(crate) type Item = (Vec<u8>, u32);

/// What STAT answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) region_bytes: u64,
    pub(crate) range: (u64, u64),
    pub(crate) left_us: u64,
    pub(crate) rights: u64,
}

/// A lease and its capability.
#[derive(Clone, Debug)]
pub(crate) struct Leased {
    pub(crate) lease: Vec<u8>,
    pub(crate) token: Vec<u8>,
}

struct Header {
    flags: u16,
    items: u32,
}

/// A connection whose TLS handshake is over.
pub(crate) struct Client<S> {
    stream: S,
    /// The number of the request before.
    pub(crate) last: u64,
    /// Milliseconds, for the requests that follow.
    pub(crate) deadline: u32,
    /// Whether requests get a checksum.
    pub(crate) checked: bool,
    /// Most bytes of a region in a frame that this client sends.
    pub(crate) chunks: Vec<usize>,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, last: 0, deadline: 0, checked: false, chunks: Vec::new() }
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    // ---- Frames

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn send(
        &mut self,
        verb: u8,
        request: u64,
        more: bool,
        items: usize,
        body: &[u8],
        first: bool,
    ) -> Result<()> {
        let flags = if more { MORE } else { 0 } | if self.checked { CRC } else { 0 };
        let crc = if self.checked { crc32c::crc32c(body) } else { 0 };
        let deadline = if first { self.deadline } else { 0 };
        let mut frame = b"LSHR".to_vec();
        frame.extend([1, verb]);
        frame.extend(flags.to_le_bytes());
        frame.extend(request.to_le_bytes());
        for field in [body.len() as u32, deadline, crc, items as u32] {
            frame.extend(field.to_le_bytes());
        }
        frame.extend(body);
        self.stream.write_all(&frame)?;
        Ok(self.stream.flush()?)
    }

    /// One frame of the answer to a request.
    fn receive(&mut self, verb: u8, request: u64) -> Result<(Header, Vec<u8>)> {
        let mut head = [0; 32];
        self.stream.read_exact(&mut head)?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        if &head[..4] != b"LSHR" || head[4] != 1 {
            return strange("this is no frame");
        }
        let flags = u16_at(6);
        if flags & ANSWER == 0 || flags & !(MORE | CRC | ANSWER) != 0 {
            return strange(format!("flags {flags}"));
        }
        let length = u32_at(16);
        if length > BODY_MAX {
            return strange("too large a frame");
        }
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body)?;
        let crc = u32_at(24);
        if crc != if flags & CRC == 0 { 0 } else { crc32c::crc32c(&body) } {
            return strange("the checksum is another");
        }
        let of = u64::from_le_bytes(head[8..16].try_into().unwrap());
        let code = u32_at(20);
        if code != 0 {
            let Ok(text) = String::from_utf8(body) else { return strange("a reason that is no text") };
            return if of == request || of == 0 {
                Err(Failure::Refused(code, text))
            } else {
                strange(format!("an answer to {of} and not to {request}"))
            };
        }
        if (head[5], of) != (verb, request) {
            return strange(format!("verb {} and request {of} for {verb} and {request}", head[5]));
        }
        Ok((Header { flags, items: u32_at(28) }, body))
    }

    /// An answer that has one frame and no items.
    fn receive_one(&mut self, verb: u8, request: u64) -> Result<Vec<u8>> {
        let (header, body) = self.receive(verb, request)?;
        if header.flags & MORE != 0 || header.items != 0 {
            return strange("one frame was to come");
        }
        Ok(body)
    }

    fn receive_number(&mut self, verb: u8, request: u64) -> Result<u64> {
        let body = self.receive_one(verb, request)?;
        let Ok(bytes) = body.try_into() else { return strange("a number has 8 bytes") };
        Ok(u64::from_le_bytes(bytes))
    }

    // ---- CONTROL

    pub(crate) fn control(&mut self, request: &Value) -> Result<Value> {
        let number = self.number();
        self.send(CONTROL, number, false, 0, &encode(request), true)?;
        decode(&self.receive_one(CONTROL, number)?)
    }

    /// Proves `key`; `exporter` is what TLS says of this connection.
    pub(crate) fn begin(&mut self, key: &SigningKey, nonce: [u8; 32], exporter: [u8; 32]) -> Result<Welcome> {
        let holder = key.verifying_key().to_bytes();
        let hello = map([("holder", bytes(&holder)), ("nonce", bytes(&nonce))]);
        let challenge = field(&self.control(&map([("Hello", hello)]))?, "Challenge")?;
        let node = bytes_of(&field(&challenge, "node")?)?;
        let theirs = bytes_of(&field(&challenge, "nonce")?)?;
        if node.len() != 16 || theirs.len() != 32 {
            return strange("a challenge of other lengths");
        }
        let signed = [&b"leasehold-pop-tls-v1\0"[..], &node, &theirs, &nonce, &holder, &exporter].concat();
        let signature = key.sign(&signed).to_bytes();
        let prove = map([("signature", bytes(&signature))]);
        let welcome = field(&self.control(&map([("Prove", prove)]))?, "Welcome")?;
        let provider = bytes_of(&field(&welcome, "provider")?)?;
        if provider != node {
            return strange("another node welcomes than the one that asked");
        }
        let name = field(&welcome, "name")?.into_text().ok();
        Ok(Welcome { provider, name })
    }

    /// Whether the node still knows what it answered to this program.
    pub(crate) fn resume(&mut self, program: [u8; 16]) -> Result<bool> {
        let reply = self.control(&map([("Resume", map([("client", bytes(&program))]))]))?;
        match field(&field(&reply, "Resumed")?, "known")? {
            Value::Bool(known) => Ok(known),
            other => strange(format!("{other:?}")),
        }
    }

    /// A lease that outlives the connection.
    pub(crate) fn lease(&mut self, size: u64, microseconds: u64, name: Option<&str>) -> Result<Leased> {
        let reply = self.control(&map([("LeaseCreate", spec(size, microseconds, name))]))?;
        leased(&field(&reply, "Leased")?)
    }

    pub(crate) fn open(&mut self, token: &[u8], rights: u64) -> Result<Opened> {
        let asked = map([
            ("token", bytes(token)),
            ("rights", rights.into()),
            ("path", Value::Text("mediated".into())),
        ]);
        let opened = field(&self.control(&map([("Open", asked)]))?, "Opened")?;
        let handle = field(&opened, "handle")?;
        let part = |name| -> Result<u32> { Ok(number_of(&field(&handle, name)?)? as u32) };
        let handle = Handle { slot: part("slot")?, epoch: part("epoch")? };
        let region_bytes = number_of(&field(&opened, "region_bytes")?)?;
        Ok(Opened { handle, region_bytes, rights: number_of(&field(&opened, "rights")?)? })
    }

    pub(crate) fn close(&mut self, at: Handle) -> Result<()> {
        let handle = map([("slot", at.slot.into()), ("epoch", at.epoch.into())]);
        self.done(&map([("Close", map([("handle", handle)]))]))
    }

    /// Gives a lease back. Returns the bytes that the receipt says were wiped.
    pub(crate) fn release(&mut self, lease: &[u8]) -> Result<u64> {
        let reply = self.control(&map([("LeaseRelease", map([("lease", bytes(lease))]))]))?;
        let receipt = field(&reply, "Receipt")?;
        number_of(&field(&field(&receipt, "body")?, "wiped_bytes")?)
    }

    fn done(&mut self, request: &Value) -> Result<()> {
        match self.control(request)? {
            Value::Text(text) if text == "Done" => Ok(()),
            other => strange(format!("{other:?}")),
        }
    }

    // ---- Bytes of one region

    pub(crate) fn read(&mut self, at: Handle, offset: u64, length: u64) -> Result<Vec<u8>> {
        let request = self.ask_read(at, offset, length)?;
        self.take_read(request)
    }

    /// Asks without waiting, so that others can be asked behind it.
    pub(crate) fn ask_read(&mut self, at: Handle, offset: u64, length: u64) -> Result<u64> {
        let request = self.number();
        self.send(READ, request, false, 0, &span(at, offset, length), true)?;
        Ok(request)
    }

    pub(crate) fn take_read(&mut self, request: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let (header, body) = self.receive(READ, request)?;
            if body.len() > CHUNK || header.items != 0 {
                return strange("a frame of a read has at most 64 KiB, and no items");
            }
            all.extend(body);
            if header.flags & MORE == 0 {
                return Ok(all);
            }
        }
    }

    pub(crate) fn write(&mut self, at: Handle, offset: u64, data: &[u8]) -> Result<u64> {
        let request = self.number();
        let pieces = self.cut(data);
        for (index, piece) in pieces.iter().enumerate() {
            let head = if index == 0 { span(at, offset, data.len() as u64) } else { Vec::new() };
            let more = index + 1 < pieces.len();
            self.send(WRITE, request, more, 0, &[&head[..], piece].concat(), index == 0)?;
        }
        self.receive_number(WRITE, request)
    }

    /// Pieces of the lengths that were chosen, then of 64 KiB; one at least.
    fn cut<'a>(&self, mut data: &'a [u8]) -> Vec<&'a [u8]> {
        let mut chosen = self.chunks.iter().copied();
        let mut pieces = Vec::new();
        loop {
            let length = chosen.next().unwrap_or(CHUNK).min(data.len());
            let (piece, rest) = data.split_at(length);
            pieces.push(piece);
            data = rest;
            if data.is_empty() {
                return pieces;
            }
        }
    }

    pub(crate) fn compare_exchange(
        &mut self,
        at: Handle,
        offset: u64,
        expected: u64,
        desired: u64,
    ) -> Result<u64> {
        let numbers = [expected.to_le_bytes(), desired.to_le_bytes()].concat();
        self.word(CAS, at, offset, &numbers)
    }

    pub(crate) fn fetch_add(&mut self, at: Handle, offset: u64, addend: u64) -> Result<u64> {
        self.word(FETCH_ADD, at, offset, &addend.to_le_bytes())
    }

    fn word(&mut self, verb: u8, at: Handle, offset: u64, numbers: &[u8]) -> Result<u64> {
        let request = self.number();
        self.send(verb, request, false, 0, &[&span(at, offset, 8), numbers].concat(), true)?;
        self.receive_number(verb, request)
    }

    pub(crate) fn stat(&mut self, at: Handle) -> Result<Standing> {
        let request = self.number();
        self.send(STAT, request, false, 0, &span(at, 0, 0), true)?;
        let body = self.receive_one(STAT, request)?;
        if body.len() != 40 {
            return strange("a standing has 40 bytes");
        }
        let part = |index: usize| u64::from_le_bytes(body[8 * index..8 * index + 8].try_into().unwrap());
        Ok(Standing { region_bytes: part(0), range: (part(1), part(2)), left_us: part(3), rights: part(4) })
    }

    // ---- Many at a time

    pub(crate) fn gather(&mut self, places: &[(Handle, u64, u64)]) -> Result<Vec<Item>> {
        let request = self.number();
        let spans: Vec<u8> =
            places.iter().flat_map(|&(at, offset, length)| span(at, offset, length)).collect();
        self.send(GATHER, request, false, places.len(), &spans, true)?;
        let mut items: Vec<Option<Item>> = vec![None; places.len()];
        let mut last = 0;
        loop {
            let (header, body) = self.receive(GATHER, request)?;
            let (pieces, mut data) = pieces(&header, &body)?;
            for (index, code, length) in pieces {
                if index < last || data.len() < length as usize {
                    return strange("pieces come in order, and with their bytes");
                }
                last = index;
                let Some(item) = items.get_mut(index as usize) else { return strange("a piece of no item") };
                let item = item.get_or_insert_with(|| (Vec::new(), 0));
                if item.1 != 0 {
                    return strange("a piece of an item that had ended");
                }
                let (bytes, rest) = data.split_at(length as usize);
                item.0.extend(bytes);
                item.1 = code;
                data = rest;
            }
            if !data.is_empty() {
                return strange("bytes of no piece");
            }
            if header.flags & MORE == 0 {
                break;
            }
        }
        items.into_iter().map(|item| item.ok_or(Failure::Strange("an item without a piece".into()))).collect()
    }

    /// Each value in one frame. Returns what was written of each, and its code.
    pub(crate) fn scatter(&mut self, places: &[(Handle, u64, &[u8])]) -> Result<Vec<(u64, u32)>> {
        let request = self.number();
        let spans = places.iter().flat_map(|&(at, offset, data)| span(at, offset, data.len() as u64));
        let data = places.iter().flat_map(|(_, _, data)| data.iter().copied());
        let body: Vec<u8> = spans.chain(data).collect();
        self.send(SCATTER, request, false, places.len(), &body, true)?;
        let (header, body) = self.receive(SCATTER, request)?;
        let (pieces, rest) = pieces(&header, &body)?;
        if header.flags & MORE != 0 || !rest.is_empty() || pieces.len() != places.len() {
            return strange("one frame with a piece for each item");
        }
        let in_order = pieces.iter().enumerate().all(|(index, piece)| piece.0 as usize == index);
        if !in_order {
            return strange("pieces come in the order of their items");
        }
        Ok(pieces.into_iter().map(|(_, code, length)| (length, code)).collect())
    }

    /// Leases with their first bytes, all of which fit a frame.
    pub(crate) fn create(&mut self, leases: &[(u64, u64, &[u8])]) -> Result<Vec<Result<(Leased, u64)>>> {
        let request = self.number();
        let specs = leases.iter().map(|&(size, microseconds, _)| spec(size, microseconds, None)).collect();
        let first: Vec<_> = leases.iter().enumerate().filter(|(_, (_, _, data))| !data.is_empty()).collect();
        let asked = encode(&map([("leases", Value::Array(specs))]));
        self.send(CREATE, request, !first.is_empty(), 0, &asked, true)?;
        if !first.is_empty() {
            let pieces = first.iter().flat_map(|(index, (_, _, data))| {
                let head = [(*index as u32).to_le_bytes(), [0; 4]].concat();
                [head, (data.len() as u64).to_le_bytes().to_vec()].concat()
            });
            let data = first.iter().flat_map(|(_, (_, _, data))| data.iter().copied());
            let body: Vec<u8> = pieces.chain(data).collect();
            self.send(CREATE, request, false, first.len(), &body, false)?;
        }
        let answer = decode(&self.receive_one(CREATE, request)?)?;
        each(answer, |made| Ok((leased(&made)?, number_of(&field(&made, "written")?)?)))
    }

    pub(crate) fn delete(&mut self, leases: &[&[u8]]) -> Result<Vec<Result<()>>> {
        let request = self.number();
        let ids = leases.iter().map(|id| bytes(id)).collect();
        self.send(DELETE, request, false, 0, &encode(&map([("leases", Value::Array(ids))])), true)?;
        let answer = decode(&self.receive_one(DELETE, request)?)?;
        each(answer, |nothing| if nothing.is_null() { Ok(()) } else { strange("Ok and null") })
    }
}

// ---- Bodies

fn span(at: Handle, offset: u64, length: u64) -> Vec<u8> {
    let handle = [at.slot.to_le_bytes(), at.epoch.to_le_bytes()].concat();
    [handle, offset.to_le_bytes().to_vec(), length.to_le_bytes().to_vec()].concat()
}

/// The pieces that a body begins with, and what follows them.
fn pieces<'a>(header: &Header, body: &'a [u8]) -> Result<(Vec<Piece>, &'a [u8])> {
    let count = header.items as usize;
    if count == 0 || count > 512 || body.len() < count * 16 {
        return strange("a frame of a batch has 1 to 512 pieces");
    }
    let (heads, rest) = body.split_at(count * 16);
    let piece = |head: &[u8]| {
        let index = u32::from_le_bytes(head[..4].try_into().unwrap());
        let code = u32::from_le_bytes(head[4..8].try_into().unwrap());
        (index, code, u64::from_le_bytes(head[8..].try_into().unwrap()))
    };
    Ok((heads.chunks(16).map(piece).collect(), rest))
}

// ---- CBOR

fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("memory takes everything");
    out
}

fn decode(body: &[u8]) -> Result<Value> {
    let mut rest = body;
    match ciborium::from_reader(&mut rest) {
        Ok(value) if rest.is_empty() => Ok(value),
        _ => strange("a body is one CBOR value"),
    }
}

pub(crate) fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (Value::Text(name.to_owned()), value)).collect())
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn spec(size: u64, microseconds: u64, name: Option<&str>) -> Value {
    map([
        ("bytes", size.into()),
        ("ttl", microseconds.into()),
        ("name", name.map_or(Value::Null, |name| Value::Text(name.to_owned()))),
        ("class", Value::Null),
        ("lifetime", Value::Text("detached".into())),
        ("segment_bytes", Value::Null),
    ])
}

/// The field of a map.
fn field(value: &Value, name: &str) -> Result<Value> {
    let found = value.as_map().and_then(|map| map.iter().find(|(key, _)| key.as_text() == Some(name)));
    found.map(|(_, value)| value.clone()).ok_or_else(|| Failure::Strange(format!("no {name} in {value:?}")))
}

fn bytes_of(value: &Value) -> Result<Vec<u8>> {
    value.as_bytes().cloned().ok_or_else(|| Failure::Strange(format!("no bytes: {value:?}")))
}

fn number_of(value: &Value) -> Result<u64> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| Failure::Strange(format!("no number: {value:?}")))
}

fn leased(value: &Value) -> Result<Leased> {
    let lease = bytes_of(&field(&field(value, "lease")?, "id")?)?;
    Ok(Leased { lease, token: bytes_of(&field(value, "token")?)? })
}

/// A list of what may have failed.
fn each<T>(list: Value, read: impl Fn(Value) -> Result<T>) -> Result<Vec<Result<T>>> {
    let Value::Array(items) = list else { return strange("a list") };
    let outcome = |item: Value| match (field(&item, "Ok"), field(&item, "Err")) {
        (Ok(value), Err(_)) => read(value).map(Ok),
        (Err(_), Ok(error)) => {
            let code = number_of(&field(&error, "code")?)? as u32;
            let text = field(&error, "detail")?.into_text().unwrap_or_default();
            Ok(Err(Failure::Refused(code, text)))
        }
        _ => strange("Ok or Err"),
    };
    items.into_iter().map(outcome).collect()
}
