//! `leasehold token`: what a holder does without a node.

use std::path::Path;
use std::time::SystemTime;

use caps::error::{Code, Error};
use caps::id::PrincipalKey;
use caps::time::UnixMicros;
use caps::token::{self as capability, Inspection, RootKeys, RootPublic, Signatures, View, gate, inspect};
use caps::wire::Name;
use serde_json::json;

use crate::args::token::{Narrow, Roots, Token};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, bold, human, table};
use crate::tokens::{self, LeaseArg, Tokens};

/// Bytes of a file with root keys: eight lines of 64 digits, with room for comments.
const ROOT_FILE_BYTES_MAX: usize = 4096;

pub(crate) fn run(command: &Token, context: &Context) -> Result<Report> {
    match command {
        Token::Inspect { token, roots } => {
            let token = find(&token.token, context)?;
            let roots = root_keys(roots, context)?;
            let inspection = inspect(&token, roots.as_ref())?;
            let text = text(&inspection, context.style.stdout);
            Ok(Report::new(json!({ "token": inspection }), text))
        }
        Token::Verify { token, roots } => {
            let token = find(&token.token, context)?;
            let roots = root_keys(roots, context)?.ok_or_else(|| {
                Failure::usage(
                    "no root key to verify with",
                    "name one with --root: 64 digits, or a file with them",
                )
            })?;
            let verified = gate(token.as_bytes())?.verify(&roots)?;
            let holder = verified.chain().holder;
            let text = format!(
                "every signature verifies, from root key {:08x} on; held by {holder}\n",
                verified.root_key_id()
            );
            let value = json!({ "verified": true, "root_key_id": verified.root_key_id(), "holder": holder.to_string() });
            Ok(Report::new(value, text))
        }
        Token::Attenuate { token, narrow, target } => {
            let token = find(&token.token, context)?;
            written(&capability::attenuate(&token, &self::narrow(narrow)?)?, &target.output, context)
        }
        Token::Delegate { token, to, narrow, target } => {
            let token = find(&token.token, context)?;
            let key = context.identities().load(&context.identity()?)?;
            let to = principal(to, context)?;
            written(&capability::delegate(&token, &key, to, &self::narrow(narrow)?)?, &target.output, context)
        }
        Token::Seal { token, target } => {
            let token = find(&token.token, context)?;
            written(&capability::seal(&token)?, &target.output, context)
        }
    }
}

/// A file needs no identity; what is kept here is kept under one.
fn find(token: &LeaseArg, context: &Context) -> Result<capability::Token> {
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

/// Offline, a name can only be that of an identity of this user.
fn principal(text: &str, context: &Context) -> Result<PrincipalKey> {
    if let Ok(key) = PrincipalKey::parse(text) {
        return Ok(key);
    }
    context.identities().public(&Name::new(text)?).ok_or_else(|| {
        Failure::of(Code::PrincipalUnknown, format!("no identity of this user is called `{text}`"))
            .help("give the receiver's key: `leasehold id show` prints it there")
    })
}

/// The root keys to believe: those that were named, else the one that the node here published, if it did.
fn root_keys(roots: &Roots, context: &Context) -> Result<Option<RootKeys>> {
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
    let inspection = inspect(token, None)?;
    let mut text = table::pairs(context.style.stdout, &view_pairs(&inspection.effective));
    text += &format!("written to {}\n", files::show(path));
    let value = json!({ "token_file": path.to_string_lossy(), "token": inspection });
    Ok(Report::new(value, text))
}

fn text(inspection: &Inspection, colour: bool) -> String {
    let signatures = match inspection.signatures {
        Signatures::NotChecked => {
            "not checked: no root key was given, and anybody could have written this".to_owned()
        }
        Signatures::Verified => "every one verifies".to_owned(),
        Signatures::Refused { code } => format!("REFUSED ({code}): this token is worthless here"),
    };
    let mut pairs = vec![
        ("signatures", signatures),
        ("size", format!("{} bytes, {} blocks", inspection.bytes, inspection.blocks.len())),
        ("sealed", if inspection.sealed { "yes" } else { "no: it can be narrowed and delegated" }.to_owned()),
        ("lease", inspection.lease.clone()),
        ("region", inspection.region.clone()),
        ("grant", human::or_nothing(inspection.grant.as_ref())),
        ("cluster", inspection.cluster.clone()),
        ("provider", inspection.provider.clone()),
        ("held by", inspection.holders.join(" -> ")),
    ];
    pairs.extend(view_pairs(&inspection.effective));
    let mut text = table::pairs(colour, &pairs);
    for block in &inspection.blocks {
        let kind = crate::output::json::word(&block.kind);
        let heading = format!("block {}: {kind} by {}", block.index, block.signer);
        let mut pairs = view_pairs(&block.after);
        if let Some(next) = &block.delegate {
            pairs.insert(0, ("to", next.clone()));
        }
        text += &format!("\n{}\n{}", bold(colour, &heading), table::pairs(colour, &pairs));
    }
    text
}

fn view_pairs(view: &View) -> Vec<(&'static str, String)> {
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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixMicros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
    let (begin, end) = (UnixMicros(view.not_before), UnixMicros(view.expires));
    if begin > now {
        format!("in {}", human::span(begin.since(now)))
    } else if end > now {
        format!("for {} more", human::span(end.since(now)))
    } else {
        format!("no more, since {}", human::span(now.since(end)))
    }
}
