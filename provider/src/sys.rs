//! The few system calls of the gate that no wrapper crate has, each as a safe function.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// `SO_PEERPIDFD` (asm-generic/socket.h, Linux 6.5).
const SO_PEERPIDFD: libc::c_int = 77;
/// `SO_PASSRIGHTS` (asm-generic/socket.h, Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;
/// `PIDFD_INFO_EXIT` (linux/pidfd.h, Linux 6.15): ask for, and was answered with, the exit status.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` in its first published form, 64 bytes (linux/pidfd.h). The kernel fills in what fits.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);
/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`: direction 3, 64 bytes, magic 0xff.
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xff << 8) | 11;

/// Bytes that were sent on a Unix socket and that the peer has not read, or on a TCP socket and that the peer's kernel
/// has not acknowledged. Of a TCP connection that is over ([`is_over`]) it says nothing.
pub(crate) fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (= TIOCOUTQ) writes one int to the address (net/unix/af_unix.c, unix_ioctl; net/ipv4/tcp.c,
    // tcp_ioctl), which is that of a live local of that type; the descriptor is borrowed and so open.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

/// Whether the kernel has nothing to do with a TCP connection any more: reset by the peer or by [`discard`], or closed by
/// both and acknowledged. Nothing that was ever written to it leaves after that.
pub(crate) fn is_over(socket: BorrowedFd<'_>) -> io::Result<bool> {
    /// `TCP_CLOSE` (net/tcp_states.h).
    const CLOSED: u8 = 7;
    let mut state: u8 = 0;
    let mut length = size_of_val(&state) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the first of `struct tcp_info`, which is the state
    // (linux/tcp.h), to the address of a live byte.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(state == CLOSED) }
}

/// Throws a TCP connection away with all that is in its send queue, and tells the peer by a reset. Unlike a close it does
/// not wait for other descriptors of the socket, and unlike a shutdown it sends nothing of the queue.
pub(crate) fn discard(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nobody = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, the address family, from the address of a live local of that type. It asks
    // for no more of this family (net/ipv4/af_inet.c, inet_stream_connect).
    let done = unsafe { libc::connect(socket.as_raw_fd(), (&raw const nobody).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor of the process at the other end of a Unix socket, as it was when it connected. Unlike a pid it can
/// never come to mean another process.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of_val(&fd) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, an int, to the address of a live int.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if done < 0 || fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a successful SO_PEERPIDFD installs a new descriptor in this process and returns it (net/core/sock.c,
    // sk_getsockopt); nobody else knows the number, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the kernel refuse descriptors that the peer sends. Best effort: kernels before 6.16 do not know it, and
/// the gate never has room to receive one anyway.
pub(crate) fn refuse_descriptors(socket: BorrowedFd<'_>) {
    let off: libc::c_int = 0;
    // SAFETY: the kernel reads one int from the address of a live int; failure changes nothing.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of_val(&off) as libc::socklen_t,
        );
    }
}

/// The wait status of a process that was reaped; `None` while it is not, or where the kernel (before 6.15) does not
/// say.
pub(crate) fn wait_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size, so the kernel writes at most the 64 bytes of a live struct of
    // that size, all of whose fields are plain integers (fs/pidfs.c, pidfd_info).
    let done = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Has the async runtime watch a descriptor.
///
/// # Errors
/// What epoll says: no room, or a descriptor that cannot be watched.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is an open descriptor, stays open and the same until it is dropped, and always answers
    // with the same number; the `AsyncFd` owns it for as long as it watches.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_reaped_child_says_how_it_died() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert_eq!(wait_status(&pidfd), None, "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(wait_status(&pidfd), Some(libc::SIGKILL));
    }

    #[test]
    fn unread_bytes_fall_to_zero_when_the_peer_reads() {
        use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        assert_eq!(unread_bytes(a.as_fd()).unwrap(), 0);
        rustix::net::send(&a, b"packet", SendFlags::empty()).unwrap();
        assert!(unread_bytes(a.as_fd()).unwrap() > 0);
        let mut buffer = [0; 16];
        rustix::net::recv(&b, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(unread_bytes(a.as_fd()).unwrap(), 0);
        assert!(peer_pidfd(a.as_fd()).is_ok());
        refuse_descriptors(a.as_fd());
    }
}
