//! A provider's stand-in for the broker: what it was told by it, and who is asked instead.
//!
//! ```text
//!            facts ──▶ known ◀── control ◀── gate: who is this, may it open, how much
//!  link ────────────┤                 └── asker ──▶ link: take this token back, all of this holder
//!            asks  ──▶ hands ──▶ Provider: claim, renew, take, memory, status
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `known` | principals, quotas, the policy: as the broker said last |
//! | `control` | the gate's questions, answered from that |
//! | `hands` | what the broker asks, done by the provider |
//! | `roots` | the root keys: believed, expired, and retired ones of which something may be left |
//!
//! A provider believes the broker alone: no client's word enters what is known here.

mod control;
mod hands;
mod known;
mod roots;

pub(super) use control::Control;
pub(super) use hands::Hands;
pub(super) use known::Known;
pub(super) use roots::set;
