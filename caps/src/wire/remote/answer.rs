//! What a node's frame means.

use zerocopy::little_endian::U64;

use super::body::{Piece, Standing, code_of, data, end, first, split};
use super::header::{Flags, Header, Verb};
use crate::error::{Code, Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, REMOTE_BATCH_ITEMS_MAX};

/// One frame of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The request failed, now or after what came of its answer so far.
    Failed(Error),
    /// A reply of the local socket, in CBOR.
    Control(&'a [u8]),
    /// The next bytes of a read. The last frame's are the last: fewer in all than were asked for, where the region or the
    /// right ends.
    Read(&'a [u8]),
    /// How many bytes of a write are in the region.
    Written(u64),
    /// Parts of a gather's items, or what became of a scatter's.
    Pieces {
        /// Of which items.
        pieces: &'a [Piece],
        /// The bytes of all pieces, one behind the other; none in the answer to a scatter.
        data: &'a [u8],
    },
    /// What a word was before.
    Word(u64),
    /// What a right reaches now.
    Standing(&'a Standing),
    /// What became of leases to be made or given back, in CBOR.
    Leases(&'a [u8]),
}

impl<'a> Answer<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// `E_FRAME_TYPE`, `E_FRAME_SIZE`: the node does not speak this protocol.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self> {
        if !header.flags.contains(Flags::ANSWER) {
            return Err(Error::new(Code::FrameType, "a node sends answers"));
        }
        let pieces = matches!(header.verb, Verb::Gather | Verb::Scatter);
        if !pieces && header.items != 0 {
            return Err(Error::new(Code::FrameType, "this answer has no items"));
        }
        if header.has_more() && !(pieces || header.verb == Verb::Read) {
            return Err(Error::new(Code::FrameType, "this answer has one frame"));
        }
        if let Some(code) = code_of(header.deadline_or_code)? {
            if header.has_more() || header.items != 0 {
                return Err(Error::new(Code::FrameType, "nothing follows a failure"));
            }
            let detail = std::str::from_utf8(body)
                .map_err(|_| Error::new(Code::FrameType, "the reason of a failure is no text"))?;
            return Ok(Self::Failed(Error::with(code, detail.to_owned())));
        }
        match header.verb {
            Verb::Control => Ok(Self::Control(body)),
            Verb::Create | Verb::Delete => Ok(Self::Leases(body)),
            Verb::Read => data(body).map(Self::Read),
            Verb::Write => number(body).map(Self::Written),
            Verb::Cas | Verb::FetchAdd => number(body).map(Self::Word),
            Verb::Stat => {
                let (standing, rest) = first::<Standing>(body)?;
                end(rest)?;
                standing.rights()?;
                Ok(Self::Standing(standing))
            }
            Verb::Gather | Verb::Scatter => {
                let (pieces, bytes) = body.split_at_checked(pieces_bytes(header)?).ok_or(SHORT)?;
                if header.verb == Verb::Scatter {
                    end(bytes)?;
                }
                let pieces = pieces_of(header, pieces, bytes.len())?;
                Ok(Self::Pieces { pieces, data: bytes })
            }
        }
    }
}

const SHORT: Error = Error::new(Code::FrameType, "the frame's body is shorter than what it announces");

/// How many bytes of a batch's answer come before those of its items: for who takes them apart as they come.
///
/// # Errors
/// `E_FRAME_TYPE` if it has too many pieces, or none.
pub fn pieces_bytes(header: &Header) -> Result<usize> {
    let items = header.items as usize;
    if items == 0 || items > REMOTE_BATCH_ITEMS_MAX {
        return Err(Error::new(Code::FrameType, "a frame of a batch has 1 to 512 pieces"));
    }
    Ok(items * Piece::BYTES)
}

/// The pieces of a batch's answer: the first [`pieces_bytes`] of its body, behind which `data` bytes come.
///
/// # Errors
/// `E_FRAME_TYPE`, `E_FRAME_SIZE`: the node does not speak this protocol.
pub fn pieces_of<'a>(header: &Header, bytes: &'a [u8], data: usize) -> Result<&'a [Piece]> {
    let (pieces, rest) = split::<Piece>(bytes, header.items as usize)?;
    end(rest)?;
    pieces.iter().try_for_each(|piece| piece.code().map(drop))?;
    if header.verb == Verb::Gather {
        if data > CHUNK_BYTES_MAX {
            return Err(Error::new(Code::FrameSize, "a frame carries at most 64 KiB of a region"));
        }
        let sum = pieces.iter().map(Piece::length).try_fold(0_u64, u64::checked_add);
        if sum != Some(data as u64) {
            return Err(Error::new(Code::FrameType, "the pieces are not as long as their bytes"));
        }
    }
    Ok(pieces)
}

/// A body that is one number.
fn number(body: &[u8]) -> Result<u64> {
    let (number, rest) = first::<U64>(body)?;
    end(rest)?;
    Ok(number.get())
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::id::RequestId;
    use crate::rights::Rights;

    fn header(verb: Verb, items: u32) -> Header {
        Header { items, ..Header::of(verb, Flags::ANSWER, RequestId(1), 0).unwrap() }
    }

    fn code(outcome: Result<Answer<'_>>) -> Code {
        outcome.unwrap_err().code()
    }

    #[test]
    fn a_failure_says_what_it_is_and_nothing_follows() {
        let failed = Header { deadline_or_code: Code::Revoked as u32, ..header(Verb::Read, 0) };
        match Answer::decode(&failed, b"gone").unwrap() {
            Answer::Failed(error) => assert_eq!((error.code(), error.detail()), (Code::Revoked, "gone")),
            other => panic!("{other:?}"),
        }
        let more = Header { flags: Flags::ANSWER.and(Flags::MORE), ..failed };
        assert_eq!(code(Answer::decode(&more, b"gone")), Code::FrameType);
        let nobodys = Header { deadline_or_code: 65_536 + Code::Revoked as u32, ..failed };
        assert_eq!(code(Answer::decode(&nobodys, b"gone")), Code::FrameType, "numbers are not cut");
        assert_eq!(code(Answer::decode(&failed, &[0xff])), Code::FrameType);
    }

    #[test]
    fn pieces_are_as_long_as_their_bytes() {
        let pieces = [Piece::new(0, None, 2), Piece::new(1, Some(Code::Revoked), 1)];
        let body = [pieces.as_bytes(), b"abc"].concat();
        assert!(matches!(
            Answer::decode(&header(Verb::Gather, 2), &body),
            Ok(Answer::Pieces { data: b"abc", .. })
        ));
        assert_eq!(code(Answer::decode(&header(Verb::Gather, 2), &body[..body.len() - 1])), Code::FrameType);
        assert_eq!(code(Answer::decode(&header(Verb::Scatter, 2), &body)), Code::FrameType);
        assert!(Answer::decode(&header(Verb::Scatter, 2), pieces.as_bytes()).is_ok());
        assert_eq!(code(Answer::decode(&header(Verb::Gather, 0), &body)), Code::FrameType);
    }

    #[test]
    fn numbers_and_standings_have_their_length() {
        assert_eq!(Answer::decode(&header(Verb::FetchAdd, 0), &7_u64.to_le_bytes()), Ok(Answer::Word(7)));
        assert_eq!(code(Answer::decode(&header(Verb::FetchAdd, 0), &[0; 7])), Code::FrameType);
        assert_eq!(code(Answer::decode(&header(Verb::Write, 0), &[0; 9])), Code::FrameType);
        let standing = Standing::new(4096, (0, 4096), Rights::READ, 5);
        assert_eq!(
            Answer::decode(&header(Verb::Stat, 0), standing.as_bytes()),
            Ok(Answer::Standing(&standing))
        );
        let mut odd = standing.as_bytes().to_vec();
        odd[Standing::BYTES - 1] = 1;
        assert_eq!(code(Answer::decode(&header(Verb::Stat, 0), &odd)), Code::FrameType);
    }
}
