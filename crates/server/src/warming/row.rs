//! A row of a file of inputs, as a request.

use bytes::Bytes;

use crate::codec::{Binding, InferRequest, Interface, Parameters, Unbound};
use crate::error::ApiError;

/// A request of one row that asks for nothing in particular.
#[derive(Debug, Clone)]
pub(super) struct Row {
    parameters: Parameters,
    /// The values of each of the model's inputs, in their order.
    inputs: Vec<Bytes>,
}

impl Row {
    pub(super) fn new(inputs: Vec<Vec<u8>>) -> Self {
        Self { parameters: Parameters::default(), inputs: inputs.into_iter().map(Bytes::from).collect() }
    }
}

impl Unbound for Row {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn bind(self, interface: Interface<'_>) -> Result<InferRequest, ApiError> {
        let mut binding = Binding::new(interface);
        for (position, (spec, values)) in interface.inputs.iter().zip(self.inputs).enumerate() {
            let shape: Vec<u64> = [1].into_iter().chain(spec.row_shape.iter().map(|&axis| axis as u64)).collect();
            let slot = binding.describe(position, &spec.name, spec.dtype.name(), &shape)?;
            binding.fill(&slot, values.into())?;
        }
        binding.finish(None, true)
    }
}
