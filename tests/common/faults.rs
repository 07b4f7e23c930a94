//! A wire that fails as a test says: every packet between two namespaces passes through this process.
//!
//! ```text
//!   near ── TUN ──▶ read ──▶ cut? lost? ──▶ held until it is due, perhaps twice, perhaps later than the next ──▶ TUN ── far
//!        ◀── the same the other way ──
//! ```
//!
//! What happens to a packet is drawn from a seed, one number a choice, so that the same packets meet the same fate. One
//! thread waits for packets, for the moment when the next is due and for its own end, all in one poll.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::PATIENCE;
use super::netns::Space;
use super::packet::Packet;

/// The address at the near end.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The address at the far end.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
/// The device at either end.
const DEVICE: &str = "wire";
/// Most bytes of a packet.
const PACKET_BYTES_MAX: usize = 1500;
/// Most packets that the wire holds: what comes beyond is lost, and counted as overflow.
const HELD_MAX: usize = 16 << 10;
/// Thousandths that make the whole.
const ALL: u64 = 1000;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the far end to the near one.
    ToNear,
    /// From the near end to the far one.
    ToFar,
}

/// Both directions.
pub const BOTH: [Way; 2] = [Way::ToNear, Way::ToFar];

/// What one direction does to packets. Shares are in thousandths. The default: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// How long each is held.
    pub delay: Duration,
    /// How many are lost.
    pub loss: u64,
    /// How many are held for longer, so that others overtake them, and for how much longer.
    pub reorder: (u64, Duration),
    /// How many come twice.
    pub duplicate: u64,
    /// Nothing passes, nor what was held.
    pub cut: bool,
    /// The next packet with TCP payload is lost, and what arrives in its place resets the connection.
    pub reset_next: bool,
    /// With that the other direction is cut, before anything can be said about it.
    pub cut_at_reset: bool,
}

/// What became of the packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came.
    pub entered: u64,
    /// Bytes of payload in them, by TCP or UDP port there and here: source, destination.
    pub payload: BTreeMap<(u16, u16), u64>,
    /// Lost by [`Fault::loss`].
    pub lost: u64,
    /// Held for longer than others.
    pub late: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Dropped because of [`Fault::cut`].
    pub cut: u64,
    /// Connections reset.
    pub reset: u64,
    /// Lost because too many were held.
    pub overflow: u64,
    /// Packets that left, doubles included.
    pub left: u64,
}

impl Counts {
    /// Bytes of payload of all ports.
    pub fn payload_bytes(&self) -> u64 {
        self.payload.values().sum()
    }
}

/// A wire between two namespaces. Dropping it takes it away.
pub struct Wire {
    shared: Arc<Shared>,
    carrier: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    settled: Condvar,
    /// Written when the carrier has to look at the state.
    wake: OwnedFd,
}

struct State {
    faults: [Fault; 2],
    counts: [Counts; 2],
    /// How often the wire was asked to settle, and up to which of these it has.
    asked: u64,
    settled: u64,
    stop: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).expect("a counter far below its end");
    }
}

impl Wire {
    /// A wire without faults: [`NEAR`] in one namespace, [`FAR`] in the other. What it draws comes from `seed`.
    pub fn between(near: &Space, far: &Space, seed: u64) -> Self {
        let ends = [end(near, NEAR), end(far, FAR)];
        let state = State {
            faults: Default::default(),
            counts: Default::default(),
            asked: 0,
            settled: 0,
            stop: false,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let shared = Arc::new(Shared { state: Mutex::new(state), settled: Condvar::new(), wake });
        let carrier =
            Carrier { shared: shared.clone(), ends, held: BinaryHeap::new(), count: 0, seed: seed | 1 };
        Self { shared, carrier: Some(std::thread::spawn(move || carrier.carry())) }
    }

    /// What one direction does from now on.
    pub fn set(&self, way: Way, fault: Fault) {
        self.shared.state().faults[way as usize] = fault;
        self.shared.wake();
    }

    /// What both do.
    pub fn set_both(&self, fault: Fault) {
        self.shared.state().faults = [fault; 2];
        self.shared.wake();
    }

    /// Nothing passes in any of these directions, nor what is held, until [`Self::mend`].
    pub fn cut(&self, ways: &[Way]) {
        let mut state = self.shared.state();
        for &way in ways {
            state.faults[way as usize].cut = true;
        }
    }

    /// Ends every cut. What was dropped stays lost.
    pub fn mend(&self) {
        for fault in &mut self.shared.state().faults {
            fault.cut = false;
        }
    }

    /// The next packet with TCP payload in this direction is lost, and the connection reset in its place.
    pub fn reset_next(&self, way: Way) {
        self.shared.state().faults[way as usize].reset_next = true;
    }

    /// The same, and the other direction is cut in the same moment: where this one leads, the connection is gone at once,
    /// and until [`Self::mend`] there can be no other.
    pub fn reset_and_cut(&self, way: Way) {
        let fault = &mut self.shared.state().faults[way as usize];
        (fault.reset_next, fault.cut_at_reset) = (true, true);
    }

    /// What became of the packets of a direction so far.
    pub fn counts(&self, way: Way) -> Counts {
        self.shared.state().counts[way as usize].clone()
    }

    /// Waits until the wire has seen everything that the two ends gave it before this call, and has passed on what was due.
    pub fn settle(&self) {
        let mut state = self.shared.state();
        state.asked += 1;
        let asked = state.asked;
        self.shared.wake();
        let (state, late) = self
            .shared
            .settled
            .wait_timeout_while(state, PATIENCE, |state| state.settled < asked && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!late.timed_out() && !state.stop, "the wire does not settle");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake();
        let carried = self.carrier.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(carried, Some(Ok(()))), "the wire broke by itself");
        }
    }
}

/// One end: a TUN device in a namespace, with an address. The device goes with the file.
fn end(space: &Space, address: Ipv4Addr) -> File {
    try_end(space, address).unwrap()
}

/// The same, where it is not known yet whether that is possible. Why it is not.
pub(super) fn try_end(space: &Space, address: Ipv4Addr) -> Result<File, String> {
    const TUN: &str = "/dev/net/tun";
    let file = space.enter(|| {
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(TUN);
        let file = file.map_err(|error| format!("{TUN} cannot be opened: {error}"))?;
        // SAFETY: `ifreq` is plain numbers, for which zeros are values.
        let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in asked.ifr_name.iter_mut().zip(DEVICE.bytes()) {
            *place = byte as libc::c_char;
        }
        asked.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes an `ifreq`, which this is, and which outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut asked) } != 0 {
            return Err(format!("{TUN} makes no device: {}", std::io::Error::last_os_error()));
        }
        Ok(file)
    })?;
    space.try_ip(&format!("addr add {address}/24 dev {DEVICE}"))?;
    space.try_ip(&format!("link set {DEVICE} mtu {PACKET_BYTES_MAX} up"))?;
    Ok(file)
}

/// A packet on its way: when it is due, in which order it came, where it goes.
type Held = Reverse<(Instant, u64, Way, Vec<u8>)>;

/// What carries packets.
struct Carrier {
    shared: Arc<Shared>,
    /// Near, far.
    ends: [File; 2],
    held: BinaryHeap<Held>,
    /// Packets so far: those that are due at the same moment leave in the order in which they came.
    count: u64,
    seed: u64,
}

impl Carrier {
    fn carry(mut self) {
        /// Wakes whoever waits for a wire that is gone.
        struct Ends(Arc<Shared>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.state().stop = true;
                self.0.settled.notify_all();
            }
        }
        let ends = Ends(self.shared.clone());
        loop {
            let asked = {
                let state = ends.0.state();
                if state.stop {
                    return;
                }
                state.asked
            };
            self.take(Way::ToFar);
            self.take(Way::ToNear);
            self.pass_on();
            {
                let mut state = ends.0.state();
                if state.settled < asked {
                    state.settled = asked;
                    ends.0.settled.notify_all();
                }
            }
            self.wait();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let due = self.held.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let due = due.map(|left| Timespec::try_from(left).expect("not for centuries"));
        let [near, far] = &self.ends;
        let mut polled = [near, far].map(|end| PollFd::new(end, PollFlags::IN)).to_vec();
        polled.push(PollFd::new(&self.shared.wake, PollFlags::IN));
        match poll(&mut polled, due.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]); // what it counts is nothing to anybody
    }

    /// Takes every packet that one end has.
    fn take(&mut self, way: Way) {
        let from = match way {
            Way::ToFar => 0,
            Way::ToNear => 1,
        };
        let mut buffer = [0; 2 * PACKET_BYTES_MAX];
        loop {
            match (&self.ends[from]).read(&mut buffer) {
                Ok(length) => self.decide(way, Packet(buffer[..length].to_vec())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("a device of the wire: {error}"),
            }
        }
    }

    /// What becomes of a packet.
    fn decide(&mut self, way: Way, mut packet: Packet) {
        let shared = self.shared.clone();
        let mut state = shared.state();
        let State { faults, counts, .. } = &mut *state;
        let (fault, counts) = (faults[way as usize], &mut counts[way as usize]);
        counts.entered += 1;
        let payload = packet.payload();
        if let Some((ports, bytes)) = payload {
            *counts.payload.entry(ports).or_default() += bytes as u64;
        }
        if fault.cut {
            counts.cut += 1;
            return;
        }
        if fault.reset_next && payload.is_some_and(|(_, bytes)| bytes > 0) && packet.make_reset() {
            let other = match way {
                Way::ToNear => Way::ToFar,
                Way::ToFar => Way::ToNear,
            };
            faults[other as usize].cut |= fault.cut_at_reset;
            let here = &mut faults[way as usize];
            (here.reset_next, here.cut_at_reset) = (false, false);
            counts.reset += 1;
        } else if self.draw(fault.loss) {
            counts.lost += 1;
            return;
        }
        let (late, by) = fault.reorder;
        let mut due = Instant::now() + fault.delay;
        if self.draw(late) {
            counts.late += 1;
            due += by;
        }
        let copies = if self.draw(fault.duplicate) {
            counts.doubled += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.held.len() == HELD_MAX {
                counts.overflow += 1;
                continue;
            }
            self.count += 1;
            self.held.push(Reverse((due, self.count, way, packet.0.clone())));
        }
    }

    /// Hands over what is due.
    fn pass_on(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = self.held.peek() {
            if *due > now {
                return;
            }
            let Some(Reverse((_, _, way, packet))) = self.held.pop() else { return };
            let shared = self.shared.clone();
            let mut state = shared.state();
            if state.faults[way as usize].cut {
                state.counts[way as usize].cut += 1;
                continue;
            }
            // The kernel takes or drops it, as a network card's does.
            if (&self.ends[way as usize]).write(&packet).is_ok() {
                state.counts[way as usize].left += 1;
            } else {
                state.counts[way as usize].overflow += 1;
            }
        }
    }

    /// Draws whether what happens to so many thousandths happens now. Draws nothing for what never does.
    fn draw(&mut self, share: u64) -> bool {
        if share == 0 {
            return false;
        }
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) < (share << 32) / ALL
    }
}
