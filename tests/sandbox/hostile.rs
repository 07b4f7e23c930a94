//! What a hostile program tries in the sandbox: each attack ends it by SIGSYS, or fails with the expected errno.

use std::ffi::CString;
use std::os::unix::process::ExitStatusExt;

use libc::{EACCES, EBADF, EINVAL, ENOSYS};

use crate::scene::Scene;

/// A descriptor that the program has: its session.
const SESSION: i64 = provider::sandbox::SESSION_FD as i64;

/// How an attack goes.
enum End {
    Killed,
    Errno(i32),
}
use End::{Errno, Killed};

/// An attack, the call it makes, and how that goes. `PATH` stands for the address of the path in question, `PAGE` for
/// that of a page of the program's own.
struct Attack(&'static str, libc::c_long, [i64; 6], End);

/// Replaced by an address when the call is made.
const PATH: i64 = -4_001;
const PAGE: i64 = -4_002;

const EXEC: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
const WRITE_EXEC: i64 = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as i64;
const CWD: i64 = libc::AT_FDCWD as i64;

const ATTACKS: &[Attack] = &[
    // A lease's pages
    Attack("ftruncate", libc::SYS_ftruncate, [SESSION, 0, 0, 0, 0, 0], Killed),
    Attack("truncate", libc::SYS_truncate, [PATH, 0, 0, 0, 0, 0], Killed),
    Attack("fallocate", libc::SYS_fallocate, [SESSION, 3, 0, 4096, 0, 0], Killed),
    Attack("madvise REMOVE", libc::SYS_madvise, [PAGE, 4096, libc::MADV_REMOVE as i64, 0, 0, 0], Killed),
    Attack("madvise POPULATE_WRITE", libc::SYS_madvise, [PAGE, 4096, 23, 0, 0, 0], Errno(ENOSYS)),
    Attack("process_madvise", libc::SYS_process_madvise, [0; 6], Killed),
    Attack("splice", libc::SYS_splice, [SESSION, 0, 1, 0, 1, 0], Killed),
    Attack("vmsplice", libc::SYS_vmsplice, [1, PAGE, 1, 0, 0, 0], Killed),
    Attack("tee", libc::SYS_tee, [0, 1, 1, 0, 0, 0], Killed),
    Attack("sendfile", libc::SYS_sendfile, [1, SESSION, 0, 1, 0, 0], Killed),
    Attack("copy_file_range", libc::SYS_copy_file_range, [0, 0, 1, 0, 1, 0], Killed),
    Attack("io_uring_setup", libc::SYS_io_uring_setup, [2, PAGE, 0, 0, 0, 0], Killed),
    Attack("io_uring_enter", libc::SYS_io_uring_enter, [SESSION, 0, 0, 0, 0, 0], Killed),
    Attack("io_uring_register", libc::SYS_io_uring_register, [SESSION, 0, 0, 0, 0, 0], Killed),
    Attack("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0], Killed),
    Attack("mlock", libc::SYS_mlock, [PAGE, 4096, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("pwrite64", libc::SYS_pwrite64, [SESSION, PAGE, 1, 0, 0, 0], Errno(ENOSYS)),
    // Descriptors handed on, taken, or made
    Attack("sendmsg", libc::SYS_sendmsg, [SESSION, PAGE, 0, 0, 0, 0], Killed),
    Attack("sendmmsg", libc::SYS_sendmmsg, [SESSION, PAGE, 1, 0, 0, 0], Killed),
    Attack("pidfd_open", libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0], Killed),
    Attack("pidfd_getfd", libc::SYS_pidfd_getfd, [SESSION, 0, 0, 0, 0, 0], Killed),
    Attack("memfd_create", libc::SYS_memfd_create, [PATH, 0, 0, 0, 0, 0], Killed),
    Attack("memfd_secret", libc::SYS_memfd_secret, [0; 6], Killed),
    Attack(
        "socket",
        libc::SYS_socket,
        [libc::AF_UNIX as i64, libc::SOCK_STREAM as i64, 0, 0, 0, 0],
        Errno(ENOSYS),
    ),
    Attack("socketpair", libc::SYS_socketpair, [1, 1, 0, PAGE, 0, 0], Errno(ENOSYS)),
    Attack("connect", libc::SYS_connect, [SESSION, PAGE, 16, 0, 0, 0], Errno(ENOSYS)),
    Attack("bind", libc::SYS_bind, [SESSION, PAGE, 16, 0, 0, 0], Errno(ENOSYS)),
    Attack("pipe2", libc::SYS_pipe2, [PAGE, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("dup", libc::SYS_dup, [SESSION, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("dup3", libc::SYS_dup3, [SESSION, 64, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("F_SETFL", libc::SYS_fcntl, [SESSION, libc::F_SETFL as i64, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("F_ADD_SEALS", libc::SYS_fcntl, [4, libc::F_ADD_SEALS as i64, 1, 0, 0, 0], Errno(ENOSYS)),
    Attack("F_SETOWN", libc::SYS_fcntl, [SESSION, libc::F_SETOWN as i64, 1, 0, 0, 0], Errno(ENOSYS)),
    Attack(
        "a descriptor above the limit",
        libc::SYS_fcntl,
        [0, libc::F_DUPFD_CLOEXEC as i64, 64, 0, 0, 0],
        Errno(EINVAL),
    ),
    Attack(
        "a higher limit",
        libc::SYS_prlimit64,
        [0, libc::RLIMIT_NOFILE as i64, PAGE, 0, 0, 0],
        Errno(ENOSYS),
    ),
    Attack("ioctl", libc::SYS_ioctl, [0, libc::TIOCSTI as i64, PAGE, 0, 0, 0], Errno(ENOSYS)),
    // Files
    Attack("open a secret", libc::SYS_openat, [CWD, PATH, 0, 0, 0, 0], Errno(EACCES)),
    Attack("open to write", libc::SYS_openat, [CWD, PATH, libc::O_RDWR as i64, 0, 0, 0], Errno(ENOSYS)),
    Attack("make a file", libc::SYS_openat, [CWD, PATH, libc::O_CREAT as i64, 0o600, 0, 0], Errno(ENOSYS)),
    Attack(
        "truncate by opening",
        libc::SYS_openat,
        [CWD, PATH, libc::O_TRUNC as i64, 0, 0, 0],
        Errno(ENOSYS),
    ),
    Attack("open a path alone", libc::SYS_openat, [CWD, PATH, libc::O_PATH as i64, 0, 0, 0], Errno(ENOSYS)),
    Attack("openat2", libc::SYS_openat2, [CWD, PATH, PAGE, 24, 0, 0], Errno(ENOSYS)),
    Attack("open_by_handle_at", libc::SYS_open_by_handle_at, [CWD, PAGE, 0, 0, 0, 0], Killed),
    Attack("unlinkat", libc::SYS_unlinkat, [CWD, PATH, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("fchmod", libc::SYS_fchmod, [SESSION, 0o777, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("mount", libc::SYS_mount, [0; 6], Killed),
    Attack("fsopen", libc::SYS_fsopen, [PATH, 0, 0, 0, 0, 0], Killed),
    Attack("open_tree", libc::SYS_open_tree, [CWD, PATH, 0, 0, 0, 0], Killed),
    // Other processes, other programs, other code
    Attack("ptrace", libc::SYS_ptrace, [0; 6], Killed),
    Attack("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0], Killed),
    Attack("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0, 0], Killed),
    Attack("perf_event_open", libc::SYS_perf_event_open, [0; 6], Killed),
    Attack("bpf", libc::SYS_bpf, [0; 6], Killed),
    Attack("keyctl", libc::SYS_keyctl, [0; 6], Killed),
    Attack("kill", libc::SYS_kill, [1, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("tgkill", libc::SYS_tgkill, [1, 1, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("pidfd_send_signal", libc::SYS_pidfd_send_signal, [SESSION, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("fork", libc::SYS_clone, [libc::SIGCHLD as i64, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("clone3", libc::SYS_clone3, [PAGE, 88, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack(
        "a namespace with a thread",
        libc::SYS_clone,
        [0x0001_0f00 | libc::CLONE_NEWNET as i64, 0, 0, 0, 0, 0],
        Errno(ENOSYS),
    ),
    Attack("execve", libc::SYS_execve, [PATH, 0, 0, 0, 0, 0], Killed),
    Attack("execveat of a path", libc::SYS_execveat, [CWD, PATH, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack(
        "execveat of a stream",
        libc::SYS_execveat,
        [0, PAGE, 0, 0, libc::AT_EMPTY_PATH as i64, 0],
        Errno(ENOSYS),
    ),
    Attack(
        "execveat again",
        libc::SYS_execveat,
        [64, PAGE, 0, 0, libc::AT_EMPTY_PATH as i64, 0],
        Errno(EBADF),
    ),
    Attack("mprotect to execute", libc::SYS_mprotect, [PAGE, 4096, EXEC, 0, 0, 0], Errno(ENOSYS)),
    Attack("pkey_mprotect", libc::SYS_pkey_mprotect, [PAGE, 4096, EXEC, -1, 0, 0], Errno(ENOSYS)),
    Attack(
        "map code",
        libc::SYS_mmap,
        [0, 4096, EXEC, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64, -1, 0],
        Errno(ENOSYS),
    ),
    Attack(
        "map code to write",
        libc::SYS_mmap,
        [0, 4096, WRITE_EXEC, libc::MAP_PRIVATE as i64, SESSION, 0],
        Errno(ENOSYS),
    ),
    Attack(
        "map shared code",
        libc::SYS_mmap,
        [0, 4096, EXEC, libc::MAP_SHARED as i64, SESSION, 0],
        Errno(ENOSYS),
    ),
    // Rights
    Attack("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as i64, 1, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("seccomp", libc::SYS_seccomp, [1, 0, PAGE, 0, 0, 0], Errno(ENOSYS)),
    Attack("setresuid", libc::SYS_setresuid, [0, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("capset", libc::SYS_capset, [PAGE, 0, 0, 0, 0, 0], Errno(ENOSYS)),
    Attack("unshare", libc::SYS_unshare, [0; 6], Killed),
    Attack("setns", libc::SYS_setns, [SESSION, 0, 0, 0, 0, 0], Killed),
    Attack("init_module", libc::SYS_init_module, [0; 6], Killed),
    Attack("finit_module", libc::SYS_finit_module, [0; 6], Killed),
    Attack("kexec_load", libc::SYS_kexec_load, [0; 6], Killed),
];

pub fn every_attack_is_deadly_or_in_vain() {
    let scene = Scene::set();
    let secret = scene.secret();
    let secret = secret.to_str().unwrap();
    let mut wrong = Vec::new();
    // All that fails, in one program; each that kills, in its own.
    let (said, status) = scene.run(&["attacker", secret, "all"]).end();
    assert!(status.success(), "{status} {said:?}");
    let expected = ATTACKS.iter().filter_map(|Attack(name, _, _, end)| match end {
        Errno(errno) => Some(format!("{name}: {errno}")),
        Killed => None,
    });
    for (said, expected) in said.iter().zip(expected.clone()) {
        if *said != expected {
            wrong.push(format!("{said}, and not {expected}"));
        }
    }
    assert_eq!(said.len(), expected.count());
    for (at, Attack(name, ..)) in
        ATTACKS.iter().enumerate().filter(|(_, Attack(_, _, _, end))| matches!(end, Killed))
    {
        let (said, status) = scene.run(&["attacker", secret, &at.to_string()]).end();
        if status.signal() != Some(libc::SIGSYS) || !said.is_empty() {
            wrong.push(format!("{name}: {status} {said:?}"));
        }
    }
    // Files by other ways. A socket cannot be opened again at all; a pipe can, to read, since it lies in no directory
    // that Landlock could forbid.
    for (path, errno) in [
        ("/proc/self/fd/3", libc::ENXIO),
        ("/proc/self/mem", EACCES),
        ("/proc/1/environ", EACCES),
        ("/dev/shm", EACCES),
        ("/etc/passwd", EACCES),
    ] {
        let (said, _) = scene.run(&["attacker", path, "open"]).end();
        if said != [format!("open a secret: {errno}")] {
            wrong.push(format!("{path}: {said:?}"));
        }
    }
    // What kills is tried, all of it.
    for rule in provider::sandbox::program::DEADLY {
        let tried = |Attack(_, number, _, end): &Attack| *number == rule.number && matches!(end, Killed);
        if !ATTACKS.iter().any(tried) {
            wrong.push(format!("{} is said to kill, and nobody tries", rule.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// In the sandbox: makes the calls, and prints how they went.
pub fn attack(words: &[&str]) {
    let [path, which] = words else { return };
    let path = CString::new(*path).unwrap();
    let page = vec![0_u8; 4096 * 2];
    let page = (page.as_ptr() as i64 + 4095) & !4095;
    let mut results = Vec::new();
    for (at, Attack(name, number, arguments, end)) in ATTACKS.iter().enumerate() {
        let chosen = match *which {
            "all" => matches!(end, Errno(_)),
            "open" => *name == "open a secret",
            other => other == at.to_string(),
        };
        if !chosen {
            continue;
        }
        let [a, b, c, d, e, f] = arguments.map(|argument| match argument {
            PATH => path.as_ptr() as i64,
            PAGE => page,
            other => other,
        });
        // SAFETY: each of these calls is refused by the sandbox, or would act on a page, a path and descriptors that
        // nothing else in this program uses. That it might not be refused is what is tested.
        let result = unsafe { libc::syscall(*number, a, b, c, d, e, f) };
        let errno = if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 };
        results.push(format!("{name}: {errno}"));
    }
    results.iter().for_each(|line| println!("{line}"));
}
