//! A broker, two providers and a client, each a process on a host of its own: who has what, and what becomes of it when one
//! of them is killed, stopped or cut off.
//!
//! ```text
//!   broker ──┐            ┌── client: the command line, and rights held open by this process
//!            ├── switch ──┤
//!   node-a ──┘            └── node-b
//!   broker ──── wire ──── node-a: for the link between both alone, so that it fails while clients reach everybody
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `stage.rs` | the hosts, their processes, and what a user types at the client's |
//! | `held.rs` | a right that is open at a provider, with bytes that must be there |
//! | `placing.rs` | leases go to both providers, and their bytes to the one that has them |
//! | `broker.rs` | the broker is stopped, or cut off |
//! | `provider.rs` | a provider is killed, or cut off, for less or for more than it takes to be given up |

#[path = "cluster/broker.rs"]
mod broker;
mod common;
#[path = "cluster/held.rs"]
mod held;
#[path = "cluster/placing.rs"]
mod placing;
#[path = "cluster/provider.rs"]
mod provider;
#[path = "cluster/stage.rs"]
mod stage;
