//! The frame: a fixed little-endian header and a CBOR body.
//!
//! ```text
//!  0        4       5      6       8          16        20        24
//!  ┌────────┬───────┬──────┬───────┬──────────┬─────────┬─────────┬────────────┐
//!  │ "LSHD" │version│ kind │ flags │ request  │ body    │ reserved│ body ...   │
//!  │  u32   │  u8   │  u8  │ u16=0 │  u64     │ u32     │ u32=0   │ CBOR       │
//!  └────────┴───────┴──────┴───────┴──────────┴─────────┴─────────┴────────────┘
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Code, Error, Result};
use crate::id::RequestId;
use crate::limits::{FRAME_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::wire::cbor;

/// `"LSHD"` as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LSHD");
/// The protocol version of this release.
pub const VERSION: u8 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Longest frame with one token in it, and the fields beside it.
const TOKEN_MESSAGE_BYTES: usize = HEADER_BYTES + TOKEN_BYTES_MAX + 4 * 1024;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    version: u8,
    kind: u8,
    flags: U16,
    request: U64,
    body: U32,
    reserved: U32,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A [`crate::wire::Request`], from the client.
    Request = 1,
    /// A [`crate::wire::Reply`], from the node.
    Reply = 2,
    /// A [`crate::Error`], from the node.
    Error = 3,
}

/// A frame whose header was checked: the body is as long as the header says, and is not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: FrameKind,
    /// Which request it belongs to.
    pub request: RequestId,
    body: &'a [u8],
}

/// Encodes a whole frame.
///
/// # Errors
/// `E_FRAME_SIZE` if it would exceed [`FRAME_BYTES_MAX`].
pub fn encode(kind: FrameKind, request: RequestId, body: &impl Serialize) -> Result<Vec<u8>> {
    // Room for any message with a token at once: a buffer that grows leaves what it held behind, unwiped.
    let mut bytes = Vec::with_capacity(TOKEN_MESSAGE_BYTES);
    bytes.resize(HEADER_BYTES, 0);
    cbor::append(body, &mut bytes)?;
    let length = bytes.len() - HEADER_BYTES;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Error::new(Code::FrameSize, "the message is larger than a frame"));
    }
    let header = Header {
        magic: MAGIC.into(),
        version: VERSION,
        kind: kind as u8,
        flags: 0.into(),
        request: request.0.into(),
        body: (length as u32).into(), // at most FRAME_BYTES_MAX
        reserved: 0.into(),
    };
    bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    Ok(bytes)
}

/// Why a packet is no frame, or `None`. One line a rule; the decoder, the audit record and the fuzz oracle share it.
fn invalid(header: &Header, packet_bytes: usize) -> Option<Error> {
    let rules = [
        (header.magic != MAGIC, Code::FrameType, "the packet does not begin with the magic number"),
        (header.version != VERSION, Code::FrameVersion, "the protocol version is not 1"),
        (!(1..=3).contains(&header.kind), Code::FrameType, "the frame's kind is unknown"),
        (header.flags != 0, Code::FrameType, "a reserved flag is set"),
        (header.reserved != 0, Code::FrameType, "a reserved field is set"),
        (
            header.body.get() as usize != packet_bytes - HEADER_BYTES,
            Code::FrameSize,
            "the body is not as long as the header says",
        ),
    ];
    rules.into_iter().find(|(broken, ..)| *broken).map(|(_, code, detail)| Error::new(code, detail))
}

impl<'a> Frame<'a> {
    /// Checks the header of one packet.
    ///
    /// # Errors
    /// `E_FRAME_TRUNCATED`, `E_FRAME_SIZE`, `E_FRAME_TYPE`, `E_FRAME_VERSION`.
    pub fn decode(packet: &'a [u8]) -> Result<Self> {
        if packet.len() > FRAME_BYTES_MAX {
            return Err(Error::new(Code::FrameSize, "the packet is larger than a frame"));
        }
        let (header, body) = Header::ref_from_prefix(packet)
            .map_err(|_| Error::new(Code::FrameTruncated, "the packet is shorter than a header"))?;
        if let Some(error) = invalid(header, packet.len()) {
            return Err(error);
        }
        let kind = match header.kind {
            1 => FrameKind::Request,
            2 => FrameKind::Reply,
            _ => FrameKind::Error, // 3: `invalid` refused the others
        };
        Ok(Self { kind, request: RequestId(header.request.get()), body })
    }

    /// Decodes the body, all of it: bytes after the value are an error.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` if the body is not one well-formed `T`.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T> {
        cbor::decode(self.body)
    }
}

/// The oracle of the fuzz target: any packet is refused with a code, or decodes to a message that encodes to a
/// frame which decodes to the same message.
#[doc(hidden)]
pub fn fuzz(packet: &[u8]) {
    let Ok(frame) = Frame::decode(packet) else { return };
    fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(frame: &Frame<'_>) {
        let Ok(message) = frame.body::<T>() else { return };
        let Ok(bytes) = encode(frame.kind, frame.request, &message) else { return };
        let again = Frame::decode(&bytes).expect("our own frame decodes");
        assert_eq!(again.request, frame.request);
        assert_eq!(again.body::<T>().expect("our own body decodes"), message);
    }
    match frame.kind {
        FrameKind::Request => round_trip::<super::Request>(&frame),
        FrameKind::Reply => round_trip::<super::Reply>(&frame),
        FrameKind::Error => round_trip::<Error>(&frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Request;

    fn sample() -> Vec<u8> {
        encode(FrameKind::Request, RequestId(7), &Request::Status).unwrap()
    }

    #[test]
    fn a_frame_round_trips() {
        let bytes = sample();
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!((frame.kind, frame.request), (FrameKind::Request, RequestId(7)));
        assert_eq!(frame.body::<Request>().unwrap(), Request::Status);
    }

    #[test]
    fn c1_c4_each_rule_of_the_header_has_its_code() {
        let change = |at: usize, value: u8| {
            let mut bytes = sample();
            bytes[at] = value;
            Frame::decode(&bytes).unwrap_err().code()
        };
        assert_eq!(change(0, b'X'), Code::FrameType);
        assert_eq!(change(4, 0), Code::FrameVersion);
        assert_eq!(change(4, 255), Code::FrameVersion);
        assert_eq!(change(5, 0), Code::FrameType);
        assert_eq!(change(5, 4), Code::FrameType);
        assert_eq!(change(6, 1), Code::FrameType);
        assert_eq!(change(16, 0), Code::FrameSize);
        assert_eq!(change(19, 0xff), Code::FrameSize);
        assert_eq!(change(20, 1), Code::FrameType);
    }

    #[test]
    fn c2_cut_at_every_byte() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            let code = Frame::decode(&bytes[..cut]).unwrap_err().code();
            let expected = if cut < HEADER_BYTES { Code::FrameTruncated } else { Code::FrameSize };
            assert_eq!(code, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_body_must_be_drained_and_shallow() {
        let mut trailing = sample();
        trailing.push(0);
        let length = (trailing.len() - HEADER_BYTES) as u32;
        trailing[16..20].copy_from_slice(&length.to_le_bytes());
        let frame = Frame::decode(&trailing).unwrap();
        assert_eq!(frame.body::<Request>().unwrap_err().code(), Code::FrameType);

        let mut deep = vec![0x81; 10_000]; // arrays in arrays
        deep.push(0);
        let mut bytes = sample();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&deep);
        bytes[16..20].copy_from_slice(&(deep.len() as u32).to_le_bytes());
        assert!(Frame::decode(&bytes).unwrap().body::<Request>().is_err());
    }

    #[test]
    fn an_oversized_packet_or_message_is_refused() {
        let big = vec![0; FRAME_BYTES_MAX + 1];
        assert_eq!(Frame::decode(&big).unwrap_err().code(), Code::FrameSize);
        let body = serde_bytes::Bytes::new(&big);
        assert_eq!(encode(FrameKind::Request, RequestId(0), &body).unwrap_err().code(), Code::FrameSize);
    }
}
