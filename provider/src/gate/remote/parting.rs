//! The ends of a connection: told, recorded, closed.

use std::time::{Duration, Instant};

use audit::rejects::Source;
use caps::error::{Code, Error};
use policy::fault::Reaction;
use policy::limits;

use super::connection::{Connection, End, Stage, Turn, Work};
use super::line::Received;
use super::shard::Desk;
use crate::gate::fault::Fault;
use crate::runtime::Outgoing;

impl Connection {
    /// Ends the connection: what lives with it at once, the rest once the client has been told.
    pub(super) fn part(&mut self, desk: &mut Desk, end: End) -> Turn {
        self.frame_by = None; // no frame is waited for any more
        self.let_go();
        let alerted = matches!(end, End::Tls(_));
        let told = match end {
            End::Gone => {
                self.note_unbegun(desk);
                false
            }
            End::Left => {
                self.note_unbegun(desk);
                // It closed its direction alone, and what it asked for is under way.
                self.session.is_some()
                    && !(self.line.is_drained() && self.line.outgoing().is_none_or(Outgoing::is_settled))
            }
            End::Tls(error) => {
                let shown = Error::with(Code::PeerIdentity, error.to_string());
                tracing::debug!(%error, address = %self.address, "a TLS connection was refused");
                self.record(desk, &shown);
                // The alert is on its way; what the client sent behind it must not make the kernel take it back.
                true
            }
            End::Refused(verb, request, error) => {
                self.record(desk, &error);
                self.fail(verb, request, &error).is_ok()
            }
            End::Told(error) => {
                if self.session.is_none() {
                    desk.shared.rejects.note(self.seat.source(), &error);
                }
                self.fail(caps::wire::remote::Verb::Control, caps::id::RequestId(0), &error).is_ok()
            }
            End::Faulted => true,
        };
        if let Some(Work::Errand(task)) = self.session.as_ref().map(|session| &session.work) {
            task.give_up();
        }
        if !told {
            return self.die(desk);
        }
        self.line.say_goodbye(!alerted);
        self.stage = Stage::Parting(Instant::now() + Duration::from_millis(limits::REMOTE_PARTING_MS_MAX));
        self.turn(desk)
    }

    /// Counts a client that hung up before its session began.
    fn note_unbegun(&self, desk: &Desk) {
        if let Stage::Greeting(greeting, _) = &self.stage
            && !matches!(greeting, super::greeting::Greeting::Asked)
        {
            let error = Error::new(Code::FrameTruncated, "the client hung up before its session began");
            desk.shared.rejects.note(self.seat.source(), &error);
        }
    }

    /// Puts a request on record that breaks a rule, and is refused without ending the session.
    pub(super) fn record_refused(&self, desk: &Desk, error: &Error) {
        if let Some(session) = &self.session {
            let entry = Fault::protocol(error).entry();
            let entry = session.opener.identified(entry).reaction(Reaction::Log.name());
            desk.shared.rejects.deny(session.opener.origin.source(), entry);
        }
    }

    /// Puts a broken rule on record: with the session's facts where there is one, else gathered with those of its network.
    fn record(&mut self, desk: &Desk, error: &Error) {
        let Some(session) = &mut self.session else {
            let source: Source = self.seat.source();
            desk.shared.rejects.note(source, error);
            return;
        };
        let fault = Fault::protocol(error);
        match &mut session.visitor {
            Some(visitor) => visitor.fault(&fault, Reaction::Fault),
            None => {
                let entry = session.opener.identified(fault.entry()).reaction(Reaction::Fault.name());
                desk.shared.rejects.deny(session.opener.origin.source(), entry);
            }
        }
    }

    /// Records that a client does not read what it asked for.
    pub(super) fn record_unread(&mut self, desk: &Desk) {
        self.record(desk, &crate::gate::session::unread());
    }

    /// Goes on with parting: sends what is left, throws away what comes, and ends the session once all has arrived.
    pub(super) fn go_on_parting(&mut self, desk: &mut Desk) -> Turn {
        if self.line.flush().is_err() {
            return self.die(desk);
        }
        let Ok(came) = self.line.discard(&mut desk.cipher) else { return self.die(desk) };
        // What has not arrived when the session ends never will.
        if self.line.is_drained() && self.line.outgoing().is_none_or(Outgoing::is_settled) {
            self.end_session(desk);
            if came == Received::End {
                return self.die(desk);
            }
        }
        if matches!(came, Received::Some { .. }) { Turn::Again } else { Turn::Waits }
    }

    /// Ends what lives with the session, as soon as nobody acts in its name any more.
    fn end_session(&mut self, desk: &Desk) {
        let Some(session) = &self.session else { return };
        if session.visitor.is_none() {
            return; // its letter is on the way
        }
        if let Some(outgoing) = self.line.outgoing() {
            outgoing.end();
        }
        let id = session.opener.session;
        desk.shared.provider.session_ended(id);
        desk.shared.control.session_ended(id);
        self.session = None;
    }

    /// Closes the socket.
    pub(super) fn die(&mut self, desk: &Desk) -> Turn {
        self.stage = Stage::Dead;
        self.end_session(desk);
        self.line.hang_up();
        if self.session.is_some() { Turn::Waits } else { Turn::Over }
    }
}
