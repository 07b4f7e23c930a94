//! Refusals that would flood the log, and the counters that make up for what is left out.
//!
//! Before a peer is known, refusals are counted per code and source and become one `reject.burst` entry per window
//! ([`Bursts`]). Once it is known, they are recorded one by one up to a rate, and the next entry says how many were
//! left out ([`Limiter`]). In both, what was seen equals what was recorded plus what was counted: nothing is lost
//! when a table is full, only told apart less well.
//!
//! Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caps::error::Code;
use caps::time::{BootNanos, Micros, UnixMicros};

use crate::draft::Draft;
use crate::event::Event;

/// How long refusals are gathered before their entry is written, in milliseconds.
pub const BURST_WINDOW_MS: u64 = 10_000;
/// Most sources told apart in [`Bursts`]. One row has about 100 bytes; an attacker of more networks than this is
/// one row per code.
pub const BURST_ROWS_MAX: usize = 1_024;
/// Refusals per second and identity that are recorded one by one, in the long run.
pub const LIMIT_PER_SECOND: u64 = 10;
/// Refusals of one identity that are recorded at once after a quiet time.
pub const LIMIT_BURST: u64 = 20;
/// Most identities told apart in a [`Limiter`].
pub const LIMIT_ROWS_MAX: usize = 4_096;
/// Nanoseconds in which one refusal is earned.
const INTERVAL_NS: u64 = 1_000_000_000 / LIMIT_PER_SECOND;

const _: () =
    assert!(LIMIT_BURST >= 1 && LIMIT_PER_SECOND >= 1, "a limiter that records nothing hides attacks");

/// Where refusals come from, as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Local peers of this user id.
    Uid(u32),
    /// An IPv4 network of 24 bits.
    Net4([u8; 3]),
    /// An IPv6 network of 56 bits, what one customer of a provider has.
    Net6([u8; 7]),
    /// Sources that found no room in the table.
    Other,
}

impl Source {
    /// The network of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::Net4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, ..] = v6.octets();
                Self::Net6([a, b, c, d, e, f, g])
            }
        }
    }

    /// Says so, in an entry.
    pub fn put(self, draft: Draft) -> Draft {
        match self {
            Self::Uid(uid) => draft.peer_uid(uid),
            Self::Net4(net) => draft.peer_net4(net),
            Self::Net6(net) => draft.peer_net6(net),
            Self::Other => draft.cause("many sources"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    ends: BootNanos,
    count: u64,
    first: UnixMicros,
    last: UnixMicros,
}

/// Counts refusals per code and source. A window begins with its first refusal.
#[derive(Debug, Default)]
pub struct Bursts {
    rows: BTreeMap<(Code, Source), Burst>,
}

impl Bursts {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a refusal.
    pub fn note(&mut self, now: BootNanos, wall: UnixMicros, code: Code, source: Source) {
        let known = self.rows.contains_key(&(code, source));
        let source = if known || self.rows.len() < BURST_ROWS_MAX { source } else { Source::Other };
        let ends = now.plus(Micros::from_millis(BURST_WINDOW_MS));
        let row =
            self.rows.entry((code, source)).or_insert(Burst { ends, count: 0, first: wall, last: wall });
        row.count += 1;
        row.last = wall;
    }

    /// When the next window ends.
    #[must_use]
    pub fn next_due(&self) -> Option<BootNanos> {
        self.rows.values().map(|row| row.ends).min()
    }

    /// The entries of all windows that have ended.
    pub fn due(&mut self, now: BootNanos) -> Vec<Draft> {
        self.take(|row| row.ends <= now)
    }

    /// The entries of all windows, ended or not: for the end of the process.
    pub fn flush(&mut self) -> Vec<Draft> {
        self.take(|_| true)
    }

    fn take(&mut self, mut ended: impl FnMut(&Burst) -> bool) -> Vec<Draft> {
        self.rows
            .extract_if(.., |_, row| ended(row))
            .map(|((code, source), row)| {
                let draft = Draft::deny(Event::RejectBurst, code).count(row.count);
                source.put(draft).first_time(row.first).last_time(row.last)
            })
            .collect()
    }
}

/// What to do with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Record it, and say how many of this identity were left out before it (`Draft::suppressed`, if not 0).
    Record {
        /// How many.
        suppressed: u64,
    },
    /// Leave it out. It was counted.
    Suppress,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// When the identity has earned all it can, in nanoseconds.
    earned: u64,
    suppressed: u64,
}

impl Row {
    fn admit(&mut self, now: u64) -> Admission {
        if self.earned <= now.saturating_add((LIMIT_BURST - 1) * INTERVAL_NS) {
            self.earned = self.earned.max(now).saturating_add(INTERVAL_NS);
            Admission::Record { suppressed: std::mem::take(&mut self.suppressed) }
        } else {
            self.suppressed += 1;
            Admission::Suppress
        }
    }
}

/// A rate limit per identity, with exact counts of what it left out.
#[derive(Debug)]
pub struct Limiter<K> {
    rows: BTreeMap<K, Row>,
    /// Identities that found no room share this one.
    other: Row,
    /// Before this time no row has become idle since the last look.
    scan_at: u64,
}

impl<K: Ord + Copy> Default for Limiter<K> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), other: Row::default(), scan_at: 0 }
    }
}

impl<K: Ord + Copy> Limiter<K> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges one refusal of `identity`.
    pub fn admit(&mut self, now: BootNanos, identity: K) -> Admission {
        let now = now.0;
        if self.rows.len() >= LIMIT_ROWS_MAX && !self.rows.contains_key(&identity) && self.scan_at <= now {
            // An idle row that owes no count says the same as no row. Looked for once per interval at most.
            self.rows.retain(|_, row| row.suppressed > 0 || row.earned > now);
            self.scan_at = now.saturating_add(INTERVAL_NS);
        }
        if self.rows.len() >= LIMIT_ROWS_MAX && !self.rows.contains_key(&identity) {
            return self.other.admit(now);
        }
        self.rows.entry(identity).or_default().admit(now)
    }

    /// Counts that no later entry told, of identities that have been quiet: each needs an entry of its own, with
    /// this `suppressed`. `None` stands for those that found no room. Call it now and then, and at the end with
    /// [`BootNanos`]`(u64::MAX)`.
    pub fn overdue(&mut self, now: BootNanos) -> Vec<(Option<K>, u64)> {
        let rows = self.rows.iter_mut().map(|(key, row)| (Some(*key), row)).chain([(None, &mut self.other)]);
        rows.filter(|(_, row)| row.suppressed > 0 && row.earned <= now.0)
            .map(|(key, row)| (key, std::mem::take(&mut row.suppressed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draft::Key;

    fn counted(drafts: &[Draft]) -> u64 {
        let count = |draft: &Draft| draft.get(Key::Count).unwrap().trim_matches('"').parse::<u64>().unwrap();
        drafts.iter().map(count).sum()
    }

    #[test]
    fn networks() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.77"), Source::Net4([192, 0, 2]));
        assert_eq!(of("::ffff:192.0.2.77"), Source::Net4([192, 0, 2]), "one peer, one source");
        let draft = of("2001:db8:1:2ff:9::1").put(Draft::ok(Event::RejectBurst));
        assert_eq!(draft.get(Key::PeerNet), Some("\"2001:db8:1:200::/56\""));
    }

    #[test]
    fn a_window_ends_ten_seconds_after_its_first_refusal() {
        let mut bursts = Bursts::new();
        let second = 1_000_000_000;
        bursts.note(BootNanos(5 * second), UnixMicros(1), Code::TokenSignature, Source::Uid(7));
        bursts.note(BootNanos(14 * second), UnixMicros(9), Code::TokenSignature, Source::Uid(7));
        assert_eq!(bursts.next_due(), Some(BootNanos(15 * second)));
        assert!(bursts.due(BootNanos(15 * second - 1)).is_empty());
        let drafts = bursts.due(BootNanos(15 * second));
        assert_eq!(counted(&drafts), 2);
        assert_eq!(drafts[0].get(Key::PeerUid), Some("7"));
        assert_eq!(drafts[0].code(), Some(Code::TokenSignature));
        assert_eq!(bursts.next_due(), None);
    }

    #[test]
    fn a_full_table_counts_on() {
        let mut bursts = Bursts::new();
        for uid in 0..5_000 {
            bursts.note(BootNanos(0), UnixMicros(0), Code::PeerUid, Source::Uid(uid));
        }
        assert!(bursts.rows.len() <= BURST_ROWS_MAX + Code::ALL.len());
        assert_eq!(counted(&bursts.flush()), 5_000);
    }

    #[test]
    fn a_limiter_admits_a_burst_then_the_rate() {
        let mut limiter = Limiter::new();
        let admitted = |limiter: &mut Limiter<u8>, now| {
            (0..100).filter(|_| matches!(limiter.admit(BootNanos(now), 1), Admission::Record { .. })).count()
                as u64
        };
        assert_eq!(admitted(&mut limiter, 0), LIMIT_BURST);
        assert_eq!(limiter.admit(BootNanos(INTERVAL_NS), 1), Admission::Record { suppressed: 80 });
        assert_eq!(
            limiter.admit(BootNanos(INTERVAL_NS), 2),
            Admission::Record { suppressed: 0 },
            "others are free"
        );
        for other in 0..=255 {
            let _ = limiter.admit(BootNanos(INTERVAL_NS), other);
        }
        assert_eq!(admitted(&mut limiter, 3_600_000_000_000), LIMIT_BURST, "an hour does not add up");
    }

    #[test]
    fn a_full_limiter_counts_on() {
        let mut limiter = Limiter::new();
        let (mut recorded, mut told) = (0, 0);
        for who in 0..3 * LIMIT_ROWS_MAX {
            if let Admission::Record { suppressed } = limiter.admit(BootNanos(who as u64), who) {
                recorded += 1;
                told += suppressed;
            }
        }
        assert_eq!(limiter.rows.len(), LIMIT_ROWS_MAX);
        assert_eq!(recorded as u64, LIMIT_ROWS_MAX as u64 + LIMIT_BURST, "the crowd shares one allowance");
        told += limiter.overdue(BootNanos(u64::MAX)).iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(recorded as u64 + told, 3 * LIMIT_ROWS_MAX as u64);
        // Idle rows make room.
        let later = BootNanos(60_000_000_000);
        assert_eq!(limiter.admit(later, usize::MAX), Admission::Record { suppressed: 0 });
        assert_eq!(limiter.rows.len(), 1);
    }

    proptest! {
        #[test]
        fn counters_add_up(
            events in prop::collection::vec((0u64..200_000_000, 0u32..2_000, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let (mut limiter, mut bursts) = (Limiter::new(), Bursts::new());
            let (mut now, mut recorded, mut told, mut burst) = (0, 0, 0, 0);
            for (step, who, crowd, look) in &events {
                now += step;
                let who = if *crowd { *who } else { who % 3 };
                bursts.note(BootNanos(now), UnixMicros(now), Code::Denied, Source::Uid(who));
                if let Admission::Record { suppressed } = limiter.admit(BootNanos(now), who) {
                    recorded += 1;
                    told += suppressed;
                }
                if *look {
                    told += limiter.overdue(BootNanos(now)).iter().map(|(_, n)| n).sum::<u64>();
                    burst += counted(&bursts.due(BootNanos(now)));
                }
            }
            told += limiter.overdue(BootNanos(u64::MAX)).iter().map(|(_, n)| n).sum::<u64>();
            prop_assert_eq!(recorded + told, events.len() as u64);
            prop_assert_eq!(burst + counted(&bursts.flush()), events.len() as u64);
            prop_assert!(limiter.rows.len() <= LIMIT_ROWS_MAX);
        }
    }
}
