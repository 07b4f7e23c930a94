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
//! `leasehold broker` is the same with providers of other machines beside its own, or in its place:
//!
//! ```text
//!  leasehold broker (or up)                                leasehold provider, a process above its lives
//!   clients ──▶ gate ──▶ broker ──ProviderLink──┐           ┌──▶ hands ──▶ provider ◀── gate ◀── clients
//!                          ▲                 link::broker ◀─TLS─▶ link::provider          │
//!                          └────────────────────┘  facts    └──▶ known ◀── control ◀──────┘
//! ```
//! Without a pool the broker has a provider all the same: of no bytes, unknown to the books, behind which its gate and the
//! log of what it refuses are as everywhere. So a broker and a node of its own are one path through one file.
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
//! | `provider` | start, serve, stop of a provider of a broker elsewhere |
//! | `lives` | the process that starts a provider's lives |
//! | `member/` | what such a provider knows from its broker, and does for it |
//!
//! Nothing here decides anything: it only connects what the crates below have made.

mod custody;
mod links;
mod remote;
mod ring;
mod spawned;
mod state;
mod up;

mod lives;
mod member;
mod provider;

pub(crate) use lives::{LATER_VARIABLE, VARIABLE as LIFE_VARIABLE};
pub(crate) use provider::{Options as ProviderOptions, run as run_provider};
pub(crate) use spawned::Spawned;
pub(crate) use up::{Options, Role, run};

/// The threads that serve sockets and links. Everything that is done before there are threads is done before this.
fn runtime() -> caps::Result<tokio::runtime::Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.thread_name("lh-gate").enable_all().build();
    runtime.map_err(|_| caps::Error::new(caps::error::Code::System, "cannot start the gate's threads"))
}
