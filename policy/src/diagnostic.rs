//! A mistake in one of the operator's files, and where it is.

use std::fmt;

use caps::Code;

use crate::limits::DIAGNOSTICS_MAX;

/// Whether a mistake stops the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file works, and probably does not do what its author meant.
    Warning,
}

/// One mistake: what, where, and what to do.
///
/// ```
/// let mistakes = policy::config::check("[node]\npool = \"10GB\"\n", "leasehold.toml").unwrap_err();
/// assert_eq!(
///     mistakes[0].to_string(),
///     "leasehold.toml:2:8: error[E_CONFIG_VALUE]: `node.pool`: `GB` can mean 10^9 or 2^30 bytes"
/// );
/// assert_eq!(mistakes[0].help, "write GiB");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code.
    pub code: Code,
    /// Whether it stops the start.
    pub severity: Severity,
    /// The file as the caller named it.
    pub file: String,
    /// The line, counted from 1; 0 if the mistake is about the file as a whole.
    pub line: u32,
    /// The character in the line, counted from 1; 0 if the mistake is about the file as a whole.
    pub column: u32,
    /// What is wrong. May quote the file, with anything but printable ASCII escaped.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Diagnostic {
    /// A mistake about a file as a whole.
    #[must_use]
    pub fn of_file(code: Code, file: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The mistake as an [`caps::Error`], for callers that can report only one.
    #[must_use]
    pub fn to_error(&self) -> caps::Error {
        let place = if self.line == 0 {
            quote(&self.file)
        } else {
            format!("{}:{}:{}", quote(&self.file), self.line, self.column)
        };
        caps::Error::with(self.code, format!("{place}: {}; {}", self.message, self.help))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.file))?;
        if self.line != 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {word}[{}]: {}", self.code, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// A piece of the operator's text for a message: at most 256 characters, control characters and everything outside
/// ASCII escaped, so that a file cannot write to the terminal of who checks it.
#[must_use]
pub fn quote(text: &str) -> String {
    const CHARACTERS_MAX: usize = 256;
    let mut quoted: String = text
        .chars()
        .take(CHARACTERS_MAX)
        .flat_map(|c| {
            let plain = (' '..='~').contains(&c);
            let escaped = (!plain).then(|| c.escape_default());
            plain.then_some(c).into_iter().chain(escaped.into_iter().flatten())
        })
        .collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        quoted.push_str("...");
    }
    quoted
}

/// Turns byte offsets of one text into lines and columns, and collects what is wrong with it.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    file: &'a str,
    text: &'a str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    found: Vec<Diagnostic>,
    beyond: usize,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { file, text, lines: std::iter::once(0).chain(breaks).collect(), found: Vec::new(), beyond: 0 }
    }

    /// Line and column, both from 1, of the character at `offset` (or of the end, beyond it).
    pub(crate) fn place(&self, offset: usize) -> (u32, u32) {
        let offset =
            (0..=offset.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let line = self.lines.partition_point(|start| *start <= offset) - 1;
        let column = self.text[self.lines[line]..offset].chars().count();
        (line as u32 + 1, column as u32 + 1)
    }

    /// Notes a mistake at a byte of the text. Beyond [`DIAGNOSTICS_MAX`] they are only counted.
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: Code,
        offset: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.found.len() == DIAGNOSTICS_MAX {
            self.beyond += 1;
            return;
        }
        let (line, column) = self.place(offset);
        let (message, help) = (message.into(), help.into());
        self.found.push(Diagnostic { code, severity, file: self.file.into(), line, column, message, help });
    }

    /// Notes an error.
    pub(crate) fn error(
        &mut self,
        code: Code,
        offset: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, offset, message, help);
    }

    /// Whether nothing was noted.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether an error was noted on the line of `offset`.
    pub(crate) fn line_has_error(&self, offset: usize) -> bool {
        let line = self.place(offset).0;
        self.found.iter().any(|known| known.line == line)
    }

    /// Everything noted, in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|known| (known.line, known.column));
        self.found.dedup();
        if self.beyond > 0 {
            let code = self.found[0].code;
            let message = format!("{} more mistakes are not shown", self.beyond);
            self.found.push(Diagnostic::of_file(code, self.file, message, "fix these first"));
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        let collector = Collector::new("f", "ab\nä€x\n");
        assert_eq!(collector.place(0), (1, 1));
        assert_eq!(collector.place(2), (1, 3));
        assert_eq!(collector.place(3), (2, 1));
        assert_eq!(collector.place(4), (2, 1), "inside a character");
        assert_eq!(collector.place(5), (2, 2));
        assert_eq!(collector.place(8), (2, 3));
        assert_eq!(collector.place(9), (2, 4));
        assert_eq!(collector.place(10), (3, 1));
        assert_eq!(collector.place(usize::MAX), (3, 1));
        assert_eq!(Collector::new("f", "").place(7), (1, 1));
    }

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quote("a b"), "a b");
        assert_eq!(quote("\u{1b}[2J\u{202e}"), "\\u{1b}[2J\\u{202e}");
        assert!(quote(&"x".repeat(1_000)).len() < 300);
    }

    #[test]
    fn mistakes_beyond_the_bound_are_counted() {
        let mut collector = Collector::new("f", "text");
        for _ in 0..DIAGNOSTICS_MAX + 7 {
            collector.error(Code::ConfigSyntax, 0, "m", "h");
        }
        let found = collector.finish();
        assert_eq!(found.last().unwrap().message, "7 more mistakes are not shown");
        assert_eq!(
            found.last().unwrap().to_string(),
            "f: error[E_CONFIG_SYNTAX]: 7 more mistakes are not shown"
        );
    }
}
