//! Bytes into one place: a request for each gibibyte, in frames of 64 KiB.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::{CHUNK_BYTES_MAX, VALUE_BYTES_MAX};
use caps::rights::Rights;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::{Span, Verb};
use zerocopy::IntoBytes;

use super::right::Right;
use super::talk::{Frame, Taken, Talk};

/// Most bytes of one request, as an index.
const REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX as usize;

/// One write.
struct Writing<'a> {
    offset: u64,
    bytes: &'a [u8],
}

impl<'a> Writing<'a> {
    /// The bytes of request `at`.
    fn part(&self, at: usize) -> &'a [u8] {
        let rest = &self.bytes[at * REQUEST_BYTES_MAX..];
        &rest[..rest.len().min(REQUEST_BYTES_MAX)]
    }
}

impl Talk for Writing<'_> {
    fn verb(&self) -> Verb {
        Verb::Write
    }

    fn requests(&self) -> usize {
        self.bytes.len().div_ceil(REQUEST_BYTES_MAX)
    }

    fn changes(&self) -> bool {
        true
    }

    fn frame<'a>(
        &'a self,
        at: usize,
        frame: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        let part = self.part(at);
        if frame == 0 {
            let offset = self.offset + (at * REQUEST_BYTES_MAX) as u64;
            head.extend_from_slice(Span::new(handle, offset, part.len() as u64).as_bytes());
        }
        let rest = &part[frame * CHUNK_BYTES_MAX..];
        let data = &rest[..rest.len().min(CHUNK_BYTES_MAX)];
        Ok(Frame { items: 0, more: data.len() < rest.len(), data })
    }

    fn take(&mut self, at: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        match answer {
            Taken::Came(Answer::Written(count)) if *count == self.part(at).len() as u64 => Ok(()),
            Taken::Came(Answer::Written(_)) => Err(Error::new(
                Code::Protocol,
                "the node wrote another number of bytes than the right reaches",
            )),
            _ => Err(Code::Internal.into()),
        }
    }
}

impl Right {
    /// Writes all of `bytes` to `offset` and on.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(Rights::WRITE, offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.session.talk(&mut Writing { offset, bytes }, Some(self)).map(drop)
    }
}
