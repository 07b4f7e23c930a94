//! The beginning of a session: hello, challenge, proof, welcome. Pure.

use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::pop::{Nonce, Proven, Transcript};
use caps::wire::{Reply, Request};

/// Where a session is in its beginning. Each state holds what the next message is judged by, so a message out of
/// order has nothing to be judged by.
#[derive(Debug)]
pub(super) enum Handshake {
    /// Nothing was said.
    Fresh { node: ProviderId, nonce: Nonce, channel: Option<Nonce> },
    /// The challenge is out.
    Challenged { transcript: Transcript, channel: Option<Nonce> },
}

/// What the session does after a message.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one match at the beginning of a session")]
pub(super) enum Next {
    /// Send this and wait for the next message.
    Say(Handshake, Reply),
    /// Possession is proven.
    Done(Proven),
}

impl Handshake {
    /// A session at `node`, with a nonce drawn for it alone. Over TLS `channel` is what its connection alone has.
    pub(super) const fn new(node: ProviderId, nonce: Nonce, channel: Option<Nonce>) -> Self {
        Self::Fresh { node, nonce, channel }
    }

    /// Judges one message.
    ///
    /// # Errors
    /// `E_PROTOCOL` for a message out of order, `E_POSSESSION` for a proof that is none. Both end the session.
    pub(super) fn step(self, request: Request) -> Result<Next> {
        match (self, request) {
            (Self::Fresh { node, nonce, channel }, Request::Hello { holder, nonce: client }) => {
                let transcript = Transcript { node, server: nonce, client, holder };
                Ok(Next::Say(Self::Challenged { transcript, channel }, Reply::Challenge { node, nonce }))
            }
            (Self::Challenged { transcript, channel }, Request::Prove { signature }) => match channel {
                Some(channel) => transcript.verify_over(&channel, &signature).map(Next::Done),
                None => transcript.verify(&signature).map(Next::Done),
            },
            _ => Err(Error::new(Code::Protocol, "a session begins with Hello, then Prove")),
        }
    }
}

#[cfg(test)]
mod tests {
    use caps::key::SigningKey;

    use super::*;

    fn challenged(key: &SigningKey) -> (Handshake, Transcript) {
        let node = ProviderId([1; 16]);
        let hello = Request::Hello { holder: key.public(), nonce: Nonce([2; 32]) };
        match Handshake::new(node, Nonce([3; 32]), None).step(hello).unwrap() {
            Next::Say(next, Reply::Challenge { node, nonce }) => {
                let transcript =
                    Transcript { node, server: nonce, client: Nonce([2; 32]), holder: key.public() };
                (next, transcript)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_right_order_with_the_right_key_proves_it() {
        let key = SigningKey::from_seed(&[4; 32]);
        let (handshake, transcript) = challenged(&key);
        match handshake.step(Request::Prove { signature: transcript.sign(&key) }).unwrap() {
            Next::Done(proven) => assert_eq!(proven.holder(), key.public()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_other_order_or_key_ends_the_session() {
        let (key, thief) = (SigningKey::from_seed(&[4; 32]), SigningKey::from_seed(&[5; 32]));
        let fresh = || Handshake::new(ProviderId([1; 16]), Nonce([3; 32]), None);
        let proof = Request::Prove { signature: challenged(&key).1.sign(&key) };
        assert_eq!(fresh().step(proof).unwrap_err().code(), Code::Protocol);
        assert_eq!(fresh().step(Request::Status).unwrap_err().code(), Code::Protocol);
        let again = Request::Hello { holder: key.public(), nonce: Nonce([2; 32]) };
        assert_eq!(challenged(&key).0.step(again).unwrap_err().code(), Code::Protocol);
        let (handshake, transcript) = challenged(&key);
        let stolen = Request::Prove { signature: transcript.sign(&thief) };
        assert_eq!(handshake.step(stolen).unwrap_err().code(), Code::Possession);
    }
}
