//! The weights of an LSTM's gates in eight bits, laid out for this machine's instructions, and products with them.
//!
//! They are cut into panels of sixteen units with their four gates, so that the sums of one panel are all that the
//! cells of these units need. A panel is multiplied with up to [`ROWS`] rows at once: each weight that is loaded serves
//! all of them, and the sums stay in registers from the first product to the last.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::collections::TryReserveError;
use std::ops::Range;

use super::activations::{Pair, Pairs, Step};
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

/// Weights for some activations, by gate: those of a unit are side by side. No load of them crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct OfGates<Weight, const LANES: usize>([[Weight; LANES]; GATES]);

/// Weights for four activations, as a VNNI instruction takes them.
#[cfg(target_arch = "x86_64")]
type ForQuad = OfGates<i8, { 4 * UNITS }>;

/// Weights for two activations, in the sixteen bits that `pmaddwd` takes. Its sums are exact, where those of its
/// eight-bit sister `pmaddubsw` saturate.
type ForPair = OfGates<i16, { 2 * UNITS }>;

/// The weights of a panel for the LSTM's input and for its hidden state.
#[derive(Debug)]
struct Panel<Weights> {
    input: Vec<Weights>,
    hidden: Vec<Weights>,
    /// Where the sums start: it takes back what the zero points of the activations add.
    start: Sums,
}

#[derive(Debug)]
enum Panels {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Vec<Panel<ForQuad>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Vec<Panel<ForPair>>),
    Portable(Vec<Panel<ForPair>>),
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

    /// Whether a step's activations are read in pairs.
    pub(super) fn take_pairs(&self) -> bool {
        match &self.panels {
            #[cfg(target_arch = "x86_64")]
            Panels::Avx512Vnni(_) => false,
            #[cfg(target_arch = "x86_64")]
            Panels::Avx2(_) => true,
            Panels::Portable(_) => true,
        }
    }

    /// The sums of panel `panel` for some rows of a step, whose `pairs` are laid out if they are taken.
    ///
    /// # Panics
    /// If a row is narrower than the weights.
    pub(super) fn multiply<const N: usize>(
        &self,
        panel: usize,
        rows: [usize; N],
        step: &Step<'_>,
        pairs: &Pairs,
        sums: &mut [Sums; N],
    ) {
        match &self.panels {
            #[cfg(target_arch = "x86_64")]
            Panels::Avx512Vnni(panels) => {
                let (input, hidden) = (rows.map(|row| step.input(row)), rows.map(|row| step.hidden(row)));
                // SAFETY: panels of this kind are made only where `Instructions` found the instructions.
                unsafe { avx512_vnni(&panels[panel], self.input_shift, input, hidden, sums) }
            }
            #[cfg(target_arch = "x86_64")]
            Panels::Avx2(panels) => {
                let (input, hidden) = (rows.map(|row| pairs.input(row)), rows.map(|row| pairs.hidden(row)));
                // SAFETY: as above.
                unsafe { avx2(&panels[panel], self.input_shift, input, hidden, sums) }
            }
            Panels::Portable(panels) => {
                let (input, hidden) = (rows.map(|row| pairs.input(row)), rows.map(|row| pairs.hidden(row)));
                portable(&panels[panel], self.input_shift, input, hidden, sums);
            }
        }
    }
}

impl Matrix<'_> {
    fn panels<Weight: From<i8>, const LANES: usize>(
        &self,
    ) -> Result<Vec<Panel<OfGates<Weight, LANES>>>, TryReserveError> {
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
    ) -> Result<Vec<OfGates<Weight, LANES>>, TryReserveError> {
        let depth = LANES / UNITS;
        let step = |column: usize| {
            OfGates(std::array::from_fn(|gate| {
                std::array::from_fn(|lane| self.row(gate, unit + lane / depth)[column + lane % depth].into())
            }))
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
    panel: &Panel<ForQuad>,
    input_shift: u32,
    input: [&[u8]; N],
    hidden: [&[u8]; N],
    sums: &mut [Sums; N],
) {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add<const N: usize>(sums: &mut [[__m512i; GATES]; N], rows: [&[u8]; N], steps: &[ForQuad]) {
        let mut quads: [&[[u8; 4]]; N] = [&[]; N];
        for (quads, row) in quads.iter_mut().zip(rows) {
            *quads = &row.as_chunks().0[..steps.len()];
        }
        for (index, step) in steps.iter().enumerate() {
            // SAFETY: each of the arrays has the 64 bytes that are read.
            let weights = step.0.each_ref().map(|weights| unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) });
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
    panel: &Panel<ForPair>,
    input_shift: u32,
    input: [&[Pair]; N],
    hidden: [&[i32]; N],
    sums: &mut [Sums; N],
) {
    // A row's sums of all gates, which fill half the registers there are.
    #[target_feature(enable = "avx2")]
    fn add(sums: &mut [[__m256i; 2]; GATES], activations: i32, weights: &ForPair) {
        let activations = _mm256_set1_epi32(activations);
        for (sums, weights) in sums.iter_mut().zip(&weights.0) {
            for (sum, weights) in sums.iter_mut().zip(halves(weights)) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(activations, weights));
            }
        }
    }
    // The input a row at a time, since each has pairs of its own; the hidden state too where rows are few.
    let row_by_row = N <= 2;
    let hidden = hidden.map(|hidden| &hidden[..panel.hidden.len()]);
    let shift = _mm_cvtsi32_si128(input_shift.cast_signed());
    for ((sums, input), hidden) in sums.iter_mut().zip(input).zip(hidden) {
        let mut registers = [[_mm256_setzero_si256(); 2]; GATES];
        for pair in input {
            add(&mut registers, pair.activations, &panel.input[pair.index as usize]);
        }
        for (registers, start) in registers.iter_mut().zip(&panel.start) {
            for (sum, start) in registers.iter_mut().zip(halves(start)) {
                *sum = _mm256_add_epi32(_mm256_sll_epi32(*sum, shift), start);
            }
        }
        if row_by_row {
            for (&pair, weights) in hidden.iter().zip(&panel.hidden) {
                add(&mut registers, pair, weights);
            }
        }
        for (sums, registers) in sums.iter_mut().zip(registers) {
            store(sums, registers);
        }
    }
    if row_by_row {
        return;
    }
    // All rows at a time, gate by gate: weights that are loaded serve every row.
    for gate in 0..GATES {
        let mut registers: [[__m256i; 2]; N] = std::array::from_fn(|row| halves(&sums[row][gate]));
        for (index, weights) in panel.hidden.iter().enumerate() {
            let [low, high] = halves(&weights.0[gate]);
            for (sums, hidden) in registers.iter_mut().zip(hidden) {
                // SAFETY: every row was cut to as many pairs as there are weights for.
                let activations = _mm256_set1_epi32(unsafe { *hidden.get_unchecked(index) });
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(activations, low));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(activations, high));
            }
        }
        for (sums, registers) in sums.iter_mut().zip(registers) {
            store(&mut sums[gate], registers);
        }
    }
}

/// # Safety
/// The machine must have AVX2.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
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

fn portable<const N: usize>(
    panel: &Panel<ForPair>,
    input_shift: u32,
    input: [&[Pair]; N],
    hidden: [&[i32]; N],
    sums: &mut [Sums; N],
) {
    fn add(sums: &mut Sums, activations: i32, weights: &ForPair) {
        let (even, odd) = (activations & 0xffff, activations >> 16);
        for (sums, weights) in sums.iter_mut().zip(&weights.0) {
            for (sum, &[a, b]) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                *sum += even * i32::from(a) + odd * i32::from(b);
            }
        }
    }
    for ((sums, input), hidden) in sums.iter_mut().zip(input).zip(hidden) {
        *sums = [[0; UNITS]; GATES];
        for pair in input {
            add(sums, pair.activations, &panel.input[pair.index as usize]);
        }
        for (sum, start) in sums.as_flattened_mut().iter_mut().zip(panel.start.as_flattened()) {
            *sum = (*sum << input_shift) + start;
        }
        for (&pair, weights) in hidden.iter().zip(&panel.hidden) {
            add(sums, pair, weights);
        }
    }
}
