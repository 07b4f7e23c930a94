//! A token as it travels: bytes in messages, one line of text in files, an HMAC in logs.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::limits::TOKEN_BYTES_MAX;

/// What a token's text form begins with.
pub const TOKEN_TEXT_PREFIX: &str = "leasehold-token-v1:";

/// Longest text form in bytes: prefix, 4 characters for 3 bytes, a line end.
pub const TOKEN_TEXT_BYTES_MAX: usize = TOKEN_TEXT_PREFIX.len() + TOKEN_BYTES_MAX.div_ceil(3) * 4 + 1;

/// The bytes of a token, of which nothing is known. [`gate`](super::gate()) is the next step.
///
/// Those that came in a message may be more than a token's [`TOKEN_BYTES_MAX`], up to what a frame holds: the gate
/// refuses them before it reads a byte, and so the sender learns what is wrong with its token.
///
/// A token that is not sealed holds a secret (the one that signs the next block), so the bytes erase themselves and
/// `Debug` shows their number alone. As CBOR a token is a byte string.
///
/// `==` stops at the first byte that differs, and so tells by its time how far two tokens agree. A provider compares a
/// token only with what the same session has presented itself, which tells nobody anything new. Nobody may compare what
/// one peer sends with the token of another: a revocation or a limit is looked up by [`Mark`](super::Mark), a hash of
/// signatures, which are no secrets.
///
/// ```
/// let token = caps::token::Token::from_bytes(vec![1, 2, 3]).unwrap();
/// assert_eq!(format!("{token:?}"), "Token(3 bytes)");
/// assert_eq!(caps::token::Token::parse_text(&token.to_text()).unwrap(), token);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// Takes the bytes.
    ///
    /// # Errors
    /// `E_TOKEN_TOO_BIG` if there are more than [`TOKEN_BYTES_MAX`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(too_big());
        }
        Ok(Self(bytes))
    }

    /// The bytes, for the gate and for messages. They are a secret unless the token is sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text form: one line, `leasehold-token-v1:` and URL-safe base64 without padding.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text =
            Zeroizing::new(String::with_capacity(TOKEN_TEXT_PREFIX.len() + self.0.len().div_ceil(3) * 4));
        text.push_str(TOKEN_TEXT_PREFIX);
        BASE64URL_NOPAD.encode_append(&self.0, &mut text);
        text
    }

    /// Reads the text form; one line end after it is allowed. Strict: each token has one text.
    ///
    /// # Errors
    /// `E_TOKEN_TOO_BIG` if the text is longer than [`TOKEN_TEXT_BYTES_MAX`], `E_TOKEN_MALFORMED` if it is no token's
    /// text.
    pub fn parse_text(text: &str) -> Result<Self> {
        if text.len() > TOKEN_TEXT_BYTES_MAX {
            return Err(too_big());
        }
        let line = text.strip_suffix('\n').unwrap_or(text);
        let bytes = line
            .strip_prefix(TOKEN_TEXT_PREFIX)
            .and_then(|base64| BASE64URL_NOPAD.decode(base64.as_bytes()).ok())
            .ok_or(Error::new(
                Code::TokenMalformed,
                "a token's text is `leasehold-token-v1:` and base64url on one line",
            ))?;
        Self::from_bytes(bytes)
    }
}

const fn too_big() -> Error {
    Error::new(Code::TokenTooBig, "the token is larger than 8 KiB")
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Token;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a token's bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Token, E> {
                self.visit_byte_buf(bytes.to_vec())
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Token, E> {
                Ok(Token(Zeroizing::new(bytes)))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// What a log holds in place of a token: HMAC-SHA-256 of its bytes under the log's salt.
///
/// The salt keeps who reads two logs from matching tokens between them. The bytes have one form (the gate demands
/// the canonical encoding), but a token and its sealed copy differ; the revocation ids are what they share.
#[must_use]
pub fn hmac(salt: &[u8], token: &Token) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes keys of any length");
    mac.update(token.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_strict() {
        let token = Token::from_bytes(vec![0, 0xff, 7]).unwrap();
        let text = token.to_text();
        assert_eq!(&**text, "leasehold-token-v1:AP8H");
        assert_eq!(Token::parse_text(&format!("{}\n", *text)).unwrap(), token);
        for bad in [
            "",
            "AP8H",
            "leasehold-token-v2:AP8H",
            "leasehold-token-v1: AP8H",
            "leasehold-token-v1:AP8H ",
            "leasehold-token-v1:AP8H\r\n",
            "leasehold-token-v1:AP8H\n\n",
            "leasehold-token-v1:AP8H=",
            "leasehold-token-v1:AP/H",
            "leasehold-token-v1:AP9", // bits that no byte holds
        ] {
            assert_eq!(Token::parse_text(bad).unwrap_err().code(), Code::TokenMalformed, "{bad:?}");
        }
        let largest = Token::from_bytes(vec![7; TOKEN_BYTES_MAX]).unwrap();
        assert_eq!(Token::parse_text(&format!("{}\n", *largest.to_text())).unwrap(), largest);
        let long = format!("{TOKEN_TEXT_PREFIX}{}", "A".repeat(TOKEN_TEXT_BYTES_MAX));
        assert_eq!(Token::parse_text(&long).unwrap_err().code(), Code::TokenTooBig);
    }

    #[test]
    fn cbor_is_a_byte_string_whose_size_the_gate_judges() {
        let token = Token::from_bytes(vec![5; TOKEN_BYTES_MAX]).unwrap();
        let mut bytes = Vec::new();
        ciborium::into_writer(&token, &mut bytes).unwrap();
        assert_eq!(bytes[..3], [0x59, 0x20, 0x00], "major type 2, 8192 bytes");
        assert_eq!(ciborium::from_reader::<Token, _>(&bytes[..]).unwrap(), token);
        let mut large = Vec::new();
        ciborium::into_writer(&serde_bytes::Bytes::new(&[5; TOKEN_BYTES_MAX + 1]), &mut large).unwrap();
        let large = ciborium::from_reader::<Token, _>(&large[..]).unwrap();
        assert_eq!(crate::token::gate(large.as_bytes()).unwrap_err().code(), Code::TokenTooBig);
        let mut text = Vec::new();
        ciborium::into_writer("text", &mut text).unwrap();
        assert!(ciborium::from_reader::<Token, _>(&text[..]).is_err());
    }

    #[test]
    fn the_salt_and_the_token_make_the_hmac() {
        let (one, two) = (Token::from_bytes(vec![1]).unwrap(), Token::from_bytes(vec![2]).unwrap());
        assert_eq!(hmac(b"s", &one), hmac(b"s", &one));
        assert_ne!(hmac(b"s", &one), hmac(b"s", &two));
        assert_ne!(hmac(b"s", &one), hmac(b"t", &one));
    }
}
