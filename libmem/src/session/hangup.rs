//! A node that is gone, and what that means for the memory it lent.
//!
//! A cut reaches a mapping by itself, as SIGBUS. But if the provider and its guardian die together, nobody cuts; and
//! a program that only reads its mapping asks the node nothing, so it would never learn. One thread a session waits
//! for the hang-up and sets the flag of every mapping, which guarded access looks at first.
//!
//! It is one thread a *session*, and only once the session maps something: a thread for the whole process would be
//! hidden global state, and programs rarely have a second session. The thread owns nothing but the socket and the
//! list of flags, and ends with the session.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::mapping::Revocation;

/// Stack of the thread in bytes: it makes one system call and sets flags.
const STACK_BYTES: usize = 64 * 1024;

/// Whether the node is gone, and whom that concerns.
pub(crate) struct Hangup {
    mappings: Mutex<Mappings>,
    watching: OnceLock<Result<()>>,
}

struct Mappings {
    /// Once true, every flag that is or ever comes in here is set.
    gone: bool,
    /// The flags alone, not the mappings: this never keeps memory mapped.
    flags: HashMap<SlotHandle, Revocation>,
}

impl Hangup {
    pub(crate) fn new() -> Self {
        let mappings = Mappings { gone: false, flags: HashMap::new() };
        Self { mappings: Mutex::new(mappings), watching: OnceLock::new() }
    }

    /// A flag for the mapping of an open right.
    pub(crate) fn add(&self, handle: SlotHandle) -> Revocation {
        let revocation = Revocation::new();
        let mut mappings = self.mappings();
        mappings.flags.insert(handle, revocation.clone());
        if mappings.gone {
            revocation.revoke();
        }
        revocation
    }

    /// The right was closed.
    pub(crate) fn remove(&self, handle: SlotHandle) {
        self.mappings().flags.remove(&handle);
    }

    /// The node hung up, or broke a rule and is not believed any more.
    pub(crate) fn happened(&self) {
        let mut mappings = self.mappings();
        mappings.gone = true;
        mappings.flags.values().for_each(Revocation::revoke);
    }

    /// Starts the thread, once.
    ///
    /// # Errors
    /// `E_SYSTEM` if the system gives no thread: mapping without one would leave a promise unkept.
    pub(crate) fn watch(self: &Arc<Self>, socket: &Arc<OwnedFd>) -> Result<()> {
        self.watching.get_or_init(|| self.start(socket)).clone()
    }

    fn start(self: &Arc<Self>, socket: &Arc<OwnedFd>) -> Result<()> {
        let (hangup, socket) = (self.clone(), socket.clone());
        std::thread::Builder::new()
            .name("libmem-hangup".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                wait(&socket);
                hangup.happened();
            })
            .map(drop)
            .map_err(|_| Error::new(Code::System, "no thread to watch the node with"))
    }

    fn mappings(&self) -> MutexGuard<'_, Mappings> {
        // No code under this lock panics in the middle of a change, so a poisoned lock holds a whole value.
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the other end is closed, or when this end was shut down.
fn wait(socket: &OwnedFd) {
    loop {
        // HUP and ERR are always reported; asking for nothing else keeps answers from waking this thread.
        let mut sockets = [PollFd::new(socket, PollFlags::empty())];
        match poll(&mut sockets, None) {
            Ok(0) | Err(Errno::INTR | Errno::AGAIN) => {}
            // A poll that cannot wait cannot watch: treat it as the hang-up, which fails safe.
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    const HANDLE: SlotHandle = SlotHandle { slot: 1, epoch: 1 };

    fn wait_until_revoked(flag: &Revocation) {
        while !flag.is_revoked() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_thread_notices_and_latecomers_are_told() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let hangup = Arc::new(Hangup::new());
        hangup.watch(&Arc::new(near)).unwrap();
        let flag = hangup.add(HANDLE);
        assert!(!flag.is_revoked());
        drop(far);
        wait_until_revoked(&flag);
        assert!(hangup.add(SlotHandle { slot: 2, epoch: 1 }).is_revoked());
    }

    #[test]
    fn a_closed_right_is_forgotten() {
        let hangup = Hangup::new();
        let flag = hangup.add(HANDLE);
        hangup.remove(HANDLE);
        hangup.happened();
        assert!(!flag.is_revoked(), "the list no longer holds it");
    }
}
