//! The system calls of the factory, from its first answer to the last cut. It makes file systems, so its list is short
//! and has what nobody else may do; it reads no message but the provider's, of fixed size.

use caps::error::Result;

use super::confine_this_process;
use super::rule::{Arg, Rule, rule};
use super::threads::{NEW_PROCESS, THREAD};

/// What it may do. Anything else ends it, and then the node.
pub const ALLOWED: &[Rule] = &[
    rule!(SYS_brk, [], "the heap"),
    rule!(SYS_mmap, [Arg::Without(2, libc::PROT_EXEC as u32)], "the heap, stacks of threads; never code"),
    rule!(
        SYS_mprotect,
        [Arg::Without(2, libc::PROT_EXEC as u32)],
        "guard pages of stacks, the heap of a thread"
    ),
    rule!(SYS_munmap, [], "memory is given back"),
    rule!(SYS_mremap, [], "the allocator grows large blocks"),
    rule!(SYS_madvise, [Arg::Is(2, libc::MADV_DONTNEED as u32)], "a thread's stack is given back"),
    rule!(SYS_ppoll, [], "waits for requests and for the provider's end"),
    rule!(SYS_recvfrom, [], "requests"),
    rule!(SYS_sendmsg, [], "answers, with the descriptor of a region"),
    rule!(SYS_close, [], "regions that are gone"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_DUPFD_CLOEXEC as u32)], "a region's mount for the provider"),
    rule!(
        SYS_fcntl,
        [Arg::Is(1, libc::F_GETFD as u32)],
        "Rust looks before it closes, in builds with assertions"
    ),
    rule!(SYS_fsopen, [], "a region's file system"),
    rule!(SYS_fsconfig, [], "its size and options; lowers the size of a dead one"),
    rule!(SYS_fsmount, [], "its mount, which no path leads to"),
    rule!(SYS_fspick, [], "a live file system, to lower its size"),
    rule!(SYS_open_tree, [], "a clone of the mount, for those who may only read"),
    rule!(SYS_mount_setattr, [], "makes the clone read-only"),
    rule!(SYS_openat, [], "files in these mounts; it has no other directory that it could name"),
    rule!(SYS_ftruncate, [], "a new file's length, and the cut"),
    rule!(SYS_fallocate, [], "the plug of an open region"),
    rule!(
        SYS_clone,
        [Arg::Has(0, THREAD, THREAD), Arg::Without(0, NEW_PROCESS)],
        "threads: one closes, some cut"
    ),
    rule!(SYS_clone3, [], "answered as if it were not there, so that C libraries use clone"),
    rule!(SYS_set_robust_list, [], "a thread begins"),
    rule!(SYS_rseq, [], "a thread begins"),
    rule!(SYS_gettid, [], "a thread begins"),
    rule!(SYS_sched_getaffinity, [], "a thread looks for its stack's guard page"),
    rule!(SYS_prctl, [Arg::Is(0, libc::PR_SET_NAME as u32)], "a thread's name"),
    rule!(SYS_sched_setscheduler, [], "the last cut goes before other work"),
    rule!(SYS_sigaltstack, [], "a thread catches a stack overflow on a stack of its own"),
    rule!(SYS_rt_sigprocmask, [], "threads begin with signals blocked"),
    rule!(SYS_rt_sigaction, [], "the C library prepares itself when the first thread begins"),
    rule!(SYS_futex, [], "queues between its threads"),
    rule!(SYS_clock_gettime, [], "deadlines, where the clock cannot be read without a call"),
    rule!(SYS_restart_syscall, [], "goes on waiting after it was stopped and continued"),
    rule!(SYS_exit, [], "a thread ends"),
    rule!(SYS_exit_group, [], "it ends"),
];

/// Puts this process under the list.
///
/// # Errors
/// `E_SYSTEM` where the kernel has no filters.
pub(crate) fn enter() -> Result<()> {
    confine_this_process(ALLOWED)
}
