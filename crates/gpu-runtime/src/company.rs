//! Whether the answer to a row depends on the other rows of its batch, or on chance: found out by asking.
//!
//! Nothing in a model file says so. An operator may take means over the batch, or fit the scale of its numbers to all of
//! them, as ONNX Runtime's dynamic quantization does; what a caller got would then depend on who else asked.

use std::ops::Range;

use crate::error::RunError;
use crate::session::Session;
use crate::tensor::{DataType, TensorSpec};

/// Rows that are asked together, at most.
const ROWS: usize = 4;
/// By how many powers of two the values of each of them differ from those of the first: what fits a scale to all of them
/// answers the smaller ones in coarse steps.
const MAGNITUDES: [i64; ROWS] = [0, 4, -3, 1];
/// How far, in parts of a row's largest value, an answer may be from another to be the same: sums of other orders differ.
const SAME: f64 = 1e-3;

/// What was found out about a model's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// A row is answered alike, alone and among others.
    Indifferent,
    /// Among other rows, a row is answered otherwise than alone.
    Matters,
    /// A row is not answered alike when it is asked again.
    Random,
    /// It could not be found out: no two rows fit a batch, or the model fails on rows that are made up.
    Unknown,
}

impl Company {
    /// Asks made-up rows alone, again, and together, in batches of some of `sizes`, which ascend.
    pub(crate) fn of(session: &mut Session, inputs: &[TensorSpec], outputs: &[TensorSpec], sizes: &[usize]) -> Self {
        let found = Self::find_out(session, inputs, outputs, sizes);
        found.unwrap_or_else(|error| {
            tracing::debug!(%error, "made-up rows could not be answered");
            Self::Unknown
        })
    }

    fn find_out(
        session: &mut Session,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        sizes: &[usize],
    ) -> Result<Self, RunError> {
        let together = sizes.iter().copied().find(|&size| size >= ROWS).or(sizes.last().copied());
        let (Some(&alone), Some(together @ 2..)) = (sizes.first(), together) else { return Ok(Self::Unknown) };
        let rows = together.min(ROWS);
        let mut ask = |rows: Range<usize>, size: usize| -> Result<Vec<Answer>, RunError> {
            for (index, spec) in inputs.iter().enumerate() {
                for place in 0..size {
                    let row = rows.clone().nth(place).map(|row| made_up(spec, row));
                    session.write(index, place, [&row.unwrap_or_else(|| vec![0; spec.row_bytes()])[..]]);
                }
            }
            let answered = session.run(size)?;
            let answer =
                |row: usize| (0..outputs.len()).map(|k| answered.rows(row..row + 1).values(k).to_vec()).collect();
            Ok((0..rows.len()).map(answer).collect())
        };
        let by_itself = (0..rows).map(|row| Ok(ask(row..row + 1, alone)?.remove(0))).collect::<Result<Vec<_>, _>>()?;
        let same = |one: &Answer, other: &Answer| {
            outputs.iter().zip(one.iter().zip(other)).all(|(spec, (one, other))| is_same(spec.dtype, one, other))
        };
        let again = ask(0..1, alone)?;
        if !same(&by_itself[0], &again[0]) {
            return Ok(Self::Random);
        }
        let in_company = ask(0..rows, together)?;
        let is_alike = by_itself.iter().zip(&in_company).all(|(alone, together)| same(alone, together));
        Ok(if is_alike { Self::Indifferent } else { Self::Matters })
    }
}

/// A row of each output.
type Answer = Vec<Vec<u8>>;

/// Bits of the exponent and of the mantissa, of a type of floating-point numbers.
fn floating(dtype: DataType) -> Option<(u32, u32)> {
    match dtype {
        DataType::Fp16 => Some((5, 10)),
        DataType::Bf16 => Some((8, 7)),
        DataType::Fp32 => Some((8, 23)),
        DataType::Fp64 => Some((11, 52)),
        _ => None,
    }
}

/// Row `row` of values nobody asked about: floating-point numbers of either sign and one magnitude, zeros and ones of every
/// other type, for such may be the numbers of something.
fn made_up(spec: &TensorSpec, row: usize) -> Vec<u8> {
    let scattered = |index: usize| ((index + row * 7919) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let size = spec.dtype.size();
    let value = |index: usize| match floating(spec.dtype) {
        Some((exponent, mantissa)) => {
            let bias = (1_i64 << (exponent - 1)) - 1;
            let power = (bias - 1 + MAGNITUDES[row]) as u64;
            let noise = scattered(index);
            noise >> 63 << (exponent + mantissa) | power << mantissa | noise << 1 >> (64 - mantissa)
        }
        None => scattered(index) >> 63,
    };
    (0..spec.row_elements()).flat_map(|index| value(index).to_le_bytes().into_iter().take(size)).collect()
}

/// Whether two rows of an output say the same.
fn is_same(dtype: DataType, one: &[u8], other: &[u8]) -> bool {
    let Some((exponent, mantissa)) = floating(dtype) else { return one == other };
    let values = |bytes: &[u8]| -> Vec<f64> {
        let bits = bytes
            .chunks_exact(dtype.size())
            .map(|value| value.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte)));
        bits.map(|bits| number(bits, exponent, mantissa)).collect()
    };
    let (one, other) = (values(one), values(other));
    let largest =
        one.iter().filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let step = 0.5_f64.powi(mantissa as i32);
    let allowed = largest * SAME.max(16.0 * step) + 1e-9;
    one.iter()
        .zip(&other)
        .all(|(&one, &other)| one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= allowed)
}

/// The number of these bits, as IEEE 754 has it.
fn number(bits: u64, exponent: u32, mantissa: u32) -> f64 {
    let sign = if bits >> (exponent + mantissa) & 1 == 1 { -1.0 } else { 1.0 };
    let (power, rest) = (bits >> mantissa & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1));
    let part = rest as f64 * 0.5_f64.powi(mantissa as i32);
    let bias = (1_i32 << (exponent - 1)) - 1;
    match power {
        0 => sign * part * 2_f64.powi(1 - bias),
        all if all == (1 << exponent) - 1 && rest == 0 => sign * f64::INFINITY,
        all if all == (1 << exponent) - 1 => f64::NAN,
        power => sign * (1.0 + part) * 2_f64.powi(power as i32 - bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_width_are_read_as_ieee_754_has_them() {
        for value in [0.0, -0.0, 1.0, -2.5, 3.0e-39, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY] {
            assert_eq!(number(value.to_bits().into(), 8, 23), f64::from(value), "{value}");
            assert_eq!(number(f64::from(value).to_bits(), 11, 52), f64::from(value), "{value}");
        }
        assert!(number(f32::NAN.to_bits().into(), 8, 23).is_nan());
        // The smallest, one third, and the largest of binary16; one of bfloat16.
        let halves =
            [(0x0001, 2_f64.powi(-24)), (0x3555, 0.333_251_953_125), (0xfbff, -65504.0), (0x7c00, f64::INFINITY)];
        assert!(halves.iter().all(|&(bits, value)| number(bits, 5, 10) == value));
        assert_eq!(number(0x3fc0, 8, 7), 1.5);
    }

    #[test]
    fn rows_are_made_up_of_usual_numbers_and_no_two_alike() {
        let spec = |dtype| TensorSpec { name: "x".into(), dtype, row_shape: vec![4, 5] };
        for dtype in [DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64] {
            let (exponent, mantissa) = floating(dtype).expect("it is");
            for (row, magnitude) in MAGNITUDES.into_iter().enumerate() {
                let bytes = made_up(&spec(dtype), row);
                assert_eq!(bytes.len(), spec(dtype).row_bytes());
                let values = bytes.chunks_exact(dtype.size()).map(|value| {
                    let mut bits = [0; 8];
                    bits[..value.len()].copy_from_slice(value);
                    number(u64::from_le_bytes(bits), exponent, mantissa)
                });
                let values: Vec<f64> = values.collect();
                let scale = 2_f64.powi(magnitude as i32);
                assert!(values.iter().all(|value| (0.5..1.0).contains(&(value.abs() / scale))), "{values:?}");
                assert!(values.iter().any(|value| *value < 0.0) && values.iter().any(|value| *value > 0.0));
                assert!(values.windows(2).any(|pair| pair[0].abs() != pair[1].abs()));
            }
        }
        let numbers = made_up(&spec(DataType::Int64), 1);
        let ones = numbers.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().expect("eight")));
        assert!(ones.clone().all(|number| number < 2) && ones.sum::<u64>() > 0);
    }

    #[test]
    fn answers_are_the_same_but_for_what_another_order_of_sums_makes() {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let same = |one: &[f32], other: &[f32]| is_same(DataType::Fp32, &bytes(one), &bytes(other));
        assert!(same(&[1.0, 1e-6, f32::NAN], &[1.0001, 2e-6, f32::NAN]));
        assert!(same(&[f32::INFINITY], &[f32::INFINITY]) && same(&[0.0], &[-0.0]));
        assert!(!same(&[1.0, 0.0], &[1.002, 0.0]) && !same(&[0.0], &[1e-6]));
        assert!(!same(&[f32::NAN], &[1.0]) && !same(&[1.0], &[f32::INFINITY]) && !same(&[1.0], &[f32::NAN]));
        assert!(is_same(DataType::Int64, &[1; 8], &[1; 8]) && !is_same(DataType::Int64, &[1; 8], &[2; 8]));
    }
}
