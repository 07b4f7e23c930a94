//! Sessions that are proven and then do nothing: what a node pays for who is only there.
//!
//! Of each the client keeps its socket alone. A session that says nothing needs nothing else on this side, and ten thousand
//! fit one process; the node cannot tell.

use std::net::TcpStream;

use caps::error::{Code, Error, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::child::Guest;
use super::session::Session;
use crate::bench::numbers::timed;
use crate::identity;

/// Threads that prove sessions: what the node does for each of them is more than what the client does.
const THREADS: usize = 4;
/// Descriptors of a process beside its sessions.
const SPARE: u64 = 256;

/// Proves so many and keeps them.
pub fn hold(guest: &Guest, sessions: usize) -> Result<Vec<TcpStream>> {
    raise(sessions as u64 + SPARE)?;
    let (credentials, key) = (guest.paper.load()?, identity::key_of_seed(&guest.seed)?);
    let (credentials, key) = (&credentials, &key);
    std::thread::scope(|scope| {
        let shares = (0..THREADS).map(|n| sessions / THREADS + usize::from(n < sessions % THREADS));
        let threads: Vec<_> = shares
            .map(|share| {
                let prove = move |_| Session::open(guest.address, credentials, key).map(Session::into_socket);
                scope.spawn(move || (0..share).map(prove).collect::<Result<Vec<_>>>())
            })
            .collect();
        let panicked = || Err(Error::new(Code::Internal, "a client of the benchmark panicked"));
        let held: Result<Vec<_>> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect();
        Ok(held?.into_iter().flatten().collect())
    })
}

/// Tries to begin sessions, one after the other, and leaves again where it is let in. How often it was, and after how
/// many microseconds it was refused with `E_BUSY`, connecting and the TLS handshake included.
pub fn knock(guest: &Guest, times: usize) -> Result<(usize, Vec<f64>)> {
    let (credentials, key) = (guest.paper.load()?, identity::key_of_seed(&guest.seed)?);
    let (mut let_in, mut refused_us) = (0, Vec::new());
    for _ in 0..times {
        match timed(|| Session::open(guest.address, &credentials, &key)) {
            (_, Ok(_)) => let_in += 1,
            (micros, Err(error)) if error.code() == Code::Busy => refused_us.push(micros),
            (_, Err(error)) => return Err(error),
        }
    }
    Ok((let_in, refused_us))
}

/// Makes sure that this process, and those that it starts, may have so many descriptors.
///
/// # Errors
/// `E_SYSTEM` if it may not.
pub fn raise(descriptors: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= descriptors) {
        return Ok(());
    }
    // Past the hard limit only who may; the others are told below.
    let hard = now.maximum.map(|maximum| maximum.max(descriptors));
    let raised = Rlimit { current: Some(descriptors), maximum: hard };
    setrlimit(Resource::Nofile, raised).map_err(|_| {
        let most = now.maximum.unwrap_or_default();
        let why = format!("{descriptors} descriptors are needed, and the limit is {most} (ulimit -n)");
        Error::with(Code::System, why)
    })
}
