//! What happened at a provider, until the broker has noted it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caps::wire::link::Notice;
use tokio::sync::Notify;

/// Notices in the order in which they came, each with its place in the provider's life.
pub(super) struct Notices {
    /// Held for one change.
    queue: Mutex<Queue>,
    more: Notify,
    most: usize,
}

#[derive(Default)]
struct Queue {
    /// The place of the first that is kept.
    first: u64,
    kept: VecDeque<Notice>,
}

impl Notices {
    pub(super) fn new(most: usize) -> Self {
        Self { queue: Mutex::default(), more: Notify::new(), most }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more. If there is no room, the oldest is lost: its place stays, so that the broker sees the gap.
    pub(super) fn push(&self, notice: Notice) {
        let mut queue = self.queue();
        if queue.kept.len() == self.most {
            queue.kept.pop_front();
            queue.first += 1;
        }
        queue.kept.push_back(notice);
        drop(queue);
        self.more.notify_one();
    }

    /// Those before `next` are noted.
    pub(super) fn noted(&self, next: u64) {
        let mut queue = self.queue();
        // What a broker says of notices that there were not yet counts for none.
        let noted = next.saturating_sub(queue.first).min(queue.kept.len() as u64);
        queue.kept.drain(..noted as usize); // at most the length
        queue.first += noted;
    }

    /// The oldest ones, at most `most`, with the place of the first, once there are any.
    pub(super) async fn oldest(&self, most: usize) -> (u64, Vec<Notice>) {
        loop {
            let more = self.more.notified();
            {
                let queue = self.queue();
                if !queue.kept.is_empty() {
                    return (queue.first, queue.kept.iter().take(most).copied().collect());
                }
            }
            more.await;
        }
    }

    /// How many are not noted.
    pub(super) fn len(&self) -> usize {
        self.queue().kept.len()
    }
}

#[cfg(test)]
mod tests {
    use caps::id::GrantId;

    use super::*;

    fn notice(n: u8) -> Notice {
        Notice::GrantOpened { grant: GrantId([n; 16]) }
    }

    #[tokio::test]
    async fn notices_are_kept_until_they_are_noted_and_the_oldest_make_room() {
        let notices = Notices::new(3);
        for n in 0..5 {
            notices.push(notice(n));
        }
        assert_eq!(
            notices.oldest(2).await,
            (2, vec![notice(2), notice(3)]),
            "two are lost, and leave their places"
        );
        assert_eq!(notices.oldest(9).await.1.len(), 3, "told again until they are noted");
        notices.noted(3);
        assert_eq!(notices.oldest(9).await, (3, vec![notice(3), notice(4)]));
        notices.noted(1);
        assert_eq!(notices.len(), 2, "an old word changes nothing");
        notices.noted(u64::MAX);
        assert_eq!(notices.len(), 0);
        notices.push(notice(9));
        assert_eq!(notices.oldest(1).await, (5, vec![notice(9)]), "what was not there was not noted");
    }
}
