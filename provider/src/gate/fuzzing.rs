//! What a hostile client can say first: a session's beginning written by a fuzzer, and what must hold of it.
//!
//! Bytes alone make no signature, so the author has keys: his own, and what he could have overheard, which is every
//! transcript but the one of this session.

use caps::error::Code;
use caps::id::{PrincipalKey, ProviderId};
use caps::key::{Signature, SigningKey};
use caps::pop::{Nonce, Transcript};
use caps::wire::{Frame, FrameKind, Reply, Request};

use super::handshake::{Handshake, Next};
use crate::kernel::fuzzing::Bytes;

const NODE: ProviderId = ProviderId([1; 16]);
const NONCE: Nonce = Nonce([3; 32]);
/// Messages of one beginning. The second ends it, or the first.
const STEPS_MAX: usize = 4;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n % 4 + 1; 32])
}

/// The fuzz target: bytes become messages, in any order, of any key.
pub fn handshake(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut handshake = Handshake::new(NODE, NONCE, None);
    // What was said first, if it was a hello: whom, with which nonce, and which of our keys that is.
    let mut said: Option<(PrincipalKey, Nonce, Option<u8>)> = None;
    for _ in 0..STEPS_MAX {
        let Some(step) = bytes.byte() else { return };
        let n = step / 8;
        let (request, proves) = match step % 8 {
            0 | 1 => (Request::Hello { holder: key(n).public(), nonce: Nonce(array(&mut bytes)) }, false),
            2 => (
                Request::Hello { holder: PrincipalKey(array(&mut bytes)), nonce: Nonce(array(&mut bytes)) },
                false,
            ),
            3 => (Request::Prove { signature: Signature(array(&mut bytes)) }, false),
            4..=6 => {
                let (transcript, fits) = overheard(n, said);
                let signer = bytes.byte().unwrap_or(0);
                let ours = said.and_then(|(.., ours)| ours);
                let proves = fits && ours.is_some_and(|ours| ours == signer % 4);
                (Request::Prove { signature: transcript.sign(&key(signer)) }, proves)
            }
            _ => match Frame::decode(bytes.0).ok().filter(|frame| frame.kind == FrameKind::Request) {
                Some(frame) => match frame.body::<Request>() {
                    // What the other steps say is said by them, with what is known of it.
                    Ok(Request::Hello { .. } | Request::Prove { .. }) | Err(_) => return,
                    Ok(request) => (request, false),
                },
                None => return,
            },
        };
        let hello = match &request {
            Request::Hello { holder, nonce } => Some((*holder, *nonce)),
            _ => None,
        };
        let is_prove = matches!(request, Request::Prove { .. });
        match handshake.step(request) {
            Ok(Next::Say(next, reply)) => {
                let (holder, nonce) = hello.expect("only a hello is answered");
                assert!(said.is_none(), "and only the first");
                assert_eq!(reply, Reply::Challenge { node: NODE, nonce: NONCE });
                said = Some((holder, nonce, (0..4).find(|&n| key(n).public() == holder)));
                handshake = next;
            }
            Ok(Next::Done(proven)) => {
                assert!(
                    proves,
                    "possession is proven by the key's signature on this session, and by nothing else"
                );
                assert_eq!(Some(proven.holder()), said.map(|(holder, ..)| holder));
                return;
            }
            Err(error) => {
                assert!(!proves, "an honest proof is taken: {error}");
                let order = if is_prove && said.is_some() { Code::Possession } else { Code::Protocol };
                assert_eq!(error.code(), order);
                return; // it ends the session
            }
        }
    }
}

/// A transcript that somebody signed somewhere, and whether it is this session's.
fn overheard(n: u8, said: Option<(PrincipalKey, Nonce, Option<u8>)>) -> (Transcript, bool) {
    let (holder, client, _) = said.unwrap_or((key(0).public(), Nonce([0; 32]), None));
    let honest = Transcript { node: NODE, server: NONCE, client, holder };
    let other = match n % 8 {
        0 => Transcript { node: ProviderId([2; 16]), ..honest },
        1 => Transcript { server: Nonce([4; 32]), ..honest },
        2 => Transcript { client: Nonce([5; 32]), ..honest },
        3 => Transcript { holder: key(n / 8).public(), ..honest },
        4 => Transcript { server: client, client: NONCE, ..honest },
        _ => honest,
    };
    (other, other == honest)
}

/// Where a fuzzer starts from: an honest beginning, and one that fails in each way.
#[must_use]
pub fn handshake_seeds() -> Vec<Vec<u8>> {
    let hello = |n: u8| [&[n * 8][..], &[7; 32]].concat();
    let mut seeds = vec![[hello(1), vec![5 * 8 + 4, 1]].concat(), [hello(1), hello(1)].concat()];
    for (how, signer) in [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2)] {
        seeds.push([hello(1), vec![how * 8 + 4, signer]].concat());
    }
    seeds.push([&[2][..], &[0; 64], &[3], &[0; 64]].concat()); // a weak key, and the signature that it always has
    seeds.push([&[3][..], &[9; 64]].concat());
    seeds
}

/// As many bytes as are left, then zeros.
fn array<const N: usize>(bytes: &mut Bytes<'_>) -> [u8; N] {
    std::array::from_fn(|_| bytes.byte().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_hold() {
        handshake_seeds().iter().for_each(|seed| handshake(seed));
    }

    proptest! {
        #[test]
        fn any_beginning_holds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            handshake(&bytes);
        }
    }
}
