//! How often rights were opened under each block that limits use.
//!
//! Each region has its own table, so that who appends blocks without end fills nobody's but its own region's. A count
//! goes by the mark of its block, so it is shared by everybody below that block, whatever else they appended, in every
//! session; it only ever goes up. An opening that fails after it was charged stays charged: what one holder could
//! have given back, another below the same block could not rely on.

use std::collections::BTreeMap;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;
use caps::token::{Limit, Mark, Meter};

#[derive(Clone, Copy, Debug)]
struct Opens {
    used: u64,
    /// When every token below the block is over.
    until: UnixMicros,
}

/// At most `capacity` counts, which the caller gives with every call: a word less in every region.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(BTreeMap<Mark, Opens>);

impl Meters {
    /// Charges one opening to all of a token's meters, or to none. `until` is the end of the token as the broker minted
    /// it: a later block cannot put that off, so no token below any of its blocks lives longer.
    ///
    /// # Errors
    /// `E_DENIED`, with the limit's name first, if one of them is used up; `E_BUSY` if there is no room for a new count.
    /// Counts that are known are charged all the same when there is none.
    pub(super) fn charge(
        &mut self,
        meters: &[Meter],
        until: UnixMicros,
        now: UnixMicros,
        capacity: usize,
    ) -> Result<()> {
        if meters.is_empty() {
            return Ok(());
        }
        self.judge(meters)?;
        let new = meters.iter().filter(|meter| !self.0.contains_key(&meter.key)).count();
        if self.0.len() + new > capacity {
            // Those of this token stay: their time is not over, or it would not have come so far.
            self.0.retain(|_, opens| opens.until > now);
            if self.0.len() + new > capacity {
                return Err(Error::new(
                    Code::Busy,
                    "the region has its most blocks with limits on use; try again when some are over",
                ));
            }
        }
        for meter in meters {
            let opens = self.0.entry(meter.key).or_insert(Opens { used: 0, until });
            opens.used = opens.used.saturating_add(1);
            opens.until = opens.until.max(until);
        }
        Ok(())
    }

    /// Whether all of a token's meters have an opening left.
    ///
    /// # Errors
    /// `E_DENIED`, with the limit's name first, if one of them is used up.
    pub(super) fn judge(&self, meters: &[Meter]) -> Result<()> {
        let used_up = |meter: &Meter| meter.opens.is_some_and(|most| self.used(meter.key) >= most);
        if meters.iter().any(used_up) { Err(Limit::Opens.into()) } else { Ok(()) }
    }

    /// How often rights were opened below a block.
    pub(super) fn used(&self, key: Mark) -> u64 {
        self.0.get(&key).map_or(0, |opens| opens.used)
    }

    /// Number of counts.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 3;

    fn meter(n: u8, opens: Option<u64>) -> Meter {
        Meter { key: Mark::from_bytes([n; 32]), opens, bytes_per_second: None, bytes_total: None }
    }

    fn charge(meters: &mut Meters, of: &[Meter], until: u64, now: u64) -> std::result::Result<(), Code> {
        let charged = meters.charge(of, UnixMicros(until), UnixMicros(now), FULL);
        charged.map_err(|error| {
            assert!(error.code() != Code::Denied || error.detail().starts_with("opens: "), "{error}");
            error.code()
        })
    }

    #[test]
    fn all_are_charged_or_none() {
        let mut meters = Meters::default();
        let (wide, tight) = (meter(1, Some(3)), meter(2, Some(1)));
        assert_eq!(charge(&mut meters, &[wide, tight], 9, 0), Ok(()));
        assert_eq!(charge(&mut meters, &[wide, tight], 9, 0), Err(Code::Denied));
        assert_eq!(
            [1, 2].map(|n| meters.used(meter(n, None).key)),
            [1, 1],
            "the refusal was charged to nobody"
        );
        let another = meter(3, Some(8));
        assert_eq!(
            charge(&mut meters, &[wide, another], 9, 0),
            Ok(()),
            "a sibling shares what is above both"
        );
        assert_eq!(charge(&mut meters, &[wide], 9, 0), Ok(()));
        assert_eq!(charge(&mut meters, &[wide, another], 9, 0), Err(Code::Denied));
        assert_eq!(charge(&mut meters, &[meter(1, Some(0))], 9, 0), Err(Code::Denied));
    }

    #[test]
    fn a_count_lives_as_long_as_a_token_below_it_can() {
        let mut meters = Meters::default();
        let first = meter(1, Some(1));
        assert_eq!(charge(&mut meters, &[first], 20, 0), Ok(()));
        assert_eq!(charge(&mut meters, &[meter(2, None), meter(3, None)], 10, 0), Ok(()));
        assert_eq!(
            charge(&mut meters, &[meter(4, None)], 30, 9),
            Err(Code::Busy),
            "full of what still counts"
        );
        assert_eq!(meters.len(), FULL);
        assert_eq!(
            charge(&mut meters, &[meter(2, Some(9))], 10, 9),
            Ok(()),
            "but no new count is needed here"
        );
        assert_eq!(charge(&mut meters, &[meter(4, None)], 30, 10), Ok(()), "two are over");
        assert_eq!(charge(&mut meters, &[first], 20, 19), Err(Code::Denied), "and the first is not");
    }
}
