//! What the token library needs alone for what gate, verification and decision do together: parse a token, verify its
//! signatures, and decide one request by Datalog. Nobody decides by this; benchmarks compare with it.

use biscuit_auth::{AuthorizerBuilder, Biscuit, PublicKey};

use super::datalog::{AUTHORIZER, undecided};
use super::vocabulary::built;
use super::{Request, RootKeys, VerifiedToken};
use crate::error::Result;

/// The library, for the requests of one session: the root key is decompressed and the policy parsed beforehand.
pub struct Library {
    root: PublicKey,
    token: VerifiedToken,
    request: Request,
}

impl Library {
    /// For requests like `request` with a token like `token`. What Datalog cannot find out (who the holder is, how often
    /// it was delegated) is taken from `token`, at no cost to the library.
    ///
    /// # Errors
    /// `E_TOKEN_UNKNOWN_KEY` if the token's root key is not among `keys`.
    pub fn new(token: VerifiedToken, keys: &RootKeys, request: Request) -> Result<Self> {
        let (_, root) = keys.choose(Some(token.root_key_id()))?;
        Ok(Self { root, token, request })
    }

    /// Parses, verifies, decides.
    ///
    /// # Errors
    /// As [`VerifiedToken::authorize_by_datalog`], without the gate's.
    #[expect(
        clippy::disallowed_methods,
        reason = "measures the library without the gate; nobody decides by it"
    )]
    pub fn decide(&self, bytes: &[u8]) -> Result<()> {
        let biscuit = Biscuit::from(bytes, self.root).map_err(|error| undecided(&error))?;
        let facts = self.token.facts(&self.request);
        let authorizer = built(facts.into_iter().try_fold(AUTHORIZER.clone(), AuthorizerBuilder::fact))?;
        let mut authorizer = authorizer.build(&biscuit).map_err(|error| undecided(&error))?;
        authorizer.authorize().map(drop).map_err(|error| undecided(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::rights::Operation;
    use crate::token::{gate, sample};

    #[test]
    fn the_library_decides_as_we_do() {
        let keys = sample::keys().unwrap();
        for honest in sample::honest().unwrap() {
            let bytes = honest.token.as_bytes();
            let verified = gate(bytes).unwrap().verify(&keys).unwrap();
            Library::new(verified.clone(), &keys, honest.request).unwrap().decide(bytes).unwrap();
            let share = Request { operation: Operation::Share, ..honest.request };
            let allowed = verified.authorize(&share).is_ok();
            let library = Library::new(verified, &keys, share).unwrap();
            assert_eq!(library.decide(bytes).is_ok(), allowed, "{}", honest.name);
            let mut changed = bytes.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(library.decide(&changed).unwrap_err().code(), Code::TokenSignature);
        }
    }
}
