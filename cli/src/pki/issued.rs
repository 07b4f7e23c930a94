//! What an authority has issued. Without it a certificate could not be found to be revoked, or renewed as it was.

use std::collections::BTreeMap;
use std::path::Path;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;
use caps::wire::Name;
use serde::{Deserialize, Serialize};
use transport::PeerId;

use crate::files;

/// Most certificates that one authority knows of; those whose time is over make room.
const ISSUED_MAX: usize = 10_000;
/// Largest file in bytes: an entry has at most 400.
const FILE_BYTES_MAX: usize = 400 * ISSUED_MAX;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issued {
    /// Its identity.
    pub(crate) id: String,
    /// Until when it is good.
    pub(crate) until: UnixMicros,
    /// Since when it is believed no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<UnixMicros>,
    /// The authority that issued it; not on record in books of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// All of them, by serial number.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Book(BTreeMap<u64, Issued>);

impl Book {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = files::read_secret(path, FILE_BYTES_MAX)?;
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            Error::with(
                Code::ConfigSyntax,
                format!("{}:{line}:{column}: no list of certificates", files::show(path)),
            )
        })
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self).map_err(|_| Code::Internal)?;
        files::replace(path, &format!("{text}\n"))
    }

    /// Takes a certificate on record, before anybody has it.
    pub(super) fn add(&mut self, serial: u64, issued: Issued, now: UnixMicros) -> Result<()> {
        self.0.retain(|_, old| old.until > now);
        if self.0.len() >= ISSUED_MAX {
            return Err(Error::new(Code::Quota, "10,000 certificates are in use, which is the most"));
        }
        if self.0.insert(serial, issued).is_some() {
            return Err(Error::new(Code::Internal, "a serial number was drawn twice"));
        }
        Ok(())
    }

    /// The certificates that are in use, oldest serial first.
    pub(super) fn in_use(&self, now: UnixMicros) -> impl Iterator<Item = (u64, &Issued)> {
        self.0.iter().filter(move |(_, issued)| issued.until > now).map(|(&serial, issued)| (serial, issued))
    }

    /// The newest certificate of a name that is good.
    pub(super) fn good(&self, name: &Name, now: UnixMicros) -> Option<(u64, &Issued)> {
        let of_name = |issued: &Issued| PeerId::parse(&issued.id).is_ok_and(|id| id.name == *name);
        let good = self.in_use(now).filter(|(_, issued)| issued.revoked.is_none() && of_name(issued));
        good.max_by_key(|(_, issued)| issued.until)
    }

    /// The certificate that is good for longest of those that this authority did not issue, as far as is known.
    pub(super) fn not_by(&self, authority: &str, now: UnixMicros) -> Option<&Issued> {
        let good = self.in_use(now).map(|(_, issued)| issued).filter(|issued| issued.revoked.is_none());
        good.filter(|issued| issued.by.as_deref() != Some(authority)).max_by_key(|issued| issued.until)
    }

    /// Revokes all certificates of an identity. Returns how many were good until now.
    pub(super) fn revoke(&mut self, id: &PeerId, now: UnixMicros) -> usize {
        let id = id.to_string();
        let good = self.0.values_mut().filter(|issued| issued.id == id && issued.revoked.is_none());
        good.map(|issued| issued.revoked = Some(now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(id: &str, until: u64) -> Issued {
        Issued { id: id.into(), until: UnixMicros(until), revoked: None, by: None }
    }

    #[test]
    fn what_is_over_makes_room_and_what_is_revoked_stays_known() {
        let mut book = Book::default();
        let alice = PeerId::parse("spiffe://a/principal/alice").unwrap();
        book.add(1, issued(&alice.to_string(), 10), UnixMicros(1)).unwrap();
        book.add(2, issued("spiffe://a/principal/bob", 20), UnixMicros(1)).unwrap();
        assert_eq!(book.revoke(&alice, UnixMicros(5)), 1);
        assert_eq!(book.revoke(&alice, UnixMicros(6)), 0, "once");
        book.add(3, issued("spiffe://a/principal/carol", 30), UnixMicros(9)).unwrap();
        let in_use: Vec<_> = book.in_use(UnixMicros(9)).map(|(serial, _)| serial).collect();
        assert_eq!(in_use, [1, 2, 3]);
        book.add(4, issued("spiffe://a/principal/dave", 30), UnixMicros(10)).unwrap();
        assert_eq!(book.0.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(book.add(4, issued("x", 30), UnixMicros(10)).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn a_book_reads_as_it_was_written_and_damage_has_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("issued.json");
        let mut book = Book::default();
        book.add(7, issued("spiffe://a/principal/alice", 10), UnixMicros(1)).unwrap();
        book.write(&path).unwrap();
        assert_eq!(Book::read(&path).unwrap(), book);
        files::replace(&path, "{\n \"7\": 1}").unwrap();
        let refused = Book::read(&path).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigSyntax);
        assert!(refused.detail().contains("issued.json:2:"), "{refused:?}");
    }
}
