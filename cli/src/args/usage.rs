//! Wrong usage in the one form of every error, and help texts.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::failure::{Failure, USAGE_EXIT};
use crate::output::{self, Style};

/// Why there is nothing to do.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help or the version was asked for.
    Help(String),
    /// A command is missing: its help goes to standard error.
    Missing(String),
    /// The arguments are wrong.
    Wrong {
        /// In the form of every error.
        failure: Failure,
        /// Whether `--json` was among them.
        json: bool,
        /// Colours.
        style: Style,
    },
}

impl Stop {
    pub(crate) fn new(error: &clap::Error, arguments: &[OsString], style: Style) -> Self {
        let text = |colour: bool| {
            let rendered = error.render();
            if colour { rendered.ansi().to_string() } else { rendered.to_string() }
        };
        // Whatever else is wrong: whoever wrote this wants JSON. Behind `--` it is a value.
        let json =
            arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Help(text(style.stdout)),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => Self::Missing(text(style.stderr)),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let failure = Failure::usage("a command is missing", "`--help` lists the commands");
                Self::Wrong { failure, json, style }
            }
            _ => Self::Wrong { failure: failure(&text(false)), json, style },
        }
    }

    /// Prints it and says with which code to exit.
    pub(crate) fn finish(self) -> ExitCode {
        match self {
            Self::Help(text) => match output::to_stdout(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => ExitCode::from(failure.exit),
            },
            Self::Missing(text) => {
                eprint!("{text}");
                ExitCode::from(USAGE_EXIT)
            }
            Self::Wrong { failure, json, style } => {
                output::error::print(&failure, json, style);
                ExitCode::from(failure.exit)
            }
        }
    }
}

/// The parser's message, with its tips and its usage line as the help.
fn failure(text: &str) -> Failure {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut message, mut help) = (Vec::new(), Vec::new());
    for paragraph in text.split("\n\n").map(flat) {
        if paragraph.starts_with("For more information") || paragraph.is_empty() {
            continue;
        }
        let advice = paragraph.starts_with("Usage:") || paragraph.starts_with("tip:");
        if advice { help.push(paragraph) } else { message.push(paragraph) }
    }
    help.push("`--help` shows an example".into());
    Failure::usage(message.join("; "), help.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_text_becomes_message_and_help() {
        let failure = failure(
            "error: unexpected argument '--sise' found\n\n  tip: a similar argument exists: '--size'\n\n\
             Usage: leasehold lease create --size <SIZE>\n\nFor more information, try '--help'.\n",
        );
        assert_eq!(failure.message, "unexpected argument '--sise' found");
        assert_eq!(
            failure.help,
            "tip: a similar argument exists: '--size'; Usage: leasehold lease create --size <SIZE>; `--help` shows \
             an example"
        );
        assert_eq!((failure.code, failure.exit), ("E_USAGE", 2));
    }
}
