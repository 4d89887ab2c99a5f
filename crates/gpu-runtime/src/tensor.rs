//! Tensors as the crate's callers see them: a name, an element type, a shape and bytes. No `ort` type appears here.

use std::fmt;

/// The element type of a tensor. Names are those of the Open Inference Protocol (`FP32`, `INT64` ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// One byte a value, 0 or 1.
    Bool,
    /// 8-bit unsigned integer.
    Uint8,
    /// 16-bit unsigned integer.
    Uint16,
    /// 32-bit unsigned integer.
    Uint32,
    /// 64-bit unsigned integer.
    Uint64,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// The upper half of a binary32.
    Bf16,
}

impl DataType {
    const ALL: [(DataType, &'static str, usize); 13] = [
        (DataType::Bool, "BOOL", 1),
        (DataType::Uint8, "UINT8", 1),
        (DataType::Uint16, "UINT16", 2),
        (DataType::Uint32, "UINT32", 4),
        (DataType::Uint64, "UINT64", 8),
        (DataType::Int8, "INT8", 1),
        (DataType::Int16, "INT16", 2),
        (DataType::Int32, "INT32", 4),
        (DataType::Int64, "INT64", 8),
        (DataType::Fp16, "FP16", 2),
        (DataType::Fp32, "FP32", 4),
        (DataType::Fp64, "FP64", 8),
        (DataType::Bf16, "BF16", 2),
    ];

    fn row(self) -> &'static (DataType, &'static str, usize) {
        Self::ALL.iter().find(|(dtype, ..)| *dtype == self).expect("every type has its row")
    }

    /// Bytes one element takes.
    ///
    /// ```
    /// use volley_gpu_runtime::DataType;
    /// assert_eq!(DataType::Fp32.size(), 4);
    /// ```
    #[must_use]
    pub fn size(self) -> usize {
        self.row().2
    }

    /// The protocol's name, for example `FP32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type a protocol name stands for; `None` if no type of fixed size has that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a model says of one of its inputs or outputs.
///
/// The first axis is the batch and is not part of `row_shape`: an input declared `[N, 50, 60]` has the row shape
/// `[50, 60]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name in the graph.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// The shape of one row (one sample), without the batch axis.
    pub row_shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements in one row.
    #[must_use]
    pub fn row_elements(&self) -> usize {
        self.row_shape.iter().product()
    }

    /// Bytes in one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.row_elements() * self.dtype.size()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[N", self.name, self.dtype)?;
        for axis in &self.row_shape {
            write!(f, ",{axis}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_name_stands_for_the_type_that_bears_it() {
        for (dtype, name, size) in DataType::ALL {
            assert_eq!(DataType::from_name(name), Some(dtype));
            assert_eq!((dtype.name(), dtype.size()), (name, size));
        }
        assert_eq!(DataType::from_name("BYTES"), None);
    }

    #[test]
    fn a_row_counts_its_bytes_without_the_batch_axis() {
        let spec = TensorSpec { name: "input".into(), dtype: DataType::Fp32, row_shape: vec![50, 60] };
        assert_eq!(spec.row_bytes(), 12_000);
        assert_eq!(spec.to_string(), "input FP32[N,50,60]");
        let scalar = TensorSpec { name: "x".into(), dtype: DataType::Int64, row_shape: vec![] };
        assert_eq!(scalar.row_bytes(), 8);
    }
}
