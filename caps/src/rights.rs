//! What a holder may do: a set over `read`, `write` and `share`.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// One operation on a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Look at bytes.
    Read,
    /// Change bytes.
    Write,
    /// Offer the region, or a part of it, to another principal.
    Share,
}

impl Operation {
    /// Every operation, in the order of their bits.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Share];

    /// The name in tokens, logs and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Share => "share",
        }
    }
}

/// A set of operations. Intersection is the only way sets combine on the way down a chain, so a chain never widens.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Rights(u8);

impl Rights {
    /// No operation.
    pub const NONE: Self = Self(0);
    /// `read`.
    pub const READ: Self = Self(1);
    /// `write`.
    pub const WRITE: Self = Self(2);
    /// `share`.
    pub const SHARE: Self = Self(4);
    /// `read` and `write`.
    pub const READ_WRITE: Self = Self(3);
    /// Everything: what a lease's owner holds.
    pub const ALL: Self = Self(7);

    /// The set of one operation.
    #[must_use]
    pub const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Read => Self::READ,
            Operation::Write => Self::WRITE,
            Operation::Share => Self::SHARE,
        }
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every operation of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set has nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The operations in the set.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(Self::of(*operation)))
    }

    /// The set as bits: 1 read, 2 write, 4 share.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Reads `r`, `w`, `s` in that order, each at most once: the form of the command line and of [`Display`].
    ///
    /// # Errors
    /// `E_RANGE` for anything else, the empty text included.
    ///
    /// [`Display`]: std::fmt::Display
    pub fn parse(text: &str) -> Result<Self, Error> {
        (1..=Self::ALL.0)
            .map(Self)
            .find(|rights| rights.to_string() == text)
            .ok_or(Error::new(Code::Range, "rights are r, w and s in that order, as in r, rw or rws"))
    }
}

impl TryFrom<u8> for Rights {
    type Error = Error;

    fn try_from(bits: u8) -> Result<Self, Error> {
        if bits & !Self::ALL.0 == 0 {
            Ok(Self(bits))
        } else {
            Err(Error::new(Code::Range, "rights have three bits"))
        }
    }
}

impl From<Rights> for u8 {
    fn from(rights: Rights) -> Self {
        rights.0
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        self.iter().try_for_each(|operation| f.write_str(&operation.name()[..1]))
    }
}

impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rights({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_prints_and_parses_back() {
        for bits in 1..=7 {
            let rights = Rights::try_from(bits).unwrap();
            assert_eq!(Rights::parse(&rights.to_string()).unwrap(), rights);
        }
        for bad in ["", "-", "wr", "rr", "x", "R", "r ", "rw,"] {
            assert!(Rights::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Rights::try_from(8).is_err());
    }

    #[test]
    fn intersection_never_widens() {
        for a in 0..=7 {
            for b in 0..=7 {
                let (a, b) = (Rights(a), Rights(b));
                assert!(a.contains(a.intersect(b)) && b.contains(a.intersect(b)));
                assert!(a.union(b).contains(a) && a.union(b).contains(b));
            }
        }
    }
}
