//! Tokens on disk, and what `LEASE` on a command line means.
//!
//! `<state>/tokens/<identity>/<id>.token` holds the token of a lease or a grant, `<name>.name` the id that a name of
//! the owner's last stood for. A `LEASE` is an id, a name, a path to a token's file, or `-` for standard input.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use caps::error::Code;
use caps::id::LeaseId;
use caps::token::{TOKEN_TEXT_BYTES_MAX, Token, inspect};
use caps::wire::Name;

use crate::failure::{Failure, Result};
use crate::files;

/// Bytes of a file that names an id.
const ID_FILE_BYTES: usize = 33;
/// Most tokens that are looked through for one of a lease. More than one principal may hold by default.
const TOKENS_MAX: usize = 4096;
/// Most tokens that are looked at for one that can go, each time one is kept: more come in than go out only for a while.
const SWEPT_MAX: usize = 64;
/// How long a token stays after its end.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 60 * 60);

/// How a command line names a lease or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseArg {
    /// The id of a lease or of a grant.
    Id(LeaseId),
    /// The owner's name for a lease.
    Name(Name),
    /// A token's file.
    File(PathBuf),
    /// A token on standard input.
    Stdin,
}

impl LeaseArg {
    /// Reads an argument. A path is recognised by a slash or by its end in `.token`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if text.contains('/') || text.ends_with(".token") {
            return Ok(Self::File(text.into()));
        }
        if let Ok(id) = LeaseId::parse(text) {
            return Ok(Self::Id(id));
        }
        Name::new(text).map(Self::Name).map_err(|error| {
            format!("neither an id, a name, the path of a token nor `-`: {}", error.detail())
        })
    }
}

impl std::fmt::Display for LeaseArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::File(path) => f.write_str(&files::show(path)),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// The tokens of one identity.
#[derive(Debug)]
pub(crate) struct Tokens {
    directory: PathBuf,
}

impl Tokens {
    pub(crate) fn new(tokens: &Path, identity: &Name) -> Self {
        Self { directory: tokens.join(identity.as_str()) }
    }

    /// Keeps a token under the id of its lease or grant, in place of an older one of the same. Returns its file.
    ///
    /// Fails with `E_EXISTS` if the token here is another node's and still good, and changes nothing then: ids are a node's
    /// word, and one node's must not cost the user what another one gave.
    pub(crate) fn keep(&self, id: &str, name: Option<&Name>, token: &Token) -> Result<PathBuf> {
        files::make_directory(&self.directory)?;
        self.sweep();
        let path = self.path(id);
        if is_anothers(&path, token) {
            let message =
                format!("a token of another node's {id} is kept here, and this node gave the same id");
            return Err(Failure::of(Code::Exists, message).help(format!(
                "move {} away to keep both; nodes draw ids at random, so one of the two may be lying",
                files::show(&path)
            )));
        }
        files::replace(&path, &line(token))?;
        if let Some(name) = name {
            files::replace(&self.name_path(name), &format!("{id}\n"))?;
        }
        Ok(path)
    }

    /// Removes tokens that have been over for so long that nobody asks any more why. Those of the last hours stay, so
    /// that opening one says that it expired or was revoked, and not that there is none.
    fn sweep(&self) {
        let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return };
        let old = now.saturating_sub(KEPT_AFTER_END).as_micros();
        let is_old = |path: &Path| {
            let token = files::read_secret(path, TOKEN_TEXT_BYTES_MAX).ok()?;
            let inspection = inspect(&Token::parse_text(&token).ok()?, None).ok()?;
            Some(u128::from(inspection.effective.expires) < old)
        };
        for path in self.files().take(SWEPT_MAX).filter(|path| is_old(path) == Some(true)) {
            let _ = std::fs::remove_file(path); // the next sweep tries again
        }
    }

    /// The token that an argument names.
    pub(crate) fn find(&self, lease: &LeaseArg) -> Result<Token> {
        match lease {
            LeaseArg::Id(id) => self.by_id(*id),
            LeaseArg::Name(name) => self.by_id(self.id_of(name).ok_or_else(|| missing(lease))?),
            LeaseArg::File(path) => read(path),
            LeaseArg::Stdin => parse(&files::read_stdin(TOKEN_TEXT_BYTES_MAX)?),
        }
    }

    /// The id that a name last stood for here.
    pub(crate) fn id_of(&self, name: &Name) -> Option<LeaseId> {
        let text = files::read_secret(&self.name_path(name), ID_FILE_BYTES).ok()?;
        LeaseId::parse(text.trim_end()).ok()
    }

    fn by_id(&self, id: LeaseId) -> Result<Token> {
        let path = self.path(&id.to_string());
        if path.try_exists().unwrap_or(true) {
            return parse(&files::read_secret(&path, TOKEN_TEXT_BYTES_MAX)?);
        }
        // A receiver knows the lease, and its token is kept under the grant.
        self.all().find(|token| is_of(token, id)).ok_or_else(|| missing(&LeaseArg::Id(id)))
    }

    fn all(&self) -> impl Iterator<Item = Token> {
        self.files()
            .take(TOKENS_MAX)
            .filter_map(|path| files::read_secret(&path, TOKEN_TEXT_BYTES_MAX).ok())
            .filter_map(|text| Token::parse_text(&text).ok())
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "token"))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.token"))
    }

    fn name_path(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{name}.name"))
    }
}

/// Writes a token to a file of the caller's choice, which must not exist.
pub(crate) fn write(path: &Path, token: &Token) -> Result<()> {
    Ok(files::create(path, &line(token))?)
}

/// Puts a token in the place of a file as one step.
pub(crate) fn replace(path: &Path, token: &Token) -> Result<()> {
    Ok(files::replace(path, &line(token))?)
}

/// Reads a token's file from anywhere. It may have been handed over, so that its mode says nothing.
pub(crate) fn read(path: &Path) -> Result<Token> {
    parse(&files::read_text(path, TOKEN_TEXT_BYTES_MAX)?)
}

fn parse(text: &str) -> Result<Token> {
    Ok(Token::parse_text(text)?)
}

fn line(token: &Token) -> zeroize::Zeroizing<String> {
    let mut text = token.to_text();
    text.reserve_exact(1);
    text.push('\n');
    text
}

/// Whether the file has a token from another life of a node than `token`'s, and its time is not over.
fn is_anothers(path: &Path, token: &Token) -> bool {
    let here = files::read_secret(path, TOKEN_TEXT_BYTES_MAX).ok();
    let here = here.and_then(|text| inspect(&Token::parse_text(&text).ok()?, None).ok());
    let (Some(here), Ok(new)) = (here, inspect(token, None)) else { return false };
    let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return true };
    let same = (here.cluster, here.provider) == (new.cluster, new.provider);
    !same && u128::from(here.effective.expires) > now.as_micros()
}

fn is_of(token: &Token, lease: LeaseId) -> bool {
    inspect(token, None).is_ok_and(|inspection| inspection.lease == lease.to_string())
}

fn missing(lease: &LeaseArg) -> Failure {
    Failure::of(Code::LeaseUnknown, format!("no token of `{lease}` is kept here for this identity")).help(
        "`leasehold lease list` shows your leases, `leasehold lease renew` brings a new token, and a path names a \
         token's file",
    )
}

#[cfg(test)]
mod tests {
    use caps::id::{ClusterEpoch, GrantId, ProviderId, RegionId};
    use caps::key::SigningKey;
    use caps::range::ByteRange;
    use caps::rights::Rights;
    use caps::time::UnixMicros;
    use caps::token::{RootKey, Terms};

    use super::*;

    fn token(lease: LeaseId) -> Token {
        until(UnixMicros::MAX, lease)
    }

    fn until(expires: UnixMicros, lease: LeaseId) -> Token {
        of_cluster(ClusterEpoch([3; 16]), expires, lease)
    }

    fn of_cluster(cluster: ClusterEpoch, expires: UnixMicros, lease: LeaseId) -> Token {
        let terms = Terms {
            lease,
            region: RegionId::random(),
            grant: Some(GrantId::random()),
            range: ByteRange::new(0, 4096).unwrap(),
            rights: Rights::READ,
            holder: SigningKey::from_seed(&[1; 32]).public(),
            not_before: UnixMicros(0),
            expires,
            max_hops: 0,
            cluster,
            provider: ProviderId([4; 16]),
        };
        RootKey::from_seed(&[2; 32]).mint(&terms).unwrap()
    }

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(directory.path(), &Name::new("alice").unwrap());
        (directory, tokens)
    }

    #[test]
    fn arguments_are_told_apart() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(LeaseArg::parse("-").unwrap(), LeaseArg::Stdin);
        assert_eq!(LeaseArg::parse(id).unwrap(), LeaseArg::Id(LeaseId::parse(id).unwrap()));
        assert_eq!(LeaseArg::parse("frames").unwrap(), LeaseArg::Name(Name::new("frames").unwrap()));
        assert_eq!(LeaseArg::parse("./frames").unwrap(), LeaseArg::File("./frames".into()));
        assert_eq!(LeaseArg::parse("a.token").unwrap(), LeaseArg::File("a.token".into()));
        for bad in ["", "a b", ".hidden", "\u{1b}[2J"] {
            assert!(LeaseArg::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_found_by_id_by_name_and_by_the_lease_it_is_of() {
        let (_directory, tokens) = tokens();
        let (lease, other) = (LeaseId::random(), LeaseId::random());
        let (mine, shared) = (token(lease), token(other));
        let name = Name::new("frames").unwrap();
        let path = tokens.keep(&lease.to_string(), Some(&name), &mine).unwrap();
        tokens.keep(&GrantId::random().to_string(), None, &shared).unwrap();
        assert!(tokens.find(&LeaseArg::Id(lease)).unwrap() == mine);
        assert!(tokens.find(&LeaseArg::Name(name.clone())).unwrap() == mine);
        assert!(tokens.find(&LeaseArg::File(path)).unwrap() == mine);
        assert!(tokens.find(&LeaseArg::Id(other)).unwrap() == shared);

        let newer = token(lease);
        tokens.keep(&lease.to_string(), Some(&name), &newer).unwrap();
        assert!(tokens.find(&LeaseArg::Name(name)).unwrap() == newer);
        for unknown in [LeaseArg::Id(LeaseId::random()), LeaseArg::Name(Name::new("unknown").unwrap())] {
            assert_eq!(tokens.find(&unknown).unwrap_err().code, "E_LEASE_UNKNOWN");
        }
    }

    #[test]
    fn another_nodes_token_of_the_same_id_is_not_overwritten_while_it_is_good() {
        let (_directory, tokens) = tokens();
        let lease = LeaseId::random();
        let id = lease.to_string();
        let (mine, other) = (token(lease), of_cluster(ClusterEpoch([9; 16]), UnixMicros::MAX, lease));
        tokens.keep(&id, None, &mine).unwrap();
        assert_eq!(tokens.keep(&id, None, &other).unwrap_err().code, "E_EXISTS");
        assert!(tokens.find(&LeaseArg::Id(lease)).unwrap() == mine);
        tokens.keep(&id, None, &token(lease)).unwrap();

        let over = LeaseId::random();
        tokens.keep(&over.to_string(), None, &until(UnixMicros(1), over)).unwrap();
        let next = of_cluster(ClusterEpoch([9; 16]), UnixMicros::MAX, over);
        tokens.keep(&over.to_string(), None, &next).unwrap();
        assert!(tokens.find(&LeaseArg::Id(over)).unwrap() == next);
    }

    #[test]
    fn a_token_goes_a_day_after_its_end() {
        let (_directory, tokens) = tokens();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ended = |ago: Duration| UnixMicros((now - ago).as_micros() as u64);
        let (lately, long_ago) = (LeaseId::random(), LeaseId::random());
        let keep = |lease: LeaseId, token| tokens.keep(&lease.to_string(), None, &token).unwrap();
        keep(lately, until(ended(KEPT_AFTER_END / 2), lately));
        keep(long_ago, until(ended(KEPT_AFTER_END * 2), long_ago));
        keep(LeaseId::random(), token(LeaseId::random()));
        assert!(tokens.find(&LeaseArg::Id(lately)).is_ok());
        assert_eq!(tokens.find(&LeaseArg::Id(long_ago)).unwrap_err().code, "E_LEASE_UNKNOWN");
    }

    #[test]
    fn a_written_token_reads_back_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.token");
        let token = token(LeaseId::random());
        write(&path, &token).unwrap();
        assert!(read(&path).unwrap() == token);
        assert_eq!(write(&path, &token).unwrap_err().code, "E_EXISTS");
    }
}
