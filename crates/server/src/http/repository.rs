//! The routes of the model repository extension.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::Whole;
use super::listener::Edge;
use super::routes::{Named, Route};
use crate::codec::Object;
use crate::error::ApiError;
use crate::protocol::{self, Index, IndexRequest};

pub(super) fn routes() -> [Route; 3] {
    const INDEX: &str = "What the repository holds, and what is served of it";
    const LOAD: &str = "Serve a model as it lies in the repository now";
    const UNLOAD: &str = "Serve a model no more; one that is not served is none already";
    [
        Route::post("/v2/repository/index", INDEX, post(index))
            .takes("IndexRequest")
            .gives("Index")
            .refuses(&[400, 413, 503]),
        Route::post("/v2/repository/models/{model}/load", LOAD, post(load))
            .takes("LoadRequest")
            .refuses(&[400, 404, 413, 503]),
        Route::post("/v2/repository/models/{model}/unload", UNLOAD, post(unload))
            .takes("UnloadRequest")
            .refuses(&[400, 413, 503]),
    ]
}

async fn index(State(edge): State<Arc<Edge>>, body: Whole) -> Result<Json<Index>, ApiError> {
    Ok(Json(protocol::index(&edge.pipeline.catalog, &read::<IndexRequest>(body)?)))
}

/// Parameters of a load or an unload.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    parameters: std::collections::BTreeMap<String, Box<RawValue>>,
}

async fn load(State(edge): State<Arc<Edge>>, named: Named, body: Whole) -> Result<(), ApiError> {
    let Parameters { parameters } = read(body)?;
    protocol::load(&edge.pipeline.catalog, named.model, parameters.keys().map(String::as_str)).await
}

/// Parameters are taken: the only one that there is speaks of dependents, and no model has any.
async fn unload(State(edge): State<Arc<Edge>>, named: Named, body: Whole) -> Result<(), ApiError> {
    read::<Parameters>(body)?;
    protocol::unload(&edge.pipeline.catalog, named.model).await
}

/// A body that may be left out.
fn read<T: Default + for<'a> Deserialize<'a>>(Whole(body): Whole) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let Object(read) = serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?;
    Ok(read)
}
