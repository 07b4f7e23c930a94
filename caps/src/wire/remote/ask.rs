//! What a client's frame means.

use super::body::{Add, Piece, Span, Swap, data, end, first, split, word};
use super::header::{Flags, Header, Verb};
use crate::error::{Code, Error, Result};
use crate::limits::{REMOTE_BATCH_ITEMS_MAX, VALUE_BYTES_MAX};

/// The first frame of a request, or the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A request of the local socket, in CBOR.
    Control(&'a [u8]),
    /// All bytes of a span.
    Read(&'a Span),
    /// The bytes of a span from its beginning; the rest comes in the frames after this one.
    Write {
        /// Where to, and how many in all frames together.
        span: &'a Span,
        /// The first of them.
        data: &'a [u8],
    },
    /// All bytes of many spans.
    Gather(&'a [Span]),
    /// The bytes of many spans, one behind the other. Each frame of the message has spans of its own.
    Scatter {
        /// Where to.
        spans: &'a [Span],
        /// What.
        data: &'a [u8],
    },
    /// One word changed, if it is what the client thinks it is.
    Cas(&'a Swap),
    /// One word added to.
    FetchAdd(&'a Add),
    /// What a right reaches now.
    Stat(&'a Span),
    /// Leases to be made, in CBOR; their first bytes come in the frames after this one.
    Create(&'a [u8]),
    /// Leases to be given back, in CBOR.
    Delete(&'a [u8]),
}

/// What may follow the first frame of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Further<'a> {
    /// The next bytes of a write.
    Write(&'a [u8]),
    /// More spans of a scatter, with their bytes.
    Scatter {
        /// Where to.
        spans: &'a [Span],
        /// What.
        data: &'a [u8],
    },
    /// First bytes of leases that are being made.
    Create {
        /// Of which leases, and how many of each.
        pieces: &'a [Piece],
        /// What.
        data: &'a [u8],
    },
}

impl<'a> Ask<'a> {
    /// Reads the first frame of a request.
    ///
    /// # Errors
    /// `E_FRAME_TYPE`, `E_FRAME_SIZE`, `E_RANGE`.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self> {
        if header.flags.contains(Flags::ANSWER) {
            return Err(Error::new(Code::FrameType, "a client sends requests"));
        }
        let many = matches!(header.verb, Verb::Write | Verb::Scatter | Verb::Create);
        if header.has_more() && !many {
            return Err(Error::new(Code::FrameType, "this request has one frame"));
        }
        let batch = matches!(header.verb, Verb::Gather | Verb::Scatter);
        if !batch && header.items != 0 {
            return Err(Error::new(Code::FrameType, "this request has no items"));
        }
        match header.verb {
            Verb::Control => Ok(Self::Control(body)),
            Verb::Create => Ok(Self::Create(body)),
            Verb::Delete => Ok(Self::Delete(body)),
            Verb::Read => alone(body, sized).map(Self::Read),
            Verb::Stat => alone(body, |_| Ok(())).map(Self::Stat),
            Verb::Cas => alone(body, |swap: &Swap| word(&swap.word)).map(Self::Cas),
            Verb::FetchAdd => alone(body, |add: &Add| word(&add.word)).map(Self::FetchAdd),
            Verb::Write => {
                let (span, bytes) = first(body)?;
                sized(span)?;
                let rest = span.length().checked_sub(data(bytes)?.len() as u64);
                match (rest, header.has_more()) {
                    (Some(0), false) | (Some(1..), true) => Ok(Self::Write { span, data: bytes }),
                    _ => Err(Error::new(Code::FrameType, "a write has as many bytes as it announces")),
                }
            }
            Verb::Gather => {
                let (spans, rest) = split(body, items(header)?)?;
                end(rest)?;
                spans.iter().try_for_each(sized)?;
                Ok(Self::Gather(spans))
            }
            Verb::Scatter => scatter(header, body).map(|(spans, data)| Self::Scatter { spans, data }),
        }
    }
}

impl<'a> Further<'a> {
    /// Reads a frame that follows the first one of a request of the same verb and number.
    ///
    /// # Errors
    /// `E_FRAME_TYPE`, `E_FRAME_SIZE`, `E_RANGE`.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self> {
        if header.flags.contains(Flags::ANSWER) {
            return Err(Error::new(Code::FrameType, "a client sends requests"));
        }
        match header.verb {
            Verb::Write if header.items == 0 => {
                let bytes = data(body)?;
                if bytes.is_empty() {
                    return Err(Error::new(Code::FrameType, "a frame that brings nothing"));
                }
                Ok(Self::Write(bytes))
            }
            Verb::Scatter => scatter(header, body).map(|(spans, data)| Self::Scatter { spans, data }),
            Verb::Create => {
                let (pieces, bytes) = split::<Piece>(body, items(header)?)?;
                if pieces.iter().any(|piece| piece.code() != Ok(None)) {
                    return Err(Error::new(Code::FrameType, "a client's piece has no code"));
                }
                covers(pieces.iter().map(Piece::length), data(bytes)?)?;
                Ok(Self::Create { pieces, data: bytes })
            }
            _ => Err(Error::new(Code::FrameType, "nothing may follow this request")),
        }
    }
}

/// A body that is one value.
fn alone<T>(body: &[u8], judge: impl Fn(&T) -> Result<()>) -> Result<&T>
where
    T: zerocopy::FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned,
{
    let (value, rest) = first(body)?;
    end(rest)?;
    judge(value)?;
    Ok(value)
}

/// The spans of one frame of a scatter, with their bytes.
fn scatter<'a>(header: &Header, body: &'a [u8]) -> Result<(&'a [Span], &'a [u8])> {
    let (spans, bytes) = split::<Span>(body, items(header)?)?;
    covers(spans.iter().map(Span::length), data(bytes)?)?;
    Ok((spans, bytes))
}

/// Whether lengths and bytes are the same many.
fn covers(lengths: impl Iterator<Item = u64>, bytes: &[u8]) -> Result<()> {
    let sum = lengths.into_iter().try_fold(0_u64, u64::checked_add);
    if sum == Some(bytes.len() as u64) {
        return Ok(());
    }
    Err(Error::new(Code::FrameType, "the items' lengths are not the length of their bytes"))
}

/// How many items a batch's frame has.
fn items(header: &Header) -> Result<usize> {
    let items = header.items as usize;
    if items == 0 || items > REMOTE_BATCH_ITEMS_MAX {
        return Err(Error::new(Code::Range, "a batch has 1 to 512 items"));
    }
    Ok(items)
}

/// Whether one operation may be this long.
fn sized(span: &Span) -> Result<()> {
    if span.length() > VALUE_BYTES_MAX {
        return Err(Error::new(Code::Range, "one operation moves at most 1 GiB"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::id::{RequestId, SlotHandle};

    const AT: SlotHandle = SlotHandle { slot: 3, epoch: 4 };

    fn header(verb: Verb, items: u32) -> Header {
        Header { items, ..Header::of(verb, Flags::NONE, RequestId(1), 0).unwrap() }
    }

    fn code<T: std::fmt::Debug>(outcome: Result<T>) -> Code {
        outcome.unwrap_err().code()
    }

    #[test]
    fn a_read_is_one_span_and_nothing_more() {
        let span = Span::new(AT, 5, 6);
        assert_eq!(Ask::decode(&header(Verb::Read, 0), span.as_bytes()), Ok(Ask::Read(&span)));
        assert_eq!((span.handle(), span.offset(), span.length()), (AT, 5, 6));
        let longer = [span.as_bytes(), &[0]].concat();
        assert_eq!(code(Ask::decode(&header(Verb::Read, 0), &longer)), Code::FrameType);
        for cut in 0..Span::BYTES {
            assert_eq!(code(Ask::decode(&header(Verb::Read, 0), &span.as_bytes()[..cut])), Code::FrameType);
        }
        assert_eq!(code(Ask::decode(&header(Verb::Read, 1), span.as_bytes())), Code::FrameType);
        let more = Header { flags: Flags::MORE, ..header(Verb::Read, 0) };
        assert_eq!(code(Ask::decode(&more, span.as_bytes())), Code::FrameType);
        let answer = Header { flags: Flags::ANSWER, ..header(Verb::Read, 0) };
        assert_eq!(code(Ask::decode(&answer, span.as_bytes())), Code::FrameType);
        let huge = Span::new(AT, 0, VALUE_BYTES_MAX + 1);
        assert_eq!(code(Ask::decode(&header(Verb::Read, 0), huge.as_bytes())), Code::Range);
    }

    #[test]
    fn a_write_brings_what_it_announces_or_says_that_more_comes() {
        let body = |length, bytes: &[u8]| [Span::new(AT, 0, length).as_bytes(), bytes].concat();
        let (whole, begun) =
            (header(Verb::Write, 0), Header { flags: Flags::MORE, ..header(Verb::Write, 0) });
        assert!(matches!(Ask::decode(&whole, &body(3, b"abc")), Ok(Ask::Write { data: b"abc", .. })));
        assert!(matches!(Ask::decode(&begun, &body(9, b"abc")), Ok(Ask::Write { .. })));
        assert_eq!(code(Ask::decode(&whole, &body(4, b"abc"))), Code::FrameType);
        assert_eq!(code(Ask::decode(&whole, &body(2, b"abc"))), Code::FrameType);
        assert_eq!(code(Ask::decode(&begun, &body(3, b"abc"))), Code::FrameType);
        let chunk = vec![0; crate::limits::CHUNK_BYTES_MAX + 1];
        assert_eq!(code(Ask::decode(&whole, &body(chunk.len() as u64, &chunk))), Code::FrameSize);
        assert_eq!(Further::decode(&whole, b"abc"), Ok(Further::Write(b"abc")));
        assert_eq!(code(Further::decode(&whole, b"")), Code::FrameType);
        assert_eq!(code(Further::decode(&header(Verb::Read, 0), b"abc")), Code::FrameType);
    }

    #[test]
    fn a_batch_has_as_many_items_as_it_says() {
        let spans = [Span::new(AT, 0, 2), Span::new(AT, 8, 3)];
        let body = spans.as_bytes();
        assert_eq!(Ask::decode(&header(Verb::Gather, 2), body), Ok(Ask::Gather(&spans)));
        assert_eq!(code(Ask::decode(&header(Verb::Gather, 1), body)), Code::FrameType);
        assert_eq!(code(Ask::decode(&header(Verb::Gather, 3), body)), Code::FrameType);
        assert_eq!(code(Ask::decode(&header(Verb::Gather, 0), body)), Code::Range);
        let over = header(Verb::Gather, REMOTE_BATCH_ITEMS_MAX as u32 + 1);
        assert_eq!(code(Ask::decode(&over, body)), Code::Range);
        assert_eq!(code(Ask::decode(&header(Verb::Gather, u32::MAX), body)), Code::Range);

        let with = |bytes: &[u8]| [body, bytes].concat();
        let scatter = header(Verb::Scatter, 2);
        assert!(matches!(Ask::decode(&scatter, &with(b"abcde")), Ok(Ask::Scatter { data: b"abcde", .. })));
        assert_eq!(code(Ask::decode(&scatter, &with(b"abcd"))), Code::FrameType);
        assert_eq!(code(Ask::decode(&scatter, &with(b"abcdef"))), Code::FrameType);
        let wraps = [Span::new(AT, 0, u64::MAX), Span::new(AT, 0, 6)];
        let wraps = [wraps.as_bytes(), b"abcde"].concat();
        assert_eq!(code(Ask::decode(&scatter, &wraps)), Code::FrameType, "lengths do not wrap");
    }

    #[test]
    fn words_are_whole_and_aligned() {
        let swap = Swap::new(AT, 16, 1, 2);
        assert_eq!(Ask::decode(&header(Verb::Cas, 0), swap.as_bytes()), Ok(Ask::Cas(&swap)));
        assert_eq!((swap.expected(), swap.desired()), (1, 2));
        let crooked = Swap::new(AT, 12, 1, 2);
        assert_eq!(code(Ask::decode(&header(Verb::Cas, 0), crooked.as_bytes())), Code::Range);
        let mut add = Add::new(AT, 8, 1);
        assert_eq!(Ask::decode(&header(Verb::FetchAdd, 0), add.as_bytes()), Ok(Ask::FetchAdd(&add)));
        add.word = Span::new(AT, 8, 4);
        assert_eq!(code(Ask::decode(&header(Verb::FetchAdd, 0), add.as_bytes())), Code::Range);
        assert_eq!((Swap::BYTES, Add::BYTES, Span::BYTES, Piece::BYTES), (40, 32, 24, 16));
    }
}
