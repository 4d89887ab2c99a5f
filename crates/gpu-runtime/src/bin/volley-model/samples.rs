//! Rows to run a model on, out of a safetensors file, and the running.

use std::error::Error;
use std::path::Path;

use safetensors::SafeTensors;
use volley_gpu_runtime::{Model, Session};

/// For each input, its rows.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) rows: usize,
    inputs: Vec<Vec<u8>>,
}

impl Samples {
    /// The tensors of `file` that bear the names of the model's inputs.
    pub(crate) fn read(file: &Path, model: &Model) -> Result<Self, Box<dyn Error>> {
        let content = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let tensors = SafeTensors::deserialize(&content).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut rows = None;
        let mut inputs = Vec::new();
        for spec in model.inputs().iter() {
            let tensor =
                tensors.tensor(&spec.name).map_err(|_| format!("{}: no tensor `{}`", file.display(), spec.name))?;
            let found = tensor.data().len() / spec.row_bytes().max(1);
            if tensor.shape().get(1..) != Some(&spec.row_shape[..])
                || found * spec.row_bytes() != tensor.data().len()
                || found == 0
                || *rows.get_or_insert(found) != found
            {
                let (dtype, shape) = (tensor.dtype(), tensor.shape());
                let file = file.display();
                return Err(format!(
                    "{file}: `{}` is {dtype:?} {shape:?}; expected {spec}, as many rows as the others",
                    spec.name
                )
                .into());
            }
            inputs.push(tensor.data().to_vec());
        }
        Ok(Self { rows: rows.unwrap_or(0), inputs })
    }

    /// Runs all rows, so many in a batch: for each output, its values in order.
    pub(crate) fn run(
        &self,
        session: &mut Session,
        model: &Model,
        batch: usize,
    ) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let mut outputs = vec![Vec::new(); model.outputs().len()];
        for start in (0..self.rows).step_by(batch) {
            let rows = batch.min(self.rows - start);
            for (index, (spec, bytes)) in model.inputs().iter().zip(&self.inputs).enumerate() {
                let of_rows = start * spec.row_bytes()..(start + rows) * spec.row_bytes();
                session.write(index, 0, [&bytes[of_rows]]);
            }
            let batch = session.run(rows)?;
            for (index, output) in outputs.iter_mut().enumerate() {
                output.extend_from_slice(batch.tensor(index));
            }
        }
        Ok(outputs)
    }
}

/// The values of an output of the type FP32.
pub(crate) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
