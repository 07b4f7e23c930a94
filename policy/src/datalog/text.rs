//! The first look at a policy's text, before any parser: is it small, shallow, plain, and where do its statements
//! begin and end.
//!
//! The parser of the engine recurses on nesting and on `!`, and a stack that overflows takes the process with it. So
//! what reaches it has been measured here, by a loop that recurses on nothing.

use std::ops::Range;

use caps::Code;

use crate::diagnostic::Collector;
use crate::limits::{
    POLICY_BYTES_MAX, POLICY_LINE_BYTES_MAX, POLICY_NESTING_MAX, POLICY_STATEMENT_BYTES_MAX,
    POLICY_STATEMENTS_MAX, POLICY_TOKENS_MAX,
};

/// The comment by which a policy itself says that it means to allow everything.
const PRAGMA: &str = "leasehold: allow_all = true";

/// A text that was measured.
#[derive(Debug)]
pub(super) struct Scan {
    /// The text with every comment blanked, so that offsets stay what they are.
    pub(super) clean: String,
    /// The statements that may be parsed, without their semicolons.
    pub(super) statements: Vec<Range<usize>>,
    /// Whether the pragma stands in it.
    pub(super) allow_all: bool,
}

/// Where the loop is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    /// In a string that began at this offset.
    Text(usize),
    /// In a comment to the end of the line that began at this offset.
    Line(usize),
    /// In a comment to `*/` that began at this offset.
    Block(usize),
}

/// One statement while it is being measured.
#[derive(Default)]
struct Statement {
    start: Option<usize>,
    tokens: usize,
    negations: usize,
    open: Vec<(usize, u8)>,
    /// A mistake was noted: it will not be parsed, and no second one is noted.
    refused: bool,
}

/// Measures a text. What is wrong with it goes to `found`.
pub(super) fn scan(text: &str, found: &mut Collector<'_>) -> Scan {
    let mut scan = Scan { clean: String::new(), statements: Vec::new(), allow_all: false };
    if text.len() > POLICY_BYTES_MAX {
        let message = format!("the policy has {} bytes", text.len());
        let help = format!("a policy has at most {POLICY_BYTES_MAX}; this is where the limit falls");
        found.error(Code::PolicySyntax, POLICY_BYTES_MAX, message, help);
        return scan;
    }
    plain(text, found);
    let mut measure = Measure {
        text: text.as_bytes(),
        clean: text.as_bytes().to_vec(),
        found,
        scan: &mut scan,
        now: Statement::default(),
    };
    measure.run();
    let clean = std::mem::take(&mut measure.clean);
    // Only whole comments were blanked, with ASCII; so this is still UTF-8.
    scan.clean = String::from_utf8(clean).unwrap_or_default();
    scan
}

/// Refuses long lines, and characters that show a reader something else than the parser reads.
fn plain(text: &str, found: &mut Collector<'_>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        if body.len() > POLICY_LINE_BYTES_MAX {
            let message = format!("the line has {} bytes", body.len());
            let help = format!("break it into lines of at most {POLICY_LINE_BYTES_MAX}");
            found.error(Code::PolicySyntax, start + POLICY_LINE_BYTES_MAX, message, help);
        }
        let hidden = body.char_indices().find(|(_, c)| c.is_control() && *c != '\t' || is_invisible(*c));
        if let Some((at, c)) = hidden {
            let message =
                format!("the character U+{:04X} does not show, or changes how others show", u32::from(c));
            found.error(Code::PolicySyntax, start + at, message, "remove it");
        }
        start += line.len();
    }
}

/// Characters that reorder, join or hide text: a reviewer would approve another policy than the one that runs.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

struct Measure<'m, 'a> {
    text: &'m [u8],
    clean: Vec<u8>,
    found: &'m mut Collector<'a>,
    scan: &'m mut Scan,
    now: Statement,
}

impl Measure<'_, '_> {
    fn run(&mut self) {
        let mut place = Place::Code;
        let mut at = 0;
        while let Some(&byte) = self.text.get(at) {
            let next = self.text.get(at + 1).copied();
            let mut step = 1;
            match place {
                Place::Code => match (byte, next) {
                    (b'/', Some(b'/')) => (place, step) = (Place::Line(at), 2),
                    (b'/', Some(b'*')) => (place, step) = (Place::Block(at), 2),
                    (b'"', _) => {
                        self.token(at);
                        place = Place::Text(at);
                    }
                    (b';', _) => self.end(at),
                    _ => step = self.code(at, byte),
                },
                Place::Text(start) => match (byte, next) {
                    (b'\\', Some(b'\\' | b'"' | b'n')) => step = 2,
                    (b'\\', _) => self.refuse(at, "an unknown escape in a text", "write \\\\, \\\" or \\n"),
                    (b'"', _) => place = Place::Code,
                    (b'\n', _) => {
                        self.refuse(start, "the text in quotes does not end on its line", "close it with \"");
                        place = Place::Code;
                    }
                    (0x80.., _) => {
                        self.refuse(at, "not ASCII", "names are ASCII, so such a text matches none")
                    }
                    _ => {}
                },
                Place::Line(start) if byte == b'\n' => {
                    self.blank(start, at);
                    place = Place::Code;
                }
                Place::Block(start) if byte == b'*' && next == Some(b'/') => {
                    self.blank(start, at + 2);
                    (place, step) = (Place::Code, 2);
                }
                Place::Line(_) | Place::Block(_) => {}
            }
            at += step;
        }
        match place {
            Place::Code => {}
            Place::Text(start) => self.refuse(start, "the text in quotes does not end", "close it with \""),
            Place::Line(start) => self.blank(start, self.text.len()),
            Place::Block(start) => {
                self.refuse(start, "the comment does not end", "close it with */");
                self.blank(start, self.text.len());
            }
        }
        self.end(self.text.len());
    }

    /// A byte of code; how many bytes it took.
    fn code(&mut self, at: usize, byte: u8) -> usize {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'$');
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => 1,
            _ if is_word(&byte) => {
                self.token(at);
                self.text[at..].iter().take_while(|byte| is_word(byte)).count()
            }
            b'(' | b'[' | b'{' => {
                self.token(at);
                self.now.open.push((at, byte));
                if self.now.open.len() > POLICY_NESTING_MAX {
                    let help = format!("nest at most {POLICY_NESTING_MAX} brackets");
                    self.refuse(at, "the brackets are nested too deep", &help);
                }
                1
            }
            b')' | b']' | b'}' => {
                self.token(at);
                let open = self.now.open.pop().map(|(_, open)| open);
                let expected = open.map(|open| if open == b'(' { b')' } else { open + 2 });
                if expected != Some(byte) {
                    self.refuse(at, "this bracket closes nothing", "check the brackets before it");
                }
                1
            }
            b'!' => {
                self.token(at);
                self.now.negations += usize::from(self.text.get(at + 1) != Some(&b'='));
                if self.now.negations > POLICY_NESTING_MAX {
                    let help = format!("write at most {POLICY_NESTING_MAX} in a statement");
                    self.refuse(at, "too many `!`", &help);
                }
                1
            }
            0x80.. => {
                self.refuse(at, "not ASCII", "outside of comments a policy is ASCII");
                1
            }
            _ => {
                self.token(at);
                1
            }
        }
    }

    /// A word, sign or text begins.
    fn token(&mut self, at: usize) {
        self.now.start.get_or_insert(at);
        self.now.tokens += 1;
        if self.now.tokens > POLICY_TOKENS_MAX {
            let help = format!("a statement has at most {POLICY_TOKENS_MAX} words and signs; split it");
            self.refuse(at, "the statement is too long", &help);
        }
    }

    /// A statement ends before `at`.
    fn end(&mut self, at: usize) {
        if let Some((open, _)) = self.now.open.first().copied() {
            self.refuse(open, "this bracket is not closed", "close it before the statement ends");
        }
        let now = std::mem::take(&mut self.now);
        let Some(start) = now.start.filter(|_| !now.refused) else { return };
        let length = self.clean[start..at].trim_ascii_end().len();
        let comments = self.clean[start..at].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if comments.map(<[u8]>::len).sum::<usize>() > POLICY_STATEMENT_BYTES_MAX {
            let help = format!("a statement has at most {POLICY_STATEMENT_BYTES_MAX} bytes; split it");
            self.found.error(Code::PolicySyntax, start, "the statement is too long", help);
        } else if self.scan.statements.len() == POLICY_STATEMENTS_MAX {
            if !self.found.line_has_error(start) {
                let help = format!("a policy has at most {POLICY_STATEMENTS_MAX}");
                self.found.error(Code::PolicySyntax, start, "there are too many statements", help);
            }
        } else {
            self.scan.statements.push(start..start + length);
        }
    }

    fn refuse(&mut self, at: usize, message: &str, help: &str) {
        // A later mistake of the same statement is most often a consequence.
        if !std::mem::replace(&mut self.now.refused, true) {
            self.found.error(Code::PolicySyntax, at, message, help);
        }
    }

    /// Blanks a comment, and looks for the pragma in it.
    fn blank(&mut self, start: usize, end: usize) {
        let comment = std::str::from_utf8(&self.text[start..end]).unwrap_or_default();
        self.scan.allow_all |= comment.trim_start_matches('/').trim() == PRAGMA;
        for byte in self.clean[start..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> Vec<String> {
        let mut found = Collector::new("f", text);
        let scan = scan(text, &mut found);
        assert!(found.is_clean(), "{:?}", found.finish());
        scan.statements.into_iter().map(|range| scan.clean[range].into()).collect()
    }

    fn mistake(text: &str) -> (u32, u32, String) {
        let mut found = Collector::new("f", text);
        scan(text, &mut found);
        let found = found.finish();
        assert!(found.iter().all(|mistake| mistake.code == Code::PolicySyntax));
        (found[0].line, found[0].column, found[0].message.clone())
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_texts_and_comments() {
        assert_eq!(statements(" a ; b(\"x;y\\\"\") ;; // c;\n/* d; */ e"), ["a", "b(\"x;y\\\"\")", "e"]);
        assert_eq!(statements("a /* b\n ; */ , c;"), ["a     \n      , c"]);
        assert_eq!(statements("// only ä comment"), [""; 0]);
        assert_eq!(statements("allow if a ! b != c;"), ["allow if a ! b != c"]);
    }

    #[test]
    fn k7_deep_texts_are_measured_not_parsed() {
        let at = (1, 10 + POLICY_NESTING_MAX as u32);
        for text in [
            format!("allow if {}true{};", "(".repeat(5_000), ")".repeat(5_000)),
            format!("allow if {}true;", "!".repeat(10_000)),
            format!("allow if {}", "[".repeat(60_000)),
            format!("allow if {}", "{(".repeat(500)),
        ] {
            let broken: String =
                text.as_bytes().chunks(1_000).flat_map(|c| [std::str::from_utf8(c).unwrap(), "\n"]).collect();
            let (line, column, _) = mistake(&broken);
            assert_eq!((line, column), at);
        }
        let long = format!("allow if true{};", " && true".repeat(400));
        assert!(mistake(&long).2.contains("line has"));
        assert_eq!(mistake(&long.replace(" && ", "\n&& ")).2, "the statement is too long");
    }

    #[test]
    fn k7_long_lines_and_texts_have_a_place() {
        let long = "x".repeat(1 << 20);
        assert_eq!(mistake(&long).0, 1);
        assert_eq!(mistake(&long).1 as usize, POLICY_BYTES_MAX + 1);
        let (line, column, _) = mistake(&format!("deny if true;\n{}", "y".repeat(POLICY_LINE_BYTES_MAX + 1)));
        assert_eq!((line, column as usize), (2, POLICY_LINE_BYTES_MAX + 1));
    }

    #[test]
    fn what_hides_is_refused() {
        for (text, place) in [
            ("allow if\u{202e} true;", (1, 9)),
            ("deny if true; // \u{200b}", (1, 18)),
            ("a\u{1b};", (1, 2)),
            ("a\0;", (1, 2)),
            ("r\u{e4}le(1);", (1, 2)),
            ("f(\"\u{e4}\");", (1, 4)),
            ("f(\"a\nb\");", (1, 3)),
            ("f(\"a", (1, 3)),
            ("f(\"\\x\");", (1, 4)),
            ("/* a", (1, 1)),
            ("f(1));", (1, 5)),
            ("f(1];", (1, 4)),
            ("g(2;\nf(1);", (1, 2)),
        ] {
            let (line, column, message) = mistake(text);
            assert_eq!((line, column), place, "{text:?}: {message}");
        }
    }

    #[test]
    fn every_statement_has_its_own_mistake() {
        let text = "f(1));\ng(\"ok\");\nh((1);\n";
        let mut found = Collector::new("f", text);
        let scan = scan(text, &mut found);
        assert_eq!(scan.statements.len(), 1);
        assert_eq!(found.finish().iter().map(|mistake| mistake.line).collect::<Vec<_>>(), [1, 3]);
    }
}
