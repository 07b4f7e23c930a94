//! What a frame asks for, and who does it.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Flags, Header, Verb};
use caps::wire::{Reply, Request, cbor};
use policy::limits;
use tokio::time::timeout;

use super::connection::{Connection, End, Session, Stage, Waits, Work};
use super::control::{self, Errand};
use super::greeting::{self, Greeted, Greeting, Stepped};
use super::job::{Job, Sink, Step};
use super::line::Line;
use super::mailbox::Letter;
use super::shard::Desk;
use super::table::Key;
use crate::gate::answered::{Answered, Identity, Known};
use crate::gate::fault::Fault;
use crate::runtime::Client;
use policy::fault::Reaction;

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
                    self.reply(header.request, &reply)?;
                }
                Ok(())
            }
            Stage::Open => self.asked(desk, header, body),
            Stage::Parting(_) | Stage::Dead => Ok(()),
        }
    }

    /// The broker has said whose key it is.
    pub(super) fn greeted(&mut self, desk: &mut Desk, greeted: Greeted) -> Result<(), End> {
        let Greeted { request, outcome } = greeted;
        if !self.is_greeting() {
            return Ok(()); // it is parting: nothing was registered in its name
        }
        let refused = |error| End::Refused(Verb::Control, request, error);
        let (visitor, welcome) = outcome.map_err(refused)?;
        let opener = visitor.opener;
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
            answered: Answered::default(),
        }));
        self.stage = Stage::Open;
        self.seat.greeted();
        self.reply(request, &Reply::Welcome(welcome))
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
            // Without a job the request has failed already, and nobody reads the rest of it.
            let Work::Job(job, _) = &mut session.work else { return Ok(()) };
            let further = Further::decode(header, body).map_err(refused)?;
            job.feed(header, further).map_err(refused)?;
            return self.go_on_with_job(desk);
        }
        if header.has_more() {
            session.expects = Some((header.verb, header.request));
        }
        let ask = match Ask::decode(header, body) {
            Ok(ask) => ask,
            Err(error) if is_of_frames(&error) => return Err(refused(error)),
            Err(error) => return self.fail(header.verb, header.request, &error),
        };
        if desk.is_late() {
            let busy = Error::new(Code::Busy, "the node has more to do than it can; try again");
            return self.fail(header.verb, header.request, &busy);
        }
        match ask {
            Ask::Control(body) => self.control(desk, header, body),
            Ask::Create(_) | Ask::Delete(_) => {
                let none = Error::new(Code::Protocol, "this node makes no leases over TLS");
                self.fail(header.verb, header.request, &none)
            }
            ask => {
                let mut job = Job::begin(header, ask, desk.shared.provider.clock().boot());
                let Some(visitor) = &mut session.visitor else { return Err(End::Gone) };
                let step = job.run(visitor, &mut Out(&mut self.line));
                let Some(waits) = after(desk, self.key, None, step) else {
                    return if visitor.conduct.ends() { Err(End::Faulted) } else { Ok(()) };
                };
                // Most are done by now, and cost no memory of their own.
                session.work = Work::Job(Box::new(job), waits);
                Ok(())
            }
        }
    }

    /// A request of the local socket.
    fn control(&mut self, desk: &mut Desk, header: &Header, body: &[u8]) -> Result<(), End> {
        let id = header.request;
        let refused = |error| End::Refused(Verb::Control, id, error);
        let request: Request = cbor::decode(body).map_err(refused)?;
        if matches!(request, Request::Hello { .. } | Request::Prove { .. }) {
            return Err(refused(Error::new(Code::Protocol, "the session has begun already")));
        }
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        let identity = Identity::of(&request, body);
        let known = match session.answered.find(id, identity) {
            Known::New => None,
            Known::Answered(frame) => Some(Ok(frame)),
            Known::NotRepeatable => Some(Err("the request was answered, and its answer is not kept")),
            Known::Other => Some(Err("the number is that of another request of this session")),
        };
        match known {
            Some(Ok(frame)) => return self.line.send(&[frame]).map_err(|_| End::Gone),
            Some(Err(why)) => {
                let error = Error::new(Code::FrameDuplicate, why);
                let opener = session.opener;
                let entry = opener.identified(Fault::protocol(&error).entry()).reaction(Reaction::Log.name());
                desk.shared.rejects.deny(opener.origin.source(), entry);
                return self.fail(Verb::Control, id, &error);
            }
            None => {}
        }
        let Some(visitor) = session.visitor.take() else { return Err(End::Gone) };
        let errand = Errand { visitor, request: id, identity, answer: None };
        let limit = match header.deadline_or_code {
            0 => limits::REQUEST_MS_DEFAULT,
            ms => u64::from(ms).min(limits::REMOTE_REQUEST_MS_MAX),
        };
        let limit = Duration::from_millis(limit);
        let task = control::send_off(&desk.runtime, &desk.mailbox, self.key, errand, request, limit);
        session.work = Work::Errand(task);
        Ok(())
    }

    /// A control request was worked on.
    pub(super) fn back(&mut self, errand: Errand) -> Result<(), End> {
        let Errand { mut visitor, request, identity, answer } = errand;
        let Some(session) = &mut self.session else { return Ok(()) };
        session.work = Work::None;
        if answer.as_ref().is_some_and(|answer| answer.as_ref().is_err_and(|e| e.code() == Code::Quota)) {
            visitor.refused_by_quota();
        }
        let ends = visitor.conduct.ends();
        session.visitor = Some(visitor);
        if !matches!(self.stage, Stage::Open) {
            return Ok(()); // it is parting, and ends the session at its next turn
        }
        // Given up by nobody but this shard, which then closes: or it panicked.
        let answer =
            answer.unwrap_or(Err(Error::new(Code::Internal, "the request was not worked on to its end")));
        let frame = match &answer {
            Ok(reply) => control_frame(request, reply)?,
            Err(error) => failure(Verb::Control, request, error).concat(),
        };
        if let Some(identity) = identity {
            session.answered.keep(request, identity, Some(&frame));
        }
        self.line.send(&[&frame]).map_err(|_| End::Gone)?;
        if ends { Err(End::Faulted) } else { Ok(()) }
    }

    /// Goes on with a data request that waited for room, or for a rotation that is over.
    pub(super) fn go_on_with_work(&mut self, desk: &mut Desk) -> Result<(), End> {
        let Some(session) = &self.session else { return Ok(()) };
        match &session.work {
            Work::Job(_, Waits::Turn) => self.go_on_with_job(desk),
            Work::Job(_, Waits::Room) if self.line.is_drained() => self.go_on_with_job(desk),
            Work::Job(_, Waits::Rotation(task, _)) if task.is_finished() => self.go_on_with_job(desk),
            _ => Ok(()),
        }
    }

    /// Goes on with one whose time is over, or that waited long enough for a rotation.
    pub(super) fn go_on_with_late_work(&mut self, desk: &mut Desk) -> Result<(), End> {
        if self.has_late_job(desk) { self.go_on_with_job(desk) } else { Ok(()) }
    }

    /// Whether a data request has to be looked at because of the time.
    pub(super) fn has_late_job(&self, desk: &Desk) -> bool {
        let Some(Work::Job(job, waits)) = self.session.as_ref().map(|session| &session.work) else {
            return false;
        };
        let late = || job.deadline() <= desk.shared.provider.clock().boot();
        match waits {
            Waits::Room | Waits::Turn => false,
            Waits::Frame => late(),
            Waits::Rotation(_, until) => *until <= Instant::now() || late(),
        }
    }

    fn go_on_with_job(&mut self, desk: &mut Desk) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let Work::Job(job, waits) = &mut session.work else { return Ok(()) };
        let Some(visitor) = &mut session.visitor else { return Ok(()) };
        let step = job.run(visitor, &mut Out(&mut self.line));
        let Some(next) = after(desk, self.key, Some(waits), step) else {
            session.work = Work::None;
            return if visitor.conduct.ends() { Err(End::Faulted) } else { Ok(()) };
        };
        *waits = next;
        Ok(())
    }

    /// Answers a control request.
    pub(super) fn reply(&mut self, request: RequestId, reply: &Reply) -> Result<(), End> {
        let frame = control_frame(request, reply)?;
        self.line.send(&[&frame]).map_err(|_| End::Gone)
    }

    /// Answers that a request has failed.
    pub(super) fn fail(&mut self, verb: Verb, request: RequestId, error: &Error) -> Result<(), End> {
        let [header, detail] = failure(verb, request, error);
        self.line.send(&[&header, &detail]).map_err(|_| End::Gone)
    }
}

/// What a data request waits for after a step; `None` once it is answered.
fn after(desk: &Desk, key: Key, before: Option<&Waits>, step: Step) -> Option<Waits> {
    match step {
        Step::Done => None,
        Step::Turn => Some(Waits::Turn),
        Step::Full => Some(Waits::Room),
        Step::Wants => Some(Waits::Frame),
        Step::Rotating(rotating) => {
            let most = Duration::from_millis(limits::ROTATION_WAIT_MS_MAX);
            // How long it has waited counts from the first time.
            let until = match before {
                Some(Waits::Rotation(_, until)) => *until,
                _ => Instant::now() + most,
            };
            let mailbox = desk.mailbox.clone();
            let task = desk.runtime.spawn(async move {
                let _ = timeout(most, rotating.over()).await; // either is a reason to look
                mailbox.put(Letter::GoOn(key));
            });
            Some(Waits::Rotation(task.abort_handle(), until))
        }
    }
}

/// A reply with its header before it.
fn control_frame(request: RequestId, reply: &Reply) -> Result<Vec<u8>, End> {
    let failed = |error| End::Refused(Verb::Control, request, error);
    let mut body = Vec::new();
    cbor::append(reply, &mut body).map_err(failed)?;
    let header = Header::of(Verb::Control, Flags::ANSWER, request, body.len()).map_err(failed)?;
    Ok([&header.encode()[..], &body].concat())
}

/// The header and the body of a failure.
fn failure(verb: Verb, request: RequestId, error: &Error) -> [Vec<u8>; 2] {
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
struct Out<'a>(&'a mut Line);

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
