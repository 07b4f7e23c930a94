//! How many messages a second go through a lane from one process to another, and how long a wake-up takes.
//!
//! ```text
//! cargo run --release -p libmem --example ring_speed
//! ```
//!
//! The second process is this program started again; each maps the same file in RAM for itself. First messages of several
//! lengths one way, as fast as they go. Then one message there and one back, each end sleeping for the other.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libmem::sync::ring::{Lane, Shape, spsc};
use libmem::{Access, Mapping, Revocation, Segment};

const BYTES: u64 = 4 << 20;
const CAPACITY: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(30);
/// What is sent: the length of a message in bytes, and how many.
const RUNS: [(usize, u64); 4] = [(8, 1_000_000), (64, 1_000_000), (1024, 500_000), (65_536, 20_000)];
const ROUND_TRIPS: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shape = Shape::new(CAPACITY, 65_536)?;
    let second = std::env::args().nth(1);
    let file: OwnedFd = match &second {
        Some(path) => File::options().read(true).write(true).open(path)?.into(),
        None => rustix::fs::memfd_create("ring-speed", rustix::fs::MemfdFlags::CLOEXEC)?,
    };
    rustix::fs::ftruncate(&file, BYTES)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let segment = Segment { descriptor: file.try_clone()?, bytes: BYTES };
    let mapping = Mapping::new(vec![segment], Access::ReadWrite, Revocation::new())?;
    let there = Lane::in_one(&mapping, 0, shape);
    let back = Lane::in_one(&mapping, shape.lane_bytes(), shape);

    if second.is_some() {
        let (mut sender, mut receiver) =
            (spsc::Sender::new(there, shape)?, spsc::Receiver::new(back, shape)?);
        let mut message = Vec::new();
        for (length, count) in RUNS {
            receiver.receive_into(&mut message, LONG)?; // the other end is ready
            let bytes = vec![7; length];
            for _ in 0..count {
                sender.send(&bytes, LONG)?;
            }
        }
        for _ in 0..ROUND_TRIPS {
            receiver.receive_into(&mut message, LONG)?;
            sender.send(&message, LONG)?;
        }
        return Ok(());
    }

    let mut child = Command::new(std::env::current_exe()?).arg(path).stdin(Stdio::null()).spawn()?;
    let (mut sender, mut receiver) = (spsc::Sender::new(back, shape)?, spsc::Receiver::new(there, shape)?);
    let mut message = Vec::new();
    for (length, count) in RUNS {
        sender.send(b"go", LONG)?;
        let began = Instant::now();
        for _ in 0..count {
            receiver.receive_into(&mut message, LONG)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let rate = count as f64 / seconds;
        println!("{length:>6} bytes: {rate:>12.0} messages/s, {:>8.1} MB/s", rate * length as f64 / 1e6);
    }
    let began = Instant::now();
    for _ in 0..ROUND_TRIPS {
        sender.send(b"ping", LONG)?;
        receiver.receive_into(&mut message, LONG)?;
    }
    println!("there and back: {:?}", began.elapsed() / ROUND_TRIPS as u32);
    child.wait()?;
    Ok(())
}
