//! An LSTM over eight-bit activations, from its first step to its last.

use std::collections::TryReserveError;
use std::mem;

use super::activations::Step;
use super::cells::{Dequantise, HIDDEN_ZERO_POINT, Units, advance};
use super::instructions::Instructions;
use super::weights::{GateWeights, LaidOut, Matrix, ROWS, Sums, UNITS};

/// An LSTM with its weights.
#[derive(Debug)]
pub(super) struct Lstm {
    weights: GateWeights,
    /// By panel of the weights.
    dequantise: Vec<Dequantise>,
    instructions: Instructions,
    inputs: usize,
    units: usize,
}

/// What an [`Lstm`] remembers from step to step, [batch, units] each. Kept from run to run, so that none allocates.
#[derive(Debug, Default)]
pub(super) struct Memory {
    cell: Vec<f32>,
    /// The hidden state in eight bits, as a step reads it.
    before: Vec<u8>,
    /// The same, as it leaves it.
    after: Vec<u8>,
    /// What a step reads, as the instructions want it.
    laid_out: LaidOut,
    /// What the cells of a panel are about to read.
    sums: [Sums; ROWS],
}

impl Lstm {
    /// From a matrix of weights, and a scale and a bias for each of its rows. Fails where there is no memory for it.
    pub(super) fn new(
        matrix: &Matrix<'_>,
        scale: &[f32],
        bias: &[f32],
        instructions: Instructions,
    ) -> Result<Self, TryReserveError> {
        let Matrix { inputs, units, .. } = *matrix;
        let mut dequantise = Vec::new();
        dequantise.try_reserve_exact(units / UNITS)?;
        dequantise.extend((0..units).step_by(UNITS).map(|unit| Dequantise::new(scale, bias, units, unit)));
        Ok(Self { weights: GateWeights::new(matrix, instructions)?, dequantise, instructions, inputs, units })
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Runs over `input`, [batch, steps, inputs], from a state of zero, and leaves the last hidden state in `last`,
    /// [batch, units].
    pub(super) fn run(
        &self,
        input: &[u8],
        steps: usize,
        last: &mut [f32],
        memory: &mut Memory,
    ) -> Result<(), TryReserveError> {
        let batch = last.len() / self.units;
        memory.clear(last.len())?;
        last.fill(0.0);
        // As few blocks of rows as can be, and all of nearly the same size.
        let blocks = batch.div_ceil(ROWS);
        for step in 0..steps {
            // Taken out for the step, so that the rest of the memory can be written.
            let before = mem::take(&mut memory.before);
            let step = Step { input, inputs: self.inputs, steps, step, hidden: &before, units: self.units };
            self.weights.lay_out(&step, batch, &mut memory.laid_out)?;
            for panel in 0..self.dequantise.len() {
                for block in 0..blocks {
                    let first = block * batch / blocks;
                    match (block + 1) * batch / blocks - first {
                        1 => self.advance::<1>(panel, first, &step, memory, last),
                        2 => self.advance::<2>(panel, first, &step, memory, last),
                        3 => self.advance::<3>(panel, first, &step, memory, last),
                        4 => self.advance::<4>(panel, first, &step, memory, last),
                        5 => self.advance::<5>(panel, first, &step, memory, last),
                        _ => self.advance::<ROWS>(panel, first, &step, memory, last),
                    }
                }
            }
            memory.before = mem::replace(&mut memory.after, before);
        }
        Ok(())
    }

    /// Takes the units of a panel one step further, in `N` rows from `first` on.
    fn advance<const N: usize>(
        &self,
        panel: usize,
        first: usize,
        step: &Step<'_>,
        memory: &mut Memory,
        last: &mut [f32],
    ) {
        let Memory { cell, after, laid_out, sums, .. } = memory;
        let sums = sums.first_chunk_mut::<N>().expect("no more rows than are multiplied at once");
        let rows: [usize; N] = std::array::from_fn(|row| first + row);
        self.weights.multiply(panel, rows, step, laid_out, sums);

        let apart = self.dequantise.len();
        let from = first * apart + panel;
        let units = Units {
            apart,
            cell: &mut cell.as_chunks_mut().0[from..],
            hidden: &mut last.as_chunks_mut().0[from..],
            quantised: &mut after.as_chunks_mut().0[from..],
        };
        advance(self.instructions, sums, &self.dequantise[panel], units);
    }
}

impl Memory {
    /// Makes room for `len` units of state, and sets them to zero.
    ///
    /// Fails where there is no memory, so that the run fails and not the process.
    fn clear(&mut self, len: usize) -> Result<(), TryReserveError> {
        self.cell.clear();
        self.cell.try_reserve(len)?;
        self.cell.resize(len, 0.0);
        for hidden in [&mut self.before, &mut self.after] {
            hidden.clear();
            hidden.try_reserve(len)?;
            hidden.resize(len, HIDDEN_ZERO_POINT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::weights::GATES;
    use super::*;

    /// More than 64 pairs, and no multiple of anything but 4.
    const INPUTS: usize = 148;
    const UNITS_OF_TEST: usize = 48;
    const STEPS: usize = 9;
    const INPUT_SHIFT: u32 = 2;
    const INPUT_ZERO_POINT: u8 = 7;
    /// More than three blocks of rows, and blocks of different sizes on the way there.
    const LARGEST_BATCH: usize = 20;

    /// Numbers that look random, the same on each call (Marsaglia's xorshift).
    fn numbers(seed: u32) -> impl FnMut() -> u32 {
        let mut state = seed;
        move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        }
    }

    /// Weights of every size that eight bits hold, and scales at which gates are open, shut and in between.
    struct Model {
        weights: Vec<i8>,
        scale: Vec<f32>,
        bias: Vec<f32>,
    }

    fn model() -> Model {
        let mut next = numbers(1);
        let rows = GATES * UNITS_OF_TEST;
        Model {
            weights: (0..rows * (INPUTS + UNITS_OF_TEST)).map(|_| next() as i8).collect(),
            scale: (0..rows).map(|_| (1 + next() % 100) as f32 * 1e-6).collect(),
            bias: (0..rows).map(|_| (next() % 2000) as f32 * 1e-3 - 1.0).collect(),
        }
    }

    impl Model {
        fn matrix(&self) -> Matrix<'_> {
            Matrix {
                weights: &self.weights,
                inputs: INPUTS,
                units: UNITS_OF_TEST,
                input_shift: INPUT_SHIFT,
                input_zero_point: INPUT_ZERO_POINT,
                hidden_zero_point: HIDDEN_ZERO_POINT,
            }
        }

        fn lstm(&self, instructions: Instructions) -> Lstm {
            Lstm::new(&self.matrix(), &self.scale, &self.bias, instructions).expect("memory suffices")
        }

        /// The definition of the operator, in 64 bits, with the hidden state rounded as it says; and the largest
        /// argument that any gate's function met.
        fn by_definition(&self, input: &[u8]) -> (Vec<f64>, f64) {
            let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
            let (mut cell, mut hidden) = ([0.0; UNITS_OF_TEST], [0.0; UNITS_OF_TEST]);
            let mut largest = 0.0_f64;
            for input in input.chunks(INPUTS) {
                let quantised = hidden.map(|h: f64| (127.0 * h).round_ties_even());
                let mut argument = |gate: usize, unit: usize| {
                    let row = gate * UNITS_OF_TEST + unit;
                    let weights = &self.weights[row * (INPUTS + UNITS_OF_TEST)..][..INPUTS + UNITS_OF_TEST];
                    let (of_input, of_hidden) = weights.split_at(INPUTS);
                    let times = |weight: &i8, value: f64| f64::from(*weight) * value;
                    let input =
                        of_input.iter().zip(input).map(|(w, &x)| times(w, f64::from(x) - f64::from(INPUT_ZERO_POINT)));
                    let hidden = of_hidden.iter().zip(quantised).map(|(w, h)| times(w, h));
                    let sum = f64::from(1 << INPUT_SHIFT) * input.sum::<f64>() + hidden.sum::<f64>();
                    let argument = f64::from(self.bias[row]) + f64::from(self.scale[row]) * sum;
                    largest = largest.max(argument.abs());
                    argument
                };
                for unit in 0..UNITS_OF_TEST {
                    let written = logistic(argument(0, unit)) * argument(3, unit).tanh();
                    cell[unit] = logistic(argument(2, unit)) * cell[unit] + written;
                    hidden[unit] = logistic(argument(1, unit)) * cell[unit].tanh();
                }
            }
            (hidden.to_vec(), largest)
        }
    }

    /// Rows of input; every fifth is nothing but the extremes of its range, every fourth zero for the most part, as what a
    /// rectifier leaves.
    fn inputs() -> Vec<Vec<u8>> {
        let row = |row: usize| {
            let mut next = numbers(row as u32 + 2);
            let value = move |_| {
                let (random, other) = (next(), next());
                match row {
                    row if row % 5 == 4 => [0, 255][random as usize % 2],
                    row if row % 4 == 3 && !other.is_multiple_of(6) => 0,
                    _ => (random >> 8) as u8,
                }
            };
            (0..STEPS * INPUTS).map(value).collect()
        };
        (0..LARGEST_BATCH).map(row).collect()
    }

    fn run(lstm: &Lstm, memory: &mut Memory, rows: &[&Vec<u8>]) -> Vec<Vec<u32>> {
        let input: Vec<u8> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        let mut last = vec![f32::NAN; rows.len() * lstm.units()];
        lstm.run(&input, STEPS, &mut last, memory).expect("there is memory");
        last.chunks(lstm.units()).map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
    }

    #[test]
    fn the_last_hidden_state_is_that_of_the_definition() {
        let (model, inputs) = (model(), inputs());
        for instructions in Instructions::available() {
            let lstm = model.lstm(instructions);
            let got = run(&lstm, &mut Memory::default(), &inputs.iter().collect::<Vec<_>>());
            for (got, input) in got.iter().zip(&inputs) {
                let (wanted, largest) = model.by_definition(input);
                assert!(largest > 6.25, "no gate was driven to its end: {largest}");
                for (got, wanted) in got.iter().zip(wanted) {
                    // The error of the hyperbolic tangent, and what it does to roundings of the hidden state.
                    let off = (f64::from(f32::from_bits(*got)) - wanted).abs();
                    assert!(off < 5e-3, "{instructions:?}: off by {off}");
                }
            }
        }
    }

    #[test]
    fn a_row_comes_out_the_same_to_the_bit_in_every_batch_and_with_every_set_of_instructions() {
        let (model, inputs) = (model(), inputs());
        let lstm = model.lstm(Instructions::Portable);
        let alone: Vec<_> = inputs.iter().map(|row| run(&lstm, &mut Memory::default(), &[row]).remove(0)).collect();
        for instructions in Instructions::available() {
            let lstm = model.lstm(instructions);
            // The memory is what an earlier run left behind.
            let mut memory = Memory::default();
            for size in (1..=LARGEST_BATCH).rev() {
                let rows: Vec<usize> = (0..size).map(|i| (i * 7 + size) % LARGEST_BATCH).collect();
                let got = run(&lstm, &mut memory, &rows.iter().map(|&row| &inputs[row]).collect::<Vec<_>>());
                for (got, &row) in got.iter().zip(&rows) {
                    assert_eq!(*got, alone[row], "{instructions:?}: row {row} in a batch of {size}");
                }
            }
        }
    }
}
