//! The model repository extension: what there is, and loading and unloading it while requests are answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::error::ApiError;

/// What an index is to hold.
#[derive(Clone, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default)]
pub(crate) struct IndexRequest {
    /// There is one repository: no name means that one.
    #[prost(string, tag = "1")]
    repository_name: String,
    /// Only what takes requests.
    #[prost(bool, tag = "2")]
    ready: bool,
}

/// The index.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
#[serde(transparent)]
pub(crate) struct Index {
    #[prost(message, repeated, tag = "1")]
    models: Vec<Entry>,
}

/// A model version.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    /// Absent where none is served.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    /// `READY` or `UNAVAILABLE`.
    #[prost(string, tag = "3")]
    state: String,
    /// Why it is not served, or not as it lies in the repository.
    #[prost(string, tag = "4")]
    reason: String,
}

/// A model to load.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LoadRequest {
    #[prost(string, tag = "1")]
    repository_name: String,
    #[prost(string, tag = "2")]
    pub model_name: String,
    #[prost(message, repeated, tag = "3")]
    pub parameters: Vec<LoadParameter>,
}

/// A parameter of a load, as an entry of a map goes over the wire. What it holds is not read: none is offered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct LoadParameter {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A model to unload.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct UnloadRequest {
    #[prost(string, tag = "1")]
    repository_name: String,
    #[prost(string, tag = "2")]
    pub model_name: String,
}

/// What the repository holds and what is served of it.
pub(crate) fn index(catalog: &Catalog, wanted: &IndexRequest) -> Index {
    let entries = catalog.index().into_iter().map(|entry| {
        let state = if entry.version.is_some() { "READY" } else { "UNAVAILABLE" };
        Entry {
            name: entry.model,
            version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
            state: state.to_owned(),
            reason: entry.reason,
        }
    });
    Index { models: entries.filter(|entry| !wanted.ready || entry.state == "READY").collect() }
}

/// Loads a model as it lies in the repository. `parameters` are those that the request carries.
///
/// # Errors
/// [`ApiError`] for any parameter; else as [`Catalog::reload`].
pub(crate) async fn load<'a>(
    catalog: &Arc<Catalog>,
    model: String,
    mut parameters: impl Iterator<Item = &'a str>,
) -> Result<(), ApiError> {
    if let Some(name) = parameters.next() {
        let message = "not offered; a model is loaded as it lies in the repository, with the config.toml of its folder";
        return Err(ApiError::invalid(format_args!("parameters.{name}"), message));
    }
    catalog.reload(model).await
}

/// Serves a model no more.
///
/// # Errors
/// As [`Catalog::unload`].
pub(crate) async fn unload(catalog: &Arc<Catalog>, model: String) -> Result<(), ApiError> {
    catalog.unload(model).await
}
