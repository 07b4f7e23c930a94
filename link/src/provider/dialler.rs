//! Finds the broker, again and again.

use std::sync::Arc;

use broker::runtime::SteadyClock;
use caps::error::{Code, Error, Result};
use caps::id::ClusterEpoch;
use caps::wire::Name;
use caps::wire::cluster::{Hello, PROTOCOL};
use caps::wire::provider::{Address, Registration};
use transport::Reload;

use super::asker::Shared;
use super::backoff::Backoff;
use super::greeting::{Contact, greet};
use super::serve::{Cut, serve};
use super::{Asker, Executor};
use crate::{Facts, Timings};

/// Whom a provider dials, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the broker accepts providers.
    pub address: Address,
    /// The name that its certificate must have; `None`: any broker's of the domain.
    pub broker_name: Option<Name>,
    /// Who this provider is, and whom it believes.
    pub credentials: Arc<Reload>,
    /// What it has. Its name is that of the certificate, or the broker refuses it.
    pub registration: Registration,
    /// Whether an earlier life of it got in: what was right then may be right again, such as a certificate that is being
    /// replaced, and is waited for.
    pub later: bool,
    /// How long everything may take.
    pub timings: Timings,
}

/// How serving ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// This life of the provider is over: the broker restarted, or has given it up. All memory is to be wiped, and the
    /// provider may come as a new life.
    NewLife(Error),
    /// [`Asker::stop`].
    Stopped,
}

/// Finds the broker, and serves it.
pub struct Dialler {
    config: Config,
    shared: Arc<Shared>,
    contact: Option<Contact>,
    /// The cluster whose facts the provider was made of.
    cluster: Option<ClusterEpoch>,
    /// Whether leases may have been placed here.
    joined: bool,
    backoff: Backoff,
    /// Why there was no link the last time, as long as there has been none since.
    why: Option<Error>,
}

impl Dialler {
    /// Dials nobody yet.
    #[must_use]
    pub fn new(config: Config) -> (Self, Asker) {
        let shared = Shared::new(config.timings.clone());
        let backoff = Backoff::new(config.timings.redial_min, config.timings.redial_max);
        let asker = Asker(Arc::clone(&shared));
        (Self { config, shared, contact: None, cluster: None, joined: false, backoff, why: None }, asker)
    }

    /// Dials until the broker has told what a provider has to know. Nothing is registered yet: that is done by
    /// [`Self::serve`], which is to be called within [`Timings::ready`].
    ///
    /// # Errors
    /// What does not get better by waiting: `E_PEER_IDENTITY` if one end does not believe the other and no earlier life got
    /// in ([`Config::later`]), `E_FRAME_VERSION`,
    /// `E_RANGE` for a registration that is none, `E_PROTOCOL` and `E_FRAME_...` if the other end is no broker;
    /// `E_UNREACHABLE` after [`Asker::stop`].
    pub async fn first_contact(&mut self) -> Result<Facts> {
        loop {
            let error = match self.greet().await {
                Ok(contact) => {
                    let facts = contact.facts.clone();
                    self.cluster = Some(facts.cluster);
                    self.contact = Some(contact);
                    return Ok(facts);
                }
                Err(error) => error,
            };
            match error.code() {
                Code::Unreachable | Code::Timeout | Code::Busy | Code::FrameTruncated => {}
                Code::PeerIdentity if self.config.later => {}
                _ => return Err(error),
            }
            self.pause(&error).await?;
        }
    }

    /// Joins, does what is asked, and comes back after every cut, until this life of the provider is over.
    pub async fn serve(mut self, executor: Arc<dyn Executor>) -> Ended {
        let clock = SteadyClock::sample();
        loop {
            // A stop is looked for at each step in there: a link that is up has to be told of it.
            let error = match self.once(&executor, clock).await {
                Cut::NewLife(why) => return Ended::NewLife(why),
                Cut::Stopped => return Ended::Stopped,
                Cut::Again(why) => why,
            };
            if self.pause(&error).await.is_err() {
                return Ended::Stopped;
            }
        }
    }

    /// One link, from the dial until it is over.
    async fn once(&mut self, executor: &Arc<dyn Executor>, clock: SteadyClock) -> Cut {
        let contact = match self.contact.take() {
            Some(contact) => contact,
            None => match self.greet().await {
                Ok(contact) => contact,
                // The life before was never joined: to whom nothing is known, everything is over already.
                Err(error) if error.code() == Code::Epoch => return Cut::NewLife(error),
                Err(error) => return Cut::Again(error),
            },
        };
        if self.cluster.is_some_and(|cluster| cluster != contact.facts.cluster) {
            let why =
                Error::new(Code::Epoch, "the broker began another life, and knows none of the memory here");
            return Cut::NewLife(why);
        }
        self.cluster = Some(contact.facts.cluster);
        let (joined, backoff, why) = (&mut self.joined, &mut self.backoff, &mut self.why);
        serve(&self.shared, &self.config, contact, executor, clock, || {
            *joined = true;
            *why = None;
            backoff.reset();
        })
        .await
    }

    async fn greet(&self) -> Result<Contact> {
        let cluster = self.cluster.filter(|_| self.joined);
        let registration = self.config.registration.clone();
        let hello = Hello { protocol: PROTOCOL, registration, cluster };
        tokio::select! {
            biased;
            why = self.shared.stop.over() => Err(why),
            contact = greet(&self.config, hello) => contact,
        }
    }

    async fn pause(&mut self, why: &Error) -> Result<()> {
        let pause = self.backoff.pause();
        // A broker may be away for hours, and the same line every two seconds hides all others.
        if self.shared.stop.why().is_none() && self.why.as_ref() != Some(why) {
            tracing::warn!(error = %why, broker = %self.config.address, "no link to the broker; dialling until there is one");
            self.why = Some(why.clone());
        }
        tokio::select! {
            biased;
            why = self.shared.stop.over() => Err(why),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
