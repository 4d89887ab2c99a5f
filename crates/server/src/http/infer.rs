//! The hot routes: `POST /v2/models/{model}[/versions/{version}]/infer`, and V1's `POST /v1/models/{model}:predict`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use percent_encoding::percent_decode_str;
use volley_scheduler::Handoff;
use volley_telemetry::RequestId;

use super::body::RequestBody;
use super::compression::Coding;
use super::gate::Visit;
use super::listener::Edge;
use super::received::Received;
use super::reply::Reply;
use crate::access::Need;
use crate::codec::{self, Encoded, Envelope, Pieces, Prediction};
use crate::config::Scope;
use crate::error::{ApiError, Cause};
use crate::pipeline::Call;

pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// What every inference request needs its caller to be.
pub(super) const NEED: Need = Need::Scope(Scope::Infer);

/// What an inference request asks, by its path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    model: String,
    version: Option<String>,
    protocol: Protocol,
}

/// How it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    V1,
    V2,
}

impl Target {
    /// Recognises an inference request by method and path.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        Self::of_path(request.uri().path())
    }

    /// The same, where the method is known.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
        if let Some(model) = path.strip_prefix("/v1/models/").and_then(|rest| rest.strip_suffix(":predict")) {
            let model = Some(model).filter(|model| !model.contains('/')).and_then(decode)?;
            return Some(Self { model, version: None, protocol: Protocol::V1 });
        }
        let rest = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
        let protocol = Protocol::V2;
        if !rest.contains(['/', '%']) {
            return Some(Self { model: rest.to_owned(), version: None, protocol });
        }
        match rest.split_once("/versions/") {
            None if !rest.contains('/') => Some(Self { model: decode(rest)?, version: None, protocol }),
            Some((model, version)) if !model.contains('/') && !version.contains('/') => {
                Some(Self { model: decode(model)?, version: Some(decode(version)?), protocol })
            }
            _ => None,
        }
    }
}

/// What the head of an inference request says beside its path.
#[derive(Debug)]
pub(super) struct Asked {
    id: RequestId,
    trace: Option<HeaderValue>,
    /// How the response may be compressed.
    accepted: Option<Coding>,
    form: Result<Form, ApiError>,
}

/// How a body is to be read.
#[derive(Debug, Clone, Copy)]
struct Form {
    json_length: Option<usize>,
    coding: Option<Coding>,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let form = || Ok(Form { json_length: json_length(headers)?, coding: Coding::of_body(headers)? });
        Self {
            id: RequestId::from_caller(headers.get(REQUEST_ID).map(HeaderValue::as_bytes)),
            trace: headers.get(TRACE).cloned(),
            accepted: Coding::accepted(headers),
            form: form(),
        }
    }
}

/// What answers the inference requests that one thread reads.
#[derive(Debug)]
pub(super) struct Hot {
    /// What the threads share.
    pub edge: Arc<Edge>,
    /// The thread's own.
    pub handoff: Handoff,
}

impl Hot {
    /// Has a request answered, whatever it is, once its `body` is there.
    pub(super) async fn reply(
        &self,
        visit: &Visit,
        target: &Target,
        asked: Asked,
        received: Received,
        body: impl Future<Output = Result<Pieces, ApiError>>,
    ) -> Reply {
        let Asked { id, trace, accepted, form } = asked;
        let reply = match self.infer(visit, target, form, received, body).await {
            Ok(encoded) => Reply::result(encoded, accepted),
            Err(error) => {
                let status = error.status().as_u16();
                tracing::debug!(request_id = %id, model = target.model, status, error = error.message, "request refused");
                Reply::refusal(&error)
            }
        };
        reply.to(id, trace)
    }

    async fn infer(
        &self,
        visit: &Visit,
        target: &Target,
        form: Result<Form, ApiError>,
        received: Received,
        body: impl Future<Output = Result<Pieces, ApiError>>,
    ) -> Result<Encoded, ApiError> {
        let (pipeline, handoff) = (&self.edge.pipeline, &self.handoff);
        let read = read(visit, form, body).await;
        let (json, binary) = read.inspect_err(|error| pipeline.rejected(error))?;
        let (model, version) = (target.model.as_str(), target.version.as_deref());
        let call = Call { model, version, tenant: visit.tenant(), received, patience: None };
        match target.protocol {
            Protocol::V1 => {
                let prediction = Prediction::read(&json).inspect_err(|error| pipeline.rejected(error))?;
                let by_row = prediction.by_row();
                let answer = pipeline.infer(handoff, call, prediction).await?;
                let body = codec::predict(answer.answerer(), &answer.request, &answer.outputs, by_row);
                Ok(Encoded { body, json_length: None })
            }
            Protocol::V2 => {
                let envelope = Envelope::read(&json, binary).inspect_err(|error| pipeline.rejected(error))?;
                let answer = pipeline.infer(handoff, call, envelope).await?;
                Ok(codec::encode(answer.answerer(), &answer.request, &answer.outputs))
            }
        }
    }
}

/// Reads the body: the JSON, and the raw tensors after it.
async fn read(
    visit: &Visit,
    form: Result<Form, ApiError>,
    body: impl Future<Output = Result<Pieces, ApiError>>,
) -> Result<(Bytes, Pieces), ApiError> {
    let Form { json_length, coding } = form?;
    let mut body = body.await?;
    if let Some(coding) = coding {
        let limit = visit.in_force.config.http.max_body_bytes.get();
        body = Box::pin(coding.inflate(body, limit, visit.held.as_deref())).await?.into();
    }
    codec::split(body, json_length)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid("header Inference-Header-Content-Length", "given twice; expected once"));
    }
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        ApiError::invalid("header Inference-Header-Content-Length", format!("{value:?}; expected a number of bytes"))
    })
}

/// Reads a body of at most `limit` bytes. One that is larger is read on for as much again and thrown away: a caller that
/// is still sending when the connection closes would never see why. A caller that waits for leave to send sees it.
pub(super) async fn read_body(mut body: RequestBody, limit: usize, caller_waits: bool) -> Result<Pieces, ApiError> {
    let too_large = || {
        let message = format!("body: more than {limit} bytes; send fewer rows, or raise http.max_body_bytes");
        ApiError::new(Cause::TooLarge, message)
    };
    let read_at_most = limit.saturating_mul(if caller_waits { 1 } else { 2 });
    if body.size_hint().lower() > read_at_most as u64 {
        return Err(too_large());
    }
    let mut pieces = Pieces::default();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Err(error) if error.cause == Cause::Overloaded => {
                drop(pieces);
                Box::pin(body.discard(limit)).await;
                return Err(error);
            }
            frame => frame?,
        };
        if let Ok(data) = frame.into_data() {
            length += data.len();
            match length {
                _ if length <= limit => pieces.push(data),
                _ if length <= read_at_most => {}
                _ => return Err(too_large()),
            }
        }
    }
    if length > limit { Err(too_large()) } else { Ok(pieces) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inference_paths_are_taken_and_names_are_decoded() {
        let target = |model: &str, version: Option<&str>| {
            Some(Target { model: model.into(), version: version.map(str::to_owned), protocol: Protocol::V2 })
        };
        assert_eq!(Target::of_path("/v2/models/net/infer"), target("net", None));
        assert_eq!(Target::of_path("/v2/models/net/versions/3/infer"), target("net", Some("3")));
        assert_eq!(Target::of_path("/v2/models/a%20b/infer"), target("a b", None));
        let v1 = Target { model: "net".into(), version: None, protocol: Protocol::V1 };
        assert_eq!(Target::of_path("/v1/models/net:predict"), Some(v1));
        for other in [
            "/v2/models/net",
            "/v1/models/net",
            "/v1/models/a/b:predict",
            "/v2/models/a/b/infer",
            "/v2/models/net/versions/1/2/infer",
            "/v2/models/%ff/infer",
        ] {
            assert_eq!(Target::of_path(other), None, "{other}");
        }
    }
}
