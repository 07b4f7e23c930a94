//! Proof of possession: once per session, for every token of that holder.
//!
//! The client names a key and a nonce; the node answers with its id and a nonce of its own; the client signs both.
//! The node's id keeps a proof from being relayed to another node, its nonce from being replayed, the client's
//! nonce keeps a lying node from choosing the whole message.
//!
//! Over TLS the client signs, in addition, 32 bytes that this connection alone has (RFC 8446, section 7.5): whoever
//! stands between two connections can pass the messages on, and the proof is of no use to it.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{PrincipalKey, ProviderId};
use crate::key::{Purpose, Signature, SigningKey, VerifyingKey};

/// 32 random bytes, used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Nonce {
    /// Draws a nonce.
    ///
    /// # Panics
    /// If the kernel has no random source.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the kernel's random source answers");
        Self(bytes)
    }
}

/// What the holder signs: node, both nonces, the holder's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The node that asked.
    pub node: ProviderId,
    /// The node's nonce.
    pub server: Nonce,
    /// The client's nonce.
    pub client: Nonce,
    /// The key that the client says it holds.
    pub holder: PrincipalKey,
}

/// Evidence that a session holds a key. Made by [`Transcript::verify`] and nowhere else.
///
/// ```compile_fail
/// let proven = caps::pop::Proven { holder: caps::id::PrincipalKey([0; 32]) };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    holder: PrincipalKey,
}

impl Proven {
    /// The key that was proven.
    #[must_use]
    pub const fn holder(self) -> PrincipalKey {
        self.holder
    }
}

impl Transcript {
    fn message(&self) -> Vec<u8> {
        [&self.node.0[..], &self.server.0, &self.client.0, &self.holder.0].concat()
    }

    fn message_over(&self, channel: &Nonce) -> Vec<u8> {
        [&self.message()[..], &channel.0].concat()
    }

    /// The client's side on a TLS connection, with what that connection alone has.
    #[must_use]
    pub fn sign_over(&self, channel: &Nonce, key: &SigningKey) -> Signature {
        key.sign(Purpose::PossessionOverTls, &self.message_over(channel))
    }

    /// The node's side of it.
    ///
    /// # Errors
    /// As [`Self::verify`]; a proof of another connection is none of this one.
    pub fn verify_over(&self, channel: &Nonce, signature: &Signature) -> Result<Proven> {
        self.judge(Purpose::PossessionOverTls, &self.message_over(channel), signature)
    }

    /// The client's side.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Signature {
        key.sign(Purpose::Possession, &self.message())
    }

    /// The node's side.
    ///
    /// # Errors
    /// `E_POSSESSION` if the key is weak or the signature is not its.
    pub fn verify(&self, signature: &Signature) -> Result<Proven> {
        self.judge(Purpose::Possession, &self.message(), signature)
    }

    fn judge(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> Result<Proven> {
        let refused = Error::new(Code::Possession, "the session's key did not sign this session's challenge");
        let key = VerifyingKey::parse(self.holder).map_err(|_| refused.clone())?;
        if key.verifies(purpose, message, signature) {
            Ok(Proven { holder: self.holder })
        } else {
            Err(refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_serves_one_session_of_one_key_at_one_node() {
        let key = SigningKey::from_seed(&[9; 32]);
        let transcript = Transcript {
            node: ProviderId([1; 16]),
            server: Nonce([2; 32]),
            client: Nonce([3; 32]),
            holder: key.public(),
        };
        let proof = transcript.sign(&key);
        assert_eq!(transcript.verify(&proof).unwrap().holder(), key.public());
        let other = SigningKey::from_seed(&[8; 32]).public();
        for wrong in [
            Transcript { node: ProviderId([0; 16]), ..transcript },
            Transcript { server: Nonce([0; 32]), ..transcript },
            Transcript { client: Nonce([0; 32]), ..transcript },
            Transcript { holder: other, ..transcript },
            Transcript { holder: PrincipalKey([0; 32]), ..transcript },
        ] {
            assert_eq!(wrong.verify(&proof).unwrap_err().code(), Code::Possession);
        }
    }

    #[test]
    fn a_proof_over_tls_serves_one_connection() {
        let key = SigningKey::from_seed(&[9; 32]);
        let node = ProviderId([1; 16]);
        let transcript =
            Transcript { node, server: Nonce([2; 32]), client: Nonce([3; 32]), holder: key.public() };
        let (here, elsewhere) = (Nonce([4; 32]), Nonce([5; 32]));
        let proof = transcript.sign_over(&here, &key);
        assert_eq!(transcript.verify_over(&here, &proof).unwrap().holder(), key.public());
        assert_eq!(transcript.verify_over(&elsewhere, &proof).unwrap_err().code(), Code::Possession);
        assert_eq!(transcript.verify(&proof).unwrap_err().code(), Code::Possession);
        let local = transcript.sign(&key);
        assert_eq!(transcript.verify_over(&here, &local).unwrap_err().code(), Code::Possession);
    }
}
