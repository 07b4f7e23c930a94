//! `leasehold token`: what a holder does without a node.

use std::path::Path;
use std::time::SystemTime;

use caps::error::{Code, Error};
use caps::time::UnixMicros;
use caps::token::{self as capability, RootKeys, RootPublic, View, inspect};
use caps::wire::Name;
use serde_json::json;

use crate::args::token::{Narrow, Roots, Token};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, human, table};
use crate::tokens::{self, LeaseArg, Tokens};

/// Bytes of a file with root keys: eight lines of 64 digits, with room for comments.
const ROOT_FILE_BYTES_MAX: usize = 4096;

pub(crate) fn run(command: &Token, context: &Context) -> Result<Report> {
    match command {
        Token::Inspect { token, roots, node } => {
            super::inspect::run(&find(&token.token, context)?, roots, *node, context)
        }
        Token::Verify(arguments) => {
            super::verify::run(&find(&arguments.token.token, context)?, arguments, context)
        }
        Token::Attenuate { token, narrow, target } => {
            let token = find(&token.token, context)?;
            written(&capability::attenuate(&token, &self::narrow(narrow)?)?, &target.output, context)
        }
        Token::Delegate { token, to, narrow, target } => {
            let token = find(&token.token, context)?;
            let key = context.identities().load(&context.identity()?)?;
            let to = context.principal_here(to)?;
            written(&capability::delegate(&token, &key, to, &self::narrow(narrow)?)?, &target.output, context)
        }
        Token::Seal { token, target } => {
            let token = find(&token.token, context)?;
            written(&capability::seal(&token)?, &target.output, context)
        }
        Token::Wrap(arguments) => super::wrap::wrap(arguments, context),
        Token::Unwrap(arguments) => super::wrap::unwrap(arguments, context),
    }
}

/// A file needs no identity; what is kept here is kept under one.
pub(super) fn find(token: &LeaseArg, context: &Context) -> Result<capability::Token> {
    match token {
        LeaseArg::File(path) => tokens::read(path),
        LeaseArg::Stdin => Tokens::new(&context.dirs.tokens(), &Name::new("stdin")?).find(token),
        LeaseArg::Id(_) | LeaseArg::Name(_) => context.tokens()?.find(token),
    }
}

fn narrow(narrow: &Narrow) -> Result<capability::Narrow> {
    let expires = match narrow.ttl {
        None => None,
        Some(ttl) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.map_err(|_| Error::new(Code::Range, "this machine's clock is before 1970"))?;
            let end = now.saturating_add(ttl).as_micros();
            Some(UnixMicros(u64::try_from(end).unwrap_or(u64::MAX)).min(UnixMicros::MAX))
        }
    };
    Ok(capability::Narrow {
        rights: narrow.rights,
        range: narrow.range,
        expires,
        not_before: None,
        max_hops: narrow.hops,
        opens: narrow.opens,
        bytes_per_second: narrow.bytes_per_second,
        bytes_total: narrow.bytes,
    })
}

/// The root keys to believe: those that were named, else the one that the node here published, if it did.
pub(super) fn root_keys(roots: &Roots, context: &Context) -> Result<Option<RootKeys>> {
    let published = context.dirs.root_public();
    let mut found = Vec::new();
    for root in &roots.roots {
        match RootPublic::parse(root) {
            Ok(key) => found.push(key),
            Err(_) => found.extend(read_roots(Path::new(root))?),
        }
    }
    if roots.roots.is_empty() && published.exists() {
        found = read_roots(&published)?;
    }
    let Some((first, others)) = found.split_first() else { return Ok(None) };
    let mut keys = RootKeys::of(*first)?;
    for other in others {
        keys.add(*other)?;
    }
    Ok(Some(keys))
}

fn read_roots(path: &Path) -> Result<Vec<RootPublic>> {
    let text = files::read_text(path, ROOT_FILE_BYTES_MAX)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<_> = lines.map(RootPublic::parse).collect::<caps::Result<_>>().map_err(|error| {
        Failure::of(Code::ConfigSyntax, format!("{}: {}", files::show(path), error.detail()))
    })?;
    if keys.is_empty() {
        return Err(Failure::of(Code::ConfigSyntax, format!("{} holds no key", files::show(path))));
    }
    Ok(keys)
}

fn written(token: &capability::Token, path: &Path, context: &Context) -> Result<Report> {
    tokens::write(path, token)?;
    shown(token, path, context)
}

/// What is in a token's file that was just written.
pub(super) fn shown(token: &capability::Token, path: &Path, context: &Context) -> Result<Report> {
    let inspection = inspect(token, None)?;
    let mut text = table::pairs(context.style.stdout, &view_pairs(&inspection.effective));
    text += &format!("written to {}\n", files::show(path));
    let value = json!({ "token_file": path.to_string_lossy(), "token": inspection });
    Ok(Report::new(value, text))
}

/// What is left, for people.
pub(super) fn view_pairs(view: &View) -> Vec<(&'static str, String)> {
    let limit = |number: Option<u64>| number.map(|number| number.to_string());
    let mut pairs = vec![
        ("rights", view.rights.clone()),
        ("range", view.range.map_or("no byte".to_owned(), |[start, end]| format!("{start}..{end}"))),
        ("valid", valid(view)),
        ("hops left", view.hops_left.map_or("too many were made".to_owned(), |left| left.to_string())),
    ];
    let limits = [
        ("opens", limit(view.opens)),
        ("bytes in all", limit(view.bytes_total)),
        ("bytes a second", limit(view.bytes_per_second)),
    ];
    pairs.extend(limits.into_iter().filter_map(|(name, value)| Some((name, value?))));
    pairs
}

/// As seen by this machine's clock; whoever judges the token has its own.
fn valid(view: &View) -> String {
    let now = now();
    let (begin, end) = (UnixMicros(view.not_before), UnixMicros(view.expires));
    let until = human::time(end);
    if begin > now {
        format!("in {}, from {} until {until}", human::span(begin.since(now)), human::time(begin))
    } else if end > now {
        format!("for {} more, until {until}", human::span(end.since(now)))
    } else {
        format!("no more, since {}, at {until}", human::span(now.since(end)))
    }
}

/// This machine's wall clock.
pub(super) fn now() -> UnixMicros {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX)).min(UnixMicros::MAX)
}
