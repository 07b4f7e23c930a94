//! Group M: the socket, its path, who may connect, descriptors; and sessions that do everything in the wrong order.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::error::Code;
use caps::id::{PrincipalKey, SlotHandle};
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::wire::{Reply, Request};
use policy::limits;

use super::bed::{Bed, Logged};
use super::node::{Node, directory, until, up};
use super::wire::{Got, Raw, invented};

/// Users that nothing on the machine knows.
pub const USERS: [u32; 2] = [61_190, 61_191];

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `act` in a thread that is another user. Only root can become one.
pub fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let user = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        other.join().unwrap()
    })
}

/// The code that a fresh connection is refused with, `None` if it is served.
fn greeted(path: &Path) -> Option<Code> {
    let mut raw = Raw::connect(path).unwrap();
    match raw.hello(SigningKey::generate().public()) {
        Ok(_) => None,
        // A refusal may stand in the socket before the hello does.
        Err(error) => Some(error.code()),
    }
}

#[test]
fn m1_a_user_who_is_not_on_the_list() {
    if !is_root() {
        return println!("needs root, to be other users");
    }
    for (config, served) in [("", false), ("[node]\nallow_uids = [61190]\n", true)] {
        let mut bed = Bed::new(config);
        let path = bed.node.socket();
        assert_eq!(as_user(USERS[0], || greeted(&path)).is_none(), served);
        bed.row_with("M1", Code::PeerUid, Logged::Gathered, 300, &mut |_| {
            as_user(USERS[1], || greeted(&path)).unwrap_or(Code::Internal)
        });
        bed.finish();
    }
}

/// Ends a loop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn m2_connecting_while_the_node_starts() {
    let dir = directory();
    let path = dir.path().join("node.sock");
    let (going, tried) = (AtomicBool::new(true), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        let hammer = scope.spawn(|| {
            let (mut early, mut later) = (0, 0);
            while going.load(Ordering::Relaxed) {
                tried.fetch_add(1, Ordering::Relaxed);
                match Raw::connect(&path) {
                    Err(_) => early += 1,
                    // Who gets in at all is served as at any time.
                    Ok(mut raw) => {
                        later += 1;
                        assert!(raw.begin(&SigningKey::generate()).is_ok());
                        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
                    }
                }
            }
            (early, later)
        });
        until("the hammer is going", || (tried.load(Ordering::Relaxed) > 1_000).then_some(()));
        let stop = Stop(&going);
        let node = Node::start_in(dir, "");
        let ready = tried.load(Ordering::Relaxed);
        until("some get in", || (tried.load(Ordering::Relaxed) > ready + 100).then_some(()));
        drop(stop);
        let (early, later) = hammer.join().unwrap();
        assert!(early > 1_000 && later >= 100, "{early} {later}");
        node.stop();
    });
}

#[test]
fn m9_clients_that_leave_and_clients_that_do_not_read() {
    let mut bed = Bed::new("");
    let path = bed.node.socket();
    bed.row_with("M9 gone at once", Code::Unreachable, Logged::Gathered, 1_000, &mut |_| {
        drop(Raw::connect(&path).unwrap());
        Code::Unreachable
    });
    bed.row_with("M9 gone after hello", Code::Unreachable, Logged::Gathered, 1_000, &mut |_| {
        Raw::connect(&path).unwrap().hello(SigningKey::generate().public()).unwrap();
        Code::Unreachable
    });
    // One that asks and never reads: its answers fill the socket, and then it has its time.
    let before = bed.node.held().descriptors;
    let mut lazy: Vec<_> = (0..8).map(|_| bed.session()).collect();
    let handles: Vec<_> =
        lazy.iter_mut().map(|raw| raw.open(&bed.token, Rights::READ).unwrap().handle).collect();
    for (raw, handle) in lazy.iter_mut().zip(handles) {
        rustix::io::ioctl_fionbio(&raw.socket, true).unwrap();
        for _ in 0..64 {
            // What no longer fits stays here.
            let _ = raw.post(&Request::Read { handle, offset: 0, length: 64 * 1024 });
        }
    }
    let mut polite = bed.session();
    until("those who do not read are ended", || {
        assert!(polite.ask(&Request::Status).is_ok());
        bed.check_bystander();
        (bed.node.held().descriptors <= before + 2).then_some(())
    });
    let entries = bed.finish();
    let told = |entry: &&String| entry.contains("fault.protocol") && entry.contains("E_TIMEOUT");
    assert!(entries.iter().any(|entry| told(&entry)), "it is on record");
}

#[test]
fn sessions_that_stop_half_way_end_in_time_and_hold_up_nobody() {
    let mut bed = Bed::new("");
    let before = bed.node.held().descriptors;
    let stalled: Vec<_> = (0..100)
        .map(|n| {
            let mut raw = Raw::connect(&bed.node.socket()).unwrap();
            if n % 2 == 0 {
                raw.hello(SigningKey::generate().public()).unwrap();
            }
            raw
        })
        .collect();
    bed.session();
    bed.check_bystander();
    for raw in &stalled {
        assert_eq!(raw.answer().map(drop).unwrap_err().code(), Code::Timeout);
        assert!(raw.is_ended());
    }
    drop(stalled);
    until("their descriptors come back", || (bed.node.held().descriptors <= before).then_some(()));
    bed.finish();
}

#[test]
fn m10_something_stands_at_the_sockets_path() {
    type Squat = fn(&Path);
    let squats: [(&str, Squat); 5] = [
        ("a link to nothing", |path| std::os::unix::fs::symlink("/nonexistent", path).unwrap()),
        ("a link to a socket", |path| {
            let elsewhere = path.with_file_name("other.sock");
            std::mem::forget(std::os::unix::net::UnixListener::bind(&elsewhere).unwrap());
            std::os::unix::fs::symlink(elsewhere, path).unwrap();
        }),
        ("a file", |path| fs::write(path, "").unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a FIFO", |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
    ];
    for (what, squat) in squats {
        let dir = directory();
        let path = dir.path().join("node.sock");
        squat(&path);
        let refused = up(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{what}: {said}");
        assert!(super::files::says(&said, Code::ConfigPerms), "{what}: {said}");
        assert!(path.symlink_metadata().is_ok(), "{what}: what is not ours is left alone");
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = directory();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = up(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(super::files::says(&said, Code::ConfigPerms), "{said}");
}

#[test]
fn descriptors_from_a_client_never_arrive() {
    let mut bed = Bed::new("");
    let (fifo, _other) = rustix::pipe::pipe().unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    let status =
        caps::wire::frame::encode(caps::wire::FrameKind::Request, caps::id::RequestId(1), &Request::Status)
            .unwrap();
    let raw = bed.session();
    let before = bed.node.held().descriptors;
    let many: Vec<BorrowedFd<'_>> = std::iter::repeat_n(fifo.as_fd(), 250).collect();
    for _ in 0..200 {
        for descriptors in [&[fifo.as_fd()][..], &[file.as_fd(), raw.as_fd()], &many] {
            match raw.send_with(&status, descriptors) {
                // The kernel refuses them on the node's word, before anything is sent.
                Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
                // An older kernel drops them: the node has no room for any.
                Ok(()) => assert!(matches!(raw.answer(), Ok(Reply::Status(_)))),
            }
        }
    }
    assert!(bed.node.held().descriptors <= before, "{before}");
    raw.send(&status).unwrap();
    assert!(matches!(raw.answer(), Ok(Reply::Status(_))), "the session goes on");
    bed.check_bystander();
    bed.finish();
}

#[test]
fn messages_in_the_wrong_order_and_proofs_that_are_none() {
    let mut bed = Bed::new("");
    let (key, thief) = (SigningKey::generate(), SigningKey::generate());
    let path = bed.node.socket();
    let connect = || Raw::connect(&path).unwrap();
    bed.row("a request first", Code::Protocol, Logged::Gathered, |_| connect().refusal(&Request::Status));
    bed.row("a proof first", Code::Protocol, Logged::Gathered, |_| {
        connect().refusal(&Request::Prove { signature: invented(key.public()).sign(&key) })
    });
    bed.row("hello twice", Code::Protocol, Logged::Gathered, |_| {
        let mut raw = connect();
        raw.hello(key.public()).unwrap();
        raw.hello(key.public()).unwrap_err().code()
    });
    bed.row("another's signature", Code::Possession, Logged::Gathered, |_| {
        let mut raw = connect();
        let transcript = raw.hello(key.public()).unwrap();
        raw.refusal(&Request::Prove { signature: transcript.sign(&thief) })
    });
    let recorded = {
        let mut raw = connect();
        let transcript = raw.hello(key.public()).unwrap();
        transcript.sign(&key)
    };
    bed.row("a proof of another session", Code::Possession, Logged::Gathered, |_| {
        let mut raw = connect();
        raw.hello(key.public()).unwrap();
        raw.refusal(&Request::Prove { signature: recorded })
    });
    // The neutral element: every signature of a certain form verifies for every message under a key of small order.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    bed.row("a key of small order", Code::Possession, Logged::Gathered, |_| {
        let mut raw = connect();
        let mut transcript = raw.hello(PrincipalKey(neutral)).unwrap();
        transcript.holder = PrincipalKey(neutral);
        raw.refusal(&Request::Prove { signature: transcript.sign(&thief) })
    });
    bed.row_with("hello again", Code::Protocol, Logged::Entry, 100, &mut |bed| {
        let mut raw = bed.session();
        let code = raw.hello(key.public()).unwrap_err().code();
        assert!(raw.is_ended());
        code
    });
    bed.finish();
}

#[test]
fn handles_of_others_of_nobody_and_of_the_past() {
    let mut bed = Bed::new("");
    let (mut mine, mut other) = (bed.session(), bed.session());
    let theirs = other.open(&bed.token, Rights::READ_WRITE).unwrap().handle;
    let past = mine.open(&bed.token, Rights::READ_WRITE).unwrap().handle;
    mine.ask(&Request::Close { handle: past }).unwrap();
    let again = mine.open(&bed.token, Rights::READ_WRITE).unwrap().handle;
    assert_eq!(again.slot, past.slot, "the slot is used again");
    let mut thief = bed.session();
    for (row, handle) in [
        ("another session's", theirs),
        ("closed", past),
        ("of a generation to come", SlotHandle { epoch: again.epoch + 1, ..again }),
        ("generation 0", SlotHandle { epoch: 0, ..again }),
        ("out of the table", SlotHandle { slot: limits::SLOTS_MAX as u32, epoch: 1 }),
        ("far out of the table", SlotHandle { slot: u32::MAX, epoch: u32::MAX }),
    ] {
        for request in [
            Request::Read { handle, offset: 0, length: 1 },
            Request::Write { handle, offset: 0, data: vec![1], crc: crc32c::crc32c(&[1]) },
        ] {
            bed.row_with(row, Code::Revoked, Logged::Entry, 1_000, &mut |bed| {
                // Its own right that has ended ends no session; the node's patience with any other does.
                if handle == past {
                    return mine.refusal(&request);
                }
                match thief.refusal(&request) {
                    Code::Unreachable => {
                        thief = bed.session();
                        thief.refusal(&request)
                    }
                    code => code,
                }
            });
        }
        assert_eq!(mine.refusal(&Request::Close { handle }), Code::Revoked, "{row}");
    }
    assert!(other.read(theirs, 0, 1).is_ok() && mine.read(again, 0, 1).is_ok());
    bed.finish();
}

#[test]
fn sessions_up_to_the_bound_and_recovery() {
    let mut bed = Bed::new("");
    more_descriptors();
    // All but the bystander's. The places of sessions that ended come back a moment later, so a first refusal does not
    // mean that the bound is reached.
    let sessions: Vec<_> = (1..limits::SESSIONS_PER_UID_MAX)
        .map(|_| until("a place", || Raw::session(&bed.node.socket(), &bed.mallory).ok()))
        .collect();
    bed.row("one too many", Code::Busy, Logged::Gathered, |bed| {
        Raw::connect(&bed.node.socket()).unwrap().answer().map(drop).unwrap_err().code()
    });
    let before = bed.node.held();
    drop(sessions);
    until("a session again", || Raw::session(&bed.node.socket(), &bed.mallory).ok());
    until("descriptors come back", || {
        (bed.node.held().descriptors + 2 * 400 <= before.descriptors).then_some(())
    });
    bed.check_bystander();
    bed.finish();
}

#[test]
fn connecting_and_leaving_in_a_loop_takes_nobodys_place() {
    let bed = Bed::new("");
    for _ in 0..3 * limits::SESSIONS_PER_UID_MAX {
        // `session` would panic on E_BUSY.
        drop(bed.session());
    }
    bed.finish();
}

#[test]
fn two_users_cannot_lock_out_those_who_run_the_node() {
    if !is_root() {
        return println!("needs root, to be other users");
    }
    let mut bed = Bed::new("[node]\nallow_uids = [61190, 61191]\n");
    more_descriptors();
    let path = bed.node.socket();
    let key = SigningKey::generate();
    let mut sessions = Vec::new();
    for user in USERS {
        sessions.extend(as_user(user, || {
            let begin = || Raw::session(&path, &key).ok().map(|(raw, _)| raw);
            std::iter::from_fn(begin).collect::<Vec<_>>()
        }));
    }
    assert!(sessions.len() <= limits::SESSIONS_MAX - limits::SESSIONS_RESERVED, "{}", sessions.len());
    assert!(sessions.len() >= limits::SESSIONS_PER_UID_MAX);
    let (mut admin, _) = Raw::session(&path, &bed.node.admin()).expect("the administrator gets in");
    assert!(admin.ask(&Request::Status).is_ok());
    bed.check_bystander();
    drop(sessions);
    bed.finish();
}

#[test]
fn opens_up_to_the_bound_of_a_session_and_recovery() {
    let mut bed = Bed::new("");
    let mut raw = bed.session();
    let mut handles = Vec::new();
    let code = loop {
        match raw.open(&bed.token, Rights::READ) {
            Ok(opened) => handles.push(opened.handle),
            Err(error) => break error.code(),
        }
    };
    assert_eq!((code, handles.len()), (Code::Quota, limits::SLOTS_PER_SESSION_MAX));
    bed.check_bystander();
    raw.ask(&Request::Close { handle: handles[7] }).unwrap();
    assert!(raw.open(&bed.token, Rights::READ).is_ok(), "one back, one more");
    drop(raw);
    let mut other = bed.session();
    until("all are closed with their session", || {
        match other.ask(&Request::LeaseShow { lease: bed.lease.id }) {
            Ok(Reply::Lease { memory: Some(memory), .. }) => (memory.opens == 0).then_some(()),
            other => panic!("{other:?}"),
        }
    });
    bed.finish();
}

/// Raises this process' limit of descriptors.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let bed = Bed::new("");
    let mut raw = bed.session();
    let posted: Vec<_> = (0..200).map(|_| raw.post(&Request::Status).unwrap()).collect();
    for id in posted {
        let Got::Packet(packet) = raw.receive() else { panic!("the node hung up") };
        assert_eq!(caps::wire::Frame::decode(&packet).unwrap().request.0, id);
    }
    bed.finish();
}
