//! The methods of `inference.GRPCInferenceService`, and gRPC's own question for health.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderName;
use hyper::{HeaderMap, Request, Response};
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Code, Status, Streaming};
use tower::service_fn;
use volley_scheduler::Handoff;

use super::infer::{StreamCaller, infer, infer_each};
use super::plain;
use super::status::as_grpc_has_it;
use super::timeout::patience;
use super::wire::Wire;
use crate::access::{Need, Peer};
use crate::codec::ModelInferRequest;
use crate::config::Scope;
use crate::error::{ApiError, Cause};
use crate::http::{Edge, Received, Visit};
use crate::protocol::{
    self, HealthCheckRequest, HealthCheckResponse, IndexRequest, LoadRequest, ModelConfig, ModelConfigResponse,
    ModelMetadata, ModelReadyResponse, ModelStatisticsResponse, NamedModel, Nothing, ServerLiveResponse,
    ServerMetadata, ServerReadyResponse, UnloadRequest,
};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Largest message of a question that asks no name of its caller, in bytes.
const PROBE_BYTES: usize = 4096;

/// What a caller recognises its call by comes back as it was sent.
const ECHOED: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), HeaderName::from_static("traceparent")];

/// Answers one call, whatever it is. `call` is held until it is answered.
pub(super) async fn answer(
    edge: &Arc<Edge>,
    handoff: &Handoff,
    peer: &Peer,
    call: &Arc<()>,
    request: Request<Incoming>,
) -> Response<Body> {
    let echoed = ECHOED.map(|name| request.headers().get(&name).cloned().map(|value| (name, value)));
    let mut response = match edge.grpc_gate.admit(need(request.uri().path()), request.headers(), peer) {
        Ok(visit) => dispatch(edge, visit, handoff, peer, call, request).await,
        Err(error) => Status::from(error).into_http(),
    };
    response.headers_mut().extend(echoed.into_iter().flatten());
    response
}

/// What a method needs its caller to be.
fn need(path: &str) -> Need {
    match path.rsplit('/').next().unwrap_or_default() {
        "ServerLive" | "ServerReady" | "Check" => Need::Nothing,
        "ModelInfer" | "ModelStreamInfer" => Need::Scope(Scope::Infer),
        "RepositoryModelLoad" | "RepositoryModelUnload" => Need::Scope(Scope::Admin),
        _ => Need::Any,
    }
}

/// Answers a call that was let in. What a call's future holds is moved several times before it is first polled, so that
/// only what most calls need is part of it.
async fn dispatch(
    edge: &Arc<Edge>,
    visit: Visit,
    handoff: &Handoff,
    peer: &Peer,
    call: &Arc<()>,
    request: Request<Incoming>,
) -> Response<Body> {
    match request.uri().path() {
        MODEL_INFER if !plain::is_compressed(request.headers()) => {
            infer_plain(edge, visit, handoff, call, request).await.unwrap_or_else(Status::into_http)
        }
        MODEL_INFER => Box::pin(infer_compressed(edge, visit, handoff, request)).await,
        MODEL_STREAM_INFER => Box::pin(infer_stream(edge, visit, handoff, peer, call, request)).await,
        _ => Box::pin(tell(edge, visit, request)).await,
    }
}

async fn infer_plain(
    edge: &Arc<Edge>,
    mut visit: Visit,
    handoff: &Handoff,
    call: &Arc<()>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (received, patience) = (Received::now(), patience(request.headers()));
    let body = edge.grpc_gate.body(&mut visit, request.into_body()).map_err(unread(edge));
    let asked = plain::read(body, visit.in_force.config.http.max_body_bytes.get()).await?;
    let answer = infer(edge, handoff, visit.tenant(), asked, received, patience).await?;
    plain::answer(&answer, Arc::clone(call))
}

async fn infer_compressed(
    edge: &Arc<Edge>,
    mut visit: Visit,
    handoff: &Handoff,
    request: Request<Incoming>,
) -> Response<Body> {
    let (received, patience) = (Received::now(), patience(request.headers()));
    let request = request.map(|body| edge.grpc_gate.body(&mut visit, body).map_err(unread(edge)));
    let infer = async |asked: ModelInferRequest| {
        // It may be larger than it came.
        let room = visit.held.as_deref().map_or(Ok(()), |held| held.reach(asked.encoded_len()));
        room.inspect_err(|error| edge.pipeline.rejected(error))?;
        infer(edge, handoff, visit.tenant(), asked, received, patience).await
    };
    unary(visit.in_force.config.http.max_body_bytes.get(), request, infer).await
}

async fn infer_stream(
    edge: &Arc<Edge>,
    visit: Visit,
    handoff: &Handoff,
    peer: &Peer,
    call: &Arc<()>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (opened, patience) = (Instant::now(), patience(request.headers()));
    let limit = visit.in_force.config.http.max_body_bytes.get();
    let (headers, peer) = (request.headers().clone(), peer.clone());
    let (incoming, body) = request.into_parts();
    let (body, arriving) = edge.grpc_gate.stream_body(&visit, body);
    let request = Request::from_parts(incoming, body.map_err(unread(edge)));
    let caller = StreamCaller { headers, peer, _call: Arc::clone(call), first: Some(visit), arriving };
    let caller = Mutex::new(Some(caller));
    let answers = service_fn(|asked: tonic::Request<Streaming<ModelInferRequest>>| {
        let caller = caller.lock().unwrap_or_else(PoisonError::into_inner).take().expect("a call is answered once");
        let answers = infer_each(Arc::clone(edge), handoff.clone(), caller, asked.into_inner(), opened, patience);
        ready(Ok::<_, Status>(tonic::Response::new(answers)))
    });
    grpc(limit, request.headers()).streaming(answers, request).await
}

/// Answers what is asked about the server and its models, and what is asked of the repository.
async fn tell(edge: &Arc<Edge>, mut visit: Visit, request: Request<Incoming>) -> Response<Body> {
    let limit = match need(request.uri().path()) {
        Need::Nothing => PROBE_BYTES,
        _ => visit.in_force.config.http.max_body_bytes.get(),
    };
    let request = request.map(|body| edge.grpc_gate.body(&mut visit, body).map_err(unread(edge)));
    let catalog = &edge.pipeline.catalog;
    match request.uri().path() {
        "/inference.GRPCInferenceService/ServerLive" => {
            unary(limit, request, |_: Nothing| ready(Ok(ServerLiveResponse { live: true }))).await
        }
        "/inference.GRPCInferenceService/ServerReady" => {
            let ready = || ready(Ok(ServerReadyResponse { ready: protocol::server_is_ready(edge) }));
            unary(limit, request, |_: Nothing| ready()).await
        }
        "/inference.GRPCInferenceService/ModelReady" => {
            // One that is not there is not ready, and no error: callers wait for it to come.
            let is_ready = |model: NamedModel| match protocol::model_is_ready(catalog, &model.name, model.version()) {
                Err(error) if error.cause == Cause::NotFound => Ok(false),
                other => other,
            };
            unary(limit, request, |model| ready(is_ready(model).map(|ready| ModelReadyResponse { ready }))).await
        }
        "/inference.GRPCInferenceService/ServerMetadata" => {
            unary(limit, request, |_: Nothing| ready(Ok(ServerMetadata::this()))).await
        }
        "/inference.GRPCInferenceService/ModelMetadata" => {
            let metadata = |model: NamedModel| ModelMetadata::of(catalog, &model.name, model.version());
            unary(limit, request, |model| ready(metadata(model))).await
        }
        "/inference.GRPCInferenceService/ModelConfig" => {
            let config = |model: NamedModel| {
                let config = ModelConfig::of(catalog, &model.name, model.version())?;
                Ok(ModelConfigResponse { config: Some(config) })
            };
            unary(limit, request, |model| ready(config(model))).await
        }
        "/inference.GRPCInferenceService/ModelStatistics" => {
            let statistics = |asked: NamedModel| {
                let model = Some(asked.name.as_str()).filter(|name| !name.is_empty());
                ModelStatisticsResponse::of(catalog, model, asked.version())
            };
            unary(limit, request, |model| ready(statistics(model))).await
        }
        "/inference.GRPCInferenceService/RepositoryIndex" => {
            unary(limit, request, |asked: IndexRequest| ready(Ok(protocol::index(catalog, &asked)))).await
        }
        "/inference.GRPCInferenceService/RepositoryModelLoad" => {
            let load = async |LoadRequest { model_name, parameters, .. }| {
                protocol::load(catalog, model_name, parameters.iter().map(|parameter| parameter.name.as_str()))
                    .await
                    .map(|()| Nothing {})
            };
            unary(limit, request, load).await
        }
        "/inference.GRPCInferenceService/RepositoryModelUnload" => {
            let unload = async |UnloadRequest { model_name, .. }| {
                protocol::unload(catalog, model_name).await.map(|()| Nothing {})
            };
            unary(limit, request, unload).await
        }
        "/grpc.health.v1.Health/Check" => {
            let status = || if protocol::server_is_ready(edge) { 1 } else { 2 };
            unary(limit, request, |_: HealthCheckRequest| ready(Ok(HealthCheckResponse { status: status() }))).await
        }
        path if path.contains("SharedMemory") => {
            Status::unimplemented("shared memory is not offered; send the values").into_http()
        }
        path => Status::unimplemented(format!("nothing answers {path}")).into_http(),
    }
}

/// What a caller is told whose messages could not be read. One that hung up was refused nothing.
fn unread(edge: &Arc<Edge>) -> impl Fn(ApiError) -> Status + Send + Sync + use<> {
    let edge = Arc::clone(edge);
    move |error| {
        if error.cause != Cause::Invalid {
            edge.pipeline.rejected(&error);
        }
        error.into()
    }
}

/// Reads one message of at most `limit` bytes, has it answered, and writes the answer.
async fn unary<Asked, Answer, F, B>(limit: usize, request: Request<B>, answer: impl Fn(Asked) -> F) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = Status> + Send + 'static,
    Asked: prost::Message + Default + 'static,
    Answer: prost::Message + 'static,
    F: Future<Output = Result<Answer, ApiError>>,
{
    let call = service_fn(|asked: tonic::Request<Asked>| {
        let answered = answer(asked.into_inner());
        async { Ok(tonic::Response::new(answered.await?)) }
    });
    let response = grpc(limit, request.headers()).unary(call, request).await;
    match Status::from_header_map(response.headers()) {
        Some(refusal) if refusal.code() == Code::OutOfRange => as_grpc_has_it(refusal).into_http(),
        _ => response,
    }
}

/// How messages, of at most `limit` bytes, are read and written. Answers are compressed as the request is: a caller that takes compressed answers
/// (they all say so) would rather have them sooner, unless it compresses itself.
fn grpc<Answer, Asked>(limit: usize, headers: &HeaderMap) -> Grpc<Wire<Answer, Asked>>
where
    Asked: prost::Message + Default + 'static,
    Answer: prost::Message + 'static,
{
    let grpc = Grpc::new(Wire::new())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(limit);
    match headers.get("grpc-encoding").map(hyper::header::HeaderValue::as_bytes) {
        Some(b"gzip") => grpc.send_compressed(CompressionEncoding::Gzip),
        Some(b"deflate") => grpc.send_compressed(CompressionEncoding::Deflate),
        _ => grpc,
    }
}
