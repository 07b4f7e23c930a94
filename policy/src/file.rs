//! Reading a file that an operator named: whatever it turns out to be, the reader neither blocks nor grows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use caps::Code;
use rustix::fs::{Mode, OFlags};

use crate::diagnostic::{Collector, Diagnostic, quote};
use crate::units::Bytes;

/// Reads a regular, non-empty UTF-8 file of at most `bytes_max` bytes.
///
/// # Errors
/// `E_CONFIG_IO` for everything else that can stand at a path; `utf8` is the code for a file that is not UTF-8, which
/// is reported with its line and column.
pub(crate) fn read(path: &Path, bytes_max: usize, utf8: Code) -> Result<String, Vec<Diagnostic>> {
    let name = path.to_string_lossy();
    let fail = |message: String, help: &str| vec![Diagnostic::of_file(Code::ConfigIo, &name, message, help)];
    // NONBLOCK: opening a FIFO would wait for a writer. NOCTTY: a terminal must not become ours.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| fail(format!("cannot be opened: {error}"), "check the path and its permissions"))?;
    let mut file = File::from(file);
    let about =
        file.metadata().map_err(|error| fail(format!("cannot be examined: {error}"), "check the path"))?;
    if !about.is_file() {
        return Err(fail("is not a regular file".into(), "name a file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a full file from one that is too long, even while it grows.
    let read = file.by_ref().take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| fail(format!("cannot be read: {error}"), "check the disk"))?;
    if bytes.len() > bytes_max {
        let message = format!("is larger than {}", Bytes(bytes_max as u64));
        return Err(fail(message, "name the right file"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(fail(
            "is empty".into(),
            "an empty file is usually one that was cut off; remove it for the defaults",
        ));
    }
    decode(bytes, &name, utf8)
}

/// The text of `bytes`, or where it stops being UTF-8.
pub(crate) fn decode(bytes: Vec<u8>, file: &str, code: Code) -> Result<String, Vec<Diagnostic>> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[good];
        let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        let mut found = Collector::new(file, &text);
        found.error(code, good, format!("the byte 0x{byte:02x} is not UTF-8"), "save the file as UTF-8");
        found.finish()
    })
}

/// The name of a file for messages.
pub(crate) fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}
