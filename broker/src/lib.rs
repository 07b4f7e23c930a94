//! The control plane: who may have which memory, for how long, and shared with whom.
//!
//! # Data flow
//!
//! ```text
//! Request ──▶ policy ──▶ Command { at, by, random, policy, kind }      on the caller's task
//!                             │ queue, one thread
//!                             ▼
//!                 state::Broker::apply ──▶ entries ──▶ audit::Recorder ──▶ durable ──▶ Reply
//!                             │
//!                             └──▶ effects ──▶ ProviderLink: claim, renew, take
//! ```
//!
//! The state machine is pure: time, random bytes and the policy's decision are in the command. So the tests, the
//! fuzzer and, later, replicas run the very code that a node runs.
//!
//! | module | holds |
//! |---|---|
//! | [`state`] | principals, leases, grants, quotas, revocations, providers: the state machine and its serialized form |
//! | [`runtime`] | the thread, the queue, and requests as sequences of commands |
//!
//! # What it promises
//!
//! * No lease, share or renewal without its entry: what cannot be recorded is undone by ordered commands and refused
//!   with `E_AUDIT_UNAVAILABLE`. Taking back is the exception: it takes effect, and is recorded as soon as that is
//!   possible.
//! * Every table, queue and batch has a fixed size. Full is a code, never growth.
//! * Capacity and quota are given back when the provider says that the memory is back, or is proved to be gone, not before;
//!   where nothing was heard of it, when its time is over there by any clock.
//! * No receipt before the provider has answered. What one was not told, it is told when it answers again.
//! * A lease is at one provider, which has room for it; why it is there stays with it.
//!
//! # What it does not
//!
//! It enforces no deadline: the provider does, on a clock of its own, without the broker. It never sees a byte of
//! anybody's memory.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod fuzzing;
pub mod runtime;
pub mod state;
