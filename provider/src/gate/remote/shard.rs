//! The loop of a thread: readiness, mail, deadlines, turns.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::time::BootNanos;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use policy::limits;
use tokio::runtime::Handle;
use transport::{Eager, Reload};

use super::admission::Seat;
use super::connection::{Connection, End, Turn};
use super::deadlines::Deadlines;
use super::effects::Effects;
use super::line::Line;
use super::mailbox::{Letter, Mailbox};
use super::partials::{Holder, Partials};
use super::table::{Key, Table};
use crate::gate::listen::Shared;

/// Events that one poll may bring.
const EVENTS: usize = 256;
/// What the waker is called. No key is: its index would be that of the last of 2^32 connections.
const WAKER: Token = Token(usize::MAX);

/// What a connection needs of its shard.
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) effects: Arc<Effects>,
    pub(super) runtime: Handle,
    pub(super) mailbox: Arc<Mailbox>,
    /// What all connections of the gate hold.
    pub(super) partials: Arc<Partials>,
    /// What the node believes now.
    pub(super) credentials: Arc<Reload>,
    /// What is read is read into this.
    pub(super) cipher: Vec<u8>,
    /// What it means is put here, empty between two turns.
    pub(super) plain: Vec<u8>,
    /// When the poll last returned: what it told of has been there since then at the latest.
    pub(super) woke: Instant,
}

impl Desk {
    /// The time that requests are measured by.
    pub(super) fn now(&self) -> BootNanos {
        self.shared.provider.clock().boot()
    }

    /// Whether what the poll told of has waited for so long that it is not begun any more.
    pub(super) fn is_late(&self) -> bool {
        self.woke.elapsed() > Duration::from_millis(limits::REMOTE_WAIT_MS_MAX)
    }
}

/// One thread's connections.
pub(super) struct Shard {
    poll: Poll,
    desk: Desk,
    table: Table<Connection>,
    deadlines: Deadlines,
    /// Those that could go on at once, in turn.
    again: VecDeque<Key>,
    /// Connections that were accepted and are not begun: each costs keys, and a handshake next.
    fresh: VecDeque<(TcpStream, IpAddr, Seat, Option<Error>)>,
    /// Those whose certificates are to be judged again.
    judging: VecDeque<Key>,
    /// Those that are beginning, the oldest first, and behind the oldest some that have begun or are gone.
    greetings: VecDeque<Key>,
    /// How many of them are beginning.
    beginning: usize,
    beginning_max: usize,
    /// By when it has to be over.
    stops_by: Option<Instant>,
    /// Looks for the next request before it sleeps.
    eager: Eager,
}

impl Shard {
    /// A shard that is ready to run, and its mailbox.
    ///
    /// # Errors
    /// `E_SYSTEM` if no poll is to be had.
    pub(super) fn new(
        shared: Arc<Shared>,
        effects: Arc<Effects>,
        partials: Arc<Partials>,
        runtime: Handle,
        credentials: Arc<Reload>,
        beginning_max: usize,
    ) -> Result<(Self, Arc<Mailbox>)> {
        let failed = |_| Error::new(Code::System, "cannot watch sockets");
        let poll = Poll::new().map_err(failed)?;
        let mailbox = Mailbox::new(mio::Waker::new(poll.registry(), WAKER).map_err(failed)?);
        let desk = Desk {
            shared,
            effects,
            runtime,
            mailbox: mailbox.clone(),
            partials,
            credentials,
            cipher: vec![0; limits::REMOTE_READ_BYTES],
            plain: Vec::new(),
            woke: Instant::now(),
        };
        let shard = Self {
            poll,
            desk,
            fresh: VecDeque::new(),
            judging: VecDeque::new(),
            table: Table::default(),
            deadlines: Deadlines::default(),
            again: VecDeque::new(),
            greetings: VecDeque::new(),
            beginning: 0,
            beginning_max,
            stops_by: None,
            eager: Eager::default(),
        };
        Ok((shard, mailbox))
    }

    /// Serves until it is told to stop.
    pub(super) fn run(mut self) {
        self.serve();
        // By itself only if it cannot wait any more: then nobody is to count on its connections.
        for key in self.table.keys() {
            self.visit(key, |connection, desk| connection.part(desk, End::Gone));
        }
        self.desk.mailbox.close();
    }

    fn serve(&mut self) {
        // What a session does by the way (a region into quarantine, a holder's rights taken back) is a task.
        let runtime = self.desk.runtime.clone();
        let _inside = runtime.enter();
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_over() {
            match self.wait(&mut events) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "a thread of the remote gate cannot wait any more");
                    return;
                }
            }
            self.desk.woke = Instant::now();
            let mut mail = false;
            for event in &events {
                if event.token() == WAKER {
                    mail = true;
                    continue;
                }
                let last = event.is_read_closed() || event.is_error();
                let readable = event.is_readable() || last;
                let lost = event.is_write_closed();
                self.visit(Key::of(event.token()), |connection, desk| {
                    if readable {
                        connection.may_read(last);
                    }
                    let turn = connection.turn(desk);
                    // Held up, it does not find out by reading, and nobody is there to wait for the answer.
                    // Parting, it has closed its own direction, and sees by itself whether the client is gone.
                    let lost = lost && turn != Turn::Over && !connection.is_parting();
                    if lost { connection.part(desk, End::Gone) } else { turn }
                });
            }
            if mail {
                for letter in self.desk.mailbox.take() {
                    self.open(letter);
                }
            }
            for _ in 0..limits::REMOTE_BEGUN_PER_ROUND {
                let Some((socket, address, seat, refused)) = self.fresh.pop_front() else { break };
                self.begin(socket, address, seat, refused);
            }
            // Those that are put there meanwhile have their turn after the others.
            for _ in 0..self.again.len() {
                let Some(key) = self.again.pop_front() else { break };
                self.visit(key, |connection, desk| {
                    connection.queued = false;
                    connection.turn(desk)
                });
            }
            for _ in 0..limits::REMOTE_JUDGED_PER_ROUND {
                let Some(key) = self.judging.pop_front() else { break };
                self.visit(key, Connection::judge_again);
            }
            let now = Instant::now();
            for key in self.deadlines.due(now) {
                self.visit(key, |connection, desk| {
                    connection.stands = None;
                    connection.overdue(desk)
                });
            }
        }
    }

    /// Until something is to be done.
    fn wait(&mut self, events: &mut Events) -> std::io::Result<()> {
        let patience = self.patience();
        let poll = &mut self.poll;
        if patience != Some(Duration::ZERO) {
            let came = self.eager.wait(|| match poll.poll(events, Some(Duration::ZERO)) {
                Ok(()) => (!events.is_empty()).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            });
            if let Some(came) = came {
                return came;
            }
        }
        poll.poll(events, patience)
    }

    /// How long nothing has to be looked at.
    fn patience(&self) -> Option<Duration> {
        if !(self.again.is_empty() && self.judging.is_empty() && self.fresh.is_empty()) {
            return Some(Duration::ZERO);
        }
        let next = [self.deadlines.next(), self.stops_by].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.stops_by.is_some_and(|by| self.table.is_empty() || by <= Instant::now())
    }

    /// Has a connection do something, and sees to what follows.
    fn visit(&mut self, key: Key, what: impl FnOnce(&mut Connection, &mut Desk) -> Turn) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let turn = what(connection, &mut self.desk);
        if connection.counted && !connection.is_greeting() {
            connection.counted = false;
            self.beginning -= 1;
        }
        if turn == Turn::Over {
            self.remove(key);
            return;
        }
        let deadline = connection.deadline(&self.desk);
        self.deadlines.by(key, &mut connection.stands, deadline);
        if turn == Turn::Again && !std::mem::replace(&mut connection.queued, true) {
            self.again.push_back(key);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(mut connection) = self.table.remove(key) else { return };
        self.deadlines.forget(key, &mut connection.stands);
        if connection.counted {
            self.beginning -= 1;
        }
        // By hand: those who take memory back may have the socket for a while longer.
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.line.raw_fd())); // it is closed next
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::New(socket, address, seat, refused) => {
                self.fresh.push_back((socket, address, seat, refused));
            }
            Letter::Greeted(key, greeted) => {
                self.visit(key, |connection, desk| match connection.greeted(desk, *greeted) {
                    Ok(()) => connection.turn(desk),
                    Err(end) => connection.part(desk, end),
                })
            }
            Letter::Back(key, errand) => {
                self.visit(key, |connection, desk| match connection.back(desk, *errand) {
                    Ok(()) => connection.turn(desk),
                    Err(end) => connection.part(desk, end),
                })
            }
            Letter::GoOn(key) => self.visit(key, Connection::rotated),
            Letter::End(key) => self.visit(key, |connection, desk| connection.part(desk, End::Gone)),
            Letter::TooMuch(key, name) => {
                self.visit(key, |connection, desk| connection.holds_too_much(desk, name))
            }
            Letter::Judge => self.judging = self.table.keys().into(),
            Letter::Stop => {
                self.stops_by = Some(Instant::now() + Duration::from_millis(limits::REMOTE_STOP_MS_MAX));
                for key in self.table.keys() {
                    self.visit(key, |connection, desk| connection.part(desk, End::Gone));
                }
            }
        }
    }

    /// Takes in a connection that was accepted.
    fn begin(&mut self, socket: TcpStream, address: IpAddr, seat: Seat, refused: Option<Error>) {
        if self.stops_by.is_some() {
            return;
        }
        let credentials = self.desk.credentials.now();
        let registry = self.poll.registry();
        let inserted = self.table.insert(|key| {
            let line = Line::new(socket, credentials.server())?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry
                .register(&mut SourceFd(&line.raw_fd()), key.token(), interest)
                .map_err(|_| Error::new(Code::System, "cannot watch a socket"))?;
            let holder = Holder::Network(seat.source());
            let held = self.desk.partials.held(self.desk.mailbox.clone(), key, holder);
            Ok::<_, Error>(Connection::new(key, line, held, address, seat, credentials, refused))
        });
        let key = match inserted {
            Ok(key) => key,
            Err(error) => {
                tracing::debug!(%error, %address, "a connection was lost before it began");
                return;
            }
        };
        self.beginning += 1;
        self.forget_begun();
        if self.beginning > self.beginning_max {
            self.drop_oldest();
        }
        self.greetings.push_back(key);
        self.visit(key, Connection::turn);
    }

    /// Forgets those at the front that are not beginning any more. Whoever is behind one that is, is so for as long as a
    /// beginning may take at most: so there are as many as connections that are accepted in that time.
    fn forget_begun(&mut self) {
        while let Some(&key) = self.greetings.front()
            && self.table.get_mut(key).is_none_or(|connection| !connection.is_greeting())
        {
            self.greetings.pop_front();
        }
    }

    /// Ends the connection that has been beginning for the longest time.
    fn drop_oldest(&mut self) {
        while let Some(key) = self.greetings.pop_front() {
            let Some(connection) = self.table.get_mut(key).filter(|connection| connection.is_greeting())
            else {
                continue;
            };
            let error = Error::new(Code::Busy, "too many sessions were beginning");
            self.desk.shared.rejects.note(connection.seat.source(), &error);
            self.visit(key, |connection, desk| connection.part(desk, End::Gone));
            return;
        }
    }
}
