//! One connection from accept to end.
//!
//! ```text
//!   Greeting ──▶ Open ──▶ Parting ──▶ Dead
//!      └──────────┴───────────┴────────▲
//! ```
//! A *turn* goes on as far as it can without waiting: what waits in the line is sent, what waits in a request is done, and
//! what has come is read, until the connection is held up, nothing more is there, or others have waited long enough.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::RequestId;
use caps::limits::FRAME_BYTES_MAX;
use caps::wire::remote::header::HEADER_BYTES;
use caps::wire::remote::{Header, Next, Verb, next};
use policy::limits;
use tokio::task::AbortHandle;
use transport::Credentials;

use super::admission::Seat;
use super::control::Task;
use super::effects::Connected;
use super::greeting::{self, Greeting};
use super::job::Job;
use super::keeping::Keeping;
use super::known::Again;
use super::line::{Broken, Line, Received};
use super::partials::Held;
use super::shard::Desk;
use super::share::Share;
use super::table::Key;
use crate::gate::visitor::Visitor;
use crate::runtime::Opener;

/// One connection.
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) line: Line,
    pub(super) seat: Seat,
    pub(super) address: IpAddr,
    pub(super) stage: Stage,
    /// From the welcome until its visitor is back and all that lived with it has ended.
    pub(super) session: Option<Box<Session>>,
    /// What was read and not taken: less than a frame, unless the connection is held up.
    input: Vec<u8>,
    /// What the gate knows of that.
    pub(super) held: Held,
    /// When its handshake may begin.
    hello: Hello,
    /// When the oldest byte came of what was not taken.
    began: Instant,
    /// When was last read.
    came: Instant,
    /// Whether the socket may have something.
    readable: bool,
    /// Whether the client has said its last: its end is told once, perhaps together with bytes before it.
    hung_up: bool,
    /// By when a frame, or a record of TLS, that has begun has to be whole.
    pub(super) frame_by: Option<Instant>,
    /// When the client last asked for something.
    quiet_since: Instant,
    /// Where its entry stands among the deadlines.
    pub(super) stands: Option<Instant>,
    /// Whether the shard counts it among those that are beginning.
    pub(super) counted: bool,
    /// Whether it has a place among those that could go on at once.
    pub(super) queued: bool,
    /// What is left of its turn.
    pub(super) share: Share,
}

/// Where a connection is between accept and end.
pub(super) enum Stage {
    /// Its session has not begun, and has to by then.
    Greeting(Greeting, Instant),
    /// It is served.
    Open,
    /// It was told why it ends; what still comes is thrown away until then.
    Parting(Instant),
    /// It is closed.
    Dead,
}

/// When a handshake may begin: it costs the node a signature, of which a network is given some a second.
#[derive(Clone, Copy)]
enum Hello {
    /// When the client has asked for it. Who only connects is given none, and takes none from its neighbours.
    Awaited,
    /// At the turn of its network. What the client sent is in its socket until then.
    At(Instant),
    /// It may.
    Now,
}

/// What lives with a session.
pub(super) struct Session {
    pub(super) opener: Opener,
    /// Away with a control request, if there is none.
    pub(super) visitor: Option<Box<Visitor>>,
    pub(super) work: Work,
    /// The request of which more frames come.
    pub(super) expects: Option<(Verb, RequestId)>,
    /// What was answered last of what cannot be done twice.
    pub(super) connected: Connected,
}

/// What a session is busy with.
pub(super) enum Work {
    /// Nothing.
    None,
    /// What waits for somebody, in a task.
    Errand(Task),
    /// A data request; with its answer so far, if that is kept.
    Job(Box<Job>, Option<Box<Keeping>>, Waits),
    /// More frames of a request that is answered as it was before.
    Again(Box<Again>),
}

/// What a data request waits for.
pub(super) enum Waits {
    /// That others have had their turn.
    Turn,
    /// Room for its answer.
    Room,
    /// Its next frame.
    Frame,
    /// The end of a rotation, for as long as the request says.
    Rotation(AbortHandle),
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Self::Rotation(task) = self {
            task.abort();
        }
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for something that will be told.
    Waits,
    /// It could go on at once.
    Again,
    /// There is nothing left of it.
    Over,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody is there any more.
    Gone,
    /// The client has said its last, which is no fault. It may still read what it asked for.
    Left,
    /// TLS failed; an alert has said so.
    Tls(transport::rustls::Error),
    /// It broke a rule: it is told in an answer of this verb to this request, and that is on record.
    Refused(Verb, RequestId, Error),
    /// It is told why, and nothing is wrong with that.
    Told(Error),
    /// It broke a rule, which it was told and which is on record.
    Faulted,
}

impl End {
    /// It broke a rule that has nothing to do with one request.
    pub(super) const fn refused(error: Error) -> Self {
        Self::Refused(Verb::Control, RequestId(0), error)
    }
}

impl Connection {
    pub(super) fn new(
        key: Key,
        line: Line,
        held: Held,
        address: IpAddr,
        seat: Seat,
        credentials: Arc<Credentials>,
        refused: Option<Error>,
    ) -> Self {
        let now = Instant::now();
        let until = now + Duration::from_millis(limits::HANDSHAKE_MS_MAX);
        Self {
            key,
            line,
            seat,
            address,
            stage: Stage::Greeting(Greeting::Tls(credentials, refused), until),
            session: None,
            input: Vec::new(),
            held,
            hello: Hello::Awaited,
            began: now,
            came: now,
            readable: true,
            hung_up: false,
            frame_by: None,
            quiet_since: now,
            stands: None,
            counted: true,
            queued: false,
            share: Share::whole(),
        }
    }

    pub(super) const fn is_greeting(&self) -> bool {
        matches!(self.stage, Stage::Greeting(..))
    }

    pub(super) const fn is_parting(&self) -> bool {
        matches!(self.stage, Stage::Parting(_))
    }

    /// The socket says that something may have come; `last` if nothing more will.
    pub(super) fn may_read(&mut self, last: bool) {
        self.readable = true;
        self.hung_up |= last;
    }

    /// The gate has no room for what it holds under this name.
    pub(super) fn holds_too_much(&mut self, desk: &mut Desk, name: u64) -> Turn {
        if !self.held.is(name) || !matches!(self.stage, Stage::Greeting(..) | Stage::Open) {
            return Turn::Waits; // it holds that no more
        }
        let error = Error::new(
            Code::Busy,
            "the node holds as much of unfinished frames as it may, most of them of this client, and this is the oldest",
        );
        if self.session.is_some() {
            desk.shared.rejects.note(self.seat.source(), &error);
        }
        self.part(desk, End::Told(error))
    }

    /// Gives up what it holds: nobody takes a frame of it any more.
    pub(super) fn let_go(&mut self) {
        self.input = Vec::new();
        self.held.clear();
    }

    /// Goes on as far as possible.
    pub(super) fn turn(&mut self, desk: &mut Desk) -> Turn {
        match self.stage {
            Stage::Greeting(..) | Stage::Open => match self.go_on(desk) {
                Ok(turn) => turn,
                Err(end) => self.part(desk, end),
            },
            Stage::Parting(_) => self.go_on_parting(desk),
            Stage::Dead => self.die(desk),
        }
    }

    /// A rotation that a request of its waits for is over, or was waited for long enough.
    pub(super) fn rotated(&mut self, desk: &mut Desk) -> Turn {
        if !matches!(self.stage, Stage::Open) {
            return self.turn(desk);
        }
        match self.go_on_after_rotation(desk).and_then(|()| self.go_on(desk)) {
            Ok(turn) => turn,
            Err(end) => self.part(desk, end),
        }
    }

    fn go_on(&mut self, desk: &mut Desk) -> Result<Turn, End> {
        self.share = Share::whole();
        self.line.flush().map_err(|_| End::Gone)?;
        self.go_on_with_work(desk)?;
        // A buffer of its own only where something was left: it is added to where it is, so that a frame which comes in
        // crumbs is not copied for each.
        let own = !self.input.is_empty();
        let mut plain = std::mem::take(if own { &mut self.input } else { &mut desk.plain });
        let mut taken = 0;
        let went = self.read(desk, &mut plain, &mut taken);
        let left = plain.len() - taken;
        if own {
            if left > 0 {
                plain.drain(..taken);
                // Room for what is still to come of a frame, and never for two.
                plain.shrink_to((2 * left).min(FRAME_BYTES_MAX));
                self.input = plain;
            }
        } else {
            self.input = plain[taken..].to_vec();
            plain.clear();
            desk.plain = plain;
        }
        let turn = went?;
        self.count_held();
        let more =
            matches!(self.session.as_ref().map(|session| &session.work), Some(Work::Job(.., Waits::Turn)));
        Ok(if more { Turn::Again } else { turn })
    }

    /// Counts what was not taken, and whether the client or the node is to see to it.
    fn count_held(&mut self) {
        if self.is_held_up() || self.share.is_spent() && matches!(next(&self.input), Ok(Next::Frame { .. })) {
            // Held up, or with others first, it is not the client's fault that its frame is not taken.
            self.held.set(0, self.began);
            self.held.wait(self.input.len());
            self.frame_by = None;
            return;
        }
        // Of what is not even a record yet, TLS holds the rest.
        let bytes = self.input.len() + self.line.unfinished();
        self.held.wait(0);
        self.held.set(bytes, self.began);
        let most = Duration::from_millis(limits::REMOTE_FRAME_MS_MAX);
        self.frame_by = (bytes > 0).then(|| self.frame_by.unwrap_or_else(|| Instant::now() + most));
    }

    /// Takes the frames of what is there, and reads more. `taken` counts the bytes of `plain` that are done with.
    fn read(&mut self, desk: &mut Desk, plain: &mut Vec<u8>, taken: &mut usize) -> Result<Turn, End> {
        for _ in 0..limits::REMOTE_READS_PER_TURN {
            self.take_frames(desk, plain, taken)?;
            if self.is_held_up() {
                return Ok(Turn::Waits);
            }
            if self.share.is_spent() {
                return Ok(Turn::Again);
            }
            if !self.readable {
                return Ok(Turn::Waits);
            }
            if !self.may_begin(desk)? {
                return Ok(Turn::Waits);
            }
            plain.drain(..*taken);
            *taken = 0;
            let before = plain.len();
            // Nothing but the beginning of a frame is left when more is read.
            self.came = desk.woke;
            if plain.is_empty() && self.line.unfinished() == 0 {
                self.began = self.came;
            }
            let room = desk.partials.read_bytes();
            match self.line.receive(&mut desk.cipher[..room], plain) {
                Ok(Received::Some { more, bytes }) => {
                    self.readable = more || self.hung_up;
                    self.share.read(bytes, plain.len() - before);
                }
                Ok(Received::Nothing) => self.readable = false,
                Ok(Received::End) if plain.is_empty() && !self.is_in_a_message() => return Err(End::Left),
                Err(Broken::Gone) if plain.is_empty() && !self.is_in_a_message() => return Err(End::Gone),
                Ok(Received::End) | Err(Broken::Gone) => {
                    let cut = "the client hung up within a frame or a message";
                    return Err(End::refused(Error::new(Code::FrameTruncated, cut)));
                }
                Err(Broken::Tls(error)) => return Err(End::Tls(error)),
            }
            self.see_who_it_is(desk)?;
        }
        self.take_frames(desk, plain, taken)?;
        let more = self.readable || self.share.is_spent();
        Ok(if more && !self.is_held_up() { Turn::Again } else { Turn::Waits })
    }

    /// Whether TLS may be given what the socket has.
    fn may_begin(&mut self, desk: &mut Desk) -> Result<bool, End> {
        let at = match self.hello {
            Hello::Now => return Ok(true),
            Hello::At(at) => at,
            Hello::Awaited => match self.line.begins(&mut desk.cipher) {
                Ok(Some(true)) => {
                    let now = Instant::now();
                    let wait = self.seat.handshake(now).map_err(|error| {
                        desk.shared.rejects.note(self.seat.source(), &error);
                        End::Gone
                    })?;
                    now + wait
                }
                Ok(Some(false)) if !self.hung_up => {
                    self.readable = false; // until more has come
                    return Ok(false);
                }
                Ok(_) => return Err(End::Left),
                Err(_) => return Err(End::Gone),
            },
        };
        let may = at <= Instant::now();
        self.hello = if may { Hello::Now } else { Hello::At(at) };
        Ok(may)
    }

    /// When it goes on by itself, as it is the turn of its network.
    const fn begins_at(&self) -> Option<Instant> {
        match self.hello {
            Hello::At(at) => Some(at),
            Hello::Awaited | Hello::Now => None,
        }
    }

    /// Whether frames of a request are still to come.
    fn is_in_a_message(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.expects.is_some())
    }

    /// Once TLS is through.
    fn see_who_it_is(&mut self, desk: &Desk) -> Result<(), End> {
        let Stage::Greeting(Greeting::Tls(credentials, refused), _) = &self.stage else { return Ok(()) };
        if self.line.tls().is_handshaking() {
            return Ok(());
        }
        let greeting = greeting::begin(desk, &self.line, credentials, refused.as_ref());
        let greeting = greeting.map_err(|error| match error.code() {
            Code::Busy => End::Told(error),
            _ => End::refused(error),
        })?;
        let until = Instant::now() + Duration::from_millis(limits::HELLO_MS_MAX);
        self.stage = Stage::Greeting(greeting, until);
        Ok(())
    }

    /// Judges the certificate again that it was let in with.
    pub(super) fn judge_again(&mut self, desk: &mut Desk) -> Turn {
        let is_let_in = match &self.stage {
            Stage::Greeting(greeting, _) => !matches!(greeting, Greeting::Tls(..)),
            Stage::Open => true,
            Stage::Parting(_) | Stage::Dead => false,
        };
        if !is_let_in {
            return Turn::Waits; // one whose handshake is not over is judged when it is
        }
        match desk.credentials.now().judge_again(self.line.tls()) {
            Ok(()) => Turn::Waits,
            Err(error) => self.part(desk, End::Told(error)),
        }
    }

    fn take_frames(&mut self, desk: &mut Desk, plain: &[u8], taken: &mut usize) -> Result<(), End> {
        while !self.is_held_up() && !self.share.is_spent() {
            let bytes = &plain[*taken..];
            let frame = next(bytes).map_err(|error| {
                let (verb, request) = named(bytes);
                End::Refused(verb, request, error)
            })?;
            let Next::Frame { header, body, .. } = frame else { break };
            *taken += HEADER_BYTES + body.len();
            self.share.frame();
            self.frame_by = None;
            self.began = self.came;
            self.quiet_since = desk.woke;
            self.frame(desk, &header, body)?;
        }
        Ok(())
    }

    /// Whether nothing more is read and nothing more is begun before something has happened.
    fn is_held_up(&self) -> bool {
        if !self.line.is_drained() {
            return true;
        }
        match &self.stage {
            Stage::Greeting(greeting, _) => matches!(greeting, Greeting::Asked),
            Stage::Open => self.session.as_ref().is_none_or(|session| match &session.work {
                Work::None | Work::Again(_) | Work::Job(.., Waits::Frame) => session.visitor.is_none(),
                Work::Errand(_) | Work::Job(..) => true,
            }),
            Stage::Parting(_) | Stage::Dead => true,
        }
    }

    /// By when it has to be looked at, whatever happens.
    pub(super) fn deadline(&self, desk: &Desk) -> Option<Instant> {
        let after = |since: Instant, ms| since + Duration::from_millis(ms);
        let stuck = self.line.stuck_since().map(|since| after(since, limits::SEND_MS_MAX));
        let own = match &self.stage {
            Stage::Greeting(_, until) => Some(self.begins_at().map_or(*until, |at| at.min(*until))),
            // From here on nothing else counts: a deadline that nobody looks at any more would be due for ever.
            Stage::Parting(until) if self.session.is_some() => {
                // Nothing tells that what was sent has arrived.
                let look = Instant::now() + Duration::from_millis(limits::REMOTE_PARTING_LOOK_MS);
                return Some(look.min(*until));
            }
            Stage::Parting(until) => return Some(*until),
            Stage::Dead => return None,
            Stage::Open => {
                let work = self.session.as_ref().map(|session| &session.work);
                match work {
                    Some(Work::Job(job, _, waits)) => {
                        let left = job.look_at().since(desk.now());
                        let until = Instant::now() + Duration::from_micros(left.0 + 1);
                        match waits {
                            Waits::Rotation(_) | Waits::Frame => Some(until),
                            // There is no room to say that it is late either: it is found out when there is.
                            Waits::Room | Waits::Turn => None,
                        }
                    }
                    // It has a deadline of its own.
                    Some(Work::Errand(_)) => None,
                    Some(Work::None | Work::Again(_)) | None => {
                        Some(after(self.quiet_since, limits::SESSION_IDLE_MS_MAX))
                    }
                }
            }
        };
        [stuck, own, self.frame_by].into_iter().flatten().min()
    }

    /// A deadline may have passed.
    pub(super) fn overdue(&mut self, desk: &mut Desk) -> Turn {
        let now = Instant::now();
        if let Stage::Parting(until) = self.stage {
            return if until <= now { self.die(desk) } else { self.go_on_parting(desk) };
        }
        if self.deadline(desk).is_none_or(|deadline| deadline > now) && !self.has_late_job(desk) {
            return Turn::Waits;
        }
        let over = |since: Instant, ms| since + Duration::from_millis(ms) <= now;
        let is_stuck = |line: &Line| line.stuck_since().is_some_and(|since| over(since, limits::SEND_MS_MAX));
        if is_stuck(&self.line) {
            if self.line.look_again().is_err() {
                return self.part(desk, End::Gone);
            }
            if !is_stuck(&self.line) {
                return self.turn(desk);
            }
            self.record_unread(desk);
            return self.part(desk, End::Gone);
        }
        let late = |what| Error::new(Code::Timeout, what);
        match &self.stage {
            Stage::Greeting(_, until) if *until > now && self.begins_at().is_some() => self.turn(desk),
            Stage::Greeting(Greeting::Tls(..), _) => {
                let error = late("the TLS handshake was not done in time");
                desk.shared.rejects.note(self.seat.source(), &error);
                self.part(desk, End::Gone)
            }
            Stage::Greeting(..) => self.part(desk, End::refused(late("the session was not begun in time"))),
            Stage::Open if self.frame_by.is_some_and(|by| by <= now) => {
                self.part(desk, End::refused(late("the frame was not whole in time")))
            }
            Stage::Open if over(self.quiet_since, limits::SESSION_IDLE_MS_MAX) => {
                self.part(desk, End::Told(late("the session was idle for too long")))
            }
            // A data request looks at its time by itself.
            Stage::Open => match self.go_on_with_late_work(desk).and_then(|()| self.go_on(desk)) {
                Ok(turn) => turn,
                Err(end) => self.part(desk, end),
            },
            Stage::Parting(_) | Stage::Dead => self.die(desk),
        }
    }
}

/// What a frame that is none says of itself: as far as it can be told, so that the client knows which one it was.
fn named(bytes: &[u8]) -> (Verb, RequestId) {
    let header = bytes.first_chunk::<HEADER_BYTES>().and_then(|header| Header::decode(header).ok());
    header.map_or((Verb::Control, RequestId(0)), |header| (header.verb, header.request))
}
