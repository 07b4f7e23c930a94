//! Requests and their answers, in order, over one connection.
//!
//! A call is one or more requests of one verb. They are sent one behind the other without waiting for answers, as far as
//! the window goes, and their answers come in the same order:
//!
//! ```text
//!  requests   0    1    2    3    4    5    6
//!             └─ answered ─┘    ▲         ▲
//!                             due        sent, whose frame number `frame` goes out next
//! ```
//!
//! What was asked and not answered is asked again from its first frame on when another connection takes the place of a
//! lost one. So is, over the same connection, what the node has no time for although it may have done it before. Sending never keeps answers from being taken, so two sides with full buffers do not wait for each other.
//!
//! Whatever a node does against the rules ends the session: another number or verb than the next in line, an answer to
//! a question that was not put whole, more bytes than were asked for, a frame that brings nothing and promises more.

use std::collections::VecDeque;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::{RequestId, SlotHandle};
use caps::limits::REMOTE_WINDOW_MAX;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::body::code_of;
use caps::wire::remote::{Flags, Header, Verb};
use caps::wire::{Request, cbor};

use super::failure::Failure;
use super::incoming::{Incoming, Places};
use super::tls::{Tls, milliseconds};
use crate::local::Deadline;
use crate::session::protocol::readable;

/// Most bytes asked for that may be on their way here at once, but for those of one request, which may be as many as it
/// likes: the deadlines of those behind it run.
const ASKED_BYTES_MAX: u64 = 8 << 20;
/// Most requests nobody waits for the answers of: rights that were dropped. Half of the window, so that they never keep a
/// call from being sent.
const OWED_MAX: usize = REMOTE_WINDOW_MAX / 2;
/// The share of a call's time that its node is not told of: in it comes what the node has to say when the time is over.
const GRACE_PART: u32 = 16;
/// A number that no request has: with it a node speaks of the whole session.
const SESSION: RequestId = RequestId(0);

/// One frame of a request. Its body is `head`, which the maker wrote, and then `data`.
pub(super) struct Frame<'a> {
    /// How many items the body begins with, where the verb has items.
    pub(super) items: u32,
    /// Whether the same request has more of them.
    pub(super) more: bool,
    /// Bytes of a region.
    pub(super) data: &'a [u8],
}

/// What a call asks, and what it makes of the answers.
pub(super) trait Talk {
    /// What all its requests are about.
    fn verb(&self) -> Verb;

    /// How many there are.
    fn requests(&self) -> usize {
        1
    }

    /// Whether doing one of them twice is something else than doing it once.
    fn changes(&self) -> bool;

    /// How many bytes request `at` has sent back.
    fn asks(&self, at: usize) -> u64 {
        let _ = at;
        0
    }

    /// Frame `frame` of request `at`, about what `handle` opened. `head` is empty.
    ///
    /// # Errors
    /// If it cannot be said.
    fn frame<'a>(
        &'a self,
        at: usize,
        frame: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error>;

    /// Forgets what came of the answer to request `at`: all of it comes again.
    fn restart(&mut self, at: usize) {
        let _ = at;
    }

    /// Where the `length` bytes of the next frame of the answer belong. `None`: they are to be looked at first.
    ///
    /// # Errors
    /// If that many cannot come.
    fn place(&mut self, at: usize, length: usize) -> Result<Option<&mut [u8]>, Error> {
        let _ = (at, length);
        Ok(None)
    }

    /// Where the pieces of the answer to request `at` belong. `None`: they are to be looked at first.
    fn places(&mut self, at: usize) -> Option<&mut dyn Places> {
        let _ = at;
        None
    }

    /// Takes one frame of the answer to request `at`, after which `more` come. The bytes of one that had a place are there
    /// already, and are given again.
    ///
    /// # Errors
    /// If it is no answer to what was asked.
    fn take(&mut self, at: usize, answer: &Taken<'_>, more: bool) -> Result<(), Error>;
}

/// One frame of an answer.
pub(super) enum Taken<'a> {
    /// So many bytes, which are in their place, or in those of their pieces.
    Placed(usize),
    /// Anything else.
    Came(Answer<'a>),
}

/// How far a call is.
pub(super) struct Progress {
    /// The number of its first request.
    base: u64,
    /// How many requests are asked in all.
    total: usize,
    /// How many were sent whole.
    sent: usize,
    /// How many frames of the next one were sent.
    frame: usize,
    /// How many were answered.
    due: usize,
    /// How many were sent over connections that were lost: what became of those that are not answered is not known.
    doubt: usize,
    /// The first refusal.
    failed: Option<Error>,
    /// The request that the node was asked to repeat and cannot speak of now: once those behind it are answered, all
    /// from it on are asked again.
    again: Option<(usize, Error)>,
    /// Whether that was because its time was over: that is tried once.
    waited: bool,
}

impl Progress {
    /// Before the first of the requests of `talk`, whose numbers begin with `base`.
    pub(super) fn new(talk: &dyn Talk, base: u64) -> Self {
        let total = talk.requests();
        Self { base, total, sent: 0, frame: 0, due: 0, doubt: 0, failed: None, again: None, waited: false }
    }

    /// Whether something was asked that is not answered.
    pub(super) const fn is_open(&self) -> bool {
        self.asked() > self.due || self.is_in_doubt()
    }

    /// How many requests were answered.
    pub(super) const fn answers(&self) -> usize {
        self.due
    }

    /// Whether something was asked over a connection that was lost, and is not answered.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.doubt > self.due
    }

    /// What a node refused, if it did: nothing more is asked then.
    pub(super) fn refused(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// From the first request that was not answered on, or not to be spoken of, again.
    pub(super) fn rewind(&mut self, talk: &mut dyn Talk) {
        self.doubt = self.doubt.max(self.asked());
        if let Some((at, _)) = self.again.take() {
            (self.due, self.total) = (at, talk.requests());
        }
        (self.sent, self.frame) = (self.due, 0);
        if self.due < self.total {
            talk.restart(self.due);
        }
    }

    /// How many requests were sent, in whole or in part.
    const fn asked(&self) -> usize {
        self.sent + (self.frame > 0) as usize
    }

    const fn is_over(&self) -> bool {
        self.sent >= self.total && self.due >= self.total
    }

    fn number(&self, at: usize) -> RequestId {
        RequestId(self.base + at as u64) // numbers do not reach 2^64
    }
}

/// A connection that is a session, or becomes one.
pub(super) struct Connection {
    tls: Tls,
    incoming: Incoming,
    /// Requests nobody waits for: their answers come before those of the next call.
    owed: VecDeque<(RequestId, SlotHandle)>,
    /// Rights that the node had no time to close.
    unclosed: Vec<SlotHandle>,
    /// Whether bytes of regions have checksums.
    checked: bool,
    /// The beginning of the body of the frame that is being sent.
    head: Vec<u8>,
    /// How long a request may take.
    timeout: Duration,
}

impl Connection {
    pub(super) fn new(tls: Tls, checked: bool, timeout: Duration) -> Self {
        let owed = VecDeque::with_capacity(OWED_MAX);
        let incoming = Incoming::new();
        Self { tls, incoming, owed, unclosed: Vec::new(), checked, head: Vec::new(), timeout }
    }

    /// How long a request may take from now on.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<(), Failure> {
        self.timeout = timeout;
        self.tls.set_timeout(timeout)
    }

    /// Asks what is not answered yet, and waits for the answers.
    pub(super) fn run(
        &mut self,
        talk: &mut dyn Talk,
        progress: &mut Progress,
        handle: SlotHandle,
        mut deadline: Deadline,
    ) -> Result<(), Failure> {
        loop {
            while self.may_ask(talk, progress) {
                self.ask(talk, progress, handle)?;
            }
            let flushed = self.tls.flush()?;
            let due = progress.due;
            while self.take(talk, progress)? {
                if progress.is_over() {
                    if let Some((_, error)) = &progress.again {
                        return Err(Failure::NotNow(error.clone()));
                    }
                    return progress.failed.take().map_or(Ok(()), |error| Err(after(error)));
                }
            }
            if progress.due > due {
                deadline = Deadline::after(self.timeout); // each request has its own time
            }
            if flushed && self.may_ask(talk, progress) {
                continue;
            }
            self.tls.wait(deadline)?;
        }
    }

    /// Whether the next frame may be sent now.
    fn may_ask(&self, talk: &dyn Talk, progress: &Progress) -> bool {
        if progress.sent >= progress.total || self.tls.is_full() {
            return false;
        }
        if progress.frame > 0 {
            return true; // a request that was begun is finished, even if it was refused meanwhile
        }
        let open = progress.due..progress.sent;
        if self.owed.len() + open.len() >= REMOTE_WINDOW_MAX {
            return false;
        }
        let asked: u64 = open.clone().map(|at| talk.asks(at)).sum();
        open.is_empty() || asked.saturating_add(talk.asks(progress.sent)) <= ASKED_BYTES_MAX
    }

    /// Sends the next frame, which then waits to be flushed.
    fn ask(&mut self, talk: &dyn Talk, progress: &mut Progress, handle: SlotHandle) -> Result<(), Failure> {
        self.head.clear();
        let verb = talk.verb();
        let frame =
            talk.frame(progress.sent, progress.frame, handle, &mut self.head).map_err(Failure::Own)?;
        let flags = if frame.more { Flags::MORE } else { Flags::NONE };
        let body = self.head.len() + frame.data.len();
        let request = progress.number(progress.sent);
        let mut header = Header::of(verb, flags, request, body).map_err(Failure::Own)?;
        header.items = frame.items;
        header.deadline_or_code = milliseconds(self.timeout - self.timeout / GRACE_PART);
        if self.checked && moves_bytes(verb) {
            header.flags = header.flags.and(Flags::CRC);
            header.crc = crc32c::crc32c_append(crc32c::crc32c(&self.head), frame.data);
        }
        self.tls.put([&header.encode(), &self.head, frame.data])?;
        if frame.more {
            progress.frame += 1;
        } else {
            progress.frame = 0;
            progress.sent += 1;
        }
        Ok(())
    }

    /// Takes one frame, if it is here whole.
    fn take(&mut self, talk: &mut dyn Talk, progress: &mut Progress) -> Result<bool, Failure> {
        let Some((header, fresh)) = self.incoming.header(&mut self.tls)? else { return Ok(false) };
        let whose = self.whose(&header, talk, progress)?;
        let length = header.body as usize;
        let place = match whose {
            Whose::Call(at) if header.deadline_or_code == 0 && verb_fits_a_place(&header) => {
                talk.place(at, length).map_err(Failure::Lied)?
            }
            _ => None,
        };
        if fresh {
            self.incoming.judged(header);
        }
        if let Some(place) = place {
            if !self.incoming.fill(&mut self.tls, Some(&mut *place))? {
                return Ok(false);
            }
            self.incoming.take();
            header.verify(place).map_err(Failure::Refused)?;
            Answer::decode(&header, place).map_err(Failure::Lied)?;
            let Whose::Call(at) = whose else { return Err(Failure::Own(Code::Internal.into())) };
            talk.take(at, &Taken::Placed(length), header.has_more()).map_err(Failure::Lied)?;
            progress.answered(&header);
            return Ok(true);
        }
        // A checksum is of the whole body, which is looked at before any of it is believed.
        if let Whose::Call(at) = whose
            && header.verb == Verb::Gather
            && header.deadline_or_code == 0
            && !header.flags.contains(Flags::CRC)
            && progress.again.is_none()
            && let Some(places) = talk.places(at)
        {
            if !self.incoming.deal(&mut self.tls, places)? {
                return Ok(false);
            }
            talk.take(at, &Taken::Placed(length), header.has_more()).map_err(Failure::Lied)?;
            progress.answered(&header);
            return Ok(true);
        }
        if !self.incoming.fill(&mut self.tls, None)? {
            return Ok(false);
        }
        let body = self.incoming.take();
        header.verify(body).map_err(Failure::Refused)?;
        let answer = Answer::decode(&header, body).map_err(Failure::Lied)?;
        match (whose, answer) {
            (Whose::Session, Answer::Failed(error)) => return Err(parting(readable(error))),
            (Whose::Session, _) => return Err(Failure::lied("the node answered what nobody asked")),
            (Whose::Nobody, answer) => {
                let owed = self.owed.pop_front();
                if let (Some((_, handle)), Answer::Failed(error)) = (owed, answer)
                    && error.code() == Code::Busy
                {
                    self.unclosed.push(handle);
                }
            }
            (Whose::Call(_), Answer::Failed(error)) => progress.fail(talk, readable(error)),
            // It is asked again with the one before it, and answered the same.
            (Whose::Call(_), _) if progress.again.is_some() => progress.answered(&header),
            (Whose::Call(at), answer) => {
                talk.take(at, &Taken::Came(answer), header.has_more()).map_err(Failure::Lied)?;
                progress.answered(&header);
            }
        }
        Ok(true)
    }

    /// Which request a frame answers.
    fn whose(&self, header: &Header, talk: &dyn Talk, progress: &Progress) -> Result<Whose, Failure> {
        if !header.flags.contains(Flags::ANSWER) {
            return Err(Failure::lied("the node sent a request"));
        }
        let failed = code_of(header.deadline_or_code).map_err(Failure::Lied)?.is_some();
        if header.request == SESSION && failed {
            return Ok(Whose::Session);
        }
        let not_next = || Failure::lied("the node answered a request that is not the next in line");
        if let Some(&(owed, _)) = self.owed.front() {
            let fits = header.request == owed && header.verb == Verb::Control;
            return if fits { Ok(Whose::Nobody) } else { Err(not_next()) };
        }
        let at = progress.due;
        let next = at < progress.asked() && header.request == progress.number(at);
        if !next || header.verb != talk.verb() {
            return Err(not_next());
        }
        if at == progress.sent && !failed {
            return Err(Failure::lied("the node answered a request before it was put"));
        }
        if !failed && self.checked && answers_bytes(header.verb) && !header.flags.contains(Flags::CRC) {
            return Err(Failure::lied("the node left out the checksum that was asked for"));
        }
        Ok(Whose::Call(at))
    }

    /// Closes a right that nobody holds any more, without waiting for the answer; false if it cannot be said now.
    pub(super) fn close(&mut self, handle: SlotHandle, request: RequestId) -> Result<bool, Failure> {
        if self.owed.len() >= OWED_MAX || self.tls.is_full() {
            return Ok(false);
        }
        self.head.clear();
        cbor::append(&Request::Close { handle }, &mut self.head).map_err(Failure::Own)?;
        let header =
            Header::of(Verb::Control, Flags::NONE, request, self.head.len()).map_err(Failure::Own)?;
        self.tls.put([&header.encode(), &self.head, &[]])?;
        self.owed.push_back((request, handle));
        Ok(true)
    }

    /// Whether the node had no time to close a right.
    pub(super) const fn has_unclosed(&self) -> bool {
        !self.unclosed.is_empty()
    }

    /// The rights that it had no time to close: they are to be closed again.
    pub(super) fn take_unclosed(&mut self) -> std::vec::Drain<'_, SlotHandle> {
        self.unclosed.drain(..)
    }

    /// Sends what waits and takes what came, as far as that goes without waiting: between two calls.
    pub(super) fn idle(&mut self) -> Result<(), Failure> {
        self.tls.flush()?;
        if self.owed.len() >= OWED_MAX {
            self.tls.look()?;
            let mut nothing = Progress::new(&Nothing, 0);
            while self.take(&mut Nothing, &mut nothing)? {}
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A child that was forked has a copy of the socket and none of its own: see `Session`, which forgets it there.
        self.tls.end();
    }
}

impl Progress {
    /// One frame of the answer that is due came.
    fn answered(&mut self, header: &Header) {
        if !header.has_more() {
            self.due += 1;
        }
    }

    /// The request that is due was refused. Those behind it that were sent are still answered; no others are sent.
    ///
    /// A refusal says that nothing was done this time. Of a change that was sent before it says nothing about that time,
    /// and neither does one that comes because the time was over: what was begun may go on. A node that is asked again
    /// answers out of what it remembers, and remembers refusals of the socket's requests alone.
    fn fail(&mut self, talk: &dyn Talk, error: Error) {
        let at = self.due;
        self.due += 1;
        self.total = self.asked();
        if self.again.is_some() || self.failed.is_some() {
            return;
        }
        let (repeated, verb) = (at < self.doubt, talk.verb());
        let lasts = matches!(verb, Verb::Control | Verb::Create | Verb::Delete);
        match error.code() {
            _ if !talk.changes() => self.failed = Some(error),
            Code::Busy if repeated => self.again = Some((at, error)),
            Code::Timeout if lasts && !self.waited => (self.again, self.waited) = (Some((at, error)), true),
            Code::Timeout => self.failed = Some(uncertain(&error)),
            _ if repeated && verb != Verb::Control => self.failed = Some(uncertain(&error)),
            _ => self.failed = Some(error),
        }
    }
}

/// Whom a frame concerns.
#[derive(Clone, Copy)]
enum Whose {
    /// This request of the call.
    Call(usize),
    /// A request nobody waits for.
    Nobody,
    /// The whole session.
    Session,
}

/// Between two calls nothing is asked.
struct Nothing;

impl Talk for Nothing {
    fn verb(&self) -> Verb {
        Verb::Control
    }

    fn requests(&self) -> usize {
        0
    }

    fn changes(&self) -> bool {
        false
    }

    fn frame<'a>(&'a self, _: usize, _: usize, _: SlotHandle, _: &mut Vec<u8>) -> Result<Frame<'a>, Error> {
        Err(Code::Internal.into())
    }

    fn take(&mut self, _: usize, _: &Taken<'_>, _: bool) -> Result<(), Error> {
        Err(Code::Internal.into())
    }
}

/// Verbs whose requests say by a checksum that their answers are to have one, and have bytes of regions themselves.
const fn moves_bytes(verb: Verb) -> bool {
    matches!(verb, Verb::Read | Verb::Write | Verb::Gather | Verb::Scatter | Verb::Create)
}

/// Verbs whose answers have bytes of regions.
const fn answers_bytes(verb: Verb) -> bool {
    matches!(verb, Verb::Read | Verb::Gather)
}

/// Whether the body is bytes of a region and nothing else.
fn verb_fits_a_place(header: &Header) -> bool {
    header.verb == Verb::Read
}

/// A refusal of one request. A node ends the connection over a frame that it cannot read.
fn after(error: Error) -> Failure {
    match error.code() {
        Code::FrameSize | Code::FrameTruncated | Code::FrameType | Code::FrameVersion => {
            Failure::Refused(error)
        }
        _ => Failure::Own(error),
    }
}

/// What a caller is told of a change that may have been done, whatever was said last.
pub(super) fn uncertain(error: &Error) -> Error {
    if error.code() == Code::Uncertain {
        return error.clone();
    }
    Error::with(Code::Uncertain, format!("it may have taken effect: {}: {}", error.code(), error.detail()))
}

/// What a node said of the whole session before it ended it.
fn parting(error: Error) -> Failure {
    match error.code() {
        // It goes down, or the session was idle for too long, or it has too many: another connection is another matter.
        Code::Timeout | Code::Busy | Code::Unreachable | Code::ProviderLost => Failure::Lost(error),
        Code::PeerIdentity | Code::PeerUid | Code::Possession => Failure::Refused(error),
        _ => Failure::Lied(error),
    }
}
