//! Who a key is: identities of this user, contacts, and principals of the node.

use std::collections::HashMap;

use caps::error::Code;
use caps::id::PrincipalKey;
use caps::wire::Name;
use libmem::Client;

use crate::context::Context;
use crate::failure::{Failure, Result};

/// Most principals of a node whose names are looked at: a node that lies would go on for ever.
const TOLD_MAX: usize = 4096;

impl Context {
    /// Takes the keys of names that a node told, where they are new. Those of this user's own are passed over: it knows
    /// them better.
    ///
    /// Fails with `E_KEY_CHANGED` if a name was known with another key; what is new was taken all the same.
    pub(crate) fn meet(&self, told: impl IntoIterator<Item = (Name, PrincipalKey)>) -> Result<()> {
        let mine = self.identities().names()?;
        let contacts = self.contacts();
        let mut changed = None;
        // Nobody gives anything to the node's own clients, and their keys are the node's to change.
        let own = |name: &Name| mine.contains(name) || crate::canary::NAMES.contains(&name.as_str());
        for (name, key) in told.into_iter().take(TOLD_MAX).filter(|(name, _)| !own(name)) {
            match contacts.told(&name, key) {
                Err(failure) if failure.code == Code::KeyChanged.text() => {
                    changed.get_or_insert(failure);
                }
                // A full or unwritable disk, or a key that is none: not taken, and not what was asked for.
                _ => {}
            }
        }
        changed.map_or(Ok(()), Err)
    }

    /// The key that a name stands for without any node's word: an identity's of this user, or a contact's whose key the
    /// user gave by hand. A key is itself.
    pub(crate) fn principal_by_hand(&self, text: &str) -> Result<PrincipalKey> {
        let key = self.principal_here(text)?;
        let Ok(name) = Name::new(text) else { return Ok(key) };
        if PrincipalKey::parse(text).is_ok() || self.is_by_hand(key)? {
            return Ok(key);
        }
        let message = format!("the key of `{name}` is a node's word: {key}");
        Err(Failure::of(Code::Denied, message).help(format!(
            "ask {name} by another way than the node for what `leasehold id show` prints there; if it is that key, \
             `leasehold id trust {name} {key}`"
        )))
    }

    /// Whether a key is one of this user's own, or one that the user gave by hand.
    pub(crate) fn is_by_hand(&self, key: PrincipalKey) -> Result<bool> {
        let identities = self.identities();
        if identities.names()?.iter().any(|name| identities.public(name) == Some(key)) {
            return Ok(true);
        }
        Ok(self.contacts().all()?.iter().any(|(_, contact)| contact.by_hand && contact.key == key))
    }

    /// The key that a name stands for without a node: a contact's or an identity's of this user.
    pub(crate) fn principal_here(&self, text: &str) -> Result<PrincipalKey> {
        if let Ok(key) = PrincipalKey::parse(text) {
            return Ok(key);
        }
        let name = Name::new(text)?;
        match (self.contacts().key(&name)?, self.identities().public(&name)) {
            (Some(contact), Some(own)) if contact != own => Err(Failure::usage(
                format!("a contact and an identity of this user are both called `{name}`"),
                format!("give the key: {contact} is the contact's, {own} the identity's"),
            )),
            (Some(key), _) | (None, Some(key)) => Ok(key),
            (None, None) => {
                let message = format!("nobody here is called `{name}`");
                Err(Failure::of(Code::PrincipalUnknown, message).help(format!(
                    "`leasehold id trust {name} KEY` takes the key that `leasehold id show` prints there; `leasehold id \
                     list` learns the names of a node"
                )))
            }
        }
    }
}

/// Names of keys, for what people read. A name is nobody's word but the one who gave it: the key is what counts.
#[derive(Debug, Default)]
pub(crate) struct People(HashMap<String, String>);

impl People {
    /// Everybody known here, and at the node if one is reached.
    pub(crate) fn of(context: &Context, client: Option<&Client>) -> Self {
        let mut known = HashMap::new();
        let identities = context.identities();
        for name in identities.names().unwrap_or_default() {
            if let Some(key) = identities.public(&name) {
                known.insert(key.to_string(), name.to_string());
            }
        }
        let contacts = context.contacts().all().unwrap_or_default();
        for (name, contact) in &contacts {
            known.entry(contact.key.to_string()).or_insert_with(|| name.to_string());
        }
        let told = client.into_iter().flat_map(|client| client.principals().map_while(caps::Result::ok));
        for row in told.take(TOLD_MAX) {
            let taken =
                |name: &Name| contacts.iter().any(|(other, contact)| other == name && contact.key != row.key);
            let name = match taken(&row.name) {
                true => format!("{}, says the node, with another key than your contact", row.name),
                false => row.name.to_string(),
            };
            known.entry(row.key.to_string()).or_insert(name);
        }
        Self(known)
    }

    /// The name of a key, if it has one.
    pub(crate) fn name(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The name of a key, or the key.
    pub(crate) fn short(&self, key: &str) -> String {
        self.name(key).unwrap_or(key).to_owned()
    }

    /// A key, with its name if it has one.
    pub(crate) fn long(&self, key: &str) -> String {
        self.name(key).map_or_else(|| key.to_owned(), |name| format!("{key} ({name})"))
    }
}
