//! Bytes into many places. A frame has whole spans with their bytes, of which it carries 64 KiB: so an item is written as
//! one span or several, and what became of these is put together again.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::{CHUNK_BYTES_MAX, REMOTE_BATCH_ITEMS_MAX, VALUE_BYTES_MAX};
use caps::rights::Rights;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::{Span, Verb};
use zerocopy::IntoBytes;

use super::right::Right;
use super::talk::{Frame, Taken, Talk};

/// A part of an item that travels in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    item: usize,
    /// Its first byte, counted from the item's.
    start: usize,
    length: usize,
}

/// The items of one scatter, and what became of them.
struct Scattering<'a> {
    items: &'a [(u64, &'a [u8])],
    slices: Vec<Slice>,
    /// Of each slice that is answered how many bytes were written for certain, and why not all.
    written: Vec<(usize, Option<Code>)>,
}

/// The slices of items, in order.
fn sliced(items: &[(u64, &[u8])]) -> Vec<Slice> {
    let mut slices = Vec::with_capacity(items.len());
    for (item, (_, bytes)) in items.iter().enumerate() {
        // An empty item is asked for, too: the node says whether its place is one.
        for part in 0..bytes.len().div_ceil(CHUNK_BYTES_MAX).max(1) {
            let start = part * CHUNK_BYTES_MAX;
            slices.push(Slice { item, start, length: (bytes.len() - start).min(CHUNK_BYTES_MAX) });
        }
    }
    slices
}

impl Scattering<'_> {
    /// The slices of request `at`.
    fn part(&self, at: usize) -> std::ops::Range<usize> {
        let start = at * REMOTE_BATCH_ITEMS_MAX;
        start..self.slices.len().min(start + REMOTE_BATCH_ITEMS_MAX)
    }

    /// The slices of frame `frame` of request `at`: as many as its bytes allow.
    fn frame_of(&self, at: usize, frame: usize) -> std::ops::Range<usize> {
        let part = self.part(at);
        let mut start = part.start;
        for _ in 0..frame {
            start = self.frame_end(start, part.end);
        }
        start..self.frame_end(start, part.end)
    }

    fn frame_end(&self, start: usize, end: usize) -> usize {
        let mut bytes = 0;
        let fits = self.slices[start..end].iter().take_while(|slice| {
            bytes += slice.length;
            bytes <= CHUNK_BYTES_MAX
        });
        start + fits.count()
    }

    /// What became of each item.
    fn outcomes(self) -> Vec<Result<usize>> {
        let mut outcomes: Vec<Result<usize>> = Vec::with_capacity(self.items.len());
        let (mut whole, mut before) = (true, 0);
        for (slice, (count, code)) in self.slices.iter().zip(self.written) {
            if slice.start == 0 {
                outcomes.push(Ok(0));
                (whole, before) = (true, 0);
            }
            if let Some(outcome) = outcomes.last_mut()
                && whole
            {
                // Behind the first that was not written whole nothing counts: there the region ended, or the right.
                whole = code.is_none() && count == slice.length;
                before += count;
                *outcome = match code {
                    None => Ok(before),
                    Some(code) if before == 0 => Err(code.into()),
                    Some(code) => Err(Error::with(
                        code,
                        format!("it ended on the way; its first {before} bytes are written"),
                    )),
                };
            }
        }
        outcomes
    }
}

impl Talk for Scattering<'_> {
    fn verb(&self) -> Verb {
        Verb::Scatter
    }

    fn requests(&self) -> usize {
        self.slices.len().div_ceil(REMOTE_BATCH_ITEMS_MAX)
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
        let range = self.frame_of(at, frame);
        let slices = &self.slices[range.clone()];
        for slice in slices {
            let offset = self.items[slice.item].0 + slice.start as u64; // `Right::scatter` saw that it does not wrap
            head.extend_from_slice(Span::new(handle, offset, slice.length as u64).as_bytes());
        }
        for slice in slices {
            head.extend_from_slice(&self.items[slice.item].1[slice.start..][..slice.length]);
        }
        Ok(Frame { items: slices.len() as u32, more: range.end < self.part(at).end, data: &[] })
    }

    fn restart(&mut self, at: usize) {
        self.written.truncate(self.part(at).start);
    }

    fn take(&mut self, at: usize, answer: &Taken<'_>, more: bool) -> Result<(), Error> {
        let Taken::Came(Answer::Pieces { pieces, .. }) = answer else { return Err(Code::Internal.into()) };
        let part = self.part(at);
        for piece in *pieces {
            let index = part.start + piece.index() as usize;
            if index != self.written.len() || index >= part.end {
                return Err(Error::new(
                    Code::Protocol,
                    "the pieces of a scatter are not in the order of its items",
                ));
            }
            let count = usize::try_from(piece.length()).unwrap_or(usize::MAX);
            if count > self.slices[index].length {
                return Err(Error::new(Code::Protocol, "the node wrote more bytes than it was sent"));
            }
            self.written.push((count, piece.code()?));
        }
        if !more && self.written.len() < part.end {
            return Err(Error::new(Code::Protocol, "the node left out items of a scatter"));
        }
        Ok(())
    }
}

impl Right {
    /// Writes many pieces. Returns of each how many bytes were written.
    pub(crate) fn scatter(&self, items: &[(u64, &[u8])]) -> Result<Vec<Result<usize>>> {
        self.allows(Rights::WRITE)?;
        for (offset, bytes) in items {
            if bytes.len() as u64 > VALUE_BYTES_MAX {
                return Err(Error::new(Code::Range, "an item of a batch has at most 1 GiB"));
            }
            if offset.checked_add(bytes.len() as u64).is_none() {
                return Err(Error::new(Code::Range, "offset and length wrap past 2^64"));
            }
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let slices = sliced(items);
        let written = Vec::with_capacity(slices.len());
        let mut scattering = Scattering { items, slices, written };
        self.session.talk(&mut scattering, Some(self))?;
        Ok(scattering.outcomes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = CHUNK_BYTES_MAX;

    #[test]
    fn every_byte_is_in_one_slice_and_every_slice_in_one_frame() {
        let bytes = vec![0; 3 * CHUNK + 5];
        let mut items: Vec<(u64, &[u8])> =
            vec![(0, &[]), (1, &bytes[..CHUNK]), (2, &bytes), (3, &bytes[..1]), (4, &bytes[..CHUNK - 1])];
        items.extend((0..1100).map(|at| (at, &bytes[..100])));
        let slices = sliced(&items);
        for (item, (_, bytes)) in items.iter().enumerate() {
            let lengths = slices.iter().filter(|slice| slice.item == item).map(|slice| slice.length);
            assert_eq!(lengths.sum::<usize>(), bytes.len());
        }
        let scattering = Scattering { items: &items, slices, written: vec![] };
        let mut next = 0;
        for at in 0..scattering.requests() {
            let mut frame = 0;
            loop {
                let range = scattering.frame_of(at, frame);
                assert_eq!(range.start, next);
                assert!(!range.is_empty() && range.len() <= REMOTE_BATCH_ITEMS_MAX);
                let bytes: usize = scattering.slices[range.clone()].iter().map(|slice| slice.length).sum();
                assert!(bytes <= CHUNK);
                (next, frame) = (range.end, frame + 1);
                if range.end == scattering.part(at).end {
                    break;
                }
            }
        }
        assert_eq!(next, scattering.slices.len());
    }

    #[test]
    fn the_slices_of_an_item_are_put_together_up_to_the_first_that_is_not_whole() {
        let bytes = vec![0; 3 * CHUNK];
        let items: [(u64, &[u8]); 3] = [(0, &bytes), (1, &bytes), (2, &bytes[..7])];
        let refused = || Err(Code::Range.into());
        let written = vec![
            (CHUNK, None),
            (CHUNK, None),
            (CHUNK, None), // whole
            (CHUNK, None),
            (5, None),
            (0, Some(Code::Range)), // the region's end, and what lies behind it
            (0, Some(Code::Range)),
        ];
        let scattering = Scattering { items: &items, slices: sliced(&items), written };
        assert_eq!(scattering.outcomes(), [Ok(3 * CHUNK), Ok(CHUNK + 5), refused()]);
    }

    #[test]
    fn an_item_that_ended_on_the_way_says_how_far_it_came() {
        let bytes = vec![0; 2 * CHUNK];
        let items: [(u64, &[u8]); 2] = [(0, &bytes), (1, &bytes[..7])];
        let written = vec![(CHUNK, None), (8, Some(Code::Revoked)), (3, Some(Code::Busy))];
        let outcomes = Scattering { items: &items, slices: sliced(&items), written }.outcomes();
        let said = |outcome: &Result<usize>, code, bytes: usize| {
            let error = outcome.as_ref().unwrap_err();
            assert_eq!(error.code(), code);
            assert!(error.detail().contains(&format!("first {bytes} bytes")), "{error}");
        };
        said(&outcomes[0], Code::Revoked, CHUNK + 8);
        said(&outcomes[1], Code::Busy, 3);
    }
}
