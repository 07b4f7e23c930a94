//! The remote gate: the verbs of the data plane over TLS, and the requests of the local socket inside one of them.
//!
//! ```text
//!            accept ──▶ admission ──▶ mailbox of a shard                       tokio's threads
//!                                          │                        ┌─────────────────────────────────┐
//!   ┌──────────────────────────────────────▼─────────────────┐      │  control: one request, with the │
//!   │ shard: one thread, one poll                            │      │  visitor that asks it           │
//!   │   socket ─▶ line (TLS) ─▶ frames ─▶ connection ────────┼─────▶│  greeting: who has this key?    │
//!   │                 ▲                      │ data verbs    │      └───────────────┬─────────────────┘
//!   │                 │   frames             ▼               │                      │ mailbox, waker
//!   │                 └──────────────────── job ◀─▶ provider │◀─────────────────────┘
//!   └────────────────────────────────────────────────────────┘
//! ```
//!
//! A small data request is read, judged, done and answered in one wake-up of one thread, which stays awake for a moment
//! where requests follow each other closely ([`transport::Eager`]); a large one, and more than a
//! turn's share of requests, takes turns with the other connections. Nothing on its way waits: what cannot go
//! on (no room for the answer, a segment that is being rotated, a request that the broker decides) leaves the connection
//! *held up*, and a connection that is held up is not read from, so what its client sends more waits in its own kernel.
//! Therefore answers come in the order of the requests, and what a connection costs is bounded: what was read of one
//! frame, and what the socket did not take of one answer. A connection without a request costs its TLS state and
//! what it was answered last that cannot be done twice; buffers are the shard's.
//!
//! | file | holds |
//! |---|---|
//! | `config` | what the operator says |
//! | `admission` | how many connections there may be, and whose |
//! | `rates` | how many handshakes a network may begin in a time |
//! | `listener` | binding, accepting, starting and stopping the shards |
//! | `mailbox` | what other threads tell a shard |
//! | `shard` | the loop of a thread: readiness, mail, deadlines, turns |
//! | `share` | what a connection may have done in one turn |
//! | `table` | the connections of a shard, by keys that are never used again |
//! | `partials` | what all connections hold of frames that are not whole |
//! | `deadlines` | when which connection has to be looked at |
//! | `line` | TLS over a socket: bytes in, frames out |
//! | `records` | where TLS's records end in what has come |
//! | `connection` | one connection from accept to end |
//! | `greeting` | a session's beginning: certificates, proof of a key, and that both mean the same |
//! | `requests` | what a frame asks for, and who does it |
//! | `control` | the requests of the local socket and leases by the batch, worked on beside the shard |
//! | `parting` | the ends of a connection: told, recorded, closed |
//! | `job` | one data request under way: begun, fed, run until it is answered |
//! | `read`, `write`, `batch`, `stat` | its verbs |
//! | `words` | words that are compared and swapped, or added to |
//! | `leases` | leases made with their first bytes, and given back, many at a time |
//! | `effects` | what clients asked for last that cannot be done twice, and what they were answered |
//! | `fingerprint` | what such a request is told apart by |
//! | `keeping` | an answer kept before it leaves, and sent again |
//! | `known` | requests that are answered as they were before |
//! | `trial` | requests without a socket, for tests and measurements |
//!
//! What has left a connection and what must not leave any more is in [`crate::runtime::Outgoing`].

mod admission;
mod batch;
mod config;
mod connection;
mod control;
mod deadlines;
mod effects;
mod fingerprint;
mod greeting;
mod job;
mod keeping;
mod known;
mod leases;
mod line;
mod listener;
mod mailbox;
mod partials;
mod parting;
mod rates;
mod read;
mod records;
mod requests;
mod shard;
mod share;
mod stat;
mod table;
#[doc(hidden)]
pub mod trial;
mod words;
mod write;

pub use config::RemoteConfig;
pub use listener::RemoteGate;
