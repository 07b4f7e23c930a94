//! How an entry names a token without holding it.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The secret under which one log hashes tokens. Kept with the log key; shown to auditors on request, so that they
/// can match a token they hold. Prints nothing and erases itself.
pub struct Salt(Zeroizing<[u8; 32]>);

/// `HMAC-SHA256(salt, token)`. Only a [`Salt`] makes one, so no token's bytes can be put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHmac([u8; 32]);

impl Salt {
    /// The salt of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Names a token.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn token(&self, token: &[u8]) -> TokenHmac {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        mac.update(token);
        TokenHmac(mac.finalize().into_bytes().into())
    }
}

impl TokenHmac {
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_token_depends_on_salt_and_token() {
        let (a, b) = (Salt::new(&[1; 32]), Salt::new(&[2; 32]));
        assert_eq!(a.token(b"t"), a.token(b"t"));
        assert_ne!(a.token(b"t"), b.token(b"t"));
        assert_ne!(a.token(b"t"), a.token(b"u"));
        // RFC 4231, case 2, has the key "Jefe"; a 32-byte key is that one padded with zeros.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            data_encoding::HEXLOWER.encode(Salt::new(&key).token(b"what do ya want for nothing?").as_bytes()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
