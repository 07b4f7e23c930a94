//! What attackers send beside their requests, and the descriptors that they are sent and do not take.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use caps::wire::request::Path;
use caps::wire::{Reply, Request};
use libmem::Rights;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::common::raw::Raw;
use super::common::{SMALL, attack};
use super::fuse::Silent;
use super::scene::{Scene, Setting, play as scene};
use super::stage::{Stage, refused};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// A file of a FUSE server that never answers.
    Silent,
    /// As many descriptors as one message may have.
    Most,
    /// A FIFO, a file, and the region's own descriptor.
    Ordinary,
    /// Control data that is shorter than it says, or longer than there is.
    CrookedControl,
    /// No room for the descriptor that comes.
    NoRoom,
    /// Many rights asked for, and nothing ever received.
    NeverReceives,
}

/// The most descriptors of one message (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;
/// Sessions of [`Row::NeverReceives`], and rights that each asks for.
const SESSIONS: usize = 16;
const RIGHTS: usize = 32;

attacks! {
    both {
        a_fuse_descriptor_never_arrives => silent;
        a_descriptor_without_room_is_lost_and_the_revoke_is_not => |setting| scene(setting, Crime::Send(Row::NoRoom));
        descriptors_that_are_never_received_are_dead => |setting| scene(setting, Crime::Send(Row::NeverReceives));
    }
    whole("what the socket refuses has nothing to do with memory") {
        as_many_descriptors_as_a_message_may_have_never_arrive => |setting| scene(setting, Crime::Send(Row::Most));
        descriptors_of_any_kind_never_arrive => |setting| scene(setting, Crime::Send(Row::Ordinary));
        crooked_control_data_is_refused => |setting| scene(setting, Crime::Send(Row::CrookedControl));
    }
}

fn silent(setting: Setting) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    let mut villain = scene.villain(Crime::Send(Row::Silent));
    let file = Silent::new(); // after the villain: whatever happens here, it ends first
    villain.give(file.file());
    villain.ready();
    scene.take_back();
    drop(file);
    scene.judge(villain.after());
    scene.end(villain);
}

pub fn play(row: Row, stage: &mut Stage) {
    let mut held = stage.open();
    match row {
        Row::Silent => {
            let file = stage.take();
            for n in 0..8 {
                let sent = send(&mut held.session, &[file.as_fd()]);
                stage.tried(format!("message {n}"), sent);
            }
            stage.acknowledged();
        }
        Row::Most => {
            let (out, _into) = rustix::pipe::pipe().unwrap();
            for count in [DESCRIPTORS_MAX, DESCRIPTORS_MAX - 1, 2] {
                let sent = send(&mut held.session, &vec![out.as_fd(); count]);
                stage.tried(format!("{count} descriptors"), sent);
            }
            stage.acknowledged();
        }
        Row::Ordinary => {
            let (out, _into) = rustix::pipe::pipe().unwrap();
            let file = File::open("/proc/self/exe").unwrap();
            let own = held.bare.descriptor.try_clone().unwrap();
            for (what, descriptor) in [("FIFO", out.as_fd()), ("file", file.as_fd()), ("own", own.as_fd())] {
                let sent = send(&mut held.session, &[descriptor]);
                stage.tried(what, sent);
            }
            stage.acknowledged();
        }
        Row::CrookedControl => {
            for length in [0, 1, size_of::<libc::cmsghdr>() - 1, 4096, usize::MAX] {
                let sent = crooked(&held.session, length);
                stage.tried(format!("cmsg_len {length}"), sent);
            }
            // The session is none the worse.
            assert!(matches!(held.session.ask(&Request::Status), Ok(Reply::Status(_))));
            stage.acknowledged();
        }
        Row::NoRoom => {
            let mut other = Raw::connect(&stage.socket, &stage.key).unwrap();
            let open =
                Request::Open { token: stage.token.clone(), rights: Rights::READ_WRITE, path: Path::Mapped };
            for _ in 0..8 {
                other.post(&open).unwrap();
                // read(2) has room for bytes alone: the kernel closes the descriptor.
                let mut reply = vec![0; 64 << 10];
                assert!(rustix::io::read(other.as_fd(), &mut reply).unwrap() > 0);
            }
            stage.acknowledged();
        }
        Row::NeverReceives => {
            never_receives(stage);
        }
    }
    stage.touch("the old mapping", held.start, held.bare.bytes);
    drop(held.session);
}

fn never_receives(stage: &mut Stage) {
    let open = Request::Open { token: stage.token.clone(), rights: Rights::READ_WRITE, path: Path::Mapped };
    let mut sessions: Vec<_> =
        (0..SESSIONS).map(|_| Raw::connect(&stage.socket, &stage.key).unwrap()).collect();
    for session in &mut sessions {
        for _ in 0..RIGHTS {
            let packet = session.packet(&open);
            // What no longer fits is not asked.
            let _ = rustix::net::send(session.as_fd(), &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
    stage.acknowledged();
    for session in &sessions {
        match session.receive() {
            Ok((Reply::Opened(_), Some(descriptor))) => {
                match attack::map(&descriptor, SMALL as usize, libc::PROT_READ | libc::PROT_WRITE) {
                    Ok(start) => stage.touch("a descriptor received late", start, SMALL as usize),
                    Err(errno) => stage.tried("a descriptor received late", Outcome::Errno(errno)),
                }
            }
            Ok((_, Some(_))) => stage.tried("a descriptor beside another answer", Outcome::Done),
            Ok((_, None)) | Err(_) => stage.tried("no descriptor", Outcome::Answered),
        }
    }
}

/// Sends a request with descriptors. Where the kernel lets them pass, the node answers as if there were none.
fn send(session: &mut Raw, descriptors: &[BorrowedFd<'_>]) -> Outcome {
    let packet = session.packet(&Request::Status);
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    match sendmsg(session.as_fd(), &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL) {
        Err(errno) => Outcome::Errno(errno.raw_os_error()),
        Ok(_) => match session.receive() {
            Ok((Reply::Status(_), None)) => Outcome::Answered,
            other => panic!("{other:?}"),
        },
    }
}

/// Sends a byte with one header of control data that says `length`.
fn crooked(session: &Raw, length: usize) -> Outcome {
    let header =
        libc::cmsghdr { cmsg_len: length as _, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let mut byte = 0_u8;
    let mut piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all zeros is a message of nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = (&raw const header).cast_mut().cast();
    message.msg_controllen = size_of_val(&header) as _;
    // SAFETY: every pointer of the message is to a value that lives through the call, with the length it has.
    refused(
        unsafe { libc::sendmsg(session.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as i64
    )
}
