//! The key of one lease.
//!
//! As text it is one line, `leasehold-lease-key-v1:`, the lease, a colon, and 32 bytes in URL-safe base64 without padding.
//! Whoever reads that line reads the lease, so it belongs into a file of mode 0600 and nowhere else.

use aws_lc_rs::{constant_time, digest, rand};
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

/// Bytes of a key: a key of AES-256, and too many to guess.
pub(super) const SECRET_BYTES: usize = 32;
/// What a key's line begins with.
const PREFIX: &str = "leasehold-lease-key-v1:";
/// Digits of a lease's id.
const LEASE_DIGITS: usize = 32;
/// Characters of the secret in base64.
const SECRET_CHARACTERS: usize = 43;
/// Bytes of a key as text, with its line end. Every key has this many.
pub const KEY_TEXT_BYTES: usize = PREFIX.len() + LEASE_DIGITS + 1 + SECRET_CHARACTERS + 1;
/// What is hashed before the secret for a fingerprint, so that it is the hash of nothing else.
const FINGERPRINT_LABEL: &[u8] = b"leasehold-lease-key-fingerprint-v1\0";
/// Bytes of a fingerprint: two keys of one lease do not have the same one by chance.
const FINGERPRINT_BYTES: usize = 8;

/// The key of one lease's memory. No `Debug`, no `Clone`; wiped when dropped, and never moved in memory before.
pub struct DataKey {
    lease: LeaseId,
    // In a box, so that moving the key copies a pointer and leaves no secret behind.
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
}

impl DataKey {
    /// Draws a key for `lease`.
    ///
    /// # Panics
    /// If the machine has no random source, in which case nothing in this system is safe to run.
    #[must_use]
    pub fn generate(lease: LeaseId) -> Self {
        let mut key = Self::zero(lease);
        rand::fill(&mut **key.secret).expect("the random source answers");
        key
    }

    /// The key of `lease` with these bytes.
    ///
    /// # Errors
    /// `E_RANGE` if they are not 32.
    pub(super) fn of(lease: LeaseId, secret: &[u8]) -> Result<Self> {
        if secret.len() != SECRET_BYTES {
            return Err(Error::new(Code::Range, "the key of a lease has 32 bytes"));
        }
        let mut key = Self::zero(lease);
        key.secret.copy_from_slice(secret);
        Ok(key)
    }

    fn zero(lease: LeaseId) -> Self {
        Self { lease, secret: Box::new(Zeroizing::new([0; SECRET_BYTES])) }
    }

    /// The lease whose memory it is for.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(super) fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// Whether both are the same key of the same lease. Takes as long whatever the answer is.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let same = constant_time::verify_slices_are_equal(&**self.secret, &**other.secret).is_ok();
        self.lease == other.lease && same
    }

    /// What two people compare to see whether they have the same key. It is no secret and tells nothing of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(FINGERPRINT_LABEL);
        hash.update(&self.lease.0);
        hash.update(&**self.secret);
        let mut bytes = [0; FINGERPRINT_BYTES];
        bytes.copy_from_slice(&hash.finish().as_ref()[..FINGERPRINT_BYTES]);
        Fingerprint(bytes)
    }

    /// The line of a key file. The copy wipes itself.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES)); // never moved
        text.push_str(PREFIX);
        HEXLOWER.encode_append(&self.lease.0, &mut text);
        text.push(':');
        BASE64URL_NOPAD.encode_append(&**self.secret, &mut text);
        text.push('\n');
        text
    }

    /// Reads what [`Self::to_text`] wrote. Strict: each key has one text.
    ///
    /// # Errors
    /// `E_RANGE` for any other text, of which nothing is shown.
    pub fn parse_text(text: &str) -> Result<Self> {
        const WRONG: Error = Error::new(
            Code::Range,
            "the key of a lease is one line of `leasehold-lease-key-v1:`, 32 hexadecimal digits, a colon and 43 characters of base64url",
        );
        let (lease, secret) = text
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix(PREFIX))
            .and_then(|rest| rest.split_once(':'))
            .filter(|(_, secret)| secret.len() == SECRET_CHARACTERS)
            .ok_or(WRONG)?;
        let mut key = Self::zero(LeaseId::parse(lease).map_err(|_| WRONG)?);
        BASE64URL_NOPAD.decode_mut(secret.as_bytes(), &mut **key.secret).map_err(|_| WRONG)?;
        Ok(key)
    }
}

/// A short hash of a key: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_line_and_no_two_are_alike() {
        let (one, two) = (DataKey::generate(LeaseId([1; 16])), DataKey::generate(LeaseId([1; 16])));
        assert!(!one.is(&two) && one.fingerprint() != two.fingerprint());
        assert_ne!(*one.secret(), [0; 32], "drawn, and not what it began with");
        let text = one.to_text();
        assert_eq!(text.len(), KEY_TEXT_BYTES);
        let back = DataKey::parse_text(&text).unwrap();
        assert!(back.is(&one));
        assert_eq!(back.fingerprint(), one.fingerprint());
        // The same bytes for another lease are another key.
        let other = DataKey::of(LeaseId([2; 16]), one.secret()).unwrap();
        assert!(!other.is(&one) && other.fingerprint() != one.fingerprint());
    }

    #[test]
    fn a_key_has_one_text_and_every_other_is_refused_without_showing_it() {
        let text = DataKey::generate(LeaseId([1; 16])).to_text();
        let secret = text[KEY_TEXT_BYTES - 9..].trim_end().to_owned(); // its last 8 characters
        let wrong = |text: &str| {
            let error = DataKey::parse_text(text).err().unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(error.code(), Code::Range);
            assert!(!error.detail().contains(&*secret), "{error}");
        };
        for cut in 0..text.len() {
            wrong(&text[..cut]);
        }
        for at in 0..text.len() {
            for extra in ["\n", " ", "A", "="] {
                let mut longer = text.to_string();
                longer.insert_str(at, extra);
                wrong(&longer);
            }
        }
        wrong(&format!("{}\n", text.as_str()));
        wrong(&text.to_uppercase());
        wrong(&text.replace("v1", "v2"));
        // 43 characters hold 258 bits: of the last one two bits must be zero.
        let line = text.trim_end();
        let second = (b'A'..=b'z').map(char::from).filter(|last| !line.ends_with(*last));
        let spellings = second.filter(|last| {
            let spelled = format!("{}{last}\n", &line[..line.len() - 1]);
            DataKey::parse_text(&spelled).is_ok_and(|key| key.is(&DataKey::parse_text(&text).unwrap()))
        });
        assert_eq!(spellings.count(), 0, "no key is spelled twice");
    }
}
