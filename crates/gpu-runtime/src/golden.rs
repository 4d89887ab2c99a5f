//! Golden inputs and outputs: a model that does not reproduce them on this machine takes no traffic.
//!
//! The file is in the safetensors format. Each model input is stored under its own name with its rows along the first
//! axis; each output of a variant is stored as `<variant>.<output>`.

use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use crate::error::RunError;
use crate::input_file::is_type;
use crate::session::Session;
use crate::tensor::{DataType, TensorSpec};

/// Golden rows of one variant.
#[derive(Debug)]
pub(crate) struct Golden {
    path: PathBuf,
    rows: usize,
    inputs: Vec<(TensorSpec, Vec<u8>)>,
    outputs: Vec<(TensorSpec, Vec<u8>)>,
}

/// What a golden check found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GoldenReport {
    pub(crate) rows: usize,
    max_abs_diff: f32,
}

impl fmt::Display for GoldenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, largest difference {:.1e}", self.rows, self.max_abs_diff)
    }
}

impl Golden {
    pub(crate) fn read(
        path: &Path,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
        variant: &str,
    ) -> Result<Self, GoldenError> {
        let fail = |text: String| GoldenError::File { path: path.into(), text };
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(e.to_string()))?;
        let mut rows = None;
        let mut take = |spec: &TensorSpec, name: String| {
            let tensor = file.tensor(&name).map_err(|_| fail(format!("it holds no tensor `{name}`")))?;
            if !is_type(tensor.dtype(), spec.dtype) || tensor.shape().get(1..) != Some(&spec.row_shape[..]) {
                let (dtype, shape) = (tensor.dtype(), tensor.shape());
                return Err(fail(format!("tensor `{name}` is {dtype:?} {shape:?}; expected {spec}")));
            }
            if *rows.get_or_insert(tensor.shape()[0]) != tensor.shape()[0] || tensor.shape()[0] == 0 {
                return Err(fail(format!(
                    "tensor `{name}` has {} rows; expected as many as the others, and some",
                    tensor.shape()[0]
                )));
            }
            Ok((spec.clone(), tensor.data().to_vec()))
        };
        let inputs = inputs.iter().map(|spec| take(spec, spec.name.clone())).collect::<Result<_, _>>()?;
        let outputs =
            outputs.iter().map(|spec| take(spec, format!("{variant}.{}", spec.name))).collect::<Result<_, _>>()?;
        Ok(Self { path: path.into(), rows: rows.unwrap_or(0), inputs, outputs })
    }

    /// Runs every row alone, then all in batches as large as the session takes, and compares with the golden outputs.
    pub(crate) fn check(&self, session: &mut Session, tolerance: f32) -> Result<GoldenReport, GoldenError> {
        let mut max_abs_diff = 0.0_f32;
        for batch in [1, session.max_rows()] {
            for start in (0..self.rows).step_by(batch) {
                let rows = batch.min(self.rows - start);
                for (index, (spec, bytes)) in self.inputs.iter().enumerate() {
                    let of_rows = start * spec.row_bytes()..(start + rows) * spec.row_bytes();
                    session.write(index, 0, [&bytes[of_rows]]);
                }
                let outputs = session.run(rows).map_err(GoldenError::Run)?;
                for (index, (spec, bytes)) in self.outputs.iter().enumerate() {
                    let of_rows = start * spec.row_bytes()..(start + rows) * spec.row_bytes();
                    let diff = difference(spec.dtype, outputs.tensor(index), &bytes[of_rows]);
                    // NaN must fail, so the comparison is for "within", not for "beyond".
                    let within = diff <= tolerance;
                    if !within {
                        let output = spec.name.clone();
                        return Err(GoldenError::Mismatch {
                            path: self.path.clone(),
                            output,
                            start,
                            rows,
                            diff,
                            tolerance,
                        });
                    }
                    max_abs_diff = max_abs_diff.max(diff);
                }
            }
        }
        Ok(GoldenReport { rows: self.rows, max_abs_diff })
    }
}

/// The largest absolute difference of two runs of values; NaN if any value is NaN on one side only. Types other than
/// binary32 must agree to the bit: 0 if they do, else infinity.
fn difference(dtype: DataType, got: &[u8], expected: &[u8]) -> f32 {
    if dtype != DataType::Fp32 {
        return if got == expected { 0.0 } else { f32::INFINITY };
    }
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    values(got).iter().zip(values(expected)).fold(0.0, |largest: f32, (a, b)| {
        let diff = if a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() };
        if diff.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(diff) }
    })
}

/// Why a golden check did not pass.
#[derive(Debug)]
pub(crate) enum GoldenError {
    File { path: PathBuf, text: String },
    Run(RunError),
    Mismatch { path: PathBuf, output: String, start: usize, rows: usize, diff: f32, tolerance: f32 },
}

impl fmt::Display for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, text } => write!(f, "{} cannot be used: {text}", path.display()),
            Self::Run(error) => error.fmt(f),
            Self::Mismatch { path, output, start, rows, diff, tolerance } => write!(
                f,
                "output `{output}` of rows {start}..{} (in a batch of {rows}) is off by {diff:.3e} from {}; at most \
                 {tolerance:.3e} is allowed",
                start + rows,
                path.display()
            ),
        }
    }
}

impl std::error::Error for GoldenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Run(error) => Some(error),
            Self::File { .. } | Self::Mismatch { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn a_value_that_is_not_a_number_on_one_side_never_counts_as_equal() {
        let good = bytes(&[1.0, 2.0]);
        assert_eq!(difference(DataType::Fp32, &good, &bytes(&[1.0, 2.5])), 0.5);
        for off in [bytes(&[f32::NAN, 2.0]), bytes(&[1.0, f32::NAN])] {
            assert!(difference(DataType::Fp32, &off, &good).is_nan());
        }
        assert_eq!(difference(DataType::Fp32, &bytes(&[f32::NAN]), &bytes(&[f32::NAN])), 0.0);
        assert_eq!(difference(DataType::Int8, &[1], &[2]), f32::INFINITY);
    }
}
