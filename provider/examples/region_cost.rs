//! What a region costs: `cargo run --release --example region_cost -p provider -- [REGIONS] [--open]`.
//!
//! Prints times in microseconds (median, 99th percentile) and the kernel's memory for each of REGIONS (10,000) regions
//! of 64 KiB alive at once, beyond their own bytes. Run it on an idle machine; the node's other work shows in it.

use std::fs;
use std::time::Instant;

use caps::error::Result;
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::mem::{Access, Holder, Memory, Region, Strength};

const REGION_BYTES: u64 = 64 << 10;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let strength = if arguments.iter().any(|a| a == "--open") { Strength::OpenOnly } else { Strength::Best };
    let regions: u32 = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(10_000);
    let config =
        FactoryConfig { pool_bytes_max: 4 << 30, regions_max: regions, namespace: Namespace::WhenNeeded };
    let memory = Memory::start(Factory::spawn(config)?, strength)?;
    println!("tier {:?}", memory.tier());
    for check in memory.capabilities().checks() {
        println!("  {:<20} {:<5} {}", check.name, check.ok, check.found);
    }
    cycles(&memory, 2_000)?;
    alive_at_once(&memory, regions)?;
    for (mib, rounds) in [(1, 50), (64, 10), (1024, 3)] {
        large(&memory, mib << 20, rounds)?;
    }
    let region = memory.region(REGION_BYTES)?;
    let mut first = Vec::new();
    for _ in 0..50 {
        let region = memory.region(REGION_BYTES)?;
        let started = Instant::now();
        region.client_descriptor(Access::ReadOnly, Holder::OtherUser)?;
        first.push(micros(started));
    }
    region.client_descriptor(Access::ReadOnly, Holder::OtherUser)?;
    let mut again = Vec::new();
    for _ in 0..1000 {
        let started = Instant::now();
        region.client_descriptor(Access::ReadOnly, Holder::OtherUser)?;
        again.push(micros(started));
    }
    show("client descriptor, first of a region", &mut first);
    show("client descriptor, again", &mut again);
    Ok(())
}

/// One region after another: made, and taken back without ever having been mapped by a client.
fn cycles(memory: &Memory, rounds: usize) -> Result<()> {
    let (mut create, mut cut, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds + 100 {
        let started = Instant::now();
        let region = memory.region(REGION_BYTES)?;
        let created = micros(started);
        let started = Instant::now();
        let _ = region.cut()?;
        let cut_took = micros(started);
        take_back(region)?;
        let back_took = micros(started);
        // The first hundred warm the kernel's caches.
        if round >= 100 {
            create.push(created);
            cut.push(cut_took);
            back.push(back_took);
        }
    }
    show("64 KiB: create, fill, pin, seal", &mut create);
    show("64 KiB: cut", &mut cut);
    show("64 KiB: cut, shut, wipe, close", &mut back);
    Ok(())
}

fn take_back(region: Region) -> Result<()> {
    let _ = region.shut()?;
    let wiped = region.wipe()?;
    assert_eq!(wiped, region.coverage().pinned);
    region.close();
    Ok(())
}

fn alive_at_once(memory: &Memory, count: u32) -> Result<()> {
    let before = Kernel::now();
    let mut create = Vec::new();
    let mut regions = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        regions.push(memory.region(REGION_BYTES)?);
        create.push(micros(started));
    }
    let after = Kernel::now();
    show("64 KiB: create, all alive", &mut create);
    let data = REGION_BYTES as i64 * i64::from(count);
    println!(
        "kernel memory for each of {count}: {} bytes (free memory's fall beyond the data), {} bytes (slab and per-cpu)",
        (before.free - after.free - data) / i64::from(count),
        (after.slab - before.slab) / i64::from(count),
    );
    let mut back = Vec::new();
    for region in regions {
        let started = Instant::now();
        let _ = region.cut()?;
        take_back(region)?;
        back.push(micros(started));
    }
    show("64 KiB: take back, all alive", &mut back);
    Ok(())
}

fn large(memory: &Memory, bytes: u64, rounds: usize) -> Result<()> {
    let (mut create, mut cut, mut wipe, mut close) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        let region = memory.region(bytes)?;
        create.push(micros(started));
        cut.push(region.cut()?.micros as f64);
        let started = Instant::now();
        region.wipe()?;
        wipe.push(micros(started));
        let started = Instant::now();
        region.close();
        close.push(micros(started));
    }
    let mib = bytes >> 20;
    show(&format!("{mib} MiB: create"), &mut create);
    show(&format!("{mib} MiB: cut"), &mut cut);
    show(&format!("{mib} MiB: wipe"), &mut wipe);
    show(&format!("{mib} MiB: close"), &mut close);
    Ok(())
}

/// What the kernel says of its memory, in bytes.
struct Kernel {
    free: i64,
    slab: i64,
}

impl Kernel {
    fn now() -> Self {
        // Caches of each processor settle within a moment; a second is plenty and nothing here is timed across it.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |name: &str| -> i64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(": 0 kB");
            line.trim_matches([':', ' ']).trim_end_matches(" kB").trim().parse::<i64>().unwrap_or(0) << 10
        };
        Self { free: bytes("MemFree"), slab: bytes("Slab") + bytes("Percpu") }
    }
}

fn micros(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

fn show(what: &str, samples: &mut [f64]) {
    samples.sort_by(f64::total_cmp);
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize];
    println!("{what:<40} p50 {:>10.1} us   p99 {:>10.1} us   n {}", at(0.5), at(0.99), samples.len());
}
