//! Files that hold secrets: keys and tokens.
//!
//! They are made whole or not at all, never through a link, and readable by their owner alone from the first moment.
//! They are read only if they are still so: a key that others may have read is no key.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::wire::Name;
use zeroize::Zeroizing;

/// Mode of a file with a secret.
const FILE_MODE: u32 = 0o600;
/// Mode of a directory with such files.
const DIRECTORY_MODE: u32 = 0o700;
/// The bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;
/// The bits that let anybody but the owner change a directory's entries.
const OTHERS_WRITE: u32 = 0o022;

/// Makes a directory for secrets, and those above it, unless they are there.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(|error| failed(path, &error))
}

/// Makes a new file with a secret.
///
/// Fails with `E_EXISTS` if there is one of that name, link or not.
pub(crate) fn create(path: &Path, text: &str) -> Result<()> {
    let mut file = options().create_new(true).write(true).open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::with(Code::Exists, format!("{} exists", show(path))),
        _ => failed(path, &error),
    })?;
    fill(&mut file, text).and_then(|()| settle(path)).map_err(|error| {
        let _ = std::fs::remove_file(path); // half a secret is worse than none
        failed(path, &error)
    })
}

/// As [`create`], and through a loss of power the file is there whole or not at all: for what nobody can draw again. Where the
/// file system has no second names it is as [`create`].
///
/// Not for the daemons, whose lists of system calls have no links.
pub(crate) fn create_whole(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_file_name(format!(".{}.new", LeaseId::random()));
    create(&temporary, text)?;
    // A link takes nobody's place, as a rename would.
    let linked = std::fs::hard_link(&temporary, path);
    let removed = std::fs::remove_file(&temporary);
    match linked.map_err(|error| error.kind()) {
        // A second name of the secret would outlive its destruction by the first.
        Ok(()) => removed.and_then(|()| settle(path)).map_err(|error| {
            let _ = std::fs::remove_file(path);
            failed(path, &error)
        }),
        Err(ErrorKind::PermissionDenied | ErrorKind::Unsupported) => create(path, text),
        Err(ErrorKind::AlreadyExists) => Err(Error::with(Code::Exists, format!("{} exists", show(path)))),
        Err(kind) => Err(failed(path, &kind.into())),
    }
}

/// Makes a file with a secret, or replaces the one of that name as one step.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    // A name that nobody else draws, in the same directory, so that the rename stays in one file system.
    let temporary = path.with_file_name(format!(".{}.new", LeaseId::random()));
    create(&temporary, text)?;
    std::fs::rename(&temporary, path).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        failed(path, &error)
    })?;
    settle(path).map_err(|error| failed(path, &error))
}

/// Opens a file that is there to be locked, and makes it if it is not there.
pub(crate) fn lock_file(path: &Path) -> Result<File> {
    options().create(true).truncate(false).write(true).open(path).map_err(|error| failed(path, &error))
}

/// Makes an entry of a directory last through a loss of power. Where the directory cannot be opened it is as lasting as the file
/// system makes it by itself.
fn settle(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).map_or(Ok(()), |directory| directory.sync_all())
}

fn fill(file: &mut File, text: &str) -> std::io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a file that must be this user's alone.
pub(crate) fn read_secret(path: &Path, bytes_max: usize) -> Result<Zeroizing<String>> {
    let file = open(path)?;
    let status = file.metadata().map_err(|error| failed(path, &error))?;
    let refused = |what: &str| Err(Error::with(Code::ConfigPerms, format!("{} {what}", show(path))));
    if !status.is_file() {
        return refused("is no regular file");
    }
    if status.uid() != rustix::process::geteuid().as_raw() {
        return refused("belongs to another user");
    }
    if status.mode() & OTHERS != 0 {
        return refused(&format!("has mode {:o}: others may read it", status.mode() & 0o777));
    }
    text(file, path, bytes_max)
}

/// Reads a file that need not be secret, or may come from elsewhere: a token that was handed over, a public key.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> Result<Zeroizing<String>> {
    let file = open(path)?;
    if !file.metadata().is_ok_and(|status| status.is_file()) {
        return Err(Error::with(Code::ConfigIo, format!("{} is no regular file", show(path))));
    }
    text(file, path, bytes_max)
}

/// Checks that nobody else can put files of his own where secrets are looked for.
pub(crate) fn check_directory(path: &Path) -> Result<()> {
    let status = std::fs::metadata(path).map_err(|error| failed(path, &error))?;
    let owner = status.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Error::with(Code::ConfigPerms, format!("{} belongs to another user", show(path))));
    }
    if status.mode() & OTHERS_WRITE != 0 {
        let mode = status.mode() & 0o777;
        let message = format!("{} has mode {mode:o}: others may put files there", show(path));
        return Err(Error::with(Code::ConfigPerms, message));
    }
    Ok(())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // NOFOLLOW: a link could name somebody else's file. NONBLOCK: opening a pipe must not wait for its other end.
    options.mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn open(path: &Path) -> Result<File> {
    options().read(true).open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => Error::with(Code::ConfigPerms, format!("{} is a link", show(path))),
        _ => failed(path, &error),
    })
}

fn text(file: impl Read, path: &Path, bytes_max: usize) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(bytes_max + 1)); // never moved, so that no copy is left
    match file.take(bytes_max as u64 + 1).read_to_string(&mut text) {
        Ok(bytes) if bytes <= bytes_max => Ok(text),
        Ok(_) => Err(Error::with(Code::ConfigIo, format!("{} has more than {bytes_max} bytes", show(path)))),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(Error::with(Code::ConfigIo, format!("{} is no text", show(path))))
        }
        Err(error) => Err(failed(path, &error)),
    }
}

/// Reads standard input to its end.
pub(crate) fn read_stdin(bytes_max: usize) -> Result<Zeroizing<String>> {
    text(std::io::stdin().lock(), Path::new("standard input"), bytes_max)
}

/// The names of the files `NAME.extension` in a directory, in order; none if there is no directory. What is no such file
/// is passed over, and so is what comes after `entries_max` entries.
///
/// # Errors
/// `E_CONFIG_IO`.
pub(crate) fn names(directory: &Path, extension: &str, entries_max: usize) -> Result<Vec<Name>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, &error)),
    };
    let name = |path: &Path| {
        let is_ours = path.extension().is_some_and(|found| found == extension);
        is_ours.then(|| Name::new(path.file_stem()?.to_str()?).ok()).flatten()
    };
    let mut names: Vec<_> =
        entries.flatten().take(entries_max).filter_map(|entry| name(&entry.path())).collect();
    names.sort();
    Ok(names)
}

/// A failure of the operating system about a file.
pub(crate) fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::with(Code::ConfigIo, format!("{}: {}", show(path), error.kind()))
}

/// A path for a message: what is not printable is escaped.
pub(crate) fn show(path: &Path) -> String {
    policy::diagnostic::quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const BYTES_MAX: usize = 16;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_its_owners_from_the_start_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, "s3cret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, FILE_MODE);
        assert_eq!(read_secret(&path, BYTES_MAX).unwrap().as_str(), "s3cret");
        assert_eq!(create(&path, "other").unwrap_err().code(), Code::Exists);
        assert_eq!(create_whole(&path, "other").unwrap_err().code(), Code::Exists);
        let whole = directory.path().join("whole");
        create_whole(&whole, "s3cret").unwrap();
        let status = std::fs::metadata(&whole).unwrap();
        assert_eq!((status.mode() & 0o777, status.nlink()), (FILE_MODE, 1));
        assert_eq!(read_secret(&whole, BYTES_MAX).unwrap().as_str(), "s3cret");
        std::fs::remove_file(whole).unwrap();
        replace(&path, "other").unwrap();
        assert_eq!(read_secret(&path, BYTES_MAX).unwrap().as_str(), "other");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_others_may_read_or_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, "s").unwrap();
        for bits in [0o640, 0o604, 0o660, 0o601] {
            mode(&path, bits);
            assert_eq!(read_secret(&path, BYTES_MAX).unwrap_err().code(), Code::ConfigPerms, "{bits:o}");
        }
        mode(&path, 0o400);
        read_secret(&path, BYTES_MAX).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_secret(&link, BYTES_MAX).unwrap_err().code(), Code::ConfigPerms);
        assert_eq!(create(&link, "x").unwrap_err().code(), Code::Exists);
        assert_eq!(create_whole(&link, "x").unwrap_err().code(), Code::Exists);
        assert_eq!(read_secret(directory.path(), BYTES_MAX).unwrap_err().code(), Code::ConfigPerms);
    }

    #[test]
    fn k1_what_is_missing_long_binary_or_a_pipe_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("long"), "x".repeat(BYTES_MAX + 1)).unwrap();
        std::fs::write(path("binary"), [0xff]).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let user = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), fifo, user, 0).unwrap();
        for name in ["missing", "long", "binary", "fifo", "."] {
            assert_eq!(read_text(&path(name), BYTES_MAX).unwrap_err().code(), Code::ConfigIo, "{name}");
        }
    }

    #[test]
    fn a_directory_where_others_put_files_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        make_directory(&inner).unwrap();
        check_directory(&inner).unwrap();
        for bits in [0o720, 0o702, 0o777] {
            mode(&inner, bits);
            assert_eq!(check_directory(&inner).unwrap_err().code(), Code::ConfigPerms, "{bits:o}");
        }
    }
}
