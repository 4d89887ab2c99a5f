//! The routes that tell the cache what no longer counts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use volley_cache::{Reached, Scope};

use super::body::Whole;
use super::listener::Edge;
use crate::error::{ApiError, Cause};

pub(super) const PATH: &str = "/admin/cache/invalidate";

pub(super) fn router() -> Router<Arc<Edge>> {
    Router::new().route(PATH, post(invalidate))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalidation {
    /// `all`, `model/NAME`, `version/NAME/VERSION`, `tag/TAG` or `key/HEX`.
    scopes: Vec<String>,
}

#[derive(Serialize)]
struct Invalidated {
    /// `everywhere`: the other replicas hear of it at once, those that are cut off when they are back. `here`: there are no
    /// others. `here_until_redis_is_back`: the others hear of it when Redis is there again.
    reached: &'static str,
}

/// Nothing of these scopes that was computed before is served any more, here from now on.
async fn invalidate(State(edge): State<Arc<Edge>>, Whole(body): Whole) -> Result<Json<Invalidated>, ApiError> {
    let Some(results) = &edge.pipeline.results else {
        return Err(ApiError::new(Cause::Invalid, "nothing is cached: `cache.enabled` is false"));
    };
    let Invalidation { scopes } = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid("body", format!("{error}; expected {{\"scopes\": [\"model/NAME\"]}}")))?;
    let read = |scope: &String| scope.parse::<Scope>().map_err(|error| ApiError::invalid("scopes", error));
    let scopes = scopes.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if scopes.is_empty() {
        return Err(ApiError::invalid("scopes", "empty; expected at least one"));
    }
    // All are asked for before any is waited for.
    let asked: Vec<_> = scopes.into_iter().map(|scope| results.invalidate(scope)).collect();
    let mut reached = "here";
    for invalidation in asked {
        match invalidation.await? {
            Some(Reached::Everywhere) if reached != "here_until_redis_is_back" => reached = "everywhere",
            Some(Reached::HereOnly) => reached = "here_until_redis_is_back",
            Some(Reached::Everywhere) | None => {}
        }
    }
    Ok(Json(Invalidated { reached }))
}
