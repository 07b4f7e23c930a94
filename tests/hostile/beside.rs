//! The same attackers beside `leasehold bench beside`: what does another region's cut take while they are at work, and
//! what does their own?
//!
//! ```text
//! leasehold bench beside ── "ready", "rotate" / "rotated", "over" ── this binary: hostile_beside ── a Villain
//! ```
//!
//! The process between plays the part that a test plays otherwise: it has what a hostile process cannot have by itself (a
//! file whose server is silent, a number that is free again), stops and wakes it, and clears up. All of them, one table:
//!
//! ```text
//! cargo test --release -p leasehold --test hostile -- --ignored --nocapture beside::all
//! ```
//!
//! `LEASEHOLD_BESIDE_ROUNDS` is the number of turns of each side (20), `LEASEHOLD_BESIDE_ONLY` a part of the names of
//! those that are played, and `LEASEHOLD_BESIDE_GRANT`, set to anything, has their right taken back alone, by rotation.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use caps::key::SigningKey;
use serde::Deserialize;
use serde_json::Value;

use super::common::{Actor, Ask, SMALL, Said, is_root, until};
use super::fuse::Silent;
use super::scene::not_run;
use super::villain::{Brief, Crime, Villain};
use super::{die, flood, keep, map, pin, reuse, rotate, send, stall};

/// Which attack is played, as JSON. Unset in processes that no benchmark started.
const CRIME: &str = "LEASEHOLD_BESIDE_CRIME";
/// Bytes of a region with huge pages.
const LARGE: u64 = 16 << 20;

/// All attacks, in the order of the files.
const ALL: &[(&str, Crime, u64)] = &[
    ("keeps mapping and descriptor", Crime::Keep(keep::Row::Everything), SMALL),
    ("forks; the child reads", Crime::Keep(keep::Row::ChildReads), SMALL),
    ("forks; the child writes", Crime::Keep(keep::Row::ChildWrites), SMALL),
    ("mremaps a second copy", Crime::Keep(keep::Row::Remapped), SMALL),
    ("blocks SIGBUS", Crime::Keep(keep::Row::SignalBlocked), SMALL),
    ("ignores SIGBUS", Crime::Keep(keep::Row::SignalIgnored), SMALL),
    ("handles SIGBUS", Crime::Keep(keep::Row::SignalHandled), SMALL),
    ("is stopped", Crime::Keep(keep::Row::Stopped), SMALL),
    ("passes the descriptor on", Crime::Keep(keep::Row::PassedOn), SMALL),
    ("truncates, grows, punches, seals, reopens", Crime::Keep(keep::Row::DescriptorBefore), SMALL),
    ("refills the dead file", Crime::Keep(keep::Row::DescriptorAfter), SMALL),
    ("pins by vmsplice", Crime::Pin(pin::Row::Vmsplice), SMALL),
    ("pins by splice", Crime::Pin(pin::Row::Splice), SMALL),
    ("pins by io_uring, reads", Crime::Pin(pin::Row::RegisteredRead), SMALL),
    ("pins by io_uring, writes", Crime::Pin(pin::Row::RegisteredWrite), SMALL),
    ("uses /proc/self/mem", Crime::Pin(pin::Row::ProcMem), SMALL),
    ("uses process_vm calls", Crime::Pin(pin::Row::ProcessVm), SMALL),
    ("has a read in flight", Crime::Pin(pin::Row::ReadInFlight), SMALL),
    ("writes from a buffer that never fills", Crime::Stall(stall::Row::WriteFromSilence), SMALL),
    ("reads from a file that never answers", Crime::Stall(stall::Row::ReadFromSilence), SMALL),
    ("64 threads queue huge writes", Crime::Stall(stall::Row::ManyWrites), SMALL),
    ("maps it 60,000 times", Crime::Map(map::Row::Thousands), SMALL),
    ("maps it misaligned, 4 readers", Crime::Map(map::Row::Misaligned), LARGE),
    ("starves: 16 idle mappers, 32 hogs", Crime::Map(map::Row::Starving), LARGE),
    ("sends a FUSE descriptor", Crime::Send(send::Row::Silent), SMALL),
    ("sends 253 descriptors", Crime::Send(send::Row::Most), SMALL),
    ("sends a FIFO, a file, its own", Crime::Send(send::Row::Ordinary), SMALL),
    ("sends crooked control data", Crime::Send(send::Row::CrookedControl), SMALL),
    ("has no room for descriptors", Crime::Send(send::Row::NoRoom), SMALL),
    ("never reads its descriptors", Crime::Send(send::Row::NeverReceives), SMALL),
    ("dies connected", Crime::Die(die::Row::Connected), SMALL),
    ("dies after hello", Crime::Die(die::Row::SaidHello), SMALL),
    ("dies in mid frame", Crime::Die(die::Row::MidFrame), SMALL),
    ("dies proven", Crime::Die(die::Row::Proven), SMALL),
    ("dies leasing", Crime::Die(die::Row::Leasing), SMALL),
    ("dies before it receives", Crime::Die(die::Row::OpenedNotReceived), SMALL),
    ("dies when it has received", Crime::Die(die::Row::Received), SMALL),
    ("dies writing", Crime::Die(die::Row::MappedAndWriting), SMALL),
    ("dies releasing", Crime::Die(die::Row::Releasing), SMALL),
    ("floods with questions", Crime::Flood(flood::Row::Status), SMALL),
    ("floods with opens", Crime::Flood(flood::Row::Open), SMALL),
    ("rotation: keeps both files", Crime::Rotate(rotate::Row::KeepsBoth), SMALL),
    ("rotation: stops itself", Crime::Rotate(rotate::Row::StopsItself), SMALL),
    ("rotation: never reads", Crime::Rotate(rotate::Row::NeverReads), SMALL),
    ("rotation: rubbish", Crime::Rotate(rotate::Row::Rubbish), SMALL),
    ("rotation: answers out of order", Crime::Rotate(rotate::Row::OutOfOrder), SMALL),
    ("rotation: floods ready", Crime::Rotate(rotate::Row::FloodsReady), SMALL),
    ("rotation: asks for two channels", Crime::Rotate(rotate::Row::AsksTwice), SMALL),
    ("rotation: dies before it listens", Crime::Rotate(rotate::Row::DiesBeforeReady), SMALL),
    ("closes its right, leaves a child", Crime::Rotate(rotate::Row::ClosesAndForks), SMALL),
    ("leaves its number to another", Crime::Reuse(reuse::Row::LeftToAChild), SMALL),
];

/// The columns of the table: medians of another region's cut beside the attacker and beside an honest process, their
/// ratio, that of cuts while the attacker's region is taken back and while it is rotated, that of what the other region's
/// mapper sees; and median and worst of the attacker's own region.
const HEAD: [&str; 10] = [
    "beside who",
    "another's cut",
    "beside the honest",
    "ratio",
    "while taken back",
    "while rotated",
    "call to dead",
    "own dead",
    "own receipt",
    "met",
];

/// What the benchmark says first.
#[derive(Deserialize)]
struct Street {
    socket: PathBuf,
    uids: [u32; 4],
    seed: String,
    token: String,
}

/// The line to the benchmark.
struct Line(BufReader<UnixStream>);

impl Line {
    fn say(&mut self, word: &str) {
        writeln!(self.0.get_mut(), "{word}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut text = String::new();
        self.0.read_line(&mut text).unwrap();
        text.trim_end().to_owned()
    }

    /// All is prepared; returns once all is over, or the benchmark is gone.
    fn ready(&mut self) {
        self.say("ready");
        self.hear();
    }

    fn rotate(&mut self) {
        self.say("rotate");
        assert_eq!(self.hear(), "rotated");
    }
}

/// Plays an attack for the benchmark, or does nothing in a process that no benchmark started.
pub fn play() {
    let Some(crime) = std::env::var_os(CRIME) else { return };
    let crime: Crime = serde_json::from_str(crime.to_str().unwrap()).unwrap();
    adopt();
    // SAFETY: the benchmark makes the standard input of its command one end of a socket pair, and nothing else in this
    // process uses descriptor 0.
    let line = unsafe { UnixStream::from(OwnedFd::from_raw_fd(0)) };
    let mut line = Line(BufReader::new(line));
    let street: Street = serde_json::from_str(&line.hear()).unwrap();
    let seed = data_encoding::HEXLOWER.decode(street.seed.as_bytes()).unwrap().try_into().unwrap();
    let brief = Brief { crime, socket: street.socket.clone(), seed, token: street.token.clone() };
    let villain = Villain::start(street.uids[0], &brief);
    direct(crime, villain, &mut line, &street);
    reap_all();
}

fn direct(crime: Crime, mut villain: Villain, line: &mut Line, street: &Street) {
    match crime {
        Crime::Stall(stall::Row::WriteFromSilence | stall::Row::ReadFromSilence)
        | Crime::Send(send::Row::Silent) => {
            let silent = Silent::new(); // dropped before the villain: a process that waits for it cannot be killed
            villain.give(silent.file());
            villain.ready();
            line.ready();
        }
        Crime::Keep(keep::Row::Stopped) => {
            villain.ready();
            villain.stopped();
            line.ready();
        }
        Crime::Keep(keep::Row::PassedOn) => {
            let descriptor = villain.take();
            let mut stranger = stranger(street.uids[1], street);
            let said = stranger.ask(&Ask::TakeDescriptor { bytes: SMALL as usize });
            assert!(matches!(said, Said::Ready), "{said:?}");
            stranger.give(descriptor.as_fd());
            let said = stranger.hear();
            assert!(matches!(said, Some(Said::Started)), "{said:?}");
            villain.ready();
            line.ready();
        }
        Crime::Die(_) => {
            assert_eq!(villain.gone(), Some(libc::SIGKILL));
            line.ready();
        }
        Crime::Reuse(_) => {
            let pid = villain.pid();
            assert_eq!(villain.gone(), None, "it ends by itself");
            let _heir = until("a process gets the number", || {
                reuse::choose(pid);
                let actor = Actor::start(street.uids[2]);
                (actor.pid() == pid).then_some(actor)
            });
            villain.ready(); // its child
            line.ready();
        }
        Crime::Rotate(rotate::Row::ClosesAndForks) => {
            villain.ready();
            line.ready();
        }
        Crime::Rotate(rotate::Row::DiesBeforeReady) => {
            assert_eq!(villain.gone(), Some(libc::SIGKILL));
            line.rotate();
            line.ready();
        }
        Crime::Rotate(row) => {
            villain.ready();
            if row == rotate::Row::StopsItself {
                villain.stopped();
            }
            line.rotate();
            if row == rotate::Row::StopsItself {
                villain.resume();
            }
            villain.rotated();
            line.ready();
        }
        _ => {
            villain.ready();
            line.ready();
        }
    }
}

/// A process of another user, with a session of a key that nobody has registered.
fn stranger(uid: u32, street: &Street) -> Actor {
    let mut stranger = Actor::start(uid);
    let seed = *SigningKey::generate().seed();
    let said = stranger.ask(&Ask::Begin { socket: street.socket.clone(), seed });
    assert!(matches!(said, Said::Ready), "{said:?}");
    stranger
}

/// Makes this process the parent of what its children leave behind.
fn adopt() {
    // SAFETY: a property of this process alone.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
}

/// Waits until everything that was started is gone: it would share the processors with the next turn.
fn reap_all() {
    // SAFETY: children of this process, whose status nobody wants; fails once there are none.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

/// Runs the benchmark beside an attack.
fn bench(crime: Crime, bytes: u64, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["bench", "beside", "--json", "--size", &bytes.to_string()])
        .args(options)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "hostile_beside", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CRIME, serde_json::to_string(&crime).unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether an attack can be played here; says why not.
fn is_possible(crime: Crime) -> bool {
    let why = if !is_root() {
        "only root can start a client of another user"
    } else if matches!(crime, Crime::Reuse(_)) && !reuse::is_possible() {
        "the number of the next process cannot be chosen here"
    } else {
        return true;
    };
    not_run::<()>(why).is_some()
}

/// The document of a run, whatever bounds it missed; or what kept it from being measured.
fn document(output: &Output) -> Result<Value, String> {
    serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "a benchmark: some minutes, of the release build, on a quiet machine"]
fn all() {
    let set = |name: &str| std::env::var(name).ok();
    let rounds = set("LEASEHOLD_BESIDE_ROUNDS").unwrap_or("20".into());
    let only = set("LEASEHOLD_BESIDE_ONLY").unwrap_or_default();
    let mut options = vec!["--rounds", rounds.as_str()];
    options.extend(set("LEASEHOLD_BESIDE_GRANT").map(|_| "--grant"));
    println!("{}\n{}", row(&HEAD), row(&["---"; HEAD.len()]));
    let mut missed = Vec::new();
    for &(name, crime, bytes) in ALL.iter().filter(|(name, ..)| name.contains(&only)) {
        if !is_possible(crime) {
            continue;
        }
        match document(&bench(crime, bytes, &options)) {
            Ok(found) => {
                println!("{}", line_of(name, &found));
                missed.extend(misses(&found).map(|bound| format!("{name}: {bound}")));
            }
            Err(why) => missed.push(format!("{name}: not measured: {why}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn row(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn misses(found: &Value) -> impl Iterator<Item = String> {
    let bounds = found["bounds"].as_object().unwrap();
    let missed = bounds.iter().filter(|(_, bound)| bound["met"] == false);
    missed.map(|(name, bound)| format!("{name} is {}, must be {}", bound["is"], bound["must"]))
}

/// A row of the table, whose head is [`HEAD`].
fn line_of(name: &str, found: &Value) -> String {
    let ratio = |when: &str, what: &str| {
        let ratio = &found["ratios"][format!("other_{when}_{what}_time_vs_honest")];
        ratio.as_f64().map_or("-".into(), |ratio| format!("{ratio:.2}"))
    };
    let of = |side: &str, name: &str, key: &str| found[side][name][key].as_f64().unwrap();
    let cut = |side| format!("{:.0} us", of(side, "other_beside_dead_us", "p50_us"));
    let own = |name: &str| {
        let [middle, worst] = ["p50_us", "max_us"].map(|key| of("leasehold", name, key) / 1e3);
        format!("{middle:.2}, {worst:.2} ms")
    };
    let missed = misses(found).count();
    let met = if missed == 0 { "yes".into() } else { format!("NO: {missed}") };
    row(&[
        name,
        &cut("leasehold"),
        &cut("baselines"),
        &ratio("beside", "dead_us"),
        &ratio("during_take_back", "dead_us"),
        &ratio("during_rotation", "dead_us"),
        &ratio("beside", "call_to_dead"),
        &own("own_taken_dead_us"),
        &own("own_taken_receipt"),
        &met,
    ])
}

/// Plays one turn of each side, and looks at what was measured, not at how long it took.
#[track_caller]
fn one_turn(crime: Crime, options: &[&str], taken: &str, whens: &[&str]) {
    if !is_possible(crime) {
        return;
    }
    let output = bench(crime, SMALL, &[&["--rounds", "1"], options].concat());
    let found = document(&output).unwrap();
    if found["params"]["tier"] != "sealed" {
        return; // what is played there takes a right that another user does not get
    }
    assert_eq!((&found["bench"], &found["params"]["taken"]), (&"beside".into(), &taken.into()));
    assert_eq!(output.status.success(), found["ok"] == true, "the exit code says what the document says");
    for when in whens {
        for what in ["dead_us", "call_to_dead", "receipt"] {
            let name = format!("other_{when}_{what}");
            for side in ["leasehold", "baselines"] {
                let times = &found[side][&name];
                assert!(
                    times["p50_us"].as_f64().unwrap() > 0.0 && times["samples"].as_u64() > Some(0),
                    "{name}"
                );
            }
            assert!(found["ratios"][format!("{name}_time_vs_honest")].as_f64().unwrap() > 0.0, "{name}");
        }
        assert_eq!(found["bounds"][format!("other_{when}_dead_us_time_vs_honest")]["must"], "<= 1.2");
    }
    let rotated = whens.contains(&"during_rotation");
    assert_eq!(found["bounds"]["own_rotated_dead_us_max_ms"].is_object(), rotated);
    // However busy the machine is: these are no measurements, but promises.
    for promise in ["own_taken_dead_us_max_ms", "own_taken_receipt_max_ms", "touched_after_receipt"] {
        assert_eq!(found["bounds"][promise]["met"], true, "{promise}: {}", found["bounds"]);
    }
    assert_eq!(line_of("x", &found).split(" | ").count(), HEAD.len());
}

#[test]
fn a_lease_is_taken_back_beside_a_hostile_holder() {
    one_turn(Crime::Keep(keep::Row::ChildWrites), &[], "lease", &["beside", "during_take_back"]);
}

#[test]
fn a_grant_is_taken_back_beside_a_hostile_holder() {
    one_turn(Crime::Pin(pin::Row::Vmsplice), &["--grant"], "grant", &["beside", "during_take_back"]);
}

#[test]
fn a_rotation_that_a_hostile_holder_asks_for_is_measured() {
    let whens = ["beside", "during_take_back", "during_rotation"];
    one_turn(Crime::Rotate(rotate::Row::StopsItself), &[], "lease", &whens);
}

#[test]
fn a_command_that_cannot_be_measured_beside_is_an_error() {
    let cases: [(&[&str], &str); 4] = [
        (&["/no such program"], "E_SYSTEM"),
        (&["true"], "E_UNREACHABLE"),
        (&["sh", "-c", "echo hello >&0; read -r word"], "E_PROTOCOL"),
        (&["sh", "-c", "echo ready >&0; read -r brief; read -r over; echo more >&0"], "E_TIMEOUT"),
    ];
    for (command, code) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(["bench", "beside", "--json", "--rounds", "1", "--"])
            .args(command)
            .output()
            .unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], code, "{command:?}: {error}");
        assert!(!output.status.success() && output.stdout.is_empty(), "{command:?}");
    }
}
