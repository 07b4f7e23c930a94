//! The two clients, and what a run is made of.

use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::wire::row::{Lifetime, Target};
use caps::wire::{Name, Reason};
use libmem::{Client, Endpoint, LeaseOptions, LeaseRow, Region, ShareOptions};
use policy::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::line::{Order, Said};
use super::measure::{Broken, Run, measure};

/// Two sessions with keys of their own, and the lease that they use.
struct Pair {
    owner: Client,
    owner_key: SigningKey,
    receiver: Client,
    receiver_key: SigningKey,
    ttl: Duration,
    bytes: u64,
    near: Option<Name>,
    held: Option<Held>,
    /// What the owner writes next: another word in each run.
    word: u64,
}

/// The owner's lease, mapped.
struct Held {
    lease: LeaseRow,
    region: Region,
    since: Instant,
}

/// Runs until standard input closes, which it does when the node ends.
///
/// # Errors
/// What kept it from beginning. What fails later is a line.
pub(crate) fn play() -> Result<()> {
    provider::sandbox::give_up_privileges()?;
    // The node may die without a word. Should it have died before this line, the pipe is closed, which is seen below.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|_| Error::new(Code::System, "cannot be told of the node's death"))?;
    let (owner_key, receiver_key) = (SigningKey::generate(), SigningKey::generate());
    say(&Said::Keys { owner: owner_key.public(), receiver: receiver_key.public() })?;
    let mut line = String::new();
    // The one line there is: nothing is left in the buffer that `wait` would not see.
    let read = std::io::stdin().lock().read_line(&mut line);
    let Ok(Order::Begin { socket, every_ms, ttl_ms, bytes, near }) =
        read.map_err(drop).and_then(|_| serde_json::from_str(&line).map_err(drop))
    else {
        return Err(Error::new(Code::Protocol, "the canary is started by the node"));
    };
    let endpoint = Endpoint::unix(socket).timeout(Duration::from_millis(limits::CANARY_REQUEST_MS_MAX));
    let owner = Client::connect(&endpoint, &owner_key)?;
    let receiver = Client::connect(&endpoint, &receiver_key)?;
    provider::sandbox::confine_this_client()?;
    let ttl = Duration::from_millis(ttl_ms);
    let mut pair = Pair { owner, owner_key, receiver, receiver_key, ttl, bytes, near, held: None, word: 0 };
    let every = Duration::from_millis(every_ms);
    loop {
        let began = Instant::now();
        let run = pair.run();
        say(&match &run {
            Run::Measured { dead, receipt } => {
                Said::Measured { dead_us: micros(*dead), receipt_us: micros(*receipt) }
            }
            Run::Skipped(code) => Said::Skipped { code: code.text().to_owned() },
            Run::Failed(broken) => Said::Failed { what: broken.words().to_owned() },
        })?;
        match run {
            // A thread of it hangs; another run could leave another.
            Run::Failed(Broken::Hangs) => return Ok(()),
            // The session is over, and this process cannot open another.
            Run::Skipped(Code::Unreachable) => return Ok(()),
            _ => {}
        }
        if !wait(every.saturating_sub(began.elapsed()))? {
            return Ok(());
        }
    }
}

/// Waits; `false` once the node has closed the pipe.
fn wait(span: Duration) -> Result<bool> {
    let until = Instant::now() + span;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let stdin = std::io::stdin();
        let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(true),
            Ok(_) => return Ok(false), // nothing is ever said any more: it closed
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Error::new(Code::System, "cannot wait for the next run")),
        }
    }
}

fn say(said: &Said) -> Result<()> {
    let text =
        serde_json::to_string(said).map_err(|_| Error::new(Code::Internal, "a line does not encode"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|_| Error::new(Code::Unreachable, "the node is gone"))
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl Pair {
    fn run(&mut self) -> Run {
        let run = self.try_run().unwrap_or_else(|error| Run::Skipped(error.code()));
        if !matches!(run, Run::Measured { .. }) {
            self.let_go(); // with all that the run may have left of it: grants end with their lease
        }
        run
    }

    fn try_run(&mut self) -> Result<Run> {
        if self.held.as_ref().is_some_and(|held| held.since.elapsed() >= self.ttl / 2) {
            self.let_go();
        }
        if self.held.is_none() {
            self.held = Some(self.lease()?);
        }
        let Some(held) = &self.held else { return Err(Error::new(Code::Internal, "no lease")) };
        self.word = self.word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        held.region.store_u64(0, self.word)?;

        let options = ShareOptions::new(self.receiver_key.public(), Rights::READ);
        let grant = self.owner.share_offer(&held.lease, &options, &self.owner_key)?.id;
        let proposal = self.receiver.share_show(grant)?;
        let accepted =
            self.receiver.share_accept(&proposal.contract, Lifetime::Process, &self.receiver_key)?;
        let region = self.receiver.open_mapped(&accepted.token, Rights::READ)?;
        if region.load_u64(0)? != self.word {
            return Ok(Run::Failed(Broken::NotShared));
        }
        let reason = Reason::new("canary")?;
        let run = measure(
            move || region.load_u64(0).map(drop),
            || self.owner.revoke(Target::Grant(grant), reason).map(drop),
            Duration::from_millis(limits::CANARY_DEATH_MS_MAX),
        )?;
        // The owner's right was not revoked: whatever was done to the memory, its word is there.
        if held.region.load_u64(0)? != self.word {
            return Ok(Run::Failed(Broken::Lost));
        }
        Ok(run)
    }

    fn lease(&self) -> Result<Held> {
        let options = LeaseOptions::new(self.bytes, self.ttl);
        let options = match &self.near {
            Some(near) => options.near(near.as_str())?,
            None => options,
        };
        let leased = self.owner.lease(options)?;
        let region = self.owner.open_mapped(&leased.token, Rights::READ_WRITE)?;
        Ok(Held { lease: leased.lease, region, since: Instant::now() })
    }

    fn let_go(&mut self) {
        if let Some(Held { lease, region, .. }) = self.held.take() {
            drop(region);
            let _ = self.owner.release(lease.id); // or it ends with its time
        }
    }
}
