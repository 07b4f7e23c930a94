//! The factory's own life: one loop, a few microseconds a request, and a thread that closes.
//!
//! What ends it, and what is left in each case: the provider's death (its pidfd), the end of a socket, or a goodbye:
//! everything is cut, then it exits. Its own death: the provider sees its pidfd, and the regions live on in the
//! provider's hands; the provider must then cut them and stop, because nobody would do it for a dead provider.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::guard;
use super::link;
use super::table::{Hold, RegionKey, Table};
use super::tmpfs::{self, Options, StepResult};
use super::wire::{Kind, Reply, Request, Shape, Status, Step};

/// Mounts and files that may wait to be closed. Closing a mount waits for an RCU grace period (about 40 us); when
/// this many are behind, requests wait for it too.
pub(super) const CLOSING_MAX: usize = 128;

pub(super) struct Serve {
    pub(super) provider: OwnedFd,
    pub(super) channels: Vec<OwnedFd>,
    pub(super) table: Table,
    pub(super) page: u64,
    pub(super) options: Options,
    pub(super) closer: Closer,
}

/// A thread that closes what takes long to close. Without the thread, closing is done in place.
pub(super) struct Closer(Option<mpsc::SyncSender<OwnedFd>>);

impl Closer {
    pub(super) fn start() -> Self {
        let (sender, inbox) = mpsc::sync_channel::<OwnedFd>(CLOSING_MAX);
        let thread = thread::Builder::new().name("close".into()).stack_size(64 << 10);
        Self(thread.spawn(move || inbox.into_iter().for_each(drop)).is_ok().then_some(sender))
    }

    fn close(&self, descriptor: OwnedFd) {
        if let Some(sender) = &self.0 {
            // If the thread is gone the descriptor comes back in the error and is dropped here.
            let _ = sender.send(descriptor);
        }
    }
}

/// How a request is answered.
enum Answer {
    /// With a reply, and perhaps a descriptor.
    Reply(Reply, Attached),
    /// Nobody waits for one.
    Nothing,
    End,
}

/// The descriptor that goes with a reply.
enum Attached {
    Nothing,
    /// One that this process keeps: the file of a sealed region.
    Held(RegionKey),
    /// One that it forgets after sending.
    Own(OwnedFd),
}

impl Serve {
    /// Serves until the provider is gone or says goodbye, then cuts everything. Returns how many regions could not
    /// be cut.
    pub(super) fn run(mut self) -> usize {
        while self.turn() {}
        // The sockets go first: their descriptors may be needed to reopen files for the cut.
        drop(self.channels);
        guard::cut_everything(self.table.into_holds())
    }

    /// Waits for something and does it. False: the end.
    fn turn(&mut self) -> bool {
        let mut polled: Vec<PollFd<'_>> = std::iter::once(&self.provider)
            .chain(&self.channels)
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => return true,
            // Blind: better to take everything back than to guard nothing.
            Err(_) => return false,
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return false;
        }
        for index in (0..self.channels.len()).filter(|index| ready[index + 1]) {
            let Ok(Some(request)) = link::receive_plain::<Request>(&self.channels[index]) else {
                return false;
            };
            match self.answer(&request) {
                Answer::Reply(reply, attached) => {
                    let fd = match &attached {
                        Attached::Nothing => None,
                        Attached::Held(key) => self.table.get(*key).map(Hold::as_fd),
                        Attached::Own(fd) => Some(fd.as_fd()),
                    };
                    if link::send(&self.channels[index], &reply, fd).is_err() {
                        return false;
                    }
                }
                Answer::Nothing => {}
                Answer::End => return false,
            }
        }
        true
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let key = RegionKey(request.region.get());
        let Some(kind) = Kind::from_number(request.kind.get()) else {
            return refuse(request, Status::Malformed, None);
        };
        match kind {
            Kind::Create => self.create(request),
            Kind::Shut => self.on_mount(request, key, |mount, page| tmpfs::shut(mount, page).map(|()| None)),
            Kind::ReadOnly => self.on_mount(request, key, |mount, _| tmpfs::read_only(mount).map(Some)),
            Kind::Mount => self.on_mount(request, key, |mount, _| {
                rustix::io::fcntl_dupfd_cloexec(mount, 0).map(Some).or_else(tmpfs::step(Step::Reopen))
            }),
            Kind::Drop => {
                if let Some(hold) = self.table.remove(key) {
                    self.closer.close(hold.into_fd());
                }
                Answer::Nothing
            }
            Kind::Settle => Answer::Reply(reply(request, Status::Done, key), Attached::Nothing),
            Kind::Goodbye => Answer::End,
        }
    }

    fn create(&mut self, request: &Request) -> Answer {
        let bytes = request.bytes.get();
        let Some(shape) = Shape::from_number(request.shape.get()) else {
            return refuse(request, Status::Malformed, None);
        };
        if bytes == 0 || !bytes.is_multiple_of(self.page) {
            return refuse(request, Status::Malformed, None);
        }
        if !self.table.has_room(bytes) {
            return refuse(request, Status::Full, None);
        }
        let fresh = match tmpfs::create(bytes, self.page, shape, self.options) {
            Ok(fresh) => fresh,
            Err(why) => return refuse(request, Status::Failed, Some(why)),
        };
        // The provider gets the file; this process keeps what the last cut needs.
        let (hold, attached) = match shape {
            Shape::Sealed => {
                self.closer.close(fresh.mount);
                (Hold::File(fresh.file), None)
            }
            Shape::Open => (Hold::Mount(fresh.mount), Some(fresh.file)),
        };
        match self.table.insert(bytes, hold) {
            Ok(key) => {
                let attached = attached.map_or(Attached::Held(key), Attached::Own);
                Answer::Reply(reply(request, Status::Done, key), attached)
            }
            Err(_) => refuse(request, Status::Full, None),
        }
    }

    fn on_mount(
        &self,
        request: &Request,
        key: RegionKey,
        act: impl FnOnce(BorrowedFd<'_>, u64) -> StepResult<Option<OwnedFd>>,
    ) -> Answer {
        let Some(Hold::Mount(mount)) = self.table.get(key) else {
            return refuse(request, Status::Unknown, None);
        };
        match act(mount.as_fd(), self.page) {
            Ok(descriptor) => {
                let attached = descriptor.map_or(Attached::Nothing, Attached::Own);
                Answer::Reply(reply(request, Status::Done, key), attached)
            }
            Err(why) => refuse(request, Status::Failed, Some(why)),
        }
    }
}

fn reply(request: &Request, status: Status, key: RegionKey) -> Reply {
    Reply {
        status: (status as u32).into(),
        errno: 0.into(),
        step: (Step::None as u32).into(),
        facts: 0.into(),
        id: request.id,
        region: key.0.into(),
    }
}

fn refuse(request: &Request, status: Status, why: Option<(Step, Errno)>) -> Answer {
    let mut reply = reply(request, status, RegionKey(0));
    if let Some((step, errno)) = why {
        reply.step = (step as u32).into();
        reply.errno = errno.raw_os_error().cast_unsigned().into();
    }
    Answer::Reply(reply, Attached::Nothing)
}
