//! The inner half of a token: one block's Datalog as a small tree, before anybody asks what it means.
//!
//! Only shapes that the lease vocabulary can need are read: facts, and checks with one query of predicates and
//! comparisons. Rules, scopes, keys, contexts, closures, arrays, maps, dates, booleans and every other operator are
//! refused here. Every list has a bound, so the tree is small whatever the bytes say.

use zeroize::Zeroizing;

use super::reader::{LENGTH, Reader, VARINT, Writer, malformed, noncanonical, unknown_field, wants};
use super::symbols::symbol;
use crate::error::{Code, Error, Result};
use crate::limits::{TOKEN_CHECKS_MAX, TOKEN_FACTS_MAX, TOKEN_OPS_MAX, TOKEN_SET_MAX, TOKEN_SYMBOLS_MAX};

/// Oldest block schema that this release reads.
pub(super) const VERSION_MIN: u32 = 3;
/// Newest: the one that delegation blocks must have. Version 6 brings closures, and with them unbounded work.
pub(super) const VERSION_MAX: u32 = 5;

/// Most terms of a predicate: `lease`, `node`, `range`, `req`, `resource` and `at` have two.
const TERMS_MAX: usize = 2;
/// Most predicates in a check's body: an authority check joins a request fact with an authority fact.
const BODY_MAX: usize = 2;
/// Most expressions in a check: a lower and an upper bound.
const EXPRESSIONS_MAX: usize = 2;

/// Comparison: `<`.
pub(super) const LESS: u64 = 0;
/// Comparison: `<=`.
pub(super) const LESS_OR_EQUAL: u64 = 2;
/// `set.contains(value)`.
pub(super) const CONTAINS: u64 = 5;

/// The content of one block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) symbols: Vec<&'a str>,
    pub(super) version: u32,
    pub(super) facts: Vec<Predicate<'a>>,
    pub(super) checks: Vec<Check<'a>>,
}

/// A name and its terms.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Predicate<'a> {
    pub(super) name: u64,
    pub(super) terms: Vec<Term<'a>>,
}

/// `check if body, expressions`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check<'a> {
    pub(super) head: Predicate<'a>,
    pub(super) body: Vec<Predicate<'a>>,
    pub(super) expressions: Vec<Vec<Op<'a>>>,
}

/// A value or a variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Term<'a> {
    Variable(u32),
    Integer(i64),
    String(u64),
    Bytes(&'a [u8]),
    /// A set of strings.
    Set(Vec<u64>),
}

/// One step of an expression in postfix order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op<'a> {
    Value(Term<'a>),
    Binary(u64),
}

pub(super) const fn outside(detail: &'static str) -> Error {
    Error::new(Code::TokenProfile, detail)
}

impl<'a> Block<'a> {
    /// Reads a block and demands its canonical encoding.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (mut block, mut version) = (Self::default(), None);
        while let Some((field, wire)) = reader.field()? {
            match field {
                1 => {
                    wants(wire, LENGTH)?;
                    if block.symbols.len() == TOKEN_SYMBOLS_MAX {
                        return Err(outside("more than 32 symbols"));
                    }
                    block.symbols.push(symbol(reader.bytes()?)?);
                }
                2 => return Err(outside("a context string")),
                3 => {
                    wants(wire, VARINT)?;
                    version = Some(supported(reader.varint()?)?);
                }
                4 => {
                    wants(wire, LENGTH)?;
                    if block.facts.len() == TOKEN_FACTS_MAX {
                        return Err(outside("more than 16 facts"));
                    }
                    block.facts.push(read_fact(reader.message()?)?);
                }
                5 => return Err(outside("a rule")),
                6 => {
                    wants(wire, LENGTH)?;
                    if block.checks.len() == TOKEN_CHECKS_MAX {
                        return Err(outside("more than 8 checks in a block"));
                    }
                    block.checks.push(Check::read(reader.message()?)?);
                }
                7 => return Err(outside("a scope")),
                8 => return Err(outside("a public key inside a block")),
                _ => return Err(unknown_field()),
            }
        }
        block.version = version.ok_or(Error::new(Code::TokenVersion, "a block names no schema version"))?;
        if *block.to_bytes() != bytes {
            return Err(noncanonical("a block has another encoding, which is the canonical one"));
        }
        Ok(block)
    }

    /// The canonical encoding.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(512);
        for symbol in &self.symbols {
            writer.bytes(1, symbol.as_bytes());
        }
        writer.varint(3, u64::from(self.version));
        for fact in &self.facts {
            writer.message(4, |writer| writer.message(1, |writer| fact.write(writer)));
        }
        for check in &self.checks {
            writer.message(6, |writer| writer.message(1, |writer| check.write(writer)));
        }
        writer.into_bytes()
    }
}

fn supported(version: u64) -> Result<u32> {
    u32::try_from(version)
        .ok()
        .filter(|version| (VERSION_MIN..=VERSION_MAX).contains(version))
        .ok_or(Error::new(Code::TokenVersion, "a block schema version outside 3 to 5"))
}

fn read_fact(mut reader: Reader<'_>) -> Result<Predicate<'_>> {
    let mut predicate = None;
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => {
                wants(wire, LENGTH)?;
                predicate = Some(Predicate::read(reader.message()?)?);
            }
            _ => return Err(unknown_field()),
        }
    }
    predicate.ok_or(malformed("a fact is empty"))
}

impl<'a> Predicate<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let (mut name, mut terms) = (None, Vec::new());
        while let Some((field, wire)) = reader.field()? {
            match field {
                1 => {
                    wants(wire, VARINT)?;
                    name = Some(reader.varint()?);
                }
                2 => {
                    wants(wire, LENGTH)?;
                    if terms.len() == TERMS_MAX {
                        return Err(outside("a predicate with more than 2 terms"));
                    }
                    terms.push(Term::read(reader.message()?)?);
                }
                _ => return Err(unknown_field()),
            }
        }
        Ok(Self { name: name.ok_or(malformed("a predicate has no name"))?, terms })
    }

    fn write(&self, writer: &mut Writer) {
        writer.varint(1, self.name);
        for term in &self.terms {
            writer.message(2, |writer| term.write(writer));
        }
    }
}

impl<'a> Check<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let mut query = None;
        while let Some((field, wire)) = reader.field()? {
            match field {
                1 if query.is_some() => return Err(outside("a check with more than one query")),
                1 => {
                    wants(wire, LENGTH)?;
                    query = Some(Self::read_query(reader.message()?)?);
                }
                2 => return Err(outside("a check other than `check if`")),
                _ => return Err(unknown_field()),
            }
        }
        query.ok_or(malformed("a check has no query"))
    }

    fn read_query(mut reader: Reader<'a>) -> Result<Self> {
        let (mut head, mut body, mut expressions, mut ops) = (None, Vec::new(), Vec::new(), 0);
        while let Some((field, wire)) = reader.field()? {
            match field {
                1 => {
                    wants(wire, LENGTH)?;
                    head = Some(Predicate::read(reader.message()?)?);
                }
                2 => {
                    wants(wire, LENGTH)?;
                    if body.len() == BODY_MAX {
                        return Err(outside("a check over more than 2 predicates"));
                    }
                    body.push(Predicate::read(reader.message()?)?);
                }
                3 => {
                    wants(wire, LENGTH)?;
                    if expressions.len() == EXPRESSIONS_MAX {
                        return Err(outside("a check with more than 2 expressions"));
                    }
                    expressions.push(read_expression(reader.message()?, &mut ops)?);
                }
                4 => return Err(outside("a scope")),
                _ => return Err(unknown_field()),
            }
        }
        Ok(Self { head: head.ok_or(malformed("a query has no head"))?, body, expressions })
    }

    fn write(&self, writer: &mut Writer) {
        writer.message(1, |writer| self.head.write(writer));
        for predicate in &self.body {
            writer.message(2, |writer| predicate.write(writer));
        }
        for expression in &self.expressions {
            writer.message(3, |writer| {
                for op in expression {
                    writer.message(1, |writer| op.write(writer));
                }
            });
        }
    }
}

fn read_expression<'a>(mut reader: Reader<'a>, ops: &mut usize) -> Result<Vec<Op<'a>>> {
    let mut expression = Vec::new();
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => {
                wants(wire, LENGTH)?;
                if *ops == TOKEN_OPS_MAX {
                    return Err(outside("a check with more than 16 operations"));
                }
                *ops += 1;
                expression.push(Op::read(reader.message()?)?);
            }
            _ => return Err(unknown_field()),
        }
    }
    Ok(expression)
}

impl<'a> Term<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let mut term = None;
        while let Some((field, wire)) = reader.field()? {
            term = Some(match field {
                1 => {
                    wants(wire, VARINT)?;
                    Self::Variable(reader.varint32()?)
                }
                2 => {
                    wants(wire, VARINT)?;
                    // The 64-bit pattern of a signed integer; the vocabulary refuses negative ones.
                    Self::Integer(reader.varint()?.cast_signed())
                }
                3 => {
                    wants(wire, VARINT)?;
                    Self::String(reader.varint()?)
                }
                5 => {
                    wants(wire, LENGTH)?;
                    Self::Bytes(reader.bytes()?)
                }
                7 => {
                    wants(wire, LENGTH)?;
                    Self::Set(read_set(reader.message()?)?)
                }
                4 | 6 | 8..=10 => return Err(outside("a value of a kind that leases do not use")),
                _ => return Err(unknown_field()),
            });
        }
        term.ok_or(malformed("a term is empty"))
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Variable(variable) => writer.varint(1, u64::from(*variable)),
            Self::Integer(integer) => writer.varint(2, integer.cast_unsigned()),
            Self::String(symbol) => writer.varint(3, *symbol),
            Self::Bytes(bytes) => writer.bytes(5, bytes),
            Self::Set(members) => writer.message(7, |writer| {
                for member in members {
                    writer.message(1, |writer| writer.varint(3, *member));
                }
            }),
        }
    }
}

/// A set of strings. Sets of sets are refused before they nest.
fn read_set(mut reader: Reader<'_>) -> Result<Vec<u64>> {
    let mut members = Vec::new();
    while let Some((field, wire)) = reader.field()? {
        if field != 1 {
            return Err(unknown_field());
        }
        wants(wire, LENGTH)?;
        if members.len() == TOKEN_SET_MAX {
            return Err(outside("a set of more than 8 members"));
        }
        let mut member = reader.message()?;
        let Some((3, VARINT)) = member.field()? else {
            return Err(outside("a set of anything but strings"));
        };
        members.push(member.varint()?);
        if member.field()?.is_some() {
            return Err(noncanonical("a set's member has two values"));
        }
    }
    Ok(members)
}

impl<'a> Op<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self> {
        let mut op = None;
        while let Some((field, wire)) = reader.field()? {
            wants(wire, LENGTH)?;
            op = Some(match field {
                1 => Self::Value(Term::read(reader.message()?)?),
                3 => Self::Binary(read_binary(reader.message()?)?),
                2 | 4 => return Err(outside("an operator that leases do not use")),
                _ => return Err(unknown_field()),
            });
        }
        op.ok_or(malformed("an operation is empty"))
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Value(term) => writer.message(1, |writer| term.write(writer)),
            Self::Binary(kind) => writer.message(3, |writer| writer.varint(1, *kind)),
        }
    }
}

fn read_binary(mut reader: Reader<'_>) -> Result<u64> {
    let mut kind = None;
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => {
                wants(wire, VARINT)?;
                kind = Some(reader.varint()?);
            }
            2 => return Err(outside("a call of a foreign function")),
            _ => return Err(unknown_field()),
        }
    }
    match kind.ok_or(malformed("an operator is empty"))? {
        kind @ (LESS | LESS_OR_EQUAL | CONTAINS) => Ok(kind),
        _ => Err(outside("an operator that leases do not use")),
    }
}
