//! The routes that are not hot: health and metadata.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, Request, Response, StatusCode, Uri};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use serde::Serialize;
use volley_gpu_runtime::TensorSpec;

use super::infer::failure;
use super::listener::{Edge, Phase};
use super::repository;
use crate::access::Need;
use crate::catalog::Selection;
use crate::config::Scope;
use crate::error::{ApiError, Cause};

/// The protocol's extensions that are offered.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// What a request needs its caller to be: by its path and method, whether or not there is such a route.
pub(super) fn need<B>(request: &Request<B>) -> Need {
    let path = request.uri().path();
    if matches!(path, "/v2/health/live" | "/v2/health/ready") {
        return Need::Nothing;
    }
    let changes_models = path.strip_prefix("/v2/repository/").is_some_and(|rest| rest != "index");
    match *request.method() {
        _ if changes_models => Need::Scope(Scope::Admin),
        Method::GET | Method::HEAD => Need::Any,
        _ if path == "/v2/repository/index" => Need::Any,
        _ => Need::Scope(Scope::Infer),
    }
}

pub(super) fn router(edge: Arc<Edge>) -> Router {
    let model = get(model_metadata);
    let ready = get(model_ready);
    // What is a good inference request never comes here; what comes here has another method.
    let infer = post(no_such_route);
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(server_ready))
        .route("/v2/models/{model}", model.clone())
        .route("/v2/models/{model}/versions/{version}", model)
        .route("/v2/models/{model}/infer", infer.clone())
        .route("/v2/models/{model}/versions/{version}/infer", infer)
        .route("/v2/models/{model}/ready", ready.clone())
        .route("/v2/models/{model}/versions/{version}/ready", ready)
        .merge(repository::router())
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        failure(&self)
    }
}

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 2],
}

async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "volley", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS })
}

async fn server_ready(State(edge): State<Arc<Edge>>) -> StatusCode {
    let ready = *edge.phase.borrow() == Phase::Serving && edge.pipeline.catalog.is_ready();
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The path's model, and its version if there is one.
#[derive(serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn selection(&self) -> Selection<'_> {
        Selection { version: self.version.as_deref(), ..Selection::default() }
    }
}

#[derive(Serialize)]
struct ModelMetadata {
    name: String,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

#[derive(Serialize)]
struct TensorMetadata {
    name: String,
    datatype: &'static str,
    /// -1 for the batch axis, as the protocol writes a dynamic axis.
    shape: Vec<i64>,
}

impl From<&TensorSpec> for TensorMetadata {
    fn from(spec: &TensorSpec) -> Self {
        let shape = std::iter::once(-1).chain(spec.row_shape.iter().map(|&axis| axis as i64)).collect();
        Self { name: spec.name.clone(), datatype: spec.dtype.name(), shape }
    }
}

async fn model_metadata(
    State(edge): State<Arc<Edge>>,
    Path(path): Path<ModelPath>,
) -> Result<Json<ModelMetadata>, ApiError> {
    let catalog = &edge.pipeline.catalog;
    let variant = catalog.find(&path.model, path.selection())?;
    Ok(Json(ModelMetadata {
        name: variant.model_name.clone(),
        versions: catalog.version_names(&path.model)?,
        platform: "onnxruntime_onnx",
        inputs: variant.inputs().iter().map(TensorMetadata::from).collect(),
        outputs: variant.outputs().iter().map(TensorMetadata::from).collect(),
    }))
}

async fn model_ready(State(edge): State<Arc<Edge>>, Path(path): Path<ModelPath>) -> Result<StatusCode, ApiError> {
    let variant = edge.pipeline.catalog.find(&path.model, path.selection())?;
    Ok(if variant.is_out() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
}

async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("nothing answers {method} {}; the protocol's routes are under /v2", uri.path());
    ApiError::new(Cause::NotFound, message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(Cause::MethodNotAllowed, format!("{} does not answer {method}", uri.path()))
}
