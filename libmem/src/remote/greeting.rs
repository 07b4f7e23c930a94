//! Certificates, proof and resumption: how a connection becomes a session.

use std::sync::Arc;

use caps::error::{Code, Error};
use caps::id::{ClientId, SlotHandle};
use caps::key::SigningKey;
use caps::pop::{Nonce, Transcript};
use caps::wire::reply::Welcome;
use caps::wire::{Name, Reply, Request};
use std::time::Duration;
use transport::{Credentials, PeerId, Role};

use super::control::Control;
use super::failure::Failure;
use super::talk::{Connection, Progress};
use super::tls::{Tls, sooner};
use crate::endpoint::HANDSHAKE_SECONDS;
use crate::local::Deadline;

/// Who connects, where, and whom it expects there.
pub(super) struct Greeting {
    pub(super) address: Box<str>,
    pub(super) credentials: Arc<Credentials>,
    /// The provider that is wanted there. Where the caller names none it is the one that the first connection led to.
    pub(super) node: Option<Name>,
    /// What it has to be. Where the caller does not say, it is what the first connection led to.
    pub(super) role: Option<Role>,
    pub(super) checked: bool,
    /// How long a request may take.
    pub(super) timeout: Duration,
    /// A copy of the caller's, which wipes itself.
    pub(super) key: SigningKey,
}

/// A session as it begins.
pub(super) struct Begun {
    pub(super) connection: Connection,
    pub(super) welcome: Welcome,
    /// Whose certificate the node has.
    pub(super) peer: PeerId,
    pub(super) memory: Memory,
}

/// What the node remembers of what it answers to this program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// What it answered over earlier connections, and what it will over this one.
    Known,
    /// What it will answer over this connection, for the next one.
    New,
    /// Nothing: it has no room.
    None,
}

/// No right: the requests here name none.
const NONE: SlotHandle = SlotHandle { slot: 0, epoch: 0 };

impl Greeting {
    /// Connects, proves the key over this very connection, and says which program this is. `next` numbers the requests.
    /// `named` becomes true once the node may have heard of `client`, whether that is answered or not.
    pub(super) fn connect(
        &self,
        next: &mut u64,
        client: ClientId,
        named: &mut bool,
        deadline: Deadline,
    ) -> Result<Begun, Failure> {
        let step = Duration::from_secs(HANDSHAKE_SECONDS).min(self.timeout);
        let (mut tls, peer) =
            Tls::connect(&self.address, &self.credentials, sooner(deadline, step)).map_err(begun)?;
        self.judge(&peer)?;
        let channel = tls.binding()?;
        tls.set_timeout(step)?;
        let mut connection = Connection::new(tls, self.checked, step);
        let mut ask = |request| {
            let mut control = Control::new(request);
            let mut progress = Progress::new(&control, *next);
            *next += 1;
            let outcome = connection.run(&mut control, &mut progress, NONE, sooner(deadline, step));
            outcome.and_then(|()| control.reply().map_err(Failure::Lied))
        };

        let (holder, nonce) = (self.key.public(), Nonce::random());
        let Reply::Challenge { node, nonce: server } =
            ask(Request::Hello { holder, nonce }).map_err(begun)?
        else {
            return Err(Failure::lied("the node answered hello with something else than a challenge"));
        };
        let transcript = Transcript { node, server, client: nonce, holder };
        let signature = transcript.sign_over(&channel, &self.key);
        let Reply::Welcome(welcome) = ask(Request::Prove { signature }).map_err(begun)? else {
            return Err(Failure::lied("the node answered the proof with something else than a welcome"));
        };
        if welcome.provider != node {
            return Err(Failure::lied("the node welcomes under another id than it challenged under"));
        }
        let before = std::mem::replace(named, true);
        let memory = match ask(Request::Resume { client }) {
            // What it knows may be no more than that it was named in an attempt that was lost.
            Ok(Reply::Resumed { known }) if known && !before => Memory::Known,
            Ok(Reply::Resumed { .. }) => Memory::New,
            Ok(_) => {
                let other =
                    "the node answered the name of a client with something else than what it knows of it";
                return Err(Failure::lied(other));
            }
            // It remembers as many programs as it can: what is asked here is of this connection alone.
            Err(Failure::Own(error)) if error.code() == Code::Busy => Memory::None,
            Err(failure) => return Err(begun(failure)),
        };
        connection.set_timeout(self.timeout)?;
        Ok(Begun { connection, welcome, peer, memory })
    }

    /// Whether who answered may be a node, and this one.
    fn judge(&self, peer: &PeerId) -> Result<(), Failure> {
        let refused = |detail| Err(Failure::Refused(Error::new(Code::PeerIdentity, detail)));
        let node = matches!(peer.role, Role::Provider | Role::Broker);
        if !node || peer.domain != self.credentials.id().domain {
            return refused(
                "the certificate at the other end is not that of a broker or a provider of this domain",
            );
        }
        if self.node.as_ref().is_some_and(|name| *name != peer.name) {
            return refused("the certificate at the other end is that of another node");
        }
        match self.role {
            None => {}
            Some(wanted) if wanted == peer.role => {}
            Some(Role::Broker) => {
                return refused(
                    "the certificate at the other end is a provider's, and a broker is wanted there",
                );
            }
            Some(_) => {
                return refused(
                    "the certificate at the other end is a broker's, and a provider is wanted there",
                );
            }
        }
        Ok(())
    }
}

/// What a refusal means for a connection that is no session yet: nothing of it is of use.
fn begun(failure: Failure) -> Failure {
    match failure {
        Failure::Own(error) if matches!(error.code(), Code::Busy | Code::Timeout | Code::Unreachable) => {
            Failure::Lost(error)
        }
        Failure::Own(error) => Failure::Refused(error),
        Failure::Late => {
            Failure::Lost(Error::new(Code::Timeout, "the node did not begin the session in time"))
        }
        Failure::Ended => Failure::lost("the node ended the connection before the session had begun"),
        other => other,
    }
}
