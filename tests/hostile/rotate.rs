//! Attackers whose memory is rotated because somebody else loses a right: what they do with the rotation channel
//! meanwhile, and what they keep of the files before and after.
//!
//! Each is rotated once while it may go on, and is then taken back itself.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use caps::id::SlotHandle;
use caps::wire::channel::{MESSAGE_BYTES, Message};
use caps::wire::{Reply, Request};
use policy::limits;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, sockopt};
use serde::{Deserialize, Serialize};

use super::common::raw::Raw;
use super::common::{PATIENCE, SMALL, attack};
use super::keep::use_without_end;
use super::scene::{Exposed, Scene, Setting, play as scene};
use super::stage::{self, Held, Stage};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// Keeps the file and the mapping of before and of after the rotation.
    KeepsBoth,
    /// The same, and is stopped while the rotation runs.
    StopsItself,
    /// Listens and never reads, until all is over.
    NeverReads,
    /// Says what is no message, and what only a node says.
    Rubbish,
    /// Says that it took what it was not sent, something else, or the same twice.
    OutOfOrder,
    /// Says that it is ready, for its own right and for all that it can think of, and never reads.
    FloodsReady,
    /// Asks for a second channel.
    AsksTwice,
    /// Asks for segments and rights that are not its own.
    OutOfReach,
    /// Dies when it has a channel, and before it listens.
    DiesBeforeReady,
    /// Maps, gives its right back, and leaves the mapping to a child.
    ClosesAndForks,
}

/// Bytes of a segment, of which [`Row::OutOfReach`] may have the first.
const SEGMENT: u64 = SMALL / 4;
/// Messages of a flood: far more than a channel and what the node keeps of it hold.
const FLOOD: u32 = 50_000;

attacks! {
    both {
        files_of_before_and_after_a_rotation_are_dead => |setting| rotates(setting, Row::KeepsBoth);
        a_process_stopped_in_a_rotation_holds_up_nobody => |setting| rotates(setting, Row::StopsItself);
        a_channel_that_is_never_read_holds_up_nobody => |setting| rotates(setting, Row::NeverReads);
        a_right_that_was_closed_is_cut_in_a_forked_child =>
            |setting| scene(setting, Crime::Rotate(Row::ClosesAndForks));
        answers_out_of_order_end_the_channel => |setting| rotates(setting, Row::OutOfOrder);
        a_death_before_it_listens_holds_up_nobody => |setting| rotates(setting, Row::DiesBeforeReady);
        segments_out_of_reach_are_refused => |setting| rotates(setting, Row::OutOfReach);
    }
    whole("the rotation that they are about happens in either setting") {
        rubbish_ends_the_channel => |setting| rotates(setting, Row::Rubbish);
        a_flood_of_ready_ends_the_channel => |setting| rotates(setting, Row::FloodsReady);
        a_second_channel_is_refused => |setting| rotates(setting, Row::AsksTwice);
    }
}

/// What the attacker has of the fresh file when it is taken back itself.
const fn exposed(row: Row) -> Exposed {
    match row {
        // Nobody listened any more, so nothing was sent.
        Row::Rubbish | Row::AsksTwice | Row::DiesBeforeReady => Exposed::Nothing,
        Row::OutOfReach => Exposed::Bytes(SEGMENT),
        _ => Exposed::Bytes(SMALL),
    }
}

fn rotates(setting: Setting, row: Row) {
    let scene = match row {
        Row::OutOfReach => Scene::of_segments(setting, SMALL, SEGMENT),
        _ => Scene::set(setting, SMALL),
    };
    let Some(mut scene) = scene else { return };
    let mut villain = scene.villain(Crime::Rotate(row));
    scene.exposed = exposed(row);
    if row == Row::DiesBeforeReady {
        assert_eq!(villain.gone(), Some(libc::SIGKILL));
        scene.rotate();
        scene.take_back();
        scene.end(villain);
        return;
    }
    villain.ready();
    if row == Row::StopsItself {
        villain.stopped();
    }
    scene.rotate();
    if row == Row::StopsItself {
        villain.resume();
    }
    villain.rotated();
    scene.take_back();
    scene.judge(villain.after());
    scene.end(villain);
}

pub fn play(row: Row, stage: &mut Stage) {
    let mut held = stage.open();
    match row {
        Row::KeepsBoth | Row::StopsItself => {
            let line = Line::of(&mut held);
            line.ready(held.bare.handle).unwrap();
            stage.ready();
            if row == Row::StopsItself {
                // SAFETY: stops this process until the test lets it go on.
                assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
            }
            stage.await_acknowledgement();
            stage.touch("the mapping of before, while it may go on", held.start, held.bare.bytes);
            let fresh = Fresh::of(&line);
            line.say(fresh.answer).unwrap();
            stage.acknowledged();
            fresh.is_dead(stage, "of after");
            match attack::map(&held.bare.descriptor, held.bare.bytes, libc::PROT_READ | libc::PROT_WRITE) {
                Ok(start) => stage.touch("the descriptor of before", start, held.bare.bytes),
                Err(errno) => stage.tried("the descriptor of before", Outcome::Errno(errno)),
            }
        }
        Row::NeverReads => {
            let line = Line::of(&mut held);
            line.ready(held.bare.handle).unwrap();
            stage.acknowledged();
            line.await_packet();
            stage.acknowledged();
            Fresh::received(&line).is_dead(stage, "that was never received in time");
        }
        Row::Rubbish => {
            rubbish(stage);
            stage.acknowledged();
            stage.acknowledged();
        }
        Row::OutOfOrder => out_of_order(stage, &mut held),
        Row::FloodsReady => flood(stage, &mut held),
        Row::AsksTwice => {
            let line = Line::of(&mut held);
            line.ready(held.bare.handle).unwrap();
            let again = held.session.post(&Request::Channel).map(|()| held.session.receive());
            stage.tried("a second channel", answered(!matches!(again, Ok(Ok(_)))));
            stage.tried("the first channel", answered(line.is_over()));
            stage.acknowledged();
            stage.acknowledged();
        }
        Row::OutOfReach => {
            out_of_reach(stage, &mut held, "before");
            stage.acknowledged();
            out_of_reach(stage, &mut held, "after");
            let Ok(fresh) = segment(&mut held, 0) else { panic!("its own segment, in its fresh file") };
            stage.acknowledged();
            match attack::map(&fresh, SEGMENT as usize, libc::PROT_READ | libc::PROT_WRITE) {
                Ok(start) => stage.touch("the fresh segment", start, SEGMENT as usize),
                Err(errno) => stage.tried("the fresh segment", Outcome::Errno(errno)),
            }
        }
        Row::DiesBeforeReady => {
            let _line = Line::of(&mut held);
            // SAFETY: ends this process.
            unsafe { libc::raise(libc::SIGKILL) };
        }
        Row::ClosesAndForks => {
            let child = stage::fork(|| use_without_end(held.start, held.bare.bytes, true));
            let closed = held.session.ask(&Request::Close { handle: held.bare.handle });
            assert!(matches!(closed, Ok(Reply::Done)), "{closed:?}");
            stage.acknowledged();
            let ended = stage::reap(child).map_or_else(Outcome::Signal, |_| Outcome::Done);
            stage.tried("the child", ended);
        }
    }
    stage.touch("the mapping of before", held.start, held.bare.bytes);
    drop(held.session);
}

/// The client's end of a rotation channel, spoken by hand.
struct Line(OwnedFd);

impl Line {
    fn of(held: &mut Held) -> Self {
        held.session.post(&Request::Channel).unwrap();
        let Ok((Reply::Channel, Some(line))) = held.session.receive() else { panic!("no channel") };
        rustix::fs::fcntl_setfl(&line, OFlags::empty()).unwrap(); // it comes nonblocking, for signal handlers
        for kind in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&line, kind, Some(PATIENCE)).unwrap();
        }
        Self(line)
    }

    fn say(&self, message: Message) -> rustix::io::Result<()> {
        self.send(&message.encode())
    }

    fn ready(&self, handle: SlotHandle) -> rustix::io::Result<()> {
        self.say(Message::Ready { handle })
    }

    fn send(&self, packet: &[u8]) -> rustix::io::Result<()> {
        rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits until there is something to receive, and leaves it there.
    fn await_packet(&self) {
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None).unwrap();
        assert_eq!(ready, 1);
    }

    /// The next message; `None` at the end.
    fn receive(&self) -> Option<(Message, Option<OwnedFd>)> {
        let mut buffer = [0; MESSAGE_BYTES];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let into = &mut [IoSliceMut::new(&mut buffer)];
        let got = match rustix::net::recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) if got.bytes > 0 => got.bytes,
            Ok(_) | Err(Errno::CONNRESET) => return None,
            Err(errno) => panic!("the node neither says anything nor hangs up: {errno}"),
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Some((Message::decode(&buffer[..got]).unwrap(), descriptor))
    }

    /// Whether the node has hung up, or does so now; what it said before is thrown away.
    fn is_over(&self) -> bool {
        std::iter::from_fn(|| self.receive()).take(2 * FLOOD as usize).count() < 2 * FLOOD as usize
    }
}

/// A fresh segment, mapped.
struct Fresh {
    descriptor: OwnedFd,
    start: Option<*mut u8>,
    answer: Message,
}

impl Fresh {
    /// Waits for the next and maps it, which must show the region's bytes.
    fn of(line: &Line) -> Self {
        let fresh = Self::received(line);
        let start = fresh.start.expect("a fresh segment can be mapped");
        // SAFETY: a byte of the mapping just made, which is alive.
        assert_ne!(unsafe { start.add(1024).read_volatile() }, 0, "it sees the bytes while it may");
        fresh
    }

    fn received(line: &Line) -> Self {
        let Some((Message::Segment { handle, index, .. }, Some(descriptor))) = line.receive() else {
            panic!("no fresh segment")
        };
        let start = attack::map(&descriptor, SMALL as usize, libc::PROT_READ | libc::PROT_WRITE).ok();
        Self { descriptor, start, answer: Message::Taken { handle, index } }
    }

    fn is_dead(&self, stage: &mut Stage, which: &str) {
        if let Some(start) = self.start {
            stage.touch(&format!("the mapping {which}"), start, SMALL as usize);
        }
        match attack::map(&self.descriptor, SMALL as usize, libc::PROT_READ | libc::PROT_WRITE) {
            Ok(start) => stage.touch(&format!("the descriptor {which}"), start, SMALL as usize),
            Err(errno) => stage.tried(format!("the descriptor {which}"), Outcome::Errno(errno)),
        }
    }
}

const fn answered(well: bool) -> Outcome {
    if well { Outcome::Answered } else { Outcome::Done }
}

fn rubbish(stage: &mut Stage) {
    let handle = SlotHandle { slot: 0, epoch: 1 };
    let ready = Message::Ready { handle }.encode();
    let mut unknown = ready;
    unknown[0] = 0xff;
    let packets = [
        ("a short packet", ready[..MESSAGE_BYTES - 1].to_vec()),
        ("a long packet", [&ready[..], &[0]].concat()),
        ("a packet as long as any", vec![0xa5; 64 << 10]),
        ("an unknown kind", unknown.to_vec()),
        ("what a node says", Message::Ended { handle }.encode().to_vec()),
    ];
    for (what, packet) in packets {
        let mut held = stage.open();
        let line = Line::of(&mut held);
        line.ready(held.bare.handle).unwrap();
        line.send(&packet).unwrap();
        stage.tried(what, answered(line.is_over()));
    }
}

fn out_of_order(stage: &mut Stage, held: &mut Held) {
    let line = Line::of(held);
    line.ready(held.bare.handle).unwrap();
    line.say(Message::Taken { handle: held.bare.handle, index: 0 }).unwrap();
    stage.tried("taken, and nothing was sent", answered(line.is_over()));
    let listening = |stage: &Stage| {
        let mut held = stage.open();
        let line = Line::of(&mut held);
        line.ready(held.bare.handle).unwrap();
        (held, line)
    };
    let (other, twice) = (listening(stage), listening(stage));
    stage.acknowledged();
    let (wrong, right) = (Fresh::of(&other.1), Fresh::of(&twice.1));
    let Message::Taken { handle, index } = wrong.answer else { unreachable!("it is an answer") };
    other.1.say(Message::Taken { handle, index: index + 1 }).unwrap();
    stage.tried("another segment taken", answered(other.1.is_over()));
    twice.1.say(right.answer).unwrap();
    // The second may come after the end.
    let _ = twice.1.say(right.answer);
    stage.tried("taken twice", answered(twice.1.is_over()));
    stage.acknowledged();
    wrong.is_dead(stage, "of one that took another");
    right.is_dead(stage, "of one that took twice");
}

fn flood(stage: &mut Stage, held: &mut Held) {
    let line = Line::of(held);
    let sent = |n| line.ready(SlotHandle { slot: n, epoch: u32::MAX });
    let hung_up = (0..FLOOD).find_map(|n| sent(n).err()).is_some_and(|errno| errno != Errno::AGAIN);
    stage.tried("rights that are nobody's", answered(hung_up));
    let mut own = stage.open();
    let line = Line::of(&mut own);
    for _ in 0..FLOOD {
        line.ready(own.bare.handle).unwrap(); // the same again is no more than once
    }
    stage.acknowledged();
    line.await_packet();
    stage.acknowledged();
    Fresh::received(&line).is_dead(stage, "of a flood");
}

/// The descriptor of a segment, or that there is none to be had.
fn segment(held: &mut Held, index: u32) -> Result<OwnedFd, ()> {
    ask_for(&mut held.session, held.bare.handle, index)
}

fn ask_for(session: &mut Raw, handle: SlotHandle, index: u32) -> Result<OwnedFd, ()> {
    session.post(&Request::Segment { handle, index }).unwrap();
    match session.receive() {
        Ok((_, Some(descriptor))) => Ok(descriptor),
        Ok((reply, None)) => panic!("{reply:?}"),
        Err(_) => Err(()),
    }
}

fn out_of_reach(stage: &mut Stage, held: &mut Held, when: &str) {
    for index in (1..=(SMALL / SEGMENT) as u32).chain([u32::MAX]) {
        let refused = segment(held, index).is_err();
        stage.tried(format!("{when}: segment {index}"), answered(refused));
    }
    let own = held.bare.handle;
    // Each guess is a fault, and a session is ended after so many.
    let mut guesser = stage.connect();
    let mut left = limits::FAULTS_PER_SESSION_MAX;
    for (slot, epoch) in (0..16).flat_map(|slot| (0..4).map(move |epoch| (slot, epoch))) {
        let handle = SlotHandle { slot, epoch };
        if handle != own {
            if left == 1 {
                (guesser, left) = (stage.connect(), limits::FAULTS_PER_SESSION_MAX);
            }
            left -= 1;
            let refused = ask_for(&mut guesser, handle, 0).is_err();
            stage.tried(format!("{when}: {handle:?}"), answered(refused));
        }
    }
}
