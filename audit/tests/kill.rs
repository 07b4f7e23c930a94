//! A process that is killed with SIGKILL, again and again, on a real directory: what it said was recorded is there.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;

use audit::{Draft, Event, Recorder};
use caps::time::UnixMicros;
use common::{identity, vkeys};

/// Names the directory to the child, and makes this test the child.
const DIR: &str = "LEASEHOLD_TEST_AUDIT_DIR";
/// How many lives the log has. Each dies at another moment.
const LIVES: u64 = 24;

/// Records until killed, and prints the index of each entry once it is recorded.
fn child(dir: &str) {
    let clock = Arc::new(|| UnixMicros(1_795_168_800_000_000));
    let recorder = Recorder::open(dir.as_ref(), identity(), clock).unwrap();
    println!("\nopen");
    loop {
        let (sender, receiver) = channel();
        let drafts = vec![Draft::ok(Event::LeaseOpen); 8];
        recorder
            .submit(drafts, UnixMicros(1_795_168_800_000_000), Box::new(move |o| sender.send(o).unwrap()))
            .unwrap();
        let recorded = receiver.recv().unwrap().unwrap();
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", recorded.last());
    }
}

#[test]
fn killed_again_and_again() {
    if let Ok(dir) = std::env::var(DIR) {
        return child(&dir);
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("log");
    let mut last = 0;
    for life in 0..LIVES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_again_and_again", "--nocapture"])
            .env(DIR, &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "open"), "life {life}: the log did not open");
        // Some lives end at once, others after checkpoints were made.
        for _ in 0..life * life % 83 {
            last = lines.next().unwrap().unwrap().parse::<u64>().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it printed between our last look and its death counts too.
        for line in lines.map_while(Result::ok) {
            last = line.parse().unwrap_or(last);
        }
        let report = audit::verify::verify_dir(&dir, &vkeys()).unwrap();
        assert_eq!(report.damage(), None, "life {life}");
        let summary = report.logs[0].outcome.as_ref().unwrap();
        let size = summary.signed.checkpoint().size + summary.unsigned;
        assert!(size > last, "life {life}: entry {last} was recorded, and {size} are there");
    }
    assert!(last > 1_000, "the lives were too short to show anything");
    let recorder = Recorder::open(&dir, identity(), Arc::new(|| UnixMicros(0))).unwrap();
    recorder.shutdown().unwrap();
    let starts = audit::read::entries(&dir, 0)
        .unwrap()
        .filter(|stored| stored.as_ref().unwrap().entry().unwrap().event() == Event::LogStart)
        .count();
    assert_eq!(starts as u64, LIVES + 1);
}
