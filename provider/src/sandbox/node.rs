//! The system calls of the node's process, from the moment it serves: gate, provider, broker and both logs. No program
//! is started, no process forked, no code loaded and no socket opened to anybody by then, so none of these is on the
//! list.

use caps::error::Result;

use super::confine_this_process;
use super::rule::{Arg, Rule, rule};
use super::threads::{NEW_PROCESS, THREAD};

/// What it may do. Anything else ends it, and the guardian cuts all it leaves.
pub const ALLOWED: &[Rule] = &[
    // Memory
    rule!(SYS_brk, [], "the heap"),
    rule!(
        SYS_mmap,
        [Arg::Without(2, libc::PROT_EXEC as u32)],
        "heap, stacks, regions while they are pinned; never code"
    ),
    rule!(SYS_mprotect, [Arg::Without(2, libc::PROT_EXEC as u32)], "guard pages of stacks, heaps of threads"),
    rule!(SYS_munmap, [], "regions once they are pinned, stacks"),
    rule!(SYS_mremap, [], "the allocator grows large blocks"),
    rule!(
        SYS_madvise,
        [],
        "stacks are given back, regions are filled and kept out of core dumps and of forked processes, canaries are \
         looked at"
    ),
    // Regions: made, pinned, sealed, cut, wiped
    rule!(SYS_fallocate, [], "a region's pages are committed when it is granted"),
    rule!(SYS_ftruncate, [], "the cut; a log's torn end"),
    rule!(SYS_io_uring_register, [], "pins and unpins a region's pages"),
    rule!(SYS_io_uring_enter, [], "wipes and copies through the pin"),
    rule!(SYS_pipe2, [], "holds pages where io_uring may not"),
    rule!(SYS_splice, [], "puts pages into pipes, and copies them from there"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_SETPIPE_SZ as u32)], "as many as fit"),
    rule!(SYS_pread64, [], "mediated reads"),
    rule!(SYS_pwrite64, [], "mediated writes; logs"),
    rule!(
        SYS_ioctl,
        [],
        "the immutable flag, FUSE passthrough, how a process died, what of a socket was not read"
    ),
    rule!(SYS_fsopen, [], "a FUSE file system that makes one mmap-only descriptor"),
    rule!(SYS_fsconfig, [], "its options"),
    rule!(SYS_fsmount, [], "its mount, which no path leads to"),
    // Files: logs, principals, what executes a client
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_open, [], "/dev/fuse, /dev/zero"),
    rule!(
        SYS_openat,
        [],
        "files of logs, of principals, in private mounts; a client's executable, to hash it"
    ),
    rule!(SYS_read, [], "files, FUSE requests, timers, wake-ups of threads"),
    rule!(SYS_write, [], "files, wake-ups of threads, messages to the operator"),
    rule!(SYS_writev, [], "FUSE answers"),
    rule!(SYS_lseek, [], "files"),
    rule!(SYS_close, [], "descriptors"),
    rule!(SYS_fstat, [], "files"),
    rule!(SYS_newfstatat, [], "files"),
    rule!(SYS_statx, [], "files; which executable it is"),
    rule!(SYS_getdents64, [], "which files a log has"),
    rule!(SYS_mkdirat, [], "directories of a log's tiles"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_mkdir, [], "directories of a log's tiles"),
    rule!(SYS_renameat, [], "a tile or a checkpoint replaces the one before"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_rename, [], "a file replaces the one before"),
    rule!(SYS_unlinkat, [], "files of a log that were only partial"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_unlink, [], "the socket's path, when the gate closes"),
    rule!(SYS_flock, [], "a log is opened again after its device failed, and locked as it was"),
    rule!(SYS_fsync, [], "directories of a log"),
    rule!(SYS_fdatasync, [], "entries are durable before they are answered"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_DUPFD_CLOEXEC as u32)], "a second handle of a descriptor"),
    rule!(
        SYS_fcntl,
        [Arg::Is(1, libc::F_GETFD as u32)],
        "Rust looks before it closes, in builds with assertions"
    ),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_GETFL as u32)], "sockets"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_SETFL as u32)], "sockets do not wait"),
    // Sessions, and the factory
    rule!(SYS_accept4, [], "clients"),
    rule!(
        SYS_socketpair,
        [Arg::Is(0, libc::AF_UNIX as u32), Arg::Has(1, KIND, libc::SOCK_SEQPACKET as u32)],
        "a session's rotation channel; it cannot be connected to anybody else"
    ),
    rule!(SYS_getsockopt, [], "who a client is"),
    rule!(SYS_setsockopt, [], "a client cannot send descriptors"),
    rule!(SYS_recvfrom, [], "requests; signals, through a pair of sockets"),
    rule!(SYS_recvmsg, [], "the factory's answers, with a descriptor"),
    rule!(SYS_sendto, [], "requests to the factory, answers"),
    rule!(SYS_sendmsg, [], "answers with a descriptor"),
    rule!(SYS_shutdown, [], "a session ends"),
    rule!(
        SYS_connect,
        [Arg::Is(2, size_of::<libc::sa_family_t>() as u32)],
        "throws a connection away; an address that leads anywhere is longer"
    ),
    rule!(
        SYS_pidfd_send_signal,
        [Arg::Is(1, libc::SIGKILL as u32)],
        "policy kills who broke a rule, and the watchdog who holds up a cut"
    ),
    // Waiting
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_epoll_wait, [], "whatever comes"),
    rule!(SYS_epoll_pwait, [], "whatever comes"),
    rule!(SYS_epoll_ctl, [], "what to wait for"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_poll, [], "the factory's answer"),
    rule!(SYS_ppoll, [], "the factory's answer"),
    rule!(SYS_futex, [], "locks, and queues between threads"),
    rule!(SYS_timerfd_settime, [], "the next lease's end"),
    rule!(SYS_clock_nanosleep, [], "short waits of a thread"),
    rule!(SYS_clock_gettime, [], "time, where the clock cannot be read without a call"),
    rule!(SYS_sched_yield, [], "a thread lets others run"),
    rule!(SYS_restart_syscall, [], "goes on waiting after it was stopped and continued"),
    rule!(SYS_waitid, [], "the factory's end; how a client died"),
    rule!(SYS_getrandom, [], "ids, nonces and salts"),
    // Threads of the pools
    rule!(SYS_clone, [Arg::Has(0, THREAD, THREAD), Arg::Without(0, NEW_PROCESS)], "threads"),
    rule!(SYS_clone3, [], "answered as if it were not there, so that C libraries use clone"),
    rule!(SYS_set_robust_list, [], "a thread begins"),
    rule!(SYS_rseq, [], "a thread begins"),
    rule!(SYS_gettid, [], "a thread begins"),
    rule!(SYS_sched_getaffinity, [], "a thread looks for its stack's guard page"),
    rule!(SYS_sched_setscheduler, [], "cuts go before other work"),
    rule!(SYS_sched_setattr, [Arg::Is(0, 0)], "a wipe takes short turns"),
    rule!(SYS_prctl, [Arg::Is(0, libc::PR_SET_NAME as u32)], "a thread's name"),
    rule!(SYS_sigaltstack, [], "a thread catches a stack overflow on a stack of its own"),
    rule!(SYS_rt_sigprocmask, [], "threads begin with signals blocked"),
    rule!(SYS_rt_sigaction, [], "the C library when a program ends by a signal of its own"),
    rule!(SYS_rt_sigreturn, [], "back from the handler that notes SIGTERM"),
    rule!(SYS_exit, [], "a thread ends"),
    rule!(SYS_exit_group, [], "the node ends"),
];

/// What a provider needs beside that whose broker is on another machine: the link to it is made anew whenever it was cut.
/// A filter sees the length of an address and not what is in it, so these lines say what can be reached, not who: TCP
/// (protocol 0 of a stream), and nobody by a path or without a connection. It is the only role that may connect to anybody.
pub const DIALLING: &[Rule] = &[
    rule!(
        SYS_socket,
        [Arg::Is(0, libc::AF_INET as u32), Arg::Has(1, KIND, libc::SOCK_STREAM as u32), Arg::Is(2, 0)],
        "the link to the broker, over IPv4"
    ),
    rule!(
        SYS_socket,
        [Arg::Is(0, libc::AF_INET6 as u32), Arg::Has(1, KIND, libc::SOCK_STREAM as u32), Arg::Is(2, 0)],
        "the link to the broker, over IPv6"
    ),
    rule!(SYS_connect, [Arg::Is(2, size_of::<libc::sockaddr_in>() as u32)], "the broker's address, IPv4"),
    rule!(SYS_connect, [Arg::Is(2, size_of::<libc::sockaddr_in6>() as u32)], "the broker's address, IPv6"),
];
/// The kind of a socket, without the flags beside it.
const KIND: u32 = !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u32;

/// Puts this process, with all the threads it has, under the list. Call it when everything is started that needs more:
/// runtimes, sockets, rings, timers, both logs.
///
/// # Errors
/// `E_SYSTEM` where the kernel has no filters.
pub fn enter() -> Result<()> {
    confine_this_process(ALLOWED)
}

/// [`enter`], for a provider that dials its broker.
///
/// # Errors
/// As [`enter`].
pub fn enter_dialling() -> Result<()> {
    confine_this_process(&[ALLOWED, DIALLING].concat())
}
