//! Who a certificate says that somebody is: a URI of the form that SPIFFE gives them.
//!
//! ```text
//! spiffe://DOMAIN/principal/NAME            a client; its key is the one that the node registered under that name
//! spiffe://DOMAIN/principal/NAME/KEY        a client; its key is named by who signed the certificate
//! spiffe://DOMAIN/provider/NAME             a node that has memory
//! spiffe://DOMAIN/broker/NAME               a node that decides
//! ```

use std::fmt;

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::wire::Name;

/// Longest trust domain in bytes, as the SPIFFE specification has it.
const DOMAIN_BYTES_MAX: usize = 255;
/// Longest identity in bytes; the specification lets nobody send a longer one.
const ID_BYTES_MAX: usize = 2_048;

/// A trust domain: whose certificates believe each other. Lower-case letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

impl Domain {
    /// Checks a text.
    ///
    /// # Errors
    /// `E_RANGE` if it is no trust domain.
    pub fn new(text: &str) -> Result<Self> {
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if !text.is_empty() && text.len() <= DOMAIN_BYTES_MAX && text.bytes().all(inside) {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(Code::Range, "a trust domain is 1 to 255 characters of a-z 0-9 . - _"))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds leases.
    Principal,
    /// Has memory.
    Provider,
    /// Decides.
    Broker,
}

impl Role {
    const ALL: [Self; 3] = [Self::Principal, Self::Provider, Self::Broker];

    /// As it stands in an identity.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Provider => "provider",
            Self::Broker => "broker",
        }
    }
}

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// Whose word it is.
    pub domain: Domain,
    /// What it is.
    pub role: Role,
    /// Which of them.
    pub name: Name,
    /// The key of a principal, where the certificate names it.
    pub key: Option<PrincipalKey>,
}

impl PeerId {
    /// Reads an identity. One identity has one spelling: nothing is unescaped, folded or cut off.
    ///
    /// # Errors
    /// `E_PEER_IDENTITY` if it is none of ours.
    pub fn parse(uri: &str) -> Result<Self> {
        let none = || Error::new(Code::PeerIdentity, "the certificate's URI is no identity of this system");
        if uri.len() > ID_BYTES_MAX {
            return Err(none());
        }
        let (domain, path) =
            uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or_else(none)?;
        let domain = Domain::new(domain).map_err(|_| none())?;
        let mut parts = path.split('/');
        let role = parts.next().and_then(|part| Role::ALL.into_iter().find(|role| role.name() == part));
        let name = parts.next().and_then(|part| Name::new(part).ok());
        let (Some(role), Some(name)) = (role, name) else { return Err(none()) };
        let key = match (parts.next(), role) {
            (None, _) => None,
            (Some(hex), Role::Principal) => Some(key(hex).ok_or_else(none)?),
            (Some(_), Role::Provider | Role::Broker) => return Err(none()),
        };
        if parts.next().is_some() {
            return Err(none());
        }
        Ok(Self { domain, role, name, key })
    }
}

fn key(hex: &str) -> Option<PrincipalKey> {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok().map(PrincipalKey)
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.domain, self.role.name(), self.name)?;
        match self.key {
            Some(key) => write!(f, "/{}", data_encoding::HEXLOWER.encode(&key.0)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_as_they_are_written() {
        let key = "0707070707070707070707070707070707070707070707070707070707070707";
        let with_key = format!("spiffe://mem.example/principal/alice/{key}");
        for uri in [
            "spiffe://mem.example/principal/alice",
            &with_key,
            "spiffe://a/provider/node-1",
            "spiffe://a_b.c/broker/_x",
        ] {
            assert_eq!(PeerId::parse(uri).unwrap().to_string(), uri);
        }
        assert_eq!(PeerId::parse(&with_key).unwrap().key, Some(PrincipalKey([7; 32])));
    }

    #[test]
    fn d4_what_is_no_identity_is_refused() {
        let long = format!("spiffe://a/principal/{}", "a".repeat(65));
        let huge = format!("spiffe://a/principal/{}", "a".repeat(65_536));
        let short_key = format!("spiffe://a/principal/alice/{}", "07".repeat(31));
        let loud_key = format!("spiffe://a/principal/alice/{}", "AB".repeat(32));
        let node_key = format!("spiffe://a/provider/n/{}", "07".repeat(32));
        let trailing = format!("spiffe://a/principal/alice/{}/", "07".repeat(32));
        for uri in [
            "",
            "alice",
            "spiffe://",
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///principal/alice",
            "SPIFFE://a/principal/alice",
            "https://a/principal/alice",
            "spiffe://A/principal/alice",
            "spiffe://a:1/principal/alice",
            "spiffe://u@a/principal/alice",
            "spiffe://*/principal/alice",
            "spiffe://a/principal/*",
            "spiffe://a/principal/al%69ce",
            "spiffe://a/principal/alice/",
            "spiffe://a/principal/alice?x",
            "spiffe://a/principal/alice#x",
            "spiffe://a/principal/alice\0",
            "spiffe://a/principal//alice",
            "spiffe://a/principal/../broker/b",
            "spiffe://a/admin/alice",
            "spiffe://a/Principal/alice",
            "spiffe://a/principal/älice",
            " spiffe://a/principal/alice",
            &long,
            &huge,
            &short_key,
            &loud_key,
            &node_key,
            &trailing,
        ] {
            let refused = PeerId::parse(uri).map_err(|error| error.code());
            assert_eq!(refused, Err(Code::PeerIdentity), "{:.60}", uri.escape_debug());
        }
    }
}
