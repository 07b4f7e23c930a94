//! Names of things. An id says *which*, never *may*: knowing one grants nothing.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// Defines a 16-byte random identifier that prints as 32 lowercase hexadecimal digits.
macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "serde_bytes")] pub [u8; 16]);

        impl $name {
            /// Draws a fresh id from the kernel's random source.
            ///
            /// # Panics
            /// If the kernel has no random source, in which case nothing in this system is safe to run.
            #[must_use]
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the kernel's random source answers");
                Self(bytes)
            }

            /// Reads 32 lowercase hexadecimal digits.
            ///
            /// # Errors
            /// `E_RANGE` for any other text.
            pub fn parse(text: &str) -> Result<Self, Error> {
                crate::hex::parse(text)
                    .map(Self)
                    .ok_or(Error::new(Code::Range, concat!(stringify!($name), " is 32 lowercase hexadecimal digits")))
            }
        }

        crate::hex::shown_as_hex!($name);
    };
}

id16!(
    /// A right to a region for a time. Random, so that nobody can count other people's leases.
    LeaseId
);
id16!(
    /// Memory with one owner.
    RegionId
);
id16!(
    /// A `MEM_SHARE` from an owner to a receiver. Drawn by the owner, because both sign it.
    GrantId
);
id16!(
    /// One life of the control plane. A token that names another one is refused with `E_EPOCH`.
    ClusterEpoch
);
id16!(
    /// One life of one provider process (an incarnation). A provider that restarts has another one, because its
    /// memory is gone.
    ProviderId
);

impl ProviderId {
    /// All zeros: no provider. What is drawn at random is never this.
    pub const NOBODY: Self = Self([0; 16]);
}

id16!(
    /// A revocation receipt.
    ReceiptId
);
id16!(
    /// A loan of quota from one principal to another. Drawn by the giver, so that asking again gives once.
    DonationId
);
id16!(
    /// An offer to hand a lease over. Drawn by the owner, because both sign it.
    TransferId
);
id16!(
    /// A program that goes on after its connection was lost. Drawn by itself, and worth nothing without its key.
    ClientId
);
id16!(
    /// The directory that a provider's lives have one after the other, drawn when it is made: only one process at a time
    /// holds its lock.
    Seat
);

/// A principal's Ed25519 public key as it travels: 32 bytes, not yet checked to be a usable key.
///
/// [`crate::key::VerifyingKey::parse`] is the check. Equality and order are those of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl PrincipalKey {
    /// Reads 64 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// `E_RANGE` for any other text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        crate::hex::parse(text)
            .map(Self)
            .ok_or(Error::new(Code::Range, "a principal's key is 64 lowercase hexadecimal digits"))
    }
}

crate::hex::shown_as_hex!(PrincipalKey);

/// An open right, as a session names it to the provider: an index into the provider's slot table and the
/// generation the index had when the right was opened.
///
/// A stale generation is `E_REVOKED`: the slot may belong to somebody else by now. Holding a handle does not imply
/// that the right still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotHandle {
    /// Index into the provider's slot table.
    pub slot: u32,
    /// Generation of that slot.
    pub epoch: u32,
}

/// A client's number for one of its requests; a reply carries it back. Unique among those in flight on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Names something in quarantine at one provider, counted from 1 and never used again while it runs. It carries no
/// authority: only the administrator may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuarantineId(pub u64);

impl std::fmt::Display for QuarantineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_back() {
        let id = LeaseId::random();
        assert_eq!(LeaseId::parse(&id.to_string()).unwrap(), id);
        for bad in ["", "00", &"0".repeat(31), &"0".repeat(33), &"G".repeat(32), &"A".repeat(32)] {
            assert_eq!(LeaseId::parse(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }

    #[test]
    fn ids_are_byte_strings_on_the_wire() {
        let mut bytes = Vec::new();
        ciborium::into_writer(&LeaseId([7; 16]), &mut bytes).unwrap();
        assert_eq!(bytes[0], 0x50, "CBOR major type 2, length 16");
        assert_eq!(bytes.len(), 17);
    }
}
