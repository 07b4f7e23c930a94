//! `leasehold lease snapshot`: a copy of leased memory in a lease of one's own.
//!
//! Of an encrypted lease whose key is here the copy is encrypted, too, under a key of its own: blocks are bound to their
//! lease, so as they are stored nobody could read them there.

use std::ops::ControlFlow;

use caps::id::LeaseId;
use caps::rights::Rights;
use caps::token::{Token, inspect};
use libmem::sealed::{IO_BYTES, Sealed};
use libmem::{LeaseOptions, Leased, Lifetime, Memory, SnapshotOptions};

use super::encrypted::{encrypt_with, with_key};
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
    let lease = LeaseId::parse(&inspect(&token, None)?.lease)?;
    match context.lease_keys()?.find(lease)? {
        Some(key) => {
            let original = Sealed::new(session.reach.open(&token, Rights::READ)?, &key)?;
            encrypted(arguments, &original, context)
        }
        None => plain(arguments, &token, session, context),
    }
}

/// A copy of the bytes as they are stored.
fn plain(arguments: &Snapshot, token: &Token, session: &Session, context: &Context) -> Result<Report> {
    // Commands are short: what they make outlives them. So whatever ends this one early has to end the copy.
    let mut options = SnapshotOptions::new(arguments.ttl).lifetime(Lifetime::Detached);
    if let Some(name) = &arguments.name {
        options = options.name(name.as_str())?;
    }
    let interrupt = Interrupt::listen()?;
    let mut shown = None;
    let copied = session.reach.snapshot(token, options, |done, total| {
        shown.get_or_insert_with(|| Progress::start(Some(total))).at(done);
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(shown);
    told(&copied?.ok_or_else(interrupted)?, arguments, session, context)
}

/// A copy of the owner's own bytes, under a key that is drawn here.
fn encrypted(arguments: &Snapshot, original: &Sealed<Memory>, context: &Context) -> Result<Report> {
    let opened = original.memory().facts();
    let bytes = opened.range.len();
    let mut options = LeaseOptions::new(bytes, arguments.ttl).lifetime(Lifetime::Detached);
    // A region of one segment has that of its own length, which may be none that can be asked for.
    if bytes > opened.segment_bytes {
        options = options.segment(opened.segment_bytes);
    }
    if let Some(name) = &arguments.name {
        options = options.name(name.as_str())?;
    }
    let interrupt = Interrupt::listen()?;
    let (session, leased) = context.lease(options)?;
    let fill = |copy: &Sealed<Memory>| fill(original, copy, &interrupt);
    let key = encrypt_with(&leased, &interrupt, &session, context, fill)?;
    let mut report = told(&leased, arguments, &session, context).inspect_err(|_| {
        // The lease is released already, and it is the first error that says what happened.
        let _ = context.lease_keys().and_then(|keys| keys.undo(leased.lease.id));
    })?;
    with_key(&mut report, &leased, &key, context)?;
    Ok(report)
}

fn fill(original: &Sealed<Memory>, copy: &Sealed<Memory>, interrupt: &Interrupt) -> Result<()> {
    let own = original.range();
    let total = own.end - own.start;
    let mut shown = Progress::start(Some(total));
    let mut buffer = vec![0; IO_BYTES];
    let mut done = 0;
    while done < total {
        let left = usize::try_from(total - done).unwrap_or(IO_BYTES);
        let piece = &mut buffer[..left.min(IO_BYTES)];
        original.read_at(own.start + done, piece)?;
        copy.write_at(done, piece)?;
        done += piece.len() as u64;
        shown.at(done);
        if interrupt.came() {
            return Err(interrupted());
        }
    }
    Ok(())
}

fn interrupted() -> Failure {
    Failure::interrupted("interrupted; the lease with the half copy was released", "type it again")
}

/// Keeps the copy's token and shows its lease.
fn told(leased: &Leased, arguments: &Snapshot, session: &Session, context: &Context) -> Result<Report> {
    let kept = kept(leased, arguments.name.as_ref(), arguments.output.as_deref(), session, context);
    if kept.is_err() {
        // A copy that its owner was not told of is of no use. It is the first error that says what happened.
        let _ = session.client.release(leased.lease.id);
    }
    kept
}
