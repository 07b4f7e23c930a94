//! Symbols: the names that a block's Datalog refers to by number.
//!
//! A block brings only the symbols that are new. The authority block and every block without an external signature
//! share one table; a block with an external signature has a table of its own, because its author need not know the
//! token's.

use super::block::outside;
use super::reader::malformed;
use crate::error::Result;
use crate::limits::{TOKEN_SYMBOL_BYTES_MAX, TOKEN_SYMBOLS_MAX};

/// The symbols that every token has without writing them down, in the order of their numbers.
pub(super) const DEFAULT_SYMBOLS: [&str; 28] = [
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
/// The number of the first symbol that a token brings itself.
const SYMBOLS_OFFSET: u64 = 1024;

/// Symbols are plain names: no text that could mislead a reader of a log, and nothing to escape.
pub(super) fn symbol(bytes: &[u8]) -> Result<&str> {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if bytes.is_empty() || bytes.len() > TOKEN_SYMBOL_BYTES_MAX || !bytes.iter().all(plain) {
        return Err(outside("a symbol that is not 1 to 64 of a-z, 0-9 and _"));
    }
    std::str::from_utf8(bytes).map_err(|_| outside("a symbol that is not text"))
}

/// The symbols that a block can name: the default ones, and those of its table.
#[derive(Clone, Default)]
pub(super) struct Symbols<'a> {
    own: Vec<&'a str>,
    /// Which of `own` something has named, bit by bit: a symbol that nothing names is text smuggled in.
    used: u64,
}

const _: () = assert!(TOKEN_SYMBOLS_MAX <= 64, "one bit a symbol");

impl<'a> Symbols<'a> {
    /// Adds a block's symbols to the table.
    pub(super) fn extend(&mut self, symbols: &[&'a str]) -> Result<()> {
        for symbol in symbols {
            if DEFAULT_SYMBOLS.contains(symbol) || self.own.contains(symbol) {
                return Err(malformed("a symbol is defined twice"));
            }
            if self.own.len() == TOKEN_SYMBOLS_MAX {
                return Err(outside("more than 32 symbols"));
            }
            self.own.push(symbol);
        }
        Ok(())
    }

    /// The text of symbol `index`.
    pub(super) fn name(&mut self, index: u64) -> Result<&'a str> {
        let name = match index.checked_sub(SYMBOLS_OFFSET) {
            None => DEFAULT_SYMBOLS.get(index as usize).copied(),
            Some(own) => {
                let name = usize::try_from(own).ok().and_then(|own| self.own.get(own)).copied();
                if name.is_some() {
                    self.used |= 1 << own;
                }
                name
            }
        };
        name.ok_or(malformed("a symbol that the table does not have"))
    }

    /// Refuses a table that holds a symbol which no block has named.
    pub(super) fn all_used(&self) -> Result<()> {
        if self.used.count_ones() as usize == self.own.len() {
            Ok(())
        } else {
            Err(outside("a symbol that nothing names"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_default_symbols_are_the_librarys() {
        let table = biscuit_auth::datalog::SymbolTable::new();
        for (index, symbol) in DEFAULT_SYMBOLS.iter().enumerate() {
            assert_eq!(table.get_symbol(index as u64), Some(*symbol));
        }
        assert_eq!(table.get_symbol(DEFAULT_SYMBOLS.len() as u64), None);
        assert_eq!(biscuit_auth::datalog::SymbolTable::new().insert("lease"), SYMBOLS_OFFSET);
    }

    #[test]
    fn a_table_refuses_what_it_has_and_what_nobody_names() {
        let mut symbols = Symbols::default();
        symbols.extend(&["lease", "range"]).unwrap();
        assert_eq!(symbols.extend(&["lease"]).unwrap_err().code(), Code::TokenMalformed);
        assert_eq!(symbols.extend(&["read"]).unwrap_err().code(), Code::TokenMalformed);
        assert_eq!(symbols.name(1024).unwrap(), "lease");
        assert_eq!(symbols.name(5).unwrap(), "time");
        for missing in [28, 1023, 1026, u64::MAX] {
            assert_eq!(symbols.name(missing).unwrap_err().code(), Code::TokenMalformed);
        }
        assert!(symbols.all_used().is_err());
        symbols.name(1025).unwrap();
        symbols.all_used().unwrap();
    }
}
