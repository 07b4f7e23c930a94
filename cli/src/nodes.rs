//! A plain list of nodes: `--nodes FILE`, one `HOST:PORT [NAME]` a line, `#` begins a comment. NAME is the one that the node's
//! certificate must have.

use std::collections::HashMap;
use std::path::Path;

use caps::error::Code;
use caps::wire::Name;
use libmem::cluster::NODES_MAX;
use policy::Diagnostic;
use policy::diagnostic::{Severity, quote};

use crate::args::value;
use crate::failure::{Failure, Result};
use crate::files;

/// Most bytes of such a file: the longest lines of the longest list, and as much again for comments.
const FILE_BYTES_MAX: usize = 2 * NODES_MAX * 512;
/// What a line is.
const SHAPE: &str = "a line is HOST:PORT [NAME], as in `east.example:7171 east`";

/// A node of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// The name that its certificate must have; without it that of any node of the domain.
    pub(crate) name: Option<Name>,
}

/// Reads a list.
///
/// # Errors
/// Every mistake at once, each with its line: `E_CONFIG_SYNTAX`, `E_CONFIG_VALUE`; `E_CONFIG_IO`.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    parse(&files::read_text(path, FILE_BYTES_MAX)?, &files::show(path)).map_err(Failure::mistakes)
}

fn parse(text: &str, file: &str) -> Result<Vec<Entry>, Vec<Diagnostic>> {
    let (mut entries, mut mistakes) = (Vec::<Entry>::new(), Vec::new());
    // Of each address and each name, where it stands first.
    let mut first: HashMap<String, usize> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let mut wrong = |code, word: &str, message: String, help: &str| {
            // The word is a part of the line.
            let column = 1 + line[..word.as_ptr() as usize - line.as_ptr() as usize].chars().count();
            mistakes.push(Diagnostic {
                code,
                severity: Severity::Error,
                file: file.to_owned(),
                line: u32::try_from(number).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
                message,
                help: help.to_owned(),
            });
        };
        let name = words.next();
        if let Some(more) = words.next() {
            wrong(Code::ConfigSyntax, more, format!("{} is one word too many", quote(more)), SHAPE);
            continue;
        }
        if let Err(error) = value::address(address) {
            wrong(Code::ConfigValue, address, format!("{}: {error}", quote(address)), SHAPE);
            continue;
        }
        let parsed = match name.map(Name::new).transpose() {
            Ok(parsed) => parsed,
            Err(error) => {
                let word = name.unwrap_or_default();
                wrong(Code::ConfigValue, word, format!("{}: {}", quote(word), error.detail()), SHAPE);
                continue;
            }
        };
        let mut twice = false;
        for (kind, word) in [("a", Some(address)), ("n", name)] {
            let Some(word) = word else { continue };
            if let Some(before) = first.insert(format!("{kind}{word}"), number) {
                let message = format!("`{word}` stands in line {before} already");
                wrong(Code::ConfigValue, word, message, "name each node once");
                twice = true;
            }
        }
        if !twice {
            entries.push(Entry { address: address.to_owned(), name: parsed });
        }
    }
    if entries.is_empty() && mistakes.is_empty() {
        mistakes.push(Diagnostic::of_file(Code::ConfigValue, file, "names no node", SHAPE));
    }
    if entries.len() > NODES_MAX {
        let message = format!("names {} nodes, and a list has at most {NODES_MAX}", entries.len());
        let help = "keep a list for each part of them";
        mistakes.push(Diagnostic::of_file(Code::ConfigValue, file, message, help));
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_addresses_with_and_without_names() {
        let text =
            "# the first room\n\neast.example:7171 east # by the window\n\t[::1]:1\n10.0.0.1:65535\twest\n";
        let name = |text| Some(Name::new(text).unwrap());
        let entry = |address: &str, name| Entry { address: address.into(), name };
        assert_eq!(
            parse(text, "f").unwrap(),
            [
                entry("east.example:7171", name("east")),
                entry("[::1]:1", None),
                entry("10.0.0.1:65535", name("west"))
            ]
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text =
            "east:1 east\nnowhere\n  west:1 a/b\nnorth:1 north north\n\u{e4}:1\neast:1\nsouth:1 east\n";
        let mistakes = parse(text, "f").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|one| (one.line, one.column, one.code)).collect();
        assert_eq!(
            told,
            [
                (2, 1, Code::ConfigValue),
                (3, 10, Code::ConfigValue),
                (4, 15, Code::ConfigSyntax),
                (5, 1, Code::ConfigValue),
                (6, 1, Code::ConfigValue),
                (7, 9, Code::ConfigValue),
            ]
        );
        assert!(mistakes[0].to_string().starts_with("f:2:1: "), "{}", mistakes[0]);
        assert!(mistakes[4].message.contains("line 1"), "{}", mistakes[4]);
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert_eq!(parse("# nobody\n", "f").unwrap_err()[0].line, 0);
        let lines = |count| (1..=count).map(|port| format!("node:{port}\n")).collect::<String>();
        assert_eq!(parse(&lines(NODES_MAX), "f").unwrap().len(), NODES_MAX);
        assert_eq!(parse(&lines(NODES_MAX + 1), "f").unwrap_err().len(), 1);
    }
}
