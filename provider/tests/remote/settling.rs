//! Nothing is sent after the acknowledgement: real TCP, real take-backs.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use caps::error::{Code, Result};
use caps::id::{GrantId, SlotHandle};
use caps::limits::CHUNK_BYTES_MAX;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::link::Take;
use caps::wire::remote::{Header, Span, Verb};
use caps::wire::request::Path;
use caps::wire::row::EndCause;
use policy::limits::DRAIN_MS_MAX;
use provider::gate::remote::trial::{Guest, Request, Sink, Step};
use provider::runtime::Outgoing;
use zerocopy::IntoBytes;

use crate::line::{Plain, connection, data_of, header, until};
use crate::world::{LONG, Lease, World};

/// Bytes of a lease that does not fit the buffers of a connection.
const LARGE: u64 = 16 << 20;
/// How much later than its bound a take-back may come back on a machine that is busy.
const BUSY: Duration = Duration::from_secs(5);

/// A session over a connection, and the end of it that the test holds.
struct Remote {
    guest: Guest,
    line: Plain,
    outgoing: Arc<Outgoing>,
    peer: TcpStream,
    /// How often the provider ended it.
    ended: Arc<AtomicUsize>,
}

impl Remote {
    fn new(world: &World) -> Self {
        let (line, outgoing, peer) = connection();
        let ended = Arc::new(AtomicUsize::new(0));
        let count = ended.clone();
        let end = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let guest = world.guest(end, Some(outgoing.clone()));
        Self { guest, line, outgoing, peer, ended }
    }

    fn open(&mut self, world: &World, lease: Lease, grant: Option<GrantId>) -> SlotHandle {
        let token = world.token(lease, grant, 0..lease.bytes, LONG);
        world.wait(self.guest.open(&token, Rights::READ)).unwrap().handle
    }

    /// Reads until the connection takes no more, or the answer is complete.
    fn read(&mut self, world: &World, handle: SlotHandle, length: u64) -> bool {
        let span = Span::new(handle, 0, length);
        let asked = header(Verb::Read, false, 0, span.as_bytes());
        let mut request = Request::begin(&asked, span.as_bytes(), world.provider.clock().boot()).unwrap();
        loop {
            match request.run(&mut self.guest, &mut self.line) {
                Step::Done => return true,
                Step::Full => return false,
                Step::Turn => {}
                _ => panic!("nothing else happens to it"),
            }
        }
    }

    /// Asks for more than the connection takes while nobody reads.
    fn stuff(&mut self, world: &World, handle: SlotHandle) {
        assert!(!self.read(world, handle, LARGE), "the connection takes everything");
        assert!(self.line.is_stuck(), "and what it did not take waits in the session");
    }

    /// How many bytes the peer's kernel has for it.
    fn there(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.peer).unwrap()
    }

    /// Everything that comes, and whether the connection ended by a reset.
    fn rest(&mut self) -> (Vec<u8>, bool) {
        let (mut all, mut into) = (Vec::new(), vec![0; CHUNK_BYTES_MAX]);
        self.peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        loop {
            match self.peer.read(&mut into) {
                Ok(0) => return (all, false),
                Ok(bytes) => all.extend_from_slice(&into[..bytes]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (all, false),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// It was reset by a take-back that is acknowledged now, and nothing comes any more.
    fn is_cut_off(&mut self) {
        let there = self.there();
        assert!(self.outgoing.is_cut_off() && self.outgoing.is_settled());
        assert!(self.line.flush().is_err(), "what waits in the session is never sent");
        let (all, reset) = self.rest();
        assert!(reset);
        assert_eq!(all.len() as u64, there, "a byte came after the acknowledgement");
    }

    /// Nobody touched it.
    fn is_alone(&self) {
        assert!(!self.outgoing.is_cut_off());
        assert_eq!(self.ended.load(Ordering::SeqCst), 0);
    }
}

fn timed<T>(it: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let it = it();
    (it, began.elapsed())
}

fn bound() -> Duration {
    Duration::from_millis(DRAIN_MS_MAX)
}

pub(crate) fn who_reads_has_it_before_the_acknowledgement(world: &World) {
    for length in [64, 4_096, 60_000] {
        let lease = world.lease(LARGE, LARGE, LONG);
        let mut remote = Remote::new(world);
        let handle = remote.open(world, lease, None);
        assert!(remote.read(world, handle, length));
        world.revoke(lease);
        // All of it is in the peer's kernel, whenever it looks.
        let there = remote.there();
        let (all, reset) = remote.rest();
        assert_eq!((all.len() as u64, reset), (there, false));
        assert_eq!(data_of(&all).len() as u64, length);
        remote.is_alone();
    }
}

pub(crate) fn who_does_not_read_is_cut_off(world: &World) {
    let lease = world.lease(LARGE, LARGE, LONG);
    let mut remote = Remote::new(world);
    let handle = remote.open(world, lease, None);
    remote.stuff(world, handle);
    let (_, took) = timed(|| world.revoke(lease));
    remote.is_cut_off();
    assert!(took >= bound() && took < bound() + BUSY, "{took:?}");
    assert_eq!(remote.ended.load(Ordering::SeqCst), 1);
}

pub(crate) fn what_was_closed_before_is_settled_too(world: &World) {
    let lease = world.lease(LARGE, LARGE, LONG);
    let mut remote = Remote::new(world);
    let handle = remote.open(world, lease, None);
    remote.stuff(world, handle);
    remote.guest.close(handle).unwrap();
    remote.is_alone();
    world.revoke(lease);
    remote.is_cut_off();
}

pub(crate) fn a_grant_is_settled_and_its_neighbours_are_left_alone(world: &World) {
    let lease = world.lease(LARGE, LARGE, LONG);
    let grant = world.grant();
    let (mut receiver, mut owner) = (Remote::new(world), Remote::new(world));
    let theirs = receiver.open(world, lease, Some(grant));
    let own = owner.open(world, lease, None);
    receiver.stuff(world, theirs);
    owner.stuff(world, own);
    let expires = caps::time::UnixMicros(world.now().0 + 60_000_000);
    world.take(Take::Grant { lease: lease.id, grant, expires }, EndCause::Revoked);
    receiver.is_cut_off();
    owner.is_alone();
    world.revoke(lease);
    owner.is_cut_off();
}

pub(crate) fn an_expiry_is_settled(world: &World) {
    // A lease's.
    let lease = world.lease(LARGE, LARGE, Duration::from_millis(400));
    let mut remote = Remote::new(world);
    let handle = remote.open(world, lease, None);
    remote.stuff(world, handle);
    until("the lease is over", || remote.outgoing.is_cut_off());
    remote.is_cut_off();
    // A grant's, of a lease that lives on, which nobody takes back.
    let lease = world.lease(LARGE, LARGE, LONG);
    let mut remote = Remote::new(world);
    let token = world.token(lease, Some(world.grant()), 0..lease.bytes, Duration::from_millis(400));
    let handle = world.wait(remote.guest.open(&token, Rights::READ)).unwrap().handle;
    remote.stuff(world, handle);
    until("the right is over", || remote.outgoing.is_cut_off());
    remote.is_cut_off();
    world.revoke(lease);
}

pub(crate) fn a_narrowing_is_settled(world: &World) {
    let lease = world.lease(LARGE, LARGE, LONG);
    let grant = world.grant();
    let mut remote = Remote::new(world);
    let handle = remote.open(world, lease, Some(grant));
    remote.stuff(world, handle);
    let narrow = Take::Narrow {
        lease: lease.id,
        grant,
        rights: Rights::READ,
        range: ByteRange::new(0, 4_096).unwrap(),
        expires: caps::time::UnixMicros(world.now().0 + 60_000_000),
    };
    world.take(narrow, EndCause::Narrowed);
    remote.is_cut_off();
    world.revoke(lease);
}

pub(crate) fn a_session_ends_with_nothing_under_way(world: &World) {
    let lease = world.lease(LARGE, LARGE, LONG);
    let mut remote = Remote::new(world);
    let handle = remote.open(world, lease, None);
    remote.stuff(world, handle);
    let Remote { guest, line, outgoing, mut peer, .. } = remote;
    drop(guest);
    assert!(outgoing.is_cut_off());
    let there = rustix::io::ioctl_fionread(&peer).unwrap();
    // Nobody finds the session any more, and need not.
    let (_, took) = timed(|| world.revoke(lease));
    assert!(took < bound() + BUSY);
    let mut all = Vec::new();
    assert_eq!(peer.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(all.len() as u64, there);
    drop(line);
}

pub(crate) fn nobody_waits_for_a_lease_that_left_nothing_under_way(world: &World) {
    let (lease, other) = (world.lease(LARGE, LARGE, LONG), world.small());
    let mut remote = Remote::new(world);
    let (handle, idle) = (remote.open(world, lease, None), remote.open(world, other, None));
    remote.stuff(world, handle);
    // Its own right to the other lease was never used.
    world.revoke(other);
    remote.is_alone();
    assert!(!remote.read(world, idle, 1), "it waits for room");
    world.revoke(lease);
    remote.is_cut_off();
}

/// Stops inside the slot, before its frame is given to the connection, until it is let on.
struct Stopped<'a> {
    line: &'a mut Plain,
    inside: Sender<()>,
    go_on: Receiver<()>,
}

impl Sink for Stopped<'_> {
    fn has_room(&self) -> bool {
        true
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
        self.inside.send(()).unwrap();
        self.go_on.recv().unwrap();
        self.line.frame(header, parts, rights)
    }
}

/// Stops a read inside its right, has `before` end or narrow that, and then acknowledges nothing of `take` until the read
/// has left.
fn nothing_is_acknowledged_over_an_operation(
    world: &World,
    token: &caps::token::Token,
    before: impl FnOnce(&Arc<Outgoing>),
    take: impl FnOnce() + Send,
) {
    let mut remote = Remote::new(world);
    let handle = world.wait(remote.guest.open(token, Rights::READ)).unwrap().handle;
    let (inside, is_inside) = channel();
    let (let_on, go_on) = channel();
    let outgoing = remote.outgoing.clone();
    std::thread::scope(|scope| {
        let Remote { guest, line, .. } = &mut remote;
        scope.spawn(move || {
            let span = Span::new(handle, 0, 4_096);
            let asked = header(Verb::Read, false, 0, span.as_bytes());
            let mut request = Request::begin(&asked, span.as_bytes(), world.provider.clock().boot()).unwrap();
            let _ = request.run(guest, &mut Stopped { line, inside, go_on });
        });
        is_inside.recv().unwrap();
        before(&outgoing);
        let taking = scope.spawn(take);
        until("the connection is cut off, or it was acknowledged", || {
            outgoing.is_cut_off() || taking.is_finished()
        });
        std::thread::sleep(bound());
        let acknowledged = taking.is_finished();
        let_on.send(()).unwrap();
        assert!(!acknowledged, "acknowledged while an operation was inside");
        taking.join().unwrap();
    });
    remote.is_cut_off();
}

pub(crate) fn what_ended_earlier_is_waited_for_while_an_operation_is_inside(world: &World) {
    // By the take-back of the lease.
    let lease = world.lease(LARGE, LARGE, LONG);
    let token = world.token(lease, Some(world.grant()), 0..lease.bytes, Duration::from_millis(400));
    let ends = world.now().0 + 400_000;
    let over = || until("the right's time is over", || world.now().0 > ends + 5_000);
    nothing_is_acknowledged_over_an_operation(
        world,
        &token,
        |_| over(),
        || {
            world.revoke(lease);
        },
    );
    // By that of the grant, which finds nothing open any more.
    let (lease, grant) = (world.lease(LARGE, LARGE, LONG), world.grant());
    let token = world.token(lease, Some(grant), 0..lease.bytes, Duration::from_millis(400));
    let ends = world.now().0 + 400_000;
    let over = || until("the right's time is over", || world.now().0 > ends + 5_000);
    let expires = caps::time::UnixMicros(ends + 60_000_000);
    nothing_is_acknowledged_over_an_operation(
        world,
        &token,
        |_| over(),
        || {
            world.take(Take::Grant { lease: lease.id, grant, expires }, EndCause::Revoked);
        },
    );
    world.revoke(lease);
}

/// The second of two equal narrowings has nothing to narrow, and answers no sooner than the first could.
pub(crate) fn a_narrowing_waits_for_the_one_before_it(world: &World) {
    let (lease, grant) = (world.lease(LARGE, LARGE, LONG), world.grant());
    let token = world.token(lease, Some(grant), 0..lease.bytes, LONG);
    let narrow = Take::Narrow {
        lease: lease.id,
        grant,
        rights: Rights::READ,
        range: ByteRange::new(0, 4_096).unwrap(),
        expires: caps::time::UnixMicros(world.now().0 + 60_000_000),
    };
    let provider = world.provider.clone();
    let first = || {
        // It is done when the right is as narrow as that, and waits then for who is inside.
        world.spawn(async move { provider.take(narrow, EndCause::Narrowed).await });
        let mut other = world.anybody();
        until("the grant is narrow", || {
            world.wait(other.open(&token, Rights::READ)).is_ok_and(|opened| opened.range.end() == 4_096)
        });
    };
    nothing_is_acknowledged_over_an_operation(
        world,
        &token,
        |_| first(),
        || {
            world.take(narrow, EndCause::Narrowed);
        },
    );
    world.revoke(lease);
}

/// A region whose time is over is handed over to nobody, and its end, which the refused call is often the first to see, is
/// carried out.
pub(crate) fn a_refused_change_of_owner_still_ends_what_is_due(world: &World) {
    let provider = &world.provider;
    let (before, mut first) = (provider.committed_bytes(), 0);
    for _ in 0..12 {
        let lease = world.lease(1 << 16, 1 << 16, Duration::from_millis(100));
        let (opener, token) = (world.opener(), world.whole(lease));
        let verified = provider.verify(&token).unwrap();
        let quota = policy::Quota::UNLIMITED;
        let opening = provider.open(&opener, &token, &verified, Rights::READ, Path::Mediated, &quota, true);
        // On a busy machine it may be over before it begins.
        let Ok(opened) = world.wait(opening) else { continue };
        let handle = opened.reply.handle;
        let change = Take::Owner {
            lease: lease.id,
            to: caps::key::SigningKey::from_seed(&[9; 32]).public(),
            since: world.now(),
            until: caps::time::UnixMicros(world.now().0 + 60_000_000),
            undoes: None,
        };
        // An access asks the clock and not the timer, so it is refused as soon as the time is over.
        while provider.read(opener.session, handle, 0, 1, |_| Ok(true)).is_ok() {}
        let refused = world.wait(provider.take(change, EndCause::Transfer)).unwrap_err();
        match refused.code() {
            Code::LeaseExpired => first += 1,
            // The timer was quicker.
            code => assert_eq!(code, Code::LeaseUnknown),
        }
        until("its bytes are free again", || provider.committed_bytes() == before);
    }
    assert!(first > 0, "the timer was always quicker");
}

/// Connections that read nothing, of a lease each, all of whose time is over: the bound is for all of them together.
pub(crate) fn many_that_do_not_read_are_waited_for_together(world: &World) {
    const MANY: u32 = 40;
    let bytes = 1 << 20;
    let before = world.provider.committed_bytes();
    let mut remotes: Vec<_> = (0..MANY)
        .map(|_| {
            let lease = world.lease(bytes, bytes, LONG);
            let mut remote = Remote::new(world);
            let handle = remote.open(world, lease, None);
            // Again until it is full: a buffer may take a whole lease.
            while remote.read(world, handle, bytes) {}
            (lease, remote)
        })
        .collect();
    let provider = world.provider.clone();
    let began = Instant::now();
    let taking: Vec<_> = remotes
        .iter()
        .map(|(lease, _)| {
            let (provider, take) = (provider.clone(), Take::Lease(lease.id));
            world.spawn(async move { provider.take(take, EndCause::Revoked).await })
        })
        .collect();
    for take in taking {
        world.wait(take).unwrap().unwrap();
    }
    let all = began.elapsed();
    // As many at a time as there are threads that wipe, each for the bound, would be ten times that.
    assert!(all < bound() * MANY / 5, "{all:?}");
    remotes.iter_mut().for_each(|(_, remote)| remote.is_cut_off());
    assert_eq!(world.provider.committed_bytes(), before);
}
