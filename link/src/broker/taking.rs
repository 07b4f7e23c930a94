//! What is being taken back over one link. It is asked once: whoever asks for the same while it is under way waits for the
//! same answer, so that a provider that is slow is not asked until its lane is full of one question.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caps::error::{Code, Error, Result};
use caps::wire::link::{Take, Taken};
use caps::wire::row::EndCause;
use tokio::sync::watch;

type Answer = watch::Receiver<Option<Result<Taken>>>;

/// The questions under way, in no order. Of each there is one.
#[derive(Clone, Default)]
pub(super) struct Taking(Arc<Mutex<Vec<(Take, EndCause, Answer)>>>);

impl Taking {
    fn table(&self) -> MutexGuard<'_, Vec<(Take, EndCause, Answer)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question that is under way, or else to `ask`, which goes on whether or not anybody waits for it. It
    /// has to end when its link does.
    pub(super) async fn share<F>(&self, take: Take, cause: EndCause, ask: impl FnOnce() -> F) -> Result<Taken>
    where
        F: Future<Output = Result<Taken>> + Send + 'static,
    {
        let mut answer = {
            let mut table = self.table();
            let found = table.iter().find(|(of, why, _)| (*of, *why) == (take, cause));
            if let Some((.., answer)) = found {
                answer.clone()
            } else {
                let (tell, answer) = watch::channel(None);
                table.push((take, cause, answer.clone()));
                let under_way = Under { taking: self.clone(), take, cause };
                let asking = ask();
                tokio::spawn(async move {
                    let told = asking.await;
                    // Before it is told: who asks after that asks anew.
                    drop(under_way);
                    tell.send_replace(Some(told));
                });
                answer
            }
        };
        let told = answer.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        told.unwrap_or(Err(Error::new(Code::Internal, "a question was dropped without an answer")))
    }
}

/// A question under way, until this is dropped.
struct Under {
    taking: Taking,
    take: Take,
    cause: EndCause,
}

impl Drop for Under {
    fn drop(&mut self) {
        self.taking.table().retain(|(of, why, _)| (*of, *why) != (self.take, self.cause));
    }
}

#[cfg(test)]
mod tests {
    use caps::id::LeaseId;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_same_is_asked_once_and_anew_when_it_was_answered() {
        let taking = Taking::default();
        let take = |n| Take::Lease(LeaseId([n; 16]));
        for round in 0..2 {
            let (answer, answered) = oneshot::channel::<()>();
            let first = taking.share(take(1), EndCause::Revoked, || async {
                answered.await.unwrap();
                Err(Code::Busy.into())
            });
            let first = tokio::time::timeout(std::time::Duration::ZERO, first).await;
            assert!(first.is_err(), "nobody has answered");
            let again = taking.share(take(1), EndCause::Revoked, || async { panic!("it is under way") });
            let other = taking.share(take(2), EndCause::Revoked, || async { Err(Code::Timeout.into()) });
            assert_eq!(other.await.unwrap_err().code(), Code::Timeout);
            answer.send(()).unwrap();
            assert_eq!(again.await.unwrap_err().code(), Code::Busy, "round {round}");
            assert!(taking.table().is_empty());
        }
    }
}
