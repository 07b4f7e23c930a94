//! The connections of a shard, by keys that are never used again: what another thread says of a connection that is over
//! means nobody.

use mio::Token;

/// Which connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a key fits a token");

impl Key {
    /// As the poll knows it.
    pub(super) const fn token(self) -> Token {
        Token((self.generation as usize) << 32 | self.index as usize)
    }

    /// From what the poll says.
    pub(super) const fn of(token: Token) -> Self {
        Self { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }
}

/// Rows that have keys.
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Puts in what `make` makes of its key.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn insert<E>(&mut self, make: impl FnOnce(Key) -> Result<T, E>) -> Result<Key, E> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push((0, None));
            (self.rows.len() - 1) as u32 // far fewer: connections are admitted
        });
        let row = &mut self.rows[index as usize];
        let key = Key { index, generation: row.0 };
        match make(key) {
            Ok(value) => row.1 = Some(value),
            Err(error) => {
                self.free.push(index);
                return Err(error);
            }
        }
        Ok(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let row = self.rows.get_mut(key.index as usize)?;
        if row.0 == key.generation { row.1.as_mut() } else { None }
    }

    /// Takes a row out. Its key means nobody from then on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let row = self.rows.get_mut(key.index as usize).filter(|row| row.0 == key.generation)?;
        let value = row.1.take()?;
        row.0 = row.0.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    /// The keys of all rows.
    pub(super) fn keys(&self) -> Vec<Key> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.1.is_some());
        rows.map(|(index, row)| Key { index: index as u32, generation: row.0 }).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_one_row_and_then_nobody() {
        let mut table = Table::default();
        let put = |table: &mut Table<_>, value| table.insert(|_| Ok::<_, ()>(value)).unwrap();
        let (a, b) = (put(&mut table, 'a'), put(&mut table, 'b'));
        assert_eq!(table.keys(), [a, b]);
        assert_eq!(table.remove(a), Some('a'));
        assert_eq!(table.get_mut(a), None);
        assert_eq!(table.remove(a), None);
        let c = put(&mut table, 'c');
        assert_ne!(a, c, "the same place, another key");
        assert_eq!(table.get_mut(a), None);
        assert_eq!(table.get_mut(c), Some(&mut 'c'));
        assert_eq!(Key::of(c.token()), c);
        assert_eq!(table.insert(|_| Err::<char, _>("no")), Err("no"));
        table.remove(b);
        table.remove(c);
        assert!(table.is_empty());
    }
}
