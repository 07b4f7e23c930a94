//! What belongs to the provider of a token: opening it, and asking what it is worth.

use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::Reason;
use caps::wire::place::Place;
use caps::wire::reply::TokenState;
use caps::wire::row::LeaseState;

use super::{Cluster, provider_of, sessions, word};
use crate::client::Client;
use crate::lease::Leased;
use crate::mediated::{Mediated, Memory};
use crate::region::Region;
use crate::snapshot::{self, Progress, SnapshotOptions};
use crate::wrap::Wrapped;

/// Who is asked, and why that one.
struct Asked {
    client: Arc<Client>,
    /// Where it is; `None` for the broker and for the provider of this host.
    place: Option<Place>,
    /// Whether it may send to a node of any name: a broker may.
    sends: bool,
}

impl Asked {
    fn broker(client: Arc<Client>) -> Self {
        let sends = word::decides(&client);
        Self { client, place: None, sends }
    }
}

impl Cluster {
    /// As [`Client::open`], at the provider that has the memory.
    ///
    /// # Errors
    /// As [`Client::open`]; what the table of [`crate::cluster`] says.
    pub fn open(&self, token: &Token, rights: Rights) -> Result<Memory> {
        self.at(token, |client| client.open(token, rights))
    }

    /// As [`Client::open_mediated`], at the provider that has the memory.
    ///
    /// # Errors
    /// As [`Client::open_mediated`]; what the table of [`crate::cluster`] says.
    pub fn open_mediated(&self, token: &Token, rights: Rights) -> Result<Mediated> {
        self.at(token, |client| client.open_mediated(token, rights))
    }

    /// As [`Client::open_mapped`], where the provider is this host's.
    ///
    /// # Errors
    /// As [`Client::open_mapped`]; what the table of [`crate::cluster`] says.
    pub fn open_mapped(&self, token: &Token, rights: Rights) -> Result<Region> {
        self.at(token, |client| client.open_mapped(token, rights))
    }

    /// As [`Client::token_check`], at the provider that has the memory.
    ///
    /// # Errors
    /// As [`Client::token_check`]; what the table of [`crate::cluster`] says.
    pub fn token_check(&self, token: &Token) -> Result<TokenState> {
        self.at(token, |client| client.token_check(token))
    }

    /// As [`Client::wrap`], at the provider that has the memory: it can be fetched there, and nowhere else.
    ///
    /// # Errors
    /// As [`Client::wrap`]; what the table of [`crate::cluster`] says.
    pub fn wrap(&self, token: &Token, to: Option<PrincipalKey>, ttl: Duration) -> Result<Wrapped> {
        self.at(token, |client| client.wrap(token, to, ttl))
    }

    /// As [`Client::revoke_token`], at the provider that has the memory.
    ///
    /// # Errors
    /// As [`Client::revoke_token`]; what the table of [`crate::cluster`] says.
    pub fn revoke_token(&self, token: &Token, block: u8, reason: &Reason) -> Result<Receipt> {
        self.at(token, |client| client.revoke_token(token, block, reason.clone()))
    }

    /// As [`Client::snapshot`]: the original and its copy may be at different providers.
    ///
    /// # Errors
    /// As [`Client::snapshot`]; what the table of [`crate::cluster`] says.
    pub fn snapshot(
        &self,
        token: &Token,
        options: SnapshotOptions,
        progress: impl Progress,
    ) -> Result<Option<Leased>> {
        let open = |token: &Token, rights| self.open(token, rights);
        let release = |lease| self.broker()?.release(lease).map(drop);
        snapshot::made(open, |options| self.lease(options), release, token, options, progress)
    }

    /// The session with the provider that has a token's memory, for what concerns that one alone.
    ///
    /// # Errors
    /// As [`Self::open`], but for what concerns the right.
    pub fn provider(&self, token: &Token) -> Result<Arc<Client>> {
        let (provider, lease) = provider_of(token)?;
        self.session(provider).map(|asked| asked.client).map_err(|error| self.judged(error, provider, lease))
    }

    /// Asks the provider of a token, and the one that it names instead, if it does, once.
    pub(super) fn at<T>(&self, token: &Token, ask: impl Fn(&Client) -> Result<T>) -> Result<T> {
        let (provider, lease) = provider_of(token)?;
        let asked = self.session(provider);
        let answer = asked.and_then(|asked| match ask(&asked.client) {
            Err(error) if error.code() == Code::WrongNode => ask(&*self.redirected(provider, asked, error)?),
            answer => answer,
        });
        answer.map_err(|error| self.judged(error, provider, lease))
    }

    /// The session with a life of a provider.
    fn session(&self, provider: ProviderId) -> Result<Asked> {
        if let Some(place) = self.places.get(provider) {
            return self.session_at(provider, place);
        }
        let broker = match self.broker() {
            Ok(broker) if word::has(&broker, provider, None) => return Ok(Asked::broker(broker)),
            Ok(broker) => broker,
            // Whoever is here needs no broker to be found.
            Err(error) => return self.local(provider).ok_or(error),
        };
        match broker.provider_show(provider) {
            Ok(place) if place.address.is_some() => {
                word::may_name(&broker, &place)?;
                self.remember(provider, place.clone());
                self.session_at(provider, place)
            }
            // At no address: here, or in the broker's own process, which may be another life of it than the one that
            // welcomed this session.
            Ok(_) => Ok(self.local(provider).unwrap_or_else(|| Asked::broker(broker))),
            Err(error) => match (self.local(provider), error.code()) {
                (Some(asked), _) => Ok(asked),
                (None, Code::Unreachable | Code::Timeout | Code::ProviderLost | Code::Epoch) => Err(error),
                // It says what it makes of the token itself.
                (None, _) => Ok(Asked::broker(broker)),
            },
        }
    }

    fn session_at(&self, provider: ProviderId, place: Place) -> Result<Asked> {
        if let Some(asked) = self.local(provider) {
            return Ok(asked);
        }
        // A broker with memory of its own is a provider, too, and is connected already. What says so and is called otherwise
        // is somebody else, whatever stands at the broker's address.
        let broker = self.broker.there().filter(|broker| word::has(broker, provider, Some(&place)));
        let client = match broker {
            Some(broker) => broker,
            None => self.sessions.get(provider, &place)?,
        };
        Ok(Asked { client, place: Some(place), sends: false })
    }

    /// The provider of this host, if it is the one.
    fn local(&self, provider: ProviderId) -> Option<Asked> {
        let (endpoint, slot) = self.local.as_ref()?;
        let client = slot.get(|| Client::connect(endpoint, &self.key)).ok()?;
        word::has(&client, provider, None).then_some(Asked { client, place: None, sends: false })
    }

    /// Whom a node named that was asked wrongly. `error` says so, and is returned if it leads nowhere.
    fn redirected(&self, provider: ProviderId, asked: Asked, error: Error) -> Result<Arc<Client>> {
        let Some(to) = Place::of(&error) else { return Err(error) };
        let from = asked.place.or_else(|| self.places.get(provider));
        if from.as_ref() == Some(&to) {
            return Err(error); // it names itself
        }
        if !from.map_or(asked.sends, |from| from.node == to.node) {
            word::may_name(&asked.client, &to)?;
            let message = "a provider sends to another one, and the broker said that the lease is its own";
            return Err(Error::new(Code::PeerIdentity, message));
        }
        if to.address.is_none() {
            return Err(sessions::unaddressed(&to));
        }
        let client = self.sessions.get(provider, &to)?;
        self.remember(provider, to);
        Ok(client)
    }

    /// What an error of a provider's comes to: whether it is lost for good is the broker's to know.
    fn judged(&self, error: Error, provider: ProviderId, lease: LeaseId) -> Error {
        match error.code() {
            Code::Epoch => {
                self.sessions.forget(provider);
                self.places.forget(provider);
                error
            }
            Code::Unreachable | Code::Timeout if self.is_lost(provider, lease) => {
                self.sessions.forget(provider);
                let message = format!("the provider of lease {lease} is lost, and its memory with it");
                Error::with(Code::ProviderLost, message)
            }
            _ => error,
        }
    }

    /// Whether the broker knows that a provider, or what it had of a lease, is lost. Asked only where there is a session with
    /// it: who cannot be reached either is not waited for.
    fn is_lost(&self, provider: ProviderId, lease: LeaseId) -> bool {
        let knows = |broker: &Arc<Client>| word::decides(broker) && !word::has(broker, provider, None);
        let Some(broker) = self.broker.there().filter(knows) else { return false };
        match broker.provider_show(provider) {
            Err(error) if matches!(error.code(), Code::ProviderLost | Code::Epoch) => true,
            Err(_) => false,
            Ok(_) => broker.lease_show(lease).is_ok_and(|view| {
                view.lease.state == LeaseState::Ended
                    && view.lease.cause == Some(caps::wire::row::EndCause::ProviderLost)
            }),
        }
    }
}
