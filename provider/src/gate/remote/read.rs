//! READ: the bytes of one span, a chunk a frame.

use std::cell::RefCell;

use caps::error::{Code, Error};
use caps::limits::CHUNK_BYTES_MAX;
use caps::rights::Rights;
use caps::wire::remote::Span;

use super::job::{Answering, Sink, Went};
use crate::gate::fault::Access;
use crate::gate::visitor::Visitor;
use crate::runtime::{Progress, Provider, Refused};

thread_local! {
    /// Where bytes are between a region and their frame. One a thread, because a thread does one request at a time and
    /// nothing is left in it that anybody looks at.
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into_boxed_slice());
}

/// Lends the thread's buffer of [`CHUNK_BYTES_MAX`]. Not to be lent again meanwhile.
pub(super) fn with_chunk<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    CHUNK.with_borrow_mut(|chunk| use_it(chunk))
}

/// A read under way.
pub(super) struct Read {
    span: Span,
    /// Bytes that were given to the sink.
    done: u64,
}

impl Read {
    pub(super) fn new(span: Span) -> Self {
        Self { span, done: 0 }
    }

    /// The next chunk. What is left is judged as a whole: what cannot be read to its end is not begun.
    pub(super) fn step(
        &mut self,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> caps::error::Result<Went> {
        if !out.has_room() {
            return Ok(Went::Full);
        }
        let asked = rest(&self.span, self.done, Rights::READ);
        let went = self.chunk(asked, visitor.opener.session, &visitor.shared.provider, answer, out);
        went.map_err(|refused| visitor.refused(self.span.handle(), asked, refused))
    }

    fn chunk(
        &mut self,
        asked: Access,
        session: u64,
        provider: &Provider,
        answer: &Answering,
        out: &mut dyn Sink,
    ) -> Result<Went, Refused> {
        let handle = self.span.handle();
        let mut passage = provider.pass(session, handle, Rights::READ, asked.offset, asked.bytes)?;
        let reach = passage.reach();
        with_chunk(|chunk| {
            let bytes = chunk_of(reach, chunk.len());
            let bytes = &mut chunk[..bytes];
            match passage.read(asked.offset, bytes)? {
                Progress::Done => {}
                Progress::Rotating(rotating) => return Ok(Went::Rotating(rotating)),
                Progress::Full => return Err(unexpected()),
            }
            if !passage.stands() {
                // Ended or narrowed meanwhile: it is judged again, and told so.
                return Ok(Went::On);
            }
            let more = reach > bytes.len() as u64;
            let rights: &[_] = if bytes.is_empty() { &[] } else { &[handle] };
            if answer.frame(out, more, 0, &[bytes], rights).is_err() {
                return Ok(Went::Done);
            }
            passage.kept();
            self.done += bytes.len() as u64;
            Ok(if more { Went::On } else { Went::Done })
        })
    }
}

/// What is left of a span when `done` bytes of it were moved.
pub(super) fn rest(span: &Span, done: u64, rights: Rights) -> Access {
    // No more was moved than the span has, and not past 2^64: that is judged before anything is.
    Access { rights, offset: span.offset() + done, bytes: span.length() - done }
}

/// How many of `reach` bytes go into `room`.
pub(super) fn chunk_of(reach: u64, room: usize) -> usize {
    usize::try_from(reach).map_or(room, |reach| reach.min(room))
}

/// What a passage never says.
pub(super) fn unexpected() -> Refused {
    Error::new(Code::Internal, "a passage was answered with something else").into()
}
