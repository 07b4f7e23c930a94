//! The pages that are present in this process because of words that clients changed.
//!
//! A page that is present counts as this process' own, though it is the region's, and a client may touch every page of
//! every region that it may write to. The kernel, when memory runs out, ends the process that has most. So only the last
//! few of these pages are present, of all regions together, and the one that was used the longest time ago makes room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use policy::limits::WORD_PAGES_MAX;
use rustix::param::page_size;

/// Where a page is present, and can be given up.
pub(super) trait Place {
    /// Gives up the page in which the byte at `offset` lies. Asked from several threads at a time.
    fn give_up(&self, offset: usize);
}

/// The pages, the one that was used last at the end.
#[derive(Debug)]
pub(super) struct Present<T>(Mutex<VecDeque<(Weak<T>, usize)>>);

impl<T: Place> Present<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// The page in which the byte at `offset` lies was made present there.
    pub(super) fn used(&self, place: &Arc<T>, offset: usize) {
        let page = offset - offset % page_size();
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(of, at): &(Weak<T>, usize)| *at == page && of.as_ptr() == Arc::as_ptr(place);
        // Mostly it is the last one.
        match pages.iter().rposition(is_it) {
            Some(at) if at + 1 == pages.len() => return,
            Some(at) => drop(pages.remove(at)),
            None => {}
        }
        pages.push_back((Arc::downgrade(place), page));
        let oldest = if pages.len() > WORD_PAGES_MAX { pages.pop_front() } else { None };
        // Whoever has a turn of that region is waited for by this thread alone.
        drop(pages);
        if let Some((of, page)) = oldest
            && let Some(of) = of.upgrade()
        {
            of.give_up(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Noted(Mutex<Vec<usize>>);

    impl Place for Noted {
        fn give_up(&self, offset: usize) {
            self.0.lock().unwrap().push(offset / page_size());
        }
    }

    #[test]
    fn the_page_that_was_used_the_longest_time_ago_makes_room() {
        let (present, one, other) = (Present::new(), Arc::new(Noted::default()), Arc::new(Noted::default()));
        let page = page_size();
        for at in 0..WORD_PAGES_MAX {
            present.used(&one, at * page + 8);
        }
        assert!(one.0.lock().unwrap().is_empty());
        present.used(&one, 16);
        present.used(&other, 0);
        assert_eq!(*one.0.lock().unwrap(), [1], "the first was used again");
        drop(other);
        present.used(&one, page);
        assert_eq!(*one.0.lock().unwrap(), [1, 2]);
    }
}
