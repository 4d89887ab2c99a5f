//! A step's activations as AVX2 is best fed with them, laid out once for all panels of weights.
//!
//! An input that comes from a rectifier is zero for the most part (five in six values of the bundled model's), and zeros
//! add nothing to a sum: only its pairs that hold something else are listed. A hidden state is hardly ever zero, but
//! its values are small enough, or nearly all of them, for sums of sixteen bits: what is too much of one is listed.

use std::arch::x86_64::*;
use std::collections::TryReserveError;

use super::activations::Step;
use super::cells::HIDDEN_ZERO_POINT;

/// Values of a hidden state in a [`Group`].
pub(super) const GROUP: usize = 16;

/// Two neighbouring activations of an input, not both of them zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pair {
    /// Which of the row's pairs it is.
    pub(super) index: u32,
    /// Sixteen bits each, the first in the lower half.
    pub(super) activations: i32,
}

/// Neighbouring values of a hidden state, less its zero point, and none of them larger than the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Group {
    /// Signed bytes, four in a quad, the first in the lowest.
    pub(super) quads: [i32; GROUP / 4],
    /// The sum of the first two values of all quads, and that of the last two, as the sixteen bits of a lower and of an
    /// upper half.
    pub(super) sums: i32,
}

/// By how much a value of a hidden state is larger than the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Excess {
    /// Which of the row's quads the value is in.
    pub(super) quad: u32,
    /// The quad, with this where the value is, and zeros.
    pub(super) values: i32,
}

/// The activations of a step. Kept from step to step, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct LaidOut {
    rows: Vec<Row>,
    /// [batch, inputs / 2]; of each row, those that are listed come first, the rest means nothing.
    pairs: Vec<Pair>,
    pairs_of_row: usize,
    /// [batch, units / 16]
    groups: Vec<Group>,
    groups_of_row: usize,
    /// [batch, units]; of each row, those that are listed come first, the rest means nothing.
    excess: Vec<Excess>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    pairs: usize,
    excess: usize,
    sum_of_excess: i32,
}

impl LaidOut {
    /// Lays out a step of `batch` rows; `limit` is the largest value in a group. Fails where there is no memory for it.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn lay_out(&mut self, step: &Step<'_>, batch: usize, limit: i8) -> Result<(), TryReserveError> {
        (self.pairs_of_row, self.groups_of_row) = (step.inputs / 2, step.units / GROUP);
        resize(&mut self.rows, batch)?;
        resize(&mut self.pairs, batch * self.pairs_of_row)?;
        resize(&mut self.groups, batch * self.groups_of_row)?;
        resize(&mut self.excess, batch * self.groups_of_row * GROUP)?;
        for row in 0..batch {
            let pairs = &mut self.pairs[row * self.pairs_of_row..][..self.pairs_of_row];
            let groups = &mut self.groups[row * self.groups_of_row..][..self.groups_of_row];
            let excess = &mut self.excess[row * self.groups_of_row * GROUP..][..self.groups_of_row * GROUP];
            let mut laid_out = Row { pairs: list(step.input(row), pairs), ..Row::default() };
            let hidden = step.hidden(row).as_chunks().0;
            for (index, (group, values)) in groups.iter_mut().zip(hidden).enumerate() {
                let mut large = group.fill(values, limit);
                while large != 0 {
                    let at = large.trailing_zeros() as usize;
                    large &= large - 1;
                    let value = i32::from(values[at]) - i32::from(HIDDEN_ZERO_POINT);
                    let by = value - value.signum() * i32::from(limit);
                    let mut quad = [0; 4];
                    quad[at % 4] = by as u8;
                    excess[laid_out.excess] =
                        Excess { quad: (index * GROUP + at) as u32 / 4, values: i32::from_le_bytes(quad) };
                    laid_out.excess += 1;
                    laid_out.sum_of_excess += by;
                }
            }
            self.rows[row] = laid_out;
        }
        Ok(())
    }

    /// The pairs of a row's input that are not zero.
    pub(super) fn input(&self, row: usize) -> &[Pair] {
        &self.pairs[row * self.pairs_of_row..][..self.rows[row].pairs]
    }

    /// The groups of a row's hidden state.
    pub(super) fn hidden(&self, row: usize) -> &[Group] {
        &self.groups[row * self.groups_of_row..][..self.groups_of_row]
    }

    /// What its groups lack, and the sum of that.
    pub(super) fn excess(&self, row: usize) -> (&[Excess], i32) {
        let Row { excess, sum_of_excess, .. } = self.rows[row];
        (&self.excess[row * self.groups_of_row * GROUP..][..excess], sum_of_excess)
    }
}

impl Group {
    /// Makes it the group of `values`, and says which of them were larger than the limit: the first by the lowest bit.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn fill(&mut self, values: &[u8; GROUP], limit: i8) -> u32 {
        let limit = _mm_set1_epi8(limit);
        // SAFETY: the array has the sixteen bytes that are read.
        let values = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        let values = _mm_sub_epi8(values, _mm_set1_epi8(HIDDEN_ZERO_POINT.cast_signed()));
        let small = _mm_max_epi8(_mm_min_epi8(values, limit), _mm_sub_epi8(_mm_setzero_si128(), limit));
        // SAFETY: the array has the sixteen bytes that are written.
        unsafe { _mm_storeu_si128(self.quads.as_mut_ptr().cast(), small) };
        let pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), small);
        let of_two = _mm_add_epi16(pairs, _mm_shuffle_epi32::<0b01_00_11_10>(pairs));
        let of_four = _mm_add_epi16(of_two, _mm_shuffle_epi32::<0b10_11_00_01>(of_two));
        self.sums = _mm_cvtsi128_si32(of_four);
        !_mm_movemask_epi8(_mm_cmpeq_epi8(values, small)).cast_unsigned() & 0xffff
    }
}

/// Lists the pairs of `input` that are not zero, and says how many there are.
///
/// # Safety
/// The machine must have AVX2.
#[target_feature(enable = "avx2")]
fn list(input: &[u8], pairs: &mut [Pair]) -> usize {
    let mut listed = 0;
    // As many as there are bits to tell them by.
    for (window, input) in input.chunks(2 * 64).enumerate() {
        let mut which = which_pairs(input);
        while which != 0 {
            let at = which.trailing_zeros() as usize;
            which &= which - 1;
            let [even, odd] = [input[2 * at], input[2 * at + 1]];
            let activations = i32::from(even) | i32::from(odd) << 16;
            pairs[listed] = Pair { index: (window * 64 + at) as u32, activations };
            listed += 1;
        }
    }
    listed
}

/// Which of up to 64 pairs are not zero: the first by the lowest bit.
///
/// # Safety
/// The machine must have AVX2.
#[target_feature(enable = "avx2")]
#[inline]
fn which_pairs(input: &[u8]) -> u64 {
    let (eights, rest) = input.as_chunks::<16>();
    let mut which = 0;
    for (index, eight) in eights.iter().enumerate() {
        // SAFETY: the array has the sixteen bytes that are read.
        let pairs = unsafe { _mm_loadu_si128(eight.as_ptr().cast()) };
        let zero = _mm_cmpeq_epi16(pairs, _mm_setzero_si128());
        let zero = _mm_movemask_epi8(_mm_packs_epi16(zero, _mm_setzero_si128()));
        which |= u64::from(!zero as u8) << (8 * index);
    }
    for (index, pair) in rest.as_chunks::<2>().0.iter().enumerate() {
        which |= u64::from(*pair != [0, 0]) << (8 * eights.len() + index);
    }
    which
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
    fn an_input_is_listed_without_zeros_and_a_hidden_state_without_what_is_too_large() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let input = [
            [[9; 8], [0, 0, 0, 255, 1, 0, 2, 3]], // What the first row reads at the second step.
            [[9; 8], [0; 8]],
        ];
        // -128 and 127 cannot be states; they are laid out like any other.
        let hidden = [[128, 129, 127, 130, 191, 192, 65, 64, 255, 1, 128, 128, 0, 128, 128, 128], [128; 16]];
        let step = Step {
            input: input.as_flattened().as_flattened(),
            inputs: 8,
            steps: 2,
            step: 1,
            hidden: hidden.as_flattened(),
            units: 16,
        };
        let mut laid_out = LaidOut::default();
        // SAFETY: the machine has AVX2.
        unsafe { laid_out.lay_out(&step, 2, 63) }.expect("there is memory");

        let pair = |index, activations| Pair { index, activations };
        assert_eq!(laid_out.input(0), [pair(1, 255 << 16), pair(2, 1), pair(3, 2 | 3 << 16)]);
        assert_eq!(laid_out.input(1), []);

        let quad = |values: [i8; 4]| i32::from_le_bytes(values.map(i8::cast_unsigned));
        let small = [[0, 1, -1, 2], [63, 63, -63, -63], [63, -63, 0, 0], [-63, 0, 0, 0]];
        let sums = (64 & 0xffff) | (-125 << 16);
        assert_eq!(laid_out.hidden(0), [Group { quads: small.map(quad), sums }]);
        assert_eq!(laid_out.hidden(1), [Group::default()]);

        let excess = |index, values| Excess { quad: index, values: quad(values) };
        let lacking = [
            excess(1, [0, 1, 0, 0]),
            excess(1, [0, 0, 0, -1]),
            excess(2, [64, 0, 0, 0]),
            excess(2, [0, -64, 0, 0]),
            excess(3, [-65, 0, 0, 0]),
        ];
        assert_eq!(laid_out.excess(0), (&lacking[..], -65));
        assert_eq!(laid_out.excess(1), (&[][..], 0));
    }
}
