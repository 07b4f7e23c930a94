//! Hello, challenge, proof, welcome: the four messages that begin a session, without I/O.

use caps::error::{Code, Error, Result};
use caps::id::{PrincipalKey, ProviderId};
use caps::key::SigningKey;
use caps::pop::{Nonce, Transcript};
use caps::wire::reply::Welcome;
use caps::wire::{Reply, Request};

/// The client's half of a challenge that is under way.
pub(crate) struct Handshake {
    holder: PrincipalKey,
    nonce: Nonce,
}

/// A proof on its way: the node that was proven to.
pub(crate) struct Proving {
    node: ProviderId,
}

/// Says hello as the holder of `key`.
pub(crate) fn hello(key: &SigningKey) -> (Handshake, Request) {
    let handshake = Handshake { holder: key.public(), nonce: Nonce::random() };
    let request = Request::Hello { holder: handshake.holder, nonce: handshake.nonce };
    (handshake, request)
}

impl Handshake {
    /// Answers the challenge.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the node answered something else.
    pub(crate) fn prove(self, key: &SigningKey, reply: Reply) -> Result<(Proving, Request)> {
        let Reply::Challenge { node, nonce } = reply else {
            return Err(Error::new(
                Code::Protocol,
                "the node answered hello with something else than a challenge",
            ));
        };
        let transcript = Transcript { node, server: nonce, client: self.nonce, holder: self.holder };
        Ok((Proving { node }, Request::Prove { signature: transcript.sign(key) }))
    }
}

impl Proving {
    /// The session stands.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the node answered something else, or names itself differently than in its challenge.
    pub(crate) fn welcome(self, reply: Reply) -> Result<Welcome> {
        match reply {
            Reply::Welcome(welcome) if welcome.provider == self.node => Ok(welcome),
            Reply::Welcome(_) => {
                Err(Error::new(Code::Protocol, "the node welcomes under another id than it challenged under"))
            }
            _ => Err(Error::new(
                Code::Protocol,
                "the node answered the proof with something else than a welcome",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use caps::id::ClusterEpoch;
    use caps::wire::row::Tier;

    use super::*;

    fn welcome(provider: ProviderId) -> Reply {
        Reply::Welcome(Welcome {
            cluster: ClusterEpoch([2; 16]),
            provider,
            name: None,
            admin: false,
            tier: Tier::Open,
        })
    }

    #[test]
    fn the_proof_is_what_a_node_verifies() {
        let key = SigningKey::from_seed(&[4; 32]);
        let node = ProviderId([7; 16]);
        let (handshake, request) = hello(&key);
        let Request::Hello { holder, nonce: client } = request else { panic!("hello comes first") };
        let server = Nonce::random();
        let (proving, request) = handshake.prove(&key, Reply::Challenge { node, nonce: server }).unwrap();
        let Request::Prove { signature } = request else { panic!("the proof comes second") };
        let proven = Transcript { node, server, client, holder }.verify(&signature).unwrap();
        assert_eq!(proven.holder(), key.public());
        assert_eq!(proving.welcome(welcome(node)).unwrap().provider, node);
    }

    #[test]
    fn a_node_that_answers_something_else_is_refused() {
        let key = SigningKey::from_seed(&[4; 32]);
        let (handshake, _) = hello(&key);
        assert_eq!(handshake.prove(&key, Reply::Done).err().unwrap().code(), Code::Protocol);
        let node = ProviderId([7; 16]);
        for reply in [Reply::Done, welcome(ProviderId([8; 16]))] {
            assert_eq!(Proving { node }.welcome(reply).unwrap_err().code(), Code::Protocol);
        }
    }
}
