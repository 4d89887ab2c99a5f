//! Every route of the listener, once: from this table come the router and the document that describes it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::ALLOW;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use axum::response::{IntoResponse, Json};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;

use super::listener::Edge;
use super::reply::Reply;
use super::{openapi, repository};
use crate::access::Need;
use crate::config::Scope;
use crate::error::{ApiError, Cause};
use crate::protocol::{
    self, ModelConfig, ModelMetadata, ModelStatisticsResponse, ServerLiveResponse, ServerMetadata, ServerReadyResponse,
};

/// A method of a path.
pub(super) struct Route {
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// `get` or `post`.
    pub method: &'static str,
    /// What it does.
    pub does: &'static str,
    /// The name of the schema of its body, if it takes one.
    pub takes: Option<&'static str>,
    /// The name of the schema of its answer; no answer has a body but those.
    pub gives: Option<&'static str>,
    /// The statuses of its refusals.
    pub refuses: &'static [u16],
    /// What answers.
    pub handler: MethodRouter<Arc<Edge>>,
}

/// What may be wrong with a path's names.
const NAMES: &[u16] = &[400, 404];
/// What may be wrong with an inference request.
const INFERENCE: &[u16] = &[400, 404, 413, 415, 500, 503, 504];

impl Route {
    fn get(path: &'static str, does: &'static str, handler: MethodRouter<Arc<Edge>>) -> Self {
        Self { path, method: "get", does, takes: None, gives: None, refuses: &[], handler }
    }

    pub(super) fn post(path: &'static str, does: &'static str, handler: MethodRouter<Arc<Edge>>) -> Self {
        Self { method: "post", ..Self::get(path, does, handler) }
    }

    pub(super) fn takes(self, schema: &'static str) -> Self {
        Self { takes: Some(schema), ..self }
    }

    pub(super) fn gives(self, schema: &'static str) -> Self {
        Self { gives: Some(schema), ..self }
    }

    pub(super) fn refuses(self, statuses: &'static [u16]) -> Self {
        Self { refuses: statuses, ..self }
    }
}

/// All of them. What is a good inference request never comes to its handler here: the fast path, or hyper's service, takes it
/// before; what comes has a name that is no text.
pub(super) fn table() -> Vec<Route> {
    const LIVE: &str = "Whether the server runs";
    const READY: &str = "Whether the server takes requests for all its models";
    const MODEL_READY: &str = "Whether a model takes requests";
    const METADATA: &str = "What a model takes and gives";
    const CONFIG: &str = "A model's configuration, in Triton's words";
    const STATS: &str = "What a model has done since it was loaded";
    const INFER: &str = "Ask a model";
    let infer = |path| Route::post(path, INFER, post(no_such_route)).takes("InferRequest").gives("InferResponse");
    let about = |path, does, handler, schema| Route::get(path, does, handler).gives(schema).refuses(NAMES);
    let ready = |path| Route::get(path, MODEL_READY, get(model_ready)).gives("ModelReady").refuses(&[400, 404, 503]);
    let mut table = vec![
        Route::get("/v2/health/live", LIVE, get(server_live)).gives("Live"),
        Route::get("/", "Whether the server runs, as V1's callers ask", get(v1_live)).gives("Alive"),
        Route::get("/v2/health/ready", READY, get(server_ready)).gives("Ready").refuses(&[503]),
        Route::get("/v2", "What the server is", get(server_metadata)).gives("ServerMetadata"),
        about("/v2/models/{model}", METADATA, get(model_metadata), "ModelMetadata"),
        about("/v2/models/{model}/versions/{version}", METADATA, get(model_metadata), "ModelMetadata"),
        ready("/v2/models/{model}/ready"),
        ready("/v2/models/{model}/versions/{version}/ready"),
        about("/v2/models/{model}/config", CONFIG, get(model_config), "ModelConfig"),
        about("/v2/models/{model}/versions/{version}/config", CONFIG, get(model_config), "ModelConfig"),
        Route::get("/v2/models/stats", "What all models have done", get(all_statistics)).gives("Statistics"),
        about("/v2/models/{model}/stats", STATS, get(model_statistics), "Statistics"),
        about("/v2/models/{model}/versions/{version}/stats", STATS, get(model_statistics), "Statistics"),
        infer("/v2/models/{model}/infer").refuses(INFERENCE),
        infer("/v2/models/{model}/versions/{version}/infer").refuses(INFERENCE),
        Route::get("/v1/models", "The models that are served", get(v1_models)).gives("V1Models"),
        about("/v1/models/{model}", MODEL_READY, get(v1_model), "ModelReady"),
        Route::get("/openapi.json", "This document", get(openapi::answer)).gives("Document"),
    ];
    table.extend(repository::routes());
    table
}

/// What a request needs its caller to be: by its path and method, whether or not there is such a route.
pub(super) fn need<B>(request: &Request<B>) -> Need {
    let path = request.uri().path();
    if matches!(path, "/" | "/v2/health/live" | "/v2/health/ready") {
        return Need::Nothing;
    }
    let is_for_operators =
        path.starts_with("/admin/") || path.strip_prefix("/v2/repository/").is_some_and(|rest| rest != "index");
    match *request.method() {
        _ if is_for_operators => Need::Scope(Scope::Admin),
        Method::GET | Method::HEAD => Need::Any,
        _ if path == "/v2/repository/index" => Need::Any,
        _ => Need::Scope(Scope::Infer),
    }
}

pub(super) fn router(edge: Arc<Edge>) -> Router {
    let router = table().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    router
        .route("/v2/", get(server_metadata))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(edge)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        Reply::refusal(&self).into_response()
    }
}

async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata::this())
}

async fn server_live() -> Json<ServerLiveResponse> {
    Json(ServerLiveResponse { live: true })
}

async fn v1_live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "alive" }))
}

async fn server_ready(State(edge): State<Arc<Edge>>) -> (StatusCode, Json<ServerReadyResponse>) {
    let ready = protocol::server_is_ready(&edge);
    (status(ready), Json(ServerReadyResponse { ready }))
}

/// The path's model, and its version if there is one.
#[derive(serde::Deserialize)]
pub(super) struct Named {
    /// The model.
    pub model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wrong = |rejection: PathRejection| ApiError::invalid("path", rejection.body_text());
        Path::from_request_parts(parts, state).await.map(|Path(named)| named).map_err(wrong)
    }
}

type AboutModel<T> = Result<Json<T>, ApiError>;

async fn model_metadata(State(edge): State<Arc<Edge>>, named: Named) -> AboutModel<ModelMetadata> {
    ModelMetadata::of(&edge.pipeline.catalog, &named.model, named.version.as_deref()).map(Json)
}

async fn model_config(State(edge): State<Arc<Edge>>, named: Named) -> AboutModel<ModelConfig> {
    ModelConfig::of(&edge.pipeline.catalog, &named.model, named.version.as_deref()).map(Json)
}

async fn model_statistics(State(edge): State<Arc<Edge>>, named: Named) -> AboutModel<ModelStatisticsResponse> {
    ModelStatisticsResponse::of(&edge.pipeline.catalog, Some(&named.model), named.version.as_deref()).map(Json)
}

async fn all_statistics(State(edge): State<Arc<Edge>>) -> AboutModel<ModelStatisticsResponse> {
    ModelStatisticsResponse::of(&edge.pipeline.catalog, None, None).map(Json)
}

/// Triton's callers look at the status alone, KServe's at the body.
#[derive(Serialize)]
struct ModelReady {
    name: String,
    ready: bool,
}

async fn model_ready(State(edge): State<Arc<Edge>>, named: Named) -> Result<(StatusCode, Json<ModelReady>), ApiError> {
    let ready = protocol::model_is_ready(&edge.pipeline.catalog, &named.model, named.version.as_deref())?;
    Ok((status(ready), Json(ModelReady { name: named.model, ready })))
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Serialize)]
struct V1Models {
    models: Vec<String>,
}

async fn v1_models(State(edge): State<Arc<Edge>>) -> Json<V1Models> {
    Json(V1Models { models: edge.pipeline.catalog.model_names() })
}

/// V1 has no status for what is served and not ready.
async fn v1_model(State(edge): State<Arc<Edge>>, named: Named) -> AboutModel<ModelReady> {
    let ready = protocol::model_is_ready(&edge.pipeline.catalog, &named.model, None)?;
    Ok(Json(ModelReady { name: named.model, ready }))
}

async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    if uri.path().contains("sharedmemory") {
        return ApiError::new(Cause::NotFound, "shared memory is not offered; send the values");
    }
    no_route(&method, &uri, "the routes are listed in /openapi.json")
}

/// Refuses what there is no route for; `known` says which there are.
pub(super) fn no_route(method: &Method, uri: &Uri, known: &str) -> ApiError {
    ApiError::new(Cause::NotFound, format!("nothing answers {method} {}; {known}", uri.path()))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    let path = uri.path();
    let mut refusal =
        ApiError::new(Cause::MethodNotAllowed, format!("{path} does not answer {method}")).into_response();
    // The router takes it for a model of that name, and would say what that answers.
    if path.ends_with(":predict") {
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    refusal
}
