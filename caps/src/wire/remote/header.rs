//! The 32 bytes before every body.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Code, Error, Result};
use crate::id::RequestId;
use crate::limits::FRAME_BYTES_MAX;

/// `"LSHR"` as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LSHR");
/// The protocol version of this release.
pub const VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_BYTES: usize = size_of::<Wire>();
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: U32,
    version: u8,
    verb: u8,
    flags: U16,
    request: U64,
    body: U32,
    deadline_or_code: U32,
    crc: U32,
    items: U32,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message is about. The answer to it has the same verb.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Verb { $($(#[$doc])* $name = $number,)* }

        impl Verb {
            /// Every verb, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The verb with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

verbs! {
    /// A request of the local socket and its reply, in CBOR.
    Control = 1,
    /// Bytes of one region.
    Read = 2,
    /// Bytes into one region.
    Write = 3,
    /// Bytes of many places.
    Gather = 4,
    /// Bytes into many places.
    Scatter = 5,
    /// One word changed if it is what the client thinks it is.
    Cas = 6,
    /// One word added to.
    FetchAdd = 7,
    /// What a right still reaches.
    Stat = 8,
    /// Leases with their first bytes.
    Create = 9,
    /// Leases given back.
    Delete = 10,
}

/// What is said of a frame beside its verb. A set; unknown members are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Another frame of the same message follows.
    pub const MORE: Self = Self(1);
    /// The header has the body's CRC32C.
    pub const CRC: Self = Self(2);
    /// From the node.
    pub const ANSWER: Self = Self(4);
    const ALL: Self = Self(7);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every member of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A header whose fields are within their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is about.
    pub verb: Verb,
    /// What is said of the frame.
    pub flags: Flags,
    /// The client's number for the request; its answer carries it back.
    pub request: RequestId,
    /// Bytes of the body, at most [`BODY_BYTES_MAX`].
    pub body: u32,
    /// From a client: after how many milliseconds it no longer wants the answer; 0 leaves that to the node. From a
    /// node: the number of a [`Code`], or 0.
    pub deadline_or_code: u32,
    /// CRC32C of the body with [`Flags::CRC`], else 0.
    pub crc: u32,
    /// How many items the body begins with, where its verb has items; else 0.
    pub items: u32,
}

impl Header {
    /// A header for `body`, without a checksum.
    ///
    /// # Errors
    /// `E_FRAME_SIZE` if the body is longer than [`BODY_BYTES_MAX`].
    pub fn of(verb: Verb, flags: Flags, request: RequestId, body: usize) -> Result<Self> {
        let body = u32::try_from(body).ok().filter(|&body| body as usize <= BODY_BYTES_MAX);
        let body = body.ok_or(Error::new(Code::FrameSize, "the message is larger than a frame"))?;
        Ok(Self { verb, flags, request, body, deadline_or_code: 0, crc: 0, items: 0 })
    }

    /// The same, with the checksum of `body`.
    #[must_use]
    pub fn checked(self, body: &[u8]) -> Self {
        Self { flags: self.flags.and(Flags::CRC), crc: crc32c::crc32c(body), ..self }
    }

    /// The bytes before the body.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let wire = Wire {
            magic: MAGIC.into(),
            version: VERSION,
            verb: self.verb as u8,
            flags: self.flags.0.into(),
            request: self.request.0.into(),
            body: self.body.into(),
            deadline_or_code: self.deadline_or_code.into(),
            crc: self.crc.into(),
            items: self.items.into(),
        };
        zerocopy::transmute!(wire)
    }

    /// Reads a header and judges it by itself: nothing of the body is needed.
    ///
    /// # Errors
    /// `E_FRAME_TYPE`, `E_FRAME_VERSION`, `E_FRAME_SIZE`.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let wire: Wire = zerocopy::transmute!(*bytes);
        let flags = Flags(wire.flags.get());
        let (body, crc) = (wire.body.get(), wire.crc.get());
        if wire.magic != MAGIC {
            return Err(Error::new(Code::FrameType, "the frame does not begin with the magic number"));
        }
        if wire.version != VERSION {
            return Err(Error::new(Code::FrameVersion, "the protocol version is not 1"));
        }
        let verb =
            Verb::from_number(wire.verb).ok_or(Error::new(Code::FrameType, "the frame's verb is unknown"))?;
        if !Flags::ALL.contains(flags) {
            return Err(Error::new(Code::FrameType, "a reserved flag is set"));
        }
        if !flags.contains(Flags::CRC) && crc != 0 {
            return Err(Error::new(Code::FrameType, "a checksum without its flag"));
        }
        if body as usize > BODY_BYTES_MAX {
            return Err(Error::new(Code::FrameSize, "the frame is larger than 128 KiB"));
        }
        Ok(Self {
            verb,
            flags,
            request: RequestId(wire.request.get()),
            body,
            deadline_or_code: wire.deadline_or_code.get(),
            crc,
            items: wire.items.get(),
        })
    }

    /// Whether more frames of the same message follow.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.flags.contains(Flags::MORE)
    }

    /// Holds the body against the checksum, if there is one.
    ///
    /// # Errors
    /// `E_CHECKSUM`.
    pub fn verify(&self, body: &[u8]) -> Result<()> {
        if self.flags.contains(Flags::CRC) && crc32c::crc32c(body) != self.crc {
            return Err(Error::new(Code::Checksum, "the frame's checksum does not match its body"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            verb: Verb::Gather,
            flags: Flags::MORE.and(Flags::CRC),
            request: RequestId(0x0102_0304_0506_0708),
            body: 0x0001_0203,
            deadline_or_code: 0x0a0b_0c0d,
            crc: 0x1122_3344,
            items: 7,
        }
    }

    #[test]
    fn every_field_has_its_place() {
        let header = Header { body: 0x203, ..sample() };
        let bytes = header.encode();
        assert_eq!(
            bytes,
            [
                b'L', b'S', b'H', b'R', 1, 4, 3, 0, 8, 7, 6, 5, 4, 3, 2,
                1, // magic, version, verb, flags, request
                3, 2, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0x44, 0x33, 0x22, 0x11, 7, 0, 0, 0,
            ]
        );
        assert_eq!(Header::decode(&bytes).unwrap(), header);
    }

    #[test]
    fn c1_c4_each_rule_has_its_code() {
        let good = Header { body: 0, ..sample() }.encode();
        let change = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Header::decode(&bytes).map_err(|error| error.code())
        };
        assert_eq!(change(0, b'X'), Err(Code::FrameType));
        assert_eq!(change(4, 0), Err(Code::FrameVersion));
        assert_eq!(change(4, 2), Err(Code::FrameVersion));
        assert_eq!(change(5, 0), Err(Code::FrameType));
        assert_eq!(change(5, 11), Err(Code::FrameType));
        assert_eq!(change(6, 8), Err(Code::FrameType));
        assert_eq!(change(7, 1), Err(Code::FrameType));
        assert_eq!(change(6, 0), Err(Code::FrameType), "a checksum that nobody announced");
        assert_eq!(change(18, 2), Err(Code::FrameSize));
        assert_eq!(change(19, 0xff), Err(Code::FrameSize));
    }

    #[test]
    fn a_checksum_finds_a_flipped_bit() {
        let mut body = vec![7; 100];
        let header = Header::of(Verb::Write, Flags::NONE, RequestId(1), body.len()).unwrap().checked(&body);
        header.verify(&body).unwrap();
        body[50] ^= 1;
        assert_eq!(header.verify(&body).unwrap_err().code(), Code::Checksum);
    }
}
