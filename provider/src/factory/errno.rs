//! From an errno to the error a caller sees.

use caps::error::{Code, Error};
use rustix::io::Errno;

/// The error for a failed system call: what was tried, and the number. Running out of memory or room is the pool's
/// refusal ([`Code::NoMemory`]); all else is the machine's fault ([`Code::System`]).
pub(crate) fn failed(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| {
        let code = match errno {
            Errno::NOSPC | Errno::NOMEM | Errno::DQUOT => Code::NoMemory,
            Errno::MFILE | Errno::NFILE | Errno::AGAIN => Code::Busy,
            _ => Code::System,
        };
        Error::with(code, format!("{what}: errno {}", errno.raw_os_error()))
    }
}
