//! A scanner that accepts canonical JSON and nothing else.
//!
//! It does not build a value: it walks the bytes once and says where the members of the outermost object are. One
//! form per value is the point: two parsers cannot read the same bytes differently, and nothing hides in white space.
//!
//! Beyond RFC 8785: keys are `[a-z_]+`, numbers are integers of at most 2^53 - 1, the outermost value is an object.

/// Deepest nesting. Our entries have 2; the bound keeps the scanner's stack small.
pub const DEPTH_MAX: u32 = 16;
/// The largest integer: what a double holds exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A member of the outermost object: its key and its value's JSON.
pub type Member<'a> = (&'a str, &'a str);

/// Checks that `text` is one canonical object and hands each of its members to `member`.
///
/// # Errors
/// What is wrong, in words of ours.
pub fn object<'a>(text: &'a str, mut member: impl FnMut(Member<'a>)) -> Result<(), &'static str> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.members(0, &mut |key, value| member((key, value)))?;
    if scanner.at == text.len() { Ok(()) } else { Err("bytes after the object") }
}

/// The text of a JSON string in canonical form, unescaped.
#[must_use]
pub fn unquote(json: &str) -> Option<String> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let digits: String = rest.by_ref().take(4).collect();
                char::from(u8::from_str_radix(&digits, 16).ok()?)
            }
            other => other,
        });
    }
    Some(out)
}

struct Scanner<'a> {
    text: &'a str,
    /// Byte position; always on a character's border.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err("a byte that canonical JSON does not have here")
        }
    }

    fn members(&mut self, depth: u32, member: &mut dyn FnMut(&'a str, &'a str)) -> Result<(), &'static str> {
        self.take(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last = "";
        loop {
            let key = self.key()?;
            if key <= last {
                return Err("keys out of order, or one twice");
            }
            last = key;
            self.take(b':')?;
            let start = self.at;
            self.value(depth + 1)?;
            member(key, &self.text[start..self.at]);
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(());
            }
            self.take(b',')?;
        }
    }

    fn key(&mut self) -> Result<&'a str, &'static str> {
        self.take(b'"')?;
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'_')) {
            self.at += 1;
        }
        let key = &self.text[start..self.at];
        self.take(b'"').map_err(|_| "a key has only a to z and the underscore")?;
        if key.is_empty() { Err("an empty key") } else { Ok(key) }
    }

    fn value(&mut self, depth: u32) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("nested too deep");
        }
        match self.peek().ok_or("ends in the middle")? {
            b'{' => self.members(depth, &mut |_, _| ()),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.integer(),
            _ => ["true", "false", "null"]
                .into_iter()
                .find(|word| self.text.as_bytes()[self.at..].starts_with(word.as_bytes()))
                .map(|word| self.at += word.len())
                .ok_or("no value starts so"),
        }
    }

    fn array(&mut self, depth: u32) -> Result<(), &'static str> {
        self.take(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(());
            }
            self.take(b',')?;
        }
    }

    fn string(&mut self) -> Result<(), &'static str> {
        self.take(b'"')?;
        loop {
            // Bytes of longer characters are all above 0x7f, so the text needs no decoding here.
            match self.peek().ok_or("a string without an end")? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                0..=0x1f => return Err("a control character in a string"),
                _ => self.at += 1,
            }
        }
    }

    /// The one escape that each character has: the short form where there is one.
    fn escape(&mut self) -> Result<(), &'static str> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..]
            | [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return Err("an escape that canonical JSON does not use"),
        };
        Ok(())
    }

    fn integer(&mut self) -> Result<(), &'static str> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value * 10 + u64::from(digit - b'0'); // at most 10 * 2^53: cannot wrap
            if value > INTEGER_MAX {
                return Err("an integer past 2^53 - 1");
            }
            self.at += 1;
        }
        let digits = &self.text.as_bytes()[start..self.at];
        match digits {
            [] => Err("a minus without digits"),
            [b'0'] if negative => Err("minus zero"),
            [b'0', _, ..] => Err("a leading zero"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        object(text, |_| ()).is_ok()
    }

    /// The same rules on top of serde_json: parse, check the limits, print, compare.
    fn oracle(text: &str) -> bool {
        fn within(value: &serde_json::Value, depth: u32) -> bool {
            depth <= DEPTH_MAX
                && match value {
                    serde_json::Value::Number(n) => {
                        let integer = n.as_u64().or_else(|| n.as_i64().map(i64::unsigned_abs));
                        integer.is_some_and(|n| n <= INTEGER_MAX)
                    }
                    serde_json::Value::Array(items) => items.iter().all(|item| within(item, depth + 1)),
                    serde_json::Value::Object(members) => members.iter().all(|(key, value)| {
                        !key.is_empty()
                            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                            && within(value, depth + 1)
                    }),
                    _ => true,
                }
        }
        serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| {
            value.is_object() && within(&value, 0) && serde_json::to_string(&value).unwrap() == text
        })
    }

    #[test]
    fn only_one_form_of_each_value() {
        for good in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":-1,"b":[],"c":{},"d":[1,[2]],"e":null,"f":true,"g":false}"#,
            "{\"a\":\"\\u0000\\u001f\\b\\t\\n\\f\\r\\\"\\\\\u{7f}é/\"}",
            r#"{"a":9007199254740991}"#,
            r#"{"_":0,"a":0}"#,
        ] {
            assert!(accepts(good) && oracle(good), "{good}");
        }
        for (depth, fits) in [(16, true), (17, false), (5_000, false)] {
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!((accepts(&deep), oracle(&deep)), (fits, fits), "{depth}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "{} ",
            " {}",
            r#"{"a":1,}"#,
            r#"{"a" :1}"#,
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"A":1}"#,
            r#"{"":1}"#,
            r#"{"a1":1}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":-}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":99999999999999999999999}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\u000a"}"#,
            r#"{"a":"\u001F"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\u202e"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"#,
            r#"{"a":"x"#,
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 ]}"#,
            "{\"a\":1}\n",
        ] {
            assert!(!accepts(bad) && !oracle(bad), "{bad}");
        }
    }

    #[test]
    fn unquote_undoes_the_escapes() {
        let text = "\u{0}\u{1f}\u{8}\t\n\u{c}\r\"\\\u{7f}é";
        assert_eq!(unquote(&serde_json::to_string(text).unwrap()).unwrap(), text);
    }

    proptest! {
        /// Text made of the pieces that matter, so that many cases are nearly canonical.
        #[test]
        fn agrees_with_a_second_opinion(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"c\":", "\"a\":", "\"", "0", "1", "-", "9", "\\u00",
            "1f", "\\n", "\\", "true", "null", " ", "é", "\u{202e}", ".5", "e1",
        ]), 0..14)) {
            let text = format!("{{\"a\":{}", pieces.concat());
            prop_assert_eq!(accepts(&text), oracle(&text), "{}", text);
        }

        #[test]
        fn one_changed_byte(at in 0usize..60, with in any::<u8>()) {
            let mut bytes = br#"{"a":["x\n",-12,{"b":"\u0001"}],"c":null,"d_e":"0123"}"#.to_vec();
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert_eq!(accepts(&text), oracle(&text), "{}", text);
            }
        }
    }
}
