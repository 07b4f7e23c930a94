//! One client's session, from accept to end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use audit::rejects::Source;
use audit::{Draft, Event as Entry};
use caps::error::{Blame, Code, Error, Result};
use caps::id::RequestId;
use caps::pop::{Nonce, Proven};
use caps::time::BootNanos;
use caps::wire::frame::{self, Frame, FrameKind};
use caps::wire::{Reply, Request};
use policy::fault::Reaction;
use policy::limits;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::answered::{Answered, Identity, Known};
use super::channel::Channel;
use super::executable;
use super::fault::Fault;
use super::handshake::{Handshake, Next};
use super::listen::Shared;
use super::memory::Answer;
use super::peer::{Exit, Peer};
use super::socket::{Socket, lost};
use super::visitor::Visitor;
use crate::runtime::{Client, Opener, Origin, Post, Terms};

/// A session with a proven key.
pub(super) struct Session {
    pub(super) visitor: Visitor,
    pub(super) socket: Arc<Socket>,
    /// What the holder has to be told of its mappings.
    post: Arc<Post>,
    /// How it is told, once it maps something.
    channel: Option<Channel>,
    /// What it asked for last, and was told.
    answered: Answered,
}

/// Why a session ends.
enum End {
    /// The client hung up, or its process died.
    Gone,
    /// It was told why.
    Refused(Error),
    /// It broke a rule, which is on record.
    Faulted,
}

impl Session {
    /// Serves one connection until it ends, and then ends everything that lives with it.
    pub(super) async fn run(shared: Arc<Shared>, socket: OwnedFd, peer: Peer, id: u64) {
        let Ok(socket) = Socket::new(socket).map(Arc::new) else { return };
        let Ok(death) = crate::sys::watch(peer.pidfd).map(Arc::new) else { return };
        let (uid, pid) = (peer.uid, peer.pid);
        let hello = Duration::from_millis(limits::HELLO_MS_MAX);
        let greeted = tokio::select! {
            greeted = timeout(hello, greet(&shared, &socket)) => {
                greeted.unwrap_or(Err(Error::new(Code::Timeout, "the session was not begun in time")))
            }
            _ = death.readable() => return,
        };
        let (request, proven) = match greeted {
            Ok(greeted) => greeted,
            Err(error) => {
                shared.rejects.note(Source::Uid(uid), &error);
                return tell(&socket, RequestId(0), &error).await;
            }
        };
        let exe = tokio::select! {
            exe = executable::hash(uid, pid) => exe,
            _ = death.readable() => return,
        };
        let origin = Origin::Process { uid, pid, exe, sandboxed: false };
        let opener = Opener { session: id, origin, proven };
        let ender = socket.clone();
        let post = shared.provider.register_session(
            id,
            Client::new(opener, Some(death.clone())),
            Box::new(move || ender.shut_down()),
            None,
        );
        let visitor = Visitor::new(shared.clone(), opener, Some(death.clone()));
        let mut session = Self { visitor, socket, post, channel: None, answered: Answered::default() };
        let end = tokio::select! {
            end = session.serve(request) => end,
            _ = death.readable() => End::Gone,
        };
        if let End::Refused(error) = &end {
            session.visitor.fault(&Fault::protocol(error), Reaction::Fault);
        }
        // Before its other rights end as well.
        let lost = session.visitor.rights.lost_last(&shared.provider);
        // From here on nothing of this session is served. First the rights, then the entry of how the process died:
        // how it died may never be known.
        shared.provider.session_ended(id);
        shared.control.session_ended(id);
        session.socket.shut_down();
        session.channel = None;
        // They may hold tokens, and how the process ended may take a while to learn.
        session.answered.forget();
        session.say_how_it_ended(&death, lost).await;
    }

    async fn serve(&mut self, welcome: RequestId) -> End {
        if self.welcome(welcome).await.is_err() {
            return End::Gone;
        }
        loop {
            let idle = Duration::from_millis(limits::SESSION_IDLE_MS_MAX);
            let received = match timeout(idle, receive(&self.socket)).await {
                Ok(Ok(Some(received))) => received,
                Ok(Ok(None) | Err(_)) => return End::Gone,
                Err(_) => {
                    let error = Error::new(Code::Timeout, "the session was idle for too long");
                    tell(&self.socket, RequestId(0), &error).await;
                    return End::Gone;
                }
            };
            let Asked { id, request, identity } = match received {
                Ok(asked) => asked,
                Err(error) => {
                    tell(&self.socket, RequestId(0), &error).await;
                    return End::Refused(error);
                }
            };
            if matches!(request, Request::Confine) {
                // Whoever takes the session over counts from the beginning, whatever was asked before.
                self.answered.forget();
            }
            let sent = match self.answered.find(id, identity) {
                Known::New => match self.answer_once(id, request, identity).await {
                    Ok(sent) => sent,
                    Err(end) => return end,
                },
                Known::Answered(frame) => timed(self.socket.send(frame, None)).await,
                Known::NotRepeatable => {
                    let detail = "the request was answered, and its answer cannot be given again";
                    self.duplicate(id, Error::new(Code::FrameDuplicate, detail)).await
                }
                Known::Other => {
                    let detail = "the number is that of another request of this session";
                    self.duplicate(id, Error::new(Code::FrameDuplicate, detail)).await
                }
            };
            match sent {
                Ok(()) => {}
                // Not to be told, since it does not read, but on record.
                Err(error) if error.code() == Code::Timeout => return End::Refused(error),
                Err(_) => return End::Gone,
            }
        }
    }

    /// Answers a request that was not answered before, and remembers what it was told if it changes something. What
    /// sending came to, or why the session ends.
    async fn answer_once(
        &mut self,
        id: RequestId,
        request: Request,
        identity: Option<Identity>,
    ) -> std::result::Result<Result<()>, End> {
        let answer = self.answer(request, id).await;
        if answer.as_ref().is_err_and(|error| error.code() == Code::Quota) {
            self.visitor.refused_by_quota();
        }
        let (packet, descriptor, refused) = match answer {
            Ok(Answer::Sent) => return Ok(Ok(())),
            Ok(Answer::Reply(reply)) => (frame::encode(FrameKind::Reply, id, &reply), None, None),
            Ok(Answer::WithDescriptor(reply, descriptor)) => {
                (frame::encode(FrameKind::Reply, id, &reply), Some(descriptor), None)
            }
            Err(error) => (Ok(encode_error(id, &error)), None, Some(error)),
        };
        let packet = match packet {
            Ok(packet) => Zeroizing::new(packet),
            Err(error) => return Ok(Err(error)),
        };
        // Before it is sent: whoever asks again may do so because sending it failed.
        if let Some(identity) = identity {
            self.answered.keep(id, identity, descriptor.is_none().then_some(&packet));
        }
        // A descriptor leaves alone: the client had read everything before it when it was opened, and nothing was sent
        // since. The kernel counts descriptors in flight by user, and one client must not use up the others' share.
        let beside = descriptor.as_ref().map(std::os::fd::AsFd::as_fd);
        let sent = timed(self.socket.send(&packet, beside)).await;
        match refused {
            Some(error) if error.code() == Code::Protocol => Err(End::Refused(error)),
            Some(_) if self.visitor.conduct.ends() => Err(End::Faulted),
            _ => Ok(sent),
        }
    }

    /// Refuses a number that was used, and goes on: nothing is done, and an honest client that lost a descriptor asks so.
    async fn duplicate(&self, id: RequestId, error: Error) -> Result<()> {
        let entry =
            self.visitor.opener.identified(Fault::protocol(&error).entry()).reaction(Reaction::Log.name());
        self.visitor.shared.rejects.deny(self.visitor.opener.origin.source(), entry);
        timed(self.socket.send(&encode_error(id, &error), None)).await
    }

    async fn welcome(&self, id: RequestId) -> Result<()> {
        self.send(id, &Reply::Welcome(self.visitor.standing().await)).await
    }

    /// Takes the client's word that it is, or will be before anybody else's code runs in it, in the sandbox. Whoever
    /// says so loses all that is not about memory, so a program that was handed a session cannot lease, share or
    /// revoke in the name of the key that opened it.
    async fn confine(&mut self) -> Answer {
        self.answered.forget();
        if let Origin::Process { uid, pid, exe, sandboxed } = &mut self.visitor.opener.origin {
            *sandboxed = true;
            // The program that takes the session over says it again: from then on the log names that program.
            *exe = executable::hash(*uid, *pid).await.or(*exe);
        }
        let holder = self.visitor.opener.proven.holder();
        Answer::Reply(Reply::Confined { holder, welcome: self.visitor.standing().await })
    }

    /// Answers one request. What is about memory is answered here, the rest by the control plane.
    async fn answer(&mut self, request: Request, id: RequestId) -> Result<Answer> {
        match request {
            Request::Hello { .. } | Request::Prove { .. } => {
                Err(Error::new(Code::Protocol, "the session has begun already"))
            }
            Request::Open { token, rights, path } => self.open(&token, rights, path).await,
            Request::Read { handle, offset, length } => self.read(id, handle, offset, length).await,
            Request::Write { handle, offset, data, crc } => self.write(handle, offset, &data, crc).await,
            Request::Segment { handle, index } => self.segment(handle, index).await,
            Request::Channel => self.open_channel().await,
            Request::Close { handle } => self.visitor.close(handle),
            Request::Confine => Ok(self.confine().await),
            request => self.visitor.answer(request).await.map(Answer::Reply),
        }
    }

    /// Makes the session's rotation channel.
    async fn open_channel(&mut self) -> Result<Answer> {
        if self.channel.is_some() {
            return Err(Error::new(Code::Protocol, "the session has its rotation channel already"));
        }
        self.ready_for_descriptor().await?;
        let provider = self.visitor.shared.provider.clone();
        let (channel, theirs) = Channel::open(provider, self.visitor.opener.session, self.post.clone())?;
        self.channel = Some(channel);
        Ok(Answer::WithDescriptor(Reply::Channel, theirs))
    }

    async fn send(&self, id: RequestId, reply: &Reply) -> Result<()> {
        timed(self.socket.send(&frame::encode(FrameKind::Reply, id, reply)?, None)).await
    }

    /// Waits a while for the process to be reaped, if it died, and records how. A client that only hung up has no
    /// such entry: its rights' summaries say that it left.
    async fn say_how_it_ended(&self, death: &AsyncFd<OwnedFd>, lost: Option<(Terms, BootNanos)>) {
        if timeout(Duration::from_millis(limits::EXIT_SOON_MS), death.readable()).await.is_err() {
            // It lives, or the machine is very busy. Few sessions of a user wait for longer: one that connects and
            // hangs up in a loop would otherwise keep every place of its user taken.
            let uid = self.visitor.opener.origin.uid();
            let Some(_lingering) = uid.and_then(|uid| self.visitor.shared.linger(uid)) else { return };
            if timeout(Duration::from_millis(limits::EXIT_NOTICE_MS_MAX), death.readable()).await.is_err() {
                return;
            }
        }
        let died = self.visitor.shared.provider.clock().boot();
        // Its parent has to reap it first. Nothing wakes us for that on every kernel, so we look a few times.
        let mut status = None;
        for _ in 0..limits::EXIT_LOOKS_MAX {
            status = crate::sys::wait_status(death.get_ref());
            if status.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(limits::EXIT_LOOK_MS)).await;
        }
        let mut entry = self.visitor.opener.identified(Draft::ok(Entry::HolderExit));
        if self.visitor.conduct.killed() {
            entry = entry.reaction(Reaction::Kill.name());
        }
        match status.map(Exit::from_wait_status) {
            Some(Exit::Signal(signal)) => {
                entry = entry.signal(signal.into());
                if i32::from(signal) == libc::SIGBUS && self.visitor.rights.mapped_ever() {
                    // It touched memory after the cut, raw, and the kernel killed it for that.
                    let fault = Fault::mapped(lost.map(|(held, fenced)| (held, died.since(fenced).0)));
                    let fault = self.visitor.opener.identified(fault.entry()).signal(signal.into());
                    self.visitor.shared.provider.record_fault(fault.reaction(Reaction::Log.name()));
                }
            }
            Some(Exit::Status(status)) => entry = entry.exit(status.into()),
            None => {}
        }
        self.visitor.shared.provider.record_fault(entry);
    }
}

/// Hello, challenge, proof. Returns the number of the last request, which the welcome answers.
async fn greet(shared: &Shared, socket: &Socket) -> Result<(RequestId, Proven)> {
    let mut handshake = Handshake::new(shared.provider.config().provider, Nonce::random(), None);
    loop {
        let Asked { id, request, .. } = receive(socket)
            .await
            .map_err(lost)?
            .ok_or(Error::new(Code::Unreachable, "the client hung up before it proved a key"))??;
        match handshake.step(request)? {
            Next::Say(next, reply) => {
                let packet = frame::encode(FrameKind::Reply, id, &reply)?;
                timed(socket.send(&packet, None)).await?;
                handshake = next;
            }
            Next::Done(proven) => return Ok((id, proven)),
        }
    }
}

/// One request as it came.
struct Asked {
    id: RequestId,
    request: Request,
    /// `None` for one that only reads.
    identity: Option<Identity>,
}

/// One request, or why the packet is none; `None` when the client hung up.
async fn receive(socket: &Socket) -> std::io::Result<Option<Result<Asked>>> {
    socket
        .receive(|packet| {
            let frame = Frame::decode(packet)?;
            match frame.kind {
                FrameKind::Request => {
                    let request = frame.body()?;
                    let identity = Identity::of(&request, &packet[frame::HEADER_BYTES..]);
                    Ok(Asked { id: frame.request, request, identity })
                }
                FrameKind::Reply | FrameKind::Error => {
                    Err(Error::new(Code::FrameType, "a client sends requests"))
                }
            }
        })
        .await
}

fn encode_error(id: RequestId, error: &Error) -> Vec<u8> {
    // Infallible: a code and a short text of ours fit any frame.
    frame::encode(FrameKind::Error, id, error).unwrap_or_default()
}

/// Tells a client why its session ends, if it listens.
async fn tell(socket: &Socket, id: RequestId, error: &Error) {
    if error.code().blame() != Blame::Unreachable
        || error.code() == Code::Busy
        || error.code() == Code::Timeout
    {
        let _ = timed(socket.send(&encode_error(id, error), None)).await; // it may be gone
    }
}

/// Refuses a connection that was not admitted.
pub(super) async fn refuse(socket: OwnedFd, error: Error) {
    if let Ok(socket) = Socket::new(socket) {
        tell(&socket, RequestId(0), &error).await;
    }
}

/// A client that does not read its answers is cut off at the deadline.
pub(super) async fn timed(sent: impl Future<Output = std::io::Result<()>>) -> Result<()> {
    match timeout(Duration::from_millis(limits::SEND_MS_MAX), sent).await {
        Ok(sent) => sent.map_err(lost),
        Err(_) => Err(unread()),
    }
}

/// What ends a session whose client does not read.
pub(super) const fn unread() -> Error {
    Error::new(Code::Timeout, "the client did not read its answer in time")
}
