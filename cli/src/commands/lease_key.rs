//! `leasehold lease key`: the key of an encrypted lease, from one client to another and never through the node.

use caps::error::Code;
use caps::id::{LeaseId, PrincipalKey};
use caps::token::inspect;
use libmem::sealed::{DataKey, ENVELOPE_TEXT_BYTES, Envelope};
use serde_json::json;

use crate::args::lease_key::{Destroy, Export, Import, LeaseKey};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, table};
use crate::people::People;
use crate::tokens::LeaseArg;

/// Most bytes of a file that are looked at: enough to say of a longer one that it is no key on its way.
const FILE_BYTES_MAX: usize = 4 * ENVELOPE_TEXT_BYTES;

pub(super) fn run(command: &LeaseKey, context: &Context) -> Result<Report> {
    match command {
        LeaseKey::Export(arguments) => export(arguments, context),
        LeaseKey::Import(arguments) => import(arguments, context),
        LeaseKey::Destroy(arguments) => destroy(arguments, context),
    }
}

fn export(arguments: &Export, context: &Context) -> Result<Report> {
    let key = context.lease_keys()?.get(lease(&arguments.lease, context)?)?;
    let receiver = context.principal_by_hand(&arguments.to)?;
    let sender = context.identities().load(&context.identity()?)?;
    let text = Envelope::seal(&key, &sender, receiver)?.to_text();
    let mut value = about(&key);
    value["to"] = json!(receiver.to_string());
    let Some(path) = &arguments.output else {
        value["text"] = json!(text);
        return Ok(Report::new(json!({ "lease_key": value }), text));
    };
    files::create(path, &text)?;
    value["file"] = json!(path.to_string_lossy());
    let people = People::of(context, None);
    let mut pairs = pairs(&key);
    pairs.push(("to", people.long(&receiver.to_string())));
    pairs.push(("written to", files::show(path)));
    Ok(Report::new(json!({ "lease_key": value }), table::pairs(context.style.stdout, &pairs)))
}

fn import(arguments: &Import, context: &Context) -> Result<Report> {
    let text = match arguments.file.as_os_str() == "-" {
        true => files::read_stdin(FILE_BYTES_MAX)?,
        false => files::read_text(&arguments.file, FILE_BYTES_MAX)?,
    };
    let envelope = Envelope::parse_text(&text).map_err(|error| {
        let message = format!("{}: {}", files::show(&arguments.file), error.detail());
        Failure::of(Code::ConfigSyntax, message).help("give what `leasehold lease key export` wrote")
    })?;
    let people = People::of(context, None);
    let from = sender(arguments, &envelope, context)?;
    let receiver = context.identities().load(&context.identity()?)?;
    let key = envelope.open(&receiver, from).map_err(|error| match error.code() {
        Code::Denied if envelope.receiver() != receiver.public() => {
            let whom = people.long(&envelope.receiver().to_string());
            Failure::of(Code::Denied, format!("the key was made for {whom}"))
                .help("say --as with that identity")
        }
        Code::Denied => {
            let who = people.long(&envelope.sender().to_string());
            Failure::of(Code::Denied, format!("the key is from {who}"))
                .help("take keys from whom you expect them from")
        }
        _ => Failure::from(error).help("have it made and sent again; what came was changed, or is a forgery"),
    })?;
    let keys = context.lease_keys()?;
    let new = keys.keep(&key)?;
    let (from, path) = (from.to_string(), keys.path(key.lease()));
    let mut pairs = pairs(&key);
    pairs.push(("from", people.long(&from)));
    pairs.push(("key", files::show(&path)));
    if !new {
        pairs.push(("known", "it was here already".to_owned()));
    }
    let mut value = about(&key);
    value["from"] = json!(from);
    value["file"] = json!(path.to_string_lossy());
    value["new"] = json!(new);
    Ok(Report::new(json!({ "lease_key": value }), table::pairs(context.style.stdout, &pairs)))
}

/// Whose key to take: whom the user named, or else this user or somebody whose key the user gave. What a node says of
/// anybody, now or when a name was first met, does not count, because the key is to be kept from it.
fn sender(arguments: &Import, envelope: &Envelope, context: &Context) -> Result<PrincipalKey> {
    if let Some(from) = &arguments.from {
        return context.principal_by_hand(from);
    }
    let said = envelope.sender();
    if context.is_by_hand(said)? {
        return Ok(said);
    }
    let message = format!("the key says that it is from {said}, a key that was not trusted here by hand");
    Err(Failure::of(Code::Denied, message).help(
        "whose key is used reads what is written with it: if you know whose that is, say `--from` with it, or `leasehold id \
         trust NAME KEY` first",
    ))
}

fn destroy(arguments: &Destroy, context: &Context) -> Result<Report> {
    let lease = lease(&arguments.lease, context)?;
    let overwritten = context.lease_keys()?.destroy(lease)?;
    let text = match overwritten {
        true => format!(
            "destroyed the key of lease {lease}: what was written with it is shredded, unless somebody has another copy\n"
        ),
        false => format!(
            "removed the key of lease {lease}, but could not overwrite it: the disk may still hold it, and a copy elsewhere, \
             or where a link led\n"
        ),
    };
    let value = json!({ "lease": lease.to_string(), "destroyed": true, "overwritten": overwritten });
    Ok(Report::new(json!({ "lease_key": value }), text))
}

/// The lease that an argument means, from what is kept here alone.
fn lease(argument: &LeaseArg, context: &Context) -> Result<LeaseId> {
    let of_token = || {
        let inspection = inspect(&super::token::find(argument, context)?, None)?;
        Ok(LeaseId::parse(&inspection.lease)?)
    };
    match argument {
        // Its token may be over and gone, or never have been here.
        LeaseArg::Id(id) if context.lease_keys()?.path(*id).exists() => Ok(*id),
        LeaseArg::Name(name) => match context.tokens()?.id_of(name) {
            Some(id) => Ok(id),
            None => of_token(),
        },
        LeaseArg::Id(_) | LeaseArg::File(_) | LeaseArg::Stdin => of_token(),
    }
}

fn about(key: &DataKey) -> serde_json::Value {
    json!({ "lease": key.lease().to_string(), "fingerprint": key.fingerprint().to_string() })
}

fn pairs(key: &DataKey) -> Vec<(&'static str, String)> {
    vec![("lease", key.lease().to_string()), ("fingerprint", key.fingerprint().to_string())]
}
