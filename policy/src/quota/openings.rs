//! What one principal has open at a provider, and the proof that its quota was asked before more is opened.

use caps::id::PrincipalKey;
use caps::{Code, Error, Result};

use super::{Quota, count_up, within};

/// Rights that are open under tokens that one principal was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    opens: u32,
    mappings: u32,
}

/// Proof that a principal's quota was asked for one more open right, and has room for it. Made by [`Openings::ask`]
/// and nowhere else; used up by opening the right. It books nothing: [`Openings::open`] asks again, because others may
/// have opened in between.
///
/// ```compile_fail
/// fn forge(mapped: bool, honest: policy::WithinQuota) -> policy::WithinQuota {
///     policy::WithinQuota { mapped, ..honest }
/// }
/// ```
/// ```compile_fail
/// fn twice(one: policy::WithinQuota) -> [policy::WithinQuota; 2] {
///     [one.clone(), one]
/// }
/// ```
/// ```
/// # use policy::{Quota, WithinQuota, quota::Openings};
/// fn honest(books: &Openings, payer: caps::id::PrincipalKey, quota: &Quota) -> caps::Result<[WithinQuota; 1]> {
///     let one = books.ask(payer, quota, true)?;
///     Ok([one])
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a quota that was asked for nothing protects nothing"]
pub struct WithinQuota {
    payer: PrincipalKey,
    quota: Quota,
    mapped: bool,
}

impl WithinQuota {
    /// Who pays.
    #[must_use]
    pub const fn payer(&self) -> PrincipalKey {
        self.payer
    }

    /// Whether a right was asked for that is to be mapped.
    #[must_use]
    pub const fn mapped(&self) -> bool {
        self.mapped
    }
}

impl Openings {
    /// Rights that are open.
    #[must_use]
    pub const fn opens(&self) -> u32 {
        self.opens
    }

    /// Those of them that were opened to be mapped.
    #[must_use]
    pub const fn mappings(&self) -> u32 {
        self.mappings
    }

    /// Whether nothing is open.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.opens == 0
    }

    /// Whether `payer`, whose books these are, may have one more right open, and mapped if that is wanted.
    ///
    /// # Errors
    /// `E_QUOTA`.
    pub fn ask(&self, payer: PrincipalKey, quota: &Quota, mapped: bool) -> Result<WithinQuota> {
        self.fits(quota, mapped)?;
        Ok(WithinQuota { payer, quota: *quota, mapped })
    }

    /// Books one more right.
    ///
    /// # Errors
    /// `E_QUOTA` if there is no room for it any more. Nothing changes then.
    pub fn open(&mut self, asked: &WithinQuota) -> Result<()> {
        self.fits(&asked.quota, asked.mapped)?;
        let mappings = if asked.mapped { count_up(self.mappings)? } else { self.mappings };
        self.opens = count_up(self.opens)?;
        self.mappings = mappings;
        Ok(())
    }

    /// Takes a right out of the books.
    ///
    /// # Errors
    /// `E_INTERNAL` if there is no such right. Nothing changes then.
    pub fn close(&mut self, mapped: bool) -> Result<()> {
        let rest = self.opens.checked_sub(1).zip(self.mappings.checked_sub(mapped.into()));
        let (opens, mappings) = rest
            .filter(|(opens, mappings)| mappings <= opens)
            .ok_or(Error::new(Code::Internal, "the quota's books have no such open right"))?;
        *self = Self { opens, mappings };
        Ok(())
    }

    fn fits(&self, quota: &Quota, mapped: bool) -> Result<()> {
        within(u64::from(self.opens) + 1, quota.opens.into(), "rights open")?;
        if mapped {
            within(u64::from(self.mappings) + 1, quota.mappings.into(), "rights mapped")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: PrincipalKey = PrincipalKey([7; 32]);

    fn open(books: &mut Openings, quota: &Quota, mapped: bool) -> Result<()> {
        let asked = books.ask(PAYER, quota, mapped)?;
        books.open(&asked)
    }

    #[test]
    fn mapped_rights_count_as_open_ones_too() {
        let quota = Quota { opens: 3, mappings: 1, ..Quota::UNLIMITED };
        let mut books = Openings::default();
        open(&mut books, &quota, true).unwrap();
        assert_eq!(open(&mut books, &quota, true).unwrap_err().code(), Code::Quota);
        open(&mut books, &quota, false).unwrap();
        open(&mut books, &quota, false).unwrap();
        assert_eq!(open(&mut books, &quota, false).unwrap_err().code(), Code::Quota);
        assert_eq!((books.opens(), books.mappings()), (3, 1));
        books.close(true).unwrap();
        open(&mut books, &quota, true).unwrap();
        for mapped in [true, false, false] {
            books.close(mapped).unwrap();
        }
        assert!(books.is_empty());
    }

    #[test]
    fn two_who_asked_for_the_last_place_do_not_both_get_it() {
        let quota = Quota { opens: 1, ..Quota::UNLIMITED };
        let mut books = Openings::default();
        let both = [books.ask(PAYER, &quota, false).unwrap(), books.ask(PAYER, &quota, false).unwrap()];
        assert!(books.open(&both[0]).is_ok());
        assert_eq!(books.open(&both[1]).unwrap_err().code(), Code::Quota);
        assert_eq!(books.opens(), 1);
    }

    #[test]
    fn what_is_not_in_the_books_is_not_taken_out() {
        let mut books = Openings::default();
        assert_eq!(books.close(false).unwrap_err().code(), Code::Internal);
        open(&mut books, &Quota::UNLIMITED, true).unwrap();
        assert_eq!(books.close(false).unwrap_err().code(), Code::Internal, "the mapped one is not the other");
        assert_eq!((books.opens(), books.mappings()), (1, 1));
    }
}
