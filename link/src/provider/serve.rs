//! One link of a provider, from told to over.
//!
//! ```text
//! reader ──▶ question ──▶ a task: Executor ──▶ answer ──▶ writer
//!    │  └──▶ fact ──▶ one task, in order ──▶ answer ──▶ writer
//!    ├─────▶ answer ──▶ questions
//!    └ silent for too long, or against a rule: the link is over
//! teller ──▶ notices, one message at a time ──▶ writer
//! ```

use std::sync::Arc;

use broker::runtime::{Claimed, Clock, SteadyClock};
use caps::error::{Code, Error, Result};
use caps::limits::{LINK_FRAME_BYTES_MAX, LINK_NOTICES_PER_FRAME_MAX, LINK_WINDOW_MAX};
use caps::time::Micros;
use caps::wire::cluster::{
    BrokerAsks, BrokerSays, Fact, ProviderAsks, ProviderSays, Pulse, ToBroker, ToProvider, encode,
};
use policy::limits::CLOCK_SKEW_MS_MAX;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use transport::Role;

use super::asker::{Asking, Shared};
use super::greeting::{Contact, disorder};
use super::{Config, Executor};
use crate::end::End;
use crate::line::{Outgoing, read, write, write_all};
use crate::questions::{Lane, Questions};
use crate::work::Work;

/// Why a link is over.
pub(super) enum Cut {
    /// It may be made again.
    Again(Error),
    /// This life of the provider is over.
    NewLife(Error),
    /// The provider stops.
    Stopped,
}

/// A fact that is to be known, and the question by which it came.
type Told = (u64, Fact, OwnedSemaphorePermit);

/// Joins, and serves until the link is over.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    config: &Config,
    contact: Contact,
    executor: &Arc<dyn Executor>,
    clock: SteadyClock,
    joined: impl FnOnce(),
) -> Cut {
    let Contact { mut from, mut to, chain, facts } = contact;
    let timings = &config.timings;
    let noted = async {
        executor.facts(facts).await?;
        write(&mut to, &ToBroker::Ready, timings.send).await?;
        match read(&mut from, LINK_FRAME_BYTES_MAX, Some(timings.greeting), timings.frame).await? {
            ToProvider::Joined { noted } => Ok(noted),
            ToProvider::Bye(refusal) => Err(refusal.into()),
            _ => Err(disorder()),
        }
    };
    let noted = tokio::select! {
        biased;
        _ = shared.stop.over() => return Cut::Stopped,
        noted = noted => noted,
    };
    match noted {
        Ok(noted) => shared.notices.noted(noted),
        Err(error) if error.code() == Code::Epoch => return Cut::NewLife(error),
        Err(error) => return Cut::Again(error),
    }
    joined();

    let (out, frames) = Outgoing::new();
    let end = End::new();
    let questions = Questions::new(out.clone());
    let (notices, others) = (Lane::new(1), Lane::new(LINK_WINDOW_MAX - 1));
    let asking = Arc::new(Asking { questions, notices, others, end: end.clone() });
    for lane in asking.lanes() {
        Questions::<BrokerSays>::open(lane);
    }
    shared.joined(Some(Arc::clone(&asking)));
    let (tell, told) = mpsc::channel(LINK_WINDOW_MAX);
    let hand = Hand {
        shared: Arc::clone(shared),
        executor: Arc::clone(executor),
        out: out.clone(),
        end: end.clone(),
        clock,
    };
    // Of tasks that go on when the link is over, those that keep this link's queue do nothing with it.
    let writer = tokio::spawn({
        let (end, timings) = (end.clone(), timings.clone());
        async move { write_all(to, frames, end, last_words, &timings).await }
    });
    let ends = async {
        tokio::select! {
            why = reader(&mut from, &hand, &asking, tell, config) => why,
            why = facts_in_order(&hand, told) => why,
            why = teller(shared, &asking) => why,
            why = judge(config, &chain) => why,
            why = end.over() => why,
        }
    };
    tokio::pin!(ends);
    let why = tokio::select! {
        why = &mut ends => why,
        why = shared.stop.over() => {
            // Behind all that was answered before it. The broker ends the link once it is in its books: before that the end
            // of this process might take the message out of the broker's hands again.
            if shared.is_gone() && out.send(&ToBroker::Gone).is_ok() {
                let _ = tokio::time::timeout(timings.ask, &mut ends).await;
            }
            why
        }
    };
    end.close(why);
    shared.joined(None);
    asking.questions.fail_all(&asking.lanes());
    // Bounded by the times of a frame and of the last words.
    let _ = writer.await;
    let why = end.over().await;
    if shared.stop.why().is_some() {
        Cut::Stopped
    } else if why.code() == Code::Epoch {
        Cut::NewLife(why)
    } else {
        Cut::Again(why)
    }
}

/// What is said last: why, unless the broker said it, or cannot hear it.
fn last_words(why: &Error) -> Option<Vec<u8>> {
    encode(&ToBroker::Bye(why.into())).ok()
}

/// Reads until something is wrong.
async fn reader(
    from: &mut (impl AsyncRead + Unpin),
    hand: &Hand,
    asking: &Asking,
    tell: mpsc::Sender<Told>,
    config: &Config,
) -> Error {
    let timings = &config.timings;
    let mut work = Work::new();
    loop {
        let message = read(from, LINK_FRAME_BYTES_MAX, Some(timings.silent), timings.frame).await;
        let done = match message {
            Ok(ToProvider::Ask { number, ask }) => match (work.asked(number), ask) {
                (Ok(place), BrokerAsks::Fact(fact)) => {
                    tell.try_send((number, fact, place)).map_err(|_| disorder())
                }
                (Ok(place), ask) => {
                    hand.start(number, ask, place);
                    Ok(())
                }
                (Err(error), _) => Err(error),
            },
            Ok(ToProvider::Answer { number, says }) => asking.questions.answered(number, Ok(says)),
            Ok(ToProvider::Failed { number, why }) => asking.questions.answered(number, Err(why.into())),
            Ok(ToProvider::Bye(refusal)) => Err(refusal.into()),
            Ok(
                ToProvider::Welcome(_) | ToProvider::Fact(_) | ToProvider::Told | ToProvider::Joined { .. },
            ) => Err(disorder()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return error;
        }
    }
}

/// Has facts known one after the other. A fact that cannot be known ends the link: the next one begins with all of them.
async fn facts_in_order(hand: &Hand, mut told: mpsc::Receiver<Told>) -> Error {
    while let Some((number, fact, _place)) = told.recv().await {
        if let Err(error) = hand.executor.fact(fact).await {
            return error;
        }
        if let Err(error) = hand.out.send(&ToBroker::Answer { number, says: ProviderSays::Done }) {
            return error;
        }
    }
    std::future::pending().await
}

/// Tells notices in their order, until each was noted.
async fn teller(shared: &Shared, asking: &Asking) -> Error {
    loop {
        let (first, notices) = shared.notices.oldest(LINK_NOTICES_PER_FRAME_MAX).await;
        let ask = ProviderAsks::Notices { first, notices };
        let message = |number| ToBroker::Ask { number, ask };
        match asking.questions.ask(&asking.notices, shared.timings.revoke, message).await {
            Ok(BrokerSays::Noted { next }) if next > first => shared.notices.noted(next),
            // It has no room now, and has noted none.
            Ok(BrokerSays::Noted { .. }) => tokio::time::sleep(shared.timings.notice_again).await,
            Err(error) if error.code() == Code::Busy => tokio::time::sleep(shared.timings.notice_again).await,
            Ok(BrokerSays::Done | BrokerSays::Revoked(_)) => return disorder(),
            // To be told again it takes another link: of this one nobody knows what was noted.
            Err(error) => return error,
        }
    }
}

/// Looks from time to time whether the broker's certificate would still be believed.
async fn judge(config: &Config, chain: &[transport::rustls::pki_types::CertificateDer<'static>]) -> Error {
    loop {
        tokio::time::sleep(config.timings.judge).await;
        if let Err(error) = config.credentials.now().judge_chain_again(chain, Role::Broker) {
            return error;
        }
    }
}

/// What it takes to carry out a question.
#[derive(Clone)]
struct Hand {
    shared: Arc<Shared>,
    executor: Arc<dyn Executor>,
    out: Outgoing,
    end: End,
    clock: SteadyClock,
}

impl Hand {
    /// Carries a question out, to its end whether or not the link is there to answer.
    fn start(&self, number: u64, ask: BrokerAsks, place: OwnedSemaphorePermit) {
        // Over all links: whoever cuts them again and again has no more done at one time.
        let Ok(working) = Arc::clone(&self.shared.working).try_acquire_owned() else {
            self.say(&ToBroker::Failed { number, why: Error::from(Code::Busy).into() });
            return;
        };
        let hand = self.clone();
        tokio::spawn(async move {
            match ask {
                BrokerAsks::Claim { ticket } => match hand.executor.claim(ticket).await {
                    Ok(Claimed { bytes, recorded }) => {
                        hand.answer(number, Ok(ProviderSays::Claimed { bytes }));
                        let why = recorded.await.err().map(Into::into);
                        hand.say(&ToBroker::Recorded { number, why });
                    }
                    Err(error) => hand.answer(number, Err(error)),
                },
                other => {
                    let answer = hand.carry_out(other).await;
                    hand.answer(number, answer);
                }
            }
            drop((place, working));
        });
    }

    async fn carry_out(&self, ask: BrokerAsks) -> Result<ProviderSays> {
        let executor = &self.executor;
        match ask {
            BrokerAsks::Renew { lease, ttl, by } => {
                if self.clock.now() > by.plus(Micros::from_millis(CLOCK_SKEW_MS_MAX)) {
                    return Err(Error::new(Code::Timeout, "the renewal arrived too late to be carried out"));
                }
                executor.renew(lease, ttl).await.map(|()| ProviderSays::Done)
            }
            BrokerAsks::Take { take, cause } => executor.take(take, cause).await.map(ProviderSays::Taken),
            BrokerAsks::Memory { lease } => executor.memory(lease).await.map(ProviderSays::Memory),
            BrokerAsks::Status => executor.status().await.map(|status| {
                ProviderSays::Status(Pulse {
                    committed_bytes: status.committed_bytes,
                    sessions: status.sessions,
                    tier: status.tier,
                    entries: status.entries,
                })
            }),
            // These two have ways of their own.
            BrokerAsks::Claim { .. } | BrokerAsks::Fact(_) => Err(Code::Internal.into()),
        }
    }

    fn answer(&self, number: u64, answer: Result<ProviderSays>) {
        self.say(&match answer {
            Ok(says) => ToBroker::Answer { number, says },
            Err(error) => ToBroker::Failed { number, why: error.into() },
        });
    }

    fn say(&self, message: &ToBroker) {
        if let Err(error) = self.out.send(message) {
            self.end.close(error);
        }
    }
}
