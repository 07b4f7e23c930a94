//! A device in memory that keeps its promises to the letter, and not one more.
//!
//! For tests and simulators: it loses what was not made durable when [`Memory::crash`] is called, and fails at a
//! chosen call in a chosen way. Clones are the same device.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ACKED, Files, JOURNAL, Listed, Store};
use crate::journal::MARK_BYTES;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and did nothing, and nothing later makes up for it.
    NotStored,
    /// It fails although it did everything.
    Stored,
    /// It fails half way: some files of a `put`, some bytes of an append.
    Half,
    /// The machine stops in the middle: this call and all later ones fail until [`Memory::crash`].
    Crash,
}

/// What a crash leaves of bytes that were written to the journal and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything: the process died, the system did not.
    All,
    /// The first so many bytes.
    Prefix(usize),
    /// Everything but the first so many bytes, which read as zeros.
    Hole(usize),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    journal: Option<Vec<u8>>,
    /// Length of the journal's durable prefix.
    journal_durable: usize,
    mark: Option<Vec<u8>>,
    mark_durable: Option<Vec<u8>>,
    /// After a failed sync the system believes that these bytes are clean: no later sync makes them durable.
    journal_lost: bool,
    calls: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
    /// Which opening of the device may write.
    generation: u64,
}

/// The device.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    generation: u64,
}

fn failure() -> io::Error {
    io::Error::from_raw_os_error(5) // EIO
}

impl Memory {
    /// An empty device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device opened anew: what was opened before can no longer write, as behind a lock.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut state = self.state();
        state.generation += 1;
        Self { state: Arc::clone(&self.state), generation: state.generation }
    }

    /// Lets the writing call number `call` from now fail, counted from 0.
    pub fn fail(&self, call: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.calls + call, fault));
    }

    /// How many writing calls there have been.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The machine comes back after a stop: what was not durable is gone, except `survivors` of the journal.
    pub fn crash(&self, survivors: Survivors) {
        let mut state = self.state();
        let durable = state.journal_durable;
        if let Some(journal) = &mut state.journal {
            let loose = journal.len() - durable;
            match survivors {
                Survivors::None => journal.truncate(durable),
                Survivors::All => (),
                Survivors::Prefix(n) => journal.truncate(durable + n.min(loose)),
                Survivors::Hole(n) => journal[durable..durable + n.min(loose)].fill(0),
            }
        }
        if survivors != Survivors::All {
            state.mark = state.mark_durable.clone();
        }
        state.journal_durable = state.journal.as_ref().map_or(0, Vec::len);
        state.journal_lost = false;
        state.stopped = false;
        state.fault = None;
        state.generation += 1;
    }

    /// Changes a file behind the log's back. `None` removes it.
    pub fn tamper(&self, path: &str, bytes: Option<Vec<u8>>) {
        let mut state = self.state();
        match path {
            JOURNAL => {
                state.journal_durable = bytes.as_ref().map_or(0, Vec::len);
                state.journal = bytes;
            }
            ACKED => {
                state.mark = bytes;
                state.mark_durable = state.mark.clone();
            }
            _ => {
                match bytes {
                    Some(bytes) => state.files.insert(path.to_owned(), bytes),
                    None => state.files.remove(path),
                };
            }
        }
    }

    /// Every file with its bytes.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let mut all = state.files.clone();
        all.extend(state.journal.clone().map(|bytes| (JOURNAL.to_owned(), bytes)));
        all.extend(state.mark.clone().map(|bytes| (ACKED.to_owned(), bytes)));
        all
    }

    /// Counts a writing call and says how it is to fail. An `Err` is a call that does not even begin.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        if state.stopped || state.generation != self.generation {
            return Err(failure());
        }
        let call = state.calls;
        state.calls += 1;
        let fault = state.fault.filter(|(at, _)| *at == call).map(|(_, fault)| fault);
        if fault == Some(Fault::Crash) {
            state.stopped = true;
        }
        Ok((state, fault))
    }
}

/// How much of `n` pieces of work a call does.
const fn done(fault: Option<Fault>, n: usize) -> usize {
    match fault {
        None | Some(Fault::Stored) => n,
        Some(Fault::Half | Fault::Crash) => n / 2,
        Some(Fault::NotStored) => 0,
    }
}

fn result(fault: Option<Fault>) -> io::Result<()> {
    if fault.is_none() { Ok(()) } else { Err(failure()) }
}

impl Files for Memory {
    fn read(&self, path: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        let state = self.state();
        let bytes = match path {
            JOURNAL => state.journal.clone(),
            ACKED => state.mark.clone(),
            _ => state.files.get(path).cloned(),
        };
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > max) {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than this file can be"));
        }
        Ok(bytes)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Listed>> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let state = self.state();
        let local = [state.journal.as_ref().map(|_| JOURNAL), state.mark.as_ref().map(|_| ACKED)];
        let names = state.files.range(prefix.clone()..).map(|(name, _)| &name[..]);
        let mut found: Vec<_> = local
            .into_iter()
            .flatten()
            .filter_map(|name| name.strip_prefix(&prefix))
            .chain(names.map_while(|name| name.strip_prefix(&prefix)))
            .map(|rest| match rest.split_once('/') {
                Some((dir, _)) => Listed { name: dir.as_bytes().to_vec(), is_dir: true },
                None => Listed { name: rest.as_bytes().to_vec(), is_dir: false },
            })
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl Store for Memory {
    fn put(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        for (path, bytes) in &files[..done(fault, files.len())] {
            if path == ACKED {
                state.mark = Some(bytes.clone());
                state.mark_durable = state.mark.clone();
            } else {
                state.files.insert(path.clone(), bytes.clone());
            }
        }
        result(fault)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        // Not counted: nothing depends on it, and the fault table is of what something depends on.
        let mut state = self.state();
        if state.stopped || state.generation != self.generation {
            return Err(failure());
        }
        state.files.remove(path);
        Ok(())
    }

    fn journal_append(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        let journal = state.journal.as_mut().ok_or_else(failure)?;
        if journal.len() as u64 != at {
            return Err(failure());
        }
        journal.extend_from_slice(&bytes[..done(fault, bytes.len())]);
        result(fault)
    }

    fn journal_sync(&self, length: u64) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        let present = state.journal.as_ref().map_or(0, Vec::len);
        if present as u64 != length {
            return Err(failure());
        }
        match fault {
            None | Some(Fault::Stored) if !state.journal_lost => state.journal_durable = present,
            None => (),
            Some(_) => state.journal_lost = true,
        }
        result(fault)
    }

    fn journal_replace(&self, bytes: &[u8]) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if done(fault, 1) == 1 {
            state.journal = Some(bytes.to_vec());
            state.journal_durable = bytes.len();
            state.journal_lost = false;
        }
        result(fault)
    }

    fn mark(&self, mark: &[u8; MARK_BYTES]) -> io::Result<()> {
        let (mut state, fault) = self.begin()?;
        if state.mark.is_none() {
            return Err(failure());
        }
        if done(fault, 1) == 1 {
            // The one before is what a power cut would leave.
            state.mark_durable = state.mark.clone();
            state.mark = Some(mark.to_vec());
        }
        result(fault)
    }
}
