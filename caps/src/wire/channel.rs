//! The rotation channel: how fresh segments reach a process whose memory is being rotated.
//!
//! A session that maps memory asks for its channel once ([`Request::Channel`](super::Request::Channel)): a socket of
//! its own, SEQPACKET, besides the session's. The client reads it in a signal handler, at any moment and in any
//! thread, so a message is one packet of a fixed size that is decoded without allocation, and there is no answer to
//! wait for.
//!
//! ```text
//! bytes   0      1        2..4       4..8    8..12   12..16
//!       ┌──────┬────────┬──────────┬───────┬───────┬────────┐
//!       │ kind │ access │ 0, unused│ slot  │ epoch │ segment│   little-endian
//!       └──────┴────────┴──────────┴───────┴───────┴────────┘
//! ```
//!
//! | kind | from | means | beside it |
//! |---|---|---|---|
//! | [`Message::Ready`] | client | the right's segments are mapped: tell me of changes | |
//! | [`Message::Segment`] | node | the fresh file of one segment, to be mapped over the old with this access | one descriptor |
//! | [`Message::Taken`] | client | it is mapped; the next message may come | |
//! | [`Message::Withdrawn`] | node | the right goes on without this segment | |
//! | [`Message::Ended`] | node | the right is over: whoever waits in it gives up | |
//!
//! The node sends the next message only after the one before was answered with [`Message::Taken`], whichever it
//! was, so at most one descriptor is under way, and two files of the same segment cannot overtake
//! each other.

use crate::error::{Code, Error, Result};
use crate::id::SlotHandle;

/// Bytes of every message.
pub const MESSAGE_BYTES: usize = 16;

/// What a mapping of a fresh segment may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentAccess {
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The right's segments are mapped and registered.
    Ready {
        /// The right.
        handle: SlotHandle,
    },
    /// A segment's fresh file comes beside this packet.
    Segment {
        /// The right.
        handle: SlotHandle,
        /// Which segment, counted from the region's start.
        index: u32,
        /// What the right still allows.
        access: SegmentAccess,
    },
    /// The message before this one was carried out.
    Taken {
        /// The right it was about.
        handle: SlotHandle,
        /// The segment it was about; 0 for [`Message::Ended`].
        index: u32,
    },
    /// The right no longer reaches a segment: nothing comes in its place.
    Withdrawn {
        /// The right.
        handle: SlotHandle,
        /// Which segment.
        index: u32,
    },
    /// The right is over.
    Ended {
        /// The right.
        handle: SlotHandle,
    },
}

impl Message {
    /// The packet. Allocates nothing.
    #[must_use]
    pub const fn encode(self) -> [u8; MESSAGE_BYTES] {
        let (kind, access, handle, index) = match self {
            Self::Ready { handle } => (1, 0, handle, 0),
            Self::Segment { handle, index, access: SegmentAccess::Read } => (2, 1, handle, index),
            Self::Segment { handle, index, access: SegmentAccess::ReadWrite } => (2, 2, handle, index),
            Self::Taken { handle, index } => (3, 0, handle, index),
            Self::Ended { handle } => (4, 0, handle, 0),
            Self::Withdrawn { handle, index } => (5, 0, handle, index),
        };
        let [s, e, i] = [handle.slot.to_le_bytes(), handle.epoch.to_le_bytes(), index.to_le_bytes()];
        [kind, access, 0, 0, s[0], s[1], s[2], s[3], e[0], e[1], e[2], e[3], i[0], i[1], i[2], i[3]]
    }

    /// Reads a packet. Allocates nothing.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` for another length, an unknown kind or access, or a field that must be 0 and is not.
    pub fn decode(packet: &[u8]) -> Result<Self> {
        const WRONG: Error = Error::new(Code::FrameType, "not a message of the rotation channel");
        let packet: &[u8; MESSAGE_BYTES] = packet.try_into().map_err(|_| WRONG)?;
        let word =
            |at: usize| u32::from_le_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let handle = SlotHandle { slot: word(4), epoch: word(8) };
        let message = match (packet[0], packet[1]) {
            (1, 0) => Self::Ready { handle },
            (2, 1) => Self::Segment { handle, index: word(12), access: SegmentAccess::Read },
            (2, 2) => Self::Segment { handle, index: word(12), access: SegmentAccess::ReadWrite },
            (3, 0) => Self::Taken { handle, index: word(12) },
            (4, 0) => Self::Ended { handle },
            (5, 0) => Self::Withdrawn { handle, index: word(12) },
            _ => return Err(WRONG),
        };
        // One spelling each: what is unused is 0.
        if message.encode() == *packet { Ok(message) } else { Err(WRONG) }
    }
}

/// The oracle of the fuzz target: a packet of any length is refused with a code, or is the one spelling of its message.
#[doc(hidden)]
pub fn fuzz(packet: &[u8]) {
    match Message::decode(packet) {
        Ok(message) => assert_eq!(message.encode(), packet, "one spelling"),
        Err(error) => assert_eq!(error.code(), Code::FrameType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLE: SlotHandle = SlotHandle { slot: 0x0102_0304, epoch: 0x0506_0708 };

    #[test]
    fn every_message_has_one_spelling() {
        for message in [
            Message::Ready { handle: HANDLE },
            Message::Segment { handle: HANDLE, index: 7, access: SegmentAccess::Read },
            Message::Segment { handle: HANDLE, index: u32::MAX, access: SegmentAccess::ReadWrite },
            Message::Taken { handle: HANDLE, index: 9 },
            Message::Ended { handle: HANDLE },
            Message::Withdrawn { handle: HANDLE, index: 3 },
        ] {
            assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
        assert_eq!(Message::Ready { handle: HANDLE }.encode()[4..12], [4, 3, 2, 1, 8, 7, 6, 5]);
    }

    #[test]
    fn anything_else_is_refused() {
        let good = Message::Ready { handle: HANDLE }.encode();
        assert!(Message::decode(&good[..15]).is_err() && Message::decode(&[]).is_err());
        for (at, value) in [(0, 0), (0, 6), (1, 1), (2, 1), (3, 1), (12, 1), (15, 1)] {
            let mut packet = good;
            packet[at] = value;
            assert_eq!(Message::decode(&packet).unwrap_err().code(), Code::FrameType, "byte {at}");
        }
    }
}
