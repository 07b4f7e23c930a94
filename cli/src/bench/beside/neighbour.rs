//! The command beside which is measured: a process that the benchmark starts anew for each turn.
//!
//! Its standard input is one end of a stream socket, for both directions: a word, or a document, a line.
//!
//! ```text
//! benchmark                                              command
//!    │── {"socket", "uids", "seed", "token"} ──────────────▶│  connects, opens, maps, does its worst
//!    │◀────────────────────────────────────── "rotate" ─────│  as often as it likes, while it prepares
//!    │── "rotated" ────────────────────────────────────────▶│
//!    │◀────────────────────────────────────── "ready" ──────│  and goes on with what it does
//!    │── "over" ───────────────────────────────────────────▶│  its region was taken back: it ends
//! ```
//!
//! The command runs as the benchmark's own user, for who mounts a file system, or stops and wakes a process, may have to;
//! the hostile process that it starts is of the user `uids[0]`, whom the node lets in, as it does the others of `uids`.
//! A seed and a token are secrets: they come by this socket alone, which ends in the benchmark's own child.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use serde::Serialize;

/// Longer than anything takes to prepare, sixty thousand mappings on a busy machine included.
const WAIT: Duration = Duration::from_secs(90);
/// Longest line that a command may say, in bytes, its end included.
const LINE_BYTES_MAX: u64 = 64;

/// What the command is told first.
#[derive(Serialize)]
pub struct Brief<'a> {
    /// Where the node listens.
    pub socket: &'a Path,
    /// Users whom the node lets in. The hostile process is the first.
    pub uids: &'a [u32],
    /// The key of the principal that the token is bound to: 32 bytes in hexadecimal.
    pub seed: &'a str,
    /// A right to the neighbour's region.
    pub token: &'a str,
}

/// What a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Take something out of the region that others have of it, so that it is rotated.
    Rotate,
    /// All is prepared.
    Ready,
}

/// The process. Dropping it kills it.
pub struct Neighbour {
    child: Child,
    line: BufReader<UnixStream>,
}

fn failed<E>(what: &'static str) -> impl Fn(E) -> Error {
    move |_| Error::new(Code::System, what)
}

impl Neighbour {
    /// Starts it and tells it what it is given.
    ///
    /// # Errors
    /// `E_SYSTEM` if it cannot be started.
    pub fn start(command: &[OsString], brief: &Brief<'_>) -> Result<Self> {
        let no_socket = failed("no socket for the command");
        let (ours, theirs) = UnixStream::pair().map_err(&no_socket)?;
        ours.set_read_timeout(Some(WAIT)).map_err(&no_socket)?;
        let [program, arguments @ ..] = command else {
            return Err(Error::new(Code::Range, "no command to measure beside"));
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null()) // ours is one table, or one document
            .spawn()
            .map_err(|error| Error::with(Code::System, format!("cannot start the command: {error}")))?;
        let mut neighbour = Self { child, line: BufReader::new(ours) };
        let brief =
            serde_json::to_string(brief).map_err(failed("what the command is told does not encode"))?;
        neighbour.say(&brief)?;
        Ok(neighbour)
    }

    /// Says a line.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if nobody is there any more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.line.get_mut(), "{line}")
            .map_err(|_| Error::new(Code::Unreachable, "the command ended before it was ready"))
    }

    /// Hears a word.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if it ended, `E_TIMEOUT` if it says nothing, `E_PROTOCOL` if it says something else.
    pub fn hear(&mut self) -> Result<Word> {
        let mut text = String::new();
        match std::io::Read::take(&mut self.line, LINE_BYTES_MAX).read_line(&mut text) {
            Ok(0) => Err(Error::new(Code::Unreachable, "the command ended before it was ready")),
            Ok(_) => match text.trim_end() {
                "rotate" => Ok(Word::Rotate),
                "ready" => Ok(Word::Ready),
                _ => Err(Error::new(Code::Protocol, "the command says neither rotate nor ready")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(Error::new(Code::Timeout, "the command does not become ready"))
            }
            // Reset: it ended with what it was told still unread.
            Err(_) => Err(Error::new(Code::Unreachable, "the command ended before it was ready")),
        }
    }

    /// Tells it that all is over, and waits until it has ended.
    ///
    /// # Errors
    /// `E_TIMEOUT` if it does not, or has more to say: what it left behind would be measured with the next turn.
    pub fn over(mut self) -> Result<()> {
        // One that has ended already needs no word.
        let _ = self.say("over");
        let _ = self.line.get_ref().shutdown(Shutdown::Write);
        match std::io::Read::read(&mut self.line, &mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(Error::new(Code::Timeout, "the command does not end when all is over")),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ours, and perhaps gone already
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that has read its brief.
    fn shell(script: &str) -> Neighbour {
        let brief = Brief { socket: Path::new("/s"), uids: &[1, 2], seed: "00", token: "t" };
        let script = format!("read -r brief; {script}");
        Neighbour::start(&["/bin/sh".into(), "-c".into(), script.into()], &brief).unwrap()
    }

    #[test]
    fn a_command_hears_its_brief_and_both_sides_take_turns() {
        let expected = r#"{"socket":"/s","uids":[1,2],"seed":"00","token":"t"}"#;
        let mut command = shell(&format!(
            "[ \"$brief\" = '{expected}' ] && echo rotate >&0; read -r word; [ \"$word\" = rotated ] && echo ready >&0; read -r word"
        ));
        assert_eq!(command.hear().unwrap(), Word::Rotate);
        command.say("rotated").unwrap();
        assert_eq!(command.hear().unwrap(), Word::Ready);
        command.over().unwrap();
    }

    #[test]
    fn a_command_that_ends_or_talks_is_an_error() {
        assert_eq!(shell("exit 0").hear().unwrap_err().code(), Code::Unreachable);
        assert_eq!(shell("echo hello >&0; read -r word").hear().unwrap_err().code(), Code::Protocol);
        let mut endless = shell("while echo -n x >&0; do :; done");
        assert_eq!(endless.hear().unwrap_err().code(), Code::Protocol, "a line has an end");
        assert_eq!(shell("read -r word; echo more >&0").over().unwrap_err().code(), Code::Timeout);
        let brief = Brief { socket: Path::new("/s"), uids: &[], seed: "", token: "" };
        for nothing in [&[][..], &["/no such program".into()]] {
            assert!(Neighbour::start(nothing, &brief).is_err());
        }
    }
}
