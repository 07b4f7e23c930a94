//! `leasehold id`: keys of this user, principals of the node.

use caps::error::Code;
use caps::id::PrincipalKey;
use caps::wire::Name;
use libmem::Client;
use serde_json::{Value, json};

use crate::args::id::Id;
use crate::contacts::Contact;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json, table};

/// The administrator's identity, which the first start of a node makes.
const ADMIN: &str = "admin";

pub(crate) fn run(command: &Id, context: &Context) -> Result<Report> {
    match command {
        Id::New { name, register } => new(name, *register, context),
        Id::Register { name } => {
            let key = context.identities().load(name)?.public();
            register(name, key, context)?;
            Ok(report(name, key, Ok(()), context))
        }
        Id::List => list(context),
        Id::Trust { name, public } => trust(name, *public, context),
        Id::Forget { name } => {
            let key = context.contacts().forget(name)?;
            let value = json!({ "forgotten": { "name": name, "key": key.map(|key| key.to_string()) } });
            Ok(Report::new(value, format!("forgot the key of {name}\n")))
        }
        Id::Show { name } => {
            let name = name.clone().map_or_else(|| context.identity(), Ok)?;
            if !context.identities().path(&name).exists()
                && let Some(key) = context.contacts().key(&name)?
            {
                return Ok(contact(&name, key, context, ""));
            }
            let key = context.identities().load(&name)?.public();
            let file = context.identities().path(&name);
            let pairs =
                [("name", name.to_string()), ("key", key.to_string()), ("file", crate::files::show(&file))];
            let value = json!({ "identity": json::identity(name.as_str(), key, &file) });
            Ok(Report::new(value, table::pairs(context.style.stdout, &pairs)))
        }
    }
}

/// Takes somebody else's key.
fn trust(name: &Name, key: PrincipalKey, context: &Context) -> Result<Report> {
    if let Some(own) = context.identities().public(name).filter(|own| *own != key) {
        let message = format!("`{name}` is an identity of this user, with the key {own}");
        return Err(Failure::of(Code::Exists, message).help("choose another name for the other key"));
    }
    let note = if context.contacts().trust(name, key)? { "taken\n" } else { "known already\n" };
    Ok(contact(name, key, context, note))
}

fn contact(name: &Name, key: PrincipalKey, context: &Context, note: &str) -> Report {
    let file = context.contacts().path(name);
    let pairs = [("name", name.to_string()), ("key", key.to_string()), ("file", crate::files::show(&file))];
    let value = json!({ "contact": json::identity(name.as_str(), key, &file) });
    Report::new(value, table::pairs(context.style.stdout, &pairs) + note)
}

fn new(name: &Name, must_register: bool, context: &Context) -> Result<Report> {
    let key = context.identities().create(name)?.public();
    match register(name, key, context) {
        Err(failure) if must_register => {
            let message = format!("the key was made, and not registered: {}", failure.message);
            let help = format!("`leasehold id register {name}` tries again; {}", failure.help);
            Err(Failure { message, help, ..failure })
        }
        registered => Ok(report(name, key, registered, context)),
    }
}

/// Tells the node, as its administrator.
fn register(name: &Name, key: PrincipalKey, context: &Context) -> Result<()> {
    let admin = Name::new(ADMIN)?;
    let identities = context.identities();
    if !context.may_be_up() {
        let message = format!("no node is up at {}", crate::files::show(&context.dirs.socket()));
        return Err(Failure::of(Code::Unreachable, message));
    }
    let admin_key = identities.load(&admin).map_err(|failure| {
        let message = format!("this user does not have the administrator's key: {}", failure.message);
        Failure { message, ..failure }
            .help("ask the administrator to register the key that `leasehold id show` prints")
    })?;
    let client = context.connect_with(&admin, &admin_key)?;
    match client.principal_add(name.clone(), key) {
        // The same key under the same name is what was asked for.
        Err(error) if error.code() == Code::Exists && knows(&client, name, key) => Ok(()),
        answer => Ok(answer?),
    }
}

fn knows(client: &Client, name: &Name, key: PrincipalKey) -> bool {
    client.principals().flatten().any(|row| row.name == *name && row.key == key)
}

fn report(name: &Name, key: PrincipalKey, registered: Result<()>, context: &Context) -> Report {
    let file = context.identities().path(name);
    let mut value = json!({ "identity": json::identity(name.as_str(), key, &file) });
    value["registered"] = Value::Bool(registered.is_ok());
    let pairs = [("name", name.to_string()), ("key", key.to_string()), ("file", crate::files::show(&file))];
    let mut text = table::pairs(context.style.stdout, &pairs);
    match registered {
        Ok(()) => text += "registered with the node\n",
        Err(failure) => {
            value["reason"] = Value::String(failure.message.clone());
            text += &format!(
                "not registered yet: {}\nonce a node is up: leasehold{} id register {name}\n",
                failure.message,
                context.dirs.argument()
            );
        }
    }
    Report::new(value, text)
}

fn list(context: &Context) -> Result<Report> {
    let identities = context.identities();
    let mine: Vec<_> = identities.names()?.into_iter().map(|name| (identities.public(&name), name)).collect();
    // A list of one's keys needs no node, and says what it could not ask.
    let known = context
        .connect_as_anybody()
        .and_then(|client| Ok(client.principals().collect::<caps::Result<Vec<_>>>()?))
        .map(|mut rows| {
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            rows
        });
    // A name that is met first is taken; one with another key than before is not, and is shown with it.
    let told = known.iter().flatten().map(|row| (row.name.clone(), row.key));
    let changed = context.meet(told).err();
    let contacts = context.contacts().all()?;
    let by = |contact: &Contact| if contact.by_hand { "by hand" } else { "as told" };
    let trusted = |name: &Name, key: PrincipalKey| match contacts.iter().find(|(other, _)| other == name) {
        Some((_, trusted)) if trusted.key == key => by(trusted),
        Some(_) => "NO: another key",
        None => human::NOTHING,
    };
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("KEY", Align::Left),
        ("MINE", Align::Left),
        ("REGISTERED", Align::Left),
        ("TRUSTED", Align::Left),
        ("LEASES", Align::Right),
        ("LEASED", Align::Right),
    ]);
    let yes = |yes: bool| if yes { "yes" } else { human::NOTHING }.to_owned();
    let rows = known.as_ref().map_or(&[][..], Vec::as_slice);
    for row in rows {
        let own = mine.iter().any(|(key, _)| *key == Some(row.key));
        let registered = if row.admin { "administrator".to_owned() } else { yes(true) };
        table.row([
            row.name.to_string(),
            row.key.to_string(),
            yes(own),
            registered,
            trusted(&row.name, row.key).into(),
            row.leases.to_string(),
            human::bytes(row.leased_bytes),
        ]);
    }
    let registered = |key: Option<PrincipalKey>| rows.iter().any(|row| Some(row.key) == key);
    for (key, name) in mine.iter().filter(|(key, _)| !registered(*key)) {
        let asked = if known.is_ok() { yes(false) } else { "?".to_owned() };
        let shown = key.map_or("cannot be read".to_owned(), |key| key.to_string());
        let [leases, leased] = [human::NOTHING; 2].map(Into::into);
        table.row([name.to_string(), shown, yes(true), asked, human::NOTHING.into(), leases, leased]);
    }
    for (name, contact) in contacts.iter().filter(|(_, contact)| !registered(Some(contact.key))) {
        let asked = if known.is_ok() { yes(false) } else { "?".to_owned() };
        let [leases, leased] = [human::NOTHING; 2].map(Into::into);
        let (name, key) = (name.to_string(), contact.key.to_string());
        table.row([name, key, yes(false), asked, by(contact).into(), leases, leased]);
    }
    let mut text = table.render(context.style.stdout, "no identities: make one with `leasehold id new NAME`");
    if let Err(failure) = &known {
        text += &format!("the node was not asked: {}\n", failure.message);
    }
    let identities: Vec<_> = mine
        .iter()
        .map(|(key, name)| {
            json!({
                "name": name,
                "key": key.map(|key| key.to_string()),
                "file": identities.path(name).to_string_lossy(),
            })
        })
        .collect();
    let principals = known.ok().map(|rows| rows.iter().map(json::principal).collect::<Vec<_>>());
    let file = |name: &Name| context.contacts().path(name);
    let contact = |(name, contact): &(Name, Contact)| {
        let mut value = json::identity(name.as_str(), contact.key, &file(name));
        value["by_hand"] = Value::Bool(contact.by_hand);
        value
    };
    let contacts: Vec<_> = contacts.iter().map(contact).collect();
    let value = json!({ "identities": identities, "principals": principals, "contacts": contacts });
    Ok(Report::new(value, text).failing(changed))
}
