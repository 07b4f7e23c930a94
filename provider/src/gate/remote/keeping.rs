//! An answer on its way, kept before it leaves; and one that was kept, sent again.

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::limits::FRAME_BYTES_MAX;
use caps::wire::remote::{Header, Next, next};
use zeroize::Zeroizing;

use super::effects::UnderWay;
use super::fingerprint::Fingerprint;
use super::job::Sink;

/// A changing data request that is being worked on, with what it is told apart by and what it was answered so far.
pub(super) struct Keeping {
    under_way: Option<UnderWay>,
    print: Fingerprint,
    frames: Zeroizing<Vec<u8>>,
}

impl Keeping {
    /// For a request whose first frame has this fingerprint. `print` is to be fed with the others as they come.
    pub(super) fn new(under_way: UnderWay, print: Fingerprint) -> Self {
        Self { under_way: Some(under_way), print, frames: Zeroizing::default() }
    }

    /// The fingerprint, for further frames.
    pub(super) const fn print(&mut self) -> &mut Fingerprint {
        &mut self.print
    }

    /// A sink for the request's answer, which keeps it and gives it to `out`.
    pub(super) fn through<'a>(&'a mut self, out: &'a mut dyn Sink) -> Through<'a> {
        Through { keeping: self, out }
    }

    fn frame(&mut self, header: &Header, parts: &[&[u8]]) {
        if header.deadline_or_code != 0 {
            // Nothing came of it that must not come of it twice.
            self.under_way = None;
            return;
        }
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.frames.capacity() == 0 {
            // Once: what grows leaves its bytes behind where it was.
            let whole = if header.has_more() {
                FRAME_BYTES_MAX
            } else {
                caps::wire::remote::header::HEADER_BYTES + length
            };
            self.frames.reserve_exact(whole);
        }
        self.frames.extend_from_slice(&header.encode());
        parts.iter().for_each(|part| self.frames.extend_from_slice(part));
        if !header.has_more()
            && let Some(under_way) = self.under_way.take()
        {
            under_way.answered(self.print.identity(), &self.frames);
        }
    }
}

/// See [`Keeping::through`].
pub(super) struct Through<'a> {
    keeping: &'a mut Keeping,
    out: &'a mut dyn Sink,
}

impl Sink for Through<'_> {
    fn has_room(&self) -> bool {
        self.out.has_room()
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
        // Before it leaves: whoever asks again may do so because sending failed.
        self.keeping.frame(&header, parts);
        self.out.frame(header, parts, rights)
    }
}

/// One frame of an answer that is known already, as what a sink takes.
///
/// # Errors
/// `E_FRAME_SIZE` for a body that does not fit a frame.
pub(super) fn whole(frame: Header, body: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&frame.encode()[..], body].concat())
}

/// Gives kept frames to `out`, which has room for them, under the number `request`. Their bytes are of `rights`.
///
/// # Errors
/// If the connection is gone; `E_INTERNAL` for bytes that are no frames.
pub(super) fn repeat(
    frames: &[u8],
    request: RequestId,
    out: &mut dyn Sink,
    rights: &[SlotHandle],
) -> Result<()> {
    let mut left = frames;
    while !left.is_empty() {
        let Next::Frame { header, body, rest } = next(left)? else {
            return Err(Error::new(Code::Internal, "an answer was kept that is not whole"));
        };
        debug_assert_eq!(header.request, request, "an answer is kept under its own number");
        out.frame(header, &[body], rights)?;
        left = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use caps::wire::remote::{Add, Ask, Flags, Verb};

    use super::*;
    use crate::gate::remote::effects::{Begun, Connected};

    /// Takes what comes, or nothing once the connection is gone.
    #[derive(Default)]
    struct Taken {
        frames: Vec<(Header, Vec<u8>)>,
        gone: bool,
    }

    impl Sink for Taken {
        fn has_room(&self) -> bool {
            true
        }

        fn frame(&mut self, header: Header, parts: &[&[u8]], _: &[SlotHandle]) -> Result<()> {
            if self.gone {
                return Err(Error::new(Code::Unreachable, "gone"));
            }
            self.frames.push((header, parts.concat()));
            Ok(())
        }
    }

    const ID: RequestId = RequestId(7);

    fn header(flags: Flags, body: &[u8]) -> Header {
        Header::of(Verb::FetchAdd, Flags::ANSWER.and(flags), ID, body.len()).unwrap().checked(body)
    }

    fn print() -> Fingerprint {
        let add = Add::new(SlotHandle { slot: 1, epoch: 1 }, 8, 1);
        Fingerprint::of(&Ask::FetchAdd(&add), |_| Some(caps::id::LeaseId([1; 16]))).unwrap()
    }

    fn begin(connected: &Connected) -> Keeping {
        let Ok(Begun::New(under_way)) = connected.begin(ID) else { panic!("it is new") };
        Keeping::new(under_way, print())
    }

    #[test]
    fn what_could_not_be_sent_is_answered_again_as_it_was() {
        for frames in [1, 3] {
            let connected = Connected::alone();
            let mut keeping = begin(&connected);
            let mut gone = Taken { gone: true, ..Taken::default() };
            for frame in 0..frames {
                let flags = if frame + 1 < frames { Flags::MORE } else { Flags::NONE };
                let body = [frame as u8; 8];
                let (one, other) = body.split_at(3);
                let sent = keeping.through(&mut gone).frame(header(flags, &body), &[one, other], &[]);
                assert!(sent.is_err());
            }
            assert!(matches!(connected.begin(ID), Ok(Begun::Answered)));
            let kept = connected.again(ID, Some(print().identity())).unwrap();
            let mut taken = Taken::default();
            repeat(&kept, ID, &mut taken, &[]).unwrap();
            assert_eq!(taken.frames.len(), frames);
            for (frame, (header, body)) in taken.frames.iter().enumerate() {
                assert_eq!((header.request, body), (ID, &vec![frame as u8; 8]));
                header.verify(body).unwrap();
            }
        }
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let connected = Connected::alone();
        let mut keeping = begin(&connected);
        let mut taken = Taken::default();
        let failed = Header { deadline_or_code: Code::Revoked as u32, ..header(Flags::NONE, b"") };
        keeping.through(&mut taken).frame(failed, &[], &[]).unwrap();
        assert_eq!(taken.frames.len(), 1);
        assert!(matches!(connected.begin(ID), Ok(Begun::New(_))), "it is done again");
    }

    #[test]
    fn half_an_answer_is_none() {
        let connected = Connected::alone();
        let mut keeping = begin(&connected);
        keeping.through(&mut Taken::default()).frame(header(Flags::MORE, b"half"), &[b"half"], &[]).unwrap();
        assert_eq!(connected.begin(ID).err().map(|error| error.code()), Some(Code::Busy), "it is under way");
        drop(keeping);
        assert!(matches!(connected.begin(ID), Ok(Begun::New(_))), "what broke off is done again");
        let kept = whole(header(Flags::NONE, b"body"), b"body");
        assert!(repeat(&kept[..kept.len() - 1], ID, &mut Taken::default(), &[]).is_err());
    }
}
