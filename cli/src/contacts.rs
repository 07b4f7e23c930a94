//! Public keys of others, by name: whom a holder delegates to without asking anybody.
//!
//! `<state>/contacts/NAME.pub` has one line, the key as 64 hexadecimal digits, and ` by hand` if the user gave it. A key is
//! taken where its name is met first, from the node or by hand, and never replaced: another key under the same name is an
//! error until the user has forgotten the old one. Whoever could swap keys here would be given other people's rights.
//!
//! What the node told first is the node's word: it serves for what the node decides anyway. What is to be kept from the node
//! goes by keys that were given by hand alone.

use std::path::PathBuf;

use caps::error::Code;
use caps::id::PrincipalKey;
use caps::key::VerifyingKey;
use caps::wire::Name;

use crate::failure::{Failure, Result};
use crate::files;

/// Most bytes of a contact's file: the digits, who gave them, and a line end.
const FILE_BYTES: usize = 65 + BY_HAND.len();
/// What stands behind a key that the user gave.
const BY_HAND: &str = " by hand";
/// The end of a contact's file name.
const EXTENSION: &str = "pub";
/// Most contacts that are kept. A node has at most as many principals that one user cares about.
const CONTACTS_MAX: usize = 4096;

/// Somebody else's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) key: PrincipalKey,
    /// Whether the user gave it; else a node told it.
    pub(crate) by_hand: bool,
}

impl Contact {
    fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n')?;
        let (key, by_hand) = line.strip_suffix(BY_HAND).map_or((line, false), |key| (key, true));
        Some(Self { key: PrincipalKey::parse(key).ok()?, by_hand })
    }

    fn line(self) -> String {
        format!("{}{}\n", self.key, if self.by_hand { BY_HAND } else { "" })
    }
}

/// The contacts of this user.
#[derive(Debug)]
pub(crate) struct Contacts {
    directory: PathBuf,
}

impl Contacts {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file of a contact, whether it is there or not.
    pub(crate) fn path(&self, name: &Name) -> PathBuf {
        // A name has no slash and does not begin with a dot.
        self.directory.join(format!("{name}.{EXTENSION}"))
    }

    /// The key of a contact, if there is one of that name, whoever told it.
    pub(crate) fn key(&self, name: &Name) -> Result<Option<PrincipalKey>> {
        Ok(self.find(name)?.map(|contact| contact.key))
    }

    /// A contact, if there is one of that name.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<Contact>> {
        let path = self.path(name);
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        files::check_directory(&self.directory)?;
        let text = files::read_text(&path, FILE_BYTES)?;
        Contact::parse(&text).map(Some).ok_or_else(|| {
            let message = format!("{} holds no key, which is one line of 64 digits", files::show(&path));
            Failure::of(Code::ConfigSyntax, message).help(format!(
                "`leasehold id forget {name}` and `leasehold id trust {name} KEY` make it anew"
            ))
        })
    }

    /// Takes a key for a name from the user. `false` if it was known by hand already.
    ///
    /// Fails with `E_KEY_CHANGED` if the name has another key, and changes nothing then.
    pub(crate) fn trust(&self, name: &Name, key: PrincipalKey) -> Result<bool> {
        self.take(name, Contact { key, by_hand: true })
    }

    /// Takes a key for a name from a node. `false` if it was known already.
    ///
    /// Fails as [`Self::trust`] does.
    pub(crate) fn told(&self, name: &Name, key: PrincipalKey) -> Result<bool> {
        self.take(name, Contact { key, by_hand: false })
    }

    fn take(&self, name: &Name, contact: Contact) -> Result<bool> {
        let key = contact.key;
        // A slip of a digit is found here and not by whoever gets nothing.
        VerifyingKey::parse(key)?;
        if let Some(known) = self.find(name)? {
            return self.again(name, known, contact);
        }
        files::make_directory(&self.directory)?;
        files::check_directory(&self.directory)?;
        if self.names()?.len() >= CONTACTS_MAX {
            let message = format!("there are {CONTACTS_MAX} contacts here, which is the most");
            return Err(Failure::of(Code::Quota, message).help("`leasehold id forget NAME` makes room"));
        }
        match files::create(&self.path(name), &contact.line()) {
            // Somebody else was faster: its key decides.
            Err(error) if error.code() == Code::Exists => match self.find(name)? {
                Some(known) => self.again(name, known, contact),
                None => Err(error.into()),
            },
            made => Ok(made.map(|()| true)?),
        }
    }

    /// Takes a key for a name that has one: the user's word is noted, and never forgotten for a node's.
    fn again(&self, name: &Name, known: Contact, contact: Contact) -> Result<bool> {
        if known.key != contact.key {
            return Err(changed(name, known.key, contact.key));
        }
        if known.by_hand || !contact.by_hand {
            return Ok(false);
        }
        files::replace(&self.path(name), &contact.line())?;
        Ok(true)
    }

    /// Forgets a contact. Returns its key.
    pub(crate) fn forget(&self, name: &Name) -> Result<Option<PrincipalKey>> {
        let path = self.path(name);
        // One that is damaged can be forgotten, too.
        let known = self.key(name).unwrap_or_default();
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(known),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("no contact is called `{name}`");
                Err(Failure::of(Code::PrincipalUnknown, message).help("`leasehold id list` shows them"))
            }
            Err(error) => Err(files::failed(&path, &error).into()),
        }
    }

    /// Every contact, by name. What is no contact's file is passed over.
    pub(crate) fn all(&self) -> Result<Vec<(Name, Contact)>> {
        let keys = self.names()?.into_iter().filter_map(|name| match self.find(&name) {
            Ok(contact) => contact.map(|contact| Ok((name, contact))),
            Err(failure) => Some(Err(failure)),
        });
        keys.collect()
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(files::names(&self.directory, EXTENSION, 2 * CONTACTS_MAX)?)
    }
}

/// Another key under a known name: a new key of the same person, or somebody else.
fn changed(name: &Name, known: PrincipalKey, found: PrincipalKey) -> Failure {
    let message =
        format!("`{name}` has another key than before: it was {known}, and is now said to be {found}");
    Failure::of(Code::KeyChanged, message).help(format!(
        "ask {name} by another way; if the key is new, `leasehold id forget {name}` and then `leasehold id trust {name} \
         {found}`"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use caps::key::SigningKey;

    use super::*;

    fn contacts() -> (tempfile::TempDir, Contacts) {
        let directory = tempfile::tempdir().unwrap();
        let contacts = Contacts::new(directory.path().join("contacts"));
        (directory, contacts)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn key(n: u8) -> PrincipalKey {
        SigningKey::from_seed(&[n; 32]).public()
    }

    #[test]
    fn the_first_key_of_a_name_stays() {
        let (_directory, contacts) = contacts();
        assert_eq!(contacts.key(&name("bob")).unwrap(), None);
        assert!(contacts.all().unwrap().is_empty());
        assert!(contacts.trust(&name("bob"), key(1)).unwrap());
        assert!(!contacts.trust(&name("bob"), key(1)).unwrap());
        let failure = contacts.trust(&name("bob"), key(2)).unwrap_err();
        assert_eq!((failure.code, failure.exit), ("E_KEY_CHANGED", 3));
        for said in [key(1).to_string(), key(2).to_string()] {
            assert!(failure.message.contains(&said), "{}", failure.message);
        }
        assert!(failure.help.contains("id forget bob"));
        assert_eq!(contacts.key(&name("bob")).unwrap(), Some(key(1)));
        assert_eq!(contacts.forget(&name("bob")).unwrap(), Some(key(1)));
        assert!(contacts.trust(&name("bob"), key(2)).unwrap());
        assert_eq!(contacts.all().unwrap(), [(name("bob"), Contact { key: key(2), by_hand: true })]);
        assert_eq!(contacts.forget(&name("eve")).unwrap_err().code, "E_PRINCIPAL_UNKNOWN");
    }

    #[test]
    fn what_a_node_told_is_told_from_what_the_user_gave() {
        let (_directory, contacts) = contacts();
        let by_hand = || contacts.find(&name("bob")).unwrap().unwrap().by_hand;
        assert!(contacts.told(&name("bob"), key(1)).unwrap());
        assert!(!by_hand());
        assert!(!contacts.told(&name("bob"), key(1)).unwrap());
        assert_eq!(contacts.trust(&name("bob"), key(2)).unwrap_err().code, "E_KEY_CHANGED");
        assert!(!by_hand());
        assert!(contacts.trust(&name("bob"), key(1)).unwrap());
        assert!(by_hand());
        // And the node's word does not undo it.
        assert!(!contacts.told(&name("bob"), key(1)).unwrap());
        assert!(by_hand());
        assert_eq!(contacts.key(&name("bob")).unwrap(), Some(key(1)));
    }

    #[test]
    fn what_is_no_key_is_not_taken_and_not_believed() {
        let (_directory, contacts) = contacts();
        assert_eq!(contacts.trust(&name("bob"), PrincipalKey([0xff; 32])).unwrap_err().code, "E_RANGE");
        contacts.trust(&name("bob"), key(1)).unwrap();
        let path = contacts.path(&name("bob"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let good = std::fs::read_to_string(&path).unwrap();
        let bare = &good[..64];
        for bad in [
            "",
            "\n",
            &good[1..],
            bare,
            &format!("{good}\n"),
            &good.to_uppercase(),
            &format!("{bare} by  hand\n"),
            &format!("{bare} by hand by hand\n"),
        ] {
            std::fs::write(&path, bad).unwrap();
            let failure = contacts.key(&name("bob")).unwrap_err();
            assert!(["E_CONFIG_SYNTAX", "E_CONFIG_IO"].contains(&failure.code), "{bad:?}: {failure:?}");
            assert!(contacts.trust(&name("bob"), key(1)).is_err(), "a damaged contact is not overwritten");
        }
        contacts.forget(&name("bob")).unwrap();
        // Nor what others may have put there.
        contacts.trust(&name("bob"), key(1)).unwrap();
        let directory = path.parent().unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(contacts.key(&name("bob")).unwrap_err().code, "E_CONFIG_PERMS");
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(contacts.key(&name("bob")).unwrap_err().code, "E_CONFIG_PERMS");
    }
}
