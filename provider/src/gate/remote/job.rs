//! One data request as a state machine without sockets.
//!
//! ```text
//!   begin ──▶ run ──▶ Done
//!              │ ▲
//!              ▼ │ at the next turn, when there is room, when a rotation is over, when a frame was fed
//!     Turn, Full, Rotating, Wants
//! ```
//! It holds one frame's bytes at most and nothing that grows with what was asked for: a gibibyte is read through one
//! buffer of the thread and written through one of the request. Every chunk passes its slot by itself, and the slot is
//! held until the frame with its bytes was given to the sink. So a revoke stops a request within a chunk, and what a
//! take-back has to wait for is in the connection's books ([`crate::runtime::Outgoing`]) before the slot is let go.
//!
//! A failure is told at once and is the last word, but the rest of the request's frames is still read, and forgotten. A
//! batch fails item by item. The caller sees to the stream: that a further frame belongs to the request before it, and
//! that answers come in the order of the requests.

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::time::{BootNanos, Micros};
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Flags, Header, Verb};
use policy::limits::{REMOTE_REQUEST_MS_DEFAULT, REMOTE_REQUEST_MS_MAX, ROTATION_WAIT_MS_MAX};

use super::batch::{Gather, Scatter};
use super::leases::Filling;
use super::read::Read;
use super::share::Share;
use super::stat::Stat;
use super::words::Word;
use super::write::Write;
use crate::gate::visitor::Visitor;
use crate::runtime::Rotating;

/// One data request under way.
pub(super) struct Job {
    answer: Answering,
    work: Work,
    /// Whether frames of it are still to come.
    more: bool,
    deadline: BootNanos,
    /// Since when it waits for one rotation.
    waiting: Option<BootNanos>,
}

/// What running a data request came to.
pub enum Step {
    /// It is answered, or the connection is gone. What the client did wrong is in `visitor.conduct`. Frames of it that are
    /// still to come are nothing to it any more.
    Done,
    /// It has moved as much as one request may at a time: to be run again when the others had their turn.
    Turn,
    /// There is no room for the answer: to be run again when there is.
    Full,
    /// A segment is being rotated: to be run again after [`Rotating::over`], or after
    /// [`ROTATION_WAIT_MS_MAX`] to be refused.
    Rotating(Rotating),
    /// The request's next frame: to be fed, then run. One that was fed has to be run before the next is.
    Wants,
}

/// Where answers go. Never waits.
pub trait Sink {
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

/// What a verb is about, and how far it is.
enum Work {
    Read(Read),
    Write(Write),
    Gather(Gather),
    Scatter(Scatter),
    Stat(Stat),
    Word(Word),
    Filling(Box<Filling>),
    /// It failed, which is to be told.
    Failed(Error),
    /// It is answered.
    Over,
}

impl Work {
    /// It failed, as a whole.
    fn failed(&self, error: Error) -> Self {
        Self::Failed(match self {
            Self::Write(write) => write.failed(error),
            _ => error,
        })
    }
}

/// How far one step of a verb came. An error is the end of the request.
pub(super) enum Went {
    /// A chunk further.
    On,
    /// To the end of the answer, or the connection is gone.
    Done,
    /// Nowhere: there is no room for a frame.
    Full,
    /// Nowhere: a segment is being rotated.
    Rotating(Rotating),
    /// To the end of what has come.
    Wants,
}

impl Job {
    /// Begins a data verb, whose first frame came at `now`. Copies what it has to keep.
    pub(super) fn begin(header: &Header, ask: Ask<'_>, now: BootNanos) -> Self {
        let answer = Answering {
            verb: header.verb,
            request: header.request,
            checked: header.flags.contains(Flags::CRC),
        };
        let work = match ask {
            Ask::Read(span) => Work::Read(Read::new(*span)),
            Ask::Write { span, data } => Work::Write(Write::new(*span, data)),
            Ask::Gather(spans) => Work::Gather(Gather::new(spans)),
            Ask::Scatter { spans, data } => Work::Scatter(Scatter::new(spans, data)),
            Ask::Stat(span) => Work::Stat(Stat::new(*span)),
            Ask::Cas(swap) => Work::Word(swap.into()),
            Ask::FetchAdd(add) => Work::Word(add.into()),
            Ask::Control(_) | Ask::Create(_) | Ask::Delete(_) => {
                Work::Failed(Error::new(Code::Protocol, "this request is not about bytes"))
            }
        };
        let span = match u64::from(header.deadline_or_code) {
            0 => REMOTE_REQUEST_MS_DEFAULT,
            asked => asked.min(REMOTE_REQUEST_MS_MAX),
        };
        let deadline = now.plus(Micros::from_millis(span));
        Self { answer, work, more: header.has_more(), deadline, waiting: None }
    }

    /// Goes on with a CREATE whose leases are made, and whose first frame came at `now`.
    pub(super) fn filling(header: &Header, filling: Box<Filling>, now: BootNanos) -> Self {
        Self { work: Work::Filling(filling), ..Self::begin(header, Ask::Create(&[]), now) }
    }

    /// A further frame of the same request. To be run after it.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` if no frame was to come, or it is not what was announced: the stream is out of step.
    pub(super) fn feed(&mut self, header: &Header, further: Further<'_>) -> Result<()> {
        if !self.more || header.verb != self.answer.verb || header.request != self.answer.request {
            return Err(Error::new(Code::FrameType, "this frame does not follow the one before it"));
        }
        self.more = header.has_more();
        match (&mut self.work, further) {
            (Work::Write(write), Further::Write(data)) => write.feed(data, self.more),
            (Work::Scatter(scatter), Further::Scatter { spans, data }) => {
                if let Err(error) = scatter.feed(spans, data) {
                    self.work = Work::Failed(error);
                }
                Ok(())
            }
            (Work::Filling(filling), Further::Create { pieces, data }) => {
                if let Err(error) = filling.feed(pieces, data) {
                    self.work = Work::Failed(error);
                }
                Ok(())
            }
            // It failed: nobody reads the rest.
            _ => Ok(()),
        }
    }

    /// Does as much as it can and its connection's turn lets it. Frames go to `out` while the slot is held.
    pub(super) fn run(&mut self, visitor: &mut Visitor, out: &mut dyn Sink, share: &mut Share) -> Step {
        let step = self.run_on(visitor, out, share);
        if !matches!(step, Step::Rotating(_)) {
            // It went on, or waits for something else: the next rotation is another one.
            self.waiting = None;
        }
        step
    }

    fn run_on(&mut self, visitor: &mut Visitor, out: &mut dyn Sink, share: &mut Share) -> Step {
        loop {
            match &self.work {
                Work::Over => return Step::Done,
                Work::Failed(_) if !out.has_room() => return Step::Full,
                Work::Failed(error) => {
                    if self.answer.fail(out, error).is_err() {
                        return Step::Done;
                    }
                    self.work = Work::Over;
                    continue;
                }
                _ => {}
            }
            let now = visitor.shared.provider.clock().boot();
            match self.step(now, visitor, out) {
                Ok(Went::On) => {
                    self.waiting = None;
                    if !share.chunk() {
                        return Step::Turn;
                    }
                }
                Ok(Went::Full) => return Step::Full,
                Ok(Went::Wants) => return Step::Wants,
                Ok(Went::Done) => {
                    // Whatever is still to come: the answer was its end, or nobody is there.
                    self.work = Work::Over;
                    return Step::Done;
                }
                Ok(Went::Rotating(rotating)) => {
                    let since = *self.waiting.get_or_insert(now);
                    if now.since(since) < Micros::from_millis(ROTATION_WAIT_MS_MAX) {
                        return Step::Rotating(rotating);
                    }
                    self.waiting = None;
                    let busy = Error::new(Code::Busy, "a segment of the region is being rotated; try again");
                    match &mut self.work {
                        Work::Gather(gather) => gather.skip(busy.code()),
                        Work::Scatter(scatter) => scatter.skip(busy.code()),
                        Work::Filling(filling) => filling.skip(busy),
                        _ => self.work = self.work.failed(busy),
                    }
                }
                Err(error) => self.work = self.work.failed(error),
            }
        }
    }

    /// When the client no longer wants the answer. Run at or after that, it fails with `E_TIMEOUT`.
    pub(super) fn deadline(&self) -> BootNanos {
        self.deadline
    }

    /// When it has to be run at the latest, though what it waits for has not happened: it is late then, or has waited long
    /// enough for a rotation, and says so.
    pub(super) fn look_at(&self) -> BootNanos {
        let most = Micros::from_millis(ROTATION_WAIT_MS_MAX);
        self.waiting.map_or(self.deadline, |since| since.plus(most).min(self.deadline))
    }

    fn step(&mut self, now: BootNanos, visitor: &mut Visitor, out: &mut dyn Sink) -> Result<Went> {
        if now >= self.deadline {
            return Err(Error::new(Code::Timeout, "the request's time is over"));
        }
        match &mut self.work {
            Work::Read(read) => read.step(&self.answer, visitor, out),
            Work::Write(write) => write.step(&self.answer, visitor, out),
            Work::Gather(gather) => gather.step(&self.answer, visitor, out),
            Work::Scatter(scatter) => scatter.step(self.more, &self.answer, visitor, out),
            Work::Stat(stat) => stat.step(&self.answer, visitor, out),
            Work::Word(word) => word.step(&self.answer, visitor, out),
            Work::Filling(filling) => filling.step(self.more, &self.answer, visitor, out),
            Work::Failed(_) | Work::Over => Ok(Went::On),
        }
    }
}

/// How a request is answered.
pub(super) struct Answering {
    verb: Verb,
    request: RequestId,
    /// Whether the request had a checksum: then the answer's frames have one.
    checked: bool,
}

impl Answering {
    /// Gives one frame of the answer to the sink.
    ///
    /// # Errors
    /// If the connection is gone.
    pub(super) fn frame(
        &self,
        out: &mut dyn Sink,
        more: bool,
        items: usize,
        parts: &[&[u8]],
        rights: &[SlotHandle],
    ) -> Result<()> {
        let flags = if more { Flags::ANSWER.and(Flags::MORE) } else { Flags::ANSWER };
        // At most `REMOTE_BATCH_ITEMS_MAX`.
        let header = Header { items: items as u32, ..self.header(flags, parts)? };
        out.frame(header, parts, rights)
    }

    /// The last word of a request that failed.
    fn fail(&self, out: &mut dyn Sink, error: &Error) -> Result<()> {
        let parts = [error.detail().as_bytes()];
        let code = u32::from(error.code() as u16);
        let header = Header { deadline_or_code: code, ..self.header(Flags::ANSWER, &parts)? };
        out.frame(header, &parts, &[])
    }

    fn header(&self, flags: Flags, parts: &[&[u8]]) -> Result<Header> {
        let body = parts.iter().map(|part| part.len()).sum();
        let header = Header::of(self.verb, flags, self.request, body)?;
        if !self.checked {
            return Ok(header);
        }
        let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        Ok(Header { flags: flags.and(Flags::CRC), crc, ..header })
    }
}
