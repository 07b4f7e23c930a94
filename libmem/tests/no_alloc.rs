//! Guarded access allocates nothing: not when it succeeds, not in the handler, not to say that the memory is
//! gone.
//!
//! The only test of its process, because it counts the allocations of all threads.

mod common;
mod node;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use std::os::fd::AsFd;

use caps::wire::channel::{Message, SegmentAccess};
use common::{cut, map, memfd};
use libmem::{Access, Client, Rights, SigningKey};
use node::{HANDLE, Node, memory, serve_mapping, token};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Only this thread's allocations count: the harness has a thread of its own.
    static WATCHED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: allocated by `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated() {
    let fd = memfd(4);
    let mappings: Vec<_> = (0..5).map(|_| map(&fd, 4, Access::ReadWrite)).collect();
    let mut buffer = vec![0; mappings[0].len()];
    let mut uses = |expect_ok: bool| {
        assert_eq!(mappings[0].read_at(0, &mut buffer).is_ok(), expect_ok);
        assert_eq!(mappings[1].write_at(0, &buffer).is_ok(), expect_ok);
        assert_eq!(mappings[2].load_u64(0).is_ok(), expect_ok);
        assert_eq!(mappings[3].store_u64(8, 1).is_ok(), expect_ok);
        assert_eq!(mappings[4].compare_exchange_u64(8, 1, 2).is_ok(), expect_ok);
    };
    WATCHED.set(true);
    drop(Box::new(1u8));
    assert_eq!(ALLOCATIONS.swap(0, Ordering::Relaxed), 1, "the counter counts");
    uses(true);
    cut(&fd);
    uses(false);
    uses(false);
    WATCHED.set(false);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0);
    rotation_allocates_nothing();
}

/// The node is another thread, and so is the session's own that watches the channel: some of these segments are taken
/// in the handler of this one.
fn rotation_allocates_nothing() {
    const ROTATIONS: u64 = 300;
    let node = Node::with(|peer| {
        let mut file = serve_mapping(peer);
        for turn in 1..=ROTATIONS {
            let fresh = memory();
            rustix::io::pwrite(&fresh, &turn.to_ne_bytes(), 0).unwrap();
            cut(&file);
            file = fresh;
            let access = SegmentAccess::ReadWrite;
            let message = Message::Segment { handle: HANDLE, index: 0, access };
            peer.channel.as_ref().unwrap().tell(message, &[file.as_fd()]);
        }
        peer.drain();
    });
    let client = Client::connect(&node.endpoint(), &SigningKey::from_seed(&[3; 32])).unwrap();
    let region = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    WATCHED.set(true);
    while region.load_u64(0).unwrap() < ROTATIONS {}
    WATCHED.set(false);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0);
    drop((region, client));
    node.finish();
}
