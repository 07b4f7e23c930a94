//! One link at the broker, from joined to over.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::limits::LINK_FRAME_BYTES_MAX;
use caps::wire::cluster::{ToBroker, ToProvider, encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use transport::rustls::pki_types::CertificateDer;
use transport::{Reload, Role};

use super::desk::Desk;
use super::remote::Asked;
use super::source::Known;
use crate::Timings;
use crate::end::End;
use crate::line::{Outgoing, linger, read, write_all};
use crate::work::Work;

/// A link that has joined.
pub(super) struct Joined<R, W> {
    pub(super) from: R,
    pub(super) to: W,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) out: Outgoing,
    pub(super) frames: mpsc::Receiver<Vec<u8>>,
    pub(super) desk: Desk,
    pub(super) known: Known,
}

/// Serves it until it is over, and says why it is.
pub(super) async fn serve<R, W>(joined: Joined<R, W>, credentials: &Reload, timings: &Timings) -> Error
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Joined { mut from, to, chain, out, frames, desk, mut known } = joined;
    let asked = Arc::clone(&desk.asked);
    let end = asked.end.clone();
    let work = async {
        let why = tokio::select! {
            why = reader(&mut from, &out, &desk, timings) => why,
            why = teller(&asked, &mut known) => why,
            why = judge(credentials, &chain, timings) => why,
            why = end.over() => why,
        };
        end.close(why);
        asked.fail_all();
    };
    tokio::join!(work, write_all(to, frames, end.clone(), last_words, timings));
    linger(&mut from, timings.bye).await;
    end.over().await
}

/// What is said last: why.
fn last_words(why: &Error) -> Option<Vec<u8>> {
    encode(&ToProvider::Bye(why.into())).ok()
}

async fn reader(
    from: &mut (impl AsyncRead + Unpin),
    out: &Outgoing,
    desk: &Desk,
    timings: &Timings,
) -> Error {
    let mut work = Work::new();
    let questions = &desk.asked.questions;
    loop {
        // However long it says nothing: who does not answer is found out by who asks.
        let done = match read(from, LINK_FRAME_BYTES_MAX, None, timings.frame).await {
            Ok(ToBroker::Ask { number, ask }) => work.asked(number).map(|place| {
                let Ok(working) = Arc::clone(&desk.life.working).try_acquire_owned() else {
                    return say(out, &desk.asked.end, number, Err(Code::Busy.into()));
                };
                let (desk, out, within) = (desk.clone(), out.clone(), timings.revoke);
                // What was begun goes on when the link is over: it may have been ordered.
                tokio::spawn(async move {
                    let answer = tokio::time::timeout(within, desk.answer(ask)).await;
                    let late = Error::new(Code::Timeout, "it took the broker too long");
                    say(&out, &desk.asked.end, number, answer.unwrap_or(Err(late)));
                    drop((place, working));
                });
            }),
            Ok(ToBroker::Answer { number, says }) => questions.answered(number, Ok(says)),
            Ok(ToBroker::Failed { number, why }) => questions.answered(number, Err(why.into())),
            Ok(ToBroker::Recorded { number, why }) => {
                questions.recorded(number, why.map_or(Ok(()), |why| Err(why.into())))
            }
            Ok(ToBroker::Bye(refusal)) => Err(refusal.into()),
            Ok(ToBroker::Gone) => Err(desk.gone().await),
            Ok(ToBroker::Hello(_) | ToBroker::Ready) => {
                Err(Error::new(Code::Protocol, "a message of the link came out of its order"))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return error;
        }
    }
}

fn say(out: &Outgoing, end: &End, number: u64, answer: Result<caps::wire::cluster::BrokerSays>) {
    let message = match answer {
        Ok(says) => ToProvider::Answer { number, says },
        Err(error) => ToProvider::Failed { number, why: error.into() },
    };
    if let Err(error) = out.send(&message) {
        end.close(error);
    }
}

/// Tells every change, in order.
async fn teller(asked: &Asked, known: &mut Known) -> Error {
    loop {
        let mut last = 0;
        for (number, fact) in known.news().await {
            if let Err(error) = asked.tell(fact).await {
                // When it is back it is told everything.
                return error;
            }
            last = number;
        }
        known.knows(last);
    }
}

/// Looks from time to time whether the provider's certificate would still be believed.
async fn judge(credentials: &Reload, chain: &[CertificateDer<'static>], timings: &Timings) -> Error {
    loop {
        tokio::time::sleep(timings.judge).await;
        if let Err(error) = credentials.now().judge_chain_again(chain, Role::Provider) {
            return error;
        }
    }
}
