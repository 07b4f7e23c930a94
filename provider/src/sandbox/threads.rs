//! What tells a thread from a process in the flags of `clone`.

/// What makes a thread of this process: shared memory, files and handlers.
pub(super) const THREAD: u32 =
    (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u32;
/// New namespaces, descriptors of processes, tracing: whatever else `clone` could do.
pub(super) const NEW_PROCESS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_PIDFD
    | libc::CLONE_PTRACE
    | libc::CLONE_VFORK
    | libc::CLONE_PARENT) as u32;
