//! A server that answers like a model of 50 x 60 inputs, or misbehaves as told. On a thread and a port of its own.

#![allow(
    dead_code,
    reason = "each test program and example uses a part of it; an expectation would fail in some of them"
)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// How inference requests are treated. Metadata is answered, but to who has no key that is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Two outputs in the encoding asked for, at once.
    Answer,
    /// As `Answer`, but the connection is closed after each reply.
    AnswerAndClose,
    /// This status, with an error in the body; 429 with `Retry-After`.
    Status(u16),
    /// Status 200 with this body, said to be all JSON.
    Body(&'static str),
    /// Every other request is dropped with its connection.
    HangUpOnEverySecond,
    /// As `Answer`, to who sends this key; anybody else is not let in.
    Keyed(&'static str),
    /// No reply, ever.
    Silence,
    /// Stalled: no reply before so many requests for the model named `driver` have arrived.
    StallUntilDriven(usize),
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    arrived: Mutex<HashMap<String, usize>>,
    /// Arrivals at the moment the stall ended.
    when_released: watch::Sender<Option<HashMap<String, usize>>>,
}

impl Mock {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::start_on(0, behaviour)
    }

    pub(crate) fn start_on(port: u16, behaviour: Behaviour) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { behaviour, arrived: Mutex::default(), when_released: watch::Sender::new(None) });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Inference requests for `model` that have arrived.
    pub(crate) fn arrived(&self, model: &str) -> usize {
        let arrived = self.state.arrived.lock().unwrap();
        arrived.get(model).copied().unwrap_or(0)
    }

    /// Inference requests for `model` that had arrived when the stall ended.
    pub(crate) fn arrived_during_stall(&self, model: &str) -> usize {
        let released = self.state.when_released.borrow();
        let arrived = released.as_ref().expect("the stall has ended");
        arrived.get(model).copied().unwrap_or(0)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(converse(stream, Arc::clone(&state)));
    }
}

async fn converse(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { answer(request, &state).await }
    });
    // Clients leave when they like, and a hang-up is an error on purpose.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Reply = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, state: &State) -> Result<Reply, HangUp> {
    let path = request.uri().path().to_owned();
    let Some(model) = path.strip_prefix("/v2/models/") else {
        return Ok(with_status(404, "no such path"));
    };
    if let Behaviour::Keyed(key) = state.behaviour
        && request.headers().get("authorization").is_none_or(|value| *value != *format!("Bearer {key}"))
    {
        return Ok(with_status(401, "who are you?"));
    }
    let Some((model, _)) = model.split_once("/infer") else {
        return Ok(metadata(request.method(), model));
    };
    let binary = request.headers().contains_key("inference-header-content-length");
    let Ok(body) = request.into_body().collect().await else {
        return Err(HangUp);
    };
    drop(body);
    let ordinal = state.arrive(model);
    match state.behaviour {
        Behaviour::AnswerAndClose => {
            let mut reply = good(binary);
            let close = hyper::header::HeaderValue::from_static("close");
            reply.headers_mut().insert(hyper::header::CONNECTION, close);
            Ok(reply)
        }
        Behaviour::Status(status) => Ok(with_status(status, "told to refuse")),
        Behaviour::Body(body) => Ok(Response::new(Full::new(Bytes::from_static(body.as_bytes())))),
        Behaviour::HangUpOnEverySecond if ordinal.is_multiple_of(2) => Err(HangUp),
        Behaviour::Answer | Behaviour::Keyed(_) | Behaviour::HangUpOnEverySecond => Ok(good(binary)),
        Behaviour::Silence => match pending::<Infallible>().await {},
        Behaviour::StallUntilDriven(_) => {
            let mut released = state.when_released.subscribe();
            released.wait_for(Option::is_some).await.unwrap();
            Ok(good(binary))
        }
    }
}

impl State {
    /// Counts a request for `model`; the first is number one.
    fn arrive(&self, model: &str) -> usize {
        let mut arrived = self.arrived.lock().unwrap();
        let count = arrived.entry(model.to_owned()).or_default();
        *count += 1;
        let ordinal = *count;
        if let Behaviour::StallUntilDriven(needed) = self.behaviour
            && model == "driver"
            && ordinal == needed
        {
            self.when_released.send_replace(Some(arrived.clone()));
        }
        ordinal
    }
}

fn metadata(method: &Method, model: &str) -> Reply {
    if method != Method::GET || model == "unknown" {
        return with_status(404, "unknown model");
    }
    let body = format!(
        r#"{{"name":"{model}","versions":["1"],"platform":"onnx",
        "inputs":[{{"name":"input","datatype":"FP32","shape":[-1,50,60]}}],
        "outputs":[{{"name":"features","datatype":"FP32","shape":[-1,128]}},
                   {{"name":"prediction","datatype":"FP32","shape":[-1,3]}}]}}"#
    );
    Response::new(Full::new(body.into()))
}

/// JSON part of a binary reply.
const HEADER: &str = r#"{"model_name":"m","model_version":"1","outputs":[{"name":"features","datatype":"FP32","shape":[1,128],"parameters":{"binary_data_size":512}},{"name":"prediction","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}"#;

fn good(binary: bool) -> Reply {
    if !binary {
        let zeros = |count| vec!["0.5"; count].join(",");
        let body = format!(
            r#"{{"model_name":"m","outputs":[{{"name":"features","datatype":"FP32","shape":[1,128],"data":[{}]}},{{"name":"prediction","datatype":"FP32","shape":[1,3],"data":[[{}]]}}]}}"#,
            zeros(128),
            zeros(3)
        );
        return Response::new(Full::new(body.into()));
    }
    let mut body = HEADER.as_bytes().to_vec();
    body.resize(HEADER.len() + 524, 0);
    let mut reply = Response::new(Full::new(body.into()));
    reply.headers_mut().insert("inference-header-content-length", HEADER.len().into());
    reply
}

fn with_status(status: u16, error: &str) -> Reply {
    let mut reply = Response::new(Full::new(format!(r#"{{"error":"{error}"}}"#).into()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    if status == 429 {
        reply.headers_mut().insert(hyper::header::RETRY_AFTER, 1.into());
    }
    reply
}

/// Makes hyper drop the connection without a reply.
#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hanging up")
    }
}

impl std::error::Error for HangUp {}
