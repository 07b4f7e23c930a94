//! How fast a log stages, records and verifies: `cargo run --release -p audit --example rate -- DIR`.
//!
//! DIR must not exist; it is made on the device to be measured, and left there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use audit::log::Identity;
use audit::store::memory::Memory;
use audit::verify::verify_dir;
use audit::{Draft, Event, Log, LogKey, Origin, Recorder};
use caps::id::{LeaseId, PrincipalKey, RegionId};
use caps::time::{Micros, UnixMicros};

/// An entry of the usual size.
fn draft() -> Draft {
    Draft::ok(Event::LeaseGrant)
        .subject(PrincipalKey([1; 32]))
        .lease(LeaseId([2; 16]))
        .region(RegionId([3; 16]))
        .bytes(65_536)
        .ttl_us(Micros(600_000_000))
}

fn identity() -> Identity {
    Identity::new(Origin::parse("rate.example/audit").expect("a good name"), LogKey::from_seed(&[1; 32]))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: rate DIR")?);
    let time = UnixMicros(1_795_168_800_000_000);
    const ENTRIES: u64 = 100_000;

    let mut log =
        Log::open_on(Arc::new(Memory::new()), Arc::new(identity()), audit::recover::Opening::default())?;
    let began = Instant::now();
    for _ in 0..ENTRIES {
        log.append(&draft(), time)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("staged    {:>9.0} entries/s on one core", ENTRIES as f64 / seconds);

    // 32 clients, each with one submission of three entries under way.
    let vkeys = identity().vkeys();
    let recorder = Recorder::open(&dir, identity(), Arc::new(move || time))?;
    let began = Instant::now();
    let mut waits = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let (sender, receiver) = channel();
                    let mut waits = Vec::new();
                    for _ in 0..ENTRIES / 32 / 3 {
                        let (sender, began) = (sender.clone(), Instant::now());
                        let done = Box::new(move |outcome: caps::Result<audit::Recorded>| {
                            drop(sender.send(outcome))
                        });
                        recorder
                            .submit(vec![draft(), draft(), draft()], time, done)
                            .expect("it is available");
                        let _recorded = receiver.recv().expect("it answers").expect("it is recorded");
                        waits.push(began.elapsed().as_micros());
                    }
                    waits
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect::<Vec<_>>()
    });
    let seconds = began.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "recorded  {:>9.0} entries/s, {} syncs, wait p50 {} us, p99 {} us, max {} us",
        waits.len() as f64 * 3.0 / seconds,
        recorder.status().syncs,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    let began = Instant::now();
    recorder.shutdown()?;
    println!("closed    {:>9.1} ms", began.elapsed().as_secs_f64() * 1e3);

    let began = Instant::now();
    let report = verify_dir(&dir, &vkeys)?;
    if let Some((_, damage)) = report.damage() {
        return Err(damage.to_string().into());
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("verified  {:>9.0} entries/s", waits.len() as f64 * 3.0 / seconds);
    Ok(())
}
