//! Providers as the control plane knows them: what one says of itself, how it is, and why a lease was placed on it.
//!
//! ```text
//! provider ── Registration ──▶ broker      once in its life
//!          ── Load ──────────▶             with every heartbeat
//! client   ◀─ ProviderRow ────             in the node's status
//!          ◀─ Placement ──────             with a lease that is shown
//! ```
//!
//! What a client is told may have fields that it does not know, and it passes over them; what broker and provider say to
//! each other may not.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{ProviderId, Seat};
use crate::limits::{ADDRESS_BYTES_MAX, PROVIDER_CLASSES_MAX};
use crate::time::Micros;
use crate::wire::Name;

/// Where a provider's clients reach it over TLS: `HOST:PORT`, the host a name, an IPv4 address, or an IPv6 address in
/// brackets. Only its shape is checked; nothing is looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Box<str>);

impl Address {
    /// Checks a text.
    ///
    /// # Errors
    /// `E_RANGE` if it is no address.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = Error::new(Code::Range, "an address is HOST:PORT, an IPv6 host in brackets");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong.clone())?;
        let named = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host_fits =
            bracketed.map_or_else(|| named(host), |inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        // `parse` alone would take a sign.
        let port_fits =
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if host_fits && port_fits && text.len() <= ADDRESS_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(wrong)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.into()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What a provider says of itself when it comes. None of it changes while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// This life of it. Drawn when its process starts, and never used again once it ended.
    pub id: ProviderId,
    /// What it is called, through all its lives.
    pub name: Name,
    /// Where clients reach it; `None` if only at the socket of its own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Bytes that it leases at most, those being taken back included.
    pub bytes: u64,
    /// Regions that it has at most.
    pub regions: u32,
    /// The only classes whose leases it takes, each once; none: it takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Name>,
    /// Where it stands: a label of the operator's, such as a room or a zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Name>,
    /// Where its state is. A life whose seat is that of the one before proves that the one before has ended; one of another
    /// seat, or of none, proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
}

impl Registration {
    /// Checks what a decoder does not.
    ///
    /// # Errors
    /// `E_RANGE` for no bytes, no regions, too many classes, or one class twice.
    pub fn check(&self) -> Result<()> {
        if self.bytes == 0 || self.regions == 0 {
            return Err(Error::new(Code::Range, "a provider has at least one byte and one region"));
        }
        let twice = |(at, class): (usize, &Name)| self.classes[..at].contains(class);
        if self.classes.len() > PROVIDER_CLASSES_MAX || self.classes.iter().enumerate().any(twice) {
            return Err(Error::new(Code::Range, "a provider names at most 8 classes, each once"));
        }
        Ok(())
    }
}

/// What a provider says with a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Open sessions.
    pub sessions: u32,
    /// Bytes of memory committed to regions, the ones being taken back included, as the provider counts them.
    pub committed_bytes: u64,
}

/// How a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderState {
    /// It serves and takes new leases.
    Up,
    /// It serves what it has and takes nothing new.
    Draining,
    /// It is gone, and with it all memory that it had.
    Lost,
}

impl ProviderState {
    /// Its word on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// A provider in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// Its life.
    pub id: ProviderId,
    /// Its name.
    pub name: Name,
    /// Where clients reach it.
    pub address: Option<Address>,
    /// How it is.
    pub state: ProviderState,
    /// Where it stands.
    pub locality: Option<Name>,
    /// The only classes that it takes; none: all.
    pub classes: Vec<Name>,
    /// Bytes that it leases at most.
    pub bytes: u64,
    /// Regions that it has at most.
    pub regions: u32,
    /// Bytes set aside for claims, in the broker's books.
    pub reserved_bytes: u64,
    /// Bytes of leases that live or are being taken back, in the broker's books.
    pub committed_bytes: u64,
    /// Regions taken, those set aside included.
    pub taken_regions: u32,
    /// Since it was heard; zero for one in the broker's own process.
    pub silent_for: Micros,
    /// What it said last.
    pub load: Load,
}

/// Why a lease is where it is: who could have had it, as they were at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Who has it.
    pub node: Name,
    /// The one who has it, and after it those who came nearest. Empty for who is not the administrator: how full and busy
    /// providers are is nobody else's business.
    pub considered: Vec<Considered>,
    /// How many more there were, the one who has it not counted.
    pub others: u32,
}

/// One provider at the moment of a placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Its name.
    pub node: Name,
    /// What came of it.
    pub verdict: Verdict,
    /// How much more of it was free, in bytes, than all that it had promised.
    pub free_bytes: u64,
    /// The same in regions.
    pub free_regions: u32,
    /// Sessions that it had.
    pub sessions: u32,
    /// Reservations that waited to be claimed there.
    pub claims: u32,
    /// What these came to; 0 for one that could not have it, or had just refused another.
    pub score: u32,
}

/// What came of a provider at a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has the lease.
    Chosen,
    /// It could have had it; another had the higher score, or the same and the name that comes first.
    Outscored,
    /// It had not that many bytes left.
    NoBytes,
    /// It had no region left.
    NoRegion,
    /// It does not take leases of this class, or of none.
    OtherClass,
    /// Nothing had been heard of it for too long.
    Silent,
    /// It was draining.
    Draining,
    /// It was lost.
    Lost,
}

impl Verdict {
    /// Its word on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Outscored => "outscored",
            Self::NoBytes => "no_bytes",
            Self::NoRegion => "no_region",
            Self::OtherClass => "other_class",
            Self::Silent => "silent",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let longest = format!("{}:65535", "h".repeat(ADDRESS_BYTES_MAX - 6));
        for good in
            ["a:1", "node-7.example:7443", "10.0.0.1:65535", "[::1]:443", "[fe80::1]:1", longest.as_str()]
        {
            assert_eq!(Address::new(good).unwrap().as_str(), good);
        }
        let too_long = format!("h{longest}");
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1 ",
            " a:1",
            "a b:1",
            "::1:443",
            "[::1]",
            "[a]:1",
            "[::1:1",
            "ä:1",
            "a\n:1",
            "a/b:1",
            too_long.as_str(),
        ] {
            assert_eq!(Address::new(bad).unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }

    #[test]
    fn a_registration_has_room_and_few_classes() {
        let name = |text: &str| Name::new(text).unwrap();
        let good = Registration {
            id: ProviderId([1; 16]),
            name: name("a"),
            address: None,
            bytes: 1,
            regions: 1,
            classes: (0..PROVIDER_CLASSES_MAX).map(|n| name(&format!("c{n}"))).collect(),
            locality: None,
            seat: None,
        };
        good.check().unwrap();
        let mut more = good.classes.clone();
        more.push(name("one-more"));
        for bad in [
            Registration { bytes: 0, ..good.clone() },
            Registration { regions: 0, ..good.clone() },
            Registration { classes: more, ..good.clone() },
            Registration { classes: vec![name("c"), name("d"), name("c")], ..good },
        ] {
            assert_eq!(bad.check().unwrap_err().code(), Code::Range, "{bad:?}");
        }
    }

    #[test]
    fn words_are_those_of_the_wire() {
        use ProviderState::{Draining, Lost, Up};
        for state in [Up, Draining, Lost] {
            assert_eq!(word(&state), state.name());
        }
        use Verdict::{Chosen, NoBytes, NoRegion, OtherClass, Outscored, Silent};
        for verdict in
            [Chosen, Outscored, NoBytes, NoRegion, OtherClass, Silent, Verdict::Draining, Verdict::Lost]
        {
            assert_eq!(word(&verdict), verdict.name());
        }
    }

    /// A client of this release reads what a later one says.
    #[test]
    fn a_client_passes_over_what_it_does_not_know_and_a_broker_does_not() {
        use ciborium::Value;
        let later = |value: &Value| {
            let Value::Map(mut fields) = value.clone() else { panic!("{value:?}") };
            fields.push((Value::Text("later".to_owned()), Value::Bool(true)));
            Value::Map(fields)
        };
        let placement = Placement { node: Name::new("a").unwrap(), considered: Vec::new(), others: 2 };
        let told = later(&Value::serialized(&placement).unwrap());
        assert_eq!(told.deserialized::<Placement>().unwrap(), placement);
        let load = later(&Value::serialized(&Load::default()).unwrap());
        assert!(load.deserialized::<Load>().is_err());
    }

    fn word(of: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        ciborium::into_writer(of, &mut bytes).unwrap();
        ciborium::from_reader(&bytes[..]).unwrap()
    }
}
