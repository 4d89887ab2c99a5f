//! What a model takes and gives.

use serde::Deserialize;
use thiserror::Error;

use super::Datatype;

/// A model's own description, from `GET /v2/models/{model}`.
///
/// # Examples
///
/// ```
/// use volley_validate::protocol::ModelMetadata;
///
/// let metadata = ModelMetadata::from_json(br#"{
///     "name": "cnn_lstm", "versions": ["1"], "platform": "onnx",
///     "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 50, 60]}],
///     "outputs": [{"name": "prediction", "datatype": "FP32", "shape": [-1, 3]}]
/// }"#)?;
/// assert_eq!(metadata.inputs[0].shape_of_one()?, [1, 50, 60]);
/// # Ok::<(), volley_validate::protocol::MetadataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// Input tensors, all of them required in a request.
    pub inputs: Vec<TensorMetadata>,
    /// Output tensors, all of them expected in a reply.
    pub outputs: Vec<TensorMetadata>,
}

/// Name, type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TensorMetadata {
    /// The tensor's name.
    pub name: String,
    /// Its element type.
    pub datatype: Datatype,
    /// Its shape; -1 where a size is free, as the batch axis (the first) mostly is.
    pub shape: Vec<i64>,
}

impl ModelMetadata {
    /// Reads the body of a metadata reply.
    ///
    /// # Errors
    ///
    /// When it is not the JSON object that the protocol describes, or names no input or no output.
    pub fn from_json(body: &[u8]) -> Result<Self, MetadataError> {
        let metadata: Self = serde_json::from_slice(body).map_err(MetadataError::Json)?;
        if metadata.inputs.is_empty() || metadata.outputs.is_empty() {
            return Err(MetadataError::NoTensors);
        }
        Ok(metadata)
    }
}

impl TensorMetadata {
    /// The shape of one sample: a free first axis becomes 1.
    ///
    /// # Errors
    ///
    /// When another axis is free, so that the metadata does not say what one sample is.
    pub fn shape_of_one(&self) -> Result<Vec<u64>, MetadataError> {
        self.shape
            .iter()
            .enumerate()
            .map(|(axis, &size)| match (axis, u64::try_from(size)) {
                (_, Ok(size)) => Ok(size),
                (0, Err(_)) => Ok(1),
                (_, Err(_)) => {
                    Err(MetadataError::FreeAxis { tensor: self.name.clone(), axis, shape: self.shape.clone() })
                }
            })
            .collect()
    }
}

/// Why a model's metadata is of no use.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// Not the JSON that the protocol describes.
    #[error("model metadata is not what the Open Inference Protocol V2 describes: {0}")]
    Json(#[source] serde_json::Error),
    /// A list of tensors is empty.
    #[error("model metadata must name at least one input and one output")]
    NoTensors,
    /// An axis other than the first has no size.
    #[error("tensor '{tensor}' of shape {shape:?} is free in axis {axis}: only the first (batch) axis may be -1")]
    FreeAxis {
        /// The tensor's name.
        tensor: String,
        /// Counted from zero.
        axis: usize,
        /// The shape as declared.
        shape: Vec<i64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_without_tensors_or_with_a_wrong_type_is_refused() {
        let empty = br#"{"name": "m", "inputs": [], "outputs": []}"#;
        assert!(matches!(ModelMetadata::from_json(empty), Err(MetadataError::NoTensors)));
        let odd = br#"{"name": "m", "inputs": [{"name": "x", "datatype": "FP33", "shape": [1]}], "outputs": []}"#;
        let message = ModelMetadata::from_json(odd).unwrap_err().to_string();
        assert!(message.contains("FP33"), "{message}");
    }

    #[test]
    fn only_the_first_axis_may_be_free() {
        let tensor = TensorMetadata { name: "x".to_owned(), datatype: Datatype::Fp32, shape: vec![-1, 4, -1] };
        let message = tensor.shape_of_one().unwrap_err().to_string();
        assert!(message.contains("axis 2"), "{message}");
    }
}
