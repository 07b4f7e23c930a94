//! What holds after every step. Checked by tests and fuzzers after each event; there is no switch that turns it off.

use super::region::RegionState;
use super::{Due, Kernel};

impl Kernel {
    /// Every invariant, in words and code.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let mut bytes = 0;
        for (key, row) in self.regions.iter() {
            bytes += row.bytes;
            ensure(self.by_lease.get(&row.lease) == Some(&key), "every region is found by its lease")?;
            let live = row.state == RegionState::Live;
            ensure(
                self.deadlines.contains(&(row.deadline, Due::Region(key))) == live,
                "exactly the live regions have a deadline",
            )?;
            ensure(live || row.opens.is_empty(), "nobody holds a right to a region that is not live")?;
            let mut handed_out = 0;
            for &open in &row.opens {
                let open = self.opens.get(open).ok_or("a region lists only open rights")?;
                ensure(open.region == key, "an open right belongs to one region")?;
                ensure(open.range.end() <= row.bytes, "no right reaches past its region")?;
                ensure(open.deadline <= row.deadline, "no right outlives its region")?;
                handed_out += u32::from(open.handed_out);
            }
            ensure(handed_out == row.mappings, "the count of mappings is the count of rights handed out")?;
            ensure(row.mapped || row.mappings == 0, "a region with mappings is known to be mapped")?;
            if let Some(session) = row.tied_to {
                let listed = self.tied.get(&session).is_some_and(|tied| tied.contains(&key));
                ensure(listed || !live, "a live region tied to a session is listed there")?;
            }
        }
        ensure(bytes == self.committed_bytes, "the ledger is the sum of the regions")?;
        ensure(bytes <= self.config.pool_bytes, "no more is committed than the pool has")?;
        ensure(self.by_lease.len() == self.regions.len(), "every lease has one region")?;
        for (key, row) in self.opens.iter() {
            let region = self.regions.get(row.region).ok_or("an open right has a region")?;
            ensure(region.opens.contains(&key), "an open right is listed by its region")?;
            let listed = self.by_session.get(&row.session).is_some_and(|opens| opens.contains(&key));
            ensure(listed, "an open right is listed by its session")?;
            ensure(
                self.deadlines.contains(&(row.deadline, Due::Open(key))) != row.follows_region,
                "exactly the rights that do not follow their region have a deadline of their own",
            )?;
        }
        let listed: usize = self.by_session.values().map(std::collections::BTreeSet::len).sum();
        ensure(listed == self.opens.len(), "sessions list open rights and nothing else")?;
        self.revoked.check()
    }
}

fn ensure(holds: bool, rule: &'static str) -> Result<(), &'static str> {
    holds.then_some(()).ok_or(rule)
}
