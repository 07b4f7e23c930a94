//! What `leasehold run` leaves to the program it starts: a session, and tokens.
//!
//! ```text
//! LEASEHOLD_SESSION_FD=3             the session's socket
//! LEASEHOLD_TOKEN_FDS=frames:4,5     tokens, each in sealed memory, with what the user called it where that is a name
//! ```
//!
//! Numbers of descriptors are no secret, and useless to anybody but this process.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::error::{Code, Error, Result};
use caps::token::{TOKEN_TEXT_BYTES_MAX, Token};
use caps::wire::Name;
use rustix::io::FdFlags;
use zeroize::Zeroizing;

/// The environment variable with the number of the session's socket.
pub const SESSION_VARIABLE: &str = "LEASEHOLD_SESSION_FD";
/// The environment variable with the numbers of the tokens' descriptors.
pub const TOKENS_VARIABLE: &str = "LEASEHOLD_TOKEN_FDS";

/// Descriptors up to here are the standard streams, and nobody leaves anything else there.
const FIRST: RawFd = 3;

/// Whether the session was taken. A descriptor has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A token that this process was started with.
#[derive(Clone)]
pub struct InheritedToken {
    /// What the user called its lease.
    pub name: Option<Name>,
    /// The token. It opens in [`crate::Client::inherited`]'s session, and in no other without its holder's key.
    pub token: Token,
}

/// Whether this process was started with a session, taken or not.
#[must_use]
pub fn is_inherited() -> bool {
    std::env::var_os(SESSION_VARIABLE).is_some()
}

/// The session's socket, once a process.
pub(crate) fn session() -> Result<OwnedFd> {
    let none = Error::new(Code::Unreachable, "this process was started without a session");
    let number = std::env::var(SESSION_VARIABLE).ok().and_then(|text| number(&text)).ok_or(none.clone())?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Error::new(Code::Unreachable, "this process' session was taken already"));
    }
    // SAFETY: the variable is set by whoever started this process, who gave it the descriptor for this function alone.
    // It is taken once, above; and a number that is not open fails in the next line, before anything is closed.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    if rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC).is_err() {
        std::mem::forget(socket);
        return Err(none);
    }
    Ok(socket)
}

/// The tokens that this process was started with; none if it was started otherwise.
///
/// # Errors
/// `E_TOKEN_SYNTAX` and its kin if something else than a token was left behind; `E_SYSTEM` if it cannot be read.
pub fn inherited_tokens() -> Result<Vec<InheritedToken>> {
    let list = std::env::var(TOKENS_VARIABLE).unwrap_or_default();
    list.split(',').filter(|entry| !entry.is_empty()).map(token).collect()
}

fn token(entry: &str) -> Result<InheritedToken> {
    let unreadable = || Error::new(Code::System, "a token that this process was started with cannot be read");
    let (name, number_text) = match entry.rsplit_once(':') {
        Some((name, number)) => (Some(Name::new(name)?), number),
        None => (None, entry),
    };
    let number = number(number_text).ok_or_else(unreadable)?;
    // SAFETY: only borrowed, for this call: it is never closed here, and reading at a position changes nothing.
    let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    // A token that is not sealed is a secret, and so is its text.
    let mut text = Zeroizing::new(vec![0; TOKEN_TEXT_BYTES_MAX + 1]);
    let mut length = 0;
    loop {
        match file.read_at(&mut text[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(unreadable()),
        }
    }
    let text = std::str::from_utf8(&text[..length]).map_err(|_| unreadable())?;
    Ok(InheritedToken { name, token: Token::parse_text(text)? })
}

fn number(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|&number| number >= FIRST)
}
