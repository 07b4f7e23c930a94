//! Clients in threads: each has a session, a principal and a key of its own, and asks again as soon as it is answered.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::key::SigningKey;
use caps::wire::Name;
use libmem::{Client, LeaseOptions, Leased, Lifetime};

use super::numbers::{self, Times};
use crate::node::Spawned;

/// Bytes of a lease of the control plane's benchmarks.
pub const LEASE_BYTES: u64 = 64 << 10;
/// Longer than any benchmark runs.
pub const LEASE_TTL: Duration = Duration::from_secs(3_600);

/// One client.
pub struct Member {
    pub client: Client,
    pub key: SigningKey,
    /// What it holds at present.
    pub leases: Vec<Leased>,
}

impl Member {
    /// Registers a principal and connects as it.
    pub fn join(node: &Spawned, name: &str) -> Result<Self> {
        let key = SigningKey::generate();
        node.admin()?.principal_add(Name::new(name)?, key.public())?;
        Ok(Self { client: Client::connect(&node.endpoint(), &key)?, key, leases: Vec::new() })
    }

    /// Leases 64 KiB and keeps it.
    pub fn create(&mut self) -> Result<()> {
        self.leases.push(self.client.lease(options())?);
        Ok(())
    }

    /// Gives one lease back. Nothing if it has none.
    pub fn release(&mut self) -> Result<()> {
        match self.leases.pop() {
            Some(leased) => self.client.release(leased.lease.id).map(drop),
            None => Ok(()),
        }
    }
}

/// What every lease of these benchmarks is.
pub fn options() -> LeaseOptions {
    LeaseOptions::new(LEASE_BYTES, LEASE_TTL).lifetime(Lifetime::Detached)
}

/// What one phase of all clients together came to.
pub struct Phase {
    pub times: Vec<f64>,
    pub per_s: f64,
}

/// All clients.
pub struct Crew(pub Vec<Member>);

impl Crew {
    pub fn join(node: &Spawned, clients: u32) -> Result<Self> {
        (0..clients).map(|n| Member::join(node, &format!("client-{n}"))).collect::<Result<_>>().map(Self)
    }

    /// Every client does `work` `times` times, all at once.
    pub fn all(
        &mut self,
        times: usize,
        work: impl Fn(&mut Member, usize) -> Result<()> + Sync,
    ) -> Result<Phase> {
        let counts = vec![times; self.0.len()];
        self.each(&counts, work)
    }

    /// Every client does `work` as often as its count says, all at once.
    pub fn each(
        &mut self,
        counts: &[usize],
        work: impl Fn(&mut Member, usize) -> Result<()> + Sync,
    ) -> Result<Phase> {
        let (barrier, work) = (Barrier::new(self.0.len() + 1), &work);
        let (times, took) = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .0
                .iter_mut()
                .zip(counts)
                .map(|(member, &count)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut times = Vec::with_capacity(count);
                        barrier.wait();
                        for n in 0..count {
                            let (micros, done) = numbers::timed(|| work(member, n));
                            done?;
                            times.push(micros);
                        }
                        Ok(times)
                    })
                })
                .collect();
            barrier.wait();
            let started = Instant::now();
            let mut times = Vec::new();
            for thread in threads {
                let panicked = Error::new(Code::Internal, "a client of the benchmark panicked");
                times.extend(thread.join().unwrap_or(Err(panicked))?);
            }
            Ok::<_, Error>((times, started.elapsed()))
        })?;
        let per_s = times.len() as f64 / took.as_secs_f64();
        Ok(Phase { times, per_s })
    }

    /// Makes the clients hold `count` leases together, as evenly as that goes.
    pub fn hold(&mut self, count: usize) -> Result<()> {
        let clients = self.0.len();
        let shares: Vec<_> =
            (0..clients).map(|n| count / clients + usize::from(n < count % clients)).collect();
        let held: Vec<_> = self.0.iter().map(|member| member.leases.len()).collect();
        let more: Vec<_> =
            shares.iter().zip(&held).map(|(share, held)| share.saturating_sub(*held)).collect();
        let fewer: Vec<_> =
            shares.iter().zip(&held).map(|(share, held)| held.saturating_sub(*share)).collect();
        self.each(&more, |member, _| member.create())?;
        self.each(&fewer, |member, _| member.release()).map(drop)
    }
}

/// The same phase over several rounds.
#[derive(Default)]
pub struct Rounds {
    times: Vec<f64>,
    rates: Vec<f64>,
}

impl Rounds {
    pub fn add(&mut self, phase: Phase) {
        self.times.extend(phase.times);
        self.rates.push(phase.per_s);
    }

    pub fn finish(self) -> (Times, numbers::Spread) {
        (Times::of(self.times), numbers::Spread::of(self.rates))
    }
}
