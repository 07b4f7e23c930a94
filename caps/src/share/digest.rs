//! What names a contract: SHA-256 of the bytes that all parties sign.

/// Makes the digest type of one kind of contract. Each has its own, so that what was seen of one is never held against
/// another.
macro_rules! contract_digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Reads 64 lowercase hexadecimal digits.
            ///
            /// # Errors
            /// `E_RANGE` for any other text.
            pub fn parse(text: &str) -> crate::error::Result<Self> {
                crate::hex::parse(text).map(Self).ok_or(crate::error::Error::new(
                    crate::error::Code::Range,
                    "a contract's digest is 64 lowercase hexadecimal digits",
                ))
            }

            /// Of a contract's bytes, as they are signed for `purpose`.
            fn of(purpose: crate::key::Purpose, message: &[u8]) -> Self {
                use sha2::Digest as _;
                let hash = sha2::Sha256::new().chain_update(purpose.prefix()).chain_update(message);
                Self(hash.finalize().into())
            }
        }

        crate::hex::shown_as_hex!($name);
    };
}

pub(super) use contract_digest;
