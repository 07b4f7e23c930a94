//! `leasehold demo`: the whole story in one go, on real memory with real processes.
//!
//! ```text
//!  demo ──┬── up (a node in a temporary directory)
//!         ├── alice        owner: leases, writes, shares, revokes
//!         ├── bob          receiver: maps, checks, reads guarded until it is told E_REVOKED
//!         ├── bob, again   receiver: maps and reads raw, and dies of SIGBUS
//!         └── alice, bob and carol, once more: write to one region, until bob is revoked and the others go on
//! ```
//!
//! Each client is a process of its own with a key of its own; as root, also with a uid of its own. The demo talks to
//! them in lines of JSON over their standard input and output (`script`), so no secret is on a command line.
//! Each step prints one line and must hold, or the demo ends with exit code 1.

mod board;
mod client;
mod script;
mod stage;
mod writer;

use std::io::Write;
use std::time::Instant;

use audit::Event;
use caps::error::{Code, Error, Result};
use caps::key::SigningKey;
use caps::wire::Name;
use serde::Serialize;

pub(crate) use client::play;
pub(crate) use script::Role;

use script::Line;
use stage::{Actor, Stage};

/// Bytes of the lease in the story: enough that taking it back is worth a measurement, and that a laptop has them.
const LEASE_BYTES: u64 = 64 << 20;

/// One line of the story.
#[derive(Serialize)]
struct Told {
    step: usize,
    held: bool,
    what: String,
}

/// The summary, and the JSON document of `--json`.
#[derive(Serialize)]
pub(crate) struct Summary {
    steps: Vec<Told>,
    seconds: f64,
    ok: bool,
}

impl Summary {
    /// The last line, after the steps that were printed as they happened.
    pub(crate) fn in_words(&self) -> String {
        let (steps, seconds) = (self.steps.len(), self.seconds);
        if self.ok {
            format!(
                "\n{steps} steps, all held, {seconds:.1} s. Start a node of your own with: leasehold up\n"
            )
        } else {
            format!("\nended at step {steps} after {seconds:.1} s\n")
        }
    }
}

/// Tells the story as it happens.
struct Teller {
    json: bool,
    steps: Vec<Told>,
}

impl Teller {
    /// A step that was done, or a reason to stop.
    fn tell(&mut self, held: bool, what: String) -> Result<()> {
        let step = self.steps.len() + 1;
        if !self.json {
            let mark = if held { "ok  " } else { "FAIL" };
            println!("{step:>2}  {mark}  {what}");
            let _ = std::io::stdout().flush(); // a closed pipe shows at the next line
        }
        self.steps.push(Told { step, held, what });
        if held { Ok(()) } else { Err(Error::new(Code::Internal, "a step of the demo did not hold")) }
    }
}

/// Plays the whole story: what was told, and why it ended early if it did.
pub(crate) fn demo(json: bool) -> (Summary, Option<Error>) {
    let started = Instant::now();
    let mut teller = Teller { json, steps: Vec::new() };
    let failure = story(&mut teller).err();
    let summary =
        Summary { steps: teller.steps, seconds: started.elapsed().as_secs_f64(), ok: failure.is_none() };
    (summary, failure)
}

fn story(t: &mut Teller) -> Result<()> {
    let mut stage = Stage::set()?;
    t.tell(
        true,
        format!(
            "a node is up in {}: {}, pool {}",
            stage.dir().display(),
            stage.tier_in_words(),
            policy::units::Bytes(stage::POOL_BYTES)
        ),
    )?;

    // Three principals. Their keys exist here and in the processes that get them through a pipe.
    let (alice_key, bob_key) = (SigningKey::generate(), SigningKey::generate());
    stage.register(&Name::new("alice")?, alice_key.public())?;
    stage.register(&Name::new("bob")?, bob_key.public())?;
    let carol_key = SigningKey::generate();
    stage.register(&Name::new("carol")?, carol_key.public())?;
    t.tell(true, stage.users_in_words())?;

    // Before the large lease: where little may be pinned, this act needs what there is.
    if stage.others_may_write() {
        board::play(t, &stage, [&alice_key, &bob_key, &carol_key])?;
    }

    let mut alice = stage.enter(Role::Owner, 0, &alice_key)?;
    alice.say(&Line::Lease { bytes: LEASE_BYTES })?;
    let (lease, lease_us) = match alice.hear()? {
        Line::Leased { lease, took_us } => (lease, took_us),
        other => return unexpected(&other),
    };
    t.tell(
        true,
        format!("alice leases 64 MiB for a minute: {lease}, committed, pinned and recorded in {lease_us} us"),
    )?;

    alice.say(&Line::Narrow)?;
    let (write, beyond, within) = match alice.hear()? {
        Line::Narrowed { write, beyond, within } => (write, beyond, within),
        other => return unexpected(&other),
    };
    t.tell(
        write == "E_DENIED" && beyond == "E_RANGE" && within == "OK",
        format!(
            "alice narrows her token offline to reading 0..4096: inside {within}, beyond {beyond}, writing {write}"
        ),
    )?;

    alice.say(&Line::Offer { to: bob_key.public() })?;
    let grant = match alice.hear()? {
        Line::Offered { grant } => grant,
        other => return unexpected(&other),
    };
    t.tell(true, format!("alice offers bob to read it; the broker issues MEM_SHARE:{grant}"))?;

    let mut bob = stage.enter(Role::Receiver, 1, &bob_key)?;
    bob.say(&Line::Accept { grant })?;
    let token = match bob.hear()? {
        Line::Accepted { token } => token,
        other => return unexpected(&other),
    };
    t.tell(
        true,
        "bob sees the contract, accepts it with his own key, and gets a token bound to that key".into(),
    )?;

    alice.say(&Line::Fill)?;
    let sum = match alice.hear()? {
        Line::Sum { sum } => sum,
        other => return unexpected(&other),
    };
    bob.say(&Line::Check)?;
    let (seen, check_us) = match bob.hear()? {
        Line::Checked { sum, took_us } => (sum, took_us),
        other => return unexpected(&other),
    };
    t.tell(
        seen == sum,
        format!("alice writes 64 MiB into her mapping; bob finds every byte in his, in {check_us} us, nothing copied"),
    )?;

    let mut raw = stage.enter(Role::RawReader, 1, &bob_key)?;
    raw.say(&Line::Touch { token })?;
    started(&mut raw)?;
    bob.say(&Line::ReadUntilRevoked)?;
    started(&mut bob)?;
    t.tell(true, "bob reads on in two processes: one through guarded access, one raw".into())?;

    alice.say(&Line::Revoke { lease })?;
    let (dead_us, wiped, mappings, index) = match alice.hear()? {
        Line::Revoked { dead_us, wiped_bytes, mappings_closed, log_index } => {
            (dead_us, wiped_bytes, mappings_closed, log_index)
        }
        other => return unexpected(&other),
    };
    t.tell(
        mappings == 3 && (wiped == LEASE_BYTES || !stage.is_sealed()),
        format!(
            "alice revokes it while they read: {mappings} mappings dead after {dead_us} us, {} wiped, signed \
             receipt, entry {index}",
            if wiped == LEASE_BYTES {
                "every byte".to_owned()
            } else {
                // What a process without privileges may pin is bounded (RLIMIT_MEMLOCK); the rest the kernel frees.
                format!("{} of what could be pinned", policy::units::Bytes(wiped))
            }
        ),
    )?;

    let (reads, code) = match bob.hear()? {
        Line::Stopped { reads, code } => (reads, code),
        other => return unexpected(&other),
    };
    t.tell(code == "E_REVOKED", format!("bob's guarded reader goes on living: {code} after {reads} reads"))?;

    let signal = raw.wait_for_death()?;
    t.tell(
        signal == Some(libc::SIGBUS),
        match signal {
            Some(signal) => {
                format!("bob's raw reader does not: the kernel ends it with signal {signal} (SIGBUS is 7)")
            }
            None => "bob's raw reader lives on, which it must not".into(),
        },
    )?;

    bob.say(&Line::Check)?;
    let after = match bob.hear()? {
        Line::Failed { code } => code,
        other => return unexpected(&other),
    };
    t.tell(
        matches!(&after[..], "E_TOKEN_REVOKED" | "E_LEASE_UNKNOWN"),
        format!("bob presents his token once more: {after}"),
    )?;

    let fault = stage.wait_for(Event::FaultAccess)?;
    t.tell(
        fault,
        "the provider's log has the fault: who, which process, which program, which signal".into(),
    )?;

    alice.leave()?;
    bob.leave()?;
    let (logs, entries) = stage.stop_and_verify()?;
    t.tell(
        logs == 2,
        format!(
            "the node stops; {logs} audit logs with {entries} entries verify from their files and vkeys alone"
        ),
    )
}

fn started(actor: &mut Actor) -> Result<()> {
    match actor.hear()? {
        Line::Started => Ok(()),
        other => unexpected(&other),
    }
}

fn unexpected<T>(line: &Line) -> Result<T> {
    Err(match line {
        Line::Failed { code } => {
            Error::with(Code::Internal, format!("a client of the demo failed with {code}"))
        }
        _ => Error::new(Code::Internal, "a client of the demo said something unexpected"),
    })
}
