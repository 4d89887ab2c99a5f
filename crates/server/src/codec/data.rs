//! Tensor values in JSON: numbers, flat or nested as the shape says, to little-endian bytes.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use volley_gpu_runtime::DataType;

/// Reads `raw` as values of `dtype` in the shape `shape`: either one flat list, or lists nested as deep as the shape.
///
/// # Errors
/// A sentence saying what was found where.
pub(super) fn parse(raw: &RawValue, dtype: DataType, shape: &[usize]) -> Result<Vec<u8>, String> {
    if !has_text(dtype) {
        return Err(format!("{dtype} has no form in JSON; send raw bytes, with parameters.binary_data_size"));
    }
    let expected = shape.iter().product();
    let mut values = Values { dtype, bytes: Vec::with_capacity(expected * dtype.size()), count: 0, expected };
    let mut json = serde_json::Deserializer::from_str(raw.get());
    Level { shape, depth: 0, values: &mut values }.deserialize(&mut json).map_err(|e| plain(&e))?;
    if values.count != expected {
        return Err(format!("{} values, but the shape {shape:?} needs {expected}", values.count));
    }
    Ok(values.bytes)
}

/// Whether the protocol says how values of this type are written in JSON: of half precision it does not.
pub(super) fn has_text(dtype: DataType) -> bool {
    !matches!(dtype, DataType::Fp16 | DataType::Bf16)
}

/// `serde_json` counts lines and columns from the start of this value, which would mislead.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

struct Values {
    dtype: DataType,
    bytes: Vec<u8>,
    count: usize,
    expected: usize,
}

impl Values {
    fn push<E: de::Error>(&mut self, number: Number) -> Result<(), E> {
        if self.count == self.expected {
            return Err(E::custom(format_args!("more than the {} values the shape needs", self.expected)));
        }
        let at = self.count;
        number
            .append(self.dtype, &mut self.bytes)
            .ok_or_else(|| E::custom(format_args!("value {number} at index {at} does not fit {}", self.dtype)))?;
        self.count += 1;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Number {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            // With its point or exponent, where that is what is wrong with it.
            Self::Float(value) => write!(f, "{value:?}"),
        }
    }
}

impl Number {
    /// Appends the value as `dtype`, or says that it does not fit.
    fn append(self, dtype: DataType, out: &mut Vec<u8>) -> Option<()> {
        match dtype {
            DataType::Fp32 => {
                #[expect(clippy::cast_possible_truncation, reason = "rounding to binary32 is what the type asks for")]
                let value = self.float()? as f32;
                out.extend(value.is_finite().then_some(value)?.to_le_bytes());
            }
            DataType::Fp64 => out.extend(self.float()?.to_le_bytes()),
            DataType::Bool => out.push(match self {
                Self::Bool(value) => u8::from(value),
                Self::Unsigned(value @ (0 | 1)) => value as u8,
                _ => return None,
            }),
            DataType::Uint8 => out.extend(u8::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Uint16 => out.extend(u16::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Uint32 => out.extend(u32::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Uint64 => out.extend(u64::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Int8 => out.extend(i8::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Int16 => out.extend(i16::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Int32 => out.extend(i32::try_from(self.integer()?).ok()?.to_le_bytes()),
            DataType::Int64 => out.extend(i64::try_from(self.integer()?).ok()?.to_le_bytes()),
            // Half precision, which is refused before.
            _ => return None,
        }
        Some(())
    }

    fn float(self) -> Option<f64> {
        match self {
            Self::Bool(_) => None,
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            Self::Float(value) => Some(value),
        }
    }

    fn integer(self) -> Option<i128> {
        match self {
            Self::Unsigned(value) => Some(value.into()),
            Self::Signed(value) => Some(value.into()),
            Self::Bool(_) | Self::Float(_) => None,
        }
    }
}

/// One level of nesting: a number, or a list of what the next level takes.
struct Level<'a> {
    shape: &'a [usize],
    depth: usize,
    values: &'a mut Values,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // At the top a list must stand, even for a tensor without axes.
        if self.depth == 0 { deserializer.deserialize_seq(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            0 => f.write_str("a list of numbers, flat or nested as the shape"),
            depth if depth < self.shape.len() => f.write_str("a number or a nested list"),
            _ => f.write_str("a number"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.depth > 0 && self.depth >= self.shape.len() {
            return Err(de::Error::custom(format_args!(
                "lists are nested {} deep, but the shape {:?} has {} axes",
                self.depth + 1,
                self.shape,
                self.shape.len()
            )));
        }
        let before = self.values.count;
        let mut entries = 0;
        loop {
            let next = Level { shape: self.shape, depth: self.depth + 1, values: &mut *self.values };
            if seq.next_element_seed(next)?.is_none() {
                break;
            }
            entries += 1;
        }
        // A flat list at the top is as good as a nested one; anywhere else the length is the axis.
        let flat = self.depth == 0 && self.values.count - before == entries;
        match self.shape.get(self.depth) {
            Some(&axis) if !flat && entries != axis => Err(de::Error::custom(format_args!(
                "a list of {entries} on axis {}, where the shape {:?} has {axis}",
                self.depth, self.shape
            ))),
            _ => Ok(()),
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.values.push(Number::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.values.push(Number::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.values.push(Number::Signed(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.values.push(Number::Float(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str, dtype: DataType, shape: &[usize]) -> Result<Vec<u8>, String> {
        parse(serde_json::from_str(json).expect("the test's JSON is well-formed"), dtype, shape)
    }

    #[test]
    fn flat_and_nested_lists_mean_the_same() {
        let flat = parsed("[1, 2.5, -3, 4, 5, 6]", DataType::Fp32, &[1, 2, 3]).expect("six values");
        assert_eq!(parsed("[[[1, 2.5, -3], [4, 5, 6]]]", DataType::Fp32, &[1, 2, 3]), Ok(flat.clone()));
        assert_eq!(flat[4..8], 2.5_f32.to_le_bytes());
    }

    #[test]
    fn what_does_not_fit_the_shape_or_type_is_named() {
        let cases = [
            ("[1, 2]", DataType::Fp32, "2 values, but the shape [1, 3] needs 3"),
            ("[1, 2, 3, 4]", DataType::Fp32, "more than the 3 values"),
            ("[[1, 2], [3]]", DataType::Fp32, "a list of 2 on axis 1"),
            ("[[[1], [2], [3]]]", DataType::Fp32, "nested 3 deep"),
            ("[1, \"2\", 3]", DataType::Fp32, "invalid type: string \"2\""),
            ("[1, null, 3]", DataType::Fp32, "invalid type: null"),
            ("[1, 1e39, 3]", DataType::Fp32, "at index 1 does not fit FP32"),
            ("[1, 2.5, 3]", DataType::Int64, "value 2.5 at index 1 does not fit INT64"),
            ("[1, 2.0, 3]", DataType::Int64, "value 2.0 at index 1 does not fit INT64"),
            ("[1, -1, 3]", DataType::Uint8, "value -1 at index 1 does not fit UINT8"),
            ("[true, 2, false]", DataType::Bool, "value 2 at index 1 does not fit BOOL"),
            ("[1, 2, 3]", DataType::Fp16, "FP16 has no form in JSON"),
            ("7", DataType::Fp32, "expected a list of numbers"),
            ("{}", DataType::Fp32, "expected a list of numbers"),
        ];
        for (json, dtype, expected) in cases {
            let message = parsed(json, dtype, &[1, 3]).expect_err(json);
            assert!(message.contains(expected), "{json}: {message}");
        }
    }

    #[test]
    fn integers_keep_all_their_bits() {
        let bytes = parsed("[18446744073709551615]", DataType::Uint64, &[1]).expect("it fits");
        assert_eq!(bytes, u64::MAX.to_le_bytes());
    }
}
