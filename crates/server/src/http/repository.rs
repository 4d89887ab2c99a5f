//! The model repository extension: what there is, and loading and unloading it while requests are answered.

use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::listener::Edge;
use crate::catalog::Catalog;
use crate::error::{ApiError, Cause};

pub(super) fn router() -> Router<Arc<Edge>> {
    Router::new()
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
}

/// A model version, as the extension writes it.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    state: &'static str,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IndexRequest {
    /// Only what takes requests.
    ready: bool,
}

async fn index(State(edge): State<Arc<Edge>>, body: Bytes) -> Result<Json<Vec<Entry>>, ApiError> {
    let wanted: IndexRequest = read(&body)?;
    let entries = edge.pipeline.catalog.index().into_iter().map(|entry| {
        let state = if entry.version.is_some() { "READY" } else { "UNAVAILABLE" };
        Entry {
            name: entry.model,
            version: entry.version.map(|version| version.to_string()),
            state,
            reason: entry.reason,
        }
    });
    Ok(Json(entries.filter(|entry| !wanted.ready || entry.state == "READY").collect()))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadRequest {
    parameters: std::collections::BTreeMap<String, Box<RawValue>>,
}

async fn load(State(edge): State<Arc<Edge>>, Path(model): Path<String>, body: Bytes) -> Result<StatusCode, ApiError> {
    let LoadRequest { parameters } = read(&body)?;
    if let Some(name) = parameters.keys().next() {
        let message = "not offered; a model is loaded as it lies in the repository, with the config.toml of its folder";
        return Err(ApiError::invalid(format!("parameters.{name}"), message));
    }
    change(edge, "load", move |catalog| catalog.reload(&model)).await
}

async fn unload(State(edge): State<Arc<Edge>>, Path(model): Path<String>) -> Result<StatusCode, ApiError> {
    change(edge, "unload", move |catalog| catalog.unload(&model)).await
}

/// Changes what is served, on a thread of its own: it may take long, and wait for others.
async fn change(
    edge: Arc<Edge>,
    what: &'static str,
    change: impl FnOnce(&Catalog) -> Result<(), ApiError> + Send + 'static,
) -> Result<StatusCode, ApiError> {
    let (sender, changed) = oneshot::channel();
    let changing = thread::Builder::new().name(format!("volley-{what}")).spawn(move || {
        step_back();
        let _ = sender.send(change(&edge.pipeline.catalog));
    });
    changing.map_err(|error| ApiError::new(Cause::Internal, format!("no thread to {what} it on: {error}")))?;
    let ended = || ApiError::new(Cause::Internal, format!("the {what} ended without a word"));
    changed.await.map_err(|_| ended())?.map(|()| StatusCode::OK)
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

/// Lets the calling thread, which loads and warms up, take what the workers leave, rather than as much as they.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: plain integers in, nothing kept; 0 is, on Linux, the calling thread.
        let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 15) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "the loading thread keeps its priority");
        }
    }
}
