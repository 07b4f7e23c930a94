//! Bytes of one place: a request for each gibibyte, its bytes read straight to where they belong.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::VALUE_BYTES_MAX;
use caps::rights::Rights;
use caps::wire::remote::{Span, Verb};
use zerocopy::IntoBytes;

use super::right::Right;
use super::talk::{Frame, Taken, Talk};

/// Most bytes of one request, as an index.
const REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX as usize;

/// One read.
struct Reading<'a> {
    offset: u64,
    buffer: &'a mut [u8],
    /// Whether fewer bytes may come than there is room for.
    may_end: bool,
    /// How many came of the request that is due.
    here: usize,
    /// How many came of all before it.
    before: usize,
}

impl Reading<'_> {
    /// Where request `at` begins in the buffer, and how long it is.
    fn part(&self, at: usize) -> (usize, usize) {
        let start = at * REQUEST_BYTES_MAX;
        (start, (self.buffer.len() - start).min(REQUEST_BYTES_MAX))
    }
}

impl Talk for Reading<'_> {
    fn verb(&self) -> Verb {
        Verb::Read
    }

    fn requests(&self) -> usize {
        self.buffer.len().div_ceil(REQUEST_BYTES_MAX)
    }

    fn changes(&self) -> bool {
        false
    }

    fn asks(&self, at: usize) -> u64 {
        self.part(at).1 as u64
    }

    fn frame<'a>(
        &'a self,
        at: usize,
        _: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        let (start, length) = self.part(at);
        let span = Span::new(handle, self.offset + start as u64, length as u64);
        head.extend_from_slice(span.as_bytes());
        Ok(Frame { items: 0, more: false, data: &[] })
    }

    fn restart(&mut self, _: usize) {
        self.here = 0;
    }

    fn place(&mut self, at: usize, length: usize) -> Result<Option<&mut [u8]>, Error> {
        let (start, asked) = self.part(at);
        if length > asked - self.here {
            return Err(Error::new(Code::Protocol, "the node sent more bytes than asked"));
        }
        Ok(Some(&mut self.buffer[start + self.here..][..length]))
    }

    fn take(&mut self, at: usize, answer: &Taken<'_>, more: bool) -> Result<(), Error> {
        let &Taken::Placed(length) = answer else { return Err(Code::Internal.into()) };
        if more && length == 0 {
            return Err(Error::new(Code::Protocol, "the node sent a frame that brings nothing"));
        }
        self.here += length;
        if more {
            return Ok(());
        }
        let (start, asked) = self.part(at);
        if !self.may_end && self.here < asked {
            return Err(Error::new(Code::Protocol, "the node sent fewer bytes than the right reaches"));
        }
        if self.before < start && self.here > 0 {
            return Err(Error::new(Code::Protocol, "the node sent bytes from behind the region's end"));
        }
        self.before += std::mem::take(&mut self.here);
        Ok(())
    }
}

impl Right {
    /// Fills `buffer` from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check(Rights::READ, offset, buffer.len())?;
        self.read(offset, buffer, false).map(drop)
    }

    /// As [`Self::read_at`], as far as the region goes. Returns how many bytes came.
    pub(crate) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.allows(Rights::READ)?;
        self.read(offset, buffer, true)
    }

    fn read(&self, offset: u64, buffer: &mut [u8], may_end: bool) -> Result<usize> {
        if offset.checked_add(buffer.len() as u64).is_none() {
            return Err(Error::new(Code::Range, "offset and length wrap past 2^64"));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut reading = Reading { offset, buffer, may_end, here: 0, before: 0 };
        self.session.talk(&mut reading, Some(self))?;
        Ok(reading.before)
    }
}
