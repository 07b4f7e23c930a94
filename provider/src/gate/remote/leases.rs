//! CREATE and DELETE: leases made and given back many at a time.
//!
//! ```text
//!   CREATE ──▶ make all leases ──▶ no bytes follow ────────────────────────────────────────▶ answered
//!             (a task of its own)  └▶ open each ──▶ Filling: bytes as they come ──▶ last frame ─┘
//!                                          │                │
//!                                          └──── breaks off ┴──▶ given back, then the number is nobody's again
//! ```
//! A request that has come whole is carried to its end, whether or not somebody still listens, and its answer is kept: who
//! asks again is told of the leases that there are. One whose first bytes break off, because the connection went, the time
//! was over or its frames made no sense, is undone: what was made is given back, and until that is done the same number
//! is answered with `E_BUSY`. Either way asking again leaves the leases that were asked for once.
//!
//! An item fails by itself: its bytes are read and forgotten, what was made for it is given back, and the others go on.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, SlotHandle};
use caps::limits::{VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use caps::rights::Rights;
use caps::wire::remote::leases::{Create, Created, Creations, Delete, Deletions, bounded};
use caps::wire::remote::{Flags, Header, Piece};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::{Reply, Request, cbor};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::effects::UnderWay;
use super::keeping::whole;
use crate::gate::answered::Identity;
use crate::gate::fault::Access;
use crate::gate::memory::Answer;
use crate::gate::visitor::Visitor;
use crate::gate::{Caller, ControlPlane};
use crate::runtime::{Progress, Rotating};

/// A request for leases whose first frame is here.
pub(super) struct Asked {
    /// Its header.
    pub(super) header: Header,
    /// Its number, held for as long as something of it is to be done or undone.
    pub(super) under_way: UnderWay,
    /// What it is told apart by, as far as it has come.
    pub(super) identity: Identity,
}

/// What making leases came to.
pub(super) enum Made {
    /// An answer: its frame, which is kept already.
    Answered(Zeroizing<Vec<u8>>),
    /// Their first bytes are still to come.
    Filling(Box<Filling>),
}

/// Makes leases. Of those whose first bytes follow, the rest is [`Filling`]'s.
///
/// Dropping the future undoes nothing of a request that is here whole, and everything of another.
///
/// # Errors
/// `E_FRAME_TYPE` for a body that is none; `E_RANGE` unless there are 1 to 64 items; `E_INTERNAL`. What there is to say of
/// an item is in the answer.
pub(super) async fn create(visitor: &mut Visitor, asked: Asked, body: &[u8]) -> Result<Made> {
    let Create { leases } = cbor::decode(body)?;
    bounded(leases.len())?;
    let follows = asked.header.has_more();
    let undo = Undo::new(visitor, asked.under_way.clone());
    // A task: a lease that is made for a future that is dropped meanwhile must be known to somebody.
    let task = tokio::spawn(async move {
        let (made, mut undo) = make(undo, leases).await;
        if follows {
            return Ok((made, undo, None));
        }
        let answer = asked.answer(&made)?;
        undo.keep(&made);
        Ok((made, undo, Some(answer)))
    });
    let (mut made, undo, answer) = task.await.unwrap_or_else(|_| Err(panicked()))?;
    if made.iter().any(|one| one.as_ref().is_err_and(|error| error.code() == Code::Quota)) {
        visitor.refused_by_quota();
    }
    if let Some(answer) = answer {
        return Ok(Made::Answered(answer));
    }
    let mut handles = Vec::with_capacity(made.len());
    for one in &mut made {
        let opened = match one {
            Ok(created) => open(visitor, created).await,
            Err(_) => continue_with_none(&mut handles),
        };
        match opened {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                handles.push(None);
                *one = Err(error);
            }
        }
    }
    handles.truncate(made.len());
    Ok(Made::Filling(Box::new(Filling { items: made, handles, undo, frame: Frame::default(), at: 0 })))
}
