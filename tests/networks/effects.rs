//! What was acknowledged was done once, whatever was cut and whichever answer was lost; what was not says so in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libmem::{Client, Code, Rights};

use crate::common::faults::{BOTH, Fault, Way, Wire};
use crate::common::{MINUTE, netns, pattern, until};
use crate::scene::{Scene, lease};

/// Cuts the wire so many times while bytes go to the far end, each time until something was dropped.
pub(crate) fn cuts_while_bytes_move(wire: &Wire, times: usize) {
    const MOVED: u64 = 1 << 20;
    for _ in 0..times {
        let before = wire.counts(Way::ToFar);
        until("bytes move", || {
            (wire.counts(Way::ToFar).payload_bytes() >= before.payload_bytes() + MOVED).then_some(())
        });
        wire.cut(&BOTH);
        until("the cut meets them", || (wire.counts(Way::ToFar).cut > before.cut).then_some(()));
        wire.mend();
    }
}

/// Where the counter is.
const COUNTER: u64 = 0;
/// Where each round leaves its mark, 8 bytes a round, by a write and by a scatter.
const WRITTEN: u64 = 4096;
const SCATTERED: u64 = 1 << 19;
/// Bytes of the lease.
const BYTES: u64 = 1 << 20;
/// Rounds for which there is room.
const ROUNDS_MAX: u64 = (SCATTERED - WRITTEN) / 8;

/// What the wire does to a stream of requests.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// Nothing passes for a while.
    Cut,
    /// What the node says does not arrive for a while.
    Deaf,
    /// What the client says does not.
    Mute,
    /// An answer is lost, and its connection. The node has done what it answers.
    AnswerLost,
    /// A request is lost, and its connection.
    RequestLost,
}

impl Blow {
    fn strike(self, wire: &Wire) {
        let ways: &[Way] = match self {
            Self::Cut => &BOTH,
            Self::Deaf => &[Way::ToNear],
            Self::Mute => &[Way::ToFar],
            Self::AnswerLost => return reset(wire, Way::ToNear),
            Self::RequestLost => return reset(wire, Way::ToFar),
        };
        let before = ways.iter().map(|&way| wire.counts(way).cut).sum::<u64>();
        wire.cut(ways);
        until("the cut meets a packet", || {
            (ways.iter().map(|&way| wire.counts(way).cut).sum::<u64>() > before).then_some(())
        });
        wire.mend();
    }
}

fn reset(wire: &Wire, way: Way) {
    let before = wire.counts(way).reset;
    wire.reset_next(way);
    until("a connection is reset", || (wire.counts(way).reset > before).then_some(()));
}

#[test]
fn what_was_acknowledged_was_done_once_whatever_was_cut() {
    /// Rounds that go well between two blows.
    const BETWEEN: u64 = 7;
    if !netns::possible() {
        return;
    }
    let scene = Scene::set(21);
    let (rounds, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Also when a blow meets nothing and this panics: the client then stops, and the test says why.
            let _over = Over(&over);
            let blows = [Blow::Cut, Blow::AnswerLost, Blow::Deaf, Blow::RequestLost, Blow::Mute];
            for blow in blows.into_iter().cycle().take(4 * blows.len()) {
                let before = rounds.load(Ordering::Relaxed);
                until("requests are answered", || {
                    (rounds.load(Ordering::Relaxed) >= before + BETWEEN).then_some(())
                });
                blow.strike(&scene.wire);
            }
        });
        scene.near(|| {
            let client = scene.alice(MINUTE);
            let leased = lease(&client, BYTES);
            let memory = client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(round < ROUNDS_MAX, "the blows take too long");
                // What it was before is how often it was done before.
                assert_eq!(memory.fetch_add_u64(COUNTER, 1), Ok(round), "each was done once");
                let mark = (round + 1).to_le_bytes();
                memory.write_at(WRITTEN + 8 * round, &mark).unwrap();
                let items: [(u64, &[u8]); 1] = [(SCATTERED + 8 * round, &mark)];
                assert_eq!(memory.scatter(&items).unwrap(), [Ok(8)]);
                round += 1;
                rounds.store(round, Ordering::Relaxed);
            }
            let mut all = vec![0; BYTES as usize];
            memory.read_at(0, &mut all).unwrap();
            let word = |at: u64| u64::from_le_bytes(*all[at as usize..].first_chunk().unwrap());
            assert_eq!(word(COUNTER), round);
            for at in 0..ROUNDS_MAX {
                let mark = if at < round { at + 1 } else { 0 };
                assert_eq!((word(WRITTEN + 8 * at), word(SCATTERED + 8 * at)), (mark, mark), "round {at}");
            }
        });
    });
    for way in BOTH {
        let counts = scene.wire.counts(way);
        assert!(counts.cut > 0 && counts.reset == 4, "{counts:?}");
    }
    scene.finish();
}

/// Says that it is over, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long a call may take in the test of bounds.
const BOUND: Duration = Duration::from_secs(3);
/// What a machine that is busy with other things may add.
const SLACK: Duration = Duration::from_secs(2);

/// Does something that must fail within the bound; with what.
#[track_caller]
fn fails<T: std::fmt::Debug>(work: impl FnOnce() -> libmem::Result<T>) -> Code {
    let began = Instant::now();
    let error = work().unwrap_err();
    assert!(began.elapsed() <= BOUND + SLACK, "{error} after {:?}", began.elapsed());
    error.code()
}

#[test]
fn what_was_not_acknowledged_says_so_in_time_and_which_it_may_be() {
    if !netns::possible() {
        return;
    }
    let scene = Scene::set(22);
    // At the node itself: what was done is seen there.
    let local = Client::connect(&scene.node.endpoint(), &scene.node.key("alice")).unwrap();
    scene.near(|| {
        let client = scene.alice(BOUND);
        let leased = lease(&client, BYTES);
        let memory = client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
        let here = local.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
        let count = || {
            let mut word = [0; 8];
            here.read_at(COUNTER, &mut word).unwrap();
            u64::from_le_bytes(word)
        };
        assert_eq!(memory.fetch_add_u64(COUNTER, 1), Ok(0));

        // Nothing passes. What changes nothing is just late, and what cannot even be asked has not been done.
        scene.wire.cut(&BOTH);
        assert_eq!(fails(|| memory.read_at(0, &mut [0; 8])), Code::Timeout);
        assert_eq!(fails(|| memory.fetch_add_u64(COUNTER, 1)), Code::Unreachable);
        assert_eq!(fails(|| memory.write_at(8, b"never")), Code::Unreachable);
        assert_eq!(fails(|| client.status()), Code::Unreachable);
        assert_eq!(count(), 1);
        scene.wire.mend();
        assert_eq!(memory.fetch_add_u64(COUNTER, 1), Ok(1), "the same right goes on");
        let mut word = [0; 5];
        memory.read_at(8, &mut word).unwrap();
        assert_eq!(word, [0; 5], "what was refused was not done");

        // The node hears and is not heard: it did it, and the client cannot know.
        scene.wire.cut(&[Way::ToNear]);
        assert_eq!(fails(|| memory.fetch_add_u64(COUNTER, 1)), Code::Uncertain);
        until("the node did what it was asked", || (count() == 3).then_some(()));
        scene.wire.mend();
        assert_eq!(memory.fetch_add_u64(COUNTER, 1), Ok(3));

        // The node is heard and does not hear: it may still come to hear of it, once at most.
        scene.wire.cut(&[Way::ToFar]);
        assert_eq!(fails(|| memory.fetch_add_u64(COUNTER, 1)), Code::Uncertain);
        assert_eq!(count(), 4);
        scene.wire.mend();
        let before = memory.fetch_add_u64(COUNTER, 1).unwrap();
        assert!((4..=5).contains(&before), "{before}");
        until("the rest is done", || (count() > before).then_some(()));
        assert!(count() <= 6, "done once at most");

        // A long write that is cut in the middle.
        let bytes = pattern(1, BYTES as usize - 4096);
        let cut = |done: &AtomicBool| {
            let before = scene.wire.counts(Way::ToFar).payload_bytes();
            until("bytes move", || {
                (scene.wire.counts(Way::ToFar).payload_bytes() > before + 100_000).then_some(())
            });
            scene.wire.cut(&BOTH);
            assert!(!done.load(Ordering::Relaxed), "the write is under way");
        };
        let slow = Fault { delay: Duration::from_millis(100), ..Fault::default() };
        scene.wire.set_both(slow);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let cut = scope.spawn(|| cut(&done));
            assert_eq!(fails(|| memory.write_at(4096, &bytes)), Code::Uncertain);
            done.store(true, Ordering::Relaxed);
            cut.join().unwrap();
        });
        // Mended, and as fast as it was.
        scene.wire.set_both(Fault::default());
        memory.write_at(4096, &bytes).unwrap();
        let mut found = vec![0; bytes.len()];
        memory.read_at(4096, &mut found).unwrap();
        assert!(found == bytes, "after it is mended the same write is whole");
        drop(here);
    });
    drop(local);
    scene.finish();
}
