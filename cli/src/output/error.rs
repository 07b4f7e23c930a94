//! The one form of every error.

use serde_json::{Value, json};

use super::{Style, bold, red};
use crate::failure::Failure;

/// Prints to standard error: `error[E_CODE]: what` and `help: what to do`, or the same as JSON.
pub(crate) fn print(failure: &Failure, as_json: bool, style: Style) {
    let text = if as_json { super::json::document(&value(failure)) } else { text(failure, style.stderr) };
    // Nowhere to complain if standard error is gone.
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}

fn text(failure: &Failure, colour: bool) -> String {
    let lines = |code: &str, message: &str, help: &str| {
        format!(
            "{} {}\n{} {}\n",
            red(colour, &format!("error[{code}]:")),
            plain(message),
            bold(colour, "help:"),
            plain(help)
        )
    };
    if failure.mistakes.is_empty() {
        return lines(failure.code, &failure.message, &failure.help);
    }
    let mistake = |mistake: &policy::Diagnostic| {
        let message = format!("{}: {}", place(mistake), mistake.message);
        lines(mistake.code.text(), &message, &mistake.help)
    };
    failure.mistakes.iter().map(mistake).collect()
}

fn value(failure: &Failure) -> Value {
    let mut value = json!({ "error": {
        "code": failure.code,
        "message": failure.message,
        "help": failure.help,
    }});
    if !failure.mistakes.is_empty() {
        value["error"]["mistakes"] = failure.mistakes.iter().map(super::json::diagnostic).collect();
    }
    value
}

/// `file:line:column` of a mistake, or the file alone.
pub(crate) fn place(mistake: &policy::Diagnostic) -> String {
    let file = policy::diagnostic::quote(&mistake.file);
    if mistake.line == 0 { file } else { format!("{file}:{}:{}", mistake.line, mistake.column) }
}

/// One line of printable text: what an argument or a file smuggled in reaches no terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => ' ',
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => '?',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let failure = Failure::usage("what happened", "what to do");
        assert_eq!(text(&failure, false), "error[E_USAGE]: what happened\nhelp: what to do\n");
        assert_eq!(
            value(&failure),
            json!({"error": {"code": "E_USAGE", "message": "what happened", "help": "what to do"}})
        );
        assert!(text(&failure, true).contains('\u{1b}'));
    }

    #[test]
    fn an_argument_cannot_write_to_the_terminal() {
        let failure = Failure::usage("`\u{1b}[2J\u{202e}\n`", "h");
        assert_eq!(text(&failure, false), "error[E_USAGE]: `?[2J? `\nhelp: h\n");
    }
}
