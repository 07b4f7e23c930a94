//! What the wire does to packets.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::faults::{BOTH, FAR, Fault, NEAR, Way, Wire};
use crate::common::netns::{self, Space};
use crate::common::{PATIENCE, pattern, until};

/// A wire, and a UDP socket at either end of it that sends to the other.
struct Sockets {
    wire: Wire,
    near: UdpSocket,
    far: UdpSocket,
    spaces: [Space; 2],
}

impl Sockets {
    fn new(seed: u64) -> Self {
        let spaces = [Space::new(), Space::new()];
        let wire = Wire::between(&spaces[0], &spaces[1], seed);
        let bind = |space: &Space, address| {
            let socket = space.enter(|| UdpSocket::bind((address, 0)).unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (near, far) = (bind(&spaces[0], NEAR), bind(&spaces[1], FAR));
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        Self { wire, near, far, spaces }
    }

    /// A number to the far end.
    fn send(&self, number: u64) {
        assert_eq!(self.near.send(&number.to_le_bytes()).unwrap(), 8);
    }

    /// The next number that arrived there.
    fn next(&self) -> u64 {
        let mut number = [0; 8];
        assert_eq!(self.far.recv(&mut number).unwrap(), 8);
        u64::from_le_bytes(number)
    }

    /// That nothing has arrived there. The wire has settled, so what it passed on is in the socket.
    fn is_empty(&self) -> bool {
        self.far.set_nonblocking(true).unwrap();
        let came = self.far.recv(&mut [0; 8]);
        self.far.set_nonblocking(false).unwrap();
        came.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

#[test]
fn a_delay_is_kept_in_each_direction() {
    if !netns::possible() {
        return;
    }
    let sockets = Sockets::new(1);
    let turn = || {
        let began = Instant::now();
        sockets.send(1);
        sockets.next();
        sockets.far.send(&[0]).unwrap();
        sockets.near.recv(&mut [0]).unwrap();
        began.elapsed()
    };
    let delay = Duration::from_millis(40);
    let undelayed = || (0..100).map(|_| turn()).min().unwrap();
    assert!(undelayed() < delay, "a wire without faults holds nothing");
    sockets.wire.set(Way::ToFar, Fault { delay, ..Fault::default() });
    assert!((0..5).all(|_| turn() >= delay));
    sockets.wire.set_both(Fault { delay, ..Fault::default() });
    assert!((0..5).all(|_| turn() >= 2 * delay));
    sockets.wire.set_both(Fault::default());
    assert!(undelayed() < delay);
}

#[test]
fn loss_takes_the_share_it_was_given_and_the_same_packets_for_the_same_seed() {
    if !netns::possible() {
        return;
    }
    let arrived = |seed: u64| -> BTreeSet<u64> {
        let sockets = Sockets::new(seed);
        sockets.wire.set(Way::ToFar, Fault { loss: 300, ..Fault::default() });
        let through = |&number: &u64| {
            let lost = sockets.wire.counts(Way::ToFar).lost;
            sockets.send(number);
            sockets.wire.settle();
            let lost = sockets.wire.counts(Way::ToFar).lost > lost;
            if lost {
                assert!(sockets.is_empty(), "what is lost does not arrive");
            } else {
                assert_eq!(sockets.next(), number);
            }
            !lost
        };
        let arrived = (0..400).filter(through).collect();
        let counts = sockets.wire.counts(Way::ToFar);
        assert_eq!((counts.entered, counts.left), (400, 400 - counts.lost));
        assert_eq!(counts.payload_bytes(), 400 * 8, "what is lost has entered, too");
        arrived
    };
    let (first, again, other) = (arrived(7), arrived(7), arrived(8));
    assert!((200..360).contains(&first.len()), "{}", first.len());
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn held_packets_are_overtaken_and_none_is_missing() {
    if !netns::possible() {
        return;
    }
    let sockets = Sockets::new(3);
    let reorder = (300, Duration::from_millis(30));
    sockets.wire.set(Way::ToFar, Fault { reorder, ..Fault::default() });
    for number in 0..100 {
        sockets.send(number);
    }
    let order: Vec<_> = (0..100).map(|_| sockets.next()).collect();
    assert!(!order.is_sorted(), "{order:?}");
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    let late = sockets.wire.counts(Way::ToFar).late;
    assert!((1..100).contains(&late), "{late}");
}

#[test]
fn doubled_packets_come_twice() {
    if !netns::possible() {
        return;
    }
    let sockets = Sockets::new(4);
    sockets.wire.set(Way::ToFar, Fault { duplicate: 1000, ..Fault::default() });
    for number in 0..10 {
        sockets.send(number);
    }
    let came: Vec<_> = (0..20).map(|_| sockets.next()).collect();
    assert_eq!(came, (0..10).flat_map(|number| [number; 2]).collect::<Vec<_>>());
    assert_eq!(sockets.wire.counts(Way::ToFar).doubled, 10);
}

#[test]
fn a_cut_drops_what_comes_and_what_is_held_until_it_is_mended() {
    if !netns::possible() {
        return;
    }
    let sockets = Sockets::new(5);
    sockets.wire.set(Way::ToFar, Fault { delay: Duration::from_millis(50), ..Fault::default() });
    sockets.send(0);
    sockets.wire.settle();
    sockets.wire.cut(&BOTH);
    sockets.send(1);
    until("what was held is dropped, too", || (sockets.wire.counts(Way::ToFar).cut == 2).then_some(()));
    sockets.wire.mend();
    sockets.send(2);
    assert_eq!(sockets.next(), 2, "what was cut off stays lost");

    // One direction alone.
    sockets.wire.set_both(Fault::default());
    sockets.wire.cut(&[Way::ToNear]);
    sockets.far.send(&[7]).unwrap();
    sockets.send(3);
    assert_eq!(sockets.next(), 3);
    sockets.wire.settle();
    assert_eq!(sockets.wire.counts(Way::ToNear).left, 0);
    sockets.wire.mend();
    sockets.far.send(&[8]).unwrap();
    let mut byte = [0];
    sockets.near.recv(&mut byte).unwrap();
    assert_eq!(byte, [8]);
}

/// A connection over the wire: the near end, the far end.
fn connection(spaces: &[Space; 2]) -> [TcpStream; 2] {
    let listener = spaces[1].enter(|| TcpListener::bind((FAR, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let near = spaces[0].enter(|| TcpStream::connect(address).unwrap());
    let far = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    [near, far]
}

#[test]
fn tcp_mends_what_the_wire_does_and_goes_on_after_a_cut() {
    if !netns::possible() {
        return;
    }
    let Sockets { wire, spaces, .. } = Sockets::new(6);
    let [mut near, mut far] = connection(&spaces);
    let fault = Fault {
        delay: Duration::from_millis(2),
        loss: 20,
        reorder: (50, Duration::from_millis(4)),
        duplicate: 20,
        ..Fault::default()
    };
    wire.set_both(fault);
    let bytes = pattern(1, 1 << 20);
    let mut came = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| near.write_all(&bytes).unwrap());
        let (before, after) = came.split_at_mut(256 << 10);
        far.read_exact(before).unwrap();
        wire.cut(&BOTH);
        until("the cut drops something", || (wire.counts(Way::ToFar).cut > 3).then_some(()));
        wire.mend();
        far.read_exact(after).unwrap();
    });
    assert!(came == bytes, "the bytes changed");
    let counts = wire.counts(Way::ToFar);
    assert!(counts.lost > 0 && counts.late > 0 && counts.doubled > 0, "{counts:?}");
    let port = near.local_addr().unwrap().port();
    let sent = counts.payload.iter().filter(|((from, _), _)| *from == port).map(|(_, bytes)| bytes);
    assert!(sent.sum::<u64>() >= bytes.len() as u64, "what is sent again counts again");
}

#[test]
fn a_reset_takes_the_place_of_the_next_bytes() {
    if !netns::possible() {
        return;
    }
    let Sockets { wire, spaces, .. } = Sockets::new(6);
    let [mut near, mut far] = connection(&spaces);
    far.write_all(b"first").unwrap();
    let mut first = [0; 5];
    near.read_exact(&mut first).unwrap();
    wire.reset_next(Way::ToNear);
    far.write_all(b"lost").unwrap();
    let error = near.read(&mut first).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(wire.counts(Way::ToNear).reset, 1);
    // The next connection is not concerned.
    let [mut near, mut far] = connection(&spaces);
    far.write_all(b"other").unwrap();
    near.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"other");
}
