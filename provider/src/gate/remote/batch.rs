//! GATHER and SCATTER: many spans of any rights in one request. Each item is judged and answered by itself: one that
//! fails is recorded like a request of its own, and the others go on.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::REMOTE_BATCH_ITEMS_MAX;
use caps::rights::Rights;
use caps::wire::remote::{Piece, Span};
use zerocopy::IntoBytes;

use super::job::{Answering, Sink, Went};
use super::read::{chunk_of, rest, unexpected, with_chunk};
use crate::gate::fault::Access;
use crate::gate::visitor::Visitor;
use crate::runtime::{Passage, Progress, Provider, Refused, Rotating};

/// A gather under way.
pub(super) struct Gather {
    spans: Vec<Span>,
    at: Place,
    /// Why the next item is not tried.
    skip: Option<Code>,
}

/// The item that is next, and how many bytes of it were given to the sink.
#[derive(Clone, Copy, Default)]
struct Place {
    item: usize,
    done: u64,
}

/// What became of one item, or of a part of it, in a frame that is being made.
struct Part<'p> {
    /// Where the item stood before it.
    began: Place,
    bytes: usize,
    /// Held until the frame is with the sink.
    outcome: Outcome<'p>,
}

enum Outcome<'p> {
    Read(Passage<'p>),
    Refused(Access, Refused),
    Skipped(Code),
}

impl Gather {
    pub(super) fn new(spans: &[Span]) -> Self {
        Self { spans: spans.to_vec(), at: Place::default(), skip: None }
    }

    /// Gives the next item up.
    pub(super) fn skip(&mut self, why: Code) {
        self.skip = Some(why);
    }

    /// One frame: as many items as fit a chunk. The slots of all of them are held until it is with the sink.
    pub(super) fn step(
        &mut self,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<Went> {
        if !out.has_room() {
            return Ok(Went::Full);
        }
        let provider = visitor.shared.provider.clone();
        with_chunk(|chunk| {
            let (mut parts, rotating) = self.read(visitor.opener.session, &provider, chunk);
            if let Some(rotating) = rotating.filter(|_| parts.is_empty()) {
                return Ok(Went::Rotating(rotating));
            }
            // An item whose right ended or was narrowed meanwhile is judged again, and so is what comes after it.
            let stands =
                |part: &Part<'_>| !matches!(&part.outcome, Outcome::Read(passage) if !passage.stands());
            if let Some(fallen) = parts.iter().position(|part| !stands(part)) {
                self.at = parts[fallen].began;
                parts.truncate(fallen);
                if parts.is_empty() {
                    return Ok(Went::On);
                }
            }
            let (mut pieces, mut rights) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
            let (mut passages, mut bytes) = (Vec::with_capacity(parts.len()), 0);
            for part in parts {
                bytes += part.bytes;
                let handle = self.spans[part.began.item].handle();
                let code = match part.outcome {
                    Outcome::Read(passage) => {
                        passages.push(passage);
                        if part.bytes > 0 && rights.last() != Some(&handle) {
                            rights.push(handle);
                        }
                        None
                    }
                    Outcome::Refused(asked, refused) => Some(visitor.refused(handle, asked, refused).code()),
                    Outcome::Skipped(code) => Some(code),
                };
                // At most `REMOTE_BATCH_ITEMS_MAX` items.
                pieces.push(Piece::new(part.began.item as u32, code, part.bytes as u64));
            }
            let more = self.at.item < self.spans.len();
            let body = [pieces.as_bytes(), &chunk[..bytes]];
            if answer.frame(out, more, pieces.len(), &body, &rights).is_err() {
                return Ok(Went::Done);
            }
            passages.into_iter().for_each(Passage::kept);
            Ok(if more { Went::On } else { Went::Done })
        })
    }

    /// Reads items into `chunk`, one behind the other, until it is full, there are no more, or one is being rotated.
    fn read<'p>(
        &mut self,
        session: u64,
        provider: &'p Provider,
        chunk: &mut [u8],
    ) -> (Vec<Part<'p>>, Option<Rotating>) {
        let mut parts = Vec::with_capacity(self.spans.len() - self.at.item);
        let mut filled = 0;
        while let Some(span) = self.spans.get(self.at.item) {
            let began = self.at;
            let asked = rest(span, began.done, Rights::READ);
            if asked.bytes > 0 && filled == chunk.len() {
                break;
            }
            let (bytes, ended, outcome) = match self.skip.take() {
                Some(code) => (0, true, Outcome::Skipped(code)),
                None => match part(session, provider, span.handle(), asked, &mut chunk[filled..]) {
                    Ok(Reading::Read(passage, bytes)) => {
                        (bytes, passage.reach() == bytes as u64, Outcome::Read(passage))
                    }
                    Ok(Reading::Rotating(rotating)) => return (parts, Some(rotating)),
                    Err(refused) => (0, true, Outcome::Refused(asked, refused)),
                },
            };
            filled += bytes;
            self.at = if ended {
                Place { item: began.item + 1, done: 0 }
            } else {
                Place { done: began.done + bytes as u64, ..began }
            };
            parts.push(Part { began, bytes, outcome });
        }
        (parts, None)
    }
}

enum Reading<'p> {
    Read(Passage<'p>, usize),
    Rotating(Rotating),
}

/// Reads as much of one item as fits.
fn part<'p>(
    session: u64,
    provider: &'p Provider,
    handle: SlotHandle,
    asked: Access,
    room: &mut [u8],
) -> Result<Reading<'p>, Refused> {
    let mut passage = provider.pass(session, handle, Rights::READ, asked.offset, asked.bytes)?;
    let bytes = chunk_of(passage.reach(), room.len());
    match passage.read(asked.offset, &mut room[..bytes])? {
        Progress::Done => Ok(Reading::Read(passage, bytes)),
        Progress::Rotating(rotating) => Ok(Reading::Rotating(rotating)),
        Progress::Full => Err(unexpected()),
    }
}

/// A scatter under way.
pub(super) struct Scatter {
    /// What came last, and how far it is done. Nothing while more is waited for.
    spans: Vec<Span>,
    data: Vec<u8>,
    next: usize,
    from: usize,
    /// How many of the next item's bytes are in the region for certain, from the first on: it was begun, and is to be
    /// written again as a whole.
    reached: usize,
    /// What became of the items so far, of all frames.
    pieces: Vec<Piece>,
    skip: Option<Code>,
}

impl Scatter {
    pub(super) fn new(spans: &[Span], data: &[u8]) -> Self {
        let (spans, data) = (spans.to_vec(), data.to_vec());
        Self { spans, data, next: 0, from: 0, reached: 0, pieces: Vec::new(), skip: None }
    }

    /// More items.
    ///
    /// # Errors
    /// `E_RANGE` if they are too many with those before.
    pub(super) fn feed(&mut self, spans: &[Span], data: &[u8]) -> Result<()> {
        if self.pieces.len() + spans.len() > REMOTE_BATCH_ITEMS_MAX {
            return Err(Error::new(Code::Range, "a batch has 1 to 512 items"));
        }
        (self.spans, self.data) = (spans.to_vec(), data.to_vec());
        (self.next, self.from) = (0, 0);
        Ok(())
    }

    /// Gives the next item up.
    pub(super) fn skip(&mut self, why: Code) {
        self.skip = Some(why);
    }

    /// All items that have come, each under its own slot; then the answer, if no more are to come.
    pub(super) fn step(
        &mut self,
        more: bool,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<Went> {
        while let Some(span) = self.spans.get(self.next).copied() {
            // A frame's lengths are those of its bytes.
            let length = chunk_of(span.length(), self.data.len() - self.from);
            let bytes = &self.data[self.from..self.from + length];
            let code = match self.skip.take() {
                Some(code) => Some(code),
                None => {
                    let (session, provider) = (visitor.opener.session, &visitor.shared.provider);
                    match put(session, provider, &span, bytes, &mut self.reached) {
                        Ok(Putting::Put) => None,
                        Ok(Putting::Again) => continue,
                        Ok(Putting::Rotating(rotating)) => return Ok(Went::Rotating(rotating)),
                        Err(refused) => {
                            let asked = rest(&span, 0, Rights::WRITE);
                            Some(visitor.refused(span.handle(), asked, refused).code())
                        }
                    }
                }
            };
            // Also of one that failed: a part of it may have been written before.
            let written = std::mem::take(&mut self.reached) as u64;
            self.pieces.push(Piece::new(self.pieces.len() as u32, code, written));
            self.from += length;
            self.next += 1;
        }
        // All of it was dealt with, and the client may take its time.
        (self.spans, self.data) = (Vec::new(), Vec::new());
        (self.next, self.from) = (0, 0);
        if more {
            return Ok(Went::Wants);
        }
        if !out.has_room() {
            return Ok(Went::Full);
        }
        // Nobody to tell is no failure of the writes.
        let _ = answer.frame(out, false, self.pieces.len(), &[self.pieces.as_bytes()], &[]);
        Ok(Went::Done)
    }
}

enum Putting {
    Put,
    /// The right was narrowed: to be judged again.
    Again,
    Rotating(Rotating),
}

/// Writes one item, as much of it as lies in its region. `reached` comes to be how many of its bytes are there, now or
/// since it was tried before.
fn put(
    session: u64,
    provider: &Provider,
    span: &Span,
    bytes: &[u8],
    reached: &mut usize,
) -> Result<Putting, Refused> {
    let (offset, length) = (span.offset(), bytes.len() as u64);
    let mut passage = provider.pass(session, span.handle(), Rights::WRITE, offset, length)?;
    let bytes = &bytes[..chunk_of(passage.reach(), bytes.len())];
    let progress = passage.write(offset, bytes);
    *reached = passage.written().max(*reached);
    match progress? {
        Progress::Done => {
            passage.kept();
            Ok(Putting::Put)
        }
        Progress::Full => Ok(Putting::Again),
        Progress::Rotating(rotating) => Ok(Putting::Rotating(rotating)),
    }
}
