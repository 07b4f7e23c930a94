//! One session of a caller, over as many connections as it takes, one after the other.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::{ClientId, ClusterEpoch, ProviderId, RequestId, SlotHandle};
use caps::key::SigningKey;
use caps::wire::reply::Welcome;
use caps::wire::{Name, Request};
use transport::{Credentials, Role};

use super::backoff::{Backoff, RECONNECT_MS_FIRST, random};
use super::control::Control;
use super::failure::Failure;
use super::greeting::{Begun, Greeting, Memory};
use super::right::Right;
use super::talk::{Connection, Progress, Talk, uncertain};
use super::tls::sooner;
use crate::calls::Call;
use crate::endpoint::Endpoint;
use crate::local::Deadline;

/// Rights that were dropped and not closed at the node yet: as many as fit are kept, the others end with the connection.
const CLOSINGS_MAX: usize = 4_096;

/// A session. Threads that share it take turns.
pub(crate) struct Session {
    greeting: Greeting,
    /// How long a connection is made anew before a call fails.
    reconnect: Duration,
    wire: Mutex<Wire>,
    /// Rights that nobody holds any more, each with the connection that it was opened on.
    closings: Mutex<Vec<(u64, SlotHandle)>>,
    /// Whether there are some: read by every call.
    closing: AtomicBool,
    /// The life of the last connection, for who does not wait for a call that is under way. Held for one look or one change.
    current: Mutex<(ClusterEpoch, ProviderId)>,
    /// The process that connected. A forked child has a copy of the socket and of the keys of its parent's connection: one
    /// byte of it there would end the session here.
    process: u32,
}

/// What a call holds while it is under way.
struct Wire {
    connection: Option<Connection>,
    /// Counts connections, from 1.
    generation: u64,
    /// The next request's number.
    next: u64,
    /// Which life of which node the last connection was to.
    life: (ClusterEpoch, ProviderId),
    /// What this program is called, for as long as something is in doubt. Copies of one that is restored more than once
    /// have its name and its numbers, and part with the first connection that leaves nothing in doubt.
    client: ClientId,
    /// What the node remembers of what it answered.
    memory: Memory,
    /// What ended the session for good.
    broken: Option<Error>,
    /// When reaching the node was given up last, and why.
    down: Option<(Instant, Error)>,
}

/// Where an answer came from.
#[derive(Clone, Copy)]
pub(super) struct Over {
    /// The connection.
    pub(super) generation: u64,
    /// The life of the node.
    pub(super) node: ProviderId,
}

impl Session {
    /// Connects and proves possession of `key`. Tried once.
    pub(crate) fn connect(
        address: &str,
        credentials: &Arc<Credentials>,
        endpoint: &Endpoint,
        key: &SigningKey,
    ) -> Result<(Self, Welcome)> {
        let mut greeting = Greeting {
            address: address.into(),
            credentials: credentials.clone(),
            node: endpoint.expected_node().cloned(),
            role: endpoint.expected_role(),
            checked: endpoint.is_checked(),
            timeout: endpoint.request_timeout(),
            key: SigningKey::from_seed(&key.seed()),
        };
        let (client, mut next) = (ClientId::random(), 1);
        let deadline = Deadline::after(endpoint.request_timeout());
        let Begun { connection, welcome, peer, memory } =
            greeting.connect(&mut next, client, &mut false, deadline).map_err(Failure::error)?;
        // What is opened from now on is there, and nowhere else.
        (greeting.node, greeting.role) = (Some(peer.name), Some(peer.role));
        let wire = Wire {
            connection: Some(connection),
            generation: 1,
            next,
            life: (welcome.cluster, welcome.provider),
            client,
            memory,
            broken: None,
            down: None,
        };
        let session = Self {
            greeting,
            reconnect: endpoint.reconnect_bound(),
            wire: Mutex::new(wire),
            closings: Mutex::new(Vec::new()),
            closing: AtomicBool::new(false),
            current: Mutex::new((welcome.cluster, welcome.provider)),
            process: std::process::id(),
        };
        Ok((session, welcome))
    }

    /// One request of the socket's protocol.
    pub(crate) fn call<T>(&self, call: Call<T>) -> Result<T> {
        self.control(call).map(|(answer, _)| answer)
    }

    /// The same, and on which connection it was answered.
    pub(super) fn control<T>(&self, mut call: Call<T>) -> Result<(T, Over)> {
        let request = std::mem::replace(&mut call.request, Request::Status); // what is left only reads the answer
        let mut control = Control::new(request);
        let over = self.talk(&mut control, None)?;
        call.read(control.reply()?).map(|answer| (answer, over))
    }

    /// Asks, and waits for all answers, over another connection if need be. Returns the connection that the last one came
    /// over.
    pub(super) fn talk(&self, talk: &mut dyn Talk, right: Option<&Right>) -> Result<Over> {
        if self.process != std::process::id() {
            return Err(Error::new(Code::Protocol, "a session over TLS stays in the process that began it"));
        }
        let outcome = self.turn(talk, right);
        // Whoever dropped a right while the turn was taken left it to be closed, as it could not wait.
        fence(Ordering::SeqCst);
        if self.closing.load(Ordering::Relaxed) {
            self.close_soon();
        }
        outcome
    }

    /// As [`Self::talk`], while no other thread is at it.
    fn turn(&self, talk: &mut dyn Talk, right: Option<&Right>) -> Result<Over> {
        let mut started = Instant::now();
        let mut guard = match self.wire.try_lock() {
            Ok(wire) => wire,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let wire = self.wire();
                // Whoever waited here while the node was given up need not try all over again.
                if let Some((when, error)) = &wire.down
                    && *when > started
                {
                    return Err(error.clone());
                }
                started = Instant::now();
                wire
            }
        };
        let wire = &mut *guard;
        let mut deadline = Deadline::at(started, self.greeting.timeout);
        let mut backoff = Backoff::new();
        let mut progress = Progress::new(talk, wire.next);
        wire.next += talk.requests() as u64;
        loop {
            let answers = progress.answers();
            match self.attempt(wire, talk, right, &mut progress, deadline) {
                Err(Failure::Lost(_) | Failure::Ended) => {
                    wire.connection = None;
                    if progress.answers() > answers {
                        (deadline, backoff) = (Deadline::after(self.greeting.timeout), Backoff::new());
                    }
                    if let Some(error) = progress.refused() {
                        return Err(error.clone()); // the rest is not asked again
                    }
                    let open = progress.is_open();
                    progress.rewind(talk);
                    let (life, memory) = (wire.life, wire.memory);
                    let doubt = open && talk.changes();
                    if !doubt {
                        wire.client = ClientId::random();
                    }
                    if let Err(failure) = self.reconnect(wire, &mut backoff, deadline) {
                        return Err(told(talk, open, failure.error()));
                    }
                    if doubt && wire.life != life {
                        return Err(UNCERTAIN);
                    }
                    if doubt && (memory == Memory::None || wire.memory != Memory::Known) {
                        return Err(FORGOTTEN);
                    }
                }
                Err(Failure::NotNow(error)) => {
                    // At once it would be the same.
                    let wait = backoff.step(random()).max(Duration::from_millis(RECONNECT_MS_FIRST));
                    if wait >= deadline.remaining() {
                        return Err(uncertain(&error));
                    }
                    progress.rewind(talk);
                    std::thread::sleep(wait);
                }
                Err(Failure::Own(error)) => return Err(told_by_node(talk, &progress, error)),
                Err(failure) => {
                    wire.connection = None;
                    if let Failure::Lied(error) = &failure {
                        wire.broken.get_or_insert(error.clone());
                    }
                    let open = progress.is_open() && !matches!(failure, Failure::Lied(_));
                    return Err(told(talk, open, failure.error()));
                }
                Ok(()) => return Ok(Over { generation: wire.generation, node: wire.life.1 }),
            }
        }
    }

    /// One attempt, over the connection that there is.
    fn attempt(
        &self,
        wire: &mut Wire,
        talk: &mut dyn Talk,
        right: Option<&Right>,
        progress: &mut Progress,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        if let Some(error) = &wire.broken {
            return Err(Failure::Own(error.clone()));
        }
        let Some(connection) = &mut wire.connection else {
            return Err(Failure::lost("the connection to the node was lost before"));
        };
        let handle = match right {
            None => SlotHandle { slot: 0, epoch: 0 },
            Some(right) => match right.handle(wire.generation) {
                Some(handle) => handle,
                None => {
                    right.check_life(wire.life.1).map_err(Failure::Own)?;
                    let mut open = Control::new(right.request());
                    let mut opening = Progress::new(&open, wire.next);
                    wire.next += 1;
                    let nothing = SlotHandle { slot: 0, epoch: 0 };
                    connection.run(&mut open, &mut opening, nothing, deadline).map_err(|failure| {
                        match failure {
                            Failure::Own(error)
                                if error.code() == Code::Busy && is_in_doubt(talk, progress) =>
                            {
                                Failure::NotNow(error)
                            }
                            failure => failure,
                        }
                    })?;
                    right.opened_again(open.reply().map_err(Failure::Lied)?, wire.generation)?
                }
            },
        };
        let outcome = connection.run(talk, progress, handle, deadline);
        if connection.has_unclosed() {
            self.closing.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Which life of the node the last connection was to.
    pub(crate) fn life(&self) -> (ClusterEpoch, ProviderId) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name in the node's certificate: every connection of the session has the same.
    pub(crate) fn node(&self) -> Option<&Name> {
        self.greeting.node.as_ref()
    }

    /// The role in the node's certificate: every connection of the session has the same.
    pub(crate) const fn role(&self) -> Option<Role> {
        self.greeting.role
    }

    /// Makes another connection, however often that takes. The call's first is tried at once, all others after a wait, the
    /// first after one that was lost as soon as it was made among them.
    fn reconnect(&self, wire: &mut Wire, backoff: &mut Backoff, deadline: Deadline) -> Result<(), Failure> {
        let until = sooner(deadline, self.reconnect);
        let mut named = false;
        let mut lost = Error::new(Code::Unreachable, "the node ended one connection after the other");
        loop {
            let wait = backoff.step(random());
            if !wait.is_zero() {
                if wait >= until.remaining() {
                    // Whatever the last attempt met, the node cannot be reached.
                    let error = Error::with(Code::Unreachable, lost.detail().to_owned());
                    wire.down = Some((Instant::now(), error.clone()));
                    return Err(Failure::Lost(error));
                }
                std::thread::sleep(wait);
            }
            // The first attempt is always made; it has a little time even where no more of it was to be spent.
            let most = if until.remaining().is_zero() { deadline } else { until };
            match self.greeting.connect(&mut wire.next, wire.client, &mut named, most) {
                Ok(Begun { connection, welcome, memory, .. }) => {
                    wire.connection = Some(connection);
                    wire.memory = memory;
                    wire.generation += 1;
                    wire.life = (welcome.cluster, welcome.provider);
                    *self.current.lock().unwrap_or_else(PoisonError::into_inner) = wire.life;
                    wire.down = None;
                    return Ok(());
                }
                Err(Failure::Lost(error)) => lost = error,
                Err(failure) => {
                    if let Failure::Lied(error) = &failure {
                        wire.broken.get_or_insert(error.clone());
                    }
                    wire.down = Some((Instant::now(), failure.clone().error()));
                    return Err(failure);
                }
            }
        }
    }

    /// Has a right that nobody holds any more closed at the node. Never waits.
    pub(super) fn close(&self, generation: u64, handle: SlotHandle) {
        if self.process != std::process::id() {
            return; // it is the parent's
        }
        {
            let mut closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
            if closings.len() < CLOSINGS_MAX {
                closings.push((generation, handle));
            }
            self.closing.store(true, Ordering::Relaxed);
        }
        // Before the turn is looked at, as whoever has it gives it up before it looks at `closing`: one of both sees it.
        fence(Ordering::SeqCst);
        self.close_soon();
    }

    /// Closes what is to be closed, unless a call is under way, which does it at its end.
    fn close_soon(&self) {
        if let Ok(mut wire) = self.wire.try_lock() {
            self.close_dropped(&mut wire);
        }
    }

    /// Sends what is to be closed, as far as it goes without waiting.
    fn close_dropped(&self, wire: &mut Wire) {
        let mut closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
        let Wire { connection, generation, next, broken, .. } = wire;
        let Some(open) = connection else {
            closings.clear(); // every right ended with its connection
            return self.closing.store(false, Ordering::Relaxed);
        };
        closings.retain(|(opened_on, _)| opened_on == generation);
        let mut outcome = open.idle();
        let room = CLOSINGS_MAX.saturating_sub(closings.len());
        closings.extend(open.take_unclosed().take(room).map(|handle| (*generation, handle)));
        while let (Ok(()), Some(&(_, handle))) = (&outcome, closings.last()) {
            match open.close(handle, RequestId(*next)) {
                Ok(true) => {
                    *next += 1;
                    closings.pop();
                }
                Ok(false) => break,
                Err(failure) => outcome = Err(failure),
            }
        }
        self.closing.store(!closings.is_empty(), Ordering::Relaxed);
        if let Err(failure) = outcome.and_then(|()| open.idle()) {
            *connection = None; // the next call makes another
            if let Failure::Lied(error) = failure {
                broken.get_or_insert(error);
            }
        }
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        // A panic in the middle of a call leaves a connection in the middle of a frame, which the other side then ends.
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Its end would be said over a copy of the parent's socket. What is left behind ends with this process.
            let wire = self.wire.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(wire.connection.take());
        }
    }
}

const UNCERTAIN: Error = Error::new(
    Code::Uncertain,
    "the connection was lost before the answer came, and the node began another life: it may have taken effect",
);

const FORGOTTEN: Error = Error::new(
    Code::Uncertain,
    "the connection was lost before the answer came, and the node does not remember it: it may have taken effect",
);

/// What a caller is told whose request may have been done, if it was asked (`open`) and is one that changes something.
fn told(talk: &dyn Talk, open: bool, error: Error) -> Error {
    if open && talk.changes() {
        let detail = format!("no answer came, and it may have taken effect: {}", error.detail());
        return Error::with(Code::Uncertain, detail);
    }
    error
}

/// Whether it may have been done already.
fn is_in_doubt(talk: &dyn Talk, progress: &Progress) -> bool {
    talk.changes() && progress.is_in_doubt()
}

/// What a caller is told when this side or the node said no. A refusal to open the right again leaves open what became of
/// a request that was asked before.
fn told_by_node(talk: &dyn Talk, progress: &Progress, error: Error) -> Error {
    told(talk, progress.is_in_doubt(), error)
}
