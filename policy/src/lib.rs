//! Who may get what.
//!
//! Three questions stand between a request and memory, and each has one place here:
//!
//! ```text
//!                    ┌────────────────────── leasehold.toml ──┐     ┌── policy.dl ──┐
//!                    ▼                                        ▼     ▼               │
//! request ──▶ is it within what   ──▶ does the operator's ──▶ does its principal ──▶ the broker orders it,
//!             any node allows?        policy allow it?        have quota left?       with the decision inside
//!             limits, config          datalog                 quota
//! ```
//!
//! Nothing here holds memory, opens a socket or asks a clock. Two functions read files ([`config::load`],
//! [`datalog::Policy::load`]); the rest are functions of their arguments.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound of the system, each with its reason, and their relations, asserted at compile time |
//! | [`config`] | the node's TOML: safe defaults, every mistake at once with file, line and column |
//! | [`datalog`] | the policy: allow and deny rules over fixed facts, checked before they are parsed, bounded before they run |
//! | [`quota`] | what each principal may hold, and books that always balance |
//! | [`fault`] | what happens to a client that breaks a rule |
//! | [`units`] | sizes and durations as people write them |
//! | [`machine`] | how much RAM there is |
//! | [`diagnostic`] | a mistake in a file, and where |
//!
//! The operator's files are the only text that is parsed here. Peers contribute facts, as typed values, and never text.
#![forbid(unsafe_code)]

pub mod config;
pub mod datalog;
pub mod diagnostic;
pub mod fault;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod machine;
pub mod quota;
pub mod units;

pub use config::Config;
pub use datalog::{Decision, Facts, Kind, Policy};
pub use diagnostic::{Diagnostic, Severity};
pub use quota::{Quota, Usage, WithinQuota};
