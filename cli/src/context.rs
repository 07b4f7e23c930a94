//! What a command acts with: which node, as whom.

use caps::error::Code;
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::wire::Name;
use libmem::{Client, Endpoint};

use crate::args::Global;
use crate::contacts::Contacts;
use crate::dirs::Dirs;
use crate::failure::{Failure, Result};
use crate::identity::Identities;
use crate::output::Style;
use crate::tokens::Tokens;

/// The options that every command has, resolved.
pub(crate) struct Context {
    pub(crate) dirs: Dirs,
    pub(crate) json: bool,
    pub(crate) style: Style,
    named: Option<Name>,
}

/// A session, and whose it is.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) key: SigningKey,
    pub(crate) tokens: Tokens,
}

impl Context {
    pub(crate) fn new(global: &Global, style: Style) -> Result<Self> {
        let dirs = Dirs::of_process(global.dir.as_deref());
        Ok(Self { dirs, json: global.json, style, named: global.identity.clone() })
    }

    /// The keys of this user.
    pub(crate) fn identities(&self) -> Identities {
        Identities::new(self.dirs.identities())
    }

    /// The keys of others.
    pub(crate) fn contacts(&self) -> Contacts {
        Contacts::new(self.dirs.contacts())
    }

    /// Who I am: `--as`, `LEASEHOLD_ID`, or the only identity there is.
    pub(crate) fn identity(&self) -> Result<Name> {
        if let Some(name) = &self.named {
            return Ok(name.clone());
        }
        let mut names = self.identities().names()?;
        match names.len() {
            1 => Ok(names.remove(0)),
            0 => {
                Err(Failure::usage("there is no identity here yet", "make one with `leasehold id new NAME`"))
            }
            _ => {
                let list: Vec<_> = names.iter().map(Name::as_str).collect();
                let help = format!("say --as NAME, with one of: {}", list.join(", "));
                Err(Failure::usage("there are several identities here", help))
            }
        }
    }

    /// The tokens of who I am.
    pub(crate) fn tokens(&self) -> Result<Tokens> {
        Ok(Tokens::new(&self.dirs.tokens(), &self.identity()?))
    }

    /// Connects as who I am.
    pub(crate) fn connect(&self) -> Result<Session> {
        if libmem::is_inherited() {
            let message = "inside `leasehold run` there is no key, and only `put` and `get` work";
            return Err(Failure::of(Code::Denied, message).help("type it outside of the sandbox"));
        }
        let name = self.identity()?;
        let key = self.identities().load(&name)?;
        let client = self.connect_with(&key)?;
        Ok(Session { client, key, tokens: Tokens::new(&self.dirs.tokens(), &name) })
    }

    /// Connects as who I am, or, where that is not said, as any identity of this user: for what concerns nobody in
    /// particular.
    pub(crate) fn connect_as_anybody(&self) -> Result<Client> {
        let mut names = self.identities().names()?;
        let name = match &self.named {
            None if names.len() > 1 => {
                let administrator = names.iter().position(|name| name.as_str() == "admin");
                names.remove(administrator.unwrap_or(0))
            }
            _ => self.identity()?,
        };
        self.connect_with(&self.identities().load(&name)?)
    }

    /// Connects as who I am, or, where that is not said, as one of `holders` whose key this user has, or as anybody:
    /// for what concerns those who have held a token.
    pub(crate) fn connect_as_one_of(&self, holders: &[String]) -> Result<Client> {
        let identities = self.identities();
        let holds = |name: &Name| {
            let key = identities.public(name).map(|key| key.to_string());
            key.is_some_and(|key| holders.contains(&key))
        };
        match self.named {
            None if self.dirs.socket().exists() => match identities.names()?.into_iter().find(holds) {
                Some(name) => self.connect_with(&identities.load(&name)?),
                None => self.connect_as_anybody(),
            },
            _ => self.connect_as_anybody(),
        }
    }

    /// Connects with a key.
    pub(crate) fn connect_with(&self, key: &SigningKey) -> Result<Client> {
        let socket = self.dirs.socket();
        Client::connect(&Endpoint::unix(&socket), key).map_err(|error| {
            let unreachable = error.code() == Code::Unreachable;
            let failure = Failure::from(error);
            if !unreachable {
                return failure;
            }
            let message = format!("{}: {}", crate::files::show(&socket), failure.message);
            Failure { message, ..failure }
        })
    }

    /// The key that a principal's name stands for: 64 hexadecimal digits are the key itself, and the node knows its
    /// principals' names. A contact or an identity of this user serves where the node does not know the name.
    pub(crate) fn principal(&self, client: &Client, text: &str) -> Result<PrincipalKey> {
        if let Ok(key) = PrincipalKey::parse(text) {
            return Ok(key);
        }
        let name = Name::new(text)?;
        for row in client.principals() {
            match row {
                Ok(row) if row.name == name => {
                    // A node that says another key than before is not believed before the user has looked.
                    self.meet([(row.name, row.key)])?;
                    return Ok(row.key);
                }
                Ok(_) => {}
                // Some nodes show their principals to the administrator alone.
                Err(error) if error.code() == Code::NotAdmin => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.principal_here(text)
    }
}
