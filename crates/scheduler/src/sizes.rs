//! The batch sizes that an executor is made for.

use std::num::NonZeroUsize;

/// Sizes in rows, ascending; none where every size will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Sizes(Vec<NonZeroUsize>);

impl Sizes {
    pub(crate) const fn any() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn these(sizes: impl IntoIterator<Item = NonZeroUsize>) -> Self {
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_unstable();
        sizes.dedup();
        Self(sizes)
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn largest(&self) -> Option<NonZeroUsize> {
        self.0.last().copied()
    }

    /// As how many rows a batch of `rows` is executed: the least size that holds it.
    pub(crate) fn padded(&self, rows: usize) -> usize {
        self.0.iter().map(|size| size.get()).find(|&size| size >= rows).unwrap_or(rows)
    }

    /// The largest size that `rows` fill.
    pub(crate) fn filled(&self, rows: usize) -> Option<usize> {
        self.0.iter().map(|size| size.get()).rfind(|&size| size <= rows)
    }

    /// How many of `rows` to take in one batch: all of them, padded, or as many as fill the next smaller size, whichever
    /// gets more of them done per unit of time. `cost` is that of a batch of a size, if it is known.
    pub(crate) fn worth_taking(&self, rows: usize, cost: impl Fn(usize) -> Option<f64>) -> usize {
        let padded = self.padded(rows);
        let Some(filled) = self.filled(rows).filter(|&filled| filled < rows) else { return rows };
        match (cost(padded), cost(filled)) {
            (Some(of_padded), Some(of_filled)) if rows as f64 * of_filled < filled as f64 * of_padded => filled,
            _ => rows,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sizes(sizes: &[usize]) -> Sizes {
        Sizes::these(sizes.iter().map(|&size| NonZeroUsize::new(size).expect("positive")))
    }

    #[test]
    fn a_batch_is_padded_to_the_least_size_that_holds_it() {
        let sizes = sizes(&[16, 4, 1, 4]);
        assert_eq!([1, 2, 4, 5, 16].map(|rows| sizes.padded(rows)), [1, 4, 4, 16, 16]);
        assert_eq!(Sizes::any().padded(7), 7);
    }

    #[test]
    fn what_padding_wastes_decides_between_the_next_size_and_the_one_before() {
        let sizes = sizes(&[4, 32]);
        // What a row costs, beside a fixed cost of 1.
        let take = |rows, per_row: f64| sizes.worth_taking(rows, |size| Some(1.0 + per_row * size as f64));
        assert_eq!(take(20, 0.01), 20, "a batch of 32 costs hardly more than one of 4");
        assert_eq!(take(5, 1.0), 4, "five rows for the price of 32");
        assert_eq!(take(4, 1.0), 4);
        assert_eq!(take(3, 1.0), 3, "nothing smaller is filled");
        assert_eq!(sizes.worth_taking(5, |_| None), 5, "nothing is known yet");
        assert_eq!(Sizes::any().worth_taking(5, |size| Some(size as f64)), 5);
    }
}
