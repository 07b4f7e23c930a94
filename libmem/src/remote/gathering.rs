//! Bytes of many places: a request for each 512 of them.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::{REMOTE_BATCH_ITEMS_MAX, VALUE_BYTES_MAX};
use caps::rights::Rights;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::{Piece, Span, Verb};
use zerocopy::IntoBytes;

use super::incoming::Places;
use super::right::Right;
use super::talk::{Frame, Taken, Talk};

/// The items of one gather, and what came of them.
struct Gathering<'a, 'b> {
    items: &'a mut [(u64, &'b mut [u8])],
    /// What became of the items whose pieces came, in their order; the last one may still have more pieces.
    outcomes: Vec<Result<usize>>,
    /// The request whose answer is coming.
    at: usize,
}

impl Gathering<'_, '_> {
    /// The items of request `at`.
    fn part(&self, at: usize) -> std::ops::Range<usize> {
        let start = at * REMOTE_BATCH_ITEMS_MAX;
        start..self.items.len().min(start + REMOTE_BATCH_ITEMS_MAX)
    }

    /// Which item a piece is of, and how many bytes of that are here.
    fn next(&self, piece: &Piece) -> Result<(usize, usize), Error> {
        let part = self.part(self.at);
        let item = part.start + piece.index() as usize;
        let goes_on = item + 1 == self.outcomes.len();
        match self.outcomes.get(item) {
            None if item == self.outcomes.len() && item < part.end => Ok((item, 0)),
            // An item goes on in the next piece, if it has not ended.
            Some(Ok(here)) if goes_on && (piece.length() > 0 || piece.code()?.is_some()) => Ok((item, *here)),
            _ => Err(Error::new(Code::Protocol, "the pieces of a gather are not in the order of its items")),
        }
    }
}

impl Talk for Gathering<'_, '_> {
    fn verb(&self) -> Verb {
        Verb::Gather
    }

    fn requests(&self) -> usize {
        self.items.len().div_ceil(REMOTE_BATCH_ITEMS_MAX)
    }

    fn changes(&self) -> bool {
        false
    }

    fn asks(&self, at: usize) -> u64 {
        self.items[self.part(at)].iter().map(|(_, buffer)| buffer.len() as u64).sum()
    }

    fn frame<'a>(
        &'a self,
        at: usize,
        _: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        let items = &self.items[self.part(at)];
        for (offset, buffer) in items {
            head.extend_from_slice(Span::new(handle, *offset, buffer.len() as u64).as_bytes());
        }
        Ok(Frame { items: items.len() as u32, more: false, data: &[] }) // at most 512
    }

    fn restart(&mut self, at: usize) {
        self.outcomes.truncate(self.part(at).start);
    }

    fn places(&mut self, at: usize) -> Option<&mut dyn Places> {
        self.at = at;
        Some(self)
    }

    fn take(&mut self, at: usize, answer: &Taken<'_>, more: bool) -> Result<(), Error> {
        self.at = at;
        match answer {
            Taken::Placed(_) => {}
            Taken::Came(Answer::Pieces { pieces, data }) => {
                let mut data = *data;
                for piece in *pieces {
                    let (bytes, rest) = data.split_at(piece.length() as usize); // the frame was judged: they are there
                    data = rest;
                    self.room(piece)?.copy_from_slice(bytes);
                    self.placed(piece)?;
                }
            }
            Taken::Came(_) => return Err(Code::Internal.into()),
        }
        if !more && self.outcomes.len() < self.part(at).end {
            return Err(Error::new(Code::Protocol, "the node left out items of a gather"));
        }
        Ok(())
    }
}

impl Places for Gathering<'_, '_> {
    fn room(&mut self, piece: &Piece) -> Result<&mut [u8], Error> {
        let (item, here) = self.next(piece)?;
        let bytes = piece.length() as usize; // at most a chunk
        let place = self.items[item].1.get_mut(here..).and_then(|place| place.get_mut(..bytes));
        place.ok_or(Error::new(Code::Protocol, "the node sent more bytes than asked"))
    }

    fn placed(&mut self, piece: &Piece) -> Result<(), Error> {
        let (item, here) = self.next(piece)?;
        let outcome = match piece.code()? {
            None => Ok(here + piece.length() as usize),
            Some(code) => Err(code.into()),
        };
        self.outcomes.truncate(item);
        self.outcomes.push(outcome);
        Ok(())
    }
}

impl Right {
    /// Fills many buffers. Returns of each how many bytes came.
    pub(crate) fn gather(&self, items: &mut [(u64, &mut [u8])]) -> Result<Vec<Result<usize>>> {
        self.allows(Rights::READ)?;
        if items.iter().any(|(_, buffer)| buffer.len() as u64 > VALUE_BYTES_MAX) {
            return Err(Error::new(Code::Range, "an item of a batch has at most 1 GiB"));
        }
        let outcomes = Vec::with_capacity(items.len());
        if items.is_empty() {
            return Ok(outcomes);
        }
        let mut gathering = Gathering { items, outcomes, at: 0 };
        self.session.talk(&mut gathering, Some(self))?;
        Ok(gathering.outcomes)
    }
}
