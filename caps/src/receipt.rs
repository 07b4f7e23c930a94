//! The signed proof of a revocation.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{LeaseId, PrincipalKey, ReceiptId};
use crate::key::{Purpose, Signature, SigningKey, VerifyingKey};
use crate::share::Rest;
use crate::time::Micros;
use crate::wire::link::Method;
use crate::wire::row::Target;

/// What was taken back, by which means and how fast, signed by the node's receipt key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// What was done.
    pub body: ReceiptBody,
    /// By the issuer, over the CBOR of `body`.
    pub signature: Signature,
}

/// The signed part of a [`Receipt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptBody {
    /// Names the receipt.
    pub id: ReceiptId,
    /// What the call was aimed at.
    pub target: Target,
    /// The leases whose memory was taken back.
    pub leases: Vec<LeaseId>,
    /// Mappings that died, over all of them.
    pub mappings_closed: u32,
    /// The strongest means that was used.
    pub method: Method,
    /// From the call until no new operation could begin, the slowest region's.
    pub fence: Micros,
    /// From the call until the last mapping was dead, the slowest region's. Measured, not assumed: the provider keeps
    /// one page of each segment mapped through the descriptor that clients get, and the clock is read when the kernel
    /// says that this page is gone. Of memory that nobody ever mapped it is the time of the cut.
    pub dead: Micros,
    /// Bytes overwritten with zeros.
    pub wiped_bytes: u64,
    /// Index of the revocation in the broker's log; `None` while no audit device records.
    pub log_index: Option<u64>,
    /// The key that signs receipts at this node.
    pub issuer: PrincipalKey,
    /// What the target, a grant, still gives: only a part of it was taken back. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Rest>,
    /// Bytes that are as dead as the others and were not wiped: the provider keeps them in quarantine, because the
    /// operator said so or because the wipe failed. Not in the signed bytes where there are none.
    #[serde(default, skip_serializing_if = "none")]
    pub quarantined_bytes: u64,
}

/// Whether there are no bytes. By reference, as serde asks.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn none(bytes: &u64) -> bool {
    *bytes == 0
}

impl ReceiptBody {
    fn message(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        // Infallible: the writer is memory and every field has a CBOR form. ciborium writes integers and lengths in
        // their shortest form and fields in the order of declaration, so equal bodies have equal bytes.
        ciborium::into_writer(self, &mut bytes).expect("a receipt encodes");
        bytes
    }

    /// Signs the body.
    #[must_use]
    pub fn sign(self, key: &SigningKey) -> Receipt {
        let signature = key.sign(Purpose::Receipt, &self.message());
        Receipt { body: self, signature }
    }
}

impl Receipt {
    /// Checks the signature against the issuer's key, which the caller has from elsewhere.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if the receipt names another issuer or the signature is not its.
    pub fn verify(&self, issuer: PrincipalKey) -> Result<()> {
        let valid = self.body.issuer == issuer
            && VerifyingKey::parse(issuer)
                .is_ok_and(|key| key.verifies(Purpose::Receipt, &self.body.message(), &self.signature));
        valid
            .then_some(())
            .ok_or(Error::new(Code::ContractSignature, "the receipt's signature does not verify"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::ByteRange;
    use crate::rights::Rights;
    use crate::time::UnixMicros;

    #[test]
    fn a_receipt_is_its_issuers_and_unchanged() {
        let key = SigningKey::from_seed(&[5; 32]);
        let receipt = ReceiptBody {
            id: ReceiptId([1; 16]),
            target: Target::Lease(LeaseId([2; 16])),
            leases: vec![LeaseId([2; 16])],
            mappings_closed: 2,
            method: Method::Cut,
            fence: Micros(3),
            dead: Micros(90),
            wiped_bytes: 4096,
            log_index: Some(7),
            issuer: key.public(),
            left: None,
            quarantined_bytes: 0,
        }
        .sign(&key);
        receipt.verify(key.public()).unwrap();
        let mut changed = receipt.clone();
        changed.body.wiped_bytes += 1;
        assert!(changed.verify(key.public()).is_err());
        // That something is left of what was taken is signed, and that nothing is.
        let rest =
            Rest { rights: Rights::READ, range: ByteRange::new(0, 4096).unwrap(), expires: UnixMicros(5) };
        let narrowed = ReceiptBody { left: Some(rest), ..receipt.body.clone() }.sign(&key);
        narrowed.verify(key.public()).unwrap();
        let mut whole = narrowed.clone();
        whole.body.left = None;
        assert!(whole.verify(key.public()).is_err());
        let mut more = narrowed;
        more.body.left = Some(Rest { rights: Rights::READ_WRITE, ..rest });
        assert!(more.verify(key.public()).is_err());
        // And that bytes were kept instead of wiped.
        let mut kept = receipt.clone();
        kept.body.quarantined_bytes = 4096;
        assert!(kept.verify(key.public()).is_err());
        kept.body.sign(&key).verify(key.public()).unwrap();
        assert!(receipt.verify(SigningKey::from_seed(&[6; 32]).public()).is_err());
    }
}
