//! The weights of an LSTM's gates in eight bits, laid out for this machine's instructions, and products with them.
//!
//! They are cut into panels of sixteen units with their four gates, so that the sums of one panel are all that the
//! cells of these units need. A panel is multiplied with up to [`ROWS`] rows at once: each weight that is loaded serves
//! all of them, and the sums stay in registers from the first product to the last.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::collections::TryReserveError;
use std::ops::Range;

use super::instructions::Instructions;

/// Units in a panel: the 32-bit lanes of a 512-bit vector.
pub(super) const UNITS: usize = 16;
/// Gates of a unit, in ONNX's order: input, output, forget, cell.
pub(super) const GATES: usize = 4;
/// Rows that are multiplied at once. Their 24 vectors of sums, 4 of weights and one of activations fit the 32 registers
/// of AVX-512.
pub(super) const ROWS: usize = 6;

/// The sums of one row in one panel, by gate and unit.
pub(super) type Sums = [[i32; UNITS]; GATES];

/// Weights for four activations, by gate: the four of a unit are side by side, as a VNNI instruction takes them.
#[cfg(target_arch = "x86_64")]
type Quads = [[i8; 4 * UNITS]; GATES];

/// Weights for two activations, by gate: the two of a unit are side by side, in the sixteen bits that `pmaddwd` takes.
/// Its sums are exact, where those of its eight-bit sister `pmaddubsw` saturate.
type Pairs = [[i16; 2 * UNITS]; GATES];

/// The weights of a panel for the LSTM's input and for its hidden state.
#[derive(Debug)]
struct Panel<Step> {
    input: Vec<Step>,
    hidden: Vec<Step>,
    /// Where the sums start: it takes back what the zero points of the activations add.
    start: Sums,
}

#[derive(Debug)]
enum Panels {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Vec<Panel<Quads>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Vec<Panel<Pairs>>),
    Portable(Vec<Panel<Pairs>>),
}

/// The weights of all gates of all units.
#[derive(Debug)]
pub(super) struct GateWeights {
    panels: Panels,
    input_shift: u32,
}

/// Weights as an ONNX graph holds them, and the zero points of what they are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    /// By row, one for each gate of each unit (all input gates first): weights for the input, then for the hidden
    /// state.
    pub(super) weights: &'a [i8],
    /// Width of the input; a multiple of 4.
    pub(super) inputs: usize,
    /// Width of the hidden state; a multiple of [`UNITS`].
    pub(super) units: usize,
    /// Products with the input count for 2 to the power of this.
    pub(super) input_shift: u32,
    pub(super) input_zero_point: u8,
    pub(super) hidden_zero_point: u8,
}

impl GateWeights {
    /// Fails where there is no memory for them.
    pub(super) fn new(matrix: &Matrix<'_>, instructions: Instructions) -> Result<Self, TryReserveError> {
        let panels = match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => Panels::Avx512Vnni(matrix.panels()?),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => Panels::Avx2(matrix.panels()?),
            Instructions::Portable => Panels::Portable(matrix.panels()?),
        };
        Ok(Self { panels, input_shift: matrix.input_shift })
    }

    /// The sums of panel `panel` for some rows of the input and of the hidden state.
    ///
    /// # Panics
    /// If a row is narrower than the weights.
    pub(super) fn multiply<const N: usize>(
        &self,
        panel: usize,
        input: [&[u8]; N],
        hidden: [&[u8]; N],
        sums: &mut [Sums; N],
    ) {
        match &self.panels {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: panels of this kind are made only where `Instructions` found the instructions.
            Panels::Avx512Vnni(panels) => unsafe {
                avx512_vnni(&panels[panel], self.input_shift, input, hidden, sums);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Panels::Avx2(panels) => unsafe { avx2(&panels[panel], self.input_shift, input, hidden, sums) },
            Panels::Portable(panels) => portable(&panels[panel], self.input_shift, input, hidden, sums),
        }
    }
}

impl Matrix<'_> {
    fn panels<Weight: From<i8>, const LANES: usize>(
        &self,
    ) -> Result<Vec<Panel<[[Weight; LANES]; GATES]>>, TryReserveError> {
        let width = self.inputs + self.units;
        let mut panels = Vec::new();
        panels.try_reserve_exact(self.units / UNITS)?;
        for unit in (0..self.units).step_by(UNITS) {
            panels.push(Panel {
                input: self.steps(unit, 0..self.inputs)?,
                hidden: self.steps(unit, self.inputs..width)?,
                start: std::array::from_fn(|gate| std::array::from_fn(|lane| self.start(gate, unit + lane))),
            });
        }
        Ok(panels)
    }

    /// The weights of the units from `unit` on for these columns, in the order in which they are multiplied.
    fn steps<Weight: From<i8>, const LANES: usize>(
        &self,
        unit: usize,
        columns: Range<usize>,
    ) -> Result<Vec<[[Weight; LANES]; GATES]>, TryReserveError> {
        let depth = LANES / UNITS;
        let step = |column: usize| {
            std::array::from_fn(|gate| {
                std::array::from_fn(|lane| self.row(gate, unit + lane / depth)[column + lane % depth].into())
            })
        };
        let mut steps = Vec::new();
        steps.try_reserve_exact(columns.len() / depth)?;
        steps.extend(columns.step_by(depth).map(step));
        Ok(steps)
    }

    /// The weights of a gate of a unit.
    fn row(&self, gate: usize, unit: usize) -> &[i8] {
        let width = self.inputs + self.units;
        &self.weights[(gate * self.units + unit) * width..][..width]
    }

    fn start(&self, gate: usize, unit: usize) -> i32 {
        let (input, hidden) = self.row(gate, unit).split_at(self.inputs);
        let sum = |weights: &[i8]| weights.iter().map(|&weight| i32::from(weight)).sum::<i32>();
        let input = (i32::from(self.input_zero_point) * sum(input)) << self.input_shift;
        -(input + i32::from(self.hidden_zero_point) * sum(hidden))
    }
}

/// # Safety
/// The machine must have AVX-512 F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512_vnni<const N: usize>(
    panel: &Panel<Quads>,
    input_shift: u32,
    input: [&[u8]; N],
    hidden: [&[u8]; N],
    sums: &mut [Sums; N],
) {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add<const N: usize>(sums: &mut [[__m512i; GATES]; N], rows: [&[u8]; N], steps: &[Quads]) {
        let mut quads: [&[[u8; 4]]; N] = [&[]; N];
        for (quads, row) in quads.iter_mut().zip(rows) {
            *quads = &row.as_chunks().0[..steps.len()];
        }
        for (index, step) in steps.iter().enumerate() {
            // SAFETY: each of the arrays has the 64 bytes that are read.
            let weights = step.each_ref().map(|weights| unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) });
            for (sums, quads) in sums.iter_mut().zip(quads) {
                let activations = _mm512_set1_epi32(i32::from_le_bytes(quads[index]));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, activations, weights);
                }
            }
        }
    }
    let mut registers = [[_mm512_setzero_si512(); GATES]; N];
    add(&mut registers, input, &panel.input);
    let shift = _mm_cvtsi32_si128(input_shift.cast_signed());
    registers = registers.map(|row| row.map(|sum| _mm512_sll_epi32(sum, shift)));
    add(&mut registers, hidden, &panel.hidden);
    for (sums, row) in sums.iter_mut().zip(registers) {
        for ((sums, start), sum) in sums.iter_mut().zip(&panel.start).zip(row) {
            // SAFETY: both arrays have the sixteen 32-bit integers that are read and written.
            unsafe {
                let start = _mm512_loadu_si512(start.as_ptr().cast());
                _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi32(sum, start));
            }
        }
    }
}

/// # Safety
/// The machine must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<const N: usize>(
    panel: &Panel<Pairs>,
    input_shift: u32,
    input: [&[u8]; N],
    hidden: [&[u8]; N],
    sums: &mut [Sums; N],
) {
    // A row at a time: the sums of one fill half the registers there are.
    #[target_feature(enable = "avx2")]
    fn add(sums: &mut [[__m256i; 2]; GATES], row: &[u8], steps: &[Pairs]) {
        for (step, &[even, odd]) in steps.iter().zip(row.as_chunks::<2>().0) {
            let activations = _mm256_set1_epi32(i32::from(even) | i32::from(odd) << 16);
            for (sums, weights) in sums.iter_mut().zip(step) {
                for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<16>().0) {
                    // SAFETY: the array has the sixteen 16-bit integers that are read.
                    let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().cast()) };
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activations, weights));
                }
            }
        }
    }
    let shift = _mm_cvtsi32_si128(input_shift.cast_signed());
    for (row, sums) in sums.iter_mut().enumerate() {
        let mut registers = [[_mm256_setzero_si256(); 2]; GATES];
        add(&mut registers, input[row], &panel.input);
        registers = registers.map(|gate| gate.map(|sum| _mm256_sll_epi32(sum, shift)));
        add(&mut registers, hidden[row], &panel.hidden);
        for ((sums, start), gate) in sums.iter_mut().zip(&panel.start).zip(registers) {
            for ((sums, start), sum) in sums.as_chunks_mut::<8>().0.iter_mut().zip(start.as_chunks::<8>().0).zip(gate) {
                // SAFETY: both arrays have the eight 32-bit integers that are read and written.
                unsafe {
                    let start = _mm256_loadu_si256(start.as_ptr().cast());
                    _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi32(sum, start));
                }
            }
        }
    }
}

fn portable<const N: usize>(
    panel: &Panel<Pairs>,
    input_shift: u32,
    input: [&[u8]; N],
    hidden: [&[u8]; N],
    sums: &mut [Sums; N],
) {
    fn add(sums: &mut Sums, row: &[u8], steps: &[Pairs]) {
        for (step, &[even, odd]) in steps.iter().zip(row.as_chunks::<2>().0) {
            for (sums, weights) in sums.iter_mut().zip(step) {
                for (sum, &[a, b]) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                    *sum += i32::from(even) * i32::from(a) + i32::from(odd) * i32::from(b);
                }
            }
        }
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        *sums = [[0; UNITS]; GATES];
        add(sums, input[row], &panel.input);
        for (sum, start) in sums.as_flattened_mut().iter_mut().zip(panel.start.as_flattened()) {
            *sum = (*sum << input_shift) + start;
        }
        add(sums, hidden[row], &panel.hidden);
    }
}
