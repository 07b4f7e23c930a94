//! A hundred thousand bad requests in one run: many sessions at a time, each request with something wrong.
//!
//! A *burst* is some requests that can be read, and perhaps one behind them that cannot, sent at once. All of it comes from
//! the run's seed and the burst's number. `LEASEHOLD_BAD_INPUT_SEED` is another seed, or `random`; whichever it is is
//! printed, and makes the same bursts come again. `LEASEHOLD_BAD_INPUT_REQUESTS` is another number of requests. What a burst is answered ends with the answer to a request
//! that is good, or with the end of the connection: a connection that does neither within [`ANSWERED_WITHIN`] hangs.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::RequestId;
use caps::wire::cbor;
use caps::wire::remote::body::Span;
use caps::wire::remote::leases::{Creations, Deletions};
use caps::wire::remote::{Answer, Flags, Header, Verb};
use zerocopy::IntoBytes;

use bed::Bed;
use broken::{Broken, Maker, raw};
use common::tls::{Frame, Tls};
use dice::Dice;
use ground::Ground;

#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/bed.rs"]
mod bed;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/broken.rs"]
mod broken;
mod common;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/dice.rs"]
mod dice;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/ground.rs"]
mod ground;

/// The seed, where nothing else is said: what fails once fails again.
const SEED: u64 = 0x5707_2026_0bad_1a7e;

/// Requests of a run, where nothing else is said.
const REQUESTS: u64 = 100_000;
/// Requests before memory is measured: what grows to its bound has.
const WARM_UP: u64 = 5_000;
/// Sessions at a time.
const SESSIONS: usize = 8;
/// How long a connection may take to answer or to end: a frame that stalls is given up after 10 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// How long after `E_BUSY` it is tried again.
const BUSY_AGAIN: Duration = Duration::from_millis(20);
/// Codes that a run reaches at least: a generator that makes one kind of mistake would be of no use.
const CODES_MIN: usize = 28;
/// Codes of which the log has an entry at the end, at least.
const CODES_ON_RECORD_MIN: usize = 15;
/// Longest text of a failure, in bytes.
const DETAIL_BYTES_MAX: usize = 512;
/// Bytes of a secret that are enough to know it again.
const WINDOW: usize = 12;
/// Requests of a burst.
const BURST_MAX: usize = 60;
/// How many bursts of a hundred end with bytes that cannot be read.
const HARD_PERCENT: usize = 25;
/// How many bursts of a hundred are short, on a connection of their own that opens nothing, and end so.
const SHORT_PERCENT: usize = 33;
/// Trespasses that a session is forgiven, less some that happen by the way.
const TRESPASSES: u32 = 12;

/// What became of the requests of a run.
#[derive(Default)]
struct Tally {
    codes: BTreeMap<&'static str, u64>,
    done: u64,
    unanswered: u64,
    connections: u64,
    kinds: BTreeMap<String, u64>,
    slowest: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.done += other.done;
        self.unanswered += other.unanswered;
        self.connections += other.connections;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn code(&mut self, code: Code) {
        *self.codes.entry(code.text()).or_default() += 1;
    }

    /// How many of each, for whoever reads the test's output.
    fn print(&self, sent: u64, took: Duration) {
        println!("{sent} bad requests on {} connections in {took:.1?}", self.connections);
        println!("{:>8} done", self.done);
        println!("{:>8} without an answer of their own, as their connection ended before", self.unanswered);
        for (code, count) in &self.codes {
            println!("{count:>8} {code}");
        }
        println!("{} kinds of mistakes; the slowest burst took {:.1?}", self.kinds.len(), self.slowest);
    }
}

/// Every run of [`WINDOW`] bytes of what must not be told.
struct Secrets {
    windows: HashSet<Vec<u8>>,
    /// Texts that were found to have none: most come again and again.
    fine: Mutex<HashSet<String>>,
}

impl Secrets {
    fn of(bed: &Bed, ground: &Ground) -> Self {
        let mut known: Vec<Vec<u8>> = bed.secrets().to_vec();
        for token in [&ground.token, &ground.foreign, &ground.revoked, &ground.read_only] {
            // From where the first signature begins: before it is what every token has.
            let tail = &token.as_bytes()[token.as_bytes().len() - 96..];
            known.extend([tail.to_vec(), data_encoding::HEXLOWER.encode(tail).into_bytes()]);
            known.push(token.to_text().as_bytes()[token.to_text().len() - 128..].to_vec());
        }
        let windows = known.iter().flat_map(|secret| secret.windows(WINDOW).map(<[u8]>::to_vec)).collect();
        Self { windows, fine: Mutex::default() }
    }

    fn check(&self, text: &str) {
        if self.fine.lock().unwrap().contains(text) {
            return;
        }
        let told = text.as_bytes().windows(WINDOW).any(|window| self.windows.contains(window));
        assert!(!told, "a secret is told: {text}");
        self.fine.lock().unwrap().insert(text.to_owned());
    }
}

/// One session of a run, which is begun again whenever it has ended.
struct Stormer<'a> {
    bed: &'a Bed,
    secrets: &'a Secrets,
    maker: Maker<'a>,
    tls: Option<Tls>,
    sent: HashSet<u64>,
    tally: Tally,
}

/// A session of the attacker's.
fn proven(bed: &Bed) -> libmem::Result<Tls> {
    let tls = Tls::connect(bed.node.address(), &bed.mallory.credentials, &bed.mallory.key)?;
    tls.socket().set_read_timeout(Some(ANSWERED_WITHIN)).unwrap();
    Ok(tls)
}

/// Does it again where the node says that it has more to do than it can, or is still at the end of sessions before.
#[track_caller]
fn patient<T>(what: &str, mut ask: impl FnMut() -> libmem::Result<T>) -> T {
    let until = Instant::now() + ANSWERED_WITHIN;
    loop {
        match ask() {
            Ok(done) => return done,
            // Nothing says when it has time again.
            Err(error) if error.code() == Code::Busy && Instant::now() < until => {
                std::thread::sleep(BUSY_AGAIN);
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Says which burst it was if the test fails within it.
struct Within<'a> {
    seed: u64,
    burst: u64,
    what: &'a [Broken],
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what: Vec<_> = self.what.iter().map(|one| &one.what).collect();
            eprintln!("LEASEHOLD_BAD_INPUT_SEED={:#x}, burst {}: {what:?}", self.seed, self.burst);
        }
    }
}

impl<'a> Stormer<'a> {
    fn new(bed: &'a Bed, ground: &'a Ground, secrets: &'a Secrets) -> Self {
        let (tls, handles) = Self::connect(bed, ground, 1);
        let maker = Maker { ground, handles, next: 1 << 20, trespasses: TRESPASSES };
        let tally = Tally { connections: 1, ..Tally::default() };
        Self { bed, secrets, maker, tls: Some(tls), sent: HashSet::new(), tally }
    }

    fn connect(bed: &Bed, ground: &Ground, from: u64) -> (Tls, ground::Handles) {
        patient("who comes again is let in, and a good token opened", || {
            let mut tls = proven(bed)?;
            tls.count_from(from);
            ground.open(&mut tls).map(|handles| (tls, handles))
        })
    }

    /// One burst. Returns how many requests it had.
    fn burst(&mut self, seed: u64, burst: u64) -> u64 {
        let mut dice = Dice::of(seed, burst);
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => {
                let (tls, handles) = Self::connect(self.bed, self.maker.ground, self.maker.next);
                self.maker.next += 64;
                self.maker.handles = handles;
                self.maker.trespasses = TRESPASSES;
                self.tally.connections += 1;
                self.sent.clear();
                tls
            }
        };
        let began = Instant::now();
        if dice.chance(1, 40) {
            self.tls = Some(tls);
            return self.beginning(seed, burst, &mut dice);
        }
        let is_short = dice.chance(SHORT_PERCENT, 100);
        let soft = if is_short { dice.below(3) } else { 1 + dice.below(BURST_MAX) };
        let mut what: Vec<_> = (0..soft).map(|_| self.maker.soft(&mut dice)).collect();
        if is_short || dice.chance(HARD_PERCENT, 100) {
            what.push(self.maker.hard(&mut dice));
        }
        let within = Within { seed, burst, what: &what };
        if is_short {
            self.tls = Some(tls);
            let own = patient("who comes for a moment is let in", || proven(self.bed));
            self.tally.connections += 1;
            assert!(self.send(&mut dice, own, &what).is_none(), "it has ended");
        } else {
            self.tls = self.send(&mut dice, tls, &what);
        }
        drop(within);
        for one in &what {
            *self.tally.kinds.entry(one.what.clone()).or_default() += 1;
        }
        self.tally.slowest = self.tally.slowest.max(began.elapsed());
        what.len() as u64
    }

    /// Sends a burst and hears what it is answered. The connection, if there is one after it.
    fn send(&mut self, dice: &mut Dice, mut tls: Tls, what: &[Broken]) -> Option<Tls> {
        let mut bytes = what.iter().map(|one| one.frames.concat()).collect::<Vec<_>>().concat();
        // As it travels: the number may be what is broken.
        let numbers = what.iter().flat_map(|one| &one.frames).filter_map(|frame| frame.get(8..16));
        self.sent.extend(numbers.map(|number| u64::from_le_bytes(number.try_into().unwrap())));
        let ends = what.last().is_some_and(|one| one.last);
        if ends && dice.chance(1, 3) {
            let behind = what.last().unwrap().frames.iter().map(Vec::len).sum::<usize>();
            bytes.truncate(bytes.len() - dice.below(behind.max(1)));
        }
        let probe = self.maker.next;
        self.maker.next += 1;
        if !ends {
            let span = Span::new(self.maker.handles.good, 0, 0);
            let header = Header::of(Verb::Stat, Flags::NONE, RequestId(probe), Span::BYTES).unwrap();
            bytes.extend(raw(&header, span.as_bytes()));
        }
        // In pieces of any size, each a record of its own; a node that has ended the connection takes no more.
        let pieces = if dice.chance(1, 8) { 1 + dice.below(97) } else { bytes.len() };
        for piece in bytes.chunks(pieces.max(1)) {
            if tls.write(piece).is_err() {
                break;
            }
        }
        if ends && dice.chance(1, 10) {
            tls.reset();
            self.tally.unanswered += what.len() as u64;
            return None;
        }
        if ends {
            tls.shut();
        }
        let mut answered = 0;
        while let Some(frame) = tls.hear() {
            if !ends && frame.header.request == RequestId(probe) {
                self.tally.unanswered += (what.len() as u64).saturating_sub(answered);
                return Some(tls);
            }
            self.judge(&frame);
            answered += u64::from(!frame.header.has_more());
        }
        self.tally.unanswered += (what.len() as u64).saturating_sub(answered);
        None
    }

    /// A connection that does not begin as it should.
    fn beginning(&mut self, seed: u64, burst: u64, dice: &mut Dice) -> u64 {
        let within = Within { seed, burst, what: &[] };
        let (proof, body) = self.maker.beginning(dice);
        let mut tls = patient("a hello is answered", || {
            let mut tls = Tls::silent(self.bed.node.address(), &self.bed.mallory.credentials);
            tls.socket().set_read_timeout(Some(ANSWERED_WITHIN)).unwrap();
            if proof {
                tls.hello(&self.bed.mallory.key)?;
            }
            Ok(tls)
        });
        let frame = tls.frame(Verb::Control, &body);
        let cut = if dice.chance(1, 4) { dice.below(frame.len()) } else { frame.len() };
        let _ = tls.write(&frame[..cut]); // the node may have hung up
        tls.shut();
        let mut answered = 0;
        while let Some(frame) = tls.hear() {
            assert!(frame.header.request.0 <= 2, "{frame:?}");
            self.sent.insert(frame.header.request.0);
            self.judge(&frame);
            answered += 1;
        }
        self.tally.unanswered += 1_u64.saturating_sub(answered);
        self.tally.connections += 1;
        *self.tally.kinds.entry("Beginning".into()).or_default() += 1;
        drop(within);
        1
    }

    /// Every frame of an answer is one, is to something that was asked, and tells no secret.
    fn judge(&mut self, frame: &Frame) {
        let answer = Answer::decode(&frame.header, &frame.body).expect("the node speaks the protocol");
        let Header { verb, request, .. } = frame.header;
        let asked = request.0 == 0 || self.sent.contains(&request.0) || request.0 + 1 == self.maker.next;
        assert!(asked, "an answer to what nobody asked: {frame:?}");
        match answer {
            Answer::Failed(error) => {
                assert!(error.detail().len() <= DETAIL_BYTES_MAX, "{error}");
                assert!(!error.detail().contains(char::is_control), "{error:?}");
                assert!(error.code() != Code::Internal, "a defect of the node: {error}");
                self.secrets.check(error.detail());
                self.tally.code(error.code());
            }
            Answer::Pieces { pieces, .. } => {
                let codes: Vec<_> = pieces.iter().filter_map(|piece| piece.code().unwrap()).collect();
                codes.iter().for_each(|&code| self.tally.code(code));
                self.tally.done += u64::from(codes.is_empty() && !frame.header.has_more());
            }
            Answer::Leases(body) if verb == Verb::Create => {
                let made: Creations = cbor::decode(body).unwrap();
                self.outcomes(made.into_iter().map(|one| one.map(drop)));
            }
            Answer::Leases(body) => {
                let gone: Deletions = cbor::decode(body).unwrap();
                self.outcomes(gone.into_iter());
            }
            _ => self.tally.done += u64::from(!frame.header.has_more()),
        }
    }

    fn outcomes(&mut self, outcomes: impl Iterator<Item = Result<(), libmem::Error>>) {
        for outcome in outcomes {
            match outcome {
                Ok(()) => self.tally.done += 1,
                Err(error) => {
                    self.secrets.check(error.detail());
                    self.tally.code(error.code());
                }
            }
        }
    }
}

/// So many requests; what became of them.
fn storm(bed: &Bed, ground: &Ground, secrets: &Secrets, seed: u64, requests: u64) -> (u64, Tally) {
    let (sent, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let tally = std::thread::scope(|scope| {
        let one = || {
            let mut stormer = Stormer::new(bed, ground, secrets);
            while sent.load(Ordering::Relaxed) < requests {
                let burst = next.fetch_add(1, Ordering::Relaxed);
                sent.fetch_add(stormer.burst(seed, burst), Ordering::Relaxed);
            }
            stormer.tally
        };
        let all: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(one)).collect();
        let mut tally = Tally::default();
        all.into_iter().for_each(|one| {
            tally.add(one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
        tally
    });
    (sent.into_inner(), tally)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let digits = text.strip_prefix("0x");
    Some(digits.map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16)).expect("a number"))
}

#[test]
fn c9_a_hundred_thousand_bad_requests() {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    assert_eq!(RUN.fetch_add(1, Ordering::Relaxed), 0, "one run a process");
    let seed = match std::env::var("LEASEHOLD_BAD_INPUT_SEED") {
        Ok(seed) if seed == "random" => {
            u64::from_le_bytes(caps::id::ClientId::random().0[..8].try_into().unwrap())
        }
        _ => number("LEASEHOLD_BAD_INPUT_SEED").unwrap_or(SEED),
    };
    let requests = number("LEASEHOLD_BAD_INPUT_REQUESTS").unwrap_or(REQUESTS);
    println!("LEASEHOLD_BAD_INPUT_SEED={seed:#x}");
    let _ = std::io::stdout().flush(); // before anything fails
    let mut bed = Bed::new("[quota.mallory]\nleased_bytes = \"16MiB\"\nresident_bytes = \"32MiB\"\n");
    let ground = Ground::lay(&bed);
    let secrets = Secrets::of(&bed, &ground);
    storm(&bed, &ground, &secrets, !seed, WARM_UP.min(requests));
    bed.warmed();
    let (began, worked) = (Instant::now(), bed.worked());
    let ((sent, tally), longest) =
        bed.beside("the storm", |bed| storm(bed, &ground, &secrets, seed, requests));
    tally.print(sent, began.elapsed());
    let [node, own] = bed.worked();
    println!("processor time: the node's {:.1?}, the test's {:.1?}", node - worked[0], own - worked[1]);
    println!("the bystander waited {longest:.1?} at most");
    let (before, after) = (bed.before(), bed.settled());
    println!("{before:?}\n{after:?}");
    assert!(sent >= requests);
    let theirs = bed.node.admin().lease_show(ground.foreign_lease).unwrap().lease;
    assert_eq!(theirs.state, caps::wire::row::LeaseState::Live, "somebody else's lease ended");
    if requests >= REQUESTS {
        assert!(tally.codes.len() >= CODES_MIN, "{} codes: {:?}", tally.codes.len(), tally.codes);
        let answered: u64 = tally.done + tally.codes.values().sum::<u64>();
        assert!(2 * answered > sent, "most of it was not even looked at: {answered} of {sent}");
        assert!(3 * tally.done < sent, "too many of them were good: {} of {sent}", tally.done);
    }
    let log = bed.finish("the storm");
    let codes: HashSet<_> =
        log.provider.iter().chain(&log.broker).filter_map(|entry| entry["code"].as_str()).collect();
    // How many of one kind are on record one by one has a bound; what is left out is counted in the next.
    assert!(codes.len() >= CODES_ON_RECORD_MIN, "{} codes are on record: {codes:?}", codes.len());
}
