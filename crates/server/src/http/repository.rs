//! The routes of the model repository extension.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Json;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::listener::Edge;
use crate::error::ApiError;
use crate::protocol::{self, Index, IndexRequest};

pub(super) fn router() -> Router<Arc<Edge>> {
    Router::new()
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
}

async fn index(State(edge): State<Arc<Edge>>, body: Bytes) -> Result<Json<Index>, ApiError> {
    Ok(Json(protocol::index(&edge.pipeline.catalog, &read::<IndexRequest>(&body)?)))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadRequest {
    parameters: std::collections::BTreeMap<String, Box<RawValue>>,
}

async fn load(State(edge): State<Arc<Edge>>, Path(model): Path<String>, body: Bytes) -> Result<(), ApiError> {
    let LoadRequest { parameters } = read(&body)?;
    protocol::load(&edge.pipeline.catalog, model, parameters.keys().map(String::as_str)).await
}

async fn unload(State(edge): State<Arc<Edge>>, Path(model): Path<String>) -> Result<(), ApiError> {
    protocol::unload(&edge.pipeline.catalog, model).await
}

/// A body that may be left out, or is an object.
fn read<'a, T: Default + Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    // A list would be taken for the fields in order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ApiError::invalid("body", "a list; expected an object, or nothing"));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::invalid("body", error))
}
