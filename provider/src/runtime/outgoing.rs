//! What a session over the network was sent, and what must not leave any more.
//!
//! A local client has what was sent to it when the call returns. Over the network the bytes of a read are under way for
//! as long as the peer likes: in the connection's own buffer, in the kernel's send queue, on the wire, and sent again
//! when they were lost. A take-back is acknowledged when none of that is left of what it takes, so before that it
//! *settles*:
//!
//! ```text
//!   the peer's kernel has them    in the kernel's send queue    in the connection's buffer
//!   ─────────────────────────────┬─────────────────────────────┬───────────────────────────┬─────▶ bytes of the stream
//!                       acknowledged                       handed                      produced
//! ```
//! For each right the position behind its last byte is known: the sink notes it while the slot is held, so it stands here
//! when the slot is drained, and no later byte is the right's. Settling waits until that position is acknowledged, for at
//! most [`DRAIN_MS_MAX`] for all connections together. One that has not come so far is *cut off*.
//!
//! What it relies on, all of it tried by the tests of this file:
//!
//! - `SIOCOUTQ` counts what the kernel took and the peer's kernel has not acknowledged, sent or not. An acknowledgement may
//!   be some 10 to 40 ms late, where the peer delays it in the hope of data to send it with.
//! - `connect` to `AF_UNSPEC` throws the send queue away and resets the connection at once, whatever other descriptors of
//!   the socket there are and whatever another thread does with them; a `write` after it is `ECONNRESET` or `EPIPE`. So
//!   what was encrypted and did not fit the socket is never sent either: the thread that serves the connection need not be
//!   waited for, and what it still holds is void.
//! - After either `SIOCOUTQ` means nothing, so the connection's state is asked first.
//!
//! A right that its holder closed, and one of an earlier opening, may have bytes under way too. So what is settled is
//! every right of the lease that is no longer open, whoever ended it; one that is open is left alone, unless it was
//! narrowed. A connection that ends must end with nothing under way ([`Outgoing::end`]), because from then on nobody finds
//! it.
//!
//! What the network card, or the queue in front of it, was given already is on the wire for this: no process can take it
//! back. A packet of an acknowledged position is not among it, but for a copy that was sent again and comes to nothing; one
//! of a connection that was cut off can be, and leaves within the time that the device needs for its queue.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, SlotHandle};
use caps::wire::row::EndCause;
use policy::limits::{DRAIN_MS_MAX, OUTGOING_RIGHTS_MAX, SETTLE_LOOK_US};

use super::cells::{Known, OpenKey};
use super::take_back::Drain;
use super::{Fenced, Shared, lock};
use crate::kernel::{Effect, RegionKey};
use crate::sys;

/// What one connection was sent. The thread that serves the connection counts here, the threads that take memory back
/// look. Positions are bytes of ciphertext.
#[derive(Debug)]
pub struct Outgoing {
    /// The connection's socket: a descriptor of its own, so that the number cannot come to mean another one.
    socket: OwnedFd,
    /// Bytes that were made. Counted before they are offered to the socket.
    produced: AtomicU64,
    /// Of these, the ones that the kernel took. Counted after it did, so it is never ahead of the kernel.
    handed: AtomicU64,
    /// Whether it was cut off.
    cut_off: AtomicBool,
    /// Held for one frame's rights, or a look through them: by nobody across a call that can wait.
    last: Mutex<Last>,
}

/// Positions behind the last bytes.
#[derive(Debug, Default)]
struct Last {
    of: HashMap<SlotHandle, u64>,
    /// Of rights for which there was no room.
    others: u64,
}

impl Outgoing {
    /// Nothing was sent yet that is anybody's. `socket` is a duplicate of the connection's TCP socket.
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

    /// `bytes` more were made, and will be offered to the socket. To be said before they are. Those of the handshake may
    /// be left out, as long as they are left out of [`Self::handed`] too.
    pub fn produced(&self, bytes: usize) {
        // One thread counts; whoever settles has seen the slot drained after it.
        self.produced.fetch_add(bytes as u64, Ordering::Release);
    }

    /// The socket took `bytes` more of them.
    pub fn handed(&self, bytes: usize) {
        self.handed.fetch_add(bytes as u64, Ordering::Release);
    }

    /// What was produced so far may hold bytes of these rights. To be said while their slots are held.
    pub fn carries(&self, rights: &[SlotHandle]) {
        if rights.is_empty() {
            return;
        }
        let position = self.produced.load(Ordering::Acquire);
        let mut last = lock(&self.last);
        if last.of.len() + rights.len() > OUTGOING_RIGHTS_MAX {
            self.make_room(&mut last);
        }
        last.of.extend(rights.iter().map(|&right| (right, position)));
    }

    /// Forgets what has left, and if that is not enough, which rights the rest is of.
    fn make_room(&self, last: &mut Last) {
        let acknowledged = self.acknowledged();
        last.of.retain(|_, position| *position > acknowledged);
        // Half, so that this is not done for every frame.
        if last.of.len() > OUTGOING_RIGHTS_MAX / 2 {
            last.others = last.of.drain().map(|(_, position)| position).fold(last.others, u64::max);
        }
    }

    /// Whether the connection was cut off: nothing that is written to it leaves any more.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Whether everything that was produced has left, or never will.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.has_left(self.produced.load(Ordering::Acquire))
    }

    /// The connection is over. What has not left by now never will. To be said before the session is forgotten; who wants
    /// the peer to have all of it waits for [`Self::is_settled`] first.
    pub fn end(&self) {
        if !self.is_settled() {
            self.cut_off();
        }
    }

    /// Throws away what has not left: the connection is reset.
    pub(super) fn cut_off(&self) {
        // Before: whoever meets the reset finds out why.
        self.cut_off.store(true, Ordering::Release);
        let socket = self.socket.as_fd();
        if let Err(error) = sys::discard(socket)
            && matches!(sys::is_over(socket), Ok(false))
        {
            // It was tried before the first connection was accepted. What was promised cannot be kept by going on: without
            // this process nobody writes to the socket any more, and the guardian cuts.
            tracing::error!(%error, "a connection's send queue could not be thrown away; ending the process");
            std::process::abort();
        }
    }

    /// Tries what cutting off relies on: whether this process may throw a send queue away. A sandbox can forbid it, and
    /// then nobody may be served over the network.
    ///
    /// # Errors
    /// `E_SYSTEM` if it may not, or there is no loopback device to try it on.
    pub(crate) fn can_cut_off() -> Result<()> {
        let tried = || -> std::io::Result<bool> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let own = TcpStream::connect(listener.local_addr()?)?;
            sys::discard(own.as_fd())?;
            sys::is_over(own.as_fd())
        };
        match tried() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(Code::System, "a connection outlives being thrown away")),
            Err(error) => {
                let why =
                    format!("a connection cannot be thrown away (connect to AF_UNSPEC): {}", error.kind());
                Err(Error::with(Code::System, why))
            }
        }
    }

    /// The position up to which the peer's kernel has everything, or later; everything, if there is no connection any
    /// more.
    pub(crate) fn acknowledged(&self) -> u64 {
        // In this order: what is handed over after the look is not counted as acknowledged.
        let handed = self.handed.load(Ordering::Acquire);
        let socket = self.socket.as_fd();
        match (sys::is_over(socket), sys::unread_bytes(socket)) {
            // A descriptor that is no TCP socket has no queue of ours.
            (Ok(true) | Err(_), _) | (_, Err(_)) => u64::MAX,
            (Ok(false), Ok(queued)) => handed.saturating_sub(queued as u64),
        }
    }

    fn has_left(&self, position: u64) -> bool {
        self.acknowledged() >= position
    }

    /// The position behind the last byte of those rights, if there are bytes of any.
    fn position(&self, concerns: impl Fn(SlotHandle) -> bool) -> u64 {
        let last = lock(&self.last);
        let of = last.of.iter().filter(|(right, _)| concerns(**right)).map(|(_, position)| *position);
        of.fold(last.others, u64::max)
    }
}

/// Sessions that were sent bytes of something that is taken back, and up to where.
#[derive(Default)]
pub(super) struct UnderWay(Vec<(u64, Arc<Outgoing>, u64)>);

impl UnderWay {
    /// Forgets what has left; says whether that is everything.
    pub(super) fn is_over(&mut self) -> bool {
        self.0.retain(|(_, outgoing, position)| !outgoing.has_left(*position));
        self.0.is_empty()
    }
}

/// Rights that ended by themselves, of which nothing else is taken back.
pub(super) struct Expired {
    lease: LeaseId,
    readers: BTreeSet<u64>,
    drain: Drain,
}

impl Shared {
    /// Waits until what sessions were sent of a lease by rights that are no longer open, or were narrowed, has left; cuts
    /// those off where it does not in time. `readers` are the sessions over the network that had a right to it; without
    /// any, this is one look. `drain` is drained: what operations sent is noted.
    pub(super) fn settle(&self, lease: LeaseId, readers: &BTreeSet<u64>, drain: &Drain) {
        let mut under_way = self.under_way(lease, readers, drain);
        let began = Instant::now();
        while !under_way.is_over() && !self.cut_off_late(began, &under_way) {
            // Nothing tells when a peer acknowledges, so this is a look every so often.
            std::thread::sleep(Duration::from_micros(SETTLE_LOOK_US));
        }
        self.lingering.settled(&self.cells, drain);
    }

    /// Cuts off whoever has not let go of it, if the bound is over; says whether it is. Nothing is under way then.
    pub(super) fn cut_off_late(&self, began: Instant, under_way: &UnderWay) -> bool {
        let late = began.elapsed() > Duration::from_millis(DRAIN_MS_MAX);
        for (session, outgoing, _) in under_way.0.iter().filter(|_| late) {
            tracing::debug!(session, "a session was cut off: it did not read what it had asked for");
            outgoing.cut_off();
            if let Some(session) = lock(&self.sessions).get(session) {
                (session.end)();
            }
        }
        late
    }

    /// Which connections have bytes of it, and up to where.
    pub(super) fn under_way(&self, lease: LeaseId, readers: &BTreeSet<u64>, drain: &Drain) -> UnderWay {
        if readers.is_empty() {
            return UnderWay::default();
        }
        let narrowed: HashSet<u64> =
            drain.narrowed.iter().flat_map(|narrowed| narrowed.iter()).map(|right| right.session).collect();
        let of_session = |&session: &u64| {
            let outgoing = lock(&self.sessions).get(&session)?.outgoing.clone()?;
            let concerns = |SlotHandle { slot, epoch }| {
                match self.cells.known(RegionKey { index: slot, generation: epoch }) {
                    Known::Open(_, terms) => terms.lease == lease && narrowed.contains(&session),
                    Known::Ended(last) => last.terms.lease == lease,
                    // Nobody knows of which lease it was.
                    Known::Older | Known::Never => true,
                }
            };
            let position = outgoing.position(concerns);
            (position > 0).then_some((session, outgoing, position))
        };
        UnderWay(readers.iter().filter_map(of_session).collect())
    }

    /// What of a step's rights ended by itself while its region and its mappings live on: nobody takes anything back for
    /// that, so nobody would settle it.
    pub(super) fn expired_alone(&self, effects: &[Effect], fenced: &Fenced) -> Vec<Expired> {
        if !fenced.rights.iter().any(|(_, right)| right.memory.is_read_remotely()) {
            return Vec::new();
        }
        let taken: HashSet<RegionKey> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::TakeBack { region, .. } | Effect::Rotate { region, .. } => Some(*region),
                _ => None,
            })
            .collect();
        let expired: HashSet<OpenKey> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Closed { open, cause: EndCause::Expired, .. } => Some(*open),
                _ => None,
            })
            .collect();
        let alone = fenced.rights.iter().filter(|(open, right)| {
            expired.contains(open) && !taken.contains(&right.region) && right.memory.is_read_remotely()
        });
        let one = |(open, right): &(OpenKey, Arc<super::cells::Right>)| Expired {
            lease: right.lease,
            readers: BTreeSet::from([right.session]),
            drain: Drain {
                region: Some(right.region),
                fenced: vec![(*open, right.session)],
                ..Drain::default()
            },
        };
        alone.map(one).collect()
    }

    /// Settles that, on threads that may wait.
    pub(super) fn settle_expired(self: &Arc<Self>, expired: Vec<Expired>) {
        if expired.is_empty() {
            return;
        }
        let shared = self.clone();
        self.wipes.submit(move || {
            for Expired { lease, readers, drain } in expired {
                let drain = shared.drain(&drain);
                shared.settle_then(lease, &readers, drain, |shared| &shared.wipes, || ());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream, Outgoing) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        own.set_nonblocking(true).unwrap();
        let outgoing = Outgoing::new(own.try_clone().unwrap().into());
        (own, peer, outgoing)
    }

    /// Writes until the socket is full, and says how much it took.
    fn fill(own: &mut TcpStream, outgoing: &Outgoing) -> usize {
        let (chunk, mut taken) = ([7; 1 << 16], 0);
        outgoing.produced(chunk.len());
        loop {
            match own.write(&chunk) {
                Ok(bytes) => {
                    taken += bytes;
                    outgoing.handed(bytes);
                    outgoing.produced(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn until(mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < BOUND, "it never came to hold");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_connection_can_be_thrown_away_here() {
        Outgoing::can_cut_off().unwrap();
    }

    fn right(slot: u32) -> SlotHandle {
        SlotHandle { slot, epoch: 1 }
    }

    #[test]
    fn what_the_peers_kernel_has_has_left() {
        let (mut own, mut peer, outgoing) = pair();
        assert!(outgoing.is_settled());
        outgoing.produced(3);
        outgoing.carries(&[right(1)]);
        assert!(!outgoing.is_settled(), "it was not even handed over");
        outgoing.handed(own.write(b"abc").unwrap());
        until(|| outgoing.is_settled());
        let mut read = [0; 3];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(outgoing.position(|it| it == right(1)), 3);
        assert_eq!(outgoing.position(|it| it == right(2)), 0);
    }

    #[test]
    fn what_was_not_acknowledged_when_it_was_cut_off_never_comes() {
        let (mut own, mut peer, outgoing) = pair();
        let taken = fill(&mut own, &outgoing);
        assert!(!outgoing.is_settled(), "the send queue is full");
        outgoing.end();
        let there = rustix::io::ioctl_fionread(&peer).unwrap();
        assert!(outgoing.is_cut_off() && outgoing.is_settled());
        let refused = own.write(b"more").unwrap_err().kind();
        assert!(matches!(refused, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
        let (mut came, mut into) = (0, vec![0; 1 << 16]);
        let end = loop {
            match peer.read(&mut into) {
                Ok(0) => panic!("an orderly end"),
                Ok(bytes) => came += bytes,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(end, ErrorKind::ConnectionReset);
        assert!(
            came as u64 == there && came < taken,
            "{came} bytes came, {there} were there, {taken} were sent"
        );
    }

    #[test]
    fn a_connection_that_the_peer_reset_has_nothing_under_way() {
        let (mut own, peer, outgoing) = pair();
        fill(&mut own, &outgoing);
        assert!(!outgoing.is_settled());
        drop(peer); // with bytes that it did not read: that is a reset
        until(|| outgoing.is_settled());
        assert!(!outgoing.is_cut_off());
    }

    #[test]
    fn an_orderly_end_leaves_what_was_read_alone() {
        let (mut own, mut peer, outgoing) = pair();
        outgoing.produced(3);
        outgoing.handed(own.write(b"abc").unwrap());
        until(|| outgoing.is_settled());
        outgoing.end();
        drop((own, outgoing));
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }

    #[test]
    fn more_rights_than_there_is_room_for_are_all_waited_for() {
        let (mut own, _peer, outgoing) = pair();
        fill(&mut own, &outgoing);
        for slot in 0..3 * OUTGOING_RIGHTS_MAX as u32 {
            outgoing.produced(1);
            outgoing.carries(&[right(slot)]);
            let known = lock(&outgoing.last).of.len();
            assert!(known <= OUTGOING_RIGHTS_MAX, "{known}");
            let position = outgoing.position(|it| it == right(slot));
            assert_eq!(position, outgoing.produced.load(Ordering::Relaxed), "the last is known");
        }
        assert!(outgoing.position(|it| it == right(0)) > 0, "the first is not forgotten");
    }

    #[test]
    fn rights_whose_bytes_have_left_make_room() {
        let (_own, _peer, outgoing) = pair();
        for slot in 0..3 * OUTGOING_RIGHTS_MAX as u32 {
            // Nothing is under way: position 0.
            outgoing.carries(&[right(slot)]);
        }
        assert_eq!(lock(&outgoing.last).others, 0);
    }
}
