//! The listener that Prometheus scrapes.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::routing::get;
use tokio::sync::watch;
use tower::ServiceExt;

use super::gate::Gate;
use super::listener::{Phase, serve};
use super::routes::{no_route, wrong_method};
use crate::access::Need;
use crate::config::Scope;
use crate::gauges::Gauges;

/// Answers `/metrics` on `listener` until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve_metrics(listener: TcpListener, gate: Arc<Gate>, gauges: Arc<Gauges>) -> std::io::Result<()> {
    let render = move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], gauges.render()) };
    let elsewhere = |method: Method, uri: Uri| async move { no_route(&method, &uri, "there is /metrics") };
    let router =
        Router::new().route("/metrics", get(render)).fallback(elsewhere).method_not_allowed_fallback(wrong_method);
    let (_stays, phase) = watch::channel(Phase::Serving);
    serve(
        listener,
        gate,
        phase,
        |_| Need::Scope(Scope::Observe),
        None,
        move |request, visit, _received| {
            let router = router.clone();
            async move {
                let _until_answered = visit;
                router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {})
            }
        },
    )
    .await
}
