//! What arrives is what was sent, whatever the wire does.

use std::time::Duration;

use libmem::{Client, Rights};

use crate::common::faults::{BOTH, Fault};
use crate::common::netns;
use crate::common::{MINUTE, pattern};
use crate::scene::{Scene, lease};

/// A bad line: what TCP makes of it is slow and in order.
const BAD: Fault = Fault {
    delay: Duration::from_millis(3),
    loss: 10,
    reorder: (40, Duration::from_millis(5)),
    duplicate: 10,
    cut: false,
    reset_next: false,
    cut_at_reset: false,
};
/// Bytes of the lease.
const BYTES: usize = 1 << 20;

#[test]
fn bytes_are_right_over_a_wire_that_loses_reorders_and_doubles() {
    if !netns::possible() {
        return;
    }
    let scene = Scene::set(11);
    scene.wire.set_both(BAD);
    let bytes = pattern(1, BYTES);
    let (token, found) = scene.near(|| {
        let client = scene.alice(MINUTE);
        let leased = lease(&client, BYTES as u64);
        let memory = client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
        memory.write_at(0, &bytes).unwrap();
        let mut found = vec![0; BYTES];
        memory.read_at(0, &mut found).unwrap();
        assert!(found == bytes, "what was written is read");

        // Every other piece again, by one request, and all of them read by one.
        const PIECE: usize = 4096;
        let odd = pattern(2, BYTES);
        let places: Vec<_> = (0..BYTES / PIECE).filter(|at| at % 2 == 1).map(|at| at * PIECE).collect();
        let items: Vec<_> = places.iter().map(|&at| (at as u64, &odd[at..at + PIECE])).collect();
        for outcome in memory.scatter(&items).unwrap() {
            assert_eq!(outcome, Ok(PIECE));
        }
        let mut found = vec![0; BYTES];
        let mut items: Vec<_> =
            found.chunks_mut(PIECE).enumerate().map(|(at, place)| ((at * PIECE) as u64, place)).collect();
        for outcome in memory.gather(&mut items).unwrap() {
            assert_eq!(outcome, Ok(PIECE));
        }
        for (at, piece) in found.chunks(PIECE).enumerate() {
            let whole = if at % 2 == 1 { &odd } else { &bytes };
            assert!(piece == &whole[at * PIECE..][..PIECE], "the piece {at} is another");
        }
        (leased.token, found)
    });
    for way in BOTH {
        let counts = scene.wire.counts(way);
        assert!(counts.lost > 0 && counts.late > 0 && counts.doubled > 0, "the wire was bad: {counts:?}");
    }
    // The same bytes at the node itself, with no wire in front.
    let local = Client::connect(&scene.node.endpoint(), &scene.node.key("alice")).unwrap();
    let mut here = vec![0; BYTES];
    local.open_mediated(&token, Rights::READ).unwrap().read_at(0, &mut here).unwrap();
    assert!(here == found, "what arrived is what is there");
    drop(local);
    scene.finish();
}

#[test]
fn bytes_are_right_across_cuts_in_the_middle_of_them() {
    if !netns::possible() {
        return;
    }
    let scene = Scene::set(12);
    let bytes = pattern(3, 8 * BYTES);
    scene.near(|| {
        let client = scene.alice(MINUTE);
        let leased = lease(&client, bytes.len() as u64);
        let memory = client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
        // Slow enough that a cut meets it in the middle.
        scene.wire.set_both(Fault { delay: Duration::from_millis(5), ..Fault::default() });
        let mut found = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| crate::effects::cuts_while_bytes_move(&scene.wire, 2));
            memory.write_at(0, &bytes).unwrap();
            memory.read_at(0, &mut found).unwrap();
        });
        assert!(found == bytes, "the bytes changed");
    });
    scene.finish();
}
