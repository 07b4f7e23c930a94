//! The predicates that the node states, and the words their arguments can be.

use biscuit_parser::builder::Term;
use caps::rights::Operation;

use super::facts::Kind;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// A kind of request.
    Kind,
    /// A right.
    Right,
    /// A name that somebody chose.
    Name,
    /// A principal's key, 32 bytes.
    Key,
    /// A number.
    Number,
}

const TABLE: &[(&str, &[Argument], u64)] = &[
    ("request", &[Argument::Kind], 1),
    ("principal", &[Argument::Key, Argument::Name], 1),
    ("uid", &[Argument::Number], 1),
    ("size", &[Argument::Number], 1),
    ("ttl", &[Argument::Number], 1),
    ("class", &[Argument::Name], 1),
    ("receiver", &[Argument::Key, Argument::Name], 1),
    ("hops", &[Argument::Number], 1),
    ("right", &[Argument::Right], Operation::ALL.len() as u64),
    ("cosigner", &[Argument::Key, Argument::Name], 1),
];

/// The names of the node's predicates.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, ..)| *name)
}

/// The arguments of one of the node's predicates; `None` for any other name.
pub(super) fn arguments(name: &str) -> Option<&'static [Argument]> {
    TABLE.iter().find(|(known, ..)| *known == name).map(|(_, arguments, _)| *arguments)
}

/// How many facts of one of the node's predicates a request has at most; `None` for any other name.
pub(super) fn facts_max(name: &str) -> Option<u64> {
    TABLE.iter().find(|(known, ..)| *known == name).map(|(_, _, facts)| *facts)
}

impl Argument {
    /// Whether a constant can ever equal this argument; if not, what could.
    pub(super) fn admits(self, term: &Term) -> Result<(), String> {
        let words = |known: &[&str]| match term {
            Term::Str(word) if known.contains(&&**word) => Ok(()),
            _ => Err(format!("it is one of {}", known.join(", "))),
        };
        match (self, term) {
            (_, Term::Variable(_)) => Ok(()),
            (Self::Kind, _) => words(&Kind::ALL.map(Kind::name)),
            (Self::Right, _) => words(&Operation::ALL.map(Operation::name)),
            (Self::Name, Term::Str(word)) => {
                caps::wire::Name::new(word).map(|_| ()).map_err(|e| e.detail().into())
            }
            (Self::Name, _) => Err("it is a name, as in \"alice\"".into()),
            (Self::Key, Term::Bytes(key)) if key.len() == 32 => Ok(()),
            (Self::Key, _) => Err("it is a key: hex: and 64 digits".into()),
            (Self::Number, Term::Integer(number)) if *number >= 0 => Ok(()),
            (Self::Number, _) => Err("it is a number that is not negative".into()),
        }
    }
}
