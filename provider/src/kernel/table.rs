//! A table of fixed capacity. A key is an index and the generation the index had when the row was put in, so a key
//! that outlived its row finds nothing, never somebody else's row.

/// Names one row for as long as the row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Index of the row.
    pub index: u32,
    /// How many rows had this index before.
    pub generation: u32,
}

#[derive(Debug)]
struct Cell<T> {
    generation: u32,
    row: Option<T>,
}

/// At most `capacity` rows. Storage grows up to the capacity as indexes are first used and is reused after.
#[derive(Debug)]
pub struct Table<T> {
    cells: Vec<Cell<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Table<T> {
    /// An empty table.
    ///
    /// # Panics
    /// If the capacity does not fit an index of 32 bits; capacities are configuration, checked at start.
    pub fn new(capacity: usize) -> Self {
        assert!(u32::try_from(capacity).is_ok());
        Self { cells: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity), capacity }
    }

    /// Puts a row in, or gives it back if the table is full.
    pub fn insert(&mut self, row: T) -> Result<Key, T> {
        if let Some(index) = self.free.pop() {
            let cell = &mut self.cells[index as usize];
            debug_assert!(cell.row.is_none());
            cell.row = Some(row);
            return Ok(Key { index, generation: cell.generation });
        }
        if self.cells.len() == self.capacity {
            return Err(row);
        }
        let index = self.cells.len() as u32; // below the capacity, which `new` checked
        self.cells.push(Cell { generation: 1, row: Some(row) });
        Ok(Key { index, generation: 1 })
    }

    /// Takes a row out. Its key is dead from now on. An index whose generations are used up is not used again.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let cell = self.cells.get_mut(key.index as usize).filter(|cell| cell.generation == key.generation)?;
        let row = cell.row.take()?;
        if let Some(next) = cell.generation.checked_add(1) {
            cell.generation = next;
            self.free.push(key.index);
        }
        Some(row)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        self.cells.get(key.index as usize).filter(|cell| cell.generation == key.generation)?.row.as_ref()
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.cells.get_mut(key.index as usize).filter(|cell| cell.generation == key.generation)?.row.as_mut()
    }

    /// Whether no row can be put in.
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.cells.len() == self.capacity
    }

    pub fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.cells.iter().zip(0..).filter_map(|(cell, index)| {
            cell.row.as_ref().map(|row| (Key { index, generation: cell.generation }, row))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_row() {
        let mut table = Table::new(1);
        let first = table.insert('a').unwrap();
        assert!(table.is_full());
        assert_eq!(table.insert('b'), Err('b'), "full means refused");
        assert_eq!(table.remove(first), Some('a'));
        assert!(!table.is_full());
        let second = table.insert('c').unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'c'));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn an_index_at_its_last_generation_is_retired() {
        let mut table = Table::new(1);
        let key = table.insert(()).unwrap();
        table.cells[0].generation = u32::MAX;
        assert!(table.remove(Key { generation: u32::MAX, ..key }).is_some());
        assert!(table.is_full() && table.insert(()).is_err());
    }
}
