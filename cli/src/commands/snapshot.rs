//! `leasehold lease snapshot`: a copy of leased memory in a lease of one's own.

use std::ops::ControlFlow;

use libmem::{Lifetime, SnapshotOptions};

use super::lease::{kept, refuse_existing};
use super::transfer::token;
use crate::args::lease::Snapshot;
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::Report;
use crate::output::progress::Progress;

pub(crate) fn run(arguments: &Snapshot, session: &Session, context: &Context) -> Result<Report> {
    refuse_existing(arguments.output.as_deref())?;
    let find = || super::lease::find(&arguments.lease, session);
    let token = token(&arguments.lease, &session.tokens, find)?;
    // Commands are short: what they make outlives them. So whatever ends this one early has to end the copy.
    let mut options = SnapshotOptions::new(arguments.ttl).lifetime(Lifetime::Detached);
    if let Some(name) = &arguments.name {
        options = options.name(name.as_str())?;
    }
    let interrupt = Interrupt::listen()?;
    let mut shown = None;
    let copied = session.reach.snapshot(&token, options, |done, total| {
        shown.get_or_insert_with(|| Progress::start(Some(total))).at(done);
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(shown);
    let leased = copied?.ok_or_else(|| {
        Failure::interrupted("interrupted; the lease with the half copy was released", "type it again")
    })?;
    let kept = kept(&leased, arguments.name.as_ref(), arguments.output.as_deref(), session, context);
    if kept.is_err() {
        // A copy that its owner was not told of is of no use. It is the first error that says what happened.
        let _ = session.client.release(leased.lease.id);
    }
    kept
}
