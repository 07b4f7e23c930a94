//! WRITE: the bytes of one span, each chunk when it has come.

use caps::error::{Code, Error, Result};
use caps::rights::Rights;
use caps::wire::remote::Span;

use super::job::{Answering, Sink, Went};
use super::read::{chunk_of, rest};
use crate::gate::visitor::Visitor;
use crate::runtime::{Progress, Provider, Refused};

/// A write under way.
pub(super) struct Write {
    span: Span,
    /// Bytes that have come and were dealt with.
    done: u64,
    /// Of these, the ones that are in the region: fewer once its end was met.
    written: u64,
    met_end: bool,
    /// What came last. Nothing while more is waited for.
    chunk: Vec<u8>,
    /// Whether that was dealt with.
    dealt: bool,
    /// How many of its bytes are in the region for certain, from the first on, if it was begun and was not.
    reached: u64,
}

impl Write {
    pub(super) fn new(span: Span, data: &[u8]) -> Self {
        Self { span, done: 0, written: 0, met_end: false, chunk: data.to_vec(), dealt: false, reached: 0 }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` if they are not as many as were announced.
    pub(super) fn feed(&mut self, data: &[u8], more: bool) -> Result<()> {
        let left = (self.span.length() - self.done).checked_sub(data.len() as u64);
        if !self.dealt || left.is_none() || more != (left > Some(0)) {
            return Err(Error::new(Code::FrameType, "a write has as many bytes as it announces"));
        }
        self.chunk = data.to_vec();
        self.dealt = false;
        Ok(())
    }

    /// Deals with what has come. What is left is judged as a whole: what cannot be written to its end, or the region's,
    /// is not begun.
    pub(super) fn step(
        &mut self,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<Went> {
        if !self.dealt {
            let asked = rest(&self.span, self.done, Rights::WRITE);
            let put = self.put(asked.offset, asked.bytes, visitor.opener.session, &visitor.shared.provider);
            return put.map_err(|refused| visitor.refused(self.span.handle(), asked, refused));
        }
        if self.done < self.span.length() {
            self.chunk = Vec::new(); // the client may take its time
            return Ok(Went::Wants);
        }
        if !out.has_room() {
            return Ok(Went::Full);
        }
        // Nobody to tell is no failure of the write.
        let _ = answer.frame(out, false, 0, &[&self.written.to_le_bytes()], &[]);
        Ok(Went::Done)
    }

    /// What a client is told of a write that failed: with how many of its bytes are in the region for certain, from the
    /// first on.
    pub(super) fn failed(&self, error: Error) -> Error {
        match self.written + self.reached {
            0 => error,
            bytes => {
                Error::with(error.code(), format!("{}; its first {bytes} bytes are written", error.detail()))
            }
        }
    }

    fn put(&mut self, offset: u64, left: u64, session: u64, provider: &Provider) -> Result<Went, Refused> {
        if !self.met_end {
            let mut passage = provider.pass(session, self.span.handle(), Rights::WRITE, offset, left)?;
            let reach = passage.reach();
            let bytes = &self.chunk[..chunk_of(reach, self.chunk.len())];
            let progress = passage.write(offset, bytes);
            self.reached = self.reached.max(passage.written() as u64);
            match progress? {
                Progress::Done => passage.kept(),
                Progress::Rotating(rotating) => return Ok(Went::Rotating(rotating)),
                // Narrowed: it is judged again.
                Progress::Full => return Ok(Went::On),
            }
            self.written += bytes.len() as u64;
            self.met_end = bytes.len() as u64 == reach && reach < left;
        }
        self.done += self.chunk.len() as u64;
        self.reached = 0;
        self.dealt = true;
        Ok(Went::On)
    }
}
