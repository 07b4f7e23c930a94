//! From the process that has the keys to the program that must not have them.
//!
//! It is one process all the way: the node knows the session by its pid, and nobody stays behind who would have to be
//! watched. What the program inherits is its standard streams, the session's socket, and its tokens in sealed memory;
//! the order below is that of [`Launch::exec`], and each step needs a right that the next one gives up.
//!
//! | step | why there |
//! |---|---|
//! | open the program, compile the filters, look up libraries | needs files and memory |
//! | give up groups and capabilities | a program of root's is then one without root's rights |
//! | no new privileges, Landlock | from here on nothing but libraries can be opened |
//! | descriptors to their numbers, all others closed | the number of the program's own is above the limit set next |
//! | limits | no descriptor ever gets that number again; no core dump with leased bytes |
//! | filters | the last that may be called before `execveat` |
//! | `execveat` | allowed for that one descriptor, which closes itself: so it works once |

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use caps::error::{Code, Error, Result};
use nix::fcntl::AtFlags;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction};

use super::filter::compile;
use super::program::{ALLOWED, DEADLY};
use super::{Rule, files};
use crate::factory::failed;

/// The number under which the program finds its session.
pub const SESSION_FD: RawFd = 3;
/// Tokens at most; they have the numbers after the session's.
pub const TOKENS_MAX: usize = 16;
/// One above the highest number that a descriptor of the program may have, and the program's own until it runs.
pub(super) const PROGRAM_FD: u32 = 64;
/// Numbers that are out of the way while the others are set.
const ASIDE: RawFd = 2 * PROGRAM_FD as RawFd;
/// What programs that the kernel itself can start begin with.
const ELF: [u8; 4] = *b"\x7fELF";

/// A program that is to run in the sandbox.
#[derive(Debug)]
pub struct Launch {
    /// Its file.
    pub program: PathBuf,
    /// Its arguments, the first of which is its name.
    pub arguments: Vec<CString>,
    /// Its whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// The socket of a confined session.
    pub session: OwnedFd,
    /// Its tokens, each in a file of its own.
    pub tokens: Vec<OwnedFd>,
}

impl Launch {
    /// Becomes the program. Returns only if that failed; the process must then end, for it has given up much by then.
    /// Call it in a process with one thread.
    #[must_use]
    pub fn exec(self) -> Error {
        self.become_program(None)
    }

    /// As [`Self::exec`] in a still smaller sandbox: what only this line of [`ALLOWED`] allows ends the program. So a
    /// test finds lines that nothing needs.
    #[must_use]
    pub fn exec_without(self, line: usize) -> Error {
        self.become_program(ALLOWED.get(line).copied())
    }

    fn become_program(self, without: Option<Rule>) -> Error {
        match self.try_exec(without) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_exec(self, without: Option<Rule>) -> Result<Infallible> {
        if self.tokens.len() > TOKENS_MAX {
            return Err(Error::new(Code::Range, "a program in the sandbox gets at most 16 tokens"));
        }
        let program = open(&self.program)?;
        let allowed = compile(
            ALLOWED.iter().copied(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        )?;
        let deadly =
            compile(DEADLY.iter().copied().chain(without), SeccompAction::KillProcess, SeccompAction::Allow)?;
        let rules = files::rules(&program)?;
        give_up_privileges()?;
        let refused = |_| Error::new(Code::System, "Landlock refuses to restrict this process");
        rules.restrict_self().map_err(refused)?;
        arrange(program, self.session, self.tokens)?;
        limit()?;
        // The one that kills first: the other does not allow to install any more. A call that both judge dies.
        become_confined(&deadly, &allowed)?;
        // SAFETY: `arrange` put the program's descriptor there, and nothing closes it before it is used, or ever.
        let program = unsafe { BorrowedFd::borrow_raw(PROGRAM_FD as RawFd) };
        nix::unistd::execveat(program, c"", &self.arguments, &self.environment, AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| {
                Error::with(Code::System, format!("the program does not start: {}", errno.desc()))
            })
    }
}

/// Puts this process, with all the threads it has, under the filters of a program in the sandbox: for a client of our
/// own, which opened what it needs before. Groups and capabilities are each thread's: [`give_up_privileges`] comes
/// before there are others.
///
/// # Errors
/// `E_SYSTEM` where the kernel has no filters or refuses a step.
pub fn confine_this_client() -> Result<()> {
    let allowed = compile(
        ALLOWED.iter().copied(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
    )?;
    let deadly = compile(DEADLY.iter().copied(), SeccompAction::KillProcess, SeccompAction::Allow)?;
    let refused = |_| Error::new(Code::System, "the kernel takes no filter of system calls");
    for filter in [&deadly, &allowed] {
        seccompiler::apply_filter_all_threads(filter).map_err(refused)?;
    }
    Ok(())
}

fn become_confined(deadly: &BpfProgram, allowed: &BpfProgram) -> Result<()> {
    let refused = |_| Error::new(Code::System, "the kernel takes no filter of system calls");
    // Not both in one: a filter has one answer for the calls on its list.
    seccompiler::apply_filter(deadly).map_err(refused)?;
    seccompiler::apply_filter(allowed).map_err(refused)
}

/// Opens the program's file. A script is refused: its interpreter would be the program, and could not open it.
fn open(path: &Path) -> Result<File> {
    let said = |what: &str| Error::with(Code::ConfigIo, format!("{}: {what}", path.display()));
    let mut file = File::open(path).map_err(|error| said(&error.kind().to_string()))?;
    let mut magic = [0; 4];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == ELF => Ok(file),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(said(&error.kind().to_string())),
        _ => Err(said("is no ELF program; of a script, start the interpreter's own program")),
    }
}

/// Gives up groups, capabilities and the way back to them. Who has none of them loses nothing.
///
/// # Errors
/// `E_SYSTEM` if the kernel refuses.
pub fn give_up_privileges() -> Result<()> {
    let _ = nix::unistd::setgroups(&[]); // an ordinary user may not, and keeps its groups: Landlock is what counts
    for capability in CapabilitySet::all().iter() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability); // as above
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(failed("give up capabilities"))?;
    let _ = rustix::thread::clear_ambient_capability_set(); // empty already, by the line above
    rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"))
}

/// Session, tokens and program get their numbers, and everything else but the standard streams is closed.
fn arrange(program: File, session: OwnedFd, tokens: Vec<OwnedFd>) -> Result<()> {
    let call = |what: &'static str, result: libc::c_long| match result {
        -1 => Err(Error::with(Code::System, format!("{what}: {}", std::io::Error::last_os_error().kind()))),
        number => Ok(number as RawFd),
    };
    // Out of the way first: one may have the number that another is to get. None of them is ever closed by value: the
    // numbers mean something else from here on.
    let mut aside = Vec::new();
    for fd in [session].into_iter().chain(tokens).chain([OwnedFd::from(program)]) {
        // SAFETY: F_DUPFD makes a new descriptor at a free number.
        let duplicate = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, ASIDE) };
        aside.push(call("move a descriptor", duplicate.into())?);
        let _ = fd.into_raw_fd();
    }
    let last = SESSION_FD + aside.len() as RawFd - 2; // the program is not one of them
    let (program, inherited) = aside.split_last().ok_or(Error::new(Code::Internal, "no descriptors"))?;
    for (to, from) in (SESSION_FD..).zip(inherited) {
        // SAFETY: what had this number is closed, and its owner in this process never runs again: from here on the
        // process becomes the program or ends.
        call("move a descriptor", unsafe { libc::dup3(*from, to, 0) }.into())?;
    }
    // SAFETY: as above. It closes itself when the program starts.
    call("move a descriptor", unsafe { libc::dup3(*program, PROGRAM_FD as RawFd, libc::O_CLOEXEC) }.into())?;
    let program = PROGRAM_FD;
    for (first, last) in [(last as u32 + 1, program - 1), (program + 1, u32::MAX)] {
        // SAFETY: as above.
        call("close descriptors", unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    // SAFETY: signal(2) with SIG_DFL installs no handler. Rust ignores SIGPIPE for itself, not for others.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    Ok(())
}

fn limit() -> Result<()> {
    let at_most = |most: u32| Rlimit { current: Some(most.into()), maximum: Some(most.into()) };
    setrlimit(Resource::Nofile, at_most(PROGRAM_FD)).map_err(failed("limit descriptors"))?;
    setrlimit(Resource::Core, at_most(0)).map_err(failed("forbid core dumps"))
}
