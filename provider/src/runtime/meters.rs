//! How many bytes were moved under each block that limits it.
//!
//! ```text
//!  Memory ── Meters: by mark ──▶ Arc<MeterCell> ◀── Box<[Metered]> ── Right, of any session, below that block
//! ```
//! There is one cell for each block of a region, made when a right below the block is first opened and kept as long as
//! the region: closing, opening again, another session or one more block on top find the same cell. Each access is
//! judged on all cells of its right and taken from all of them, or from none. A right without limits has none: it
//! takes no lock and no memory here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use caps::error::{Code, Error, Result};
use caps::limits::CHUNK_BYTES_MAX;
use caps::time::{BootNanos, UnixMicros};
use caps::token::{Mark, Meter};
use policy::limits::METERS_PER_REGION_MAX;

use super::lock;

const NANOS: u128 = 1_000_000_000;

/// The cells of one region.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<Cells>, Mutex<Option<Cells>>);

type Cells = BTreeMap<Mark, (Arc<MeterCell>, UnixMicros)>;

/// What one block still allows.
#[derive(Debug)]
pub(super) struct MeterCell(Mutex<Left>);

#[derive(Debug)]
struct Left {
    /// Bytes in all.
    budget: Option<u64>,
    rate: Option<Bucket>,
}

/// A token bucket on the clock since boot. It holds one second's worth, or one chunk where that is more: what is
/// moved in any span of `t` seconds is at most `t` times the rate and that.
#[derive(Clone, Debug)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// Bytes, in billionths: with 64 bits of rate and of nanoseconds nothing wraps and nothing is rounded.
    level: u128,
    /// When the level was true.
    at: BootNanos,
}

impl Bucket {
    fn new(rate: u64, now: BootNanos) -> Self {
        Self { rate, level: Self::depth(rate), at: now }
    }

    /// A block that allows no byte a second allows none at once.
    fn depth(rate: u64) -> u128 {
        if rate == 0 { 0 } else { u128::from(rate.max(CHUNK_BYTES_MAX as u64)) * NANOS }
    }

    fn refill(&mut self, now: BootNanos) {
        // Two threads may have read the clock in another order than they come here.
        let elapsed = u128::from(now.0.saturating_sub(self.at.0));
        self.at = self.at.max(now);
        self.give(elapsed * u128::from(self.rate));
    }

    fn give(&mut self, level: u128) {
        self.level = self.level.saturating_add(level).min(Self::depth(self.rate));
    }
}

impl Left {
    fn judge(&mut self, bytes: u64, now: BootNanos) -> Result<()> {
        if let Some(left) = self.budget.filter(|&left| left < bytes) {
            let detail = format!("budget: of the bytes that the token allows {left} are left, not {bytes}");
            return Err(Error::with(Code::Denied, detail));
        }
        let Some(bucket) = &mut self.rate else { return Ok(()) };
        bucket.refill(now);
        let Some(missing) = (u128::from(bytes) * NANOS).checked_sub(bucket.level).filter(|&less| less > 0)
        else {
            return Ok(());
        };
        if u128::from(bytes) * NANOS > Bucket::depth(bucket.rate) {
            return Err(Error::new(Code::Denied, "rate: the token allows no bytes"));
        }
        // The depth has a chunk's room, so the bytes will be there.
        let wait = missing.div_ceil(u128::from(bucket.rate)).div_ceil(1_000_000);
        let rate = bucket.rate;
        let detail = format!("rate: the token allows {rate} bytes a second; try again in {wait} ms");
        Err(Error::with(Code::Busy, detail))
    }

    fn take(&mut self, bytes: u64) {
        if let Some(left) = &mut self.budget {
            *left -= bytes; // judged
        }
        if let Some(bucket) = &mut self.rate {
            bucket.level -= u128::from(bytes) * NANOS;
        }
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(left) = &mut self.budget {
            *left += bytes; // no more than was taken
        }
        if let Some(bucket) = &mut self.rate {
            bucket.give(u128::from(bytes) * NANOS);
        }
    }
}

/// One of a right's cells.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    cell: Arc<MeterCell>,
    /// Its block's place among those of the token that limit use: the refusal of an ancestor is the one that is told.
    depth: usize,
}

impl Meters {
    /// The region goes over to another owner, whose tokens have the whole table. What was there is put aside until that
    /// is undone, or the next one comes.
    pub(super) fn put_aside(&self) {
        let former = std::mem::take(&mut *lock(&self.0));
        *lock(&self.1) = Some(former);
    }

    /// The change is undone: what the former owner's tokens have used up stays used up.
    pub(super) fn bring_back(&self) {
        if let Some(former) = lock(&self.1).take() {
            *lock(&self.0) = former;
        }
    }

    /// The cells of a token's meters, in the order in which they are locked: that of their marks, which is the same for
    /// every right. `until` is the end of the token as it was minted, and `unix` the time now: what is over makes
    /// room, as in the kernel's table, which holds these blocks too and refuses first.
    ///
    /// # Errors
    /// `E_BUSY` if there is no room for a new one.
    pub(super) fn cells(
        &self,
        meters: &[Meter],
        until: UnixMicros,
        unix: UnixMicros,
        now: BootNanos,
    ) -> Result<Box<[Metered]>> {
        let mut wanted: Vec<_> = meters.iter().enumerate().filter(|(_, meter)| counts_bytes(meter)).collect();
        if wanted.is_empty() {
            return Ok(Box::default());
        }
        wanted.sort_unstable_by_key(|(_, meter)| meter.key);
        wanted.dedup_by_key(|(_, meter)| meter.key); // no lock is taken twice
        let mut table = lock(&self.0);
        let new = wanted.iter().filter(|(_, meter)| !table.contains_key(&meter.key)).count();
        if table.len() + new > METERS_PER_REGION_MAX {
            table.retain(|_, (_, until)| *until > unix);
            if table.len() + new > METERS_PER_REGION_MAX {
                return Err(Error::new(Code::Busy, "the region has its most blocks with limits on use"));
            }
        }
        let found = wanted.into_iter().map(|(depth, meter)| {
            let cell = match table.entry(meter.key) {
                Entry::Occupied(mut known) => {
                    let (cell, known_until) = known.get_mut();
                    *known_until = until.max(*known_until);
                    cell.clone()
                }
                Entry::Vacant(place) => place.insert((Arc::new(MeterCell::new(meter, now)), until)).0.clone(),
            };
            Metered { cell, depth }
        });
        Ok(found.collect())
    }
}

fn counts_bytes(meter: &Meter) -> bool {
    meter.bytes_total.is_some() || meter.bytes_per_second.is_some()
}

impl MeterCell {
    fn new(meter: &Meter, now: BootNanos) -> Self {
        let rate = meter.bytes_per_second.map(|rate| Bucket::new(rate, now));
        Self(Mutex::new(Left { budget: meter.bytes_total, rate }))
    }
}

/// Bytes that were taken for an access under way. Given back when dropped, unless they were [kept](Self::kept).
#[must_use]
pub(super) struct Charge<'r> {
    from: &'r [Metered],
    bytes: u64,
}

impl<'r> Charge<'r> {
    /// Takes `bytes` from all of a right's cells, or from none of them. No bytes are always to be had.
    ///
    /// # Errors
    /// The first of the ancestors' refusals: `E_DENIED` with `budget: ` first if fewer bytes are left than asked for, as
    /// no waiting helps; `E_BUSY` with `rate: ` first and how long to wait if they come too fast.
    pub(super) fn take(from: &'r [Metered], bytes: u64, clock: impl FnOnce() -> BootNanos) -> Result<Self> {
        if from.is_empty() || bytes == 0 {
            return Ok(Self { from: &[], bytes: 0 });
        }
        let now = clock();
        // All of them at once, so that of two accesses that do not both fit the first is never refused for the second.
        let mut cells: Vec<MutexGuard<'_, Left>> = from.iter().map(|one| lock(&one.cell.0)).collect();
        let judged = cells.iter_mut().zip(from).filter_map(|(cell, one)| {
            let refusal = cell.judge(bytes, now).err()?;
            Some((one.depth, refusal))
        });
        if let Some((_, refusal)) = judged.min_by_key(|(depth, _)| *depth) {
            return Err(refusal);
        }
        for cell in &mut cells {
            cell.take(bytes);
        }
        Ok(Self { from, bytes })
    }

    /// The bytes were moved.
    pub(super) fn kept(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            give_back(self.from, self.bytes);
        }
    }
}

/// Gives back what a charge that was [kept](Charge::kept) took: the bytes were not moved after all.
pub(super) fn give_back(to: &[Metered], bytes: u64) {
    for one in to {
        lock(&one.cell.0).give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = CHUNK_BYTES_MAX as u64;
    const START: BootNanos = BootNanos(5);

    fn meter(n: u8, rate: Option<u64>, total: Option<u64>) -> Meter {
        Meter { key: Mark::from_bytes([n; 32]), opens: None, bytes_per_second: rate, bytes_total: total }
    }

    fn cells(meters: &Meters, of: &[Meter]) -> Box<[Metered]> {
        meters.cells(of, UnixMicros(100), UnixMicros(0), START).unwrap()
    }

    fn take(from: &[Metered], bytes: u64, now: BootNanos) -> std::result::Result<(), (Code, String)> {
        match Charge::take(from, bytes, || now) {
            Ok(charge) => {
                charge.kept();
                Ok(())
            }
            Err(error) => Err((error.code(), error.detail().to_owned())),
        }
    }

    fn budget_left(from: &[Metered], most: u64) -> u64 {
        // The most that one charge can have; given back at once.
        (0..=most).rev().find(|&bytes| Charge::take(from, bytes, || START).is_ok()).unwrap()
    }

    #[test]
    fn a_budget_is_shared_to_the_byte_and_taken_from_all_or_none() {
        let meters = Meters::default();
        let (above, below, beside) =
            (meter(9, None, Some(100)), meter(1, None, Some(30)), meter(2, None, None));
        let parent = cells(&meters, &[above]);
        let child = cells(&meters, &[above, below]);
        assert_eq!(cells(&meters, &[above, beside]).len(), 1, "what limits no bytes has no cell");
        take(&child, 30, START).unwrap();
        let (code, detail) = take(&child, 1, START).unwrap_err();
        assert!(code == Code::Denied && detail.starts_with("budget: "), "{detail}");
        assert_eq!(budget_left(&parent, 100), 70, "the refusal was taken from nobody");
        take(&parent, 70, START).unwrap();
        assert_eq!(take(&parent, 1, START).unwrap_err().0, Code::Denied);
        assert_eq!(
            take(&cells(&meters, &[above, below]), 1, START).unwrap_err().0,
            Code::Denied,
            "opened again"
        );
        assert_eq!(take(&parent, 0, START), Ok(()));
    }

    #[test]
    fn what_was_not_moved_is_given_back() {
        let meters = Meters::default();
        let own = cells(&meters, &[meter(1, Some(10), Some(CHUNK)), meter(2, None, Some(2 * CHUNK))]);
        for _ in 0..5 {
            drop(Charge::take(&own, CHUNK, || START).unwrap());
        }
        take(&own, CHUNK, START).unwrap();
        assert!(take(&own, 1, BootNanos(u64::MAX)).unwrap_err().1.starts_with("budget: "));
    }

    #[test]
    fn the_refusal_of_an_ancestor_is_told_whatever_the_order_of_marks() {
        let meters = Meters::default();
        let above = meter(9, None, Some(7));
        let below = meter(1, None, Some(3));
        let detail = take(&cells(&meters, &[above, below]), 8, START).unwrap_err().1;
        assert!(detail.contains(" 7 are left"), "{detail}");
        let detail = take(&cells(&meters, &[above, below]), 5, START).unwrap_err().1;
        assert!(detail.contains(" 3 are left"), "{detail}");
    }

    #[test]
    fn a_rate_says_how_long_to_wait_and_means_it() {
        let meters = Meters::default();
        let own = cells(&meters, &[meter(1, Some(1_000), None)]);
        take(&own, CHUNK, START).unwrap();
        let (code, detail) = take(&own, 500, START).unwrap_err();
        assert!(code == Code::Busy && detail.starts_with("rate: ") && detail.ends_with("500 ms"), "{detail}");
        let almost = BootNanos(START.0 + 499_999_999);
        assert_eq!(take(&own, 500, almost).unwrap_err().0, Code::Busy);
        take(&own, 500, BootNanos(START.0 + 500_000_000)).unwrap();
        assert_eq!(
            take(&own, 1, almost).unwrap_err().0,
            Code::Busy,
            "a clock that was read earlier gives nothing"
        );
        let nothing = cells(&meters, &[meter(2, Some(0), None)]);
        assert_eq!(take(&nothing, 1, BootNanos(u64::MAX)).unwrap_err().0, Code::Denied, "no wait helps");
    }

    #[test]
    fn the_table_is_bounded_and_what_is_over_makes_room() {
        let meters = Meters::default();
        let many = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            Meter { key: Mark::from_bytes(key), ..meter(0, None, Some(1)) }
        };
        let open = |n, until, now| meters.cells(&[many(n)], UnixMicros(until), UnixMicros(now), START);
        for n in 0..METERS_PER_REGION_MAX {
            let until = if n == 0 { 10 } else { 20 };
            take(&open(n, until, 0).unwrap(), 1, START).unwrap();
        }
        assert_eq!(open(METERS_PER_REGION_MAX, 30, 9).unwrap_err().code(), Code::Busy);
        assert!(open(1, 20, 9).is_ok(), "one that is known");
        assert!(open(METERS_PER_REGION_MAX, 30, 10).is_ok(), "the first is over");
        assert_eq!(take(&open(1, 20, 10).unwrap(), 1, START).unwrap_err().0, Code::Denied, "and no other");
    }

    #[test]
    fn another_owner_has_the_whole_table_and_gives_it_back() {
        let meters = Meters::default();
        let one = meter(1, None, Some(1));
        take(&cells(&meters, &[one]), 1, START).unwrap();
        meters.put_aside();
        assert!(lock(&meters.0).is_empty());
        take(&cells(&meters, &[meter(2, None, Some(1))]), 1, START).unwrap();
        meters.bring_back();
        assert_eq!(take(&cells(&meters, &[one]), 1, START).unwrap_err().0, Code::Denied, "used up before");
        assert_eq!(lock(&meters.0).len(), 1, "and nothing of the other's is left");
    }

    #[test]
    fn an_ordinary_right_takes_no_lock() {
        let meters = Meters::default();
        let table = meters.0.lock().unwrap(); // a second lock of this thread would never return
        let ordinary = cells(&meters, &[]);
        assert!(ordinary.is_empty());
        let clock = || unreachable!("nor a look at the clock");
        assert!(Charge::take(&ordinary, u64::MAX, clock).is_ok());
        drop(table);
    }

    proptest! {
        /// Whoever asks whatever whenever: in no span is more moved than the rate times its length and the depth.
        #[test]
        fn a_rate_holds_over_every_span(
            rate in prop_oneof![1..200_000u64, Just(u64::MAX >> 1)],
            asked in prop::collection::vec((0..=CHUNK, 0..400_000_000u64, any::<bool>()), 1..60),
        ) {
            let meters = Meters::default();
            let own = cells(&meters, &[meter(1, Some(rate), None)]);
            let (mut now, mut moved) = (START, Vec::new());
            for (bytes, later, keep) in asked {
                now = BootNanos(now.0 + later);
                if let Ok(charge) = Charge::take(&own, bytes, || now) && keep {
                    charge.kept();
                    moved.push((now, bytes));
                }
            }
            for (at, &(first, _)) in moved.iter().enumerate() {
                let mut sum = 0_u128;
                for &(last, bytes) in &moved[at..] {
                    sum += u128::from(bytes);
                    let span = u128::from(last.0 - first.0);
                    let most = span * u128::from(rate) / NANOS + u128::from(rate.max(CHUNK));
                    prop_assert!(sum <= most, "{sum} bytes in {span} ns at {rate}");
                }
            }
        }
    }
}
