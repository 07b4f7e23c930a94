//! A provider, as the broker's runtime sees it: what is asked of it goes over its link.
//!
//! Nothing that comes back is believed beyond what was asked: another lease in an answer to a take, or other bytes than a
//! ticket's, end the link.

use std::sync::Arc;
use std::time::Duration;

use broker::runtime::{Boxed, Claimed, Handle, ProviderLink, ProviderStatus};
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::time::Micros;
use caps::wire::cluster::{BrokerAsks, Fact, ProviderSays, Pulse, ToProvider};
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow};
use policy::limits::{
    CLOCK_SKEW_MS_MAX, LINK_CLAIMS_MAX, LINK_OTHERS_MAX, LINK_PULSES_MAX, LINK_TAKES_MAX,
    RESERVATION_BYTES_PER_MS,
};
use tokio::sync::oneshot;

use super::taking::Taking;
use crate::Timings;
use crate::end::End;
use crate::line::Outgoing;
use crate::questions::{Lane, OVER, Questions, record};

/// The questions of the broker over one link.
pub(super) struct Asked {
    pub(super) questions: Questions<ProviderSays>,
    /// How a provider is: waits for nothing else, so that a busy one is not taken for a lost one.
    pulses: Lane,
    /// Taking back waits for no claim.
    takes: Lane,
    /// What is asked in it, so that asking again takes no other place.
    taking: Taking,
    /// A claim waits for its record, and renewals and facts for neither.
    claims: Lane,
    others: Lane,
    pub(super) end: End,
    timings: Timings,
}

impl Asked {
    pub(super) fn new(out: Outgoing, end: End, timings: Timings) -> Arc<Self> {
        let (pulses, takes) = (Lane::new(LINK_PULSES_MAX), Lane::new(LINK_TAKES_MAX));
        let (claims, others) = (Lane::new(LINK_CLAIMS_MAX), Lane::new(LINK_OTHERS_MAX));
        let (questions, taking) = (Questions::new(out), Taking::default());
        Arc::new(Self { questions, pulses, takes, taking, claims, others, end, timings })
    }

    const fn lanes(&self) -> [&Lane; 4] {
        [&self.pulses, &self.takes, &self.claims, &self.others]
    }

    /// Lets questions go from now on. Those that were asked before wait until then.
    pub(super) fn open(&self) {
        for lane in self.lanes() {
            Questions::<ProviderSays>::open(lane);
        }
    }

    /// The link is over.
    pub(super) fn fail_all(&self) {
        self.questions.fail_all(&self.lanes());
    }

    async fn ask(&self, lane: &Lane, within: Duration, ask: BrokerAsks) -> Result<ProviderSays> {
        self.questions.ask(lane, Some(within), |number| ToProvider::Ask { number, ask }).await
    }

    /// The provider broke a rule: the link is over.
    fn liar(&self) -> Error {
        let error = Error::new(Code::Protocol, "the provider answered something that was not asked");
        self.end.close(error.clone());
        error
    }

    /// Has the provider know something.
    ///
    /// # Errors
    /// As all questions.
    pub(super) async fn tell(&self, fact: Fact) -> Result<()> {
        // A root key that is believed no more takes rights back.
        match self.ask(&self.others, self.timings.take, BrokerAsks::Fact(fact)).await? {
            ProviderSays::Done => Ok(()),
            _ => Err(self.liar()),
        }
    }

    /// What the provider has of a lease.
    ///
    /// # Errors
    /// As all questions.
    pub(super) async fn memory(&self, lease: LeaseId) -> Result<Option<MemoryRow>> {
        match self.ask(&self.others, self.timings.ask, BrokerAsks::Memory { lease }).await? {
            ProviderSays::Memory(memory) => Ok(memory),
            _ => Err(self.liar()),
        }
    }

    /// Has something taken back. While the same is under way over this link, its answer is that of all who ask: the place of
    /// a question is its own until it is answered, however long those wait who asked it.
    async fn take(self: &Arc<Self>, take: Take, cause: EndCause) -> Result<Taken> {
        let asked = Arc::clone(self);
        self.taking
            .share(take, cause, move || async move {
                let ask = asked.questions.ask(&asked.takes, None, |number| ToProvider::Ask {
                    number,
                    ask: BrokerAsks::Take { take, cause },
                });
                let answer = tokio::select! {
                    answer = ask => answer?,
                    _ = asked.end.over() => return Err(OVER),
                };
                match answer {
                    // It goes into receipts: of another lease nobody asked.
                    ProviderSays::Taken(taken) if taken.lease.is_none_or(|lease| lease == take.lease()) => {
                        Ok(taken)
                    }
                    _ => Err(asked.liar()),
                }
            })
            .await
    }

    async fn claim(
        &self,
        ticket: ClaimTicket,
        within: Duration,
    ) -> Result<(u64, oneshot::Receiver<Result<()>>)> {
        let ask = |number| ToProvider::Ask { number, ask: BrokerAsks::Claim { ticket } };
        match self.questions.ask_recorded(&self.claims, within, ask).await? {
            (ProviderSays::Claimed { bytes }, recorded) if bytes == ticket.bytes => Ok((bytes, recorded)),
            _ => Err(self.liar()),
        }
    }
}

/// What the broker's runtime holds of a link. The link is over when it lets go of it.
pub(super) struct RemoteProvider {
    pub(super) asked: Arc<Asked>,
    pub(super) handle: Handle,
    /// How long it takes at most to wipe what a lease may have there.
    wipes_within: Duration,
}

impl RemoteProvider {
    /// Of a provider with so many bytes.
    pub(super) const fn new(asked: Arc<Asked>, handle: Handle, bytes: u64) -> Self {
        Self { asked, handle, wipes_within: Duration::from_millis(bytes / RESERVATION_BYTES_PER_MS) }
    }

    fn timings(&self) -> &Timings {
        &self.asked.timings
    }
}

impl Drop for RemoteProvider {
    fn drop(&mut self) {
        self.asked.end.close(Error::new(Code::Unreachable, "the broker has let go of this link"));
    }
}

impl ProviderLink for RemoteProvider {
    fn claim(&self, ticket: ClaimTicket, _session: u64) -> Boxed<'_, Result<Claimed>> {
        Box::pin(async move {
            // As long as the ticket is good, by the other clock, too.
            let left = ticket.claim_by.since(self.handle.now()).0;
            let within = Duration::from_micros(left) + Duration::from_millis(CLOCK_SKEW_MS_MAX);
            let (bytes, recorded) = self.asked.claim(ticket, within).await?;
            Ok(Claimed { bytes, recorded: Box::pin(record(recorded, self.timings().record)) })
        })
    }

    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let within = self.timings().ask;
            let by = self.handle.now().plus(Micros(u64::try_from(within.as_micros()).unwrap_or(u64::MAX)));
            match self.asked.ask(&self.asked.others, within, BrokerAsks::Renew { lease, ttl, by }).await? {
                ProviderSays::Done => Ok(()),
                _ => Err(self.asked.liar()),
            }
        })
    }

    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>> {
        Box::pin(async move {
            let within = self.timings().take + self.wipes_within;
            let late = |_| Error::new(Code::Timeout, "the provider did not take it back in time");
            tokio::time::timeout(within, self.asked.take(take, cause)).await.map_err(late)?
        })
    }

    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        Box::pin(self.asked.memory(lease))
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        Box::pin(async move {
            let asked = &self.asked;
            match asked.ask(&asked.pulses, self.timings().ask, BrokerAsks::Status).await? {
                ProviderSays::Status(Pulse { committed_bytes, sessions, tier, entries }) => {
                    Ok(ProviderStatus { committed_bytes, sessions, tier, entries })
                }
                _ => Err(asked.liar()),
            }
        })
    }

    fn over(&self) {
        self.asked
            .end
            .close(Error::new(Code::Epoch, "this life of the provider is over; it may come as a new one"));
    }
}
