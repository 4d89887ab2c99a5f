//! Weights for AVX2, and products with them.
//!
//! `pmaddubsw` multiplies bytes, twice as many as `pmaddwd` multiplies halves of a word, but adds the products in sixteen
//! bits. It serves for the hidden state, of which no more is multiplied at once than certainly fits: sixteen columns,
//! with values up to a limit that follows from the weights. What single values have beyond it is multiplied by
//! itself, so that the sums are exact with any weights. With seven bits, as the model tools make them, no value is
//! beyond it. An input's values are as large as bytes can be, and few of them are not zero: they are multiplied in
//! sixteen bits to begin with.

use std::arch::x86_64::*;
use std::collections::TryReserveError;

use super::activations::Step;
use super::laid_out::{GROUP, LaidOut};
use super::weights::{GATES, Matrix, OfGates, Sums, UNITS};

/// The weights of all gates of all units.
#[derive(Debug)]
pub(super) struct ByteWeights {
    panels: Vec<Panel>,
    input_shift: u32,
    /// What was added to the weights for the hidden state, so that none is negative.
    offset: i32,
    /// The largest value of a hidden state with which all sums of a group fit.
    limit: i8,
}

#[derive(Debug)]
struct Panel {
    /// By pair of activations.
    input: Vec<OfGates<i16, { 2 * UNITS }>>,
    /// By half of the gates, then by group of values.
    hidden: [Vec<ForGroup>; 2],
    /// Where the sums start: it takes back what the zero point of the input adds.
    start: Sums,
}

/// Weights of two gates for a group of values, by quad of them.
type ForGroup = [[ForQuad; 4]; GROUP / 4];

/// Weights of eight units for four values, which are side by side.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct ForQuad([u8; 32]);

impl ByteWeights {
    /// Fails where there is no memory for them.
    pub(super) fn new(matrix: &Matrix<'_>) -> Result<Self, TryReserveError> {
        let offset = -matrix.of_hidden().flatten().fold(0, |least, &weight| least.min(i32::from(weight)));
        let mut panels = Vec::new();
        panels.try_reserve_exact(matrix.units / UNITS)?;
        for unit in (0..matrix.units).step_by(UNITS) {
            panels.push(Panel::new(matrix, unit, offset)?);
        }
        Ok(Self { panels, input_shift: matrix.input_shift, offset, limit: limit(matrix, offset) })
    }

    /// Lays out a step of `batch` rows for these weights. Fails where there is no memory for it.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn lay_out(&self, step: &Step<'_>, batch: usize, laid_out: &mut LaidOut) -> Result<(), TryReserveError> {
        laid_out.lay_out(step, batch, self.limit)
    }

    /// The sums of panel `panel` for a row of a step that is laid out for these weights.
    ///
    /// # Panics
    /// If the row is wider than the weights.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) fn multiply(&self, panel: usize, row: usize, laid_out: &LaidOut, sums: &mut Sums) {
        let panel = &self.panels[panel];
        // The sums of all gates fill half the registers there are.
        let mut registers = [[_mm256_setzero_si256(); 2]; GATES];
        for pair in laid_out.input(row) {
            let activations = _mm256_set1_epi32(pair.activations);
            for (sums, weights) in registers.iter_mut().zip(&panel.input[pair.index as usize].0) {
                for (sum, weights) in sums.iter_mut().zip(halves(weights)) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activations, weights));
                }
            }
        }
        let (excess, sum_of_excess) = laid_out.excess(row);
        let offset_of_excess = _mm256_set1_epi32(self.offset * sum_of_excess);
        let shift = _mm_cvtsi32_si128(self.input_shift.cast_signed());
        for (sums, start) in registers.iter_mut().zip(&panel.start) {
            for (sum, start) in sums.iter_mut().zip(halves(start)) {
                *sum = _mm256_add_epi32(_mm256_sll_epi32(*sum, shift), _mm256_sub_epi32(start, offset_of_excess));
            }
        }
        // From here on two gates at a time, whose sums of sixteen bits take a quarter of the registers as well.
        let ones = _mm256_set1_epi16(1);
        let offset = _mm256_set1_epi16(-self.offset as i16);
        for ((registers, sums), weights) in
            registers.as_chunks_mut::<2>().0.iter_mut().zip(sums.as_chunks_mut::<2>().0).zip(&panel.hidden)
        {
            let registers = registers.as_flattened_mut();
            for value in excess {
                let values = _mm256_set1_epi32(value.values);
                for (sum, weights) in registers.iter_mut().zip(&weights.as_flattened()[value.quad as usize]) {
                    let product = _mm256_maddubs_epi16(weights.load(), values);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(product, ones));
                }
            }
            for (group, weights) in laid_out.hidden(row).iter().zip(weights) {
                // Sums may wrap around on their way, but not in the end, when what the offset adds is taken back.
                let mut of_group = [_mm256_mullo_epi16(_mm256_set1_epi32(group.sums), offset); 4];
                for (&quad, weights) in group.quads.iter().zip(weights) {
                    let values = _mm256_set1_epi32(quad);
                    for (sum, weights) in of_group.iter_mut().zip(weights) {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(weights.load(), values));
                    }
                }
                for (sum, of_group) in registers.iter_mut().zip(of_group) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(of_group, ones));
                }
            }
            for (sums, registers) in sums.iter_mut().zip(registers.as_chunks().0) {
                store(sums, *registers);
            }
        }
    }
}

/// The largest value with which neither the two products that an instruction adds are too large for sixteen bits, nor
/// those of a group that end up in the same place: two neighbours in every four.
fn limit(matrix: &Matrix<'_>, offset: i32) -> i8 {
    let largest = matrix.of_hidden().flatten().fold(1, |most, &weight| most.max(i32::from(weight) + offset));
    let size = |weights: &[i8]| weights.iter().map(|&weight| i32::from(weight).abs()).sum::<i32>();
    let in_one_place = |group: &[i8]| {
        let [first, last] = [0, 2].map(|at| group.chunks(4).map(|quad| size(&quad[at..at + 2])).sum::<i32>());
        first.max(last)
    };
    let together = matrix.of_hidden().flat_map(|row| row.chunks(GROUP)).map(in_one_place).fold(1, i32::max);
    let most = i32::from(i16::MAX);
    i8::try_from((most / (2 * largest)).min(most / together)).unwrap_or(i8::MAX)
}

impl Panel {
    /// Of the units from `unit` on.
    fn new(matrix: &Matrix<'_>, unit: usize, offset: i32) -> Result<Self, TryReserveError> {
        let mut input = Vec::new();
        input.try_reserve_exact(matrix.inputs / 2)?;
        input.extend(
            (0..matrix.inputs).step_by(2).map(|column| {
                OfGates::new(|gate, lane| i16::from(matrix.row(gate, unit + lane / 2)[column + lane % 2]))
            }),
        );
        let hidden = |half: usize| -> Result<_, TryReserveError> {
            let weight = |column: usize, register: usize, byte: usize| {
                let (gate, unit) = (2 * half + register / 2, unit + register % 2 * UNITS / 2 + byte / 4);
                (i32::from(matrix.row(gate, unit)[column + byte % 4]) + offset) as u8
            };
            let group = |column: usize| {
                std::array::from_fn(|quad| {
                    std::array::from_fn(|register| {
                        ForQuad(std::array::from_fn(|byte| weight(column + 4 * quad, register, byte)))
                    })
                })
            };
            let mut groups = Vec::new();
            groups.try_reserve_exact(matrix.units / GROUP)?;
            groups.extend((matrix.inputs..matrix.inputs + matrix.units).step_by(GROUP).map(group));
            Ok(groups)
        };
        let start = std::array::from_fn(|gate| std::array::from_fn(|lane| matrix.start_of_input(gate, unit + lane)));
        Ok(Self { input, hidden: [hidden(0)?, hidden(1)?], start })
    }
}

impl ForQuad {
    /// # Safety
    /// The machine must have AVX2.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(&self) -> __m256i {
        // SAFETY: the array has the 32 bytes that are read, and its address is a multiple of 32.
        unsafe { _mm256_load_si256(self.0.as_ptr().cast()) }
    }
}

/// # Safety
/// The machine must have AVX2.
#[target_feature(enable = "avx2")]
#[inline]
fn halves<T, const LANES: usize>(values: &[T; LANES]) -> [__m256i; 2] {
    const { assert!(size_of::<[T; LANES]>() == 64, "two registers of 32 bytes") };
    let at = values.as_ptr().cast::<__m256i>();
    // SAFETY: the array has the 64 bytes that are read.
    unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
}

/// # Safety
/// The machine must have AVX2.
#[target_feature(enable = "avx2")]
#[inline]
fn store(sums: &mut [i32; UNITS], [low, high]: [__m256i; 2]) {
    let at = sums.as_mut_ptr().cast::<__m256i>();
    // SAFETY: the array has the 64 bytes that are written.
    unsafe {
        _mm256_storeu_si256(at, low);
        _mm256_storeu_si256(at.add(1), high);
    }
}
