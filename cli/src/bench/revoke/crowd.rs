//! The mappers of the benchmark, as the benchmark sees them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::wire::Name;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::message::{Answer, Death, Order, now_ns, receive, send};
use super::stripes::Found;
use crate::node::Spawned;

/// The uid of the first mapper when the benchmark runs as root; each has one of its own. Nothing on the machine needs
/// to know them.
const FIRST_UID: u32 = 61_200;
/// Longer than a mapper takes for any order, mapping 1 GiB page by page on a busy machine included.
const WAIT: Duration = Duration::from_secs(90);

/// The uids that the node must let in for this many mappers: none but its own unless it runs as root.
pub fn uids(mappers: u32) -> Option<Vec<u32>> {
    rustix::process::geteuid().is_root().then(|| (0..mappers).map(|n| FIRST_UID + n).collect())
}

/// One mapper's process.
struct Mapper {
    key: PrincipalKey,
    socket: Option<OwnedFd>,
    child: Child,
}

/// What one cut looked like from both sides. Nanoseconds of the same clock.
pub struct Seen<T> {
    /// Right before the call.
    pub called_ns: u64,
    /// Right after it returned.
    pub returned_ns: u64,
    /// When the last mapper was dead.
    pub dead_ns: u64,
    /// Before the last touch of any mapper that succeeded.
    pub alive_ns: u64,
    /// Idle mappers that found memory when they were woken, after the busy ones were dead.
    pub outlived: usize,
    /// What the call answered.
    pub answer: T,
}

impl<T> Seen<T> {
    pub fn dead_us(&self) -> f64 {
        micros(self.called_ns, self.dead_ns)
    }

    pub fn returned_us(&self) -> f64 {
        micros(self.called_ns, self.returned_ns)
    }

    pub fn alive_us(&self) -> f64 {
        micros(self.called_ns, self.alive_ns)
    }

    /// From the last death to the call's return.
    pub fn rest_us(&self) -> f64 {
        micros(self.dead_ns, self.returned_ns)
    }
}

/// From one moment to another; 0 if the other was earlier.
fn micros(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e3
}

/// All mappers. The last `busy` of them, whose mappings the kernel empties last, touch theirs while it happens.
pub struct Crowd {
    mappers: Vec<Mapper>,
    busy: usize,
}

impl Crowd {
    /// Registers a principal for each and starts the processes.
    pub fn gather(node: &Spawned, mappers: u32, busy: u32) -> Result<Self> {
        Self::of(node, 0..mappers, busy)
    }

    /// Those of these numbers alone: each is a principal and, as root, a uid.
    pub fn of(node: &Spawned, numbers: std::ops::Range<u32>, busy: u32) -> Result<Self> {
        let mappers = numbers.map(|n| Mapper::start(node, n)).collect::<Result<_>>()?;
        Ok(Self { mappers, busy: busy as usize })
    }

    pub fn keys(&self) -> impl Iterator<Item = PrincipalKey> {
        self.mappers.iter().map(|mapper| mapper.key)
    }

    /// Has each mapper map and touch every page, one after the other, so that the last one's mapping is the youngest.
    /// Returns the bytes in huge pages that the one with the fewest has.
    pub fn map<'a>(
        &self,
        orders: impl IntoIterator<Item = Order>,
        descriptor: Option<BorrowedFd<'a>>,
    ) -> Result<u64> {
        let mut least = u64::MAX;
        for (mapper, order) in self.mappers.iter().zip(orders) {
            mapper.say(&order, descriptor)?;
            match mapper.hear()? {
                Answer::Mapped { huge_bytes } => least = least.min(huge_bytes),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(least)
    }

    /// Cuts while the busy mappers touch, and then has the idle ones look. `prepare` is done before the time counts.
    pub fn watch<T: Send>(
        &self,
        prepare: impl FnOnce() + Send,
        cut: impl FnOnce() -> Result<T> + Send,
    ) -> Result<Seen<T>> {
        let (idle, busy) = self.sides();
        self.watch_these(idle, busy, prepare, cut)
    }

    /// As [`Crowd::watch`], and nobody asks the idle ones: they survive, or are dead as well.
    pub fn watch_busy<T: Send>(
        &self,
        prepare: impl FnOnce() + Send,
        cut: impl FnOnce() -> Result<T> + Send,
    ) -> Result<Seen<T>> {
        self.watch_these(&[], self.sides().1, prepare, cut)
    }

    /// The idle mappers and the busy ones.
    fn sides(&self) -> (&[Mapper], &[Mapper]) {
        self.mappers.split_at(self.mappers.len() - self.busy)
    }

    fn watch_these<T: Send>(
        &self,
        idle: &[Mapper],
        busy: &[Mapper],
        prepare: impl FnOnce() + Send,
        cut: impl FnOnce() -> Result<T> + Send,
    ) -> Result<Seen<T>> {
        for mapper in busy {
            mapper.say(&Order::Touch, None)?;
            match mapper.hear()? {
                Answer::Touching => {}
                other => return Err(unexpected(&other)),
            }
        }
        let (cut, deaths) = std::thread::scope(|scope| {
            let cut = scope.spawn(|| {
                prepare();
                let called_ns = now_ns();
                let answer = cut();
                (called_ns, now_ns(), answer)
            });
            let deaths = deaths(idle, busy);
            (cut.join(), deaths)
        });
        let (called_ns, returned_ns, answer) =
            cut.map_err(|_| Error::new(Code::Internal, "the thread that cuts panicked"))?;
        let (answer, deaths) = (answer?, deaths?);
        Ok(Seen {
            called_ns,
            returned_ns,
            dead_ns: deaths.iter().map(|death| death.dead_ns).max().unwrap_or(called_ns),
            alive_ns: deaths.iter().filter_map(|death| death.alive_ns).max().unwrap_or(called_ns),
            outlived: deaths.len() - self.busy,
            answer,
        })
    }

    /// Has the last mapper map.
    pub fn map_last(&self, order: Order) -> Result<()> {
        let Some(mapper) = self.mappers.last() else { return Ok(()) };
        mapper.say(&order, None)?;
        match mapper.hear()? {
            Answer::Mapped { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Says something to each idle mapper that it answers with being done.
    pub fn others(&self, order: &Order) -> Result<()> {
        let (idle, _) = self.sides();
        idle.iter().try_for_each(|mapper| mapper.say(order, None))?;
        idle.iter().try_for_each(|mapper| match mapper.hear()? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        })
    }

    /// Waits until each idle mapper has written more; the longest pause of each since this was last asked, in
    /// microseconds.
    pub fn advance(&self) -> Result<Vec<f64>> {
        let (idle, _) = self.sides();
        idle.iter().try_for_each(|mapper| mapper.say(&Order::Advance, None))?;
        let pause = |mapper: &Mapper| match mapper.hear()? {
            Answer::Advanced { pause_ns } => Ok(pause_ns as f64 / 1e3),
            other => Err(unexpected(&other)),
        };
        idle.iter().map(pause).collect()
    }

    /// Has each idle mapper judge what it wrote: how many writes, and what it found of them.
    pub fn judge(&self) -> Result<Vec<(u64, Found)>> {
        let (idle, _) = self.sides();
        let judge = |mapper: &Mapper| {
            mapper.say(&Order::Judge, None)?;
            match mapper.hear()? {
                Answer::Judged { steps, found } => Ok((steps, found)),
                other => Err(unexpected(&other)),
            }
        };
        idle.iter().map(judge).collect()
    }

    /// Has each mapper unmap.
    pub fn forget(&self) -> Result<()> {
        self.mappers.iter().try_for_each(|mapper| {
            mapper.say(&Order::Forget, None)?;
            match mapper.hear()? {
                Answer::Forgotten => Ok(()),
                other => Err(unexpected(&other)),
            }
        })
    }
}

/// The deaths of the busy mappers, and of those idle ones that were alive after them.
fn deaths(idle: &[Mapper], busy: &[Mapper]) -> Result<Vec<Death>> {
    let death = |mapper: &Mapper| match mapper.hear()? {
        Answer::Dead(death) => Ok(death),
        other => Err(unexpected(&other)),
    };
    let mut deaths = busy.iter().map(death).collect::<Result<Vec<_>>>()?;
    for mapper in idle {
        mapper.say(&Order::Probe, None)?;
    }
    for mapper in idle {
        // One whose first touch failed was dead before it was asked.
        deaths.extend(Some(death(mapper)?).filter(|death| death.alive_ns.is_some()));
    }
    Ok(deaths)
}

fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Failed { code } => Error::with(Code::Internal, format!("a mapper failed with {code}")),
        _ => Error::new(Code::Internal, "a mapper said something unexpected"),
    }
}

fn failed<E>(what: &'static str) -> impl Fn(E) -> Error {
    move |_| Error::new(Code::System, what)
}

impl Mapper {
    fn start(node: &Spawned, number: u32) -> Result<Self> {
        let key = SigningKey::generate();
        node.admin()?.principal_add(Name::new(&format!("mapper-{number}"))?, key.public())?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed("no socket for a mapper"))?;
        set_socket_timeout(&ours, Timeout::Recv, Some(WAIT)).map_err(failed("no socket for a mapper"))?;
        // /proc/self/exe can be executed whatever the directories on the way to the binary allow another uid.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("leasehold-bench-mapper")
            .arg("bench-mapper")
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(FIRST_UID + number).gid(FIRST_UID + number);
        }
        let child = command.spawn().map_err(failed("cannot start a mapper"))?;
        let mapper = Self { key: key.public(), socket: Some(ours), child };
        let seed = data_encoding::HEXLOWER.encode(&*key.seed());
        mapper.say(&Order::Begin { socket: node.dirs().socket(), seed }, None)?;
        match mapper.hear()? {
            Answer::Ready => Ok(mapper),
            other => Err(unexpected(&other)),
        }
    }

    fn socket(&self) -> Result<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or(Error::new(Code::Internal, "the mapper has left"))
    }

    fn say(&self, order: &Order, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
        send(self.socket()?, order, descriptor)
    }

    fn hear(&self) -> Result<Answer> {
        receive(self.socket()?).map(|(answer, _)| answer)
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.socket = None;
        let _ = self.child.kill(); // ours, and perhaps gone already
        let _ = self.child.wait();
    }
}
