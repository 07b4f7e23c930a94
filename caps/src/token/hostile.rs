//! Every class of token that must be refused, as one value: what anybody can send, and what a holder of a genuine token
//! can append to it, signed properly. Ungated, several of them would cost seconds, gigabytes or the process.
//!
//! The costliest to refuse are in it too: the longest genuine chain with one wrong bit in the signature that is checked
//! last. Nobody can be spared that work, because whoever has such a chain can choose which signature is wrong.

mod datalog;
mod inner;
mod outer;

use datalog::Block;

use super::forge;
use super::sample::owned;
use crate::error::{Code, Result};

/// A token that must be refused.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: &'static str,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// The code that gate and verification refuse it with, by [`sample::keys`](super::sample::keys).
    pub code: Code,
    /// Whether it is a genuine token but for a signature that is checked only after others: then it costs as much as an
    /// honest one. Everything else is refused for what it is, or at its first signature.
    pub genuine_prefix: bool,
}

/// The set; the same each time.
///
/// # Errors
/// None: everything here can be made.
pub fn set() -> Result<Vec<Hostile>> {
    let mut set = Set(Vec::new());
    set.no_tokens()?;
    set.other_encodings()?;
    set.other_signatures()?;
    set.other_holders()?;
    set.other_datalog()?;
    set.costly_datalog()?;
    set.near_misses()?;
    set.costly_signatures()?;
    Ok(set.0)
}

struct Set(Vec<Hostile>);

/// What a holder appends to its token, signed properly.
fn appended(block: &[u8]) -> Result<Vec<u8>> {
    forge::append_raw(owned()?.as_bytes(), block, None, &[9; 32])
}

impl Set {
    fn add(&mut self, name: &'static str, code: Code, bytes: Vec<u8>) {
        self.0.push(Hostile { name, bytes, code, genuine_prefix: false });
    }

    fn add_genuine(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.0.push(Hostile { name, bytes, code: Code::TokenSignature, genuine_prefix: true });
    }

    fn append(&mut self, name: &'static str, code: Code, block: &Block) -> Result<()> {
        self.add(name, code, appended(&block.bytes())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::TOKEN_BYTES_MAX;
    use crate::token::{gate, sample};

    #[test]
    fn each_is_refused_with_its_code() {
        let (set, keys) = (set().unwrap(), sample::keys().unwrap());
        let refused = |bytes: &[u8]| gate(bytes).and_then(|gated| gated.verify(&keys)).map(drop).unwrap_err();
        for Hostile { name, bytes, code, .. } in &set {
            let error = refused(bytes);
            assert_eq!(error.code(), *code, "{name}: {error}");
            assert!(error.detail().is_ascii(), "{name}: no byte of a token is quoted");
        }
        let names = set.iter().map(|hostile| hostile.name).collect::<BTreeSet<_>>();
        assert_eq!(names.len(), set.len(), "each has a name of its own");
        // Every code that gate and verification can give is reached.
        let codes = set.iter().map(|hostile| hostile.code).collect::<BTreeSet<_>>();
        let expected = [
            Code::TokenMalformed,
            Code::TokenNoncanonical,
            Code::TokenTooBig,
            Code::TokenVersion,
            Code::TokenAlgorithm,
            Code::TokenProfile,
            Code::TokenSignature,
            Code::TokenUnknownKey,
        ];
        assert_eq!(codes, BTreeSet::from(expected));
    }

    /// Without this, a block could be refused for a slip in the builder instead of for what it says.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is asked is whether the signatures are good")]
    fn what_is_appended_is_signed_properly() {
        let root =
            biscuit_auth::PublicKey::from_bytes(&sample::root().public().0, biscuit_auth::Algorithm::Ed25519);
        let root = root.unwrap();
        for Hostile { name, bytes, code, .. } in set().unwrap() {
            let datalog =
                code == Code::TokenProfile && !name.contains("authority") && !name.starts_with("a symbol");
            if datalog && bytes.len() <= TOKEN_BYTES_MAX {
                biscuit_auth::format::SerializedBiscuit::from_slice(&bytes, root)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}
