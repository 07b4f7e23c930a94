//! The Datalog of the lease vocabulary, from its bytes to values.

use super::proto::{Field, bytes, fields, number, repeated};

/// The symbols that a block need not bring, in the order of their numbers; those that it brings begin at 1024.
const DEFAULT_SYMBOLS: &[&str] = &[
    "read",
    "write",
    "resource",
    "operation",
    "right",
    "time",
    "role",
    "owner",
    "tenant",
    "namespace",
    "user",
    "team",
    "service",
    "admin",
    "email",
    "group",
    "member",
    "ip_address",
    "client",
    "client_ip",
    "domain",
    "path",
    "version",
    "cluster",
    "node",
    "hostname",
    "nonce",
    "query",
];

/// What an authority block grants.
#[derive(Default)]
pub(crate) struct Terms {
    pub(crate) lease: Vec<u8>,
    pub(crate) region: Vec<u8>,
    pub(crate) grant: Option<Vec<u8>>,
    pub(crate) cluster: Vec<u8>,
    pub(crate) provider: Vec<u8>,
    pub(crate) holder: [u8; 32],
    facts: Says,
    checks: Says,
}

impl Terms {
    /// The limits of its facts, which its checks must repeat.
    pub(crate) fn check(&self) -> Says {
        assert_eq!(self.facts, self.checks, "facts and checks of the authority block");
        self.facts
    }
}

/// The limits of one block; `rights` as bits 1 read, 2 write, 4 share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) rights: Option<u8>,
    pub(crate) start: Option<u64>,
    pub(crate) end: Option<u64>,
    pub(crate) not_before: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) hops: Option<u64>,
    pub(crate) opens: Option<u64>,
    pub(crate) rate: Option<u64>,
    pub(crate) budget: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Variable(String),
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    Set(Vec<Term>),
}

struct Names<'a>(&'a [String]);

impl Names<'_> {
    fn name(&self, number: u64) -> String {
        let number = usize::try_from(number).expect("a small number");
        match number.checked_sub(1024) {
            None => DEFAULT_SYMBOLS[number].to_owned(),
            Some(own) => self.0[own].clone(),
        }
    }

    fn term(&self, term: &[u8]) -> Term {
        match fields(term)[..] {
            [(1, Field::Number(name))] => Term::Variable(self.name(name)),
            [(2, Field::Number(value))] => Term::Number(value),
            [(3, Field::Number(name))] => Term::Text(self.name(name)),
            [(5, Field::Bytes(bytes))] => Term::Bytes(bytes.to_vec()),
            [(7, Field::Bytes(set))] => {
                Term::Set(repeated(set, 1).map(|term| self.term(term.bytes())).collect())
            }
            _ => panic!("a term outside of the vocabulary"),
        }
    }

    fn predicate(&self, predicate: &[u8]) -> (String, Vec<Term>) {
        let terms = repeated(predicate, 2).map(|term| self.term(term.bytes())).collect();
        (self.name(number(predicate, 1)), terms)
    }

    /// What a check demands, beside the joins of the authority block, which the verifier answers for itself.
    fn check(&self, check: &[u8], says: &mut Says) {
        let query = bytes(check, 1);
        let expressions = repeated(query, 3).map(|expression| {
            let ops = repeated(expression.bytes(), 1).map(|op| fields(op.bytes())[0]).collect::<Vec<_>>();
            let [(1, left), (1, right), (3, operator)] = ops[..] else { panic!("a comparison") };
            (self.term(left.bytes()), self.term(right.bytes()), number(operator.bytes(), 1))
        });
        for (left, right, operator) in expressions {
            match (left, right, operator) {
                (Term::Set(rights), Term::Variable(name), 5) if name == "operation" => {
                    says.rights = Some(rights.iter().map(right_bit).sum());
                }
                (Term::Number(least), Term::Variable(name), 2) if name == "start" => says.start = Some(least),
                (Term::Variable(name), Term::Number(most), 2) if name == "end" => says.end = Some(most),
                (Term::Number(least), Term::Variable(name), 2) if name == "time" => {
                    says.not_before = Some(least)
                }
                (Term::Variable(name), Term::Number(most), 0) if name == "time" => says.expires = Some(most),
                (Term::Variable(name), Term::Number(most), 2) => {
                    let limit = match name.as_str() {
                        "hops" => &mut says.hops,
                        "opens" => &mut says.opens,
                        "rate" => &mut says.rate,
                        "budget" => &mut says.budget,
                        name => panic!("a limit of {name}"),
                    };
                    *limit = Some(most);
                }
                other => panic!("{other:?} is outside of the vocabulary"),
            }
        }
    }
}

fn right_bit(right: &Term) -> u8 {
    match right {
        Term::Text(name) => {
            1 << ["read", "write", "share"].iter().position(|one| one == name).expect("a right")
        }
        other => panic!("{other:?} is no right"),
    }
}

fn symbols_of(block: &[u8]) -> impl Iterator<Item = String> {
    repeated(block, 1).map(|symbol| String::from_utf8(symbol.bytes().to_vec()).expect("plain names"))
}

fn facts(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    repeated(block, 4).map(|fact| bytes(fact.bytes(), 1))
}

fn limits(block: &[u8], names: &Names<'_>) -> Says {
    let mut says = Says::default();
    for check in repeated(block, 6) {
        names.check(check.bytes(), &mut says);
    }
    says
}

/// The authority block. Its symbols serve every later block that no third party signed.
pub(crate) fn authority(block: &[u8], symbols: &mut Vec<String>) -> Terms {
    symbols.extend(symbols_of(block));
    let names = Names(symbols);
    let mut terms = Terms { checks: limits(block, &names), ..Terms::default() };
    for fact in facts(block) {
        let (name, values) = names.predicate(fact);
        match (name.as_str(), &values[..]) {
            ("lease", [Term::Bytes(lease), Term::Bytes(region)]) => {
                (terms.lease, terms.region) = (lease.clone(), region.clone());
            }
            ("grant", [Term::Bytes(grant)]) => terms.grant = Some(grant.clone()),
            ("node", [Term::Bytes(cluster), Term::Bytes(provider)]) => {
                (terms.cluster, terms.provider) = (cluster.clone(), provider.clone());
            }
            ("holder", [Term::Bytes(key)]) => terms.holder = key[..].try_into().expect("a key"),
            ("range", [Term::Number(start), Term::Number(end)]) => {
                (terms.facts.start, terms.facts.end) = (Some(*start), Some(*end));
            }
            ("right", [right]) => *terms.facts.rights.get_or_insert(0) |= right_bit(right),
            ("not_before", [Term::Number(time)]) => terms.facts.not_before = Some(*time),
            ("expires", [Term::Number(time)]) => terms.facts.expires = Some(*time),
            ("max_hops", [Term::Number(most)]) => terms.facts.hops = Some(*most),
            other => panic!("{other:?} is outside of the vocabulary"),
        }
    }
    terms
}

/// A block by whoever held the token: checks and nothing else.
pub(crate) fn narrowing(block: &[u8], symbols: &mut Vec<String>) -> Says {
    symbols.extend(symbols_of(block));
    assert_eq!(facts(block).count(), 0);
    limits(block, &Names(symbols))
}

/// A block by which a holder names the next one. It has symbols of its own.
pub(crate) fn delegation(block: &[u8]) -> ([u8; 32], Says) {
    let symbols: Vec<_> = symbols_of(block).collect();
    let names = Names(&symbols);
    let facts: Vec<_> = facts(block).map(|fact| names.predicate(fact)).collect();
    let [(name, terms)] = &facts[..] else { panic!("one fact") };
    let ("delegate", [Term::Bytes(to)]) = (name.as_str(), &terms[..]) else { panic!("delegate(key)") };
    (to[..].try_into().expect("a key"), limits(block, &names))
}
