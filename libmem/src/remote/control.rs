//! One request of the socket's protocol, in CBOR.

use caps::error::{Code, Error};
use caps::id::SlotHandle;
use caps::wire::remote::Verb;
use caps::wire::remote::answer::Answer;
use caps::wire::request::{Effect, Path};
use caps::wire::{Reply, Request, cbor};

use super::talk::{Frame, Taken, Talk};

/// A request, and its answer once that is here.
pub(super) struct Control {
    request: Request,
    reply: Option<Reply>,
}

impl Control {
    pub(super) const fn new(request: Request) -> Self {
        Self { request, reply: None }
    }

    /// What came.
    ///
    /// # Errors
    /// `E_INTERNAL` before it did.
    pub(super) fn reply(self) -> Result<Reply, Error> {
        self.reply.ok_or(Error::new(Code::Internal, "an answer is read that did not come"))
    }
}

impl Talk for Control {
    fn verb(&self) -> Verb {
        Verb::Control
    }

    fn changes(&self) -> bool {
        self.request.effect() == Effect::Lasting
    }

    fn frame<'a>(
        &'a self,
        _: usize,
        _: usize,
        _: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        cbor::append(&self.request, head)?;
        Ok(Frame { items: 0, more: false, data: &[] })
    }

    fn take(&mut self, _: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        let Taken::Came(Answer::Control(body)) = answer else { return Err(Code::Internal.into()) };
        let reply: Reply = cbor::decode(body)?;
        match &reply {
            Reply::Opened(opened) => {
                let asked = matches!(self.request, Request::Open { path: Path::Mediated, .. });
                if !asked || opened.mapped {
                    return Err(Error::new(Code::Protocol, "a right was opened that was not asked for"));
                }
            }
            Reply::Segment { .. } | Reply::Channel => {
                return Err(Error::new(Code::Protocol, "the node announced a descriptor over TLS"));
            }
            _ => {}
        }
        self.reply = Some(reply);
        Ok(())
    }
}
