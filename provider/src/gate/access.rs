//! Bytes and descriptors over the local socket.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::Reply;
use caps::wire::frame::{self, FrameKind};
use caps::wire::request::Path;
use policy::limits;
use tokio::time::timeout;

use super::fault::Access;
use super::memory::Answer;
use super::session::{Session, timed, unread};
use super::socket::{Socket, lost};
use crate::runtime::{Progress, Rotating};

/// How long one request may still wait: a deadline of its own for each thing it waits for, however often it has to
/// wait for it again.
struct Patience {
    began: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Waits until an answer may fit the client's socket.
    async fn for_room(&mut self, socket: &Socket) -> Result<()> {
        let left = self.left(limits::SEND_MS_MAX).ok_or_else(unread)?;
        timeout(left, socket.writable()).await.map_err(|_| unread())?.map_err(lost)
    }

    /// Waits until a rotated segment is there again.
    async fn for_segment(&mut self, rotating: &Rotating) -> Result<()> {
        let busy = || Error::new(Code::Busy, "a segment of the region is being rotated; try again");
        let left = self.left(limits::ROTATION_WAIT_MS_MAX).ok_or_else(busy)?;
        timeout(left, rotating.over()).await.map_err(|_| busy())?;
        // Whether the client reads is judged from here on: it could not before.
        self.began = Instant::now();
        Ok(())
    }

    fn left(&self, bound_ms: u64) -> Option<Duration> {
        Duration::from_millis(bound_ms).checked_sub(self.began.elapsed())
    }
}

impl Session {
    /// Opens a right: mapped ones are the local socket's alone.
    pub(super) async fn open(&mut self, token: &Token, rights: Rights, path: Path) -> Result<Answer> {
        if path == Path::Mapped {
            // Before anything is opened: a right whose descriptor cannot be sent would stay open without a handle.
            self.ready_for_descriptor().await?;
        }
        self.visitor.open(token, rights, path).await
    }

    pub(super) async fn read(
        &mut self,
        id: RequestId,
        handle: SlotHandle,
        offset: u64,
        length: u32,
    ) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            let socket = self.socket.clone();
            let progress = self.visitor.shared.provider.read(
                self.visitor.opener.session,
                handle,
                offset,
                length,
                |bytes| {
                    let reply = Reply::Data { bytes: bytes.to_vec(), crc: crc32c::crc32c(bytes) };
                    let packet = frame::encode(FrameKind::Reply, id, &reply)?;
                    socket.try_send(&packet, None).map_err(lost)
                },
            );
            let asked = Access { rights: Rights::READ, offset, bytes: length.into() };
            match progress.map_err(|refused| self.visitor.refused(handle, asked, refused))? {
                Progress::Done => return Ok(Answer::Sent),
                Progress::Full => patience.for_room(&self.socket).await?,
                Progress::Rotating(rotating) => patience.for_segment(&rotating).await?,
            }
        }
    }

    pub(super) async fn write(
        &mut self,
        handle: SlotHandle,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            let progress =
                self.visitor.shared.provider.write(self.visitor.opener.session, handle, offset, bytes, crc);
            let asked = Access { rights: Rights::WRITE, offset, bytes: bytes.len() as u64 };
            match progress.map_err(|refused| self.visitor.refused(handle, asked, refused))? {
                Progress::Done => return Ok(Answer::Reply(Reply::Done)),
                Progress::Full => tokio::task::yield_now().await,
                Progress::Rotating(rotating) => patience.for_segment(&rotating).await?,
            }
        }
    }

    /// The descriptor of one more segment of a mapped right.
    pub(super) async fn segment(&mut self, handle: SlotHandle, index: u32) -> Result<Answer> {
        self.ready_for_descriptor().await?;
        let descriptor = self
            .visitor
            .shared
            .provider
            .segment(self.visitor.opener.session, handle, index)
            .await
            .map_err(|error| self.visitor.no_such_handle(handle, error))?;
        Ok(Answer::WithDescriptor(Reply::Segment { index }, descriptor))
    }

    /// Waits until the client has read everything, so that the one descriptor that follows is the only one under way.
    /// A client that has just closed another right reads the answer to that while it waits for this one.
    pub(super) async fn ready_for_descriptor(&self) -> Result<()> {
        timed(self.socket.drained()).await.map_err(|error| match error.code() {
            Code::Timeout => Error::new(Code::Busy, "read the answers before asking for a descriptor"),
            _ => error,
        })
    }
}
