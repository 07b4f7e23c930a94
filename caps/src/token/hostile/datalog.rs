//! Any Datalog as the bytes of a block: what the vocabulary of leases has no words for, and no text to parse.

use crate::token::reader::Writer;

/// Numbers of default symbols that serve as names.
pub(super) const READ: u64 = 0;
pub(super) const WRITE: u64 = 1;
pub(super) const OPERATION: u64 = 3;
pub(super) const RIGHT: u64 = 4;
pub(super) const TIME: u64 = 5;
pub(super) const USER: u64 = 10;
pub(super) const TEAM: u64 = 11;
pub(super) const QUERY: u64 = 27;
/// The number of the first symbol that no default table and no authority block of `sample` has.
pub(super) const FREE: u64 = 1024 + 16;

/// Operators.
pub(super) const LESS: u64 = 0;
pub(super) const GREATER: u64 = 1;
pub(super) const LESS_OR_EQUAL: u64 = 2;
pub(super) const CONTAINS: u64 = 5;
pub(super) const MATCHES: u64 = 8;
pub(super) const ADD: u64 = 9;
pub(super) const EQUAL: u64 = 21;
pub(super) const ALL: u64 = 25;

/// A value or a variable, of kinds that tokens use or must not use.
#[derive(Clone)]
pub(super) enum Term {
    Variable(u64),
    Integer(u64),
    Symbol(u64),
    Date(u64),
    Bytes(Vec<u8>),
    Set(Vec<Term>),
    Array(Vec<Term>),
}

/// A step of an expression.
#[derive(Clone)]
pub(super) enum Op {
    Value(Term),
    Binary(u64),
    Closure(u64, Vec<Op>),
}

/// A name and its terms.
#[derive(Clone)]
pub(super) struct Predicate(pub(super) u64, pub(super) Vec<Term>);

/// A rule, or the query of a check.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) head: Predicate,
    pub(super) body: Vec<Predicate>,
    pub(super) expressions: Vec<Vec<Op>>,
    pub(super) trusts_previous: bool,
}

/// One block. The fields are written in the canonical order.
#[derive(Clone, Default)]
pub(super) struct Block {
    pub(super) symbols: Vec<Vec<u8>>,
    pub(super) context: Option<Vec<u8>>,
    pub(super) version: Option<u64>,
    pub(super) facts: Vec<Predicate>,
    pub(super) rules: Vec<Rule>,
    /// Each check's queries.
    pub(super) checks: Vec<Vec<Rule>>,
    pub(super) trusts_previous: bool,
    pub(super) keys: Vec<[u8; 32]>,
}

impl Block {
    /// A block of schema 3 that says nothing.
    pub(super) fn new() -> Self {
        Self { version: Some(3), ..Self::default() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.symbols.iter().for_each(|symbol| writer.bytes(1, symbol));
        self.context.iter().for_each(|context| writer.bytes(2, context));
        self.version.iter().for_each(|version| writer.varint(3, *version));
        for fact in &self.facts {
            writer.message(4, |writer| writer.message(1, |writer| fact.write(writer)));
        }
        self.rules.iter().for_each(|rule| writer.message(5, |writer| rule.write(writer)));
        for queries in &self.checks {
            writer.message(6, |writer| {
                queries.iter().for_each(|query| writer.message(1, |writer| query.write(writer)));
            });
        }
        if self.trusts_previous {
            writer.message(7, |writer| writer.varint(1, 1));
        }
        for key in &self.keys {
            writer.message(8, |writer| {
                writer.varint(1, 0);
                writer.bytes(2, key);
            });
        }
        writer.into_bytes().to_vec()
    }
}

impl Rule {
    /// `query() <- body, expression`.
    pub(super) fn query(body: Vec<Predicate>, expression: Vec<Op>) -> Self {
        let expressions = if expression.is_empty() { Vec::new() } else { vec![expression] };
        Self { head: Predicate(QUERY, Vec::new()), body, expressions, trusts_previous: false }
    }

    fn write(&self, writer: &mut Writer) {
        writer.message(1, |writer| self.head.write(writer));
        self.body.iter().for_each(|predicate| writer.message(2, |writer| predicate.write(writer)));
        for expression in &self.expressions {
            writer.message(3, |writer| {
                expression.iter().for_each(|op| writer.message(1, |writer| op.write(writer)));
            });
        }
        if self.trusts_previous {
            writer.message(4, |writer| writer.varint(1, 1));
        }
    }
}

impl Predicate {
    fn write(&self, writer: &mut Writer) {
        writer.varint(1, self.0);
        self.1.iter().for_each(|term| writer.message(2, |writer| term.write(writer)));
    }
}

impl Op {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Value(term) => writer.message(1, |writer| term.write(writer)),
            Self::Binary(kind) => writer.message(3, |writer| writer.varint(1, *kind)),
            Self::Closure(parameter, ops) => writer.message(4, |writer| {
                writer.varint(1, *parameter);
                ops.iter().for_each(|op| writer.message(2, |writer| op.write(writer)));
            }),
        }
    }
}

impl Term {
    fn write(&self, writer: &mut Writer) {
        let list = |writer: &mut Writer, field, members: &[Self]| {
            writer.message(field, |writer| {
                members.iter().for_each(|member| writer.message(1, |writer| member.write(writer)));
            });
        };
        match self {
            Self::Variable(name) => writer.varint(1, *name),
            Self::Integer(integer) => writer.varint(2, *integer),
            Self::Symbol(symbol) => writer.varint(3, *symbol),
            Self::Date(date) => writer.varint(4, *date),
            Self::Bytes(bytes) => writer.bytes(5, bytes),
            Self::Set(members) => list(writer, 7, members),
            Self::Array(members) => list(writer, 9, members),
        }
    }
}

pub(super) fn variable(name: u64) -> Term {
    Term::Variable(name)
}

pub(super) fn fact(name: u64, term: Term) -> Predicate {
    Predicate(name, vec![term])
}

pub(super) fn check(body: Vec<Predicate>, expression: Vec<Op>) -> Vec<Rule> {
    vec![Rule::query(body, expression)]
}

/// `check if time($time), expression`.
pub(super) fn timed(expression: Vec<Op>) -> Block {
    Block { checks: vec![check(vec![fact(TIME, variable(TIME))], expression)], ..Block::new() }
}

pub(super) fn compared(left: Term, right: Term, operator: u64) -> Vec<Op> {
    vec![Op::Value(left), Op::Value(right), Op::Binary(operator)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused is refused for what it says: the library reads these bytes as what they are meant to be.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "shows the library's reading of a block of our own")]
    fn the_library_reads_what_is_written() {
        let variable = || Term::Variable(USER);
        let block = Block {
            facts: vec![Predicate(TEAM, vec![Term::Integer(5)])],
            rules: vec![Rule {
                head: Predicate(TEAM, vec![variable()]),
                ..Rule::query(vec![Predicate(OPERATION, vec![variable()])], Vec::new())
            }],
            checks: vec![vec![Rule::query(
                vec![Predicate(TEAM, vec![variable()])],
                vec![
                    Op::Value(variable()),
                    Op::Value(Term::Integer(1)),
                    Op::Binary(ADD),
                    Op::Value(Term::Integer(7)),
                    Op::Binary(LESS),
                ],
            )]],
            ..Block::new()
        };
        let token = crate::token::sample::owned().unwrap();
        let bytes =
            crate::token::forge::append_raw(token.as_bytes(), &block.bytes(), None, &[9; 32]).unwrap();
        let read = biscuit_auth::UnverifiedBiscuit::from(&bytes).unwrap();
        assert_eq!(
            read.print_block_source(1).unwrap(),
            "team(5);\nteam($user) <- operation($user);\ncheck if team($user), $user + 1 < 7;\n"
        );
    }
}
