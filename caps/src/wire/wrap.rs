//! A token on its way through a node, to be fetched once: its wrap.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{LeaseId, PrincipalKey};
use crate::time::{Micros, UnixMicros};

/// Names a token that was put into a node to be fetched once. 16 bytes of the kernel's random source.
///
/// Other than every id of [`crate::id`] it is a secret until it was used: a wrap that names no receiver is given to the
/// first who knows its id. So it enters no log, and `Debug` does not show it; `Display` is for the one who made it.
///
/// ```
/// use caps::wire::wrap::WrapId;
///
/// let id = WrapId::random();
/// assert_eq!(WrapId::parse(&id.to_string()).unwrap(), id);
/// assert_eq!(format!("{id:?}"), "WrapId(..)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WrapId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl WrapId {
    /// Draws a fresh one.
    ///
    /// # Panics
    /// If the kernel has no random source, in which case nothing in this system is safe to run.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel's random source answers");
        Self(bytes)
    }

    /// Reads 32 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// `E_RANGE` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let id = bytes.and_then(|bytes| bytes.try_into().ok()).map(Self);
        id.ok_or(Error::new(Code::Range, "the id of a wrap is 32 lowercase hexadecimal digits"))
    }
}

impl std::fmt::Display for WrapId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

// By hand: whoever reads a trace must not be able to fetch the token.
impl std::fmt::Debug for WrapId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrapId(..)")
    }
}

/// Who fetched a token, and when: there is one a wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    /// The key that its session proved.
    pub by: PrincipalKey,
    /// By the node's clock.
    pub at: UnixMicros,
}

/// What a node says of a wrap, to whom it concerns. The token is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrapRow {
    /// Who put the token in.
    pub by: PrincipalKey,
    /// Who alone may fetch it; `None`: the first who knows the id.
    pub to: Option<PrincipalKey>,
    /// The lease that the token is of.
    pub lease: LeaseId,
    /// When it was put in, by the node's clock.
    pub since: UnixMicros,
    /// How long the node still knows of it. Until then the token can be fetched, unless it was.
    pub expires_in: Micros,
    /// Who has it, once somebody does.
    pub fetched: Option<Fetched>,
    /// How often somebody else asked for it, or anybody once more after it was fetched. Each time was refused.
    pub refused: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_digits_alone() {
        let id = WrapId::random();
        assert_eq!(WrapId::parse(&id.to_string()).unwrap(), id);
        assert_ne!(WrapId::random(), id);
        for bad in ["", "00", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32)] {
            assert_eq!(WrapId::parse(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }
}
