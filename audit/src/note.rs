//! Checkpoints: three lines under at least one signature.
//!
//! ```text
//! <origin>
//! <size>
//! <base64 of the root>
//!
//! — <key name> <base64 of key id and signature>
//! ```

use caps::error::{Code, Error, Result};

use crate::entry::parse_counter;
use crate::hash::Hash;
use crate::key::{LogKey, Origin, Role, Vkey};

/// Largest checkpoint in bytes: one hundred signature lines of the longest name.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signature lines. Verifiers must accept 16; others cap at 100.
pub const SIGNATURES_MAX: usize = 100;
/// Largest size of a tree: sizes are signed 63-bit numbers elsewhere.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// How many entries.
    pub size: u64,
    /// Their root.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed text: the three lines.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.base64())
    }

    /// The note, signed by each of `keys`.
    #[must_use]
    pub fn sign<'a>(&self, keys: impl IntoIterator<Item = &'a LogKey>) -> String {
        let body = self.body();
        let mut note = format!("{body}\n");
        for key in keys {
            let signed = [&key.vkey(&self.origin).id()[..], &key.sign(body.as_bytes())].concat();
            note.push_str(&format!("\u{2014} {} {}\n", self.origin, data_encoding::BASE64.encode(&signed)));
        }
        note
    }
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; 4],
    /// What follows the key id: a signature, or a time and a signature.
    rest: Vec<u8>,
}

/// A note that was read and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    checkpoint: Checkpoint,
    lines: Vec<Line>,
}

/// A checkpoint whose signature by a given log key holds. Made by [`Note::verify`] and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    checkpoint: Checkpoint,
    keys: Vec<String>,
    witnesses: Vec<(String, u64)>,
}

impl Signed {
    /// What was signed.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The vkeys of the log that signed it.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The given witnesses that signed it too, with the time of each in seconds since 1970.
    #[must_use]
    pub fn witnesses(&self) -> &[(String, u64)] {
        &self.witnesses
    }
}

const fn body_error(detail: &'static str) -> Error {
    Error::new(Code::CheckpointBody, detail)
}

impl Note {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// `E_CP_BODY` if the bytes are not exactly a checkpoint of our logs: three lines, a blank one, signature lines.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(body_error("larger than any checkpoint"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| body_error("not UTF-8"))?;
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(body_error("a control character"));
        }
        let (body, signatures) = text.split_once("\n\n").ok_or(body_error("no blank line after the text"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(body_error("not three lines"));
        };
        let checkpoint = Checkpoint {
            origin: Origin::parse(origin).map_err(|_| body_error("no name of a log"))?,
            size: parse_counter(size).filter(|n| *n <= SIZE_MAX).ok_or(body_error("no size"))?,
            root: Hash::from_base64(root).ok_or(body_error("no root"))?,
        };
        let signatures = signatures.strip_suffix('\n').ok_or(body_error("the last line has no end"))?;
        if signatures.split('\n').count() > SIGNATURES_MAX {
            return Err(body_error("too many signatures"));
        }
        let lines = signatures.split('\n').map(Line::parse).collect::<Option<_>>();
        Ok(Self { checkpoint, lines: lines.ok_or(body_error("a line that is no signature"))? })
    }

    /// What the note claims.
    #[must_use]
    pub const fn claimed(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Checks every signature line whose key is among `vkeys`; other lines are ignored.
    ///
    /// # Errors
    /// `E_CP_UNSIGNED` if a line of a given key does not verify, or no given log key of the origin's name signed.
    pub fn verify(&self, vkeys: &[Vkey]) -> Result<Signed> {
        let body = self.checkpoint.body();
        let (mut keys, mut witnesses) = (Vec::new(), Vec::new());
        for line in &self.lines {
            let known = vkeys.iter().find(|vkey| vkey.name().as_str() == line.name && vkey.id() == line.id);
            let Some(vkey) = known else { continue };
            let bad = Error::new(Code::CheckpointUnsigned, "a signature of a given key does not verify");
            match vkey.role() {
                Role::Log => {
                    let signature = line.rest[..].try_into().map_err(|_| bad.clone())?;
                    if !vkey.verifies(body.as_bytes(), signature) {
                        return Err(bad);
                    }
                    if *vkey.name() == self.checkpoint.origin {
                        keys.push(vkey.to_string());
                    }
                }
                Role::Witness => {
                    let (time, signature) = line.rest.split_first_chunk::<8>().ok_or_else(|| bad.clone())?;
                    let time = u64::from_be_bytes(*time);
                    let signature = signature.try_into().map_err(|_| bad.clone())?;
                    let message = format!("cosignature/v1\ntime {time}\n{body}");
                    if time == 0 || time > SIZE_MAX || !vkey.verifies(message.as_bytes(), signature) {
                        return Err(bad);
                    }
                    witnesses.push((vkey.to_string(), time));
                }
            }
        }
        if keys.is_empty() {
            return Err(Error::new(
                Code::CheckpointUnsigned,
                "no given key of this log signed the checkpoint",
            ));
        }
        Ok(Signed { checkpoint: self.checkpoint.clone(), keys, witnesses })
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let bytes = crate::text::base64(encoded)?;
        let (id, rest) = bytes.split_first_chunk::<4>()?;
        let named = !name.is_empty() && !name.contains('+') && !name.chars().any(char::is_whitespace);
        (named && !rest.is_empty()).then(|| Self { name: name.to_owned(), id: *id, rest: rest.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (LogKey, Vkey, String) {
        let origin = Origin::parse("a.example/audit").unwrap();
        let key = LogKey::from_seed(&[5; 32]);
        let vkey = key.vkey(&origin);
        let note = Checkpoint { origin, size: 7, root: Hash([9; 32]) }.sign([&key]);
        (key, vkey, note)
    }

    #[test]
    fn a_note_reads_back() {
        let (_, vkey, note) = signed();
        let read = Note::parse(note.as_bytes()).unwrap();
        let signed = read.verify(std::slice::from_ref(&vkey)).unwrap();
        assert_eq!(signed.checkpoint().size, 7);
        assert_eq!(signed.keys(), [vkey.to_string()]);
        assert!(signed.witnesses().is_empty());
    }

    #[test]
    fn bodies_that_are_none() {
        let (_, _, note) = signed();
        for (from, to) in [
            ("\n7\n", "\n07\n"),
            ("\n7\n", "\n+7\n"),
            ("\n7\n", "\n\n"),
            ("\n7\n", "\n9223372036854775808\n"),
            ("\n7\n", "\n99999999999999999999999999999999\n"),
            ("\n7\n", "\n7\r\n"),
            ("\n7\n", "\n7 \n"),
            ("CQk=\n", "CQl=\n"),
            ("CQk=\n", "CQk\n"),
            ("CQkJCQkJ", "CQkJCQ=="),
            ("CQk=\n\n", "CQk=\nextension\n\n"),
            ("a.example/audit\n", "\n"),
            ("a.example/audit\n", "a example\n"),
            ("CQk=\n\n", "CQk=\n"),
            ("\u{2014}", "-"),
        ] {
            let bad = note.replacen(from, to, 1);
            assert_ne!(bad, note, "{from}");
            assert_eq!(Note::parse(bad.as_bytes()).unwrap_err().code(), Code::CheckpointBody, "{bad}");
        }
        assert!(Note::parse(note.trim_end().as_bytes()).is_err());
        assert!(Note::parse(&[0xff]).is_err());
        let many = note.clone() + &"\u{2014} x AAAAAAA=\n".repeat(SIGNATURES_MAX);
        assert!(Note::parse(many.as_bytes()).is_err());
        let sixteen = note + &"\u{2014} x AAAAAAA=\n".repeat(16);
        assert!(Note::parse(sixteen.as_bytes()).is_ok());
    }

    #[test]
    fn signatures_that_are_none() {
        let (_, vkey, note) = signed();
        let vkeys = [vkey];
        let code = |note: &str, vkeys: &[Vkey]| {
            Note::parse(note.as_bytes()).unwrap().verify(vkeys).unwrap_err().code()
        };
        assert_eq!(code(&note, &[]), Code::CheckpointUnsigned);
        assert_eq!(code(&note.replacen("\n7\n", "\n8\n", 1), &vkeys), Code::CheckpointUnsigned);
        let other = LogKey::from_seed(&[6; 32]);
        let same_name = other.vkey(vkeys[0].name());
        assert_eq!(code(&note, &[same_name]), Code::CheckpointUnsigned, "other key, same name");
        let elsewhere = Origin::parse("b.example/audit").unwrap();
        let body = Checkpoint { origin: elsewhere, size: 7, root: Hash([9; 32]) }.body();
        let lines = note.split_once("\n\n").unwrap().1;
        assert_eq!(code(&format!("{body}\n{lines}"), &vkeys), Code::CheckpointUnsigned, "another log's text");
        // An unknown line before the good one is ignored, a broken line of a known key is not.
        let unknown = note.replacen("\n\n", "\n\n\u{2014} w.example AAAAAAA=\n", 1);
        assert!(Note::parse(unknown.as_bytes()).unwrap().verify(&vkeys).is_ok());
        let id = data_encoding::BASE64.encode(&[&vkeys[0].id()[..], &[0; 64]].concat());
        let broken = format!("{note}\u{2014} a.example/audit {id}\n");
        assert_eq!(code(&broken, &vkeys), Code::CheckpointUnsigned);
    }
}
