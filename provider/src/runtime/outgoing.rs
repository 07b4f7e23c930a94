//! What a session over the network was sent, and what must not leave any more.
//!
//! A local client has what was sent to it when the call returns. Over the network the bytes of a read are under way for
//! as long as the peer likes: in the connection's own buffer, in the kernel's send queue, on the wire, and sent again
//! when they were lost. A take-back is acknowledged when none of that is left, so before that it *settles* the rights
//! that it ended:
//!
//! ```text
//!            produced          handed over          acknowledged by the peer's kernel
//!   ───────────┴───────────────────┴────────────────────────┴──────────▶ bytes of the connection, from the right
//!    in the connection's buffer      in the kernel's send queue       have left
//! ```
//! For each right the position behind its last byte is known. Settling waits until the peer's kernel has acknowledged
//! that position, for a bounded time; after that the connection is *cut off*.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caps::id::SlotHandle;

use super::lock;

/// What one connection was sent. The thread that serves the connection counts here, the threads that take memory back
/// look.
#[derive(Debug)]
pub struct Outgoing {
    /// The connection's socket: a descriptor of its own, so that the number cannot come to mean another one.
    socket: OwnedFd,
    /// Bytes of ciphertext that were made.
    produced: AtomicU64,
    /// Of these, the ones that the kernel took.
    handed: AtomicU64,
    /// Whether it was cut off.
    cut_off: AtomicBool,
    /// The position behind the last byte of each right.
    last: Mutex<HashMap<SlotHandle, u64>>,
}

impl Outgoing {
    /// Nothing was sent yet. `socket` is a duplicate of the connection's TCP socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            produced: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            cut_off: AtomicBool::new(false),
            last: Mutex::default(),
        }
    }

    /// `bytes` more of ciphertext were made, and will be offered to the socket unless the connection is cut off. Those of
    /// the handshake may be left out, as long as they are left out of [`Self::handed`] too.
    pub fn produced(&self, bytes: usize) {
        self.produced.fetch_add(bytes as u64, Ordering::Release);
    }

    /// The socket took `bytes` more of them.
    pub fn handed(&self, bytes: usize) {
        self.handed.fetch_add(bytes as u64, Ordering::Release);
    }

    /// What was produced so far may hold bytes of these rights. Called while their slots are held.
    pub fn carries(&self, rights: &[SlotHandle]) {
        if rights.is_empty() {
            return;
        }
        let position = self.produced.load(Ordering::Acquire);
        let mut last = lock(&self.last);
        for right in rights {
            last.insert(*right, position);
        }
    }

    /// Whether the connection was cut off: nothing that is written to it leaves any more.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        let _ = &self.socket;
        self.cut_off.load(Ordering::Acquire)
    }
}
