//! An error as it travels between nodes.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::limits::REASON_BYTES_MAX;
use crate::wire::Reason;

/// A code and, where it fits, what happened. The text is bounded and of plain characters because of its type, so whoever
/// gets one from another node can show it and log it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What it is.
    pub code: Code,
    /// What happened; none: what the code says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Reason>,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        // ASCII, so that any cut is between characters.
        let plain: String = error.detail().chars().filter(|c| (' '..='~').contains(c)).collect();
        let detail = &plain[..plain.len().min(REASON_BYTES_MAX)];
        let detail = Reason::new(detail).ok().filter(|text| !text.as_str().is_empty());
        Self { code: error.code(), detail }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.detail {
            Some(detail) => Self::with(refusal.code, detail.as_str().to_owned()),
            None => refusal.code.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_with_its_code_and_a_text_that_can_be_shown() {
        let error = Error::new(Code::Quota, "one lease too many");
        assert_eq!(Error::from(Refusal::from(&error)), error);
        let loud = Error::with(Code::Internal, format!("a\u{1b}[2J{}", "ä\u{202e}b".repeat(500)));
        let refusal = Refusal::from(&loud);
        let text = refusal.detail.as_ref().unwrap().as_str();
        assert_eq!((text.len(), &text[..5]), (REASON_BYTES_MAX, "a[2Jb"));
        let mute = Error::with(Code::Busy, "\n".to_owned());
        assert_eq!(Error::from(Refusal::from(mute)), Error::from(Code::Busy));
    }
}
