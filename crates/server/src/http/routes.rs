//! The routes that are not hot: health and metadata.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, Response, StatusCode, Uri};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};

use super::infer::failure;
use super::listener::Edge;
use super::{cache, repository};
use crate::error::{ApiError, Cause};
use crate::protocol::{self, ModelConfig, ModelMetadata, ServerMetadata};

pub(super) fn router(edge: Arc<Edge>) -> Router {
    let model = get(model_metadata);
    let config = get(model_config);
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
        .route("/v2/models/{model}/config", config.clone())
        .route("/v2/models/{model}/versions/{version}/config", config)
        .route("/v2/models/{model}/infer", infer.clone())
        .route("/v2/models/{model}/versions/{version}/infer", infer)
        .route("/v2/models/{model}/ready", ready.clone())
        .route("/v2/models/{model}/versions/{version}/ready", ready)
        .merge(repository::router())
        .merge(cache::router())
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        failure(&self)
    }
}

async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata::this())
}

async fn server_ready(State(edge): State<Arc<Edge>>) -> StatusCode {
    status(protocol::server_is_ready(&edge))
}

/// The path's model, and its version if there is one.
#[derive(serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

type AboutModel<T> = Result<Json<T>, ApiError>;

async fn model_metadata(State(edge): State<Arc<Edge>>, Path(path): Path<ModelPath>) -> AboutModel<ModelMetadata> {
    ModelMetadata::of(&edge.pipeline.catalog, &path.model, path.version.as_deref()).map(Json)
}

async fn model_config(State(edge): State<Arc<Edge>>, Path(path): Path<ModelPath>) -> AboutModel<ModelConfig> {
    ModelConfig::of(&edge.pipeline.catalog, &path.model, path.version.as_deref()).map(Json)
}

async fn model_ready(State(edge): State<Arc<Edge>>, Path(path): Path<ModelPath>) -> Result<StatusCode, ApiError> {
    protocol::model_is_ready(&edge.pipeline.catalog, &path.model, path.version.as_deref()).map(status)
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("nothing answers {method} {}; the protocol's routes are under /v2", uri.path());
    ApiError::new(Cause::NotFound, message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(Cause::MethodNotAllowed, format!("{} does not answer {method}", uri.path()))
}
