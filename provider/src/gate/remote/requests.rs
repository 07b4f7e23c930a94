//! What a frame asks for, and who does it.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Flags, Header, Verb};
use caps::wire::{Reply, Request, cbor};
use policy::limits;
use tokio::time::timeout;

use super::connection::{Connection, End, Session, Stage, Waits, Work};
use super::control::{self, Brought, Errand, Wish, control_frame};
use super::effects::Begun;
use super::fingerprint::{Fingerprint, only_reads};
use super::greeting::{self, Greeted, Greeting, Stepped};
use super::job::{Job, Sink, Step};
use super::keeping::Keeping;
use super::known::Again;
use super::leases::Asked;
use super::line::Line;
use super::mailbox::Letter;
use super::partials::Holder;
use super::shard::Desk;
use super::share::Share;
use super::table::Key;
use crate::gate::visitor::Visitor;
use crate::runtime::Client;

/// Errors after which the stream has no next frame.
fn is_of_frames(error: &Error) -> bool {
    use Code::{FrameSize, FrameTruncated, FrameType, FrameVersion, Protocol};
    matches!(error.code(), FrameSize | FrameTruncated | FrameType | FrameVersion | Protocol)
}

impl Connection {
    /// One frame of the client's.
    pub(super) fn frame(&mut self, desk: &mut Desk, header: &Header, body: &[u8]) -> Result<(), End> {
        match &mut self.stage {
            Stage::Greeting(greeting, _) => {
                let Greeting::Hello(hello) = std::mem::replace(greeting, Greeting::Asked) else {
                    return Err(End::Gone); // held up: no frame is taken
                };
                let stepped = greeting::step(desk, self.key, self.address, *hello, header, body)
                    .map_err(|error| End::Refused(header.verb, header.request, error))?;
                if let Stepped::Say(next, reply) = stepped {
                    *greeting = next;
                    self.reply(header, &reply)?;
                }
                Ok(())
            }
            Stage::Open => self.asked(desk, header, body),
            Stage::Parting(_) | Stage::Dead => Ok(()),
        }
    }

    /// The broker has said whose key it is.
    pub(super) fn greeted(&mut self, desk: &mut Desk, greeted: Greeted) -> Result<(), End> {
        let Greeted { asked, outcome } = greeted;
        if !self.is_greeting() {
            return Ok(()); // it is parting: nothing was registered in its name
        }
        let refused = |error| End::Refused(Verb::Control, asked.request, error);
        let (visitor, welcome) = outcome.map_err(refused)?;
        let opener = visitor.opener;
        self.seat.take_for(opener.proven.holder()).map_err(End::Told)?;
        self.held.belongs_to(Holder::Principal(opener.proven.holder()));
        let outgoing = self.line.keep_books().map_err(refused)?;
        let (mailbox, key) = (desk.mailbox.clone(), self.key);
        // It has nothing mapped, so nobody has to tell it anything.
        let _post = desk.shared.provider.register_session(
            opener.session,
            Client::new(opener, None),
            Box::new(move || mailbox.put(Letter::End(key))),
            Some(outgoing),
        );
        self.session = Some(Box::new(Session {
            opener,
            visitor: Some(visitor),
            work: Work::None,
            expects: None,
            connected: desk.effects.alone(opener.proven.holder()),
        }));
        self.stage = Stage::Open;
        self.seat.greeted();
        self.reply(&asked, &Reply::Welcome(welcome))
    }

    /// One frame of an open session.
    fn asked(&mut self, desk: &mut Desk, header: &Header, body: &[u8]) -> Result<(), End> {
        let refused = |error| End::Refused(header.verb, header.request, error);
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        if let Some(expected) = session.expects {
            if expected != (header.verb, header.request) {
                let mixed = Error::new(Code::FrameType, "the frames of two requests are mixed");
                return Err(refused(mixed));
            }
            if !header.has_more() {
                session.expects = None;
            }
            let further = match Further::decode(header, body) {
                Ok(further) => further,
                Err(error) if is_of_frames(&error) => return Err(refused(error)),
                // Only the request fails; the rest of it is swallowed, as of one that has failed already.
                Err(_) if matches!(session.work, Work::None) => return Ok(()),
                Err(error) => {
                    session.work = Work::None;
                    return self.fail_on_record(desk, header, &error);
                }
            };
            let Some(visitor) = &session.visitor else { return Err(End::Gone) };
            match &mut session.work {
                Work::Job(job, keeping, _) => {
                    if let Some(keeping) = keeping {
                        keeping.print().feed(&further, |handle| visitor.lease_of(handle));
                    }
                    job.feed(header, further).map_err(refused)?;
                    return self.go_on_with_job(desk);
                }
                Work::Again(again) => {
                    again.feed(&further, visitor);
                    if header.has_more() {
                        return Ok(());
                    }
                    let Work::Again(again) = std::mem::replace(&mut session.work, Work::None) else {
                        return Ok(());
                    };
                    return self.answer_again(desk, &again);
                }
                // The request has failed already, and nobody reads the rest of it.
                Work::None | Work::Errand(_) => return Ok(()),
            }
        }
        if header.has_more() {
            session.expects = Some((header.verb, header.request));
        }
        let ask = match Ask::decode(header, body) {
            Ok(ask) => ask,
            Err(error) if is_of_frames(&error) => return Err(refused(error)),
            Err(error) => return self.fail_on_record(desk, header, &error),
        };
        // Who asks again what was done learns that: a refusal would say that nothing was.
        if desk.is_late() && !session.connected.has(header.request) {
            let busy = Error::new(Code::Busy, "the node has more to do than it can; try again");
            return self.fail(header.verb, header.request, &busy);
        }
        match ask {
            Ask::Control(body) => self.control(desk, header, body),
            ask => self.data(desk, header, ask),
        }
    }

    /// A request of a verb of its own.
    fn data(&mut self, desk: &mut Desk, header: &Header, ask: Ask<'_>) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        let Some(visitor) = &mut session.visitor else { return Err(End::Gone) };
        if only_reads(&ask) {
            if let Err(error) = session.connected.refuse_known(header.request) {
                return self.refuse(desk, header, &error);
            }
            return self.begin_job(desk, Job::begin(header, ask, desk.now()), None);
        }
        let Some(print) = Fingerprint::of(&ask, |handle| visitor.lease_of(handle)) else {
            return self.begin_job(desk, Job::begin(header, ask, desk.now()), None); // which refuses it
        };
        let under_way = match session.connected.begin(header.request) {
            Ok(Begun::New(under_way)) => under_way,
            Ok(Begun::Answered) => {
                let again = Again::new(header, &ask, print);
                if !header.has_more() {
                    return self.answer_again(desk, &again);
                }
                session.work = Work::Again(Box::new(again));
                return Ok(());
            }
            Err(error) => return self.refuse(desk, header, &error),
        };
        let limit = bound(header);
        let asked = |under_way| Asked { header: *header, under_way, identity: print.identity() };
        match ask {
            Ask::Create(body) => {
                let wish = Wish::Create(asked(under_way.clone()), body.to_vec());
                // With nothing to follow the answer is kept where the leases are made.
                let keeping = header.has_more().then(|| Box::new(Keeping::new(under_way, print)));
                self.send_off(desk, header, wish, keeping, limit)
            }
            Ask::Delete(body) => {
                let wish = Wish::Delete(asked(under_way), body.to_vec());
                self.send_off(desk, header, wish, None, limit)
            }
            ask => {
                let job = Job::begin(header, ask, desk.now());
                self.begin_job(desk, job, Some(Keeping::new(under_way, print)))
            }
        }
    }

    fn begin_job(&mut self, desk: &mut Desk, mut job: Job, mut keeping: Option<Keeping>) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        let Some(visitor) = &mut session.visitor else { return Err(End::Gone) };
        let step = run(&mut job, keeping.as_mut(), visitor, &mut self.line, &mut self.share);
        let Some(waits) = after(desk, self.key, step) else {
            return if visitor.conduct.ends() { Err(End::Faulted) } else { Ok(()) };
        };
        // Most are done by now, and cost no memory of their own.
        session.work = Work::Job(Box::new(job), keeping.map(Box::new), waits);
        Ok(())
    }

    /// A request of the local socket.
    fn control(&mut self, desk: &mut Desk, header: &Header, body: &[u8]) -> Result<(), End> {
        let refused = |error| End::Refused(Verb::Control, header.request, error);
        let request: Request = cbor::decode(body).map_err(refused)?;
        if matches!(request, Request::Hello { .. } | Request::Prove { .. }) {
            return Err(refused(Error::new(Code::Protocol, "the session has begun already")));
        }
        if control::is_local(&request) {
            let local = Error::new(Code::Protocol, "this is asked for on the local socket alone");
            return self.fail_on_record(desk, header, &local);
        }
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        let kept = match Fingerprint::of_control(&request, body) {
            None => match session.connected.refuse_known(header.request) {
                Ok(()) => None,
                Err(error) => return self.refuse(desk, header, &error),
            },
            Some(print) => match session.connected.begin(header.request) {
                Ok(Begun::New(under_way)) => Some((under_way, print.identity())),
                Ok(Begun::Answered) => {
                    return self.answer_again(desk, &Again::new(header, &Ask::Control(body), print));
                }
                Err(error) => return self.refuse(desk, header, &error),
            },
        };
        if let Request::Resume { client } = request {
            let Some(visitor) = &session.visitor else { return Err(End::Gone) };
            return match visitor.resume(&desk.effects, client) {
                Ok(connected) => {
                    let known = connected.is_known();
                    session.connected = connected;
                    self.reply(header, &Reply::Resumed { known })
                }
                Err(error) => self.fail(header.verb, header.request, &error),
            };
        }
        let limit = bound(header);
        self.send_off(desk, header, Wish::Control(Box::new(request), kept), None, limit)
    }

    /// Has a task see to a request, with the visitor.
    fn send_off(
        &mut self,
        desk: &Desk,
        header: &Header,
        wish: Wish,
        keeping: Option<Box<Keeping>>,
        limit: Duration,
    ) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        let Some(visitor) = session.visitor.take() else { return Err(End::Gone) };
        let errand = Errand { visitor, header: *header, begun: desk.now(), keeping, outcome: None };
        let task = control::send_off(&desk.runtime, &desk.mailbox, self.key, errand, wish, limit);
        session.work = Work::Errand(task);
        Ok(())
    }

    /// A task has seen to a request.
    pub(super) fn back(&mut self, desk: &mut Desk, errand: Errand) -> Result<(), End> {
        let Errand { visitor, header, begun, keeping, outcome } = errand;
        let Some(session) = &mut self.session else { return Ok(()) };
        session.work = Work::None;
        let ends = visitor.conduct.ends();
        session.visitor = Some(visitor);
        if !matches!(self.stage, Stage::Open) {
            return Ok(()); // it is parting, and ends the session at its next turn
        }
        // Given up by nobody but this shard, which then closes: or it panicked.
        let panicked = || Err(Error::new(Code::Internal, "the request was not worked on to its end"));
        match outcome.unwrap_or_else(panicked) {
            Ok(Brought::Frame(frame)) => self.line.send(&[&frame]).map_err(|_| End::Gone)?,
            Ok(Brought::Filling(filling)) => {
                let job = Job::filling(&header, filling, begun);
                return self.begin_job(desk, job, keeping.map(|keeping| *keeping));
            }
            Err(error) if is_of_frames(&error) => {
                return Err(End::Refused(header.verb, header.request, error));
            }
            Err(error) => self.fail(header.verb, header.request, &error)?,
        }
        if ends { Err(End::Faulted) } else { Ok(()) }
    }

    /// Goes on with a data request that waited for its turn, or for room.
    pub(super) fn go_on_with_work(&mut self, desk: &mut Desk) -> Result<(), End> {
        let Some(session) = &self.session else { return Ok(()) };
        match &session.work {
            Work::Job(.., Waits::Turn) => self.go_on_with_job(desk),
            Work::Job(.., Waits::Room) if self.line.is_drained() => self.go_on_with_job(desk),
            _ => Ok(()),
        }
    }

    /// Goes on with one that waited for a rotation: whoever waited for that in its name says that it is over. Asking the
    /// task would not do: it says so before it has finished.
    pub(super) fn go_on_after_rotation(&mut self, desk: &mut Desk) -> Result<(), End> {
        match self.session.as_ref().map(|session| &session.work) {
            Some(Work::Job(.., Waits::Rotation(_))) => self.go_on_with_job(desk),
            _ => Ok(()),
        }
    }

    /// Goes on with one whose time is over, or that waited long enough for a rotation.
    pub(super) fn go_on_with_late_work(&mut self, desk: &mut Desk) -> Result<(), End> {
        if self.has_late_job(desk) { self.go_on_with_job(desk) } else { Ok(()) }
    }

    /// Whether a data request has to be looked at because of the time.
    pub(super) fn has_late_job(&self, desk: &Desk) -> bool {
        let Some(Work::Job(job, _, waits)) = self.session.as_ref().map(|session| &session.work) else {
            return false;
        };
        match waits {
            Waits::Room | Waits::Turn => false,
            Waits::Frame | Waits::Rotation(_) => job.look_at() <= desk.now(),
        }
    }

    fn go_on_with_job(&mut self, desk: &mut Desk) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let Work::Job(job, keeping, waits) = &mut session.work else { return Ok(()) };
        let Some(visitor) = &mut session.visitor else { return Ok(()) };
        let step = run(job, keeping.as_deref_mut(), visitor, &mut self.line, &mut self.share);
        let Some(next) = after(desk, self.key, step) else {
            session.work = Work::None;
            return if visitor.conduct.ends() { Err(End::Faulted) } else { Ok(()) };
        };
        *waits = next;
        Ok(())
    }

    /// Refuses a request that no honest client makes.
    fn fail_on_record(&mut self, desk: &Desk, header: &Header, error: &Error) -> Result<(), End> {
        self.record_refused(desk, error);
        self.fail(header.verb, header.request, error)
    }

    /// Answers a control request.
    pub(super) fn reply(&mut self, asked: &Header, reply: &Reply) -> Result<(), End> {
        let failed = |error| End::Refused(Verb::Control, asked.request, error);
        let frame = control_frame(asked, reply).map_err(failed)?;
        self.line.send(&[&frame]).map_err(|_| End::Gone)
    }

    /// Answers that a request has failed.
    pub(super) fn fail(&mut self, verb: Verb, request: RequestId, error: &Error) -> Result<(), End> {
        let [header, detail] = failure(verb, request, error);
        self.line.send(&[&header, &detail]).map_err(|_| End::Gone)
    }
}

/// What a data request waits for after a step; `None` once it is answered.
fn after(desk: &Desk, key: Key, step: Step) -> Option<Waits> {
    match step {
        Step::Done => None,
        Step::Turn => Some(Waits::Turn),
        Step::Full => Some(Waits::Room),
        Step::Wants => Some(Waits::Frame),
        Step::Rotating(rotating) => {
            let most = Duration::from_millis(limits::ROTATION_WAIT_MS_MAX);
            let mailbox = desk.mailbox.clone();
            let task = desk.runtime.spawn(async move {
                let _ = timeout(most, rotating.over()).await; // either is a reason to look
                mailbox.put(Letter::GoOn(key));
            });
            Some(Waits::Rotation(task.abort_handle()))
        }
    }
}

/// Has a data request do as much as it can. With its answer kept, if it is one that changes something.
fn run(
    job: &mut Job,
    keeping: Option<&mut Keeping>,
    visitor: &mut Visitor,
    line: &mut Line,
    share: &mut Share,
) -> Step {
    match keeping {
        Some(keeping) => job.run(visitor, &mut keeping.through(&mut Out(line)), share),
        None => job.run(visitor, &mut Out(line), share),
    }
}

/// How long a request may take that waits for others.
fn bound(header: &Header) -> Duration {
    Duration::from_millis(match header.deadline_or_code {
        0 => limits::REQUEST_MS_DEFAULT,
        ms => u64::from(ms).min(limits::REMOTE_REQUEST_MS_MAX),
    })
}

/// The header and the body of a failure.
pub(super) fn failure(verb: Verb, request: RequestId, error: &Error) -> [Vec<u8>; 2] {
    let detail = error.detail().as_bytes().to_vec();
    let header = Header {
        verb,
        flags: Flags::ANSWER,
        request,
        body: detail.len() as u32, // a short text of ours
        deadline_or_code: u32::from(error.code() as u16),
        crc: 0,
        items: 0,
    };
    [header.encode().to_vec(), detail]
}

/// Where the answers of a data request go.
pub(super) struct Out<'a>(pub(super) &'a mut Line);

impl Sink for Out<'_> {
    fn has_room(&self) -> bool {
        self.0.is_drained()
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
        const PARTS: usize = 8;
        let header = header.encode();
        let sent = if parts.len() < PARTS {
            let mut all: [&[u8]; PARTS] = [&[]; PARTS];
            all[0] = &header;
            all[1..=parts.len()].copy_from_slice(parts);
            self.0.send(&all[..=parts.len()])
        } else {
            self.0.send(&[&[&header[..]], parts].concat())
        };
        // Whatever became of it: part of it may be under way.
        if let Some(outgoing) = self.0.outgoing() {
            outgoing.carries(rights);
        }
        sent
    }
}
