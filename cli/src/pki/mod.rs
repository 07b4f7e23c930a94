//! A certificate authority for people who have none.
//!
//! ```text
//!  <state>/pki/ca.key      its private key, for its owner's eyes alone
//!              roots.pem   who is believed: the authority, and the one before it while what it issued may be in use
//!              ca-before.key  the private key of the one before it
//!              lock        taken by whoever changes any of this, for as long as that takes
//!              domain      whose certificates it issues
//!              issued.json what was issued: serial, identity, until when, whether it was revoked
//!              lists.pem   who is believed no longer
//!              NAME.pem    certificates, and
//!              NAME.key    their keys
//! ```
//!
//! It signs on the operator's machine and is asked by nobody over a network. Nodes and clients need `roots.pem`,
//! `lists.pem` and their own two files, and nothing else of this directory.
//!
//! | file | idea |
//! |---|---|
//! | `authority.rs` | the authority: begin, issue, revoke, renew itself |
//! | `issued.rs` | what was issued |

mod authority;
mod issued;

pub(crate) use authority::{Authority, Issue};
pub(crate) use issued::Issued;
