//! A table that grows without moving what it holds, so that it can be read without a lock.

use std::sync::OnceLock;

/// The places in the first chunk; each further one has twice as many as the one before.
const FIRST: usize = 32;

/// A value for each number from 0, made when first asked for. Reading takes two loads.
pub(crate) struct Table<V> {
    chunks: [OnceLock<Box<[V]>>; 28],
}

impl<V: Default> Table<V> {
    pub(crate) const fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; 28] }
    }

    pub(crate) fn get(&self, index: u32) -> &V {
        let place = index as usize + FIRST;
        let chunk = place.ilog2() - FIRST.ilog2();
        let len = FIRST << chunk;
        let chunk = self.chunks[chunk as usize].get_or_init(|| (0..len).map(|_| V::default()).collect());
        &chunk[place - len]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn each_number_has_a_place_of_its_own() {
        let table = Table::<Cell<u32>>::new();
        (0..5_000).for_each(|index| table.get(index).set(index));
        assert!((0..5_000).all(|index| table.get(index).get() == index));
    }
}
