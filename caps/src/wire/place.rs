//! Where a provider is, and how a node says that something is asked of another one.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::wire::Name;
use crate::wire::provider::Address;

/// What the detail of `E_WRONG_NODE` begins with where it names somebody.
const ASKED_OF: &str = "this is asked of ";
/// What stands between the name and the address.
const AT: &str = " at ";

/// Where a provider is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// What it is called: the name that its certificate must have.
    pub node: Name,
    /// Where clients reach it over TLS; `None` if only at the socket of its own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

impl Place {
    /// `E_WRONG_NODE` that names this place. What it says is read back by [`Self::of`].
    #[must_use]
    pub fn error(&self) -> Error {
        Error::with(Code::WrongNode, format!("{ASKED_OF}{self}"))
    }

    /// The place that such an error names; `None` for any other error, and for one that names none. It is the word of who
    /// refused, no more: whoever goes there checks that the certificate has the name.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        if error.code() != Code::WrongNode {
            return None;
        }
        let named = error.detail().strip_prefix(ASKED_OF)?;
        let (node, address) = match named.split_once(AT) {
            Some((node, address)) => (node, Some(Address::new(address).ok()?)),
            None => (named, None),
        };
        Some(Self { node: Name::new(node).ok()?, address })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{}{AT}{address}", self.node),
            None => self.node.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: &str, address: Option<&str>) -> Place {
        let address = address.map(|address| Address::new(address).unwrap());
        Place { node: Name::new(node).unwrap(), address }
    }

    #[test]
    fn a_refusal_says_where_to_ask() {
        for place in
            [place("east", Some("east.example:7411")), place("e-1", Some("[::1]:1")), place("x", None)]
        {
            assert_eq!(Place::of(&place.error()), Some(place));
        }
        let other = Error::with(Code::Denied, format!("{ASKED_OF}east at a:1"));
        assert_eq!(Place::of(&other), None);
        for detail in [
            "",
            "east at a:1",
            "this is asked of ",
            "this is asked of east at nowhere",
            "this is asked of a b at c:1",
        ] {
            assert_eq!(Place::of(&Error::new(Code::WrongNode, detail)), None, "{detail}");
        }
    }
}
