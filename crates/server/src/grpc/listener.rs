//! Serving connections of gRPC.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use volley_scheduler::Handoff;

use super::gathered::Gathered;
use super::lingering::Lingering;
use super::service;
use crate::http::{Arrival, Edge, Phase, accept, speaks};

/// How long a connection without calls may take to close, when the server leaves or has ended it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves connections of `listener` on the runtime of the calling thread, until the server closes and every call that was
/// accepted is answered.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<Edge>, handoff: Handoff) -> io::Result<()> {
    // When connections close, callers are told to go elsewhere with what they have not sent yet; what they have sent is
    // answered.
    accept(listener, &edge.grpc_gate, edge.phase.clone(), |arrival, watcher| {
        tokio::spawn(converse(arrival, Arc::clone(&edge), handoff.clone(), watcher));
    })
    .await
}

async fn converse(arrival: Arrival, edge: Arc<Edge>, handoff: Handoff, watcher: Watcher) {
    let (stream, peer) = match edge.grpc_gate.secure(arrival).await {
        Ok(secured) => secured,
        Err(error) => return tracing::debug!(%error, "a TLS handshake failed"),
    };
    let limits = edge.grpc_gate.in_force().config.limits.clone();
    let mut phase = edge.phase.clone();
    if !speaks(&stream, limits.header_time, &mut phase).await {
        return;
    }
    // Held by each call until it is answered.
    let calls = Arc::new(());
    let of_calls = Arc::clone(&calls);
    let service = service_fn(move |request: Request<Incoming>| {
        let (edge, handoff, peer, call) = (Arc::clone(&edge), handoff.clone(), peer.clone(), Arc::clone(&of_calls));
        Box::pin(async move { Ok::<_, Infallible>(service::answer(&edge, &handoff, &peer, &call, request).await) })
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    // A connection whose other end does not answer is closed; one that is only quiet may stay.
    http.timer(TokioTimer::new()).keep_alive_interval(limits.idle_time).keep_alive_timeout(limits.header_time);
    http.max_header_list_size(u32::try_from(limits.header_bytes.get()).unwrap_or(u32::MAX));
    // One end of a connection that says good-bye waits for the other's; who has gone without a word never answers.
    let gone = async {
        let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
        let mut silent = 0;
        while silent < 2 {
            tokio::time::sleep(LAST_WORDS / 2).await;
            // This one's, and the service's.
            silent = if Arc::strong_count(&calls) == 2 { silent + 1 } else { 0 };
        }
    };
    let stream = TokioIo::new(Gathered::new(Lingering::new(stream, LAST_WORDS)));
    tokio::select! {
        biased;
        result = watcher.watch(http.serve_connection(stream, service)) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a gRPC connection ended early");
            }
        }
        () = gone => tracing::debug!("a gRPC connection whose other end does not close is closed"),
    }
}
