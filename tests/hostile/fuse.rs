//! A file whose server never answers a read.
//!
//! Closing it waits for nobody: every process that is started while it is open closes a copy of it, and a kernel that
//! waits there cannot be killed. So the first close is answered with "not supported", after which none asks.
//!
//! A user gets such a file from a FUSE server of its own, mounted by `fusermount`; here the test mounts it, as that
//! program would, and passes the file on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

/// Bytes of the file.
pub const BYTES: usize = 1 << 20;

const FILE_NODE: u64 = 2;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// How long the file is silent at most. Then its server ends by itself, whatever became of the test.
const SILENCE: Duration = Duration::from_secs(120);

/// The file and its server. Dropping it ends the server, which aborts the connection: the kernel fails whatever waits.
/// A process that waits cannot be killed before, so drop this before anybody waits for such a process.
pub struct Silent {
    file: OwnedFd,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Silent {
    pub fn new() -> Self {
        let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, c"source", c"silent").unwrap();
        fsconfig_set_string(&context, c"fd", device.as_raw_fd().to_string()).unwrap();
        fsconfig_set_string(&context, c"rootmode", c"40000").unwrap();
        fsconfig_set_string(&context, c"user_id", c"0").unwrap();
        fsconfig_set_string(&context, c"group_id", c"0").unwrap();
        fsconfig_set_flag(&context, c"allow_other").unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ending = over.clone();
        let server = Some(std::thread::spawn(move || serve(&device, &ending)));
        let file = openat(&mount, c"file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        drop(file.try_clone().unwrap()); // asks, and is told not to ask again
        Self { file, over, server }
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // First the server, whose end closes the device: closing the file would wait for it.
        self.over.store(true, Ordering::SeqCst);
        self.server.take().map(JoinHandle::join);
    }
}

fn serve(device: &OwnedFd, over: &AtomicBool) {
    let mut buffer = vec![0_u8; 64 << 10];
    let look = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let end = Instant::now() + SILENCE;
    while !over.load(Ordering::SeqCst) && Instant::now() < end {
        if poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&look)).unwrap_or(0) == 0 {
            continue;
        }
        let Ok(len) = rustix::io::read(device, &mut buffer) else { continue };
        let message = &buffer[..len];
        let opcode = u32::from_ne_bytes(message[4..8].try_into().unwrap());
        let unique = &message[8..16];
        let answer = match opcode {
            INIT => init(&message[40..]),
            LOOKUP => entry(),
            GETATTR => attributes_reply(),
            OPEN => vec![0; 16],
            FLUSH => {
                reply(device, unique, -libc::ENOSYS, &[]); // the kernel asks no more
                continue;
            }
            READ | FORGET | INTERRUPT | BATCH_FORGET => continue,
            _ => {
                reply(device, unique, -libc::ENOSYS, &[]);
                continue;
            }
        };
        reply(device, unique, 0, &answer);
    }
}

fn reply(device: &OwnedFd, unique: &[u8], error: i32, body: &[u8]) {
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend_from_slice(&error.to_ne_bytes());
    message.extend_from_slice(unique);
    message.extend_from_slice(body);
    let _ = rustix::io::write(device, &message); // who asked may have gone
}

/// fuse_init_out: the peer's version, one page at a time.
fn init(ask: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 64];
    body[..12].copy_from_slice(&ask[..12]); // major, minor, read-ahead
    body[20..24].copy_from_slice(&4096_u32.to_ne_bytes()); // max_write
    body
}

/// fuse_attr of one regular file that anybody may read.
fn attributes() -> Vec<u8> {
    let mut attr = vec![0; 88];
    attr[..8].copy_from_slice(&FILE_NODE.to_ne_bytes());
    attr[8..16].copy_from_slice(&(BYTES as u64).to_ne_bytes());
    attr[60..64].copy_from_slice(&0o100_644_u32.to_ne_bytes());
    attr[64..68].copy_from_slice(&1_u32.to_ne_bytes()); // one name
    attr[80..84].copy_from_slice(&4096_u32.to_ne_bytes());
    attr
}

const VALID_S: u64 = 1 << 31;

/// fuse_entry_out.
fn entry() -> Vec<u8> {
    let mut body = vec![0; 40];
    body[..8].copy_from_slice(&FILE_NODE.to_ne_bytes());
    body[16..24].copy_from_slice(&VALID_S.to_ne_bytes());
    body[24..32].copy_from_slice(&VALID_S.to_ne_bytes());
    body.extend(attributes());
    body
}

/// fuse_attr_out.
fn attributes_reply() -> Vec<u8> {
    let mut body = vec![0; 16];
    body[..8].copy_from_slice(&VALID_S.to_ne_bytes());
    body.extend(attributes());
    body
}
