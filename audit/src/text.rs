//! Text and times as they stand in entries.
//!
//! RFC 8785 forbids writing `U+202E` as a JSON escape, so text that a peer chose is made harmless one layer up: all
//! but printable ASCII becomes `\u{hex}` and a backslash becomes two. The mapping is one to one, so nothing is lost,
//! and a log read on a terminal cannot be turned round, coloured, or made to look like another line.

use caps::time::UnixMicros;

/// `YYYY-MM-DDThh:mm:ss.ffffffZ` has this many bytes.
pub const TIME_BYTES: usize = 27;
/// The last time that has a year of four digits, in microseconds. Later times are written as this one.
pub const TIME_MICROS_MAX: u64 = 253_402_300_800_000_000 - 1;

/// Appends at most `max` bytes of `text`, made harmless, as a JSON string with its quotes.
///
/// The cut falls on a character; one escaped character has at most 11 bytes.
pub fn push_quoted(out: &mut String, text: &str, max: usize) {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push('"');
    for c in text[..end].chars() {
        match c {
            '"' => out.push_str("\\\""),
            // Two of ours, each of which JSON doubles.
            '\\' => out.push_str("\\\\\\\\"),
            ' '..='~' => out.push(c),
            _ => {
                out.push('\\');
                out.extend(c.escape_unicode());
            }
        }
    }
    out.push('"');
}

/// Bytes from a log, or a file's name, for a terminal: everything but printable ASCII is escaped.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, ' '..='~') { out.push(c) } else { out.extend(c.escape_unicode()) }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Appends a time. Days to civil date after the proleptic Gregorian calendar, years counted from March.
pub fn push_time(out: &mut String, time: UnixMicros) {
    let micros = time.0.min(TIME_MICROS_MAX);
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01; an era is 400 years of 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    for (value, width, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (second / 3_600, 2, ':'),
        (second / 60 % 60, 2, ':'),
        (second % 60, 2, '.'),
        (fraction, 6, 'Z'),
    ] {
        push_padded(out, value, width);
        out.push(after);
    }
}

fn push_padded(out: &mut String, value: u64, width: u32) {
    for place in (0..width).rev() {
        // One decimal digit always fits.
        out.push(char::from(b'0' + (value / 10_u64.pow(place) % 10) as u8));
    }
}

/// Reads a time in exactly the form of [`push_time`].
#[must_use]
pub fn parse_time(text: &str) -> Option<UnixMicros> {
    let bytes = text.as_bytes();
    if bytes.len() != TIME_BYTES {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        bytes[from..to].iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, fraction) =
        (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 26)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let (shifted_year, month_from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let time = UnixMicros(((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + fraction);
    // The 31st of February and second 61 come out as another time: only what prints back is a time.
    let mut back = String::with_capacity(TIME_BYTES);
    push_time(&mut back, time);
    (back == text).then_some(time)
}

/// Standard base64 with padding, in its one form.
///
/// The decoder takes several padded encodings one after the other as one, so a text with `=` in its middle could be a
/// second spelling of the same bytes. Padding is therefore looked for where it may stand: in the last two places.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let inner = text.get(..text.len().saturating_sub(2))?;
    if inner.contains('=') {
        return None;
    }
    data_encoding::BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_one_form() {
        for bytes in [&b""[..], b"f", b"fo", b"foo", b"foob", &[0xff; 32], &[0; 33]] {
            assert_eq!(base64(&data_encoding::BASE64.encode(bytes)).as_deref(), Some(bytes));
        }
        // Two padded encodings in a row; unused bits; no padding; another alphabet; text that is none.
        for bad in ["Zg==Zm9v", "Zm8=Zm8=", "Zg==Zg==", "Zh==", "Zg", "Zg=", "____", "Z\u{e9}==", "="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    fn time(micros: u64) -> String {
        let mut out = String::new();
        push_time(&mut out, UnixMicros(micros));
        out
    }

    #[test]
    fn known_times() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(time(1_795_168_800_000_000), "2026-11-20T10:00:00.000000Z");
        assert_eq!(time(TIME_MICROS_MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999999Z", "capped, not longer");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2026-02-30T00:00:00.000000Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-01-01T24:00:00.000000Z",
            "2026-01-01T00:00:60.000000Z",
            "2026-01-01 00:00:00.000000Z",
            "2026-01-01T00:00:00.00000Z",
            "1969-12-31T23:59:59.999999Z",
            "+026-01-01T00:00:00.000000Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_text_is_ascii_and_one_to_one() {
        let mut seen = std::collections::BTreeSet::new();
        for text in
            ["\u{202e}gpj.exe", "\\u{202e}gpj.exe", "\u{1b}[2J", "a\"b", "a\\", "a\n", "\u{0}", "é", "\u{7f}"]
        {
            let mut out = String::new();
            push_quoted(&mut out, text, 256);
            assert!(out.bytes().all(|b| (b' '..=b'~').contains(&b)), "{out}");
            assert!(seen.insert(out.clone()), "{out}");
            let back: String = serde_json::from_str(&out).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), out, "canonical");
        }
    }

    #[test]
    fn text_is_cut_on_a_character() {
        let mut out = String::new();
        push_quoted(&mut out, "aé", 2);
        assert_eq!(out, "\"a\"");
    }

    proptest::proptest! {
        #[test]
        fn times_print_and_parse_back(micros in 0..=TIME_MICROS_MAX) {
            proptest::prop_assert_eq!(parse_time(&time(micros)), Some(UnixMicros(micros)));
        }
    }
}
