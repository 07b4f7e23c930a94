//! Attackers that make the cut of the region as expensive as they can. It is their own region, and nobody else's.

use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use libmem::{Reason, Rights, Target};
use policy::limits;
use serde::{Deserialize, Serialize};

use super::common::world::Person;
use super::common::{SMALL, World};
use super::scene::{Scene, Setting};
use super::stage::{self, Held, PAGE, Stage};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// As many mappings of one page as a process may have.
    Thousands,
    /// Mappings that no huge page fits.
    Misaligned,
    /// Readers that hardly ever run, and others that always do.
    Starving,
}

/// Mappings that [`Row::Thousands`] makes: below `vm.max_map_count`, which is 65,530 unless somebody raised it.
const MAPPINGS: usize = 60_000;
/// Bytes of a region with huge pages.
const LARGE: u64 = 16 << 20;
/// Processes of [`Row::Misaligned`], readers and idlers of [`Row::Starving`].
const PROCESSES: usize = 4;
const IDLERS: usize = 16;
const HOGS: usize = 32;
/// By how much another region's cut may be slower than before, where that is more than half of what is allowed anyway.
const FACTOR: u32 = 20;

attacks! {
    both {
        sixty_thousand_mappings_slow_no_other_region => |setting| beside(setting, Row::Thousands, SMALL);
        starved_mappers_are_cut_in_time => |setting| beside(setting, Row::Starving, LARGE);
    }
    whole("the cut is the same call on the same file, and the other two are the slower ones") {
        misaligned_mappings_are_cut_in_time => |setting| beside(setting, Row::Misaligned, LARGE);
    }
}

/// Plays an attack while another region, mapped as well, is taken back, whose cut was measured before.
fn beside(setting: Setting, row: Row, bytes: u64) {
    let Some(mut scene) = Scene::alone(setting, bytes) else { return };
    let other = scene.world.person();
    let before = cut_of_another(&scene.world, &other);
    let mut villain = scene.villain(Crime::Map(row));
    villain.ready();
    let node = scene.world.node.endpoint();
    let (leased, region) = mapped(&other);
    let during = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let client = libmem::Client::connect(&node, &other.key).unwrap();
            let reason = Reason::new("at the same time").unwrap();
            client.revoke(Target::Lease(leased.lease.id), reason).unwrap().body.dead
        });
        scene.take_back();
        Duration::from_micros(beside.join().unwrap().0)
    });
    let allowed = (before * FACTOR).max(Duration::from_millis(limits::KILL_MS_MAX) / 2);
    assert!(during <= allowed, "another region's cut took {during:?}, and {before:?} before");
    scene.judge(villain.after());
    drop((region, other));
    scene.end(villain);
}

fn mapped(person: &Person) -> (libmem::Leased, libmem::Region) {
    let leased = person.lease(SMALL);
    let region = person.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(0, &[1; SMALL as usize]).unwrap();
    (leased, region)
}

/// How long a quiet cut takes.
fn cut_of_another(world: &World, person: &Person) -> Duration {
    let (leased, region) = mapped(person);
    let reason = Reason::new("to be measured").unwrap();
    let receipt = person.client.revoke(Target::Lease(leased.lease.id), reason).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    drop(region);
    Duration::from_micros(receipt.body.dead.0)
}

pub fn play(row: Row, stage: &mut Stage) {
    let held = stage.open();
    let bytes = held.bare.bytes;
    match row {
        Row::Thousands => {
            let pages: Vec<_> = (0..MAPPINGS).map(|_| page(&held)).collect();
            stage.acknowledged();
            let kept = [pages[0], pages[MAPPINGS / 2], pages[MAPPINGS - 1]];
            // Each touch is made in a child, and to copy so many mappings for each would take a minute.
            for page in pages.into_iter().filter(|page| !kept.contains(page)) {
                // SAFETY: a mapping that was made here, in which no Rust object lies.
                assert_eq!(unsafe { libc::munmap(page.cast(), PAGE) }, 0);
            }
            for place in kept {
                stage.touch("one of many", place, PAGE);
            }
        }
        Row::Misaligned => {
            let start = misaligned(&held);
            let children: Vec<_> =
                (0..PROCESSES).map(|_| stage::fork(|| read_without_end(start, bytes))).collect();
            stage.acknowledged();
            end_of(stage, "a reader", &children);
            stage.touch("the misaligned mapping", start, bytes);
        }
        Row::Starving => {
            let idlers: Vec<_> = (0..IDLERS)
                .map(|_| {
                    stage::fork(|| {
                        idle();
                        read_without_end(held.start, bytes)
                    })
                })
                .collect();
            let hogs: Vec<_> = (0..HOGS)
                .map(|_| {
                    stage::fork(|| {
                        loop {
                            std::hint::spin_loop();
                        }
                    })
                })
                .collect();
            stage.acknowledged();
            for hog in hogs {
                // SAFETY: ends a child of this process, which is not reaped yet.
                assert_eq!(unsafe { libc::kill(hog, libc::SIGKILL) }, 0);
                assert_eq!(stage::reap(hog), Err(libc::SIGKILL));
            }
            end_of(stage, "an idler", &idlers);
        }
    }
    stage.touch("the first mapping", held.start, bytes);
    drop(held.session);
}

fn end_of(stage: &mut Stage, what: &str, children: &[i32]) {
    for child in children {
        let ended = stage::reap(*child).map_or_else(Outcome::Signal, |_| Outcome::Done);
        stage.tried(what, ended);
    }
}

/// One more mapping of the first page, with the page in it.
fn page(held: &Held) -> *mut u8 {
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at a place of the kernel's choice.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), PAGE, both, flags, held.bare.descriptor.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start.cast()
}

/// The whole region, one page beside where a huge page could stand, every page touched.
fn misaligned(held: &Held) -> *mut u8 {
    const HUGE_PAGE: usize = limits::HUGE_PAGE_BYTES as usize;
    let bytes = held.bare.bytes;
    // SAFETY: reserves address space, and maps over nothing but that.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let room = libc::mmap(ptr::null_mut(), bytes + 2 * HUGE_PAGE, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(room, libc::MAP_FAILED);
        let place = (room as usize).next_multiple_of(HUGE_PAGE) + PAGE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(place as *mut _, bytes, both, flags, held.bare.descriptor.as_raw_fd(), 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}

/// Never runs while anybody else wants to.
fn idle() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the scheduling of this process, from a value that lives through the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) };
}

fn read_without_end(start: *mut u8, bytes: usize) -> i32 {
    loop {
        for offset in (0..bytes).step_by(PAGE) {
            // SAFETY: inside a mapping that was inherited; that it faults one day is what this is about.
            unsafe { start.add(offset).read_volatile() };
        }
    }
}
