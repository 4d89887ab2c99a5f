//! What the server is, and what a model takes and gives.

use serde::Serialize;
use volley_gpu_runtime::TensorSpec;

use crate::catalog::{Catalog, Selection};
use crate::error::ApiError;

/// The protocol's extensions that are offered.
const EXTENSIONS: [&str; 4] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// What the platform of a model is called.
pub(super) const PLATFORM: &str = "onnxruntime_onnx";

/// A question about a model.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct NamedModel {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Empty: the latest.
    #[prost(string, tag = "2")]
    pub version: String,
}

impl NamedModel {
    /// The version, if one is named.
    pub(crate) fn version(&self) -> Option<&str> {
        Some(self.version.as_str()).filter(|version| !version.is_empty())
    }
}

/// The server.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ServerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, repeated, tag = "3")]
    extensions: Vec<String>,
}

impl ServerMetadata {
    /// This one.
    pub(crate) fn this() -> Self {
        Self {
            name: "volley".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }
    }
}

/// A model.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ModelMetadata {
    #[prost(string, tag = "1")]
    name: String,
    /// All versions that are served, ascending.
    #[prost(string, repeated, tag = "2")]
    versions: Vec<String>,
    #[prost(string, tag = "3")]
    platform: String,
    #[prost(message, repeated, tag = "4")]
    inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<TensorMetadata>,
}

/// An input or output.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct TensorMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    /// -1 for the batch axis, as the protocol writes a dynamic axis.
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

impl From<&TensorSpec> for TensorMetadata {
    fn from(spec: &TensorSpec) -> Self {
        let shape = std::iter::once(-1).chain(spec.row_shape.iter().map(|&axis| axis as i64)).collect();
        Self { name: spec.name.clone(), datatype: spec.dtype.name().to_owned(), shape }
    }
}

impl ModelMetadata {
    /// What is served as `model`.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model or version that is not served.
    pub(crate) fn of(catalog: &Catalog, model: &str, version: Option<&str>) -> Result<Self, ApiError> {
        let variant = catalog.find(model, Selection { version, ..Selection::default() })?;
        Ok(Self {
            name: variant.model_name.clone(),
            versions: catalog.version_names(model)?,
            platform: PLATFORM.to_owned(),
            inputs: variant.inputs().iter().map(TensorMetadata::from).collect(),
            outputs: variant.outputs().iter().map(TensorMetadata::from).collect(),
        })
    }
}
