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
use crate::remote::Way;
use crate::tokens::Tokens;

/// The options that every command has, resolved.
pub(crate) struct Context {
    pub(crate) dirs: Dirs,
    pub(crate) json: bool,
    pub(crate) style: Style,
    named: Option<Name>,
    /// The way to the node, if it is not on this machine.
    way: Option<Way>,
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
        let way = Way::of(&global.remote, &dirs);
        Ok(Self { dirs, json: global.json, style, named: global.identity.clone(), way })
    }

    /// Whether the node is on another machine, as far as anybody said.
    pub(crate) const fn is_remote(&self) -> bool {
        self.way.is_some()
    }

    /// Whether a node can be asked at all: one that is not up has no socket here.
    pub(crate) fn may_be_up(&self) -> bool {
        self.is_remote() || self.dirs.socket().exists()
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
        self.connect_checked(false)
    }

    /// The same; over the network `checked` says whether bytes of regions get checksums of their own.
    pub(crate) fn connect_checked(&self, checked: bool) -> Result<Session> {
        if libmem::is_inherited() {
            let message = "inside `leasehold run` there is no key, and only `put` and `get` work";
            return Err(Failure::of(Code::Denied, message).help("type it outside of the sandbox"));
        }
        let name = self.identity()?;
        let key = self.identities().load(&name)?;
        let client = self.connect_at(&name, &key, checked)?;
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
        self.connect_with(&name, &self.identities().load(&name)?)
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
            None if self.may_be_up() => match identities.names()?.into_iter().find(holds) {
                Some(name) => self.connect_with(&name, &identities.load(&name)?),
                None => self.connect_as_anybody(),
            },
            _ => self.connect_as_anybody(),
        }
    }

    /// Connects as an identity of this user, with its key.
    pub(crate) fn connect_with(&self, name: &Name, key: &SigningKey) -> Result<Client> {
        self.connect_at(name, key, false)
    }

    fn connect_at(&self, name: &Name, key: &SigningKey, checked: bool) -> Result<Client> {
        let (endpoint, place) = match &self.way {
            Some(way) => (way.endpoint(name, key.public())?.checked(checked), way.address().to_owned()),
            None => {
                let socket = self.dirs.socket();
                (Endpoint::unix(&socket), crate::files::show(&socket))
            }
        };
        Client::connect(&endpoint, key).map_err(|error| {
            let unreachable = matches!(error.code(), Code::Unreachable | Code::Timeout);
            let failure = Failure::from(error);
            if !unreachable {
                return failure;
            }
            let message = format!("{place}: {}", failure.message);
            if self.is_remote() {
                let help =
                    "check the address, and that the node there was started with `leasehold up --listen`";
                return Failure { message, ..failure }.help(help);
            }
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
