//! The key of a lease on its way to somebody else.
//!
//! ```text
//! 0        1       17       49         81       113              161          225
//! │ version │ lease │ sender │ receiver │ enc    │ sealed key     │ signature  │
//! └────────── head: bound to the key ───┘ HPKE ──┴────────────────┘ by sender, over all before it
//! ```
//!
//! HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) encrypts to the receiver's principal key, so only the receiver opens
//! it, on whatever way it came. The sender's signature says from whom it is: a stranger can make an envelope for anybody, but
//! not in somebody else's name, and whoever opens one says whose he takes. Sender, receiver and lease are
//! authenticated with the key, so that nobody passes a stranger's envelope on as his own.
//!
//! As text it is armored, and each envelope has one text. It is no secret.

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey};
use caps::key::{Purpose, Signature, SigningKey, VerifyingKey};
use data_encoding::BASE64;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::key::{DataKey, SECRET_BYTES};

/// The version of this form, its first byte.
const VERSION: u8 = 1;
/// What HPKE's keys are derived with, so that they serve for nothing else.
const INFO: &[u8] = b"leasehold-key-envelope-v1\0";

const LEASE: std::ops::Range<usize> = 1..17;
const SENDER: std::ops::Range<usize> = 17..49;
const RECEIVER: std::ops::Range<usize> = 49..81;
/// Everything that is authenticated with the key.
const HEAD: std::ops::Range<usize> = 0..81;
/// The ephemeral key.
const ENC: std::ops::Range<usize> = 81..113;
/// The key and the tag of AES-GCM.
const SEALED: std::ops::Range<usize> = 113..113 + SECRET_BYTES + 16;
/// Everything that is signed.
const SIGNED: std::ops::Range<usize> = 0..SEALED.end;
const SIGNATURE: std::ops::Range<usize> = SEALED.end..SEALED.end + 64;
/// Bytes of an envelope. A multiple of three, so that base64 needs no padding.
const BYTES: usize = SIGNATURE.end;

const BEGIN: &str = "-----BEGIN LEASEHOLD LEASE KEY-----\n";
const END: &str = "-----END LEASEHOLD LEASE KEY-----\n";
/// Characters of a line of base64.
const LINE: usize = 60;
/// Characters of all of them.
const BASE64_CHARACTERS: usize = BYTES / 3 * 4;
/// Bytes of an envelope as text. Every one has this many.
pub const ENVELOPE_TEXT_BYTES: usize = BEGIN.len() + BASE64_CHARACTERS + BASE64_CHARACTERS / LINE + END.len();

const _: () = assert!(BYTES.is_multiple_of(3) && BASE64_CHARACTERS.is_multiple_of(LINE));

/// A lease's key, encrypted to one principal and signed by another.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope([u8; BYTES]);

impl Envelope {
    /// Makes `key` ready for `receiver`, from `sender`.
    ///
    /// # Errors
    /// `E_RANGE` if the receiver's key is none that anybody can have; `E_INTERNAL` if the library refuses.
    pub fn seal(key: &DataKey, sender: &SigningKey, receiver: PrincipalKey) -> Result<Self> {
        let agreement = VerifyingKey::parse(receiver)?.agreement_public();
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[LEASE].copy_from_slice(&key.lease().0);
        bytes[SENDER].copy_from_slice(&sender.public().0);
        bytes[RECEIVER].copy_from_slice(&receiver.0);
        let to = HpkePublicKey(agreement.to_vec());
        let refused = || Error::new(Code::Internal, "a lease's key could not be encrypted");
        let (enc, sealed) = SUITE.seal(INFO, &bytes[HEAD], key.secret(), &to).map_err(|_| refused())?;
        if (enc.0.len(), sealed.len()) != (ENC.len(), SEALED.len()) {
            return Err(refused());
        }
        bytes[ENC].copy_from_slice(&enc.0);
        bytes[SEALED].copy_from_slice(&sealed);
        let signature = sender.sign(Purpose::KeyEnvelope, &bytes[SIGNED]);
        bytes[SIGNATURE].copy_from_slice(&signature.0);
        Ok(Self(bytes))
    }

    /// Which lease the key is said to be of. True once [`Self::open`] says so, as are the next two.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        LeaseId(self.array(LEASE))
    }

    /// From whom it is said to be.
    #[must_use]
    pub fn sender(&self) -> PrincipalKey {
        PrincipalKey(self.array(SENDER))
    }

    /// For whom it is.
    #[must_use]
    pub fn receiver(&self) -> PrincipalKey {
        PrincipalKey(self.array(RECEIVER))
    }

    /// Takes the key out, as `receiver`, if it is from `from`. Whose keys to take is the caller's to know: whoever's key is
    /// used reads what is written with it.
    ///
    /// # Errors
    /// `E_DENIED` if it is for somebody else, or from somebody else; `E_SEAL` if it was changed on its way, or was never
    /// made by who it says.
    pub fn open(&self, receiver: &SigningKey, from: PrincipalKey) -> Result<DataKey> {
        if self.receiver() != receiver.public() {
            return Err(Error::new(Code::Denied, "the key is for another principal"));
        }
        if self.sender() != from {
            return Err(Error::new(Code::Denied, "the key is from another principal"));
        }
        let changed = || Error::new(Code::Seal, "this is not what the sender made");
        let signature = Signature(self.array(SIGNATURE));
        let sender = VerifyingKey::parse(from).map_err(|_| changed())?;
        if !sender.verifies(Purpose::KeyEnvelope, &self.0[SIGNED], &signature) {
            return Err(changed());
        }
        let secret = HpkePrivateKey::from(receiver.agreement_secret().to_vec());
        let enc = EncapsulatedSecret(self.0[ENC].to_vec());
        let opened = SUITE.open(&enc, INFO, &self.0[HEAD], &self.0[SEALED], &secret);
        DataKey::of(self.lease(), &Zeroizing::new(opened.map_err(|_| changed())?))
    }

    /// The armored text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let base64 = BASE64.encode(&self.0);
        let mut text = String::with_capacity(ENVELOPE_TEXT_BYTES);
        text.push_str(BEGIN);
        let mut rest = base64.as_str();
        while let Some((line, after)) = rest.split_at_checked(LINE) {
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(END);
        text
    }

    /// Reads what [`Self::to_text`] wrote. Strict: each envelope has one text.
    ///
    /// # Errors
    /// `E_RANGE` for any other text.
    pub fn parse_text(text: &str) -> Result<Self> {
        const WRONG: Error = Error::new(
            Code::Range,
            "a key on its way is what `leasehold lease key export` writes, from its BEGIN line to its END line, unchanged",
        );
        if text.len() != ENVELOPE_TEXT_BYTES {
            return Err(WRONG);
        }
        let lines = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(WRONG)?;
        let mut base64 = String::with_capacity(BASE64_CHARACTERS);
        for line in lines.split_terminator('\n') {
            if line.len() != LINE {
                return Err(WRONG);
            }
            base64.push_str(line);
        }
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| WRONG)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| WRONG)?;
        if bytes[0] != VERSION {
            return Err(Error::new(Code::Range, "this key on its way is of another version of Leasehold"));
        }
        Ok(Self(bytes))
    }

    /// A field. The ranges above are as long as the arrays that they are read as.
    fn array<const N: usize>(&self, range: std::ops::Range<usize>) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[range]);
        field
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("lease", &self.lease())
            .field("sender", &self.sender())
            .field("receiver", &self.receiver())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE_ID: LeaseId = LeaseId([9; 16]);

    fn people() -> [SigningKey; 3] {
        [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]))
    }

    /// Signs again what was changed, as `sender` could.
    fn signed(mut bytes: [u8; BYTES], sender: &SigningKey) -> Envelope {
        let signature = sender.sign(Purpose::KeyEnvelope, &bytes[SIGNED]);
        bytes[SIGNATURE].copy_from_slice(&signature.0);
        Envelope(bytes)
    }

    #[track_caller]
    fn refused(result: Result<DataKey>, code: Code) {
        assert_eq!(result.err().expect("refused").code(), code);
    }

    #[test]
    fn a_key_reaches_its_receiver_and_nobody_else() {
        let [alice, bob, carol] = people();
        let key = DataKey::generate(LEASE_ID);
        let envelope = Envelope::seal(&key, &alice, bob.public()).unwrap();
        assert_eq!(
            (envelope.lease(), envelope.sender(), envelope.receiver()),
            (LEASE_ID, alice.public(), bob.public())
        );
        let envelope = Envelope::parse_text(&envelope.to_text()).unwrap();
        assert!(envelope.open(&bob, alice.public()).unwrap().is(&key));
        assert!(!envelope.0.windows(8).any(|window| key.secret().windows(8).any(|part| part == window)));
        refused(envelope.open(&carol, alice.public()), Code::Denied);
        refused(envelope.open(&alice, alice.public()), Code::Denied);
        // Nor once she has written her own name over the receiver's, and even if the sender signs that.
        let mut hers = envelope.0;
        hers[RECEIVER].copy_from_slice(&carol.public().0);
        refused(Envelope(hers).open(&carol, alice.public()), Code::Seal);
        refused(signed(hers, &alice).open(&carol, alice.public()), Code::Seal);
        // Twice the same key are two envelopes.
        assert_ne!(Envelope::seal(&key, &alice, bob.public()).unwrap(), envelope);
    }

    #[test]
    fn a_stranger_cannot_slip_a_key_of_his_own_under_a_receiver() {
        let [alice, bob, mallory] = people();
        let his = Envelope::seal(&DataKey::generate(LEASE_ID), &mallory, bob.public()).unwrap();
        refused(his.open(&bob, alice.public()), Code::Denied);
        // In her name, with his signature.
        let mut forged = his.0;
        forged[SENDER].copy_from_slice(&alice.public().0);
        refused(Envelope(forged).open(&bob, alice.public()), Code::Seal);
        refused(signed(forged, &mallory).open(&bob, alice.public()), Code::Seal);
        // Hers, passed on as his own.
        let hers = Envelope::seal(&DataKey::generate(LEASE_ID), &alice, bob.public()).unwrap();
        let mut taken = hers.0;
        taken[SENDER].copy_from_slice(&mallory.public().0);
        refused(signed(taken, &mallory).open(&bob, mallory.public()), Code::Seal);
        // Hers, said to be of another lease.
        let mut other = hers.0;
        other[LEASE].copy_from_slice(&[8; 16]);
        refused(Envelope(other).open(&bob, alice.public()), Code::Seal);
        refused(signed(other, &alice).open(&bob, alice.public()), Code::Seal);
        // A signature that she made for something else.
        let mut borrowed = hers.0;
        borrowed[SIGNATURE].copy_from_slice(&alice.sign(Purpose::Share, &hers.0[SIGNED]).0);
        refused(Envelope(borrowed).open(&bob, alice.public()), Code::Seal);
    }

    #[test]
    fn weak_receivers_and_weak_ephemeral_keys_are_refused() {
        let [alice, bob, _] = people();
        let key = DataKey::generate(LEASE_ID);
        for weak in [[0; 32], [0xff; 32]] {
            assert_eq!(Envelope::seal(&key, &alice, PrincipalKey(weak)).unwrap_err().code(), Code::Range);
        }
        let mut zero = Envelope::seal(&key, &alice, bob.public()).unwrap().0;
        zero[ENC].fill(0);
        refused(signed(zero, &alice).open(&bob, alice.public()), Code::Seal);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let [alice, bob, _] = people();
        let envelope = Envelope::seal(&DataKey::generate(LEASE_ID), &alice, bob.public()).unwrap();
        for (at, bit) in (0..BYTES).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = envelope.0;
            bytes[at] ^= 1 << bit;
            let Ok(changed) = Envelope::parse_text(&Envelope(bytes).to_text()) else {
                assert_eq!(at, 0, "the version");
                continue;
            };
            let error =
                changed.open(&bob, alice.public()).err().unwrap_or_else(|| panic!("bit {bit} of byte {at}"));
            assert!([Code::Seal, Code::Denied].contains(&error.code()));
        }
    }

    #[test]
    fn every_cut_and_every_change_of_the_text_is_refused() {
        let [alice, bob, _] = people();
        let envelope = Envelope::seal(&DataKey::generate(LEASE_ID), &alice, bob.public()).unwrap();
        let text = envelope.to_text();
        assert_eq!(text.len(), ENVELOPE_TEXT_BYTES);
        for cut in 0..text.len() {
            assert!(Envelope::parse_text(&text[..cut]).is_err(), "{cut}");
            assert!(Envelope::parse_text(&text[cut + 1..]).is_err(), "{cut}");
            let mut longer = text.clone();
            longer.insert(cut, '\n');
            assert!(Envelope::parse_text(&longer).is_err(), "{cut}");
        }
        for at in 0..text.len() {
            for byte in *b"\n\r =A-\0" {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == byte {
                    continue;
                }
                bytes[at] = byte;
                let parsed = Envelope::parse_text(std::str::from_utf8(&bytes).unwrap());
                assert!(
                    parsed.is_err() || parsed.is_ok_and(|parsed| parsed != envelope),
                    "byte {at}: {byte:?}"
                );
            }
        }
        for wrong in
            [format!("{text}\n"), format!(" {text}"), text.replace('\n', "\r\n"), text.to_lowercase()]
        {
            assert!(Envelope::parse_text(&wrong).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whoever_sends_what_to_whom_it_arrives(lease in any::<[u8; 16]>(), from in any::<[u8; 32]>(), to in any::<[u8; 32]>()) {
            let (from, to) = (SigningKey::from_seed(&from), SigningKey::from_seed(&to));
            let key = DataKey::generate(LeaseId(lease));
            let text = Envelope::seal(&key, &from, to.public()).unwrap().to_text();
            let envelope = Envelope::parse_text(&text).unwrap();
            prop_assert_eq!(&envelope.to_text(), &text);
            prop_assert!(envelope.open(&to, from.public()).unwrap().is(&key));
        }

        #[test]
        fn any_text_is_read_or_refused_and_read_ones_have_one_spelling(text in "\\PC{0,500}", at in 0..ENVELOPE_TEXT_BYTES, with in "[A-Za-z0-9+/=\n]{1,4}") {
            prop_assert!(Envelope::parse_text(&text).is_err());
            let [alice, bob, _] = people();
            let mut changed = Envelope::seal(&DataKey::generate(LEASE_ID), &alice, bob.public()).unwrap().to_text();
            let end = (at + with.len()).min(changed.len());
            changed.replace_range(at..end, &with[..end - at]);
            if let Ok(envelope) = Envelope::parse_text(&changed) {
                prop_assert_eq!(envelope.to_text(), changed);
            }
        }
    }
}
