//! A frame of a link: the length of its body as four bytes, the least first, and the body, one message in CBOR.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ToBroker, ToProvider};
use crate::error::{Code, Error, Result};
use crate::limits::LINK_FRAME_BYTES_MAX;
use crate::wire::cbor;

/// Bytes before the body.
pub const PREFIX_BYTES: usize = 4;

/// A message of one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// Checks what a decoder does not: how many there are of what may be several.
    ///
    /// # Errors
    /// `E_FRAME_TYPE`, or `E_RANGE` for a registration that is none.
    fn check(&self) -> Result<()>;
}

/// Writes a frame.
///
/// # Errors
/// `E_FRAME_SIZE` if it would exceed [`LINK_FRAME_BYTES_MAX`].
pub fn encode(message: &impl Message) -> Result<Vec<u8>> {
    let mut frame = vec![0; PREFIX_BYTES];
    cbor::append(message, &mut frame)?;
    let length = frame.len() - PREFIX_BYTES;
    if frame.len() > LINK_FRAME_BYTES_MAX {
        return Err(Error::new(Code::FrameSize, "the message is larger than a frame of a link"));
    }
    frame[..PREFIX_BYTES].copy_from_slice(&(length as u32).to_le_bytes()); // at most LINK_FRAME_BYTES_MAX
    Ok(frame)
}

/// Reads the length of a body, before there is any room for it. `most` is the frame's, prefix included.
///
/// # Errors
/// `E_FRAME_SIZE` for an empty body, or one that is larger than a frame may be.
pub fn length(prefix: [u8; PREFIX_BYTES], most: usize) -> Result<usize> {
    let length = u32::from_le_bytes(prefix) as usize;
    if (1..=most - PREFIX_BYTES).contains(&length) {
        Ok(length)
    } else {
        Err(Error::new(Code::FrameSize, "a frame of a link has a body, and a bounded one"))
    }
}

/// Reads the message of a body.
///
/// # Errors
/// `E_FRAME_TYPE` if it is not one well-formed message, or one that may not be; `E_RANGE` as [`Message::check`].
pub fn decode<T: Message>(body: &[u8]) -> Result<T> {
    let message: T = cbor::decode(body)?;
    message.check()?;
    Ok(message)
}

/// The oracle of a fuzz target: any body is refused with a code, or decodes to a message that encodes to a frame which
/// decodes to the same message.
#[doc(hidden)]
pub fn fuzz(body: &[u8]) {
    fn round_trip<T: Message + PartialEq + std::fmt::Debug>(body: &[u8]) {
        let Ok(message) = decode::<T>(body) else { return };
        let Ok(frame) = encode(&message) else { return };
        let (prefix, again) = frame.split_first_chunk().expect("a frame has a prefix");
        assert_eq!(length(*prefix, LINK_FRAME_BYTES_MAX).expect("our own length"), again.len());
        assert_eq!(decode::<T>(again).expect("our own message decodes"), message);
    }
    round_trip::<ToBroker>(body);
    round_trip::<ToProvider>(body);
}
