//! The listener that Prometheus scrapes.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::gauges::Gauges;

/// Answers `/metrics` on `listener` until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve_metrics(listener: TcpListener, gauges: Arc<Gauges>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let render = move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], gauges.render()) };
    axum::serve(listener, Router::new().route("/metrics", get(render))).await
}
