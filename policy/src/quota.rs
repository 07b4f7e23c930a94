//! How much one principal may hold, and the books that say how much it holds.
//!
//! ```text
//!            reserve            commit               release              returned
//!   nothing ─────────▶ reserved ─────────▶ leased ─────────────▶ ending ─────────────▶ nothing
//!                         │ cancel          + resident            resident only
//!                         ▼
//!                      nothing
//! ```
//!
//! A lease that ended is no longer leased, and its memory is resident until it is wiped and returned: the quota of
//! resident bytes keeps a principal from turning leases over faster than they can be taken back.
//!
//! Every operation checks everything first and then changes everything, so a refusal changes nothing. The books of
//! the principals always add up to the books of the node ([`balance`]).

mod openings;

use caps::{Code, Error, Result};
use serde::{Deserialize, Serialize};

pub use openings::{Openings, WithinQuota};

/// What one principal may hold at most. Zero means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Leases, reservations included.
    pub leases: u32,
    /// Bytes of leases, reservations included.
    pub leased_bytes: u64,
    /// Bytes of memory, reservations and memory that is being taken back included.
    pub resident_bytes: u64,
    /// Bytes that the principal shares with others: the sum over its grants.
    pub shared_bytes: u64,
    /// Live grants that it issued.
    pub grants: u32,
    /// Rights that are open at one time under tokens that it was given, by whomever: who delegates pays for those it
    /// delegates to.
    pub opens: u32,
    /// Those of them that were opened to be mapped.
    pub mappings: u32,
}

impl Quota {
    /// No bound but that of the numbers themselves. The node's own books have it: its pool is checked elsewhere.
    pub const UNLIMITED: Self = Self {
        leases: u32::MAX,
        leased_bytes: u64::MAX,
        resident_bytes: u64::MAX,
        shared_bytes: u64::MAX,
        grants: u32::MAX,
        opens: u32::MAX,
        mappings: u32::MAX,
    };
}

/// What one principal, or the whole node, holds of the broker's now. What it has open is the provider's to count:
/// [`Openings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    reservations: u32,
    reserved_bytes: u64,
    leases: u32,
    leased_bytes: u64,
    ending: u32,
    ending_bytes: u64,
    grants: u32,
    shared_bytes: u64,
}

impl Usage {
    /// Leases that live, without reservations.
    #[must_use]
    pub const fn leases(&self) -> u32 {
        self.leases
    }

    /// Reservations that wait for their claim.
    #[must_use]
    pub const fn reservations(&self) -> u32 {
        self.reservations
    }

    /// Bytes set aside by reservations.
    #[must_use]
    pub const fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Bytes of leases that live.
    #[must_use]
    pub const fn leased_bytes(&self) -> u64 {
        self.leased_bytes
    }

    /// Bytes of memory: of leases that live and of those being taken back.
    #[must_use]
    pub const fn resident_bytes(&self) -> u64 {
        self.leased_bytes + self.ending_bytes // no overflow: `invariant`
    }

    /// Bytes that no other lease can have now: resident ones and reservations.
    #[must_use]
    pub const fn taken_bytes(&self) -> u64 {
        self.resident_bytes() + self.reserved_bytes // no overflow: `invariant`
    }

    /// Live grants.
    #[must_use]
    pub const fn grants(&self) -> u32 {
        self.grants
    }

    /// Bytes in live grants.
    #[must_use]
    pub const fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }

    /// Whether the books show nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Books a reservation of `bytes`.
    ///
    /// # Errors
    /// `E_RANGE` for no bytes, `E_QUOTA` if it would exceed `quota`. Nothing changes then.
    pub fn reserve(&mut self, quota: &Quota, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Err(Error::new(Code::Range, "a lease has at least one byte"));
        }
        let leases = u64::from(self.leases) + u64::from(self.reservations) + 1;
        let leased = plus(self.leased_bytes + self.reserved_bytes, bytes)?;
        let resident = plus(self.taken_bytes(), bytes)?;
        within(leases, quota.leases.into(), "leases")?;
        within(leased, quota.leased_bytes, "bytes leased")?;
        within(resident, quota.resident_bytes, "bytes resident")?;
        self.reservations = count_up(self.reservations)?;
        self.reserved_bytes += bytes; // `plus` showed that the larger sum fits
        Ok(())
    }

    /// Takes a reservation of `bytes` out of the books: it was not claimed, or could not be.
    ///
    /// # Errors
    /// `E_INTERNAL` if there is no such reservation. Nothing changes then.
    pub fn cancel(&mut self, bytes: u64) -> Result<()> {
        let next = take(self.reservations, self.reserved_bytes, bytes)?;
        (self.reservations, self.reserved_bytes) = next;
        Ok(())
    }

    /// Turns a reservation of `bytes` into a lease: its memory is committed.
    ///
    /// # Errors
    /// `E_INTERNAL` if there is no such reservation. Nothing changes then.
    pub fn commit(&mut self, bytes: u64) -> Result<()> {
        let next = take(self.reservations, self.reserved_bytes, bytes)?;
        self.leases = count_up(self.leases)?;
        (self.reservations, self.reserved_bytes) = next;
        self.leased_bytes += bytes; // the sum of both did not grow
        Ok(())
    }

    /// Ends a lease of `bytes`, for whatever cause. Its memory stays booked as resident until [`Self::returned`].
    ///
    /// # Errors
    /// `E_INTERNAL` if there is no such lease. Nothing changes then.
    pub fn release(&mut self, bytes: u64) -> Result<()> {
        let next = take(self.leases, self.leased_bytes, bytes)?;
        self.ending = count_up(self.ending)?;
        (self.leases, self.leased_bytes) = next;
        self.ending_bytes += bytes; // the sum of both did not grow
        Ok(())
    }

    /// Takes the memory of an ended lease out of the books: it is wiped and back in the pool.
    ///
    /// # Errors
    /// `E_INTERNAL` if no such lease is ending. Nothing changes then.
    pub fn returned(&mut self, bytes: u64) -> Result<()> {
        let next = take(self.ending, self.ending_bytes, bytes)?;
        (self.ending, self.ending_bytes) = next;
        Ok(())
    }

    /// Books a grant over `bytes`. The owner pays: it decides to whom and how often it shares.
    ///
    /// # Errors
    /// `E_RANGE` for no bytes, `E_QUOTA` if it would exceed `quota`. Nothing changes then.
    pub fn share(&mut self, quota: &Quota, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Err(Error::new(Code::Range, "a grant has at least one byte"));
        }
        let shared = plus(self.shared_bytes, bytes)?;
        within(u64::from(self.grants) + 1, quota.grants.into(), "grants")?;
        within(shared, quota.shared_bytes, "bytes shared")?;
        self.grants = count_up(self.grants)?;
        self.shared_bytes = shared;
        Ok(())
    }

    /// Takes a grant over `bytes` out of the books.
    ///
    /// # Errors
    /// `E_INTERNAL` if there is no such grant. Nothing changes then.
    pub fn unshare(&mut self, bytes: u64) -> Result<()> {
        let next = take(self.grants, self.shared_bytes, bytes)?;
        (self.grants, self.shared_bytes) = next;
        Ok(())
    }

    /// What always holds, in one place: call it after reading books from elsewhere, and after every step in tests.
    ///
    /// # Errors
    /// The sentence that does not hold.
    pub fn invariant(&self) -> Result<(), &'static str> {
        let pairs = [
            (
                self.reservations,
                self.reserved_bytes,
                "each reservation has a byte, and no byte is without one",
            ),
            (self.leases, self.leased_bytes, "each lease has a byte, and no byte is without one"),
            (self.ending, self.ending_bytes, "each ending lease has a byte, and no byte is without one"),
            (self.grants, self.shared_bytes, "each grant has a byte, and no byte is without one"),
        ];
        for (count, bytes, sentence) in pairs {
            if (count == 0) != (bytes == 0) || u64::from(count) > bytes {
                return Err(sentence);
            }
        }
        let sum = self
            .reserved_bytes
            .checked_add(self.leased_bytes)
            .and_then(|sum| sum.checked_add(self.ending_bytes));
        sum.map(|_| ()).ok_or("all memory of one ledger fits 64 bits")
    }

    /// Whether everything is within `quota`. Not an invariant: an operator may lower a quota below what is held, and
    /// then nothing is taken away, but nothing more is given.
    #[must_use]
    pub fn fits(&self, quota: &Quota) -> bool {
        u64::from(self.leases) + u64::from(self.reservations) <= quota.leases.into()
            && self.leased_bytes + self.reserved_bytes <= quota.leased_bytes
            && self.taken_bytes() <= quota.resident_bytes
            && self.grants <= quota.grants
            && self.shared_bytes <= quota.shared_bytes
    }

    fn fields(&self) -> [u64; 8] {
        [
            self.reservations.into(),
            self.reserved_bytes,
            self.leases.into(),
            self.leased_bytes,
            self.ending.into(),
            self.ending_bytes,
            self.grants.into(),
            self.shared_bytes,
        ]
    }
}

/// Checks that the books of all principals add up to the node's.
///
/// # Errors
/// The sentence that does not hold.
pub fn balance<'a>(parts: impl IntoIterator<Item = &'a Usage>, total: &Usage) -> Result<(), &'static str> {
    total.invariant()?;
    let mut sum = [0_u128; 8];
    for part in parts {
        part.invariant()?;
        for (sum, field) in sum.iter_mut().zip(part.fields()) {
            *sum += u128::from(field);
        }
    }
    if sum == total.fields().map(u128::from) {
        Ok(())
    } else {
        Err("the principals' books add up to the node's")
    }
}

fn plus(held: u64, more: u64) -> Result<u64> {
    held.checked_add(more).ok_or(Error::new(Code::Quota, "the sum of all sizes does not fit 64 bits"))
}

fn count_up(count: u32) -> Result<u32> {
    count.checked_add(1).ok_or(Error::new(Code::Quota, "the count does not fit 32 bits"))
}

fn within(wanted: u64, allowed: u64, what: &'static str) -> Result<()> {
    if wanted <= allowed {
        Ok(())
    } else {
        Err(Error::with(Code::Quota, format!("this would make {wanted} {what}, and the quota is {allowed}")))
    }
}

/// One item of `bytes` less. The last item must take the last byte with it, and every other leave one for each.
fn take(count: u32, held: u64, bytes: u64) -> Result<(u32, u64)> {
    let rest = count.checked_sub(1).zip(held.checked_sub(bytes));
    rest.filter(|(count, held)| bytes != 0 && (*count == 0) == (*held == 0) && u64::from(*count) <= *held)
        .ok_or(Error::new(Code::Internal, "the quota's books have no such item"))
}

#[cfg(test)]
mod tests;
