//! Frames out of a stream of bytes.

use super::header::{HEADER_BYTES, Header};
use crate::error::Result;

/// What the bytes that have come so far begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Less than a frame: at least this many more bytes are needed to know more.
    Wants(usize),
    /// A frame, and what comes after it.
    Frame {
        /// Its header.
        header: Header,
        /// Its body, as long as the header says.
        body: &'a [u8],
        /// What follows.
        rest: &'a [u8],
    },
}

/// Looks for a frame at the beginning of `bytes`. A header is judged as soon as it is there: a peer that announces what
/// it may not is told so before it has sent it.
///
/// # Errors
/// Those of [`Header::decode`], and `E_CHECKSUM`. After one the stream has no next frame.
pub fn next(bytes: &[u8]) -> Result<Next<'_>> {
    let Some((header, after)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Next::Wants(HEADER_BYTES - bytes.len()));
    };
    let header = Header::decode(header)?;
    let length = header.body as usize; // at most BODY_BYTES_MAX
    match after.split_at_checked(length) {
        Some((body, rest)) => {
            header.verify(body)?;
            Ok(Next::Frame { header, body, rest })
        }
        None => Ok(Next::Wants(length - after.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::id::RequestId;
    use crate::wire::remote::header::{Flags, Verb};

    fn frame(request: u64, body: &[u8]) -> Vec<u8> {
        let header = Header::of(Verb::Read, Flags::NONE, RequestId(request), body.len()).unwrap();
        [&header.checked(body).encode()[..], body].concat()
    }

    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut() {
        let last = vec![9; if cfg!(miri) { 40 } else { 1000 }];
        let stream = [frame(1, b"one"), frame(2, b""), frame(3, &last)].concat();
        for cut in 0..=stream.len() {
            let (mut held, mut met) = (stream[..cut].to_vec(), vec![]);
            let mut later = Some(&stream[cut..]);
            loop {
                match next(&held).unwrap() {
                    Next::Wants(more) => match later.take() {
                        Some(bytes) => {
                            assert!(more <= bytes.len(), "it asks for what is there");
                            held.extend_from_slice(bytes);
                        }
                        None => break,
                    },
                    Next::Frame { header, body, rest } => {
                        met.push((header.request.0, body.len()));
                        held = rest.to_vec();
                        if held.is_empty() && later.is_none() {
                            break;
                        }
                    }
                }
                if held.is_empty() && later.is_some_and(<[u8]>::is_empty) {
                    break;
                }
            }
            assert_eq!(met, [(1, 3), (2, 0), (3, last.len())], "cut at {cut}");
        }
    }

    #[test]
    fn a_bad_header_is_known_before_its_body() {
        let mut bytes = frame(1, b"body");
        bytes[5] = 99;
        assert_eq!(next(&bytes[..HEADER_BYTES]).unwrap_err().code(), Code::FrameType);
    }

    #[test]
    fn a_damaged_body_is_no_frame() {
        let mut bytes = frame(1, b"body");
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(next(&bytes).unwrap_err().code(), Code::Checksum);
    }
}
