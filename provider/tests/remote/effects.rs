//! Requests that change something, on connections that come and go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caps::error::{Code, Result};
use caps::id::{ClientId, LeaseId, RequestId, SlotHandle};
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::cbor;
use caps::wire::link::Take;
use caps::wire::remote::leases::{Create, Creations, Delete, Deletions};
use caps::wire::remote::{Add, Answer, Header, Piece, Swap, Verb};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{EndCause, Lifetime};
use provider::gate::remote::trial::{Clients, Connection, Guest, Sink};
use zerocopy::IntoBytes;

use crate::line::{Told, header, pattern, read, scatter_frame, until, write_frames};
use crate::world::{LONG, Lease, World};

type Frames = VecDeque<(Header, Vec<u8>)>;

/// Takes whole answers of one frame, or is a connection that is gone.
#[derive(Default)]
struct End {
    frames: Vec<(Header, Vec<u8>)>,
    gone: bool,
}

impl Sink for End {
    fn has_room(&self) -> bool {
        true
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], _: &[SlotHandle]) -> Result<()> {
        if self.gone {
            return Err(caps::error::Error::new(Code::Unreachable, "gone"));
        }
        self.frames.push((header, parts.concat()));
        Ok(())
    }
}

fn numbered(id: u64, mut frames: Frames) -> Frames {
    frames.iter_mut().for_each(|(header, _)| header.request = RequestId(id));
    frames
}

fn one(verb: Verb, id: u64, body: &[u8]) -> Frames {
    numbered(id, [(header(verb, false, 0, body), body.to_vec())].into())
}

/// Asks, and gives the body of the answer, or why there is none. `None` if it broke off, or the connection was gone.
fn ask(
    world: &World,
    guest: &mut Guest,
    connection: &Connection,
    frames: Frames,
    gone: bool,
) -> Result<Option<Vec<u8>>, Code> {
    let mut end = End { gone, ..End::default() };
    let answered = world.wait(connection.exchange(guest, frames, &mut end)).map_err(|error| error.code())?;
    let Some((header, body)) = end.frames.pop().filter(|_| answered) else { return Ok(None) };
    header.verify(&body).unwrap();
    match Answer::decode(&header, &body).unwrap() {
        Answer::Failed(error) => Err(error.code()),
        _ => Ok(Some(body)),
    }
}

fn word(answer: Result<Option<Vec<u8>>, Code>) -> Result<u64, Code> {
    answer.map(|body| u64::from_le_bytes(body.expect("it was answered").try_into().unwrap()))
}

fn open(world: &World, guest: &mut Guest, lease: Lease, rights: Rights) -> SlotHandle {
    world.wait(guest.open(&world.whole(lease), rights)).unwrap().handle
}

pub(crate) fn a_word_is_changed_by_who_may_read_and_write_it(world: &World) {
    let (lease, mut guest, alone) = (world.small(), world.anybody(), Connection::alone());
    let handle = open(world, &mut guest, lease, Rights::READ_WRITE);
    let mut id = 0;
    let mut add = |guest: &mut Guest, handle, offset, addend| {
        id += 1;
        let body = Add::new(handle, offset, addend);
        word(ask(world, guest, &alone, one(Verb::FetchAdd, id, body.as_bytes()), false))
    };
    assert_eq!(add(&mut guest, handle, 8, 5), Ok(0));
    assert_eq!(add(&mut guest, handle, 8, u64::MAX), Ok(5));
    assert_eq!(
        read(world, &mut guest, handle, 0, 24),
        Told::Bytes([[0; 8], 4_u64.to_le_bytes(), [0; 8]].concat())
    );
    assert_eq!(add(&mut guest, handle, lease.bytes - 8, 1), Ok(0));
    assert_eq!(add(&mut guest, handle, lease.bytes, 1), Err(Code::Range));
    assert_eq!(add(&mut guest, handle, 12, 1), Err(Code::Range));
    for rights in [Rights::READ, Rights::WRITE] {
        let half = open(world, &mut guest, lease, rights);
        assert_eq!(add(&mut guest, half, 8, 1), Err(Code::Denied), "{rights:?}");
    }
    let part = world.token(lease, None, 4096..8192, LONG);
    let part = world.wait(guest.open(&part, Rights::READ_WRITE)).unwrap().handle;
    assert_eq!(add(&mut guest, part, 8184, 1), Ok(0));
    assert_eq!(add(&mut guest, part, 8192, 1), Err(Code::Denied));
    assert_eq!(add(&mut guest, part, 4088, 1), Err(Code::Denied));
    let mut swap = |expected, desired| {
        let body = Swap::new(handle, 8, expected, desired);
        word(ask(world, &mut guest, &Connection::alone(), one(Verb::Cas, 1, body.as_bytes()), false))
    };
    assert_eq!(swap(3, 9), Ok(4), "it is something else, and stays so");
    assert_eq!(swap(4, 9), Ok(4));
    assert_eq!(swap(9, 9), Ok(9));
    world.revoke(lease);
    assert_eq!(add(&mut guest, handle, 8, 1), Err(Code::Revoked));
}

/// A rotation, as a revoke of one holder among several makes it.
fn rotate(world: &World, lease: Lease) {
    let grant = world.grant();
    let token = world.token(lease, Some(grant), 0..lease.bytes, LONG);
    let verified = world.provider.verify(&token).unwrap();
    let opener = provider::runtime::Opener {
        origin: provider::runtime::Origin::Process { uid: 12_345, pid: 2, exe: None, sandboxed: false },
        ..world.opener()
    };
    let quota = policy::Quota::UNLIMITED;
    let opened = world.provider.open(&opener, &token, &verified, Rights::READ, Path::Mapped, &quota, true);
    assert!(world.wait(opened).unwrap().descriptor.is_some());
    let take = Take::Grant { lease: lease.id, grant, expires: verified.terms().expires };
    world.take(take, EndCause::Revoked);
}

pub(crate) fn no_addition_is_lost_to_rotations_and_none_is_made_twice(world: &World) {
    let lease = world.lease(1 << 20, 1 << 18, LONG);
    let (stop, added) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let place = lease.bytes / 2 + 8;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                let mut guest = world.anybody();
                let handle = open(world, &mut guest, lease, Rights::READ_WRITE);
                let alone = Connection::alone();
                for id in 0.. {
                    let body = Add::new(handle, place, 1);
                    let asked =
                        ask(world, &mut guest, &alone, one(Verb::FetchAdd, id, body.as_bytes()), false);
                    word(asked).unwrap();
                    added.fetch_add(1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
        }
        for _ in 0..20 {
            let before = added.load(Ordering::SeqCst);
            until("additions go on", || added.load(Ordering::SeqCst) > before);
            rotate(world, lease);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, lease, Rights::READ);
    let sum = added.load(Ordering::SeqCst).to_le_bytes().to_vec();
    assert_eq!(read(world, &mut guest, handle, place, 8), Told::Bytes(sum));
    world.revoke(lease);
}

pub(crate) fn what_was_done_is_answered_again_by_another_connection(world: &World) {
    let (lease, mut guest, name) = (world.small(), world.anybody(), ClientId([1; 16]));
    let clients = world.wait(async { Clients::start(&guest) });
    let first = clients.resume(&guest, name).unwrap();
    let handle = open(world, &mut guest, lease, Rights::READ_WRITE);
    let add = |handle| one(Verb::FetchAdd, 7, Add::new(handle, 8, 5).as_bytes());
    let swap = |handle| one(Verb::Cas, 8, Swap::new(handle, 16, 0, 1).as_bytes());
    let bytes = pattern(200_000, 3);
    let write = |handle, step| numbered(9, write_frames(handle, 4096, &bytes[..100_000], step));
    for frames in [add(handle), swap(handle), write(handle, 60_000)] {
        assert_eq!(ask(world, &mut guest, &first, frames, true), Ok(None), "the answer is lost");
    }
    drop(first);
    let mut guest = world.anybody();
    let second = clients.resume(&guest, name).unwrap();
    let fresh = open(world, &mut guest, lease, Rights::READ_WRITE);
    assert_ne!(fresh, handle);
    for _ in 0..2 {
        assert_eq!(word(ask(world, &mut guest, &second, add(fresh), false)), Ok(0));
        assert_eq!(word(ask(world, &mut guest, &second, swap(fresh), false)), Ok(0));
        assert_eq!(word(ask(world, &mut guest, &second, write(fresh, 50_000), false)), Ok(100_000));
    }
    let once = [[0; 8], 5_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    assert_eq!(read(world, &mut guest, fresh, 0, 24), Told::Bytes(once));
    let other = one(Verb::FetchAdd, 7, Add::new(fresh, 8, 6).as_bytes());
    assert_eq!(ask(world, &mut guest, &second, other, false), Err(Code::FrameDuplicate));
    let longer = numbered(9, write_frames(fresh, 4096, &bytes[1..100_001], 50_000));
    assert_eq!(ask(world, &mut guest, &second, longer, false), Err(Code::FrameDuplicate));
    // What broke off is done again, as a whole.
    let mut half = numbered(10, write_frames(fresh, 0, &bytes[..150_000], 50_000));
    let whole = half.clone();
    half.pop_back();
    assert_eq!(ask(world, &mut guest, &second, half, false), Ok(None));
    assert_eq!(word(ask(world, &mut guest, &second, whole, false)), Ok(150_000));
    // What a word was is not told once more to who may not read it any longer.
    let mut late = world.anybody();
    let third = clients.resume(&late, name).unwrap();
    let right = open(world, &mut late, lease, Rights::READ_WRITE);
    world.revoke(lease);
    assert_eq!(ask(world, &mut late, &third, add(right), false), Err(Code::Revoked));
}

/// As small as a value may be.
const SMALL: u64 = caps::limits::VALUE_BYTES_MIN;

fn spec(bytes: u64) -> LeaseSpec {
    let ttl = Micros(LONG.as_micros() as u64);
    let lifetime = Lifetime::Detached;
    LeaseSpec { bytes, ttl, name: None, class: None, lifetime, segment_bytes: None, max_hops: 0, near: None }
}

fn encoded_delete(leases: Vec<LeaseId>) -> Vec<u8> {
    let mut body = Vec::new();
    cbor::append(&Delete { leases }, &mut body).unwrap();
    body
}

/// The same as soon as the number is not under way any more.
fn ask_when_free(
    world: &World,
    guest: &mut Guest,
    connection: &Connection,
    frames: &Frames,
) -> Result<Option<Vec<u8>>, Code> {
    let mut answer = Err(Code::Busy);
    until("the number may be used again", || {
        answer = ask(world, guest, connection, frames.clone(), false);
        answer != Err(Code::Busy)
    });
    answer
}

/// A CREATE of leases of these sizes with these first bytes, in pieces of `step` bytes.
fn create(id: u64, values: &[(u64, &[u8])], step: usize) -> Frames {
    let leases = values.iter().map(|&(bytes, _)| spec(bytes)).collect();
    let mut body = Vec::new();
    cbor::append(&Create { leases }, &mut body).unwrap();
    let mut frames = Frames::from([(header(Verb::Create, false, 0, &body), body)]);
    for (index, (_, value)) in values.iter().enumerate() {
        for bytes in value.chunks(step) {
            let pieces = [Piece::new(index as u32, None, bytes.len() as u64)];
            let body = [pieces.as_bytes(), bytes].concat();
            frames.push_back((header(Verb::Create, false, 1, &body), body));
        }
    }
    let last = frames.len() - 1;
    for (header, _) in frames.iter_mut().take(last) {
        header.flags = header.flags.and(caps::wire::remote::Flags::MORE);
    }
    numbered(id, frames)
}

fn creations(answer: Result<Option<Vec<u8>>, Code>) -> Creations {
    cbor::decode(&answer.unwrap().expect("it was answered")).unwrap()
}

fn ids(made: &Creations) -> Vec<LeaseId> {
    made.iter().flatten().map(|created| created.lease.id).collect()
}

fn given_back(world: &World, leases: Vec<LeaseId>, mut guest: Guest) {
    let body = encoded_delete(leases);
    let deleted = ask(world, &mut guest, &Connection::alone(), one(Verb::Delete, 1, &body), false);
    let deleted: Deletions = cbor::decode(&deleted.unwrap().unwrap()).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

pub(crate) fn leases_are_made_with_their_first_bytes(world: &World) {
    let (mut guest, alone, bytes) = (world.anybody(), Connection::alone(), pattern(200_000, 5));
    let before = world.broker.live();
    let values = [
        (65_536, &bytes[..70_000]),       // more than there is room for
        ((1 << 30) + 1, &bytes[..3_000]), // larger than a value may be
        (100_000, &bytes[50_000..150_000]),
        (65_537, &[][..]),
        (65_536, &bytes[..1]),
        (65_535, &bytes[..1]), // smaller
    ];
    let made = creations(ask(world, &mut guest, &alone, create(1, &values, 40_000), false));
    assert_eq!(made.len(), values.len());
    for at in [1, 5] {
        assert_eq!(made[at].as_ref().unwrap_err().code(), Code::Range, "{at}");
    }
    for (at, length, written) in [(0, 65_536, 65_536), (2, 102_400, 100_000), (3, 69_632, 0), (4, 65_536, 1)]
    {
        let created = made[at].as_ref().unwrap();
        assert_eq!((created.lease.range.len(), created.written), (length, written), "{at}");
        let opened = world.wait(guest.open(&created.token, Rights::READ)).unwrap();
        let mut expected = values[at].1[..written as usize].to_vec();
        expected.resize(length as usize, 0);
        assert!(read(world, &mut guest, opened.handle, 0, length) == Told::Bytes(expected), "{at}");
    }
    assert_eq!(world.broker.live().difference(&before).count(), 4);
    // Nothing follows.
    let none =
        creations(ask(world, &mut guest, &alone, create(2, &[(65_536, &[]), (65_537, &[])], 1), false));
    assert_eq!(ids(&none).len(), 2);
    for count in [0, 65] {
        let many = create(3, &vec![(SMALL, &[][..]); count], 1);
        assert_eq!(ask(world, &mut guest, &alone, many, false), Err(Code::Range), "{count}");
    }
    given_back(world, [ids(&made), ids(&none)].concat(), guest);
    assert_eq!(world.broker.live(), before);
}

pub(crate) fn leases_are_made_once_however_often_they_are_asked_for(world: &World) {
    let (mut guest, bytes) = (world.anybody(), pattern(100_000, 7));
    let before = world.broker.live();
    let clients = world.wait(async { Clients::start(&guest) });
    let client = || ClientId([2; 16]);
    for (id, values) in
        [(1, vec![(SMALL, &[][..]); 3]), (2, vec![(SMALL, &bytes[..]), (SMALL, &bytes[..10])])]
    {
        let first = clients.resume(&guest, client()).unwrap();
        let made = world.broker.made.load(Ordering::SeqCst);
        assert_eq!(ask(world, &mut guest, &first, create(id, &values, 30_000), true).ok().flatten(), None);
        drop(first);
        let second = clients.resume(&guest, client()).unwrap();
        let made_first = creations(ask(world, &mut guest, &second, create(id, &values, 7_000), false));
        let made_again = creations(ask(world, &mut guest, &second, create(id, &values, 30_000), false));
        assert_eq!(made_first, made_again);
        assert_eq!(world.broker.made.load(Ordering::SeqCst) - made, values.len() as u64);
        let body = encoded_delete(ids(&made_first));
        for _ in 0..2 {
            let deleted =
                ask(world, &mut guest, &second, one(Verb::Delete, 50 + id, &body), false).unwrap().unwrap();
            assert_eq!(cbor::decode::<Deletions>(&deleted).unwrap(), vec![Ok(()); values.len()]);
        }
        // Under another number they are gone.
        let deleted = ask(world, &mut guest, &second, one(Verb::Delete, 99 + id, &body), false);
        let deleted: Deletions = cbor::decode(&deleted.unwrap().unwrap()).unwrap();
        assert!(deleted.iter().all(|one| one.as_ref().unwrap_err().code() == Code::LeaseUnknown));
    }
    assert_eq!(world.broker.live(), before);
}

pub(crate) fn leases_whose_first_bytes_broke_off_are_given_back(world: &World) {
    let (mut guest, bytes) = (world.anybody(), pattern(100_000, 9));
    let before = world.broker.live();
    let clients = world.wait(async { Clients::start(&guest) });
    let connection = clients.resume(&guest, ClientId([3; 16])).unwrap();
    let values = [(SMALL, &bytes[..]), (SMALL, &bytes[..10])];
    let whole = create(1, &values, 30_000);
    for kept in 1..whole.len() {
        let made = world.broker.made.load(Ordering::SeqCst);
        let releasing = world.wait(world.broker.releasing.write());
        let broken = whole.iter().take(kept).cloned().collect();
        assert_eq!(ask_when_free(world, &mut guest, &connection, &broken), Ok(None));
        assert_eq!(world.broker.made.load(Ordering::SeqCst) - made, 2);
        // Until they are, whoever asks again is told to wait.
        assert_eq!(ask(world, &mut guest, &connection, whole.clone(), false), Err(Code::Busy));
        assert_eq!(world.broker.live().difference(&before).count(), 2);
        drop(releasing);
        until("what was made is given back", || world.broker.live() == before);
    }
    let made = creations(ask_when_free(world, &mut guest, &connection, &whole));
    assert_eq!(ids(&made).len(), 2);
    // Bytes of leases that were not asked for, or that go back, end the request.
    for index in [0_u32, 2] {
        let mut odd = create(2, &values, 30_000);
        let (header, body) = odd.back_mut().unwrap();
        let piece = Piece::new(index, None, 10);
        body[..Piece::BYTES].copy_from_slice(piece.as_bytes());
        header.request = RequestId(2);
        let before = world.broker.live();
        if index == 0 {
            // The one before was of the second lease already.
            let last = odd.back().unwrap().clone();
            let mut second = last.clone();
            second.1[..Piece::BYTES].copy_from_slice(Piece::new(1, None, 10).as_bytes());
            second.0.flags = second.0.flags.and(caps::wire::remote::Flags::MORE);
            odd.insert(odd.len() - 1, second);
        }
        let refused = ask_when_free(world, &mut guest, &connection, &odd);
        assert_eq!(refused, Err(Code::Range), "{index}");
        until("what was made is given back", || world.broker.live() == before);
    }
    // A request whose future is given up while the leases are made.
    let before = world.broker.live();
    let making = world.wait(world.broker.making.write());
    let mut end = End::default();
    world.wait(async {
        let asked = connection.exchange(&mut guest, create(3, &values, 30_000), &mut end);
        tokio::select! {
            _ = asked => panic!("nothing can be made"),
            () = async { while world.broker.live().difference(&before).count() < 2 { tokio::task::yield_now().await } } => {}
        }
    });
    drop(making);
    until("what was made is given back", || world.broker.live() == before);
    given_back(world, ids(&made), guest);
}

/// An answer is kept under the word that it is of, and told only by a right that reaches that word now.
pub(crate) fn a_word_is_not_told_again_by_a_right_that_does_not_reach_it(world: &World) {
    let (lease, name) = (world.small(), ClientId([2; 16]));
    let (mut guest, grant) = (world.anybody(), world.grant());
    let clients = world.wait(async { Clients::start(&guest) });
    let connection = clients.resume(&guest, name).unwrap();
    let token = world.token(lease, Some(grant), 0..lease.bytes, LONG);
    let handle = world.wait(guest.open(&token, Rights::READ_WRITE)).unwrap().handle;
    let far = lease.bytes - 8;
    let add = |handle, offset| one(Verb::FetchAdd, offset + 1, Add::new(handle, offset, 5).as_bytes());
    for offset in [8, far] {
        assert_eq!(word(ask(world, &mut guest, &connection, add(handle, offset), false)), Ok(0));
    }
    // Another grant of the same lease, whose range ends before the word.
    let part = world.token(lease, Some(world.grant()), 0..4096, LONG);
    let part = world.wait(guest.open(&part, Rights::READ_WRITE)).unwrap().handle;
    assert_eq!(word(ask(world, &mut guest, &connection, add(part, far), false)), Err(Code::Denied));
    assert_eq!(word(ask(world, &mut guest, &connection, add(part, 8), false)), Ok(0), "this one it reaches");
    // The very right that it was read by, narrowed.
    assert_eq!(word(ask(world, &mut guest, &connection, add(handle, far), false)), Ok(0));
    let narrow = Take::Narrow {
        lease: lease.id,
        grant,
        rights: Rights::READ_WRITE,
        range: caps::range::ByteRange::new(0, 4096).unwrap(),
        expires: caps::time::UnixMicros(world.now().0 + 60_000_000),
    };
    world.take(narrow, EndCause::Narrowed);
    assert_eq!(word(ask(world, &mut guest, &connection, add(handle, far), false)), Err(Code::Denied));
    assert_eq!(word(ask(world, &mut guest, &connection, add(handle, 8), false)), Ok(0));
    world.revoke(lease);
    assert_eq!(word(ask(world, &mut guest, &connection, add(handle, 8), false)), Err(Code::Revoked));
}

/// Who asks again what was done by a right that has ended since learns that it was, whoever has the slot now.
pub(crate) fn what_was_done_is_known_when_its_slot_is_anothers(world: &World) {
    let (lease, other, alone) = (world.small(), world.small(), Connection::alone());
    let mut guest = world.anybody();
    let handle = open(world, &mut guest, lease, Rights::READ_WRITE);
    let scatter = || numbered(7, [scatter_frame(false, &[(handle, 0, b"once")])].into());
    let write = || numbered(8, write_frames(handle, 8, b"once", 4));
    let scattered = ask(world, &mut guest, &alone, scatter(), false);
    let written = ask(world, &mut guest, &alone, write(), false);
    assert!(scattered.as_ref().is_ok_and(Option::is_some) && written.as_ref().is_ok_and(Option::is_some));
    guest.close(handle).unwrap();
    let mut others = world.anybody();
    let taken = (0..policy::limits::SLOTS_MAX).any(|_| {
        let next = open(world, &mut others, other, Rights::READ_WRITE);
        others.close(next).unwrap();
        next.slot == handle.slot
    });
    assert!(taken, "the slot is given to others");
    assert_eq!(ask(world, &mut guest, &alone, scatter(), false), scattered);
    assert_eq!(ask(world, &mut guest, &alone, write(), false), written);
    // What was not done before is refused as ever.
    let fresh = numbered(9, write_frames(handle, 8, b"more", 4));
    assert_eq!(ask(world, &mut guest, &alone, fresh, false), Err(Code::Revoked));
    world.revoke(lease);
    world.revoke(other);
}
