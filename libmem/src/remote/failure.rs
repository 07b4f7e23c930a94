//! How an attempt can fail, and what follows from it.

use caps::error::{Code, Error};

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is gone, or there is none: another may be made.
    Lost(Error),
    /// The node cannot say now what became of the request: it may be asked again, over the same connection.
    NotNow(Error),
    /// The other side ended the connection in good order. In the middle of a frame this is a lie.
    Ended,
    /// The time is over. What is under way on the connection is nobody's any more, so it goes with it.
    Late,
    /// This call fails, and its connection is of no use any more; the next call may make another.
    Refused(Error),
    /// The other side broke a rule: nothing is asked of it again.
    Lied(Error),
    /// A mistake on this side, found before anything was sent of it.
    Own(Error),
}

impl Failure {
    /// The connection is gone.
    pub(super) const fn lost(detail: &'static str) -> Self {
        Self::Lost(Error::new(Code::Unreachable, detail))
    }

    /// The other side did what the protocol does not have.
    pub(super) const fn lied(detail: &'static str) -> Self {
        Self::Lied(Error::new(Code::Protocol, detail))
    }

    /// What a caller is told who does not try again.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Lost(error)
            | Self::NotNow(error)
            | Self::Refused(error)
            | Self::Lied(error)
            | Self::Own(error) => error,
            Self::Ended => Error::new(Code::Unreachable, "the node ended the connection"),
            Self::Late => Error::new(Code::Timeout, "the node did not answer in time"),
        }
    }
}
