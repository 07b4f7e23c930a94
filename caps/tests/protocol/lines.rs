//! Bytes as the document shows them: groups of hexadecimal digits, and behind `#` what they are.

/// Where the explanation begins, in characters.
const COLUMN: usize = 50;
/// Bytes of a longer string that stand in one line.
const LINE_BYTES: usize = 32;

/// A few bytes that belong together.
pub(crate) struct Line {
    pub(crate) groups: Vec<Vec<u8>>,
    note: String,
}

impl Line {
    pub(crate) fn new<const N: usize>(groups: [&[u8]; N], note: impl Into<String>) -> Self {
        Self { groups: groups.into_iter().map(<[u8]>::to_vec).collect(), note: note.into() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.groups.concat()
    }

    /// As text. Bytes that fill more than a line stand below each other, the explanation beside the last.
    pub(crate) fn text(&self) -> String {
        let mut rows: Vec<String> = vec![String::new()];
        let mut used = 0;
        for group in &self.groups {
            for piece in group.chunks(LINE_BYTES) {
                if used + piece.len() > LINE_BYTES {
                    rows.push(String::new());
                    used = 0;
                }
                let row = rows.last_mut().expect("there is a first");
                if !row.is_empty() {
                    row.push(' ');
                }
                row.push_str(&data_encoding::HEXLOWER.encode(piece));
                used += piece.len();
            }
        }
        let last = rows.pop().expect("there is a first");
        let mut text: String = rows.into_iter().map(|row| row + "\n").collect();
        text.push_str(format!("{last:COLUMN$} # {}", self.note).trim_end_matches([' ', '#']));
        text.push('\n');
        text
    }
}

/// The bytes of a region, and what they spell.
pub(crate) fn data(bytes: &[u8]) -> Line {
    Line::new([bytes], format!("bytes of the region: {:?}", String::from_utf8_lossy(bytes)))
}

/// CBOR, item by item: the items of a map and a list are indented in what is said of them.
pub(crate) fn cbor(bytes: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let rest = item(bytes, 0, None, &mut lines);
    assert!(rest.is_empty(), "one value");
    lines
}

/// Shows one item, after the key that it belongs to, and returns what follows it.
fn item<'a>(bytes: &'a [u8], depth: usize, key: Option<(&[u8], String)>, lines: &mut Vec<Line>) -> &'a [u8] {
    let (head, number, rest) = head(bytes);
    let (mut groups, mut note) = (Vec::new(), "  ".repeat(depth));
    if let Some((bytes, name)) = key {
        groups.push(bytes.to_vec());
        note += &format!("{name}: ");
    }
    groups.push(head.to_vec());
    let length = usize::try_from(number).unwrap_or(usize::MAX);
    match head[0] >> 5 {
        0 => lines.push(Line { groups, note: note + &number.to_string() }),
        2 | 3 => {
            let (content, rest) = rest.split_at(length);
            note += &if head[0] >> 5 == 3 {
                format!("{:?}", std::str::from_utf8(content).expect("text"))
            } else {
                format!("{length} bytes")
            };
            groups.push(content.to_vec());
            lines.push(Line { groups, note });
            return rest;
        }
        4 => {
            lines.push(Line { groups, note: note + &format!("list of {length}") });
            return (0..length).fold(rest, |rest, _| item(rest, depth + 1, None, lines));
        }
        5 => {
            lines.push(Line { groups, note: note + &format!("map of {length}") });
            return (0..length).fold(rest, |bytes, _| {
                let (key_head, length, content) = self::head(bytes);
                assert_eq!(key_head[0] >> 5, 3, "keys are texts");
                let (name, rest) = content.split_at(length as usize);
                let name = std::str::from_utf8(name).expect("text").to_owned();
                item(rest, depth + 1, Some((&bytes[..bytes.len() - rest.len()], name)), lines)
            });
        }
        _ => {
            let word = match head {
                [0xf4] => "false",
                [0xf5] => "true",
                [0xf6] => "null",
                other => panic!("{other:?} is in no message of ours"),
            };
            lines.push(Line { groups, note: note + word });
        }
    }
    rest
}

/// The first byte of an item with the number behind it, that number, and what follows.
fn head(bytes: &[u8]) -> (&[u8], u64, &[u8]) {
    let more = match bytes[0] & 0x1f {
        small @ 0..=23 => return (&bytes[..1], u64::from(small), &bytes[1..]),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => panic!("no length is left open in a message of ours"),
    };
    let number = bytes[1..=more].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    (&bytes[..=more], number, &bytes[1 + more..])
}
