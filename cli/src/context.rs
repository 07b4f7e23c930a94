//! What a command acts with: which node, as whom.

use std::sync::Arc;

use caps::error::{Code, Error};
use caps::id::{GrantId, PrincipalKey};
use caps::key::SigningKey;
use caps::token::Token;
use caps::wire::Name;
use caps::wire::row::{LeaseRow, LeaseState};
use libmem::{Client, Cluster, Endpoint, LeaseOptions, Leased, Nodes, Place};

use crate::args::Global;
use crate::contacts::Contacts;
use crate::dirs::Dirs;
use crate::failure::{Failure, Result};
use crate::identity::Identities;
use crate::output::Style;
use crate::places::Places;
use crate::reach::{Reach, at, keep, provider_of, which_node};
use crate::remote::Way;
use crate::tokens::{LeaseArg, Tokens};

/// The options that every command has, resolved.
pub(crate) struct Context {
    pub(crate) dirs: Dirs,
    pub(crate) json: bool,
    pub(crate) style: Style,
    named: Option<Name>,
    /// The way to the node, if it is not on this machine.
    way: Option<Way>,
    /// Where certificates are, should a node on this machine have to do with others.
    aside: Way,
}

/// A session, and whose it is.
pub(crate) struct Session {
    /// With the node that decides: the broker, or the one of a list that was found to be meant.
    pub(crate) client: Arc<Client>,
    /// The way to the bytes.
    pub(crate) reach: Reach,
    pub(crate) key: SigningKey,
    pub(crate) tokens: Tokens,
}

/// A session that nothing else uses, and whose it is.
pub(crate) struct Here {
    pub(crate) client: Client,
    pub(crate) key: SigningKey,
    pub(crate) tokens: Tokens,
}

impl Context {
    pub(crate) fn new(global: &Global, style: Style) -> Result<Self> {
        let dirs = Dirs::of_process(global.dir.as_deref());
        let way = Way::of(&global.remote, &dirs)?;
        let aside = Way::aside(&global.remote, &dirs);
        Ok(Self { aside, dirs, json: global.json, style, named: global.identity.clone(), way })
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

    /// Connects as who I am to the one node that there is to be asked: the broker, or the only one of a list.
    pub(crate) fn connect(&self) -> Result<Session> {
        self.connect_to(|nodes, _| if nodes.len() == 1 { nodes.session(0) } else { Err(which_node()) })
    }

    /// The same, or to the node of a list that has the lease.
    pub(crate) fn connect_for(&self, lease: &LeaseArg) -> Result<Session> {
        let token = if self.is_list() { self.tokens()?.find(lease).ok() } else { None };
        match (token, lease) {
            (Some(token), _) => self.connect_for_token(&token),
            (None, LeaseArg::Id(id)) => self.connect_to(|nodes, _| nodes.knowing(*id)),
            (None, LeaseArg::Name(name)) => self.connect_to(|nodes, _| {
                named(nodes, name, false).or_else(|error| match error.code() {
                    Code::LeaseUnknown => named(nodes, name, true),
                    _ => Err(error),
                })
            }),
            (None, _) => self.connect(),
        }
    }

    /// The same, or to the node of a list that has the memory of a token.
    pub(crate) fn connect_for_token(&self, token: &Token) -> Result<Session> {
        self.connect_to(|nodes, places| at(nodes, places, token))
    }

    /// The same, or to the node of a list that knows a grant.
    pub(crate) fn connect_for_grant(&self, grant: GrantId) -> Result<Session> {
        self.connect_to(|nodes, _| {
            nodes.asking(|client| client.share_show(grant).map(drop), Code::GrantUnknown)
        })
    }

    /// Connects to the node, or to every one of a list that can be reached, and says why the others cannot.
    pub(crate) fn connect_all(&self) -> Result<(Vec<Session>, Vec<Error>)> {
        let (name, key, reach) = self.reaching(false)?;
        let Reach::Nodes(nodes, places) = reach else { return Ok((vec![self.connect()?], Vec::new())) };
        let (mut sessions, mut missing) = (Vec::new(), Vec::new());
        for session in nodes.sessions() {
            match session {
                Ok(client) => sessions.push(Session {
                    client,
                    reach: Reach::Nodes(nodes.clone(), places.clone()),
                    key: SigningKey::from_seed(&key.seed()),
                    tokens: Tokens::new(&self.dirs.tokens(), &name),
                }),
                Err(error) => missing.push(error),
            }
        }
        match missing.first() {
            Some(error) if sessions.is_empty() => Err(self.unreached(error.clone())),
            _ => Ok((sessions, missing)),
        }
    }

    /// The way to the bytes of a token, as who I am. A broker is called only where nobody remembers the provider's place;
    /// over the network `checked` says whether bytes of regions get checksums of their own.
    pub(crate) fn reach(&self, token: &Token, checked: bool) -> Result<Reach> {
        let (_, _, reach) = self.reaching(checked)?;
        if let Reach::Cluster(cluster, places) = &reach
            && provider_of(token).and_then(|provider| places.find(provider)).is_none()
        {
            cluster.broker().map_err(|error| self.unreached(error))?;
        }
        Ok(reach)
    }

    /// Leases at the node of a list that has most free; where there is a broker, it decides.
    pub(crate) fn lease(&self, options: LeaseOptions) -> Result<(Session, Leased)> {
        if !self.is_list() {
            let session = self.connect()?;
            // Nothing was made, so it is not memory that is lost, but whoever would have had it.
            let leased = match &session.reach {
                Reach::Cluster(cluster, _) => cluster.lease(options),
                Reach::Nodes(..) => session.client.lease(options),
            };
            let leased = leased.map_err(|error| match error.code() {
                Code::ProviderLost | Code::Unreachable => Failure::from(error).help(
                    "see that a provider runs and reaches the broker: `leasehold node list --as admin`",
                ),
                _ => self.unreached(error),
            })?;
            return Ok((session, leased));
        }
        let mut made = None;
        let session = self.connect_to(|nodes, places| {
            let (leased, client) = nodes.lease(&options)?;
            keep(nodes, places, leased.lease.provider);
            made = Some(leased);
            Ok(client)
        })?;
        let leased = made.ok_or_else(|| Failure::of(Code::Internal, "no lease was made"))?;
        Ok((session, leased))
    }

    /// Connects as who I am; of a list, to the node that `choose` finds.
    fn connect_to(
        &self,
        choose: impl FnOnce(&Nodes, &Places) -> caps::Result<Arc<Client>>,
    ) -> Result<Session> {
        let (name, key, reach) = self.reaching(false)?;
        let client = match &reach {
            Reach::Cluster(cluster, _) => cluster.broker().map_err(|error| self.unreached(error))?,
            Reach::Nodes(nodes, places) => choose(nodes, places).map_err(|error| self.unreached(error))?,
        };
        Ok(Session { client, reach, key, tokens: Tokens::new(&self.dirs.tokens(), &name) })
    }

    /// Who I am, with the key and the way to memory. Nobody is called yet.
    fn reaching(&self, checked: bool) -> Result<(Name, SigningKey, Reach)> {
        if libmem::is_inherited() {
            let message = "inside `leasehold run` there is no key, and only `put` and `get` work";
            return Err(Failure::of(Code::Denied, message).help("type it outside of the sandbox"));
        }
        let name = self.identity()?;
        let key = self.identities().load(&name)?;
        let reach = self.reach_as(&name, &key, checked)?;
        Ok((name, key, reach))
    }

    fn reach_as(&self, name: &Name, key: &SigningKey, checked: bool) -> Result<Reach> {
        let socket = self.dirs.socket();
        let places = Places::new(&self.dirs.tokens(), name);
        let Some(way) = &self.way else {
            // Its broker may place leases at other machines, and whoever asks for those has a certificate.
            let (aside, name, public) = (self.aside.clone(), name.clone(), key.public());
            let cluster = Cluster::new(&Endpoint::unix(&socket), key).with_credentials(move || {
                let believed = aside.believed(&name, public);
                believed.map_err(|failure| Error::with(Code::Unreachable, failure.message))
            });
            return Ok(Reach::Cluster(Box::new(cluster), places));
        };
        let mut endpoints = way.endpoints(name, key.public())?;
        endpoints = endpoints.into_iter().map(|endpoint| endpoint.checked(checked)).collect();
        if way.is_list() {
            return Ok(Reach::Nodes(Arc::new(Nodes::list(&endpoints, key)?), places));
        }
        let cluster = Cluster::new(&endpoints[0], key);
        // What a provider of this host has can be mapped.
        let cluster = if socket.exists() { cluster.with_local(socket) } else { cluster };
        Ok(Reach::Cluster(Box::new(cluster), places))
    }

    /// Whether the nodes are those of a list, each its own.
    pub(crate) fn is_list(&self) -> bool {
        self.way.as_ref().is_some_and(Way::is_list)
    }

    /// Connects as who I am, or, where that is not said, as any identity of this user: for what concerns nobody in
    /// particular.
    pub(crate) fn connect_as_anybody(&self) -> Result<Arc<Client>> {
        let name = self.anybody()?;
        self.connect_with(&name, &self.identities().load(&name)?)
    }

    /// The way to memory as who I am, or, where that is not said, as one of `holders` whose key this user has, or as
    /// anybody: for what concerns those who have held a token.
    pub(crate) fn reach_as_one_of(&self, holders: &[String]) -> Result<Reach> {
        let identities = self.identities();
        let holds = |name: &Name| {
            let key = identities.public(name).map(|key| key.to_string());
            key.is_some_and(|key| holders.contains(&key))
        };
        let name = match self.named {
            None if self.may_be_up() => match identities.names()?.into_iter().find(holds) {
                Some(name) => name,
                None => self.anybody()?,
            },
            _ => self.anybody()?,
        };
        self.reach_as(&name, &identities.load(&name)?, false)
    }

    /// All nodes of a list, as who I am or as any identity of this user.
    pub(crate) fn listed_as_anybody(&self) -> Result<Arc<Nodes>> {
        let name = self.anybody()?;
        match self.reach_as(&name, &self.identities().load(&name)?, false)? {
            Reach::Nodes(nodes, _) => Ok(nodes),
            Reach::Cluster(..) => Err(Failure::of(Code::Internal, "there is no list of nodes")),
        }
    }

    /// Where the nodes are that were named, in their order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.way.iter().flat_map(Way::addresses)
    }

    fn anybody(&self) -> Result<Name> {
        let mut names = self.identities().names()?;
        if self.named.is_some() || names.len() <= 1 {
            return self.identity();
        }
        let administrator = names.iter().position(|name| name.as_str() == "admin");
        Ok(names.remove(administrator.unwrap_or(0)))
    }

    /// A session of its own with the node of this machine, to be handed over.
    pub(crate) fn connect_here(&self) -> Result<Here> {
        let (name, key, _) = self.reaching(false)?;
        let client = Client::connect(&Endpoint::unix(self.dirs.socket()), &key);
        let client = client.map_err(|error| self.unreached(error))?;
        Ok(Here { client, key, tokens: Tokens::new(&self.dirs.tokens(), &name) })
    }

    /// Connects as an identity of this user, with its key.
    pub(crate) fn connect_with(&self, name: &Name, key: &SigningKey) -> Result<Arc<Client>> {
        match self.reach_as(name, key, false)? {
            Reach::Cluster(cluster, _) => cluster.broker().map_err(|error| self.unreached(error)),
            Reach::Nodes(nodes, _) if nodes.len() == 1 => {
                nodes.session(0).map_err(|error| self.unreached(error))
            }
            Reach::Nodes(..) => Err(self.unreached(which_node())),
        }
    }

    /// What is said where the node cannot be reached.
    pub(crate) fn unreached(&self, error: Error) -> Failure {
        let code = error.code();
        let failure = Failure::from(error);
        if code == Code::WrongNode && self.is_list() {
            return failure.help("name it with --broker HOST:PORT instead of --nodes");
        }
        if code == Code::PeerIdentity
            && let Some(way) = self.way.as_ref().filter(|way| !way.is_list())
        {
            // Which port it was is the first thing to look at.
            let place = way.addresses().next().unwrap_or_default();
            return Failure { message: format!("{place}: {}", failure.message), ..failure };
        }
        if !matches!(code, Code::Unreachable | Code::Timeout) {
            return failure;
        }
        let help = "check the address, and that a node was started there: `leasehold up --listen`, or `leasehold broker`";
        match &self.way {
            Some(way) if way.is_list() => failure.help(help),
            Some(way) => {
                let place = way.addresses().next().unwrap_or_default();
                let message = format!("{place}: {}", failure.message);
                Failure { message, ..failure }.help(help)
            }
            None => {
                let message = format!("{}: {}", crate::files::show(&self.dirs.socket()), failure.message);
                Failure { message, ..failure }
            }
        }
    }

    /// What is said where memory cannot be opened: of a broker's provider its message says which and where.
    pub(crate) fn unopened(&self, error: Error, place: Option<Place>) -> Failure {
        match place {
            Some(place) if error.detail().starts_with(&format!("{place}: ")) => match error.code() {
                Code::Unreachable | Code::Timeout => Failure::from(error).help(
                    "check that the provider runs there and is reached from here; `leasehold node list --as admin` says how \
                     its broker sees it",
                ),
                _ => error.into(),
            },
            _ => self.unreached(error),
        }
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

/// The node of a list where a lease of the caller's has a name; those that are over count where `ended` says so.
fn named(nodes: &Nodes, name: &Name, ended: bool) -> caps::Result<Arc<Client>> {
    let is_it = |row: &LeaseRow| {
        let over = row.state == LeaseState::Ended;
        row.name.as_ref() == Some(name) && row.owner == nodes.holder() && over == ended
    };
    let unknown = || Error::with(Code::LeaseUnknown, format!("no lease of yours is called `{name}`"));
    let ask = |client: &Client| {
        let found = client.leases().find(|row| row.as_ref().map_or(true, is_it));
        found.unwrap_or_else(|| Err(unknown())).map(drop)
    };
    nodes.asking(ask, Code::LeaseUnknown)
}
