//! The weights of an LSTM's gates in eight bits, laid out for this machine's instructions, and products with them.
//!
//! They are cut into panels of sixteen units with their four gates, so that the sums of one panel are all that the
//! cells of these units need. A panel is multiplied with up to [`ROWS`] rows at once: each weight that is loaded serves
//! all of them, and the sums stay in registers from the first product to the last.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::collections::TryReserveError;
use std::ops::Range;

use super::activations::Step;
#[cfg(target_arch = "x86_64")]
use super::avx2::ByteWeights;
use super::instructions::Instructions;

/// A step's activations, for instructions that want them laid out.
#[cfg(target_arch = "x86_64")]
pub(super) use super::laid_out::LaidOut;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type LaidOut = ();

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
pub(super) struct OfGates<Weight, const LANES: usize>(pub(super) [[Weight; LANES]; GATES]);

/// Weights for four activations, as a VNNI instruction takes them.
#[cfg(target_arch = "x86_64")]
type ForQuad = OfGates<i8, { 4 * UNITS }>;

/// Weights for one activation.
type ForOne = OfGates<i8, UNITS>;

/// The weights of a panel for the LSTM's input and for its hidden state.
#[derive(Debug)]
struct Panel<Weights> {
    input: Vec<Weights>,
    hidden: Vec<Weights>,
    /// Where the sums start: it takes back what the zero points of the activations add.
    start: Sums,
}

impl<Weight, const LANES: usize> OfGates<Weight, LANES> {
    /// The weight of each gate in each lane.
    pub(super) fn new(weight: impl Fn(usize, usize) -> Weight) -> Self {
        Self(std::array::from_fn(|gate| std::array::from_fn(|lane| weight(gate, lane))))
    }
}

#[derive(Debug)]
enum Panels {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Vec<Panel<ForQuad>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(ByteWeights),
    Portable(Vec<Panel<ForOne>>),
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
            Instructions::Avx2 => Panels::Avx2(ByteWeights::new(matrix)?),
            Instructions::Portable => Panels::Portable(matrix.panels()?),
        };
        Ok(Self { panels, input_shift: matrix.input_shift })
    }

    /// Lays out a step of `batch` rows as [`GateWeights::multiply`] wants it. Fails where there is no memory for it.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "plain code takes a step as it is"))]
    pub(super) fn lay_out(&self, step: &Step<'_>, batch: usize, laid_out: &mut LaidOut) -> Result<(), TryReserveError> {
        match &self.panels {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as below.
            Panels::Avx2(weights) => unsafe { weights.lay_out(step, batch, laid_out) },
            _ => Ok(()),
        }
    }

    /// The sums of panel `panel` for some rows of a step that is laid out.
    ///
    /// # Panics
    /// If a row is not as wide as the weights.
    pub(super) fn multiply<const N: usize>(
        &self,
        panel: usize,
        rows: [usize; N],
        step: &Step<'_>,
        laid_out: &LaidOut,
        sums: &mut [Sums; N],
    ) {
        let (input, hidden) = (rows.map(|row| step.input(row)), rows.map(|row| step.hidden(row)));
        match &self.panels {
            #[cfg(target_arch = "x86_64")]
            Panels::Avx512Vnni(panels) => {
                // SAFETY: panels of this kind are made only where `Instructions` found the instructions.
                unsafe { avx512_vnni(&panels[panel], self.input_shift, input, hidden, sums) }
            }
            #[cfg(target_arch = "x86_64")]
            Panels::Avx2(weights) => {
                for (row, sums) in rows.into_iter().zip(sums) {
                    // SAFETY: as above.
                    unsafe { weights.multiply(panel, row, laid_out, sums) }
                }
            }
            Panels::Portable(panels) => portable(&panels[panel], self.input_shift, input, hidden, sums),
        }
    }
}

impl Matrix<'_> {
    fn panels<const LANES: usize>(&self) -> Result<Vec<Panel<OfGates<i8, LANES>>>, TryReserveError> {
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
    fn steps<const LANES: usize>(
        &self,
        unit: usize,
        columns: Range<usize>,
    ) -> Result<Vec<OfGates<i8, LANES>>, TryReserveError> {
        let depth = LANES / UNITS;
        let step =
            |column: usize| OfGates::new(|gate, lane| self.row(gate, unit + lane / depth)[column + lane % depth]);
        let mut steps = Vec::new();
        steps.try_reserve_exact(columns.len() / depth)?;
        steps.extend(columns.step_by(depth).map(step));
        Ok(steps)
    }

    /// Those for the hidden state, row by row.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of_hidden(&self) -> impl Iterator<Item = &[i8]> {
        (0..GATES * self.units).map(|row| &self.row(0, row)[self.inputs..])
    }

    /// The weights of a gate of a unit.
    pub(super) fn row(&self, gate: usize, unit: usize) -> &[i8] {
        let width = self.inputs + self.units;
        &self.weights[(gate * self.units + unit) * width..][..width]
    }

    /// What takes back all that the zero points of a row's activations add to its sums.
    fn start(&self, gate: usize, unit: usize) -> i32 {
        let hidden = &self.row(gate, unit)[self.inputs..];
        self.start_of_input(gate, unit) - i32::from(self.hidden_zero_point) * sum(hidden)
    }

    /// What takes back that which the input's adds.
    pub(super) fn start_of_input(&self, gate: usize, unit: usize) -> i32 {
        let input = &self.row(gate, unit)[..self.inputs];
        -((i32::from(self.input_zero_point) * sum(input)) << self.input_shift)
    }
}

fn sum(weights: &[i8]) -> i32 {
    weights.iter().map(|&weight| i32::from(weight)).sum()
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

fn portable<const N: usize>(
    panel: &Panel<ForOne>,
    input_shift: u32,
    input: [&[u8]; N],
    hidden: [&[u8]; N],
    sums: &mut [Sums; N],
) {
    fn add(sums: &mut Sums, activations: &[u8], weights: &[ForOne]) {
        for (&activation, weights) in activations.iter().zip(weights).filter(|&(&activation, _)| activation != 0) {
            for (sum, &weight) in sums.as_flattened_mut().iter_mut().zip(weights.0.as_flattened()) {
                *sum += i32::from(activation) * i32::from(weight);
            }
        }
    }
    for ((sums, input), hidden) in sums.iter_mut().zip(input).zip(hidden) {
        *sums = [[0; UNITS]; GATES];
        add(sums, input, &panel.input);
        for (sum, start) in sums.as_flattened_mut().iter_mut().zip(panel.start.as_flattened()) {
            *sum = (*sum << input_shift) + start;
        }
        add(sums, hidden, &panel.hidden);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: usize = 20;

    /// One of two values at each place, in one of as many patterns as there are numbers of four bits.
    fn pattern<T: Copy>(number: usize, [one, other]: [T; 2]) -> impl Iterator<Item = T> {
        (0..).map(move |at| if number >> (at % 4) & 1 == 0 { one } else { other })
    }

    #[test]
    fn sums_are_exact_at_the_ends_of_all_ranges_with_every_set_of_instructions() {
        let width = INPUTS + UNITS;
        let all_ends = [[-128, 127], [-127, 127], [-128, -128], [127, 127], [-63, 63], [0, 127], [-1, 0]];
        for (ends, many) in all_ends.into_iter().flat_map(|ends| [(ends, true), (ends, false)]) {
            // All of a row, or but two weights for its hidden state, which are in one product.
            let rows = (0..GATES * UNITS).map(|row| {
                let few = |(at, weight)| if many || at / 2 == INPUTS / 2 { weight } else { 0 };
                pattern(row % 16, ends).take(width).enumerate().map(few)
            });
            let matrix = Matrix {
                weights: &rows.flatten().collect::<Vec<i8>>(),
                inputs: INPUTS,
                units: UNITS,
                input_shift: 3,
                input_zero_point: 7,
                hidden_zero_point: 128,
            };
            for instructions in Instructions::available() {
                let weights = GateWeights::new(&matrix, instructions).expect("there is memory");
                for (number, ends) in
                    (0..16).flat_map(|number| [[1, 255], [0, 191], [100, 192]].map(|ends| (number, ends)))
                {
                    let input: Vec<u8> = pattern(number, [0, 255]).take(INPUTS).collect();
                    let hidden: Vec<u8> = pattern(number, ends).take(UNITS).collect();
                    let step = Step { input: &input, inputs: INPUTS, steps: 1, step: 0, hidden: &hidden, units: UNITS };
                    let (mut laid_out, mut sums) = (LaidOut::default(), [Sums::default()]);
                    weights.lay_out(&step, 1, &mut laid_out).expect("there is memory");
                    weights.multiply(0, [0], &step, &laid_out, &mut sums);
                    let sums = sums[0].as_flattened();
                    for (row, &sum) in sums.iter().enumerate() {
                        let (of_input, of_hidden) = matrix.row(0, row).split_at(INPUTS);
                        let product = |weights: &[i8], values: &[u8], zero: i32| -> i32 {
                            weights.iter().zip(values).map(|(&w, &x)| i32::from(w) * (i32::from(x) - zero)).sum()
                        };
                        let wanted = 8 * product(of_input, &input, 7) + product(of_hidden, &hidden, 128);
                        assert_eq!(sum, wanted, "{instructions:?}: row {row}, {ends:?} as by {number}");
                    }
                }
            }
        }
    }
}
