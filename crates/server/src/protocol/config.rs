//! A model's configuration, as far as Triton's has a word for it.

use serde::{Serialize, Serializer};
use volley_gpu_runtime::{DataType, TensorSpec};

use super::metadata::PLATFORM;
use crate::catalog::{Catalog, Selection};
use crate::error::ApiError;

/// A model's configuration.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ModelConfig {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    platform: String,
    #[prost(string, tag = "17")]
    backend: String,
    /// Rows of the largest request.
    #[prost(int32, tag = "4")]
    max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    input: Vec<ModelInput>,
    #[prost(message, repeated, tag = "6")]
    output: Vec<ModelOutput>,
    /// Present: requests are gathered into batches.
    #[prost(message, optional, tag = "11")]
    dynamic_batching: Option<DynamicBatching>,
}

/// An input.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct ModelInput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    #[serde(serialize_with = "type_name")]
    data_type: i32,
    /// The shape of a row.
    #[prost(int64, repeated, tag = "4")]
    dims: Vec<i64>,
}

/// An output.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct ModelOutput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    #[serde(serialize_with = "type_name")]
    data_type: i32,
    /// The shape of a row.
    #[prost(int64, repeated, tag = "3")]
    dims: Vec<i64>,
}

/// How requests are gathered.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct DynamicBatching {
    /// Rows at which a batch is full.
    #[prost(int32, repeated, tag = "1")]
    preferred_batch_size: Vec<i32>,
    #[prost(uint64, tag = "4")]
    priority_levels: u64,
    #[prost(uint64, tag = "5")]
    default_priority_level: u64,
}

/// The configuration as an answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ModelConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub config: Option<ModelConfig>,
}

impl ModelConfig {
    /// That of what is served as `model`.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model or version that is not served.
    pub(crate) fn of(catalog: &Catalog, model: &str, version: Option<&str>) -> Result<Self, ApiError> {
        let variant = catalog.find(model, Selection { version, ..Selection::default() })?;
        let count = |rows: usize| i32::try_from(rows).unwrap_or(i32::MAX);
        Ok(Self {
            name: variant.model_name.clone(),
            platform: PLATFORM.to_owned(),
            backend: "onnxruntime".to_owned(),
            max_batch_size: count(variant.max_rows),
            input: variant.inputs().iter().map(ModelInput::from).collect(),
            output: variant.outputs().iter().map(ModelOutput::from).collect(),
            dynamic_batching: Some(DynamicBatching {
                preferred_batch_size: vec![count(variant.groups.together.full_rows())],
                priority_levels: 4,
                default_priority_level: 3,
            }),
        })
    }
}

impl From<&TensorSpec> for ModelInput {
    fn from(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), data_type: type_number(spec.dtype), dims: dims(spec) }
    }
}

impl From<&TensorSpec> for ModelOutput {
    fn from(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), data_type: type_number(spec.dtype), dims: dims(spec) }
    }
}

fn dims(spec: &TensorSpec) -> Vec<i64> {
    spec.row_shape.iter().map(|&axis| axis as i64).collect()
}

/// The types by Triton's numbers.
const TYPES: [(i32, DataType); 13] = [
    (1, DataType::Bool),
    (2, DataType::Uint8),
    (3, DataType::Uint16),
    (4, DataType::Uint32),
    (5, DataType::Uint64),
    (6, DataType::Int8),
    (7, DataType::Int16),
    (8, DataType::Int32),
    (9, DataType::Int64),
    (10, DataType::Fp16),
    (11, DataType::Fp32),
    (12, DataType::Fp64),
    (14, DataType::Bf16),
];

fn type_number(dtype: DataType) -> i32 {
    TYPES.iter().find(|(_, other)| *other == dtype).map_or(0, |(number, _)| *number)
}

/// In JSON a type goes by its name, which is the protocol's with `TYPE_` before it.
fn type_name<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let name = TYPES.iter().find(|(other, _)| other == number).map_or("INVALID", |(_, dtype)| dtype.name());
    serializer.collect_str(&format_args!("TYPE_{name}"))
}
