//! What a step reads of its rows.
//!
//! Instructions that multiply two activations at a time take them in pairs, which are laid out once a step, for all
//! panels of weights. An input that comes from a rectifier is zero for the most part (five in six values of the bundled
//! model's), and zeros add nothing to a sum: only the pairs that hold something else are listed. A hidden state is
//! hardly ever zero, and stays as dense as it is.

use std::collections::TryReserveError;

/// The activations of a step, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// [batch, steps, inputs]
    pub(super) input: &'a [u8],
    pub(super) inputs: usize,
    pub(super) steps: usize,
    /// Which of the steps it is.
    pub(super) step: usize,
    /// [batch, units]
    pub(super) hidden: &'a [u8],
    pub(super) units: usize,
}

/// Two neighbouring activations of an input.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pair {
    /// Which of the row's pairs it is.
    pub(super) index: u32,
    /// Sixteen bits each, the first in the lower half.
    pub(super) activations: i32,
}

/// The same in pairs. Kept from step to step, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// [batch, inputs / 2]; of each row, those that are not zero come first, the rest means nothing.
    input: Vec<Pair>,
    /// How many of a row's pairs are not zero.
    listed: Vec<usize>,
    /// [batch, units / 2]; sixteen bits each, the first in the lower half.
    hidden: Vec<i32>,
    pairs_of_input: usize,
    pairs_of_hidden: usize,
}

impl<'a> Step<'a> {
    pub(super) fn input(&self, row: usize) -> &'a [u8] {
        &self.input[(row * self.steps + self.step) * self.inputs..][..self.inputs]
    }

    pub(super) fn hidden(&self, row: usize) -> &'a [u8] {
        &self.hidden[row * self.units..][..self.units]
    }
}

impl Pairs {
    /// Makes room for `batch` rows.
    pub(super) fn reserve(&mut self, batch: usize, inputs: usize, units: usize) -> Result<(), TryReserveError> {
        (self.pairs_of_input, self.pairs_of_hidden) = (inputs / 2, units / 2);
        resize(&mut self.input, batch * self.pairs_of_input)?;
        resize(&mut self.listed, batch)?;
        resize(&mut self.hidden, batch * self.pairs_of_hidden)
    }

    pub(super) fn lay_out(&mut self, step: &Step<'_>) {
        for (row, listed) in self.listed.iter_mut().enumerate() {
            *listed = list(step.input(row), &mut self.input[row * self.pairs_of_input..][..self.pairs_of_input]);
        }
        for (pair, &activations) in self.hidden.iter_mut().zip(step.hidden.as_chunks().0) {
            *pair = side_by_side(activations);
        }
    }

    /// The pairs of a row's input that are not zero.
    pub(super) fn input(&self, row: usize) -> &[Pair] {
        &self.input[row * self.pairs_of_input..][..self.listed[row]]
    }

    pub(super) fn hidden(&self, row: usize) -> &[i32] {
        &self.hidden[row * self.pairs_of_hidden..][..self.pairs_of_hidden]
    }
}

/// Lists the pairs of `input` that are not zero, and says how many there are.
fn list(input: &[u8], pairs: &mut [Pair]) -> usize {
    let mut listed = 0;
    for (index, &pair) in (0..).zip(input.as_chunks().0) {
        // Written either way, and kept if the next is written behind it: a branch would be a coin to guess.
        pairs[listed] = Pair { index, activations: side_by_side(pair) };
        listed += usize::from(pair != [0, 0]);
    }
    listed
}

fn side_by_side([even, odd]: [u8; 2]) -> i32 {
    i32::from(even) | i32::from(odd) << 16
}

fn resize<T: Clone + Default>(room: &mut Vec<T>, len: usize) -> Result<(), TryReserveError> {
    room.try_reserve(len.saturating_sub(room.len()))?;
    room.resize(len, T::default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_of_an_input_that_are_not_zero_are_listed_in_their_order() {
        let mut pairs = Pairs::default();
        pairs.reserve(2, 8, 4).expect("there is memory");
        let input = [
            [[9; 8], [0, 0, 0, 255, 1, 0, 2, 3]], // What the first row reads at the second step.
            [[9; 8], [0; 8]],
        ];
        let step = Step {
            input: input.as_flattened().as_flattened(),
            inputs: 8,
            steps: 2,
            step: 1,
            hidden: &[128, 129, 1, 255, 0, 0, 0, 7],
            units: 4,
        };
        pairs.lay_out(&step);
        let listed = |row| -> Vec<_> { pairs.input(row).iter().map(|pair| (pair.index, pair.activations)).collect() };
        assert_eq!(listed(0), [(1, 255 << 16), (2, 1), (3, 2 | 3 << 16)]);
        assert_eq!(listed(1), []);
        assert_eq!([pairs.hidden(0), pairs.hidden(1)], [[128 | 129 << 16, 1 | 255 << 16], [0, 7 << 16]]);
    }
}
