//! Inference: one request a call, or any number of them on one stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use hyper::HeaderMap;
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Status, Streaming};
use volley_scheduler::{Handoff, TenantId};

use super::status::as_grpc_has_it;
use crate::access::{Need, Peer};
use crate::codec::{self, Message, ModelInferRequest, ModelInferResponse};
use crate::config::Scope;
use crate::error::ApiError;
use crate::http::{Edge, Held, Phase, Received, Visit};
use crate::pipeline::Call;

/// Requests of one stream that are under way at once. Further ones are read when the first of these is answered.
const IN_FLIGHT: usize = 64;

/// An answer on a stream: a response, or what was wrong with the request of this id.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelStreamInferResponse {
    #[prost(string, tag = "1")]
    error_message: String,
    #[prost(message, optional, tag = "2")]
    infer_response: Option<ModelInferResponse>,
}

/// Answers one request.
///
/// # Errors
/// [`ApiError`] that says what was wrong with it, or why it was not computed.
pub(super) async fn infer(
    edge: &Edge,
    handoff: &Handoff,
    tenant: Option<TenantId>,
    mut request: ModelInferRequest,
    received: Received,
    patience: Option<Duration>,
) -> Result<ModelInferResponse, ApiError> {
    let model = std::mem::take(&mut request.model_name);
    let version = std::mem::take(&mut request.model_version);
    let version = Some(version.as_str()).filter(|version| !version.is_empty());
    let result = async {
        let message = Message::read(request).inspect_err(|error| edge.pipeline.rejected(error))?;
        edge.pipeline.infer(handoff, Call { model: &model, version, tenant, received, patience }, message).await
    };
    match result.await {
        Ok(answer) => Ok(codec::respond(answer.answerer(), &answer.request, &answer.outputs)),
        Err(error) => {
            tracing::debug!(model, status = error.status().as_u16(), error = error.message, "call refused");
            Err(error)
        }
    }
}

/// Who sends a stream's requests. Each request is let in for itself, by what is configured by then.
pub(super) struct StreamCaller {
    /// What it showed when it opened the stream.
    pub headers: HeaderMap,
    /// The connection's other end.
    pub peer: Peer,
    /// Held for as long as the stream is answered.
    pub _call: Arc<()>,
    /// The visit by which the stream was let in: its first request's.
    pub first: Option<Visit>,
    /// What there is of the message that is arriving.
    pub arriving: Arc<Held>,
}

impl StreamCaller {
    /// Lets in a message that has arrived, of so many bytes.
    fn admit(&mut self, edge: &Edge, bytes: usize) -> Result<Visit, ApiError> {
        // From here on the message itself counts.
        self.arriving.let_go();
        let again = || edge.grpc_gate.admit(Need::Scope(Scope::Infer), &self.headers, &self.peer);
        let mut visit = self.first.take().map_or_else(again, Ok)?;
        edge.grpc_gate.take_message(&mut visit, bytes)?;
        Ok(visit)
    }
}

/// Answers the requests of a stream in their order. One that is refused is told so in its place, and the stream goes on.
pub(super) fn infer_each(
    edge: Arc<Edge>,
    handoff: Handoff,
    mut caller: StreamCaller,
    requests: Streaming<ModelInferRequest>,
    opened: Instant,
    patience: Option<Duration>,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static {
    let phase = edge.phase.clone();
    let answer = move |request: Result<ModelInferRequest, Status>| {
        let (edge, handoff, received) = (Arc::clone(&edge), handoff.clone(), Received::now());
        let patience = patience.map(|patience| patience.saturating_sub(received.at.saturating_duration_since(opened)));
        let let_in = request.map(|request| (caller.admit(&edge, request.encoded_len()), request));
        async move {
            let (visit, request) = let_in.map_err(as_grpc_has_it)?;
            let id = request.id.clone();
            let result = match visit {
                Ok(visit) => infer(&edge, &handoff, visit.tenant(), request, received, patience).await,
                Err(refused) => Err(refused),
            };
            let (error_message, response) = match result {
                Ok(response) => (String::new(), response),
                Err(error) => (error.message, ModelInferResponse::of_id(id)),
            };
            Ok(ModelStreamInferResponse { error_message, infer_response: Some(response.last()) })
        }
    };
    until_closing(phase, requests).map(answer).buffered(IN_FLIGHT)
}

/// The requests of a stream. When connections close, a caller that would send more is told so in place of its next.
fn until_closing(
    phase: watch::Receiver<Phase>,
    requests: Streaming<ModelInferRequest>,
) -> impl Stream<Item = Result<ModelInferRequest, Status>> + Send + 'static {
    stream::unfold(Some((requests, phase)), |open| async {
        let (mut requests, mut phase) = open?;
        let request = tokio::select! {
            biased;
            request = requests.next() => Some(request?),
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => None,
        };
        Some(match request {
            Some(request) => (request, Some((requests, phase))),
            None => (Err(ApiError::shutting_down().into()), None),
        })
    })
}
