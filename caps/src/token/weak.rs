//! Points of small order on Ed25519.
//!
//! Under such a key a signature verifies for messages that nobody signed. Signature checks here are strict and would
//! refuse it as well; the gate refuses it by its bytes, so that no key of this kind is ever a holder or a signer.

use crate::error::{Code, Error, Result};

/// Every encoding of a point of order 1, 2, 4 or 8, with the sign bit cleared; the last two are not canonical but
/// decoders that reduce modulo 2^255 - 19 accept them.
const SMALL_ORDER: [[u8; 32]; 7] = {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let mut prime = minus_one;
    prime[0] = 0xed;
    let mut prime_plus_one = minus_one;
    prime_plus_one[0] = 0xee;
    [
        [0; 32],
        one,
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        minus_one,
        prime,
        prime_plus_one,
    ]
};

/// Refuses a key of small order.
///
/// # Errors
/// `E_TOKEN_SIG`: no signature of such a key means anything.
pub(super) fn refuse(key: &[u8; 32]) -> Result<()> {
    let mut unsigned = *key;
    unsigned[31] &= 0x7f;
    if SMALL_ORDER.contains(&unsigned) {
        return Err(Error::new(Code::TokenSignature, "a key is a point of small order"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_the_curve_says() {
        for key in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = key;
                key[31] |= sign;
                assert!(refuse(&key).is_err());
                // Some of these encodings are no points at all for this library; those that are must be weak.
                assert!(
                    ed25519_dalek::VerifyingKey::from_bytes(&key).map_or(true, |key| key.is_weak()),
                    "{key:?}"
                );
            }
        }
    }

    #[test]
    fn honest_keys_pass() {
        for seed in 0..64 {
            let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
            assert!(!key.is_weak());
            refuse(key.as_bytes()).unwrap();
        }
    }
}
