//! The all-in-one node: factory, provider, broker and gate in one command.
//!
//! ```text
//! up ──fork──▶ factory/guardian        before any thread
//!  │
//!  └─ provider ◀──ProviderLink── broker ◀──ControlPlane── gate ◀── clients
//!        │                          │
//!        └── audit/provider-1       └── audit/broker
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `state` | the directory: lock, keys, configuration, policy, registered principals |
//! | `ring` | the root keys on disk |
//! | `custody` | the root keys while the node runs: rotation and retirement |
//! | `links` | the two adapters between gate, broker and provider |
//! | `remote` | where it serves TLS, and by which credentials |
//! | `up` | start, serve, stop |
//! | `spawned` | a node as a child process, for the demo and the benchmarks |
//!
//! Nothing here decides anything: it only connects what the crates below have made.

mod custody;
mod links;
mod remote;
mod ring;
mod spawned;
mod state;
mod up;

pub(crate) use spawned::Spawned;
pub(crate) use up::{Options, run};
