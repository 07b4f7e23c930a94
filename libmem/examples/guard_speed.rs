//! How fast guarded and mapped access are, beside what a program would use without a lease.
//!
//! ```text
//! cargo run --release -p libmem --example guard_speed
//! ```
//!
//! First `read_at` and `write_at` beside `memcpy` between two ordinary buffers, from 64 bytes to 1 MiB. Then what it costs to map.
//! Then sequential reading and writing of 64 MiB of mapped memory beside anonymous memory of the same page
//! size. Both sides of a ratio are measured in turns within one run, and the best turn counts: it is the one
//! that nothing disturbed.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use libmem::{Access, Mapping, Revocation, Segment};
use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Length of the mapped memory in bytes. More than the caches hold, so that memory is measured.
const MAPPED_BYTES: usize = 64 << 20;
/// How often each side has its turn.
const TURNS: usize = 15;
/// About how long one turn of a copy takes.
const TURN: Duration = Duration::from_millis(10);

fn main() {
    copies();
    println!();
    mapping_again();
    println!();
    for (pages, file) in [("4 KiB", small_pages()), ("2 MiB", huge_pages())] {
        match file {
            Ok(file) => sequential(pages, file),
            Err(why) => println!("{pages} pages: not measured, {why}"),
        }
    }
}

/// What it costs to check, map, register and unmap a segment that is there already, as when a lease is opened again.
fn mapping_again() {
    for (pages, file) in [("4 KiB", small_pages()), ("2 MiB", huge_pages())] {
        let Ok(file) = file else { continue };
        let mut times: Vec<_> = (0..1000)
            .map(|_| {
                let descriptor = file.try_clone().expect("a free descriptor");
                timed(|| drop(black_box(map(descriptor, MAPPED_BYTES))))
            })
            .collect();
        times.sort_unstable();
        println!(
            "{pages} pages: map and unmap 64 MiB, untouched: p50 {:?}, p99 {:?}",
            times[500], times[990]
        );
    }
}

/// Guarded copies beside `memcpy`.
fn copies() {
    println!(
        "{:>9}  {:>11}  {:>11}  {:>11}  {:>10}  {:>10}",
        "bytes", "memcpy ns", "read_at ns", "write_at ns", "read ratio", "write ratio"
    );
    for bytes in [64, 256, 1024, 4096, 64 << 10, 1 << 20] {
        let mapping = map(small_pages().expect("a memfd"), MAPPED_BYTES);
        mapping.write_at(0, &vec![1; MAPPED_BYTES]).expect("nobody cuts it");
        let source = anonymous(bytes.max(4096), false);
        let mut target = anonymous(bytes.max(4096), false);
        let mut buffer = anonymous(bytes.max(4096), false);
        let count = calibrate(|| target[..bytes].copy_from_slice(black_box(&source[..bytes])));
        let best = in_turns([
            &mut || {
                repeat(count, || black_box(&mut target[..bytes]).copy_from_slice(black_box(&source[..bytes])))
            },
            &mut || {
                repeat(count, || mapping.read_at(0, black_box(&mut buffer[..bytes])).expect("nobody cuts it"))
            },
            &mut || {
                repeat(count, || mapping.write_at(0, black_box(&source[..bytes])).expect("nobody cuts it"))
            },
        ]);
        let [plain, read, write] = best.map(|time| time.as_nanos() as f64 / f64::from(count));
        println!(
            "{bytes:>9}  {plain:>11.1}  {read:>11.1}  {write:>11.1}  {:>10.2}  {:>10.2}",
            plain / read,
            plain / write
        );
    }
}

/// Sequential access to mapped memory beside anonymous memory of the same pages.
fn sequential(pages: &str, file: OwnedFd) {
    let huge = pages != "4 KiB";
    let mut mapping = map(file, MAPPED_BYTES);
    let mut plain = anonymous(MAPPED_BYTES, huge);
    {
        // SAFETY: this process alone has the file, and nothing else looks at the mapping while the slice
        // lives.
        let mapped = unsafe { mapping.as_mut_slice() }.expect("mapped for writing");
        // Every page is there before the first turn.
        write_all(mapped);
        write_all(&mut plain);
        let [mapped_write, plain_write] =
            in_turns([&mut || timed(|| write_all(mapped)), &mut || timed(|| write_all(&mut plain))]);
        let [mapped_read, plain_read] = in_turns([
            &mut || {
                timed(|| {
                    black_box(sum(mapped));
                })
            },
            &mut || {
                timed(|| {
                    black_box(sum(&plain));
                })
            },
        ]);
        let rate = |time: Duration| MAPPED_BYTES as f64 / time.as_secs_f64() / 1e9;
        for (what, mapped, plain) in [("read", mapped_read, plain_read), ("write", mapped_write, plain_write)]
        {
            println!(
                "{pages} pages, sequential {what:>5}: mapped {:>6.2} GB/s, anonymous {:>6.2} GB/s, ratio {:.3}",
                rate(mapped),
                rate(plain),
                plain.as_secs_f64() / mapped.as_secs_f64()
            );
        }
    }
    println!(
        "{pages} pages: mapped huge {} KiB, anonymous huge {} KiB",
        huge_kib(mapping.as_ptr() as usize),
        huge_kib(plain.as_ptr() as usize)
    );
}

#[inline(never)]
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = black_box(bytes).as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

#[inline(never)]
fn write_all(bytes: &mut [u8]) {
    let (words, _) = black_box(bytes).as_chunks_mut::<8>();
    for (index, word) in words.iter_mut().enumerate() {
        *word = (index as u64).to_ne_bytes();
    }
}

/// Runs the sides by turns and returns the best time of each.
fn in_turns<const N: usize>(mut sides: [&mut dyn FnMut() -> Duration; N]) -> [Duration; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..TURNS {
        for (best, side) in best.iter_mut().zip(&mut sides) {
            *best = (*best).min(side());
        }
    }
    best
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn repeat(count: u32, mut work: impl FnMut()) -> Duration {
    timed(|| (0..count).for_each(|_| work()))
}

/// How often `work` fits into a turn.
fn calibrate(mut work: impl FnMut()) -> u32 {
    let mut count = 1;
    while repeat(count, &mut work) < TURN {
        count *= 2;
    }
    count
}

fn map(descriptor: OwnedFd, bytes: usize) -> Mapping {
    let segment = Segment { descriptor, bytes: bytes as u64 };
    Mapping::new(vec![segment], Access::ReadWrite, Revocation::new()).expect("a file in RAM")
}

/// Anonymous memory on 2 MiB borders, with huge pages or without, every page present.
fn anonymous(bytes: usize, huge: bool) -> MmapMut {
    let mut memory = MmapOptions::new().len(bytes).map_anon().expect("memory");
    memory
        .advise(if huge { memmap2::Advice::HugePage } else { memmap2::Advice::NoHugePage })
        .expect("transparent huge pages can be chosen");
    memory.fill(1);
    memory
}

fn small_pages() -> Result<OwnedFd, String> {
    let file =
        rustix::fs::memfd_create("guard-speed", MemfdFlags::CLOEXEC).map_err(|error| error.to_string())?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, MAPPED_BYTES as u64)
        .map_err(|error| error.to_string())?;
    Ok(file)
}

/// A file in a tmpfs of its own that uses huge pages, as a provider makes it. Needs root.
fn huge_pages() -> Result<OwnedFd, String> {
    let make = || {
        let system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&system, "size", MAPPED_BYTES.to_string())?;
        rustix::mount::fsconfig_set_string(&system, "huge", "within_size")?;
        rustix::mount::fsconfig_create(&system)?;
        let mount = rustix::mount::fsmount(
            &system,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NOEXEC
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&mount, "memory", flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::ftruncate(&file, MAPPED_BYTES as u64)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, MAPPED_BYTES as u64)?;
        Ok(file)
    };
    make().map_err(|error: rustix::io::Errno| error.to_string())
}

/// How much of the mapping that contains this address is in huge pages, from `/proc/self/smaps`.
fn huge_kib(address: usize) -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let contains = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some(range.contains(&address))
    };
    smaps
        .lines()
        .skip_while(|line| contains(line) != Some(true))
        .skip(1)
        .take_while(|line| contains(line).is_none())
        .filter(|line| line.starts_with("AnonHugePages:") || line.starts_with("ShmemPmdMapped:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
