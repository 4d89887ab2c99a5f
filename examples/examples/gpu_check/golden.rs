//! The golden inputs: rows as a caller sends them.

use std::error::Error;

use safetensors::SafeTensors;
use volley_gpu_runtime::{Model, Session, TensorSpec, VersionFolder};

/// The golden rows of each input, by its name.
pub(crate) struct Golden(Vec<u8>);

pub(crate) fn read(version: &VersionFolder) -> Result<Golden, Box<dyn Error>> {
    let path = version.golden.as_ref().ok_or("the bundled model has no golden file")?;
    Ok(Golden(std::fs::read(path)?))
}

impl Golden {
    /// The bytes of each of the model's inputs, for all golden rows.
    fn inputs(&self, model: &Model) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let file = SafeTensors::deserialize(&self.0)?;
        model.inputs().iter().map(|spec| Ok(file.tensor(&spec.name)?.data().to_vec())).collect()
    }

    /// The bytes of each input for `rows` rows: the golden ones, over and over.
    pub(crate) fn rows(&self, model: &Model, rows: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let of_input =
            |(bytes, row_bytes): (Vec<u8>, usize)| bytes.iter().copied().cycle().take(rows * row_bytes).collect();
        let row_bytes = model.inputs().iter().map(TensorSpec::row_bytes);
        Ok(self.inputs(model)?.into_iter().zip(row_bytes).map(of_input).collect())
    }

    /// What the model answers to `rows` rows when they are run in batches of `batch`: the bytes of each output.
    pub(crate) fn answers(
        &self,
        model: &Model,
        session: &mut Session,
        rows: usize,
        batch: usize,
    ) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let inputs = self.rows(model, rows)?;
        let mut answers = vec![Vec::new(); model.outputs().len()];
        for start in (0..rows).step_by(batch) {
            let count = batch.min(rows - start);
            for (index, (bytes, spec)) in inputs.iter().zip(&**model.inputs()).enumerate() {
                let piece = &bytes[start * spec.row_bytes()..(start + count) * spec.row_bytes()];
                session.write(index, 0, [piece]);
            }
            let outputs = session.run(count)?;
            for (index, answer) in answers.iter_mut().enumerate() {
                answer.extend_from_slice(outputs.tensor(index));
            }
        }
        Ok(answers)
    }
}

/// The largest absolute difference between two runs' outputs, all binary32; NaN if any value is.
pub(crate) fn largest_difference(these: &[Vec<u8>], those: &[Vec<u8>]) -> f32 {
    let values = |outputs: &[Vec<u8>]| -> Vec<f32> {
        outputs.iter().flat_map(|bytes| bytes.as_chunks().0).map(|&value| f32::from_le_bytes(value)).collect()
    };
    let (these, those) = (values(these), values(those));
    if these.len() != those.len() {
        return f32::NAN;
    }
    let differences = these.iter().zip(&those).map(|(this, that)| (this - that).abs());
    differences.fold(
        0.0,
        |largest: f32, difference| {
            if largest.is_nan() || difference.is_nan() { f32::NAN } else { largest.max(difference) }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: &[f32]) -> Vec<Vec<u8>> {
        vec![values.iter().flat_map(|value| value.to_le_bytes()).collect()]
    }

    #[test]
    fn what_is_not_a_number_or_missing_never_counts_as_near() {
        let right = output(&[1.0, -2.0, 3.0]);
        assert_eq!(largest_difference(&right, &output(&[1.5, -2.0, 3.25])), 0.5);
        for wrong in [output(&[f32::NAN, -2.0, 3.0]), output(&[1.0, -2.0, f32::NAN]), output(&[1.0, -2.0])] {
            assert!(largest_difference(&wrong, &right).is_nan(), "{wrong:?}");
        }
    }
}
