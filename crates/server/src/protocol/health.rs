//! Whether the server and a model answer.

use serde::Serialize;

use crate::catalog::{Catalog, Selection};
use crate::error::ApiError;
use crate::http::{Edge, Phase};

/// A message without fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Nothing {}

/// The server runs.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ServerLiveResponse {
    #[prost(bool, tag = "1")]
    pub live: bool,
}

/// The server takes requests for all its models.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize)]
pub(crate) struct ServerReadyResponse {
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// The model takes requests.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct ModelReadyResponse {
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// gRPC's own question for health, which probes ask: whether the server is ready, for any service's name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

/// The answer to [`HealthCheckRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    /// 1 for serving, 2 for not serving.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Whether everything that can be asked for is answered, and will be for a while.
pub(crate) fn server_is_ready(edge: &Edge) -> bool {
    *edge.phase.borrow() == Phase::Serving && edge.pipeline.catalog.is_ready()
}

/// Whether a model takes requests.
///
/// # Errors
/// [`ApiError`] with status 404 for a model or version that is not served.
pub(crate) fn model_is_ready(catalog: &Catalog, model: &str, version: Option<&str>) -> Result<bool, ApiError> {
    let variant = catalog.find(model, Selection { version, ..Selection::default() })?;
    Ok(!variant.is_out())
}
