//! Reading an entry back, strictly.

use caps::time::UnixMicros;

use crate::draft::ENTRY_BYTES_MAX;
use crate::event::{Event, Outcome};
use crate::hash::Hash;
use crate::scan;
use crate::text::parse_time;

/// An entry that was checked: canonical, with every required field in its form.
///
/// Holding one says nothing about the log: that `seq` and `prev` fit their place is for whoever knows the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    text: &'a str,
    seq: u64,
    prev: Hash,
    time: UnixMicros,
    event: Event,
    outcome: Outcome,
    node: &'a str,
    code: &'a str,
}

impl<'a> Entry<'a> {
    /// Checks the bytes of one entry.
    ///
    /// # Errors
    /// What is wrong, in words of ours; never bytes of the entry.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        if !(2..=ENTRY_BYTES_MAX).contains(&bytes.len()) {
            return Err("an entry has 2 to 65,535 bytes");
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
        let mut found = Required::default();
        scan::object(text, |member| found.note(member))?;
        if found.v != Some("1") {
            return Err("the entry's version is not 1");
        }
        let outcome = found.outcome.and_then(plain).and_then(Outcome::from_name).ok_or("no known outcome")?;
        let code = found.code.and_then(plain).filter(|code| is_code(code)).ok_or("no code")?;
        if (outcome == Outcome::Ok) != (code == "OK") {
            return Err("outcome and code disagree");
        }
        Ok(Self {
            text,
            seq: found.seq.and_then(plain).and_then(parse_counter).ok_or("no sequence number")?,
            prev: found.prev.and_then(plain).and_then(Hash::from_hex).ok_or("no hash of the entry before")?,
            time: found.time.and_then(plain).and_then(parse_time).ok_or("no time")?,
            event: found.event.and_then(plain).and_then(Event::from_name).ok_or("no known event")?,
            node: found.node.and_then(plain).filter(|node| !node.is_empty()).ok_or("no node")?,
            outcome,
            code,
        })
    }

    /// The entry's bytes, as text.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The place it claims.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The leaf hash of the entry before, as it claims.
    #[must_use]
    pub const fn prev(&self) -> Hash {
        self.prev
    }

    /// When.
    #[must_use]
    pub const fn time(&self) -> UnixMicros {
        self.time
    }

    /// What.
    #[must_use]
    pub const fn event(&self) -> Event {
        self.event
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The code's text: `OK` or `E_...`.
    #[must_use]
    pub const fn code(&self) -> &'a str {
        self.code
    }

    /// The node that recorded it.
    #[must_use]
    pub const fn node(&self) -> &'a str {
        self.node
    }

    /// The JSON of a member.
    #[must_use]
    pub fn json(&self, key: &str) -> Option<&'a str> {
        let mut found = None;
        // Checked when the entry was parsed.
        let _ = scan::object(self.text, |(k, value)| {
            if k == key {
                found = Some(value);
            }
        });
        found
    }

    /// The text of a member that is a string. Peers' text in it is escaped for terminals.
    #[must_use]
    pub fn string(&self, key: &str) -> Option<String> {
        self.json(key).and_then(scan::unquote)
    }
}

/// The JSON of the fields that every entry has.
#[derive(Default)]
struct Required<'a> {
    code: Option<&'a str>,
    event: Option<&'a str>,
    node: Option<&'a str>,
    outcome: Option<&'a str>,
    prev: Option<&'a str>,
    seq: Option<&'a str>,
    time: Option<&'a str>,
    v: Option<&'a str>,
}

impl<'a> Required<'a> {
    fn note(&mut self, (key, value): scan::Member<'a>) {
        let slot = match key {
            "code" => &mut self.code,
            "event" => &mut self.event,
            "node" => &mut self.node,
            "outcome" => &mut self.outcome,
            "prev" => &mut self.prev,
            "seq" => &mut self.seq,
            "time" => &mut self.time,
            "v" => &mut self.v,
            _ => return,
        };
        *slot = Some(value);
    }
}

/// The inside of a string that needs no unescaping: all required fields are of this kind.
fn plain(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.contains('\\'))
}

fn is_code(text: &str) -> bool {
    text == "OK"
        || text.strip_prefix("E_").is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
}

/// A decimal number without sign or leading zeros.
pub(crate) fn parse_counter(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let leading = text.len() > 1 && text.starts_with('0');
    (digits && !leading).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = concat!(
        r#"{"code":"OK","event":"lease.grant","node":"n","outcome":"ok","prev":""#,
        "0000000000000000000000000000000000000000000000000000000000000000",
        r#"","reason":"a\nb","seq":"0","time":"2026-11-20T10:00:00.000000Z","v":1}"#
    );

    #[test]
    fn a_good_entry_is_read() {
        let entry = Entry::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((entry.seq(), entry.event(), entry.code()), (0, Event::LeaseGrant, "OK"));
        assert_eq!(entry.string("reason").as_deref(), Some("a\nb"));
        assert_eq!(entry.json("v"), Some("1"));
        assert_eq!(entry.json("lease"), None);
    }

    #[test]
    fn every_required_field_is_required_and_checked() {
        for (from, to) in [
            ("\"v\":1", "\"v\":2"),
            ("\"v\":1", "\"v\":\"1\""),
            ("\"seq\":\"0\"", "\"seq\":\"00\""),
            ("\"seq\":\"0\"", "\"seq\":\"+0\""),
            ("\"seq\":\"0\"", "\"seq\":0"),
            ("\"seq\":\"0\"", "\"seq\":\"\""),
            ("\"seq\":\"0\"", "\"seq\":\"18446744073709551616\""),
            ("lease.grant", "lease.grants"),
            ("\"outcome\":\"ok\"", "\"outcome\":\"deny\""),
            ("\"OK\"", "\"E_QUOTA\""),
            ("\"OK\"", "\"fine\""),
            ("10:00:00", "10:00:60"),
            (",\"v\":1", ""),
            ("\"node\":\"n\",", ""),
            ("\"node\":\"n\"", "\"node\":\"\""),
            ("\"0000", "\"000"),
            ("\"0000", "\"A000"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert!(Entry::parse(bad.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(Entry::parse(b"{").is_err());
        assert!(Entry::parse(&[b' '; ENTRY_BYTES_MAX + 1]).is_err());
    }
}
