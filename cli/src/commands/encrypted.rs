//! Leased memory as commands use it: through the lease's key where there is one here, as it is where there is none.

use std::ops::ControlFlow;

use caps::error::Code;
use caps::id::LeaseId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::token::{Token, inspect};
use libmem::sealed::{DataKey, Sealed};
use libmem::{Facts, Leased, Memory};
use serde_json::json;

use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::progress::Progress;
use crate::output::{Report, human, table};

/// Memory of a lease.
pub(super) enum Opened {
    /// Of one without a key here.
    Plain(Memory),
    /// Of one with a key here. Bytes are the user's own: the blocks that hold them do not show.
    Sealed(Sealed<Memory>),
}

impl Opened {
    /// Looks for the lease's key, and says on standard error that it is used.
    pub(super) fn new(memory: Memory, token: &Token, context: &Context) -> Result<Self> {
        let lease = LeaseId::parse(&inspect(token, None)?.lease)?;
        let Some(key) = context.lease_keys()?.find(lease)? else { return Ok(Self::Plain(memory)) };
        let sealed = Sealed::new(memory, &key)?;
        if !context.json {
            eprintln!("encrypted with the key {} of lease {lease}", key.fingerprint());
        }
        Ok(Self::Sealed(sealed))
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> libmem::Result<()> {
        match self {
            Self::Plain(memory) => memory.read_at(offset, buffer),
            Self::Sealed(sealed) => sealed.read_at(offset, buffer),
        }
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> libmem::Result<()> {
        match self {
            Self::Plain(memory) => memory.write_at(offset, bytes),
            Self::Sealed(sealed) => sealed.write_at(offset, bytes),
        }
    }

    /// What was opened; the range is that of the user's own bytes.
    pub(super) fn facts(&self) -> Facts {
        match self {
            Self::Plain(memory) => memory.facts(),
            Self::Sealed(sealed) => {
                let own = sealed.range();
                let facts = sealed.memory().facts();
                // There is a block in reach, and the user's bytes are fewer than the region's.
                Facts { range: ByteRange::new(own.start, own.end).unwrap_or(facts.range), ..facts }
            }
        }
    }

    /// The memory itself, with the blocks that it stores.
    pub(super) const fn memory(&self) -> &Memory {
        match self {
            Self::Plain(memory) => memory,
            Self::Sealed(sealed) => sealed.memory(),
        }
    }

    /// Whether a key is used.
    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }
}

/// Draws the key of a new lease, keeps it, and seals the memory. If any of that fails, or somebody interrupts it, the lease is
/// released and the key that was drawn here destroyed: memory that was to be encrypted is not left as it is.
///
/// Fails with `E_EXISTS` if the id of the lease has a key here: then the id is another lease's too, and neither of the two is
/// touched.
pub(super) fn encrypt(
    leased: &Leased,
    interrupt: &Interrupt,
    session: &Session,
    context: &Context,
) -> Result<DataKey> {
    encrypt_with(leased, interrupt, session, context, |_| Ok(()))
}

/// As [`encrypt`], and has `fill` write to the memory what it is for; if that fails it is as if the rest had failed.
pub(super) fn encrypt_with(
    leased: &Leased,
    interrupt: &Interrupt,
    session: &Session,
    context: &Context,
    fill: impl FnOnce(&Sealed<Memory>) -> Result<()>,
) -> Result<DataKey> {
    let lease = leased.lease.id;
    let keys = context.lease_keys()?;
    let key = DataKey::generate(lease);
    let release = |failure: Failure| match session.client.release(lease) {
        Ok(_) => failure,
        Err(error) => also(failure, &format!("lease {lease} was not released: {}", error.detail())),
    };
    match keys.keep_new(&key) {
        Ok(()) => {}
        Err(failure) if failure.code == Code::Exists.text() => return Err(failure),
        Err(failure) => return Err(release(failure)),
    }
    format(leased, &key, interrupt, session).and_then(|memory| fill(&memory)).map_err(|failure| {
        let failure = release(failure);
        match keys.undo(lease) {
            Ok(()) => failure,
            Err(undone) => also(failure, &format!("its key was not destroyed: {}", undone.message)),
        }
    })?;
    Ok(key)
}

/// Says in a report of a new lease that it is encrypted, and where its key is.
pub(super) fn with_key(report: &mut Report, leased: &Leased, key: &DataKey, context: &Context) -> Result<()> {
    let file = context.lease_keys()?.path(leased.lease.id);
    let own = human::bytes(libmem::sealed::logical_bytes(leased.lease.range.len()));
    report.text += &table::pairs(
        context.style.stdout,
        &[("encrypted", format!("{own} are yours")), ("key", crate::files::show(&file))],
    );
    if let Some(value) = &mut report.json {
        value["key_file"] = json!(file.to_string_lossy());
        value["key_fingerprint"] = json!(key.fingerprint().to_string());
    }
    Ok(())
}

/// It is the first error that says what happened; what could not be cleaned up after it is told with it.
fn also(failure: Failure, more: &str) -> Failure {
    let message = format!("{}; {more}", failure.message);
    Failure { message, ..failure }
}

fn format(
    leased: &Leased,
    key: &DataKey,
    interrupt: &Interrupt,
    session: &Session,
) -> Result<Sealed<Memory>> {
    let memory = session.reach.open(&leased.token, Rights::READ_WRITE)?;
    let memory = Sealed::new(memory, key)?;
    let mut shown = None;
    let done = memory.format_with(|done, total| {
        shown.get_or_insert_with(|| Progress::start(Some(total))).at(done);
        if interrupt.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match done {
        ControlFlow::Continue(()) => Ok(memory),
        ControlFlow::Break(()) => Err(Failure::interrupted(
            "interrupted; the lease that was half encrypted is given back",
            "type it again",
        )),
    }
}
