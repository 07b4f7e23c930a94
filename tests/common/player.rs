//! A client process, from inside: reads lines, does what they say, answers.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::id::SlotHandle;
use caps::time::Micros;
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::{Reply, Request};
use libmem::{
    Client, Endpoint, LeaseOptions, Lifetime, Mediated, Memory, Region, Result, Rights, ShareOptions,
    SigningKey, Token,
};

use super::actor::CLIENT;
use super::attack::{self, Bare};
use super::board::Board;
use super::race::Racer;
use super::raw::Raw;
use super::script::{Ask, Handle, Said, Trespass};
use super::stripes::Stripes;
use super::writer::Writer;
use super::{PATIENCE, pass, together};

/// Bytes between two accesses of a loop: each touches another page.
const STRIDE: u64 = 4096;
/// Between two rounds of counting.
const COUNT_PAUSE: Duration = Duration::from_micros(200);

struct Player {
    line: BufReader<UnixStream>,
    socket: std::path::PathBuf,
    key: SigningKey,
    client: Client,
    memory: Vec<Option<Arc<Memory>>>,
    bare: Option<(Raw, Bare)>,
    writer: Option<Writer>,
    raw: Option<Raw>,
    racer: Option<Racer>,
}

/// Plays until the test hangs up. Does nothing in a process that no test started.
pub fn play() {
    if std::env::var_os(CLIENT).is_none() {
        return;
    }
    // SAFETY: whoever starts a client process makes its standard input one end of a socket pair, and nothing else in
    // this process uses descriptor 0.
    let line = unsafe { UnixStream::from(OwnedFd::from_raw_fd(0)) };
    let mut line = BufReader::new(line);
    let Some(Ask::Begin { socket, seed }) = next(&mut line) else { return };
    let key = SigningKey::from_seed(&seed);
    match Client::connect(&Endpoint::unix(&socket), &key) {
        Ok(client) => {
            answer(&mut line, &Said::Ready);
            let (memory, bare, writer, raw, racer) = (Vec::new(), None, None, None, None);
            Player { line, socket, key, client, memory, bare, writer, raw, racer }.play();
        }
        Err(error) => answer(&mut line, &Said::Refused { code: error.code().to_string() }),
    }
}

fn next(line: &mut BufReader<UnixStream>) -> Option<Ask> {
    let mut text = String::new();
    match line.read_line(&mut text) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&text).expect("the test speaks our language")),
    }
}

fn answer(line: &mut BufReader<UnixStream>, said: &Said) {
    let text = serde_json::to_string(said).unwrap();
    let _ = writeln!(line.get_mut(), "{text}"); // a test that is gone needs no answer
}

fn lifetime(detached: bool) -> Lifetime {
    if detached { Lifetime::Detached } else { Lifetime::Process }
}

fn leased(leased: libmem::Leased) -> Said {
    Said::Leased { lease: leased.lease, token: leased.token.to_text().to_string() }
}

impl Player {
    fn play(mut self) {
        while let Some(ask) = next(&mut self.line) {
            let said = self.act(ask).unwrap_or_else(|error| Said::Refused { code: error.code().to_string() });
            answer(&mut self.line, &said);
        }
    }

    fn act(&mut self, ask: Ask) -> Result<Said> {
        match ask {
            Ask::Begin { .. } => panic!("begun already"),
            Ask::Lease { bytes, ttl_ms, name, detached } => {
                let mut options = LeaseOptions::new(bytes, Duration::from_millis(ttl_ms));
                if let Some(name) = name {
                    options = options.name(&name)?;
                }
                self.client.lease(options.lifetime(lifetime(detached))).map(leased)
            }
            Ask::Renew { lease, ttl_ms } => {
                self.client.renew(lease, Duration::from_millis(ttl_ms)).map(leased)
            }
            Ask::Release { lease } => self.client.release(lease).map(|_| Said::Done),
            Ask::Offer { lease, to, rights, range } => {
                let mut options = ShareOptions::new(to, rights);
                if let Some(range) = range {
                    options = options.range(range);
                }
                let grant = self.client.share_offer(&lease, &options, &self.key)?;
                Ok(Said::Offered { grant: grant.id })
            }
            Ask::Accept { grant, detached } => {
                let contract = self.client.share_show(grant)?.contract;
                let accepted = self.client.share_accept(&contract, lifetime(detached), &self.key)?;
                Ok(Said::Accepted { token: accepted.token.to_text().to_string() })
            }
            Ask::Open { token, rights, mapped } => {
                let token = Token::parse_text(&token)?;
                let memory = if mapped {
                    Memory::Mapped(self.client.open_mapped(&token, rights)?)
                } else {
                    Memory::Mediated(self.client.open_mediated(&token, rights)?)
                };
                self.memory.push(Some(Arc::new(memory)));
                Ok(Said::Opened { memory: self.memory.len() - 1 })
            }
            Ask::Close { memory } => {
                self.memory[memory] = None;
                Ok(Said::Done)
            }
            Ask::Write { memory, offset, bytes } => {
                self.memory(memory).write_at(offset, &bytes)?;
                Ok(Said::Done)
            }
            Ask::Read { memory, offset, length } => {
                let mut bytes = vec![0; length];
                self.memory(memory).read_at(offset, &mut bytes)?;
                Ok(Said::Bytes { bytes })
            }
            Ask::Use { memory, writing, raw } => {
                let memory = self.memory[memory].take().expect("memory that was opened");
                answer(&mut self.line, &Said::Started);
                let code = match (&*memory, raw) {
                    (Memory::Mapped(region), true) => use_raw(region, writing),
                    (Memory::Mapped(region), false) => use_guarded(region, writing),
                    (Memory::Mediated(mediated), _) => use_mediated(mediated, writing),
                };
                Ok(Said::Stopped { code })
            }
            Ask::Count { memory, offset } => {
                let memory = self.memory[memory].take().expect("memory that was opened");
                let Memory::Mapped(region) = &*memory else { panic!("counting is for a mapping") };
                answer(&mut self.line, &Said::Started);
                Ok(Said::Stopped { code: count(region, offset) })
            }
            Ask::StartWriting { memory, bytes, writer, writers, by } => {
                let memory = self.memory[memory].clone().expect("memory that was opened");
                let stripes = Stripes::new(writer, writers, bytes as usize)?;
                self.writer = Some(Writer::start(memory, stripes, by));
                Ok(Said::Started)
            }
            Ask::Advance { more } => {
                let writing = self.writer.as_ref().expect("it writes").advance(more);
                Ok(Said::Advanced { writing })
            }
            Ask::Reach { steps } => {
                let writing = self.writer.as_ref().expect("it writes").reach(steps);
                Ok(Said::Advanced { writing })
            }
            Ask::StopWriting => Ok(Said::Wrote(self.writer.take().expect("it writes").stop())),
            Ask::WaitForEnd => Ok(Said::Wrote(self.writer.take().expect("it writes").ended())),
            Ask::PlayTogether { memory, first, from, rounds } => {
                let Memory::Mapped(region) = self.memory(memory) else { panic!("words are in a mapping") };
                together::play(region, first, from, rounds)?;
                Ok(Said::Played)
            }
            Ask::TakeBoard => {
                answer(&mut self.line, &Said::Ready);
                let board = Board::received(pass::receive(self.line.get_ref().as_fd()));
                self.racer = Some(Racer::new(&self.socket, &self.key, board)?);
                Ok(Said::Done)
            }
            Ask::Race { tokens, opens } => {
                let tokens: Vec<_> =
                    tokens.iter().map(|text| Token::parse_text(text)).collect::<Result<_>>()?;
                let racer = self.racer.as_mut().expect("a board");
                let traces = racer.race(&tokens, opens, || answer(&mut self.line, &Said::Started))?;
                Ok(Said::Raced { traces })
            }
            Ask::UseInFork { memory } => self.use_in_fork(memory),
            Ask::TakeDescriptor { bytes } => self.take_descriptor(bytes),
            Ask::OpenBare { token, rights } => {
                let mut raw = Raw::connect(&self.socket, &self.key)?;
                let bare = raw.open_mapped(&Token::parse_text(&token)?, rights)?;
                self.bare = Some((raw, bare));
                Ok(Said::Done)
            }
            Ask::Trespass(trespass) => self.trespass(trespass),
            Ask::OfferCosigned { lease, to, rights, cosigner } => {
                let options = ShareOptions::new(to, rights).cosigner(cosigner);
                let grant = self.client.share_offer(&lease, &options, &self.key)?;
                Ok(Said::Offered { grant: grant.id })
            }
            Ask::Cosign { grant } => {
                let contract = self.client.share_show(grant)?.contract;
                self.client.share_cosign(&contract, &self.key).map(|_| Said::Done)
            }
            Ask::HoldLock => {
                answer(&mut self.line, &Said::Ready);
                let device = pass::receive(self.line.get_ref().as_fd());
                let (_, bare) = self.bare.as_ref().expect("a bare descriptor");
                attack::hold_lock(bare, &device);
                Ok(Said::Started)
            }
            Ask::Attack { attacks } => {
                let (_, bare) = self.bare.as_ref().expect("a bare descriptor");
                Ok(Said::Tried { errnos: attacks.iter().map(|attack| attack.run(bare)).collect() })
            }
        }
    }

    fn memory(&self, index: usize) -> &Memory {
        self.memory[index].as_deref().expect("memory that was opened")
    }

    /// Breaks a rule in a session spoken by hand.
    fn trespass(&mut self, trespass: Trespass) -> Result<Said> {
        let handle = |(slot, epoch): Handle| SlotHandle { slot, epoch };
        if matches!(trespass, Trespass::Enter) {
            self.raw = Some(Raw::connect(&self.socket, &self.key)?);
            return Ok(Said::Done);
        }
        let raw = self.raw.as_mut().expect("a session by hand");
        match trespass {
            Trespass::Enter => {}
            Trespass::Open { token, rights } => {
                let open = Request::Open { token: Token::parse_text(&token)?, rights, path: Path::Mediated };
                let Reply::Opened(opened) = raw.ask(&open)? else { panic!("opening is answered so") };
                return Ok(Said::Handle { handle: (opened.handle.slot, opened.handle.epoch) });
            }
            Trespass::Read { handle: of, offset } => {
                drop(raw.ask(&Request::Read { handle: handle(of), offset, length: 1 })?);
            }
            Trespass::Write { handle: of, offset } => {
                let (data, crc) = (vec![1], crc32c::crc32c(&[1]));
                drop(raw.ask(&Request::Write { handle: handle(of), offset, data, crc })?);
            }
            Trespass::Close { handle: of } => drop(raw.ask(&Request::Close { handle: handle(of) })?),
            Trespass::Junk => {
                let _ = rustix::net::send(raw.as_fd(), b"junk", rustix::net::SendFlags::NOSIGNAL);
                drop(raw.receive()?);
            }
            Trespass::Lease { bytes, times } => {
                let spec = LeaseSpec {
                    bytes,
                    ttl: Micros::from_millis(60_000),
                    name: None,
                    class: None,
                    lifetime: Lifetime::Process,
                    segment_bytes: None,
                    max_hops: 0,
                    near: None,
                };
                let mut last = Ok(());
                for _ in 0..times {
                    last = raw.ask(&Request::LeaseCreate(spec.clone())).map(drop);
                }
                last?;
            }
        }
        Ok(Said::Done)
    }

    /// The child reads by plain loads until it dies; this process waits for it and says of what.
    fn use_in_fork(&mut self, memory: usize) -> Result<Said> {
        let Memory::Mapped(region) = self.memory(memory) else { panic!("only a mapping is inherited") };
        // SAFETY: the child only reads memory and asks for the time, neither of which needs a lock that another
        // thread of this process might have held at the fork, and then ends.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork");
        if child == 0 {
            use_raw(region, false);
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(1) }
        }
        answer(&mut self.line, &Said::Started);
        let mut status = 0;
        // SAFETY: a child of this process, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        Ok(Said::Forked { signal })
    }

    /// Takes a descriptor that somebody passed on, maps it, and reads it by plain loads until this process dies.
    fn take_descriptor(&mut self, bytes: usize) -> Result<Said> {
        answer(&mut self.line, &Said::Ready);
        let descriptor = pass::receive(self.line.get_ref().as_fd());
        let Ok(start) = attack::map(&descriptor, bytes, libc::PROT_READ) else {
            return Ok(Said::Refused { code: "mmap".into() });
        };
        answer(&mut self.line, &Said::Started);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for offset in (0..bytes).step_by(STRIDE as usize) {
                // SAFETY: in the mapping just made; that it faults one day is what this is about.
                unsafe { start.add(offset).read_volatile() };
            }
        }
        Ok(Said::Stopped { code: "OK".into() })
    }
}

/// Counts in each page until an access fails: its code. `LOST` if a word is not what was stored there last.
fn count(region: &Region, at: u64) -> String {
    let range = region.facts().range;
    for turn in 0.. {
        for page in (range.start()..range.end()).step_by(STRIDE as usize) {
            match region.load_u64(page + at) {
                Ok(found) if found != turn => return "LOST".into(),
                Ok(_) => {}
                Err(error) => return error.code().to_string(),
            }
            if let Err(error) = region.store_u64(page + at, turn + 1) {
                return error.code().to_string();
            }
        }
        // Whoever counts is not what a test is about: the processors are for the others.
        std::thread::sleep(COUNT_PAUSE);
    }
    unreachable!("nobody counts so far")
}

/// Guarded accesses until one fails. Its code, or `OK` if none did.
fn use_guarded(region: &Region, writing: bool) -> String {
    let range = region.facts().range;
    let mut page = [0; 64];
    each_offset(range.start(), range.end(), |offset| {
        region.read_at(offset, &mut page)?;
        if writing { region.write_at(offset, &page) } else { Ok(()) }
    })
}

/// Mediated accesses until one fails.
fn use_mediated(mediated: &Mediated, writing: bool) -> String {
    let facts = mediated.facts();
    let mut page = [0; 64];
    each_offset(facts.range.start(), facts.range.end(), |offset| {
        if facts.rights.contains(Rights::READ) {
            mediated.read_at(offset, &mut page)?;
        }
        if writing { mediated.write_at(offset, &page) } else { Ok(()) }
    })
}

/// Plain accesses until the kernel ends this process. Returns only if it does not.
fn use_raw(region: &Region, writing: bool) -> String {
    let range = region.facts().range;
    let view = region.mapping().volatile();
    each_offset(range.start(), range.end(), |offset| {
        let word = view.load_u64(offset as usize)?;
        if writing { view.store_u64(offset as usize, word) } else { Ok(()) }
    })
}

fn each_offset(start: u64, end: u64, mut access: impl FnMut(u64) -> Result<()>) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for offset in (start..end).step_by(STRIDE as usize) {
            if let Err(error) = access(offset) {
                return error.code().to_string();
            }
        }
    }
    "OK".into()
}
