//! Sessions with providers: one for each, made when it is wanted, given up when nobody used it for long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::key::SigningKey;
use caps::limits::PROVIDERS_MAX;
use caps::wire::place::Place;
use transport::Credentials;

use super::slot::Slot;
use crate::client::Client;
use crate::endpoint::Endpoint;

/// Most sessions with providers that are kept: one for each that a cluster has. Of more, the one that was used longest ago is
/// given up; rights that are open in it go on.
pub const SESSIONS_MAX: usize = PROVIDERS_MAX;
/// How long a session is kept that nobody uses.
pub const SESSION_IDLE: Duration = Duration::from_secs(300);

/// Where credentials come from when they are needed.
type Source = Box<dyn Fn() -> Result<Arc<Credentials>> + Send + Sync>;

/// The sessions of one key.
pub(super) struct Sessions {
    /// How to connect: who is believed, how long to wait. Its address is not used.
    like: Endpoint,
    /// Who is believed, where that one does not say.
    credentials: Option<Source>,
    key: SigningKey,
    rows: Mutex<HashMap<ProviderId, Row>>,
}

struct Row {
    place: Place,
    slot: Arc<Slot>,
    used: Instant,
}

impl Sessions {
    pub(super) fn new(like: Endpoint, key: &SigningKey) -> Self {
        Self { like, credentials: None, key: SigningKey::from_seed(&key.seed()), rows: Mutex::default() }
    }

    pub(super) fn credentials(&mut self, source: Source) {
        self.credentials = Some(source);
    }

    /// The session with a life of a provider at its place.
    ///
    /// # Errors
    /// `E_UNREACHABLE`, `E_TIMEOUT`; `E_PEER_IDENTITY` if the certificate there has another name; `E_EPOCH` if it is another
    /// life by now.
    pub(super) fn get(&self, provider: ProviderId, place: &Place) -> Result<Arc<Client>> {
        let Some(address) = &place.address else { return Err(unaddressed(place)) };
        let slot = self.slot(provider, place);
        let client = slot.get(|| {
            let endpoint =
                self.like.elsewhere(address.as_str(), place.node.clone(), || match &self.credentials {
                    Some(source) => source(),
                    None => Err(Error::with(
                        Code::Unreachable,
                        format!("{place} is reached with a certificate alone"),
                    )),
                })?;
            Client::connect(&endpoint, &self.key).map_err(|error| at(place, error))
        });
        // A session goes on with the provider's next life, too, and that one is shown no token of this one.
        let client = client.and_then(|client| match client.provider() == provider {
            true => Ok(client),
            false => {
                Err(Error::with(Code::Epoch, format!("{place} began anew, and what it had before is gone")))
            }
        });
        if client.as_ref().is_err_and(|error| error.code() == Code::Epoch) {
            self.forget(provider);
        }
        client
    }

    /// Gives up the session with a life that is over.
    pub(super) fn forget(&self, provider: ProviderId) {
        self.rows().remove(&provider);
    }

    /// How many there are, those included that are being made.
    pub(super) fn len(&self) -> usize {
        self.rows().len()
    }

    fn slot(&self, provider: ProviderId, place: &Place) -> Arc<Slot> {
        let mut rows = self.rows();
        let now = Instant::now();
        rows.retain(|id, row| *id == provider || now.duration_since(row.used) < SESSION_IDLE);
        if let Some(row) = rows.get_mut(&provider).filter(|row| row.place == *place) {
            row.used = now;
            return row.slot.clone();
        }
        if rows.len() >= SESSIONS_MAX && !rows.contains_key(&provider) {
            let oldest = rows.iter().min_by_key(|(_, row)| row.used).map(|(id, _)| *id);
            oldest.map(|id| rows.remove(&id));
        }
        let row = Row { place: place.clone(), slot: Arc::default(), used: now };
        let slot = row.slot.clone();
        rows.insert(provider, row);
        slot
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<ProviderId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which provider it was.
fn at(place: &Place, error: Error) -> Error {
    Error::with(error.code(), format!("{place}: {}", error.detail()))
}

pub(super) fn unaddressed(place: &Place) -> Error {
    let message = format!("{place} is reached at the socket of its own machine alone");
    Error::with(Code::Unreachable, message)
}
