//! RFC 6962's two hashes.

use sha2::{Digest, Sha256};

/// A SHA-256 value. Prints as lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// 32 zero bytes: the `prev` of the first entry.
    pub const ZERO: Self = Self([0; 32]);

    /// The root of the tree without leaves: SHA-256 of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The leaf hash of an entry. The first byte keeps a leaf from being taken for a node.
    #[must_use]
    pub fn leaf(entry: &[u8]) -> Self {
        Self(Sha256::new_with_prefix([0]).chain_update(entry).finalize().into())
    }

    /// The hash of an inner node.
    #[must_use]
    pub fn node(left: Self, right: Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self(Sha256::digest(bytes).into())
    }

    /// The root over `hashes`, which are subtrees of equal size; their number is a power of two.
    #[must_use]
    pub fn perfect(hashes: &[Self]) -> Self {
        debug_assert!(hashes.len().is_power_of_two());
        match hashes {
            [one] => *one,
            _ => {
                let (left, right) = hashes.split_at(hashes.len() / 2);
                Self::node(Self::perfect(left), Self::perfect(right))
            }
        }
    }

    /// Standard base64 with padding: 44 characters.
    #[must_use]
    pub fn base64(&self) -> String {
        data_encoding::BASE64.encode(&self.0)
    }

    /// Reads [`Self::base64`] and nothing else: padding and unused bits are checked.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        crate::text::base64(text)?.try_into().ok().map(Self)
    }

    /// Reads 64 lowercase hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_root_is_the_known_one() {
        assert_eq!(
            Hash::empty().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn base64_has_one_form() {
        let text = Hash([0xff; 32]).base64();
        assert_eq!(Hash::from_base64(&text), Some(Hash([0xff; 32])));
        let loose = text.replace("8=", "9=");
        assert_ne!(loose, text);
        assert_eq!(Hash::from_base64(&loose), None, "unused bits must be zero");
        assert_eq!(Hash::from_base64(text.trim_end_matches('=')), None);
        assert_eq!(Hash::from_base64(&data_encoding::BASE64.encode(&[0; 31])), None);
    }
}
