//! From a TOML value with its place to a Rust value, or to a mistake at that place.
//!
//! Every reader returns `None` after it has noted the mistake, and the caller keeps the default: so one pass finds
//! everything that is wrong.

use std::ops::RangeInclusive;

use caps::Code;
use caps::time::Micros;
use caps::wire::Name;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Collector, Severity, quote};
use crate::limits::{POOL_BYTES_MAX, POOL_BYTES_MIN};
use crate::units::{self, Bytes, Refusal, Span};

pub(super) type Key<'t> = Spanned<DeString<'t>>;
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// One table of the file, with its name for messages.
pub(super) struct Table<'a, 't> {
    pub(super) name: String,
    pub(super) entries: &'a DeTable<'t>,
}

/// What reads values: where mistakes go.
pub(super) struct Reader<'f, 'a> {
    found: &'f mut Collector<'a>,
}

impl<'f, 'a> Reader<'f, 'a> {
    pub(super) fn new(found: &'f mut Collector<'a>) -> Self {
        Self { found }
    }

    /// Notes a mistake in a value. A line that is no TOML has been named already; what it seems to say does not count.
    pub(super) fn wrong(&mut self, offset: usize, message: impl Into<String>, help: impl Into<String>) {
        if !self.found.line_has_error(offset) {
            self.found.add(Severity::Error, Code::ConfigValue, offset, message, help);
        }
    }

    /// Notes a key that does not exist, with the one that was probably meant.
    pub(super) fn unknown(&mut self, table: &str, key: &Key<'_>, known: &[&str]) {
        let offset = key.span().start;
        let near = known.iter().map(|word| (distance(key.get_ref(), word), word)).min();
        let help = match near {
            Some((distance, word)) if distance <= 2 => format!("did you mean `{word}`?"),
            _ => format!("the keys here are {}", known.join(", ")),
        };
        if !self.found.line_has_error(offset) {
            let message = format!("unknown key `{}`", quote(&join(table, key.get_ref())));
            self.found.error(Code::ConfigSyntax, offset, message, help);
        }
    }

    /// A table inside `parent`.
    pub(super) fn table<'v, 't>(
        &mut self,
        parent: &str,
        key: &Key<'t>,
        value: &'v Value<'t>,
    ) -> Option<Table<'v, 't>> {
        let name = join(parent, key.get_ref());
        match value.get_ref() {
            DeValue::Table(entries) => Some(Table { name, entries }),
            other => {
                let help = format!("write [{}] and the keys below it", quote(&name));
                self.wrong(value.span().start, type_message(&name, "a table", other), help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, name: &str, value: &Value<'_>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            other => self.mistyped(name, value, "true or false", other),
        }
    }

    /// A string.
    pub(super) fn text<'v>(&mut self, name: &str, value: &'v Value<'_>) -> Option<&'v str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            other => self.mistyped(name, value, "text in quotes", other),
        }
    }

    /// A text that is a path: not empty, and without a zero byte, which no file's name has.
    pub(super) fn path(&mut self, name: &str, value: &Value<'_>) -> Option<std::path::PathBuf> {
        let text = self.text(name, value)?;
        if text.is_empty() || text.contains('\0') {
            self.wrong(value.span().start, format!("`{name}` is no path"), "name a file or a directory");
            return None;
        }
        Some(text.into())
    }

    /// Where something listens.
    pub(super) fn listen(&mut self, name: &str, value: &Value<'_>) -> Option<std::net::SocketAddr> {
        let text = self.text(name, value)?;
        let read = text.parse().ok();
        if read.is_none() {
            let message = format!("`{name}`: `{}` is no address with a port", quote(text));
            self.wrong(value.span().start, message, "write it as in \"10.0.0.5:7171\" or \"[::1]:7171\"");
        }
        read
    }

    /// The name of a principal, class or cluster.
    pub(super) fn name(&mut self, name: &str, value: &Value<'_>) -> Option<Name> {
        let text = self.text(name, value)?;
        Name::new(text)
            .map_err(|error| self.wrong(value.span().start, format!("`{name}` is no name"), error.detail()))
            .ok()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        value: &Value<'_>,
        choices: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(name, value)?;
        let found = choices.iter().copied().find(|choice| word(*choice) == text);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|choice| format!("\"{}\"", word(*choice))).collect();
            let message = format!("`{name}`: `{}` is not a choice", quote(text));
            self.wrong(value.span().start, message, format!("write {}", words.join(" or ")));
        }
        found
    }

    /// An integer within bounds.
    pub(super) fn count(
        &mut self,
        name: &str,
        value: &Value<'_>,
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = self.integer(name, value, "a whole number")?;
        let small = u32::try_from(number).ok().filter(|number| bounds.contains(number));
        if small.is_none() {
            let help = format!("write a number from {} to {}", bounds.start(), bounds.end());
            self.wrong(value.span().start, format!("`{name}` is out of bounds"), help);
        }
        small
    }

    /// A size: an integer of bytes, or a text with a unit.
    pub(super) fn bytes(
        &mut self,
        name: &str,
        value: &Value<'_>,
        bounds: RangeInclusive<u64>,
    ) -> Option<u64> {
        let bytes = match value.get_ref() {
            DeValue::String(text) => {
                units::bytes(text).map_err(|refusal| self.refused(name, value, refusal)).ok()?
            }
            _ => {
                let number = self.integer(name, value, "a size")?;
                match u64::try_from(number) {
                    Ok(number) => number,
                    Err(_) => {
                        let message =
                            format!("`{name}` is {}", if number < 0 { "negative" } else { "2^64 or more" });
                        self.wrong(
                            value.span().start,
                            message,
                            "write a size as in 4096, \"64MiB\" or \"2GiB\"",
                        );
                        return None;
                    }
                }
            }
        };
        if !bounds.contains(&bytes) {
            let message = format!("`{name}` is {}, which is out of bounds", Bytes(bytes));
            let help = format!("write a size from {} to {}", Bytes(*bounds.start()), Bytes(*bounds.end()));
            self.wrong(value.span().start, message, help);
            return None;
        }
        Some(bytes)
    }

    /// The size of a pool, or 0 for none.
    pub(super) fn pool(&mut self, name: &str, value: &Value<'_>) -> Option<u64> {
        let bytes = self.bytes(name, value, 0..=POOL_BYTES_MAX)?;
        if (1..POOL_BYTES_MIN).contains(&bytes) {
            let message = format!("`{name}` is {}, which is out of bounds", Bytes(bytes));
            let help = format!("write a size from {} to {}", Bytes(POOL_BYTES_MIN), Bytes(POOL_BYTES_MAX));
            self.wrong(value.span().start, message, help);
            return None;
        }
        Some(bytes)
    }

    /// A duration: a text with a unit.
    pub(super) fn span(
        &mut self,
        name: &str,
        value: &Value<'_>,
        millis: RangeInclusive<u64>,
    ) -> Option<Micros> {
        let span = match value.get_ref() {
            DeValue::String(text) => {
                units::span(text).map_err(|refusal| self.refused(name, value, refusal)).ok()?
            }
            other => return self.mistyped(name, value, "a duration as in \"30s\" or \"10m\"", other),
        };
        if !millis.contains(&span.as_millis()) {
            let [low, high] =
                [*millis.start(), *millis.end()].map(|millis| Span(Micros::from_millis(millis)));
            let message = format!("`{name}` is {}, which is out of bounds", Span(span));
            self.wrong(value.span().start, message, format!("write a duration from {low} to {high}"));
            return None;
        }
        Some(span)
    }

    /// An array of at most `most` items, each read by `item`; `None` if any is wrong.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        value: &Value<'_>,
        most: usize,
        mut item: impl FnMut(&mut Self, &Value<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let DeValue::Array(items) = value.get_ref() else {
            return self.mistyped(name, value, "a list in brackets", value.get_ref());
        };
        if items.len() > most {
            let message = format!("`{name}` has {} items", items.len());
            self.wrong(value.span().start, message, format!("write at most {most}"));
            return None;
        }
        let read: Vec<_> = items.iter().map(|value| item(self, value)).collect();
        read.into_iter().collect()
    }

    fn integer(&mut self, name: &str, value: &Value<'_>, wanted: &str) -> Option<i128> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return self.mistyped(name, value, wanted, value.get_ref());
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_none() {
            self.wrong(value.span().start, format!("`{name}` is out of bounds"), "write a smaller number");
        }
        number
    }

    fn refused(&mut self, name: &str, value: &Value<'_>, refusal: Refusal) {
        self.wrong(value.span().start, format!("`{name}`: {}", refusal.message), refusal.help);
    }

    fn mistyped<T>(&mut self, name: &str, value: &Value<'_>, wanted: &str, got: &DeValue<'_>) -> Option<T> {
        self.wrong(value.span().start, type_message(name, wanted, got), format!("write {wanted}"));
        None
    }
}

fn type_message(name: &str, wanted: &str, got: &DeValue<'_>) -> String {
    let got = match got {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("`{}` is {got}, not {wanted}", quote(name))
}

pub(super) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.into() } else { format!("{table}.{key}") }
}

/// How many characters must be changed, added or left out to turn one word into the other. Words here are short; a
/// longer one is far from all of them.
fn distance(from: &str, to: &str) -> usize {
    const LONGEST: usize = 32;
    if from.len() > LONGEST {
        return LONGEST;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn typos_are_near() {
        assert_eq!(distance("pool", "pool"), 0);
        assert_eq!(distance("poll", "pool"), 1);
        assert_eq!(distance("alow_uid", "allow_uids"), 2);
        assert_eq!(distance("", "pool"), 4);
        assert!(distance(&"x".repeat(100_000), "pool") > 2);
    }
}
