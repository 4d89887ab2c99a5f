//! What an LSTM's cells make of the sums of their gates.
//!
//! Plain arithmetic on sixteen units at a time, which the compiler turns into vector instructions. What is fused is
//! fused everywhere (`mul_add` rounds once, by a function where there is no instruction), nothing is reordered, and no
//! unit is computed in another way than its neighbour, so that the same sums give the same bits in whatever batch and
//! on whatever machine.

use super::instructions::Instructions;
use super::weights::{GATES, Sums, UNITS};

/// The hidden state, which lies in (-1, 1), in eight bits: `round(127 * h) + 128`.
pub(super) const HIDDEN_SCALE: f32 = 127.0;
/// What a hidden state of zero is in eight bits.
pub(super) const HIDDEN_ZERO_POINT: u8 = 128;

/// What sixteen units of some rows remember from one step to the next.
#[derive(Debug)]
pub(super) struct Units<'a> {
    /// The first row's come first, those of each other so many behind.
    pub(super) apart: usize,
    pub(super) cell: &'a mut [[f32; UNITS]],
    pub(super) hidden: &'a mut [[f32; UNITS]],
    /// The hidden state in eight bits.
    pub(super) quantised: &'a mut [[u8; UNITS]],
}

/// From sums of integers to the arguments of the gates' functions: `scale * sum + bias`.
#[derive(Debug, Clone)]
pub(super) struct Dequantise {
    scale: [[f32; UNITS]; GATES],
    bias: [[f32; UNITS]; GATES],
}

impl Dequantise {
    /// For the sixteen units from `unit` on, of `units` in all; `scale` and `bias` hold those of all units,
    /// gate by gate.
    pub(super) fn new(scale: &[f32], bias: &[f32], units: usize, unit: usize) -> Self {
        // The logistic gates want half their argument; the last gate, the cell's, has a hyperbolic tangent.
        let of_gates = |values: &[f32]| {
            std::array::from_fn(|gate| {
                let half = if gate == GATES - 1 { 1.0 } else { 0.5 };
                std::array::from_fn(|lane| half * values[gate * units + unit + lane])
            })
        };
        Self { scale: of_gates(scale), bias: of_gates(bias) }
    }
}

/// Takes sixteen units of some rows one step further.
pub(super) fn advance<const N: usize>(
    instructions: Instructions,
    sums: &[Sums; N],
    dequantise: &Dequantise,
    units: Units<'_>,
) {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Instructions` found them on this machine.
        Instructions::Avx512Vnni => unsafe { avx512(sums, dequantise, units) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Instructions::Avx2 => unsafe { avx2(sums, dequantise, units) },
        Instructions::Portable => plain(sums, dequantise, units),
    }
}

/// # Safety
/// The machine must have AVX-512 F, BW and VL, and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
fn avx512<const N: usize>(sums: &[Sums; N], dequantise: &Dequantise, units: Units<'_>) {
    plain(sums, dequantise, units);
}

/// # Safety
/// The machine must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const N: usize>(sums: &[Sums; N], dequantise: &Dequantise, units: Units<'_>) {
    plain(sums, dequantise, units);
}

#[inline(always)]
fn plain<const N: usize>(sums: &[Sums; N], dequantise: &Dequantise, units: Units<'_>) {
    let Dequantise { scale, bias } = dequantise;
    let Units { apart, cell, hidden, quantised } = units;
    let gate = |row: usize, gate: usize, lane: usize| {
        tanh((sums[row][gate][lane] as f32).mul_add(scale[gate][lane], bias[gate][lane]))
    };
    // The logistic function is half of 1 + tanh(x / 2), and quotients that are multiplied or added share one division.
    // Two loops, because in one the second division of a row would wait for its first.
    for row in 0..N {
        let cell = &mut cell[row * apart];
        let mut next = [0.0; UNITS];
        for lane in 0..UNITS {
            let ((input, input_by), (forget, forget_by)) = (gate(row, 0, lane), gate(row, 2, lane));
            let (candidate, candidate_by) = gate(row, 3, lane);
            let written_by = input_by * candidate_by;
            let written = (input + input_by) * candidate * forget_by;
            let sum = ((forget + forget_by) * cell[lane]).mul_add(written_by, written);
            next[lane] = 0.5 * sum / (written_by * forget_by);
        }
        *cell = next;
    }
    for row in 0..N {
        let cell = &cell[row * apart];
        let mut next = [0.0; UNITS];
        for lane in 0..UNITS {
            let ((output, output_by), (shown, shown_by)) = (gate(row, 1, lane), tanh(cell[lane]));
            next[lane] = 0.5 * (output + output_by) * shown / (output_by * shown_by);
        }
        hidden[row * apart] = next;
        quantised[row * apart] = next.map(quantise);
    }
}

/// The hyperbolic tangent as a numerator and a positive denominator, within 2e-5 and less than one in size.
///
/// A rational function of the lowest degrees that serve: minimax on [-6.25, 6.25], where the argument is
/// clamped.
#[inline(always)]
fn tanh(x: f32) -> (f32, f32) {
    let x = x.clamp(-6.25, 6.25);
    let square = x * x;
    let numerator = x * 0.001_464_127_3_f32.mul_add(square, 0.113_965_29).mul_add(square, 0.999_962_7);
    let denominator =
        5.323_357e-5_f32.mul_add(square, 0.017_298_905).mul_add(square, 0.447_182_77).mul_add(square, 1.0);
    (numerator, denominator)
}

/// Rounds to the nearest integer, ties to even: from 2^23 on, a 32-bit float has no bits for a fraction.
#[inline(always)]
fn quantise(hidden: f32) -> u8 {
    let integer = hidden * HIDDEN_SCALE + f32::from(HIDDEN_ZERO_POINT) + 8_388_608.0;
    integer.to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hyperbolic_tangent_is_within_its_error_and_below_one() {
        for step in -200_000..=200_000 {
            let x = step as f32 * 1e-4;
            let (numerator, denominator) = tanh(x);
            let (got, wanted) = (numerator / denominator, f64::from(x).tanh());
            assert!((f64::from(got) - wanted).abs() < 2e-5, "tanh({x}) is {wanted}, not {got}");
            assert!(got.abs() < 1.0 && denominator > 0.0, "tanh({x}) came out as {got}");
        }
    }

    #[test]
    fn a_hidden_state_is_rounded_to_the_nearest_of_255_values() {
        assert_eq!([-1.0, 0.0, 1.0].map(quantise), [1, 128, 255]);
        for step in -127_000..=127_000 {
            let hidden = step as f32 / 127_000.0;
            let back = (f32::from(quantise(hidden)) - 128.0) / HIDDEN_SCALE;
            assert!((back - hidden).abs() <= 0.5 / HIDDEN_SCALE + 1e-6, "{hidden} came back as {back}");
        }
    }
}
