//! The listener that operators speak to: the configuration in force and changes to it, models, health in detail.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tower::ServiceExt;
use volley_scheduler::Priority;

use super::body::Whole;
use super::gate::Gate;
use super::listener::{Edge, Phase, serve};
use super::routes::{no_route, wrong_method};
use super::{cache, repository};
use crate::access::Need;
use crate::config::{Change, ConfigError, Scope, Settings, described};
use crate::error::{ApiError, Cause};
use crate::pipeline::lane;
use crate::updates::{Author, Refused, Updates};

const CONFIG: &str = "/admin/config";
const HEALTH: &str = "/admin/health";

/// What admin requests speak of.
#[derive(Debug)]
struct Admin {
    edge: Arc<Edge>,
    updates: Arc<Updates>,
}

/// Answers admin requests on `listener` until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve_admin(
    listener: TcpListener,
    gate: Arc<Gate>,
    edge: Arc<Edge>,
    updates: Arc<Updates>,
) -> std::io::Result<()> {
    let shared = repository::routes()
        .into_iter()
        .fold(cache::router(), |router, route| router.route(route.path, route.handler))
        .with_state(Arc::clone(&edge));
    let router = Router::new()
        .route(CONFIG, get(config).put(replace).patch(merge))
        .route(HEALTH, get(health))
        .with_state(Arc::new(Admin { edge, updates }))
        .merge(shared)
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method);
    let (_stays, phase) = watch::channel(Phase::Serving);
    serve(
        listener,
        gate,
        phase,
        |_| Need::Scope(Scope::Admin),
        None,
        move |mut request, visit, _received| {
            let name = visit.caller.as_ref().map_or_else(|| "without a name".to_owned(), |caller| caller.name.clone());
            request.extensions_mut().insert(Author::Admin(name));
            let router = router.clone();
            async move {
                let _until_answered = visit;
                router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {})
            }
        },
    )
    .await
}

async fn elsewhere(method: Method, uri: Uri) -> ApiError {
    let paths = [CONFIG, HEALTH, cache::PATH].into_iter().chain(repository::routes().map(|route| route.path));
    no_route(&method, &uri, &format!("there are {}", paths.collect::<Vec<_>>().join(", ")))
}

/// Every setting with its value, where it was said, and whether it can change while the server runs; and what this API
/// said so far.
async fn config(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(described(&admin.updates.settings()))
}

/// The body takes the place of all that this API said before.
async fn replace(State(admin): State<Arc<Admin>>, Extension(author): Extension<Author>, Whole(body): Whole) -> Answer {
    update(admin, author, &body, |_, said| said).await
}

/// The body is merged into what this API said before (JSON Merge Patch, RFC 7396): `null` takes a setting back.
async fn merge(State(admin): State<Arc<Admin>>, Extension(author): Extension<Author>, Whole(body): Whole) -> Answer {
    update(admin, author, &body, |mut before, said| {
        patch(&mut before, said);
        before
    })
    .await
}

type Answer = Result<Json<Changed>, ApiError>;

#[derive(Serialize)]
struct Changed {
    changes: Vec<ChangeOfSetting>,
}

#[derive(Serialize)]
struct ChangeOfSetting {
    path: String,
    before: String,
    after: String,
}

async fn update(
    admin: Arc<Admin>,
    author: Author,
    body: &[u8],
    combine: impl FnOnce(Value, Value) -> Value + Send + 'static,
) -> Answer {
    let said: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("body", format!("{error}; expected settings as a JSON object")))?;
    let make = move |before: &Settings| -> Result<Settings, ConfigError> {
        before.with_last_layer(combine(before.last_layer().clone(), Value::Object(said)))
    };
    // Models may have to be loaded.
    let applied = tokio::task::spawn_blocking(move || admin.updates.apply(&author, make)).await;
    let changes = applied.map_err(|error| ApiError::new(Cause::Internal, error.to_string()))??;
    let of_setting = |Change { path, before, after, .. }| ChangeOfSetting { path, before, after };
    Ok(Json(Changed { changes: changes.into_iter().map(of_setting).collect() }))
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        // Told whole, however long: each line is a setting to put right.
        match refused {
            Refused::Wrong(error) => Self { cause: Cause::Invalid, message: error.to_string() },
            Refused::Fixed(_) => Self { cause: Cause::Conflict, message: refused.to_string() },
            Refused::Model(error) => error,
        }
    }
}

/// Merges `said` into `target`, as RFC 7396 has it.
fn patch(target: &mut Value, said: Value) {
    let Value::Object(said) = said else {
        *target = said;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let table = target.as_object_mut().expect("it was made one");
    for (name, value) in said {
        if value.is_null() {
            table.remove(&name);
        } else {
            patch(table.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[derive(Serialize)]
struct Health {
    phase: &'static str,
    ready: bool,
    queued: Map<String, Value>,
    variants: Vec<VariantHealth>,
}

#[derive(Serialize)]
struct VariantHealth {
    model: String,
    version: String,
    variant: String,
    provider: &'static str,
    takes_requests: bool,
}

/// What the server is at, with status 503 if it is not ready.
async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let Edge { pipeline, phase, .. } = &*admin.edge;
    let phase = *phase.borrow();
    let ready = phase == Phase::Serving && pipeline.catalog.is_ready();
    let depth = pipeline.scheduler.depth();
    let queued = Priority::ALL.map(|priority| (lane(priority).as_str().to_owned(), depth[priority.lane()].into()));
    let variants = pipeline.catalog.variants().into_iter().map(|variant| VariantHealth {
        model: variant.model_name.clone(),
        version: variant.version.clone(),
        variant: variant.variant.clone(),
        provider: variant.provider(),
        takes_requests: !variant.is_out(),
    });
    let phase = match phase {
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Closing => "closing",
    };
    let health = Health { phase, ready, queued: queued.into_iter().collect(), variants: variants.collect() };
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_adds_replaces_and_takes_back() {
        let mut said = json!({ "log": { "filter": "debug" }, "limits": { "requests": 5 } });
        patch(
            &mut said,
            json!({ "log": { "filter": null }, "limits": { "headers": 9 }, "models": { "net": { "max_batch": 2 } } }),
        );
        assert_eq!(
            said,
            json!({ "log": {}, "limits": { "requests": 5, "headers": 9 }, "models": { "net": { "max_batch": 2 } } })
        );
    }
}
