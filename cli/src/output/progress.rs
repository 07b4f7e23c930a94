//! A line that says how far a transfer is: on a terminal, and only for what takes over a second.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::human;

/// Before this nobody has begun to wonder.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Between two changes of the line: fast enough to look alive, slow enough to cost nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR_CHARACTERS: u64 = 24;

/// A transfer under way.
pub(crate) struct Progress {
    total: Option<u64>,
    started: Instant,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Starts counting. `total` in bytes, if it is known.
    pub(crate) fn start(total: Option<u64>) -> Self {
        let started = Instant::now();
        let next = std::io::stderr().is_terminal().then(|| started + FIRST_AFTER);
        Self { total, started, next, shown: false }
    }

    /// So many bytes are done.
    pub(crate) fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + AGAIN_AFTER);
        self.shown = true;
        let line = line(done, self.total, now - self.started);
        // A progress line that cannot be shown is no reason to stop.
        let _ = write!(std::io::stderr().lock(), "\r{line}\u{1b}[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}

fn line(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = (done as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    let rate = human::bytes(rate);
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("{}  {rate}/s", human::bytes(done));
    };
    let share = |of: u64| (u128::from(done.min(total)) * u128::from(of) / u128::from(total)) as usize;
    let full = share(BAR_CHARACTERS);
    let bar = "#".repeat(full) + &"-".repeat(BAR_CHARACTERS as usize - full);
    format!("[{bar}] {:>3} %  {} of {}  {rate}/s", share(100), human::bytes(done), human::bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_never_overflows() {
        let second = Duration::from_secs(1);
        assert!(line(0, Some(100), second).starts_with("[------------------------]   0 %"));
        assert!(line(50, Some(100), second).starts_with("[############------------]  50 %"));
        assert!(line(u64::MAX, Some(100), second).starts_with("[########################] 100 %"));
        assert!(line(1024, None, second).starts_with("1KiB  1KiB/s"));
        line(1, Some(0), Duration::ZERO);
    }
}
