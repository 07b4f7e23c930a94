//! A session's beginning: certificates, proof of a key, and that both mean the same.
//!
//! ```text
//!   TLS: who does the certificate name? ──▶ Hello / Challenge / Prove over CONTROL ──▶ is the proven key's name that name?
//! ```
//! A certificate opens no memory and a key alone opens no connection: who has one of both stolen has nothing. The proof is
//! made over what this very connection has, so it is worth nothing on another.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::pop::{Nonce, Proven};
use caps::wire::remote::{Ask, Header};
use caps::wire::reply::Welcome;
use caps::wire::{Name, Reply, Request, cbor};
use transport::{Credentials, PeerId, Role};

use super::line::Line;
use super::mailbox::Letter;
use super::shard::Desk;
use super::table::Key;
use crate::gate::handshake::{Handshake, Next};
use crate::gate::visitor::Visitor;
use crate::runtime::{Opener, Origin};

/// How far a session's beginning is.
pub(super) enum Greeting {
    /// TLS is not through. With why the client is refused, once it can be told.
    Tls(Arc<Credentials>, Option<Error>),
    /// It is, and the certificate names somebody.
    Hello(Box<(PeerId, Handshake)>),
    /// A key is proven; the broker is asked whose it is.
    Asked,
}

/// Whether a session begins.
pub(super) struct Greeted {
    /// The request that this answers.
    pub(super) asked: Header,
    /// The visitor with its welcome.
    pub(super) outcome: Result<(Box<Visitor>, Welcome)>,
}

/// What a step of the beginning came to.
#[expect(clippy::large_enum_variant, reason = "it lives for one match at the beginning of a session")]
pub(super) enum Stepped {
    /// Say this and wait for the next message.
    Say(Greeting, Reply),
    /// A letter will say whether it begins.
    Asked,
}

/// TLS is through: who is it?
///
/// # Errors
/// `E_PEER_IDENTITY` if it is nobody who may hold leases, or why it was refused before.
pub(super) fn begin(
    desk: &Desk,
    line: &Line,
    credentials: &Credentials,
    refused: Option<&Error>,
) -> Result<Greeting> {
    let peer = credentials.peer(line.tls())?;
    // What is believed may have changed since the handshake began.
    let now = desk.credentials.now();
    if !std::ptr::eq(&raw const *now, credentials) {
        now.judge_again(line.tls())?;
    }
    if peer.role != Role::Principal {
        return Err(Error::new(Code::PeerIdentity, "the certificate is not a principal's"));
    }
    if let Some(error) = refused {
        return Err(error.clone());
    }
    let node = desk.shared.provider.config().provider;
    let channel = transport::binding(line.tls())?;
    Ok(Greeting::Hello(Box::new((peer, Handshake::new(node, Nonce::random(), Some(channel))))))
}

/// One frame of the beginning.
///
/// # Errors
/// What ends the connection.
pub(super) fn step(
    desk: &Desk,
    key: Key,
    address: IpAddr,
    (peer, handshake): (PeerId, Handshake),
    header: &Header,
    body: &[u8],
) -> Result<Stepped> {
    let Ask::Control(body) = Ask::decode(header, body)? else {
        return Err(Error::new(Code::Protocol, "a session begins with Hello, then Prove"));
    };
    match handshake.step(cbor::decode::<Request>(body)?)? {
        Next::Say(handshake, reply) => Ok(Stepped::Say(Greeting::Hello(Box::new((peer, handshake))), reply)),
        Next::Done(proven) => {
            ask(desk, key, address, peer, *header, proven);
            Ok(Stepped::Asked)
        }
    }
}

/// Asks the broker whose key it is, beside the shard.
fn ask(desk: &Desk, key: Key, address: IpAddr, peer: PeerId, asked: Header, proven: Proven) {
    let (shared, mailbox) = (desk.shared.clone(), desk.mailbox.clone());
    desk.runtime.spawn(async move {
        let (name, _) = shared.control.principal(proven.holder()).await;
        let outcome = match is_same(&peer, proven.holder(), name.as_ref()) {
            Ok(()) => {
                let session = shared.next.fetch_add(1, Ordering::Relaxed);
                let opener = Opener { session, origin: Origin::Network { address }, proven };
                let visitor = Box::new(Visitor::new(shared, opener, None));
                let welcome = visitor.standing().await;
                Ok((visitor, welcome))
            }
            Err(error) => Err(error),
        };
        mailbox.put(Letter::Greeted(key, Box::new(Greeted { asked, outcome })));
    });
}

/// Whether a certificate and a proven key are of the same principal.
fn is_same(peer: &PeerId, proven: PrincipalKey, registered: Option<&Name>) -> Result<()> {
    let refused = |why| Err(Error::new(Code::PeerIdentity, why));
    if peer.key.is_some_and(|key| key != proven) {
        return refused("the certificate vouches for another key than the one that was proven");
    }
    match registered {
        Some(name) if *name == peer.name => Ok(()),
        Some(_) => refused("the proven key is registered under another name than the certificate's"),
        None => refused("the proven key is not registered at this node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_and_a_key_have_to_mean_the_same_principal() {
        let (key, other) = (PrincipalKey([1; 32]), PrincipalKey([2; 32]));
        let name = |text| Name::new(text).unwrap();
        let peer = |named| PeerId {
            domain: transport::Domain::new("mem.example").unwrap(),
            role: Role::Principal,
            name: name("alice"),
            key: named,
        };
        let code = |peer, key, registered: Option<Name>| {
            is_same(&peer, key, registered.as_ref()).map_err(|e| e.code())
        };
        let refused = Err(Code::PeerIdentity);
        assert_eq!(code(peer(None), key, Some(name("alice"))), Ok(()));
        assert_eq!(code(peer(Some(key)), key, Some(name("alice"))), Ok(()));
        assert_eq!(code(peer(Some(other)), key, Some(name("alice"))), refused);
        assert_eq!(code(peer(Some(key)), other, Some(name("alice"))), refused);
        assert_eq!(code(peer(None), key, Some(name("bob"))), refused);
        assert_eq!(code(peer(None), key, None), refused);
        assert_eq!(code(peer(Some(key)), key, None), refused);
    }
}
