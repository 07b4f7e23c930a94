//! Sizes and durations as people write them. Whatever could be read in two ways is refused.
//!
//! | written | means |
//! |---|---|
//! | `4096` | bytes |
//! | `64KiB`, `64MiB`, `2GiB` | 2^10, 2^20, 2^30 bytes |
//! | `500ms`, `30s`, `10m`, `24h` | a span of time |
//!
//! No spaces, signs, fractions, leading zeros, `KB`, bare `k`, or durations without a unit.
//!
//! ```
//! use policy::units::{Bytes, Span, parse_bytes, parse_span};
//!
//! assert_eq!(parse_bytes("64MiB").unwrap(), 64 << 20);
//! assert!(parse_bytes("64MB").is_err());
//! assert_eq!(parse_span("10m").unwrap().as_millis(), 600_000);
//! assert_eq!(Bytes(64 << 20).to_string(), "64MiB");
//! assert_eq!(Span(parse_span("90s").unwrap()).to_string(), "90s");
//! ```

use std::fmt;

use caps::time::Micros;
use caps::{Code, Error, Result};

use crate::limits::{GIB, KIB, MIB};

/// Why a text is no size or duration, and how to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What is wrong.
    pub(crate) message: &'static str,
    /// What to write instead.
    pub(crate) help: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::with(Code::Range, format!("{}; {}", refusal.message, refusal.help))
    }
}

const SIZE_HELP: &str = "write a size as in 4096, 64KiB, 64MiB or 2GiB";
const SPAN_HELP: &str = "write a duration as in 500ms, 30s, 10m or 24h";

/// Reads a size in bytes.
///
/// # Errors
/// `E_RANGE` if the text is not exactly a number with one of `KiB`, `MiB`, `GiB` or nothing behind it, or is 2^64
/// bytes or more.
pub fn parse_bytes(text: &str) -> Result<u64> {
    bytes(text).map_err(Error::from)
}

/// Reads a span of time.
///
/// # Errors
/// `E_RANGE` if the text is not exactly a number with one of `ms`, `s`, `m`, `h` behind it, or does not fit 2^64
/// microseconds.
pub fn parse_span(text: &str) -> Result<Micros> {
    span(text).map_err(Error::from)
}

/// [`parse_bytes`] with message and help apart.
pub(crate) fn bytes(text: &str) -> Result<u64, Refusal> {
    let (number, unit) = split(text, SIZE_HELP)?;
    let factor = match unit {
        "" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        "kB" | "KB" | "K" | "k" => return refuse("`KB` and `k` can mean 1,000 or 1,024 bytes", "write KiB"),
        "MB" | "M" | "m" | "mb" => return refuse("`MB` can mean 10^6 or 2^20 bytes", "write MiB"),
        "GB" | "G" | "g" | "gb" => return refuse("`GB` can mean 10^9 or 2^30 bytes", "write GiB"),
        "TB" | "T" | "TiB" => return refuse("there is no unit above GiB", "write 1024GiB for a TiB"),
        _ => return refuse("the unit is none of KiB, MiB, GiB", SIZE_HELP),
    };
    number
        .checked_mul(factor)
        .ok_or(Refusal { message: "the size is 2^64 bytes or more", help: "write less" })
}

/// [`parse_span`] with message and help apart.
pub(crate) fn span(text: &str) -> Result<Micros, Refusal> {
    let (number, unit) = split(text, SPAN_HELP)?;
    let factor = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60 * 1_000_000,
        "h" => 60 * 60 * 1_000_000,
        "" => return refuse("a duration without a unit could be anything", SPAN_HELP),
        "d" => return refuse("there is no unit above hours", "write 24h for a day"),
        _ => return refuse("the unit is none of ms, s, m, h", SPAN_HELP),
    };
    let span = number.checked_mul(factor).map(Micros);
    span.ok_or(Refusal { message: "the duration is 2^64 microseconds or more", help: "write less" })
}

fn refuse<T>(message: &'static str, help: &'static str) -> Result<T, Refusal> {
    Err(Refusal { message, help })
}

/// The number in front, and the rest.
fn split<'a>(text: &'a str, help: &'static str) -> Result<(u64, &'a str), Refusal> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if text.is_empty() {
        refuse("the text is empty", help)
    } else if text.starts_with('-') {
        refuse("a negative number", help)
    } else if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        refuse("there is a space in it", help)
    } else if unit.starts_with(['.', ',']) {
        refuse("there is a fraction in it", "use the next smaller unit")
    } else if number.is_empty() {
        refuse("it does not begin with a number", help)
    } else if number.len() > 1 && number.starts_with('0') {
        refuse("the number begins with a zero", help)
    } else {
        match number.parse() {
            Ok(number) => Ok((number, unit)),
            Err(_) => refuse("the number is 2^64 or more", "write less"),
        }
    }
}

/// Bytes, for people: exact if a unit divides them, else with one decimal in the largest unit below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A span of time, for people: exact if a unit divides it, else with one decimal in the largest unit below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Micros);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "")]))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")];
        f.pad(&scaled(self.0.0, &units))
    }
}

/// `value` in the largest of `units` that divides it, if that keeps the number short; else in the largest unit that is
/// not larger than it, rounded down to a tenth, because a limit must not look larger than it is.
fn scaled(value: u64, units: &[(u64, &str)]) -> String {
    const SHORT: u64 = 10_000;
    if value == 0 {
        // In the unit that would parse back: seconds are a good zero, bytes need no unit.
        return units
            .iter()
            .find(|(_, name)| *name == "s")
            .map_or("0".into(), |(_, name)| format!("0{name}"));
    }
    let exact = units.iter().find(|(factor, _)| value.is_multiple_of(*factor) && value / factor < SHORT);
    if let Some((factor, name)) = exact {
        return format!("{}{name}", value / factor);
    }
    let (factor, name) = units.iter().find(|(factor, _)| *factor <= value).unwrap_or(&(1, ""));
    let tenths = (u128::from(value) * 10 / u128::from(*factor)) as u64; // factor 1 is exact or below 2^64 * 10 / 2^10
    if *factor == 1 || tenths.is_multiple_of(10) {
        format!("{}{name}", value / factor)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_one_reading() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("4096", 4096), ("64KiB", 65_536), ("10MiB", 10 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(parse_bytes("18446744073709551615").unwrap(), u64::MAX);
        for bad in [
            "",
            " ",
            "10GB",
            "10gb",
            "10k",
            "10K",
            "10kb",
            "1.5GiB",
            "1,5GiB",
            " 10MiB",
            "10 MiB",
            "10MiB ",
            "10mib",
            "10MIB",
            "GiB",
            "-1",
            "+1",
            "-1GiB",
            "010",
            "0x10",
            "1e3",
            "1_000",
            "10TiB",
            "10B",
            "18446744073709551616",
            "17179869184GiB",
            "99999999999999999999999",
            "1GiB1MiB",
            "١",
            "10МiB",
        ] {
            assert_eq!(parse_bytes(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }

    #[test]
    fn spans_have_one_reading() {
        for (text, micros) in
            [("0s", 0), ("1ms", 1_000), ("30s", 30_000_000), ("10m", 600_000_000), ("1h", 3_600_000_000)]
        {
            assert_eq!(parse_span(text).unwrap(), Micros(micros), "{text}");
        }
        for bad in [
            "",
            "0",
            "10",
            "10M",
            "10min",
            "1d",
            "1.5h",
            " 1s",
            "1 s",
            "1s ",
            "-1s",
            "+1s",
            "01s",
            "1h30m",
            "1us",
            "18446744073709551615ms",
            "5124095577h",
        ] {
            assert_eq!(parse_span(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }

    #[test]
    fn people_read_short_numbers() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (4096, "4KiB"),
            (5000, "5000"),
            (12_345, "12KiB"),
            (64 << 20, "64MiB"),
            ((1 << 30) + 1, "1GiB"),
            (3 << 29, "1536MiB"),
            (u64::MAX, "17179869183.9GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (micros, text) in [
            (0, "0s"),
            (40, "40us"),
            (1_500, "1500us"),
            (12_340, "12.3ms"),
            (600_000_000, "10m"),
            (90_000_000, "90s"),
        ] {
            assert_eq!(Span(Micros(micros)).to_string(), text);
        }
    }

    proptest! {
        /// What prints without a fraction and parses is the same number or, rounded down, a smaller one.
        #[test]
        fn printing_never_exaggerates(value: u64) {
            if let Ok(back) = parse_bytes(&Bytes(value).to_string()) {
                prop_assert!(back <= value);
            }
            if let Ok(back) = parse_span(&Span(Micros(value)).to_string()) {
                prop_assert!(back.0 <= value);
            }
        }

        #[test]
        fn whole_units_round_trip(number in 0_u64..10_000, unit in 0_usize..4) {
            let text = format!("{number}{}", ["", "KiB", "MiB", "GiB"][unit]);
            let bytes = parse_bytes(&text).unwrap();
            prop_assert_eq!(parse_bytes(&Bytes(bytes).to_string()).unwrap(), bytes);
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<char>(), 0..100)) {
            let text = String::from_iter(text);
            let _ = parse_bytes(&text);
            let _ = parse_span(&text);
        }
    }
}
