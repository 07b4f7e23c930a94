//! One block, sealed and opened.
//!
//! **AES-256-GCM-SIV** (RFC 8452), because its answer to the one mistake that many writers without a common counter can
//! make, a nonce that comes twice (by chance, by a virtual machine that was cloned), is mild: it shows that two versions of
//! one block are equal, and nothing else. Nonces are random, of 96 bits: after 2^40 writes of blocks under one key (4 PiB)
//! the chance that any came twice is 2^-17.
//!
//! What is authenticated besides the bytes: this layout's version, the lease, and the block's number. So a block opens in its
//! place and nowhere else.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use zeroize::Zeroizing;

use super::key::{DataKey, SECRET_BYTES};
use super::layout::{BLOCK, NONCE_BYTES, PAYLOAD_IN_BLOCK};

/// What the key for blocks is derived with. Another layout has another version here and in [`Cipher::about`], and so reads
/// nothing of this one.
const BLOCK_KEY_LABEL: &[u8] = b"leasehold-sealed-block-key-v1\0";
/// What the associated data of a block begin with.
const BLOCK_LABEL: &[u8; 26] = b"leasehold-sealed-block-v1\0";
/// Bytes of a lease's id.
const LEASE_BYTES: usize = 16;
/// Bytes of the associated data: label, lease, number of the block.
const ABOUT_BYTES: usize = BLOCK_LABEL.len() + LEASE_BYTES + size_of::<u64>();

/// Seals and opens the blocks of one lease.
pub(super) struct Cipher {
    key: RandomizedNonceKey,
    lease: LeaseId,
}

impl Cipher {
    /// With the key for blocks that belongs to `key`.
    ///
    /// # Errors
    /// `E_INTERNAL` if the library refuses a key of the right length.
    pub(super) fn new(key: &DataKey) -> Result<Self> {
        const REFUSED: Error = Error::new(Code::Internal, "the cipher took no key of 32 bytes");
        let mut derived = Zeroizing::new([0; SECRET_BYTES]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(key.secret())
            .expand(&[BLOCK_KEY_LABEL, &key.lease().0], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *derived))
            .map_err(|_| REFUSED)?;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, &*derived).map_err(|_| REFUSED)?;
        Ok(Self { key: cipher, lease: key.lease() })
    }

    /// What is authenticated besides the bytes of block `number`.
    fn about(&self, number: u64) -> Aad<[u8; ABOUT_BYTES]> {
        let mut about = [0; ABOUT_BYTES];
        let (label, rest) = about.split_at_mut(BLOCK_LABEL.len());
        let (lease, place) = rest.split_at_mut(LEASE_BYTES);
        label.copy_from_slice(BLOCK_LABEL);
        lease.copy_from_slice(&self.lease.0);
        place.copy_from_slice(&number.to_be_bytes());
        Aad::from(about)
    }

    /// Seals the payload that lies in `block` in its place, under a fresh nonce.
    ///
    /// # Errors
    /// `E_INTERNAL` if the library cannot, after which the block holds nothing that may be stored.
    pub(super) fn seal(&self, number: u64, block: &mut [u8; BLOCK]) -> Result<()> {
        let sealed = self.key.seal_in_place_separate_tag(self.about(number), &mut block[PAYLOAD_IN_BLOCK]);
        let (nonce, tag) = sealed.map_err(|_| Error::new(Code::Internal, "a block could not be sealed"))?;
        block[..NONCE_BYTES].copy_from_slice(nonce.as_ref());
        block[PAYLOAD_IN_BLOCK.end..].copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens `block` in its place: its payload is what was sealed.
    ///
    /// # Errors
    /// `E_SEAL` if it is not what somebody with this key sealed for this place. Then nothing in `block` may be used.
    pub(super) fn open(&self, number: u64, block: &mut [u8; BLOCK]) -> Result<()> {
        let broken =
            || Error::with(Code::Seal, format!("block {number} of the sealed region does not authenticate"));
        let (nonce, sealed) = block.split_at_mut(NONCE_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        self.key.open_in_place(nonce, self.about(number), sealed).map_err(|_| broken())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::layout::{PAYLOAD, TAG_BYTES};

    const LEASE: LeaseId = LeaseId([7; 16]);

    fn filled(byte: u8) -> [u8; BLOCK] {
        [byte; BLOCK]
    }

    #[test]
    fn a_block_opens_in_its_place_with_its_key_alone() {
        let key = DataKey::generate(LEASE);
        let cipher = Cipher::new(&key).unwrap();
        let mut block = filled(b'x');
        cipher.seal(3, &mut block).unwrap();
        assert!(!block.windows(8).any(|window| window == [b'x'; 8]), "no plaintext");
        let sealed = block;
        cipher.open(3, &mut block).unwrap();
        assert_eq!(block[PAYLOAD_IN_BLOCK], [b'x'; PAYLOAD]);

        let refused = |cipher: &Cipher, number| {
            let mut block = sealed;
            assert_eq!(cipher.open(number, &mut block).unwrap_err().code(), Code::Seal);
        };
        refused(&cipher, 2);
        refused(&cipher, u64::MAX);
        refused(&Cipher::new(&DataKey::generate(LEASE)).unwrap(), 3);
        let elsewhere = DataKey::of(LeaseId([8; 16]), key.secret()).unwrap();
        refused(&Cipher::new(&elsewhere).unwrap(), 3);
        // The same key once more, as everybody who shares it makes it.
        Cipher::new(&DataKey::of(LEASE, key.secret()).unwrap())
            .unwrap()
            .open(3, &mut sealed.clone())
            .unwrap();
    }

    #[test]
    fn the_same_bytes_never_look_the_same() {
        let cipher = Cipher::new(&DataKey::generate(LEASE)).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..64 {
            let mut block = filled(0);
            cipher.seal(0, &mut block).unwrap();
            assert!(seen.insert(block[..NONCE_BYTES].to_vec()), "a nonce came twice");
            assert!(seen.insert(block[NONCE_BYTES..].to_vec()));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_zeroed_end_is_found() {
        let cipher = Cipher::new(&DataKey::generate(LEASE)).unwrap();
        let mut sealed = filled(1);
        cipher.seal(0, &mut sealed).unwrap();
        let bits = (0..BLOCK).step_by(7).chain(0..NONCE_BYTES).chain(BLOCK - TAG_BYTES..BLOCK);
        for (at, bit) in bits.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut block = sealed;
            block[at] ^= 1 << bit;
            assert_eq!(cipher.open(0, &mut block).unwrap_err().code(), Code::Seal, "bit {bit} of byte {at}");
        }
        for cut in (0..BLOCK).step_by(64) {
            let mut block = sealed;
            block[cut..].fill(0);
            assert_eq!(cipher.open(0, &mut block).unwrap_err().code(), Code::Seal, "zeros from {cut}");
        }
    }
}
