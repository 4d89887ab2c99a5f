//! Accepting and serving connections, and leaving without losing one that was accepted.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::watch;
use tower::ServiceExt;
use volley_scheduler::Handoff;

use super::infer::{self, Target};
use super::routes;
use super::yielding::yield_to_workers;
use crate::grpc;
use crate::pipeline::Pipeline;

/// How long to hold back after the system refused a connection, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the server is in its life. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Taking connections and requests.
    Serving,
    /// No new connections. Requests on open ones are answered, and the connections told to close.
    Draining,
    /// Connections close as soon as the request they are at is answered.
    Closing,
}

/// What the HTTP threads share.
#[derive(Debug)]
pub(crate) struct Edge {
    /// Answers inference requests.
    pub pipeline: Arc<Pipeline>,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Where the server is in its life.
    pub phase: watch::Receiver<Phase>,
}

/// The threads of the HTTP edge.
#[derive(Debug)]
pub(crate) struct IoThreads {
    threads: Vec<JoinHandle<()>>,
}

impl IoThreads {
    /// Starts `count` threads that accept HTTP from `http` and gRPC from `grpc`, each with a runtime of its own, so that a
    /// request stays on the core that read it.
    ///
    /// # Errors
    /// When a listener cannot be shared or a thread cannot be started.
    pub(crate) fn start(count: usize, http: &TcpListener, grpc: &TcpListener, edge: &Arc<Edge>) -> io::Result<Self> {
        http.set_nonblocking(true)?;
        grpc.set_nonblocking(true)?;
        let threads = (0..count)
            .map(|index| {
                let (http, grpc, edge) = (http.try_clone()?, grpc.try_clone()?, Arc::clone(edge));
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                thread::Builder::new().name(format!("volley-http-{index}")).spawn(move || {
                    yield_to_workers();
                    if let Err(error) = runtime.block_on(serve(http, grpc, edge)) {
                        tracing::error!(%error, "an HTTP thread could not serve");
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { threads })
    }

    /// Waits until every connection is closed, which they are once the phase is [`Phase::Closing`] and what was accepted
    /// is answered. Returns how many threads were still busy at `deadline`.
    #[must_use]
    pub(crate) fn join_until(self, deadline: Instant) -> usize {
        let mut threads = self.threads;
        loop {
            threads.retain(|thread| !thread.is_finished());
            if threads.is_empty() || Instant::now() >= deadline {
                return threads.len();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn serve(listener: TcpListener, grpc: TcpListener, edge: Arc<Edge>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let handoff = Handoff::new();
    tokio::spawn(handoff.forward());
    let grpc = tokio::spawn(grpc::serve(grpc, Arc::clone(&edge), handoff.clone()));
    let connections = GracefulShutdown::new();
    let http = http1::Builder::new();
    let router = routes::router(Arc::clone(&edge));
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
        let (edge, handoff, router) = (Arc::clone(&edge), handoff.clone(), router.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (edge, handoff, router) = (Arc::clone(&edge), handoff.clone(), router.clone());
            async move {
                let arrival = Instant::now();
                let mut response: Response<Body> = match Target::of(&request) {
                    Some(target) => infer::answer(&edge, &handoff, &target, request, arrival).await,
                    None => router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}),
                };
                if *edge.phase.borrow() > Phase::Serving {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    connections.shutdown().await;
    grpc.await?
}
