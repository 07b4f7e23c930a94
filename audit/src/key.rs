//! A log's name, its secret key, and the text by which others know it.

use caps::error::{Code, Error, Result};
use ed25519_dalek::Signer;
use sha2::{Digest, Sha256};

/// The name of a log: the first line of its checkpoints and the name of its keys. Printable ASCII without space,
/// `+`, quote and backslash, so it needs no escape anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl Origin {
    /// Longest name in bytes: a file name's.
    pub const BYTES_MAX: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// `E_RANGE` if it is empty, too long, or has another character.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'+' | b'"' | b'\\'));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(
                Code::Range,
                "a log's name is 1 to 255 printable ASCII characters without space, +, \" and \\",
            ))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key's signatures are over, as the first byte of the encoded key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The log itself: plain Ed25519 over the note's text.
    Log = 0x01,
    /// A witness: `cosignature/v1` with a time.
    Witness = 0x04,
}

impl Role {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Log),
            0x04 => Some(Self::Witness),
            _ => None,
        }
    }
}

/// The secret key that signs checkpoints, and nothing else. Prints nothing and erases itself.
pub struct LogKey(ed25519_dalek::SigningKey);

impl LogKey {
    /// The key of a 32-byte seed (RFC 8032's private key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half under the log's name.
    #[must_use]
    pub fn vkey(&self, origin: &Origin) -> Vkey {
        Vkey { name: origin.clone(), role: Role::Log, key: self.0.verifying_key() }
    }

    /// Signs a checkpoint's text. Private to the crate: the key serves notes alone.
    pub(crate) fn sign(&self, body: &[u8]) -> [u8; 64] {
        self.0.sign(body).to_bytes()
    }
}

/// A public key with its name: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vkey {
    name: Origin,
    role: Role,
    key: ed25519_dalek::VerifyingKey,
}

impl Vkey {
    /// Longest text in bytes: name, key id, and 33 bytes in base64.
    pub const TEXT_BYTES_MAX: usize = Origin::BYTES_MAX + 1 + 8 + 1 + 44;

    /// Reads a vkey. The text is split at its first two `+` only, since base64 may have more.
    ///
    /// # Errors
    /// `E_RANGE` if it is no vkey of an Ed25519 log or witness key of full order, or its hash is not its own.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::new(Code::Range, "a vkey is name+hash+base64 of an Ed25519 key");
        let mut parts = text.splitn(3, '+');
        let (name, id, encoded) = (parts.next(), parts.next(), parts.next());
        let name = Origin::parse(name.unwrap_or_default())?;
        let encoded = crate::text::base64(encoded.unwrap_or_default());
        let encoded = encoded.and_then(|bytes| <[u8; 33]>::try_from(bytes).ok()).ok_or_else(refused)?;
        let role = Role::from_byte(encoded[0]).ok_or_else(refused)?;
        let key = encoded[1..].try_into().map_err(|_| refused())?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
        let vkey = Self { name, role, key: key.ok_or_else(refused)? };
        if id == Some(&data_encoding::HEXLOWER.encode(&vkey.id())) { Ok(vkey) } else { Err(refused()) }
    }

    /// The log's or witness' name.
    #[must_use]
    pub const fn name(&self) -> &Origin {
        &self.name
    }

    /// Whether the key is a log's or a witness'.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The first four bytes of a hash over name, role and key: which key made a signature line.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new_with_prefix(self.name.as_str());
        hash.update([b'\n', self.role as u8]);
        hash.update(self.key.as_bytes());
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        [a, b, c, d]
    }

    /// Whether `signature` is this key's over `message`. Strict: one signature per message and key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl std::fmt::Display for Vkey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let encoded = [&[self.role as u8][..], self.key.as_bytes()].concat();
        let id = data_encoding::HEXLOWER.encode(&self.id());
        write!(f, "{}+{id}+{}", self.name, data_encoding::BASE64.encode(&encoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VKEY: &str = "memb.example/audit/broker-1+8e01b6cc+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";

    #[test]
    fn a_vkey_reads_back() {
        let vkey = Vkey::parse(VKEY).unwrap();
        assert_eq!(vkey.to_string(), VKEY);
        assert_eq!(vkey.role(), Role::Log);
    }

    #[test]
    fn changed_vkeys_are_refused() {
        for (from, to) in [
            ("memb", "memc"),
            ("8e01b6cc", "8E01B6CC"),
            ("8e01b6cc", "8e01b6cd"),
            ("AQOh", "AgOh"),
            ("AQOh", "AQOi"),
            ("VTG4", "VTG4="),
            ("VTG4", ""),
            ("+8e01b6cc+", "+"),
        ] {
            let text = VKEY.replacen(from, to, 1);
            assert!(Vkey::parse(&text).is_err(), "{text}");
        }
        assert!(Vkey::parse("").is_err());
    }

    #[test]
    fn names() {
        for bad in ["", "a b", "a+b", "a\n", "é", "a\"", "a\\", &"x".repeat(256)] {
            assert!(Origin::parse(bad).is_err(), "{bad:?}");
        }
    }
}
