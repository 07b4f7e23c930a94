//! Mutual TLS 1.3 between the parts of Leasehold.
//!
//! ```text
//!  certificate, key, roots, CRL ──▶ files ──▶ credentials ──▶ rustls configurations
//!        (any CA's, or `pki`)                     ▲                  │ handshake
//!                                   reload ───────┘                  ▼
//!                                                  verify: chain, use, one identity ──▶ PeerId
//! ```
//!
//! There is one way to speak: TLS 1.3, both sides with a certificate, ALPN [`ALPN`] for sessions of clients and
//! [`LINK_ALPN`] for the link between broker and provider, no tickets, no early data. Nothing
//! here can be turned off. A certificate says who is at the other end ([`PeerId`]); it gives no right to any memory:
//! for that a session proves the key of a principal, over what [`binding`] says of this very connection.
//!
//! | file | idea |
//! |---|---|
//! | `identity.rs` | who a certificate says that somebody is |
//! | `verify.rs` | whether a certificate is to be believed |
//! | `files.rs` | certificates, keys, roots and revocation lists as PEM |
//! | `config.rs` | the configurations of both ends |
//! | `reload.rs` | files that are read again when they change, and kept as they were when they are bad |
//! | `eager.rs` | waiting awake for a moment before sleeping |

mod config;
mod eager;
mod files;
mod identity;
mod reload;
mod verify;

pub use config::{ALPN, Credentials, LINK_ALPN, binding};
pub use eager::Eager;
pub use files::{Files, Pems};
pub use identity::{Domain, PeerId, Role};
pub use reload::{Reload, Reloaded};

/// What two of these crate's users must agree on, so they take it from here.
pub use rustls;
