//! A node over mutual TLS: what a program on another machine uses instead of a socket.
//!
//! ```no_run
//! use std::sync::Arc;
//! use libmem::remote::{Credentials, Domain, Files};
//! use libmem::{Client, Endpoint, Rights, SigningKey, Token};
//!
//! fn first_word(key: &SigningKey, token: &Token) -> libmem::Result<u64> {
//!     let files = Files {
//!         chain: "alice.pem".into(),
//!         key: "alice.key".into(),
//!         roots: "roots.pem".into(),
//!         lists: None,
//!     };
//!     let credentials = Arc::new(Credentials::load(&Domain::new("mem.example")?, &files)?);
//!     let client = Client::connect(&Endpoint::tls("node-1.example:7411", credentials), key)?;
//!     let memory = client.open_mediated(token, Rights::READ_WRITE)?;
//!     memory.write_at(4096, b"over there")?;
//!     memory.fetch_add_u64(0, 1)
//! }
//! ```
//!
//! # What happens to a call when the connection is lost
//!
//! ```text
//!            ┌──── answered ────────────────────────────────────────────────────────────▶ the node's answer
//!  call ──▶ asked ── lost ──▶ back-off ──▶ TLS, proof, Resume ──▶ open the right again ──▶ asked again, same number
//!                               │ over            │ another life of the node    │ refused
//!                               ▼                 ▼                             ▼
//!                         E_UNREACHABLE     E_UNCERTAIN for a change      the node's code
//! ```
//!
//! A request that changes something is asked again under its number, and the node, which remembers what it answered to
//! whom ([`Request::Resume`](caps::wire::Request::Resume)), does it once. A node that began a new life remembers nothing:
//! then a change whose answer did not come is `E_UNCERTAIN`, and it is `E_UNCERTAIN` too where the node cannot be reached
//! again in time or no longer opens the right, and where the node no longer knows what it answered. A node remembers so many programs and no more; one that it has no room for
//! (`Resume` is answered with `E_BUSY`) is served like the others, and each change of its whose answer is lost is
//! `E_UNCERTAIN`. What changes nothing is simply asked again. A right is opened again when
//! it is next used, from its token, which is kept for that; where the token says how often it may be opened (`opens`),
//! each time is spent. A right of an earlier life of the node is `E_EPOCH`, and the node is not asked.
//!
//! What a node says of a change that was sent before is its answer to this time alone. `E_BUSY` is asked again until the
//! call's time is over, and is `E_UNCERTAIN` then. Any other refusal is `E_UNCERTAIN`, but for those of the socket's requests,
//! which the node remembers. `E_TIMEOUT` from the node is `E_UNCERTAIN` for a change that was sent once, too; leases made or given
//! back and the socket's requests are carried to their end there, so these are asked for once more first.
//!
//! Where the endpoint does not say which provider is meant, it is the one that the first connection led to: another one
//! that answers later is `E_PEER_IDENTITY`. A program is named anew for each connection that follows on one that left
//! nothing in doubt, so that copies of it do not share what they are answered for long.
//!
//! A node that does not keep to the protocol is not asked again: the session is over, with the code of what it did first.
//!
//! # Files
//!
//! | file | idea |
//! |---|---|
//! | `failure.rs` | how an attempt can fail, and what follows from it |
//! | `tls.rs` | one connection: bytes in, bytes out, and the only places that wait |
//! | `incoming.rs` | frames out of what came, whole or in parts |
//! | `talk.rs` | requests and their answers in order: what may be sent now, what may come next |
//! | `greeting.rs` | certificates, proof and resumption: how a connection becomes a session |
//! | `backoff.rs` | how long to wait before the next attempt |
//! | `session.rs` | connections one after the other behind one session |
//! | `right.rs` | an open right that is opened again when its connection was lost |
//! | `control.rs` | one request of the socket's protocol |
//! | `reading.rs`, `writing.rs` | bytes of one place |
//! | `gathering.rs`, `scattering.rs` | bytes of many places |
//! | `single.rs` | words, and what a right reaches |
//! | `leases.rs` | leases made and given back many at a time |

mod backoff;
#[cfg(test)]
#[path = "../../tests/remote/certificates.rs"]
mod certificates;
mod control;
mod failure;
mod gathering;
mod greeting;
mod incoming;
mod leases;
mod reading;
mod right;
mod scattering;
mod session;
mod single;
mod talk;
mod tls;
mod writing;

pub use transport::{Credentials, Domain, Files, PeerId, Reload, Reloaded, Role};

pub(crate) use right::Right;
pub(crate) use session::Session;

pub use backoff::{RECONNECT_MS_FIRST, RECONNECT_MS_MAX};
