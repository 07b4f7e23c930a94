//! The system calls of a program that `leasehold run` started: what it needs to use leased memory, and nothing that
//! reaches further. A test withdraws each line in turn and demands that some program then ends.

use super::launch::PROGRAM_FD;
use super::rule::{Arg, Rule, rule};
use super::threads::{NEW_PROCESS, THREAD};

/// `ARCH_SET_FS` (asm/prctl.h).
#[cfg(target_arch = "x86_64")]
const ARCH_SET_FS: u32 = 0x1002;

/// Whatever makes `openat` more than opening a file that is there, to read it. `O_LARGEFILE` and `O_CLOEXEC` do not.
const NOT_READING: u32 = (libc::O_WRONLY
    | libc::O_RDWR
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_PATH
    | libc::O_DIRECTORY // part of O_TMPFILE
    | libc::O_TMPFILE) as u32;
const EXEC: u32 = libc::PROT_EXEC as u32;
const SOCKET: u32 = libc::SOL_SOCKET as u32;

/// What it may do. Everything else is answered with `ENOSYS`, as if the kernel had no such call.
pub const ALLOWED: &[Rule] = &[
    // To begin and to end
    rule!(
        SYS_execveat,
        [Arg::Is(0, PROGRAM_FD), Arg::Is(4, libc::AT_EMPTY_PATH as u32)],
        "the program begins, once: the descriptor closes with it, and its number is above the limit ever after"
    ),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_arch_prctl, [Arg::Is(0, ARCH_SET_FS)], "the C library sets up its thread-local storage"),
    rule!(SYS_set_tid_address, [], "the C library learns when the first thread ends"),
    rule!(SYS_set_robust_list, [], "the C library has locks released whose thread died"),
    rule!(SYS_rseq, [], "the C library registers its restartable sequences"),
    rule!(
        SYS_prlimit64,
        [Arg::Null(2)],
        "the C library asks for the size of a stack; limits are not changed"
    ),
    rule!(SYS_getrandom, [], "seeds of the allocator and of hash tables"),
    rule!(SYS_gettid, [], "Rust names the thread that panicked"),
    rule!(SYS_geteuid, [], "the command line looks for its directories"),
    rule!(SYS_getpid, [], "libmem knows a forked child by it"),
    rule!(SYS_exit, [], "a thread ends"),
    rule!(SYS_exit_group, [], "the program ends"),
    // Memory of its own
    rule!(SYS_brk, [], "the heap"),
    rule!(SYS_mmap, [Arg::Without(2, EXEC)], "memory, and leased memory; not to be executed"),
    rule!(
        SYS_mmap,
        [
            Arg::Has(2, EXEC | libc::PROT_WRITE as u32, EXEC),
            Arg::Has(
                3,
                (libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32,
                libc::MAP_PRIVATE as u32
            )
        ],
        "the loader maps a library's code, which nobody can write to; leased files refuse it, their mounts are noexec"
    ),
    rule!(
        SYS_mprotect,
        [Arg::Without(2, EXEC)],
        "guard pages, and relocated data made read-only; no new code"
    ),
    rule!(SYS_munmap, [], "gives memory back"),
    rule!(SYS_mremap, [], "the allocator grows large blocks; keeps what protection there is"),
    rule!(SYS_madvise, [Arg::Is(2, libc::MADV_DONTNEED as u32)], "a thread's stack is given back"),
    rule!(
        SYS_madvise,
        [Arg::Is(2, libc::MADV_DONTDUMP as u32)],
        "libmem keeps leased memory out of core dumps"
    ),
    // Files that Landlock lets it read, and its standard streams
    rule!(
        SYS_openat,
        [Arg::Without(2, NOT_READING)],
        "the loader opens libraries, to read; Landlock says which"
    ),
    rule!(SYS_read, [], "libraries' headers, standard input"),
    rule!(SYS_pread64, [], "libraries' headers, tokens"),
    rule!(SYS_write, [], "standard output; what leases may be written to is decided by their descriptors"),
    rule!(SYS_lseek, [], "how much of standard input is left"),
    rule!(SYS_newfstatat, [], "what a descriptor is"),
    rule!(SYS_fstat, [], "what a descriptor is"),
    rule!(SYS_statx, [], "libmem checks the descriptor it received; Rust asks for a file's size"),
    rule!(SYS_fstatfs, [], "libmem checks that the descriptor it received is memory"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_GETFL as u32)], "libmem checks what a descriptor was opened for"),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_GETFD as u32)], "libmem and Rust look whether a descriptor is open"),
    rule!(
        SYS_fcntl,
        [Arg::Is(1, libc::F_SETFD as u32)],
        "libmem marks the inherited descriptors to close on exec"
    ),
    rule!(SYS_fcntl, [Arg::Is(1, libc::F_DUPFD_CLOEXEC as u32)], "a second handle of a standard stream"),
    rule!(SYS_close, [], "descriptors are closed"),
    // The session with the node
    rule!(SYS_sendto, [], "requests; unlike sendmsg it cannot send descriptors"),
    rule!(SYS_recvmsg, [], "answers, with the descriptor of a lease"),
    rule!(
        SYS_getsockopt,
        [Arg::Is(1, SOCKET), Arg::Is(2, libc::SO_DOMAIN as u32)],
        "libmem checks that the rotation channel is a socket of this host"
    ),
    rule!(
        SYS_getsockopt,
        [Arg::Is(1, SOCKET), Arg::Is(2, libc::SO_TYPE as u32)],
        "libmem checks that the rotation channel carries packets"
    ),
    rule!(SYS_shutdown, [], "libmem ends the session"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_poll, [], "waits for answers; Rust looks at the standard streams when it starts"),
    rule!(SYS_ppoll, [], "waits for answers, with a deadline"),
    // Threads and time
    rule!(
        SYS_clone,
        [Arg::Has(0, THREAD, THREAD), Arg::Without(0, NEW_PROCESS)],
        "threads; clone3, whose flags no filter can see, is not there and C libraries come here"
    ),
    rule!(SYS_futex, [], "locks"),
    rule!(SYS_futex_waitv, [], "libmem::sync waits for a peer and for a rotation at once"),
    rule!(SYS_sched_yield, [], "spinning locks let others run"),
    rule!(SYS_clock_nanosleep, [], "sleeps"),
    rule!(SYS_clock_gettime, [], "time, where the clock cannot be read without a call"),
    rule!(SYS_restart_syscall, [], "goes on with a sleep after the process was stopped and continued"),
    // Signals of its own: libmem catches SIGBUS, which is what a revoke looks like
    rule!(SYS_rt_sigaction, [], "libmem's handler"),
    rule!(SYS_rt_sigprocmask, [], "libmem unblocks SIGBUS; new threads begin with signals blocked"),
    rule!(SYS_rt_sigreturn, [], "back from the handler"),
    rule!(SYS_sigaltstack, [], "Rust catches a stack overflow on a stack of its own"),
];

/// What ends it at once: calls that no program makes by mistake or to find out what there is.
pub const DEADLY: &[Rule] = &[
    rule!(SYS_truncate, [], "cuts a file"),
    rule!(SYS_ftruncate, [], "cuts a lease for everyone"),
    rule!(SYS_fallocate, [], "punches holes into a lease"),
    rule!(SYS_madvise, [Arg::Is(2, libc::MADV_REMOVE as u32)], "punches holes into a lease"),
    rule!(SYS_process_madvise, [], "as madvise, in another process"),
    rule!(SYS_sendmsg, [], "could send a lease's descriptor; a filter cannot see what is in the message"),
    rule!(SYS_sendmmsg, [], "as sendmsg"),
    rule!(SYS_splice, [], "holds a lease's pages in a pipe"),
    rule!(SYS_vmsplice, [], "holds a lease's pages in a pipe"),
    rule!(SYS_tee, [], "holds a lease's pages in a pipe"),
    rule!(SYS_sendfile, [], "holds a lease's pages in a socket"),
    rule!(SYS_copy_file_range, [], "writes into a lease from a file that answers when it likes"),
    rule!(SYS_io_uring_setup, [], "makes calls that no filter sees, and pins pages"),
    rule!(SYS_io_uring_enter, [], "as io_uring_setup"),
    rule!(SYS_io_uring_register, [], "as io_uring_setup"),
    rule!(SYS_userfaultfd, [], "answers page faults when it likes"),
    rule!(SYS_memfd_create, [], "memory that can be executed"),
    rule!(SYS_memfd_secret, [], "memory that nobody can take back"),
    rule!(SYS_ptrace, [], "reaches into other processes"),
    rule!(SYS_process_vm_readv, [], "reaches into other processes"),
    rule!(SYS_process_vm_writev, [], "reaches into other processes"),
    rule!(SYS_pidfd_open, [], "reaches for other processes"),
    rule!(SYS_pidfd_getfd, [], "takes other processes' descriptors"),
    rule!(SYS_execve, [], "a second program"),
    rule!(SYS_bpf, [], "runs code in the kernel"),
    rule!(SYS_perf_event_open, [], "looks into other processes"),
    rule!(SYS_keyctl, [], "keys of its user"),
    rule!(SYS_unshare, [], "namespaces of its own"),
    rule!(SYS_setns, [], "other namespaces"),
    rule!(SYS_mount, [], "other files"),
    rule!(SYS_fsopen, [], "other files"),
    rule!(SYS_open_tree, [], "other files"),
    rule!(SYS_open_by_handle_at, [], "other files"),
    rule!(SYS_init_module, [], "code in the kernel"),
    rule!(SYS_finit_module, [], "code in the kernel"),
    rule!(SYS_kexec_load, [], "another kernel"),
];
