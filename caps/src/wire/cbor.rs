//! Bodies in CBOR (RFC 8949): one value and nothing after it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};

/// Deepest nesting of a body. The deepest message of ours has 6.
const DEPTH_MAX: usize = 12;

/// Writes a value behind what `bytes` has already.
///
/// # Errors
/// `E_INTERNAL`: no message of ours fails to encode.
pub fn append(value: &impl Serialize, bytes: &mut Vec<u8>) -> Result<()> {
    ciborium::into_writer(value, bytes)
        .map_err(|_| Error::new(Code::Internal, "a message of ours does not encode"))
}

/// Reads one value, which is all of `bytes`.
///
/// # Errors
/// `E_FRAME_TYPE` if it is not one well-formed `T`, or bytes follow it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|_| Error::new(Code::FrameType, "the body is not a message of its type"))?;
    if rest.is_empty() { Ok(value) } else { Err(Error::new(Code::FrameType, "bytes follow the message")) }
}
