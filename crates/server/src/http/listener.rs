//! Serving connections of HTTP, on threads that share the listeners.

use std::convert::Infallible;
use std::io::{self, Cursor};
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
use hyper_util::server::graceful::Watcher;
use tokio::io::join;
use tokio::sync::watch;
use tower::ServiceExt;
use volley_scheduler::Handoff;

use super::accept::{accept, speaks};
use super::body::RequestBody;
use super::fast_path::{self, FastPath, Left};
use super::gate::{Arrival, Gate, Stream, Visit};
use super::infer::{Asked, Hot, Target, read_body};
use super::pace::{Pace, Paced};
use super::received::Received;
use super::reply::Reply;
use super::routes;
use crate::access::{Need, Peer};
use crate::grpc;
use crate::joining::join_until;
use crate::pipeline::Pipeline;
use crate::yielding::yield_to_workers;

/// How long the rest of a head may take that had begun when the server closed its connections.
const HEAD_GRACE: Duration = Duration::from_millis(100);

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
    /// What connections and requests pass.
    pub gate: Arc<Gate>,
    /// The same, for gRPC.
    pub grpc_gate: Arc<Gate>,
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
        let threads = (0..count)
            .map(|index| {
                let (http, grpc, edge) = (http.try_clone()?, grpc.try_clone()?, Arc::clone(edge));
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                thread::Builder::new().name(format!("volley-http-{index}")).spawn(move || {
                    yield_to_workers();
                    if let Err(error) = runtime.block_on(serve_inference(http, grpc, edge)) {
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
        join_until(self.threads, deadline)
    }
}

async fn serve_inference(listener: TcpListener, grpc: TcpListener, edge: Arc<Edge>) -> io::Result<()> {
    let handoff = Handoff::new();
    tokio::spawn(handoff.forward());
    let grpc = tokio::spawn(grpc::serve(grpc, Arc::clone(&edge), handoff.clone()));
    let router = routes::router(Arc::clone(&edge));
    let (gate, phase) = (Arc::clone(&edge.gate), edge.phase.clone());
    let hot = Arc::new(Hot { edge, handoff });
    serve(listener, gate, phase, routes::need, Some(Arc::clone(&hot)), move |request, visit, received| {
        let (hot, router) = (Arc::clone(&hot), router.clone());
        async move {
            match Target::of(&request) {
                Some(target) => {
                    let asked = Asked::of(request.headers());
                    let waits = request.headers().contains_key(header::EXPECT);
                    let limit = visit.in_force.config.http.max_body_bytes.get();
                    let body = read_body(request.into_body(), limit, waits);
                    hot.reply(&visit, &target, asked, received, body).await.into_response()
                }
                None => {
                    let answered = Box::pin(router.oneshot(request.map(Body::new))).await;
                    answered.unwrap_or_else(|never| match never {})
                }
            }
        }
    })
    .await?;
    grpc.await?
}

/// Serves HTTP on `listener` until `phase` says to leave, and then until every connection is closed. A request is let in by
/// what it `needs`, and answered by `answer`, which is told when it arrived. Where there is something `hot`, connections
/// that are not encrypted begin on the fast path.
///
/// # Errors
/// When the listener cannot be used.
pub(super) async fn serve<A, F>(
    listener: TcpListener,
    gate: Arc<Gate>,
    phase: watch::Receiver<Phase>,
    needs: fn(&Request<Incoming>) -> Need,
    hot: Option<Arc<Hot>>,
    answer: A,
) -> io::Result<()>
where
    A: Fn(Request<RequestBody>, Visit, Received) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let accepting = Arc::clone(&gate);
    accept(listener, &accepting, phase.clone(), move |arrival, watcher| {
        let (gate, phase, hot, answer) = (Arc::clone(&gate), phase.clone(), hot.clone(), answer.clone());
        let connection = Connection { gate, phase, needs, hot, answer };
        tokio::spawn(connection.serve(arrival, watcher));
    })
    .await
}

/// A connection that is to be served.
struct Connection<A> {
    gate: Arc<Gate>,
    phase: watch::Receiver<Phase>,
    needs: fn(&Request<Incoming>) -> Need,
    hot: Option<Arc<Hot>>,
    answer: A,
}

impl<A, F> Connection<A>
where
    A: Fn(Request<RequestBody>, Visit, Received) -> F + Clone,
    F: Future<Output = Response<Body>>,
{
    async fn serve(mut self, arrival: Arrival, watcher: Watcher) {
        let (stream, peer) = match self.gate.secure(arrival).await {
            Ok(secured) => secured,
            Err(error) => return tracing::debug!(%error, "a TLS handshake failed"),
        };
        let idle_time = self.gate.in_force().config.limits.idle_time;
        if speaks(&stream, idle_time, &mut self.phase).await {
            // Boxed, so that a connection that does not speak has no room for it.
            Box::pin(self.converse(stream, peer, watcher)).await;
        }
    }

    async fn converse(self, stream: Stream, peer: Peer, watcher: Watcher) {
        let limits = &self.gate.in_force().config.limits;
        let pace = Arc::new(Pace::default());
        let is_encrypted = stream.is_encrypted();
        let mut stream = Paced::new(stream, Arc::clone(&pace), limits);
        let (this, peer, pace) = (&self, &peer, &*pace);
        // Boxed, so that a request that is refused at once is answered in memory that was used just before, and not in the
        // connection's own, which is cold.
        let service = service_fn(move |request: Request<Incoming>| Box::pin(this.answer(request, peer, pace)));
        let mut http = http1::Builder::new();
        // How long a head may take is the pace's to say. Head and body of a response go out as one piece: most are small,
        // and to copy one costs less than to hand over two.
        http.writev(false);
        // That a caller hung up is the pace's to say as well, or hyper would keep a second buffer for each request. Where the
        // farewell is encrypted, only who reads sees it.
        http.half_close(!is_encrypted);
        http.max_header_size(limits.header_bytes.get()).max_headers(limits.headers.get()).header_read_timeout(None);
        if let Some(hot) = self.hot.as_deref().filter(|_| !is_encrypted) {
            let fast_path = FastPath { hot, gate: &self.gate, peer, pace };
            let http = &http;
            let from_memory = |request| async move {
                let mut bytes = Vec::new();
                let stream = TokioIo::new(join(Cursor::new(request), &mut bytes));
                let ended = http.serve_connection(stream, service).await;
                if let Err(error) = &ended {
                    tracing::debug!(%error, "a request could not be read");
                }
                fast_path::Response::new(bytes, ended.is_ok())
            };
            match fast_path.serve(&mut stream, &self.phase, from_memory).await {
                Ok(Left::Unread) => {}
                Ok(Left::Closed) => return,
                Err(error) => return tracing::debug!(%error, "a connection ended early"),
            }
        }
        tracing::debug!("hyper serves a connection");
        let connection = http.serve_connection(TokioIo::new(stream), service);
        // A connection that was not read from yet is closed where it is told to close. This one will after its first request.
        let leaves = *self.phase.borrow() == Phase::Closing;
        let served = async { if leaves { connection.await } else { watcher.watch(connection).await } };
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            ended = served => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = unfinished_head(&mut phase, pace) => tracing::debug!("a head was not finished before the server left"),
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer, pace: &Pace) -> Result<Response<Body>, Infallible> {
        let received = Received::now();
        pace.head_is_read();
        let mut response = match self.gate.admit((self.needs)(&request), request.headers(), peer) {
            Ok(mut visit) => {
                let request = request.map(|body| self.gate.body(&mut visit, body));
                (self.answer)(request, visit, received).await
            }
            Err(error) => Reply::refusal(&error).into_response(),
        };
        if *self.phase.borrow() > Phase::Serving {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        pace.is_answered();
        Ok(response)
    }
}

/// Waits until the server closes its connections while only a part of a request's head is there, of which hyper thinks that
/// it must be waited for.
async fn unfinished_head(phase: &mut watch::Receiver<Phase>, pace: &Pace) {
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    // The rest may be on its way.
    tokio::time::sleep(HEAD_GRACE).await;
    if !pace.is_at_a_head() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::http::gate::open_gate;

    #[tokio::test]
    async fn a_request_on_a_connection_that_waits_when_the_server_leaves_is_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut caller = TcpStream::connect(listener.local_addr().expect("its address")).expect("there is room");
        caller.write_all(b"GET / HTTP/1.1\r\nHost: volley\r\n\r\n").expect("there is room");
        let mut silent = TcpStream::connect(listener.local_addr().expect("its address")).expect("there is room");
        let (_leaving, phase) = watch::channel(Phase::Closing);
        let answer = |_, _, _| async { Response::new(Body::from("good bye")) };
        serve(listener, Arc::new(open_gate()), phase, |_| Need::Nothing, None, answer).await.expect("it can be served");
        let mut said = String::new();
        caller.read_to_string(&mut said).expect("an answer, and the end");
        assert!(said.contains("connection: close") && said.ends_with("good bye"), "{said:?}");
        assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
    }
}
