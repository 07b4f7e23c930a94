//! Short texts that people chose. They are checked where they enter, so that nothing behind has to ask again.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::limits::{NAME_BYTES_MAX, REASON_BYTES_MAX};

/// The name of a principal, a lease or a class: 1 to 64 bytes of `[A-Za-z0-9._-]`, not beginning with a dot or a
/// dash. Such a name is safe in a file name, a terminal, a log and a Datalog string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// `E_RANGE` if it is no name.
    pub fn new(text: &str) -> Result<Self> {
        let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if starts && text.len() <= NAME_BYTES_MAX && text.bytes().all(inside) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(
                Code::Range,
                "a name is 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with none of . -",
            ))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Why something was revoked: at most 256 bytes of printable ASCII, possibly none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(Box<str>);

impl Reason {
    /// Checks a text.
    ///
    /// # Errors
    /// `E_RANGE` if it is too long or has anything but printable ASCII (a reason is read on auditors' terminals).
    pub fn new(text: &str) -> Result<Self> {
        if text.len() <= REASON_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(Code::Range, "a reason is at most 256 characters of printable ASCII"))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Reason {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_names_and_reasons_have_borders() {
        assert!(Name::new(&"a".repeat(64)).is_ok());
        for bad in
            ["", ".a", "-a", "a b", "a/b", "ä", "a\n", "a\u{202e}b", &"a".repeat(65), &"a".repeat(65_536)]
        {
            assert_eq!(Name::new(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
        assert!(Reason::new("").is_ok() && Reason::new(&"x".repeat(256)).is_ok());
        for bad in ["a\u{1b}[2J", "\u{202e}", &"x".repeat(257)] {
            assert!(Reason::new(bad).is_err(), "{bad:?}");
        }
    }
}
