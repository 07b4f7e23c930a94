//! `leasehold run`: a program in the sandbox, with the leases it may use and nothing else of its user's.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use caps::error::{Code, Error};
use caps::token::{Token, seal};
use libmem::{SESSION_VARIABLE, TOKENS_VARIABLE};
use provider::sandbox::{Launch, SESSION_FD, TOKENS_MAX};
use rustix::fs::{MemfdFlags, SealFlags};

use super::transfer::token;
use crate::args::run::Run;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::Report;
use crate::tokens::LeaseArg;

/// What of this process' environment the program gets: how to print, and where programs are. No variable in it has a
/// secret, unless somebody named one so.
const ENVIRONMENT: [&str; 6] = ["PATH", "LANG", "LC_ALL", "TERM", "TZ", "NO_COLOR"];

pub(crate) fn run(arguments: &Run, context: &Context) -> Result<Report> {
    if arguments.tokens.len() > TOKENS_MAX {
        return Err(Failure::usage(
            format!("a program in the sandbox gets at most {TOKENS_MAX} tokens"),
            "start a second program for the others",
        ));
    }
    if context.is_remote() {
        return Err(Failure::usage(
            "a program in the sandbox uses the node of its own machine, through the socket that it is given",
            "leave out --broker, --nodes and the variables of the same; over the network use `leasehold put` and `leasehold get`",
        ));
    }
    let [name, ..] = &arguments.command[..] else {
        return Err(Failure::usage("there is no program to run", "name it after `--`"));
    };
    let program = find(name)?;
    let session = context.connect_here()?;
    let mut numbers = Vec::new();
    let mut tokens = Vec::new();
    for (number, lease) in (SESSION_FD + 1..).zip(&arguments.tokens) {
        // Sealed, so that nothing in it can be used to narrow it or to pass it on.
        let sealed =
            seal(&token(lease, &session.tokens, || super::lease::find(lease, &context.connect()?))?)?;
        tokens.push(in_memory(&sealed).map_err(|_| Error::new(Code::System, "no memory for a token"))?);
        numbers.push(match lease {
            LeaseArg::Name(name) => format!("{name}:{number}"),
            LeaseArg::Id(_) | LeaseArg::File(_) | LeaseArg::Stdin => number.to_string(),
        });
    }
    let inherited = [(SESSION_VARIABLE, SESSION_FD.to_string()), (TOKENS_VARIABLE, numbers.join(","))].map(
        |(name, value)| {
            let mut entry = name.to_owned();
            entry.push('=');
            entry.push_str(&value);
            entry.into_bytes()
        },
    );
    let kept = ENVIRONMENT.into_iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some([name.as_bytes(), b"=", value.as_bytes()].concat())
    });
    let launch = Launch {
        program,
        arguments: words(arguments.command.iter().map(|word| word.clone().into_vec()))?,
        environment: words(kept.chain(inherited))?,
        // The last thing that the key is used for.
        session: session.client.hand_over()?,
        tokens,
    };
    drop(session.key);
    Err(launch.exec().into())
}

fn words(words: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>> {
    let words: std::result::Result<Vec<_>, _> = words.map(CString::new).collect();
    words.map_err(|_| Failure::usage("an argument with a zero byte cannot be passed on", "leave it out"))
}

/// The file of a program: a path, or a name in `PATH`.
fn find(name: &OsStr) -> Result<PathBuf> {
    let path = Path::new(name);
    if name.as_bytes().contains(&b'/') {
        return Ok(path.to_owned());
    }
    let can_run = |path: &PathBuf| {
        path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).map(|directory| directory.join(path)).find(can_run).ok_or_else(|| {
        Failure::of(Code::ConfigIo, format!("there is no program {} in PATH", files::show(path)))
            .help("name the program's file, with a slash in it")
    })
}

/// A token's text in memory that nobody can change, behind a descriptor that can only be read.
fn in_memory(token: &Token) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(rustix::fs::memfd_create("token", flags)?);
    file.write_all(token.to_text().as_bytes())?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(File::open(path)?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
    use caps::key::SigningKey;
    use caps::range::ByteRange;
    use caps::rights::Rights;
    use caps::time::UnixMicros;
    use caps::token::{RootKey, Terms};

    use super::*;

    #[test]
    fn a_token_in_memory_is_read_and_nothing_else() {
        let terms = Terms {
            lease: LeaseId::random(),
            region: RegionId::random(),
            grant: None,
            range: ByteRange::new(0, 4096).unwrap(),
            rights: Rights::READ,
            holder: SigningKey::from_seed(&[1; 32]).public(),
            not_before: UnixMicros(0),
            expires: UnixMicros::MAX,
            max_hops: 0,
            cluster: ClusterEpoch::random(),
            provider: ProviderId::random(),
        };
        let token = RootKey::from_seed(&[2; 32]).mint(&terms).unwrap();
        let mut file = File::from(in_memory(&token).unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, token.to_text().as_str());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        assert_eq!(find(OsStr::new("./x")).unwrap(), Path::new("./x"));
        assert!(find(OsStr::new("true")).unwrap().is_absolute());
        assert_eq!(find(OsStr::new("there-is-no-such-program")).unwrap_err().code, "E_CONFIG_IO");
    }
}
