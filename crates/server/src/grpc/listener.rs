//! Accepting and serving gRPC connections.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use volley_scheduler::Handoff;

use super::service;
use crate::http::{Edge, Phase};

/// How long to hold back after the system refused a connection, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections of `listener` on the runtime of the calling thread, until the server closes and every call that was
/// accepted is answered.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(listener: std::net::TcpListener, edge: Arc<Edge>, handoff: Handoff) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let connections = GracefulShutdown::new();
    let http = http2::Builder::new(TokioExecutor::new());
    let mut phase = edge.phase.clone();
    loop {
        let stream = tokio::select! {
            biased;
            stream = listener.accept() => stream,
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without this, a response can wait 40 ms for the caller's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let (edge, handoff) = (Arc::clone(&edge), handoff.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (edge, handoff) = (Arc::clone(&edge), handoff.clone());
            async move { Ok::<_, Infallible>(service::answer(&edge, &handoff, request).await) }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection ended early");
            }
        });
    }
    drop(listener);
    // Callers are told to go elsewhere with what they have not sent yet; what they have sent is answered.
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    connections.shutdown().await;
    Ok(())
}
