//! What travels between a client and a node, and between the broker and a provider.
//!
//! # The local socket
//!
//! A Unix `SEQPACKET` socket carries one [`frame`] a packet: a fixed 24-byte header and a CBOR body. A session is
//!
//! ```text
//! client                                  node
//!   │ Hello { holder, nonce }              │  SO_PEERCRED and SO_PEERPIDFD were read at accept
//!   │ ───────────────────────────────────▶ │
//!   │           Challenge { node, nonce }  │
//!   │ ◀─────────────────────────────────── │
//!   │ Prove { signature }                  │
//!   │ ───────────────────────────────────▶ │  possession holds for every token of this holder
//!   │     Welcome { cluster, provider, .. }│
//!   │ ◀─────────────────────────────────── │
//!   │ any request, one answer each, in order
//! ```
//!
//! Requests on one session are answered in the order they were sent. A request whose bytes are wrong is answered
//! with an error frame; an error of group `E_FRAME_*` also ends the session, but for `E_FRAME_DUP`.
//!
//! A client numbers its requests. One that changes something and is asked again with its number and the same bytes, while
//! it is among the last 32 of its kind in the session, is answered as before and does nothing more; the number of one of
//! these with other bytes is `E_FRAME_DUP`, and so is one whose answer had a descriptor beside it.
//!
//! | module | holds |
//! |---|---|
//! | [`cbor`] | what stands in a body |
//! | [`frame`] | header, bounds, encode and decode |
//! | [`request`] | what a client asks |
//! | [`reply`] | what it is told |
//! | [`row`] | leases, grants and principals as lists show them |
//! | [`link`] | what broker and provider say to each other |
//! | [`remote`] | what travels over TLS |
//! | [`name`] | short texts that people chose, checked once |
//! | [`wrap`] | a token on its way through a node, to be fetched once |
//! | [`provider`] | providers as the control plane knows them, and why a lease is where it is |
//! | [`place`] | where a provider is, and how a node says that something is asked of another one |
//! | [`cluster`] | what broker and provider say to each other where a network is between them |

pub mod cbor;
pub mod channel;
pub mod frame;
pub mod link;
pub mod name;
pub mod place;
pub mod provider;
pub mod remote;
pub mod reply;
pub mod request;
pub mod row;
pub mod wrap;

pub mod cluster;

pub use frame::{Frame, FrameKind};
pub use name::{Name, Reason};
pub use reply::Reply;
pub use request::Request;
