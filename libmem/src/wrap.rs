//! Handing a token over through the node, so that it is seen if somebody else took it on the way.
//!
//! ```no_run
//! # fn hand_over(alice: &libmem::Client, bob: &libmem::Client, token: &libmem::Token) -> libmem::Result<()> {
//! use std::time::Duration;
//! use libmem::Code;
//!
//! // Alice puts it in for bob, and tells him the id by any way that he can read.
//! let wrapped = alice.wrap(token, Some(bob.holder()), Duration::from_secs(300))?;
//! let token = bob.unwrap(wrapped.id)?;
//!
//! // It works once. Who comes second learns who was first, and so do alice and the log.
//! assert_eq!(bob.unwrap(wrapped.id).unwrap_err().code(), Code::Denied);
//! assert_eq!(alice.wrap_show(wrapped.id)?.fetched.unwrap().by, bob.holder());
//! # Ok(())
//! # }
//! ```
//!
//! The node keeps the token in memory until it is fetched or its time is over, at most 10 minutes, and not beyond its own
//! end. Without a receiver the id is as good as the token: whoever knows it first, has it, and whoever it was meant for
//! finds out.

use std::time::Duration;

use caps::error::Result;
use caps::id::PrincipalKey;
use caps::token::Token;
use caps::wire::wrap::{WrapId, WrapRow};
use caps::wire::{Reply, Request};

use crate::calls::Call;
use crate::lease::micros;

/// A token that waits in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Under which it can be fetched. A secret, where no receiver is named.
    pub id: WrapId,
    /// For how long: what was asked for, or what the token has left.
    pub expires_in: Duration,
}

/// What is kept is the token as it is here: it is for its receiver to narrow or to seal.
pub(crate) fn wrap(token: &Token, to: Option<PrincipalKey>, ttl: Duration) -> Result<Call<Wrapped>> {
    let read = |reply| match reply {
        Reply::Wrapped { id, expires_in } => {
            Some(Wrapped { id, expires_in: Duration::from_micros(expires_in.0) })
        }
        _ => None,
    };
    Ok(Call::new(Request::Wrap { token: token.clone(), to, ttl: micros(ttl)? }, read))
}

pub(crate) fn unwrap(id: WrapId) -> Call<Token> {
    let read = |reply| if let Reply::Unwrapped { token } = reply { Some(token) } else { None };
    Call::new(Request::Unwrap { id }, read)
}

pub(crate) fn wrap_show(id: WrapId) -> Call<WrapRow> {
    let read = |reply| if let Reply::Wrap(row) = reply { Some(row) } else { None };
    Call::new(Request::WrapShow { id }, read)
}
