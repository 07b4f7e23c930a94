//! How a command fails: a stable code, what happened, what to do, and the exit code that scripts see.

use caps::error::{Code, Error};
use policy::Diagnostic;

/// Exit code of wrong usage.
pub(crate) const USAGE_EXIT: u8 = 2;
/// The code of wrong usage. It is the command line's own: nothing that travels or is logged ever has it.
const USAGE: &str = "E_USAGE";

/// The code of a command that a signal ended, as much the command line's own.
const INTERRUPTED: &str = "E_INTERRUPTED";
/// Its exit code: what a shell shows for a command that a signal ended, SIGINT before all.
pub(crate) const INTERRUPTED_EXIT: u8 = 130;

/// Shorthand for what commands return.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// What is printed on standard error.
#[derive(Debug)]
pub(crate) struct Failure {
    /// As in `E_QUOTA`.
    pub(crate) code: &'static str,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: String,
    /// Each mistake by itself, where a file has several.
    pub(crate) mistakes: Vec<Diagnostic>,
    /// The process' exit code.
    pub(crate) exit: u8,
}

impl Failure {
    /// The command was used wrongly.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            message: message.into(),
            help: help.into(),
            mistakes: Vec::new(),
            exit: USAGE_EXIT,
        }
    }

    /// A signal asked for an end, and what was begun was undone.
    pub(crate) fn interrupted(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: INTERRUPTED, exit: INTERRUPTED_EXIT, ..Self::usage(message, help) }
    }

    /// A code of the closed set, with a message of its own and the code's usual help.
    pub(crate) fn of(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code.text(),
            message: message.into(),
            help: code.help().into(),
            mistakes: Vec::new(),
            exit: code.blame().exit_code(),
        }
    }

    /// With another help than the code's usual one.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// All mistakes of one file. The first gives the code.
    pub(crate) fn mistakes(mistakes: Vec<Diagnostic>) -> Self {
        let code = mistakes.first().map_or(Code::ConfigSyntax, |first| first.code);
        let message = match &mistakes[..] {
            [only] => only.to_string(),
            many => format!("{} mistakes", many.len()),
        };
        let help = mistakes.first().map_or(code.help().to_owned(), |first| first.help.clone());
        Self { help, mistakes, ..Self::of(code, message) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(error.code(), error.detail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_blame() {
        for (code, exit) in [
            (Code::TokenMalformed, 1),
            (Code::Quota, 3),
            (Code::Unreachable, 4),
            (Code::RootMismatch, 5),
            (Code::ConfigSyntax, 1),
            (Code::Internal, 1),
        ] {
            assert_eq!(Failure::from(Error::from(code)).exit, exit, "{code}");
        }
        assert_eq!(Failure::usage("m", "h").exit, 2);
    }
}
