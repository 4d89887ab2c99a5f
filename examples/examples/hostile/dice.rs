//! Chance that can be repeated: the same seed and number draw the same.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

/// Draws everything of one attack.
pub(crate) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// Those of attack `number` in the run of `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed << 40 ^ number))
    }

    /// A number below `count`, which is not zero.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of what is not empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.0.random()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_depends_on_seed_and_number_alone() {
        let drawn = |seed, number| Dice::new(seed, number).bytes(16);
        assert_eq!(drawn(1, 4711), drawn(1, 4711));
        assert_ne!(drawn(1, 4711), drawn(1, 4710));
        assert_ne!(drawn(1, 4711), drawn(2, 4711));
    }
}
