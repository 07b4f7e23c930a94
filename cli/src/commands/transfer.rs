//! `leasehold put` and `leasehold get`: bytes in and out of a lease, through a mapping where the right allows one, else
//! through the node; over TLS where the node is on another machine.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use caps::error::Code;
use caps::id::LeaseId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::token::{Token, inspect};
use libmem::{Client, InheritedToken, Memory};
use serde_json::json;

use super::encrypted::Opened;
use crate::args::transfer::{Get, Put};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::progress::Progress;
use crate::output::{Report, human};
use crate::tokens::{LeaseArg, Tokens};

/// Bytes that are moved at a time: large enough that system calls do not count, small enough that the progress line
/// lives and a revoke is noticed soon.
const STEP_BYTES: usize = 1 << 20;
/// The same over the network, where each step waits once for the way there and back.
const REMOTE_STEP_BYTES: usize = 8 << 20;

/// Bytes that are moved at a time.
pub(super) const fn step_bytes(context: &Context) -> usize {
    if context.is_remote() { REMOTE_STEP_BYTES } else { STEP_BYTES }
}

pub(crate) fn put(arguments: &Put, context: &Context) -> Result<Report> {
    if arguments.lease == LeaseArg::Stdin && arguments.input.is_none() {
        return Err(Failure::usage(
            "standard input cannot be both the token and the bytes",
            "name the bytes' file with --input",
        ));
    }
    let memory = open(&arguments.lease, Rights::READ_WRITE, arguments.crc, context)?;
    let range = memory.facts().range;
    let offset = arguments.offset.unwrap_or(range.start());
    let (mut input, name) = match &arguments.input {
        Some(path) => (File::open(path).map_err(|error| files::failed(path, &error))?, path.as_path()),
        None => (stream(std::io::stdin())?, Path::new("standard input")),
    };
    let total = rest(&input);
    if let Some(total) = total {
        room(range, offset, total)?; // before the first byte is written
    }
    let mut progress = Progress::start(total);
    let mut buffer = vec![0; step_bytes(context)];
    let mut done = 0;
    loop {
        let count = next(&mut input, &mut buffer, context.is_remote())
            .map_err(|error| after(files::failed(name, &error).into(), done))?;
        if count == 0 {
            break;
        }
        room(range, offset, done + count as u64)
            .and_then(|()| Ok(memory.write_at(offset + done, &buffer[..count])?))
            .map_err(|failure| after(failure, done))?;
        done += count as u64;
        progress.at(done);
    }
    drop(progress);
    let path = path_word(memory.memory(), context);
    let text = format!("wrote {} at {offset} of {}, {path}\n", human::bytes(done), arguments.lease);
    let value = json!({ "put": {
        "lease": arguments.lease.to_string(), "offset": offset, "bytes": done, "path": path,
        "encrypted": memory.is_encrypted(),
    }});
    Ok(Report::new(value, text))
}

/// Reads what comes next, 0 bytes at the end. A pipe gives little at a time; `filled` waits for as much as there is room
/// for, where each piece costs a way there and back.
fn next(input: &mut impl Read, buffer: &mut [u8], filled: bool) -> std::io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match input.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if !filled {
            break;
        }
    }
    Ok(count)
}

/// Standard output is either the bytes or the JSON document.
pub(super) fn refuse_two_documents(output: Option<&Path>, context: &Context) -> Result<()> {
    if context.json && output.is_none() {
        return Err(Failure::usage(
            "with --json the bytes cannot go to standard output",
            "name a file for them with --output",
        ));
    }
    Ok(())
}

/// Reads `length` bytes in pieces of `most` and writes them to a new file, or to standard output. `read` fills a piece
/// that begins so many bytes on. Returns the bytes written: fewer where whoever reads them has seen enough.
pub(super) fn pour(
    output: Option<&Path>,
    length: u64,
    most: usize,
    mut read: impl FnMut(u64, &mut [u8]) -> libmem::Result<()>,
) -> Result<u64> {
    let (mut output, name) = match output {
        Some(path) => (create(path)?, path),
        None => (stream(std::io::stdout())?, Path::new("standard output")),
    };
    let mut progress = Progress::start(Some(length));
    let mut buffer = vec![0; most.min(usize::try_from(length).unwrap_or(most))];
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).unwrap_or(most).min(most);
        read(done, &mut buffer[..step]).map_err(|error| after(error.into(), done))?;
        match output.write_all(&buffer[..step]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(files::failed(name, &error).into()),
        }
        done += step as u64;
        progress.at(done);
    }
    Ok(done)
}

pub(crate) fn get(arguments: &Get, context: &Context) -> Result<Report> {
    refuse_two_documents(arguments.output.as_deref(), context)?;
    let memory = open(&arguments.lease, Rights::READ, arguments.crc, context)?;
    let range = memory.facts().range;
    let offset = arguments.offset.unwrap_or(range.start());
    let length = arguments.len.unwrap_or(range.end().saturating_sub(offset));
    room(range, offset, length)?;
    let read = |done, buffer: &mut [u8]| memory.read_at(offset + done, buffer);
    let done = pour(arguments.output.as_deref(), length, step_bytes(context), read)?;
    let path = path_word(memory.memory(), context);
    if arguments.output.is_none() {
        return Ok(Report::silent());
    }
    let text = format!("read {} at {offset} of {}, {path}\n", human::bytes(done), arguments.lease);
    let value = json!({ "get": {
        "lease": arguments.lease.to_string(), "offset": offset, "bytes": done, "path": path,
        "encrypted": memory.is_encrypted(),
    }});
    Ok(Report::new(value, text))
}

fn open(lease: &LeaseArg, rights: Rights, checked: bool, context: &Context) -> Result<Opened> {
    if libmem::is_inherited() {
        // Started by `leasehold run`: there are no files here, and no key.
        let token = inherited(lease, libmem::inherited_tokens()?)?;
        return Ok(Opened::Plain(Client::inherited()?.open(&token, rights)?));
    }
    let find = || super::lease::find(lease, &context.connect_for(lease)?);
    let token = token(lease, &context.tokens()?, find)?;
    let reach = context.reach(&token, checked)?;
    let memory = reach.open(&token, rights).map_err(|error| context.unopened(error, reach.place(&token)))?;
    Opened::new(memory, &token, context)
}

/// The token that an argument names. `find` asks the node which lease it is.
pub(crate) fn token(
    lease: &LeaseArg,
    tokens: &Tokens,
    find: impl FnOnce() -> Result<LeaseId>,
) -> Result<Token> {
    match tokens.find(lease) {
        // Made elsewhere, or named since: the node knows which lease it is.
        Err(_) if matches!(lease, LeaseArg::Name(_)) => tokens.find(&LeaseArg::Id(find()?)),
        found => found,
    }
}

/// The token that an argument names among those that this process was started with.
fn inherited(lease: &LeaseArg, tokens: Vec<InheritedToken>) -> Result<Token> {
    let is_meant = |kept: &InheritedToken| match lease {
        LeaseArg::Name(name) => kept.name.as_ref() == Some(name),
        LeaseArg::Id(id) => inspect(&kept.token, None)
            .is_ok_and(|found| [Some(&found.lease), found.grant.as_ref()].contains(&Some(&id.to_string()))),
        LeaseArg::File(_) | LeaseArg::Stdin => false,
    };
    tokens.into_iter().find(is_meant).map(|kept| kept.token).ok_or_else(|| {
        Failure::of(Code::LeaseUnknown, format!("no token of `{lease}` was given to this sandbox"))
            .help("name it with --token when you start `leasehold run`, and by the same name or its id here")
    })
}

/// Checks that `length` bytes from `offset` lie within the right.
pub(super) fn room(range: ByteRange, offset: u64, length: u64) -> Result<()> {
    let fits = offset.checked_add(length).is_some_and(|end| range.start() <= offset && end <= range.end());
    if fits {
        return Ok(());
    }
    let message = format!("{length} bytes from {offset} on do not lie in the right's range {range}");
    Err(Failure::of(Code::Range, message).help("choose another --offset or --len, or move fewer bytes"))
}

/// A failure in the middle says how far it came.
fn after(failure: Failure, done: u64) -> Failure {
    if done == 0 {
        return failure;
    }
    Failure { message: format!("{}, after {}", failure.message, human::bytes(done)), ..failure }
}

/// A standard stream without the buffer that the library puts before it.
fn stream(stream: impl AsFd) -> Result<File> {
    let descriptor = stream.as_fd().try_clone_to_owned();
    Ok(File::from(descriptor.map_err(|error| files::failed(Path::new("a standard stream"), &error))?))
}

/// How many bytes are still to be read, if that can be known.
fn rest(file: &File) -> Option<u64> {
    let about = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let position = rustix::fs::tell(file).ok()?;
    // Files of /proc and the like say 0 and have bytes all the same.
    Some(about.len().checked_sub(position)?).filter(|&rest| rest > 0)
}

/// Leased bytes are nobody else's business, and an existing file is not overwritten.
fn create(path: &Path) -> Result<File> {
    files::create(path, "")?;
    File::options().write(true).open(path).map_err(|error| files::failed(path, &error).into())
}

const fn path_word(memory: &Memory, context: &Context) -> &'static str {
    match memory {
        Memory::Mapped(_) => "mapped",
        Memory::Mediated(_) if context.is_remote() => "remote",
        Memory::Mediated(_) => "mediated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_what_does_not_fit_is_refused() {
        let range = ByteRange::new(4096, 8192).unwrap();
        for (offset, length, fits) in [
            (4096, 4096, true),
            (8192, 0, true),
            (4095, 1, false),
            (4096, 4097, false),
            (8193, 0, false),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(room(range, offset, length).is_ok(), fits, "{offset} {length}");
        }
    }

    #[test]
    fn a_pipe_is_read_as_it_comes_or_until_the_buffer_is_full() {
        /// Gives two bytes at a time, and is interrupted in between.
        struct Pipe(std::collections::VecDeque<u8>, bool);
        impl Read for Pipe {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::Interrupted.into());
                }
                let room = buffer.len().min(2);
                self.0.read(&mut buffer[..room])
            }
        }
        let pipe = || Pipe((0..7).collect(), false);
        let mut buffer = [0; 5];
        assert_eq!(next(&mut pipe(), &mut buffer, false).unwrap(), 2);
        let mut pipe = pipe();
        assert_eq!(next(&mut pipe, &mut buffer, true).unwrap(), 5);
        assert_eq!(buffer, [0, 1, 2, 3, 4]);
        assert_eq!(next(&mut pipe, &mut buffer, true).unwrap(), 2);
        assert_eq!(next(&mut pipe, &mut buffer, true).unwrap(), 0);
    }

    #[test]
    fn what_is_left_of_a_file_is_known_and_of_a_pipe_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        let mut file = File::open(&path).unwrap();
        file.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(rest(&file), Some(3));
        assert_eq!(rest(&File::open("/dev/zero").unwrap()), None);
        assert_eq!(rest(&File::open("/proc/version").unwrap()), None);
    }
}
