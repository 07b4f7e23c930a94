//! Ctrl-C for commands that have something to undo.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::error::{Code, Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::INTERRUPTED_EXIT;

/// Whether somebody wants this process to end.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on SIGINT, SIGTERM and SIGHUP no longer end the process by themselves: whoever calls this looks at
    /// [`Self::came`] until there is nothing to undo any more, and ends soon after. Whoever sends a second one does not want
    /// to wait for that: it ends the process at once.
    pub(crate) fn listen() -> Result<Self> {
        let failed = |_| Error::new(Code::System, "cannot listen for the signals that end a command");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            (
                signal(SignalKind::interrupt()).map_err(failed)?,
                signal(SignalKind::terminate()).map_err(failed)?,
                signal(SignalKind::hangup()).map_err(failed)?,
            )
        };
        let came = Arc::new(AtomicBool::new(false));
        let tell = came.clone();
        // Ends with the process.
        let waits = move || {
            let mut next = || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                });
            };
            next();
            tell.store(true, Ordering::Relaxed); // a flag alone: nothing is read by its order
            next();
            std::process::exit(INTERRUPTED_EXIT.into());
        };
        std::thread::Builder::new().name("interrupt".into()).spawn(waits).map_err(failed)?;
        Ok(Self(came))
    }

    /// Whether one of them came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
