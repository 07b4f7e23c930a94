//! Numbers for people.

use caps::share::Rest;
use caps::time::{Micros, UnixMicros};
use policy::units::{Bytes, Span};

/// What stands in a cell that has nothing to say.
pub(crate) const NOTHING: &str = "-";

/// A size.
pub(crate) fn bytes(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// A span to look at: whole seconds from a minute on, for what comes after them changes while it is read.
pub(crate) fn span(span: Micros) -> String {
    const SECOND: u64 = 1_000_000;
    let seconds = span.0 / SECOND;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let part = |number: u64, unit: &str| if number == 0 { String::new() } else { format!("{number}{unit}") };
    match seconds {
        0..60 => Span(span).to_string(),
        60..3600 => part(minutes, "m") + &part(rest, "s"),
        _ => part(hours, "h") + &part(minutes, "m"),
    }
}

/// What is left of a grant.
pub(crate) fn rest(left: &Rest) -> String {
    format!("{} to {} until {}", left.rights, left.range, time(left.expires))
}

/// A point in time.
pub(crate) fn time(time: UnixMicros) -> String {
    let mut text = String::new();
    audit::text::push_time(&mut text, time);
    text.trim_matches('"').to_owned()
}

/// A text, or nothing.
pub(crate) fn or_nothing<T: ToString>(value: Option<T>) -> String {
    value.map_or(NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        for (seconds, text) in
            [(1, "1s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (3600, "1h"), (3661, "1h1m")]
        {
            assert_eq!(span(Micros(seconds * 1_000_000)), text);
        }
        assert_eq!(bytes(64 << 20), "64MiB");
        assert_eq!(or_nothing(None::<String>), "-");
    }
}
