//! How often rights were opened under each block that limits use.
//!
//! Each region has its own table, so that who appends blocks without end fills nobody's but its own region's. Of that the
//! owner alone has one half, and those who have something from it the other: who came by a grant, and whom it delegated to
//! offline. Of theirs each has a share, however many grants it has and whomever it delegated to in turn. So nobody keeps the
//! limited tokens of another, or of the owner, from being opened by making more of them. A count
//! goes by the mark of its block, so it is shared by everybody below that block, whatever else they appended, in every
//! session; it only ever goes up. An opening that fails after it was charged stays charged: what one holder could
//! have given back, another below the same block could not rely on.

use std::collections::BTreeMap;

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::time::UnixMicros;
use caps::token::{Limit, Mark, Meter};

#[derive(Clone, Copy, Debug)]
struct Opens {
    used: u64,
    /// When every token below the block is over.
    until: UnixMicros,
    /// In whose share it is.
    of: Side,
}

/// Whose blocks they are: a token's and all those made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The owner's own.
    Owner,
    /// Of who has it from the owner: the receiver of the grant, or the first to whom the owner delegated.
    Receiver(PrincipalKey),
}

/// How many counts there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Of the region, half of them on either side.
    pub(super) region: usize,
    /// Of one receiver.
    pub(super) receiver: usize,
}

impl Room {
    const fn receivers(self) -> usize {
        self.region / 2
    }

    const fn owner(self) -> usize {
        self.region - self.receivers()
    }
}

impl super::Config {
    /// How many counts of openings a region may have.
    pub(super) const fn meters_room(&self) -> Room {
        Room { region: self.meters_per_region_max, receiver: self.meters_per_receiver_max }
    }
}

/// What a receiver is told that has its share.
pub(super) const SHARE_FULL: Error = Error::new(
    Code::Quota,
    "the receiver has its most blocks with limits on use in this region; try again when some are over",
);
/// What everybody on a side is told whose half is full.
pub(super) const SIDE_FULL: Error =
    Error::new(Code::Busy, "the region has its most blocks with limits on use; try again when some are over");

/// Never more counts than there is room for, which the caller gives with every call: two words less in every region.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(BTreeMap<Mark, Opens>);

impl Meters {
    /// Charges one opening to all of a token's meters, or to none; new ones go into the share of `of`. `until` is the end of the token as the broker minted
    /// it: a later block cannot put that off, so no token below any of its blocks lives longer.
    ///
    /// # Errors
    /// `E_DENIED`, with the limit's name first, if one of them is used up. If there is no room for a new count, `E_QUOTA`
    /// for a receiver that has its share, and `E_BUSY` if the half of its side is full. Counts that are known are charged
    /// all the same when there is none.
    pub(super) fn charge(
        &mut self,
        meters: &[Meter],
        of: Side,
        until: UnixMicros,
        now: UnixMicros,
        room: Room,
    ) -> Result<()> {
        if meters.is_empty() {
            return Ok(());
        }
        self.judge(meters)?;
        let new = meters.iter().filter(|meter| !self.0.contains_key(&meter.key)).count();
        if new > 0 && self.fits(new, of, room).is_err() {
            // Those of this token stay: their time is not over, or it would not have come so far.
            self.0.retain(|_, opens| opens.until > now);
            self.fits(new, of, room)?;
        }
        for meter in meters {
            let opens = self.0.entry(meter.key).or_insert(Opens { used: 0, until, of });
            opens.used = opens.used.saturating_add(1);
            opens.until = opens.until.max(until);
        }
        Ok(())
    }

    /// Whether there is room for `new` more counts of a side. Looks at all that there are: some thousands at most, and
    /// only for a block that was never counted, whose signatures cost a hundred times as much.
    fn fits(&self, new: usize, of: Side, room: Room) -> Result<()> {
        let count = |wanted: &dyn Fn(Side) -> bool| self.0.values().filter(|opens| wanted(opens.of)).count();
        let owners = count(&|side| side == Side::Owner);
        match of {
            Side::Owner if owners + new > room.owner() => Err(SIDE_FULL),
            Side::Receiver(_) if count(&|side| side == of) + new > room.receiver => Err(SHARE_FULL),
            Side::Receiver(_) if self.0.len() - owners + new > room.receivers() => Err(SIDE_FULL),
            Side::Owner | Side::Receiver(_) => Ok(()),
        }
    }

    /// Whether nobody has more counts than its share.
    pub(super) fn are_shared(&self, room: Room) -> bool {
        self.0.values().all(|opens| self.fits(0, opens.of, room).is_ok())
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three counts for the owner's side, three for receivers, and two for each of these.
    const ROOM: Room = Room { region: 6, receiver: 2 };
    const BOB: Side = Side::Receiver(PrincipalKey([1; 32]));
    const CAROL: Side = Side::Receiver(PrincipalKey([2; 32]));

    fn meter(n: u8, opens: Option<u64>) -> Meter {
        Meter { key: Mark::from_bytes([n; 32]), opens, bytes_per_second: None, bytes_total: None }
    }

    fn charge(meters: &mut Meters, of: &[Meter], until: u64, now: u64) -> std::result::Result<(), Code> {
        charge_to(meters, Side::Owner, of, until, now)
    }

    fn charge_to(
        meters: &mut Meters,
        side: Side,
        of: &[Meter],
        until: u64,
        now: u64,
    ) -> std::result::Result<(), Code> {
        let charged = meters.charge(of, side, UnixMicros(until), UnixMicros(now), ROOM);
        assert!(meters.are_shared(ROOM));
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
        assert_eq!(meters.0.len(), ROOM.owner());
        assert_eq!(
            charge(&mut meters, &[meter(2, Some(9))], 10, 9),
            Ok(()),
            "but no new count is needed here"
        );
        assert_eq!(charge(&mut meters, &[meter(4, None)], 30, 10), Ok(()), "two are over");
        assert_eq!(charge(&mut meters, &[first], 20, 19), Err(Code::Denied), "and the first is not");
    }

    #[test]
    fn whoever_makes_blocks_without_end_keeps_nobody_elses_out() {
        let mut meters = Meters::default();
        assert_eq!(charge_to(&mut meters, BOB, &[meter(1, Some(9)), meter(2, None)], 20, 0), Ok(()));
        assert_eq!(
            charge_to(&mut meters, BOB, &[meter(3, None)], 20, 0),
            Err(Code::Quota),
            "he has his share"
        );
        assert_eq!(
            charge_to(&mut meters, BOB, &[meter(1, Some(9))], 20, 0),
            Ok(()),
            "and what is in it goes on"
        );
        assert_eq!(charge_to(&mut meters, CAROL, &[meter(4, None)], 20, 0), Ok(()), "she has hers");
        assert_eq!(
            charge_to(&mut meters, CAROL, &[meter(5, None)], 20, 0),
            Err(Code::Busy),
            "theirs are full"
        );
        for n in 6..9 {
            assert_eq!(charge(&mut meters, &[meter(n, None)], 20, 0), Ok(()), "the owner's half is not");
        }
        assert_eq!(charge(&mut meters, &[meter(9, None)], 20, 0), Err(Code::Busy));
        assert_eq!(charge_to(&mut meters, BOB, &[meter(3, None)], 30, 20), Ok(()), "what is over makes room");
    }
}
