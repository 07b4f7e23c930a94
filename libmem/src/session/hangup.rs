//! A node that is gone, and what that means for the memory it lent.
//!
//! A cut reaches a mapping by itself, as SIGBUS. But if the provider and its guardian die together, nobody cuts; and
//! a program that only reads its mapping asks the node nothing, so it would never learn. One thread a session waits
//! for the hang-up and sets the flag of every mapping, which guarded access looks at first.
//!
//! The same thread reads the rotation channel: in a process in which nobody touches the memory, nobody else would take
//! the fresh segments and answer for them, and the end of a right would not be noticed.
//!
//! It is one thread a *session*, and only once the session maps something: a thread for the whole process would be
//! hidden global state, and programs rarely have a second session. The thread owns nothing but the two sockets and the
//! list of flags, and ends with the session. It takes no signal, because it carries out what fault handlers carry out.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::guard::channel::{self, Found};
use crate::guard::signals::Blocked;
use crate::mapping::Revocation;
use crate::sync::rotation;

/// Stack of the thread in bytes: it makes a few system calls and sets flags.
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
        rotation::installed(); // whoever sleeps on the memory gives up
    }

    /// Starts the thread, once.
    ///
    /// # Errors
    /// `E_SYSTEM` if the system gives no thread: mapping without one would leave a promise unkept.
    pub(crate) fn watch(self: &Arc<Self>, socket: &Arc<OwnedFd>, channel: &Arc<OwnedFd>) -> Result<()> {
        self.watching.get_or_init(|| self.start(socket, channel)).clone()
    }

    fn start(self: &Arc<Self>, socket: &Arc<OwnedFd>, channel: &Arc<OwnedFd>) -> Result<()> {
        let (hangup, socket, channel) = (self.clone(), socket.clone(), channel.clone());
        std::thread::Builder::new()
            .name("libmem-hangup".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                Blocked::for_ever();
                wait(&socket, &channel);
                hangup.happened();
                // Accesses that wait for a fresh segment look at the channel.
                channel::shut(channel.as_fd());
            })
            .map(drop)
            .map_err(|_| Error::new(Code::System, "no thread to watch the node with"))
    }

    fn mappings(&self) -> MutexGuard<'_, Mappings> {
        // No code under this lock panics in the middle of a change, so a poisoned lock holds a whole value.
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out what comes over the channel. Returns when the other end of either socket is closed, or when this end was
/// shut down.
fn wait(socket: &OwnedFd, channel: &OwnedFd) {
    loop {
        // HUP and ERR are always reported; asking for nothing else keeps answers from waking this thread.
        let mut sockets = [PollFd::new(socket, PollFlags::empty()), PollFd::new(channel, PollFlags::IN)];
        match poll(&mut sockets, None) {
            Ok(_) if !sockets[0].revents().is_empty() => return,
            // A fault handler may have taken the message already: then there is nothing, or the next one.
            Ok(_) if !sockets[1].revents().is_empty() => {
                if channel::take(channel.as_fd()) == Found::End {
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            // A poll that cannot wait cannot watch: treat it as the hang-up, which fails safe.
            Err(_) => return,
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

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn the_thread_notices_the_end_of_either_socket_and_latecomers_are_told() {
        for channel_ends in [false, true] {
            let ((socket, far), (channel, far_channel)) = (pair(), pair());
            let hangup = Arc::new(Hangup::new());
            hangup.watch(&Arc::new(socket), &Arc::new(channel)).unwrap();
            let flag = hangup.add(HANDLE);
            assert!(!flag.is_revoked());
            let (ended, _kept) = if channel_ends { (far_channel, far) } else { (far, far_channel) };
            drop(ended);
            wait_until_revoked(&flag);
            assert!(hangup.add(SlotHandle { slot: 2, epoch: 1 }).is_revoked());
        }
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
