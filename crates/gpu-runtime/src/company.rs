//! Whether the answer to a row depends on the other rows of its batch, or on chance: found out by asking.
//!
//! Nothing in a model file says so. An operator may take means over the batch, or fit the scale of its numbers to all of
//! them, as ONNX Runtime's dynamic quantization does; what a caller got would then depend on who else asked.
//!
//! A row is asked in the company of copies of itself, and again, at the same place, in that of others. Both batches are
//! computed by the same kernels in the same order, so that what differs differs because of the company, and not because
//! sums were taken in another order, as they are where a row is alone.

use crate::error::RunError;
use crate::session::Session;
use crate::tensor::{DataType, TensorSpec};

/// Rows that are asked together, at most.
const ROWS: usize = 4;
/// By how many powers of two the values of each of them are smaller than those of the first: what fits a scale to all of
/// them answers these in coarse steps.
const SMALLER: [u32; ROWS] = [0, 4, 7, 1];
/// How far, in parts of what any row has there, an answer may be from another and still be the same. On a processor they
/// are the same to the bit; a device may add up in any order.
const SAME: f64 = 1e-4;
/// How far, in parts of a row's largest value, an answer may be from that of another size of batch.
const SIMILAR: f64 = 0.05;

/// What was found out about a model's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// A row is answered alike in any company.
    Indifferent,
    /// A row is answered otherwise among others than by itself.
    Matters,
    /// A row is not answered alike when it is asked again.
    Random,
    /// It could not be found out: the model fails on rows that are made up, or answers all of them alike.
    Unknown,
}

/// How rows are made up. What a model makes nothing of in the one way, it may in the other.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Numbers of either sign, and bytes of any value.
    Wide,
    /// Nothing negative, and of whole numbers zeros and ones only, for they may be the numbers of something.
    Narrow,
}

/// A row of each output.
type Answer = Vec<Vec<u8>>;

impl Company {
    /// Asks made-up rows, in batches of some of `sizes`, which ascend.
    pub(crate) fn of(session: &mut Session, inputs: &[TensorSpec], outputs: &[TensorSpec], sizes: &[usize]) -> Self {
        for manner in [Manner::Wide, Manner::Narrow] {
            let mut asking = Asking { session, inputs, outputs, manner };
            match asking.find_out(sizes) {
                Ok(Self::Unknown) => {}
                Ok(found) => return found,
                Err(error) => tracing::debug!(%error, ?manner, "made-up rows could not be answered"),
            }
        }
        Self::Unknown
    }

    /// Whether, as far as is known, nobody's answer changes when requests are computed together.
    #[must_use]
    pub fn may_be_shared(self) -> bool {
        matches!(self, Self::Indifferent | Self::Unknown)
    }
}

struct Asking<'a> {
    session: &'a mut Session,
    inputs: &'a [TensorSpec],
    outputs: &'a [TensorSpec],
    manner: Manner,
}

impl Asking<'_> {
    fn find_out(&mut self, sizes: &[usize]) -> Result<Company, RunError> {
        let together = sizes.iter().copied().find(|&size| size >= ROWS).or(sizes.last().copied());
        let (Some(&least), Some(together)) = (sizes.first(), together) else { return Ok(Company::Unknown) };
        let rows = together.min(ROWS);
        let mut ask_each = |size: usize| -> Result<Vec<Answer>, RunError> {
            (0..rows).map(|row| Ok(self.ask(size, |_| row)?.swap_remove(row.min(size - 1)))).collect()
        };
        let by_itself = ask_each(least)?;
        let again = ask_each(least)?;
        if !self.all_same(&by_itself, &again) {
            return Ok(Company::Random);
        }
        if together == 1 {
            return Ok(Company::Indifferent);
        }
        let among_copies =
            (0..rows).map(|row| Ok(self.ask(together, |_| row)?.swap_remove(row))).collect::<Result<Vec<_>, _>>()?;
        let mut among_others = self.ask(together, |place| place.min(rows - 1))?;
        among_others.truncate(rows);
        if self.session.row_limit() < together {
            // For want of memory they were not.
            return Ok(Company::Unknown);
        }
        // The second is for what only the size of the batch changes.
        let is_alike = self.all_same(&among_copies, &among_others) && self.all_similar(&by_itself, &among_copies);
        Ok(match is_alike {
            false => Company::Matters,
            true if self.tells_apart(&among_copies) => Company::Indifferent,
            true => Company::Unknown,
        })
    }

    /// The answers to a batch of `size` rows, at each place of which is the made-up row of some number.
    fn ask(&mut self, size: usize, row: impl Fn(usize) -> usize) -> Result<Vec<Answer>, RunError> {
        for (index, spec) in self.inputs.iter().enumerate() {
            for place in 0..size {
                self.session.write(index, place, [&made_up(spec, row(place), self.manner)[..]]);
            }
        }
        let outputs = self.outputs.len();
        let answered = self.session.run(size)?;
        let answer = |place: usize| {
            let rows = answered.rows(place..place + 1);
            (0..outputs).map(|output| rows.values(output).to_vec()).collect()
        };
        Ok((0..size).map(answer).collect())
    }

    /// Whether all answers are the same.
    fn all_same(&self, these: &[Answer], those: &[Answer]) -> bool {
        let bits = |output: usize| these.iter().zip(those).all(|(one, other)| one[output] == other[output]);
        (0..self.outputs.len()).all(|output| {
            bits(output) || self.are_near(output, these, those, |largest, there| SAME * (there + largest / 1024.0))
        })
    }

    /// Whether all numbers are about the same. What is none, such as a class, may be another for the least difference.
    fn all_similar(&self, these: &[Answer], those: &[Answer]) -> bool {
        (0..self.outputs.len()).all(|output| {
            floating(self.outputs[output].dtype).is_none()
                || self.are_near(output, these, those, |largest, _| SIMILAR * largest)
        })
    }

    /// Whether no number of an output is further from the other than is `allowed`, by the largest of its row, and the
    /// largest of any row there.
    fn are_near(&self, output: usize, these: &[Answer], those: &[Answer], allowed: impl Fn(f64, f64) -> f64) -> bool {
        let dtype = self.outputs[output].dtype;
        let values = |answers: &[Answer]| -> Option<Vec<Vec<f64>>> {
            answers.iter().map(|answer| numbers(dtype, &answer[output])).collect()
        };
        let (Some(these), Some(those)) = (values(these), values(those)) else { return false };
        let magnitude = |value: &f64| if value.is_finite() { value.abs() } else { 0.0 };
        let largest = |values: &mut dyn Iterator<Item = &f64>| values.map(magnitude).fold(0.0, f64::max);
        these.iter().zip(&those).all(|(one, other)| {
            let of_row = largest(&mut one.iter());
            one.iter().zip(other).enumerate().all(|(at, (a, b))| {
                let is_near = || (a - b).abs() <= allowed(of_row, largest(&mut these.iter().map(|row| &row[at])));
                a == b || (a.is_nan() && b.is_nan()) || is_near()
            })
        })
    }

    /// Whether some number of an answer is one, and another in another row's: else nothing was seen.
    fn tells_apart(&self, answers: &[Answer]) -> bool {
        self.outputs.iter().enumerate().any(|(output, spec)| {
            let rows = answers.iter().map(|answer| &answer[output]);
            match rows.clone().map(|row| numbers(spec.dtype, row)).collect::<Option<Vec<_>>>() {
                Some(rows) => rows.windows(2).any(|pair| {
                    pair[0]
                        .iter()
                        .zip(&pair[1])
                        .any(|(one, other)| one.is_finite() && other.is_finite() && one != other)
                }),
                None => answers.windows(2).any(|pair| pair[0][output] != pair[1][output]),
            }
        })
    }
}

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

/// Row `row` of values nobody asked about, the same at every call.
fn made_up(spec: &TensorSpec, row: usize, manner: Manner) -> Vec<u8> {
    let scattered = |index: usize| ((index + row * 7919) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let size = spec.dtype.size();
    let value = |index: usize| {
        let noise = scattered(index);
        match (floating(spec.dtype), manner) {
            (Some((exponent, mantissa)), _) => {
                let sign = if matches!(manner, Manner::Wide) { noise >> 63 } else { 0 };
                let power = (1_u64 << (exponent - 1)) - 1 - u64::from(SMALLER[row]);
                sign << (exponent + mantissa) | power << mantissa | noise << 1 >> (64 - mantissa)
            }
            (None, Manner::Wide) if matches!(spec.dtype, DataType::Uint8 | DataType::Int8) => {
                noise >> 56 >> (SMALLER[row] / 2)
            }
            (None, _) => noise >> 63,
        }
    };
    (0..spec.row_elements()).flat_map(|index| value(index).to_le_bytes().into_iter().take(size)).collect()
}

/// The numbers of a row of an output, if they are floating-point numbers.
fn numbers(dtype: DataType, bytes: &[u8]) -> Option<Vec<f64>> {
    let (exponent, mantissa) = floating(dtype)?;
    let values = bytes.chunks_exact(dtype.size()).map(|value| {
        let bits = value.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        number(bits, exponent, mantissa)
    });
    Some(values.collect())
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
            for (row, smaller) in SMALLER.into_iter().enumerate() {
                for manner in [Manner::Wide, Manner::Narrow] {
                    let bytes = made_up(&spec(dtype), row, manner);
                    assert_eq!(bytes.len(), spec(dtype).row_bytes());
                    let values = numbers(dtype, &bytes).expect("they are floating-point numbers");
                    let scale = 0.5_f64.powi(smaller as i32);
                    assert!(values.iter().all(|value| (1.0..2.0).contains(&(value.abs() / scale))), "{values:?}");
                    assert!(values.iter().any(|value| *value > 0.0));
                    assert_eq!(values.iter().any(|value| *value < 0.0), matches!(manner, Manner::Wide));
                    assert!(values.windows(2).any(|pair| pair[0].abs() != pair[1].abs()));
                }
            }
        }
        for manner in [Manner::Wide, Manner::Narrow] {
            let whole = made_up(&spec(DataType::Int64), 1, manner);
            let whole = whole.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().expect("eight")));
            assert!(whole.clone().all(|number| number < 2) && whole.sum::<u64>() > 0);
        }
        let largest = |row, manner| made_up(&spec(DataType::Uint8), row, manner).into_iter().max().expect("twenty");
        assert!(largest(0, Manner::Wide) > 200 && (16..64).contains(&largest(1, Manner::Wide)));
        assert_eq!(largest(0, Manner::Narrow), 1);
    }
}
