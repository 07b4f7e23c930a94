//! Requests whose number is known: the rest of their frames is read, then they are answered as before.

use caps::error::{Code, Error, Result};
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Header};
use policy::fault::Reaction;

use super::connection::{Connection, End, Work};
use super::effects::Connected;
use super::fingerprint::Fingerprint;
use super::job::Sink;
use super::keeping;
use super::requests::Out;
use super::shard::Desk;
use super::words::Word;
use crate::gate::fault::Fault;
use crate::gate::visitor::Visitor;

/// A request with the number of one that was answered.
pub(super) struct Again {
    header: Header,
    print: Fingerprint,
    /// A word that it is about: what it was is told while the right is open, and not after.
    word: Option<Word>,
}

impl Again {
    pub(super) fn new(header: &Header, ask: &Ask<'_>, print: Fingerprint) -> Self {
        let word = match ask {
            Ask::Cas(swap) => Some(Word::from(*swap)),
            Ask::FetchAdd(add) => Some(Word::from(*add)),
            _ => None,
        };
        Self { header: *header, print, word }
    }

    /// A further frame of it.
    pub(super) fn feed(&mut self, further: &Further<'_>, visitor: &Visitor) {
        self.print.feed(further, |handle| visitor.lease_of(handle));
    }

    /// Gives the answer to `out`, once all of it has come.
    ///
    /// # Errors
    /// What it is answered with instead; or the connection is gone.
    fn answer(&self, connected: &Connected, visitor: &mut Visitor, out: &mut dyn Sink) -> Result<()> {
        let request = self.header.request;
        let kept = connected.again(request, Some(self.print.identity()))?;
        match &self.word {
            Some(word) => word.repeat(&kept, request, visitor, out),
            None => keeping::repeat(&kept, request, out, &[]),
        }
    }
}

impl Connection {
    /// Answers a request whose number is known, all of which has come.
    pub(super) fn answer_again(&mut self, desk: &Desk, again: &Again) -> Result<(), End> {
        let Some(session) = &mut self.session else { return Err(End::Gone) };
        session.work = Work::None;
        let Some(visitor) = &mut session.visitor else { return Err(End::Gone) };
        let answered = again.answer(&session.connected, visitor, &mut Out(&mut self.line));
        let ends = visitor.conduct.ends();
        if let Err(error) = answered {
            self.refuse(desk, &again.header, &error)?;
        }
        if ends { Err(End::Faulted) } else { Ok(()) }
    }

    /// Answers that a request is refused because of its number. That it is another one's is on record.
    pub(super) fn refuse(&mut self, desk: &Desk, header: &Header, error: &Error) -> Result<(), End> {
        if error.code() == Code::FrameDuplicate
            && let Some(session) = &self.session
        {
            let opener = session.opener;
            let entry = opener.identified(Fault::protocol(error).entry()).reaction(Reaction::Log.name());
            desk.shared.rejects.deny(opener.origin.source(), entry);
        }
        self.fail(header.verb, header.request, error)
    }
}
