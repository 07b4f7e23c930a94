//! Leases made and given back many at a time.

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, SlotHandle};
use caps::limits::{CHUNK_BYTES_MAX, REMOTE_BATCH_ITEMS_MAX};
use caps::wire::cbor;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::leases::{Create, Created, Creations, Delete, Deletions};
use caps::wire::remote::{Piece, Verb};
use zerocopy::IntoBytes;

use super::session::Session;
use super::talk::{Frame, Taken, Talk};
use crate::lease::LeaseOptions;
use crate::session::protocol::readable;

/// Bytes of one value in one frame.
struct Part {
    value: usize,
    start: usize,
    length: usize,
}

struct Creating<'a> {
    create: Create,
    values: &'a [(LeaseOptions, &'a [u8])],
    /// The first bytes, frame by frame.
    frames: Vec<Vec<Part>>,
    created: Creations,
}

/// First bytes in frames: as many values in each as its bytes allow.
fn framed(values: &[(LeaseOptions, &[u8])]) -> Vec<Vec<Part>> {
    let mut frames: Vec<Vec<Part>> = Vec::new();
    let mut room = 0;
    for (value, (_, bytes)) in values.iter().enumerate() {
        let mut start = 0;
        while start < bytes.len() {
            if room == 0 || frames.last().is_none_or(|frame| frame.len() == REMOTE_BATCH_ITEMS_MAX) {
                frames.push(Vec::new());
                room = CHUNK_BYTES_MAX;
            }
            let length = room.min(bytes.len() - start);
            frames.last_mut().expect("one was made").push(Part { value, start, length });
            start += length;
            room -= length;
        }
    }
    frames
}

impl Talk for Creating<'_> {
    fn verb(&self) -> Verb {
        Verb::Create
    }

    fn changes(&self) -> bool {
        true
    }

    fn frame<'a>(
        &'a self,
        _: usize,
        frame: usize,
        _: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        let more = frame < self.frames.len();
        let Some(frame) = frame.checked_sub(1) else {
            cbor::append(&self.create, head)?;
            return Ok(Frame { items: 0, more, data: &[] });
        };
        let parts = &self.frames[frame];
        for part in parts {
            head.extend_from_slice(Piece::new(part.value as u32, None, part.length as u64).as_bytes()); // at most 64
        }
        for part in parts {
            head.extend_from_slice(&self.values[part.value].1[part.start..][..part.length]);
        }
        Ok(Frame { items: parts.len() as u32, more, data: &[] }) // at most 512
    }

    fn take(&mut self, _: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        let Taken::Came(Answer::Leases(body)) = answer else { return Err(Code::Internal.into()) };
        self.created = cbor::decode(body)?;
        let fits = self.created.len() == self.values.len()
            && self.created.iter().zip(self.values).all(|(created, (_, bytes))| {
                created.as_ref().map_or(true, |created| created.written <= bytes.len() as u64)
            });
        if fits { Ok(()) } else { Err(Error::new(Code::Protocol, "the node made other leases than asked")) }
    }
}

struct Deleting {
    delete: Delete,
    deleted: Deletions,
}

impl Talk for Deleting {
    fn verb(&self) -> Verb {
        Verb::Delete
    }

    fn changes(&self) -> bool {
        true
    }

    fn frame<'a>(
        &'a self,
        _: usize,
        _: usize,
        _: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        cbor::append(&self.delete, head)?;
        Ok(Frame { items: 0, more: false, data: &[] })
    }

    fn take(&mut self, _: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        let Taken::Came(Answer::Leases(body)) = answer else { return Err(Code::Internal.into()) };
        self.deleted = cbor::decode(body)?;
        if self.deleted.len() == self.delete.leases.len() {
            Ok(())
        } else {
            Err(Error::new(Code::Protocol, "the node gave other leases back than asked"))
        }
    }
}

impl Session {
    /// Makes leases with their first bytes. As many as may be in one request.
    pub(crate) fn create(&self, values: &[(LeaseOptions, &[u8])]) -> Result<Vec<Result<Created>>> {
        let leases = values.iter().map(|(options, _)| options.clone().spec()).collect::<Result<_>>()?;
        let (create, frames) = (Create { leases }, framed(values));
        let mut creating = Creating { create, values, frames, created: Vec::new() };
        self.talk(&mut creating, None)?;
        Ok(creating.created.into_iter().map(|created| created.map_err(readable)).collect())
    }

    /// Gives leases back. As many as may be in one request.
    pub(crate) fn delete(&self, leases: &[LeaseId]) -> Result<Vec<Result<()>>> {
        let delete = Delete { leases: leases.to_vec() };
        let mut deleting = Deleting { delete, deleted: Vec::new() };
        self.talk(&mut deleting, None)?;
        Ok(deleting.deleted.into_iter().map(|deleted| deleted.map_err(readable)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn first_bytes_come_in_order_and_in_frames_of_64_kib() {
        let bytes = vec![7; 200_000];
        let options = || LeaseOptions::new(1 << 20, Duration::from_secs(1));
        let values: Vec<(LeaseOptions, &[u8])> =
            [0, 5, 65_536, 0, 200_000, 1].map(|length| (options(), &bytes[..length])).into();
        let frames = framed(&values);
        let mut next = vec![0; values.len()];
        let mut last = 0;
        for frame in &frames {
            assert!(!frame.is_empty());
            assert!(frame.iter().map(|part| part.length).sum::<usize>() <= CHUNK_BYTES_MAX);
            for part in frame {
                assert!(part.value >= last && part.start == next[part.value] && part.length > 0);
                (last, next[part.value]) = (part.value, part.start + part.length);
            }
        }
        assert_eq!(next, values.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>());
    }
}
