//! The hot routes: `POST /v2/models/{model}[/versions/{version}]/infer`, and V1's `POST /v1/models/{model}:predict`.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
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
use crate::codec::{self, Encoded, Envelope, Pieces, Prediction};
use crate::error::{ApiError, Cause};
use crate::pipeline::Call;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

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

    fn of_path(path: &str) -> Option<Self> {
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

/// Reads the request, has it answered, and writes the response, whatever it is.
pub(super) async fn answer(
    edge: &Edge,
    visit: &Visit,
    handoff: &Handoff,
    target: &Target,
    request: Request<RequestBody>,
    received: Received,
) -> Response<Body> {
    let id = RequestId::from_caller(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
    let trace = request.headers().get(TRACE).cloned();
    let coding = Coding::accepted(request.headers());
    let result = infer(edge, visit, handoff, target, request, received).await;
    let mut response = match result {
        Ok(encoded) => success(encoded, coding),
        Err(error) => {
            let status = error.status().as_u16();
            tracing::debug!(request_id = %id, model = target.model, status, error = error.message, "request refused");
            failure(&error)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(trace) = trace {
        headers.insert(TRACE, trace);
    }
    response
}

async fn infer(
    edge: &Edge,
    visit: &Visit,
    handoff: &Handoff,
    target: &Target,
    request: Request<RequestBody>,
    received: Received,
) -> Result<Encoded, ApiError> {
    let pipeline = &edge.pipeline;
    let read = read(visit, request).await;
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

/// Reads the body: the JSON, and the raw tensors after it.
async fn read(visit: &Visit, request: Request<RequestBody>) -> Result<(Bytes, Pieces), ApiError> {
    let json_length = json_length(request.headers())?;
    let coding = Coding::of_body(request.headers())?;
    let waits = request.headers().contains_key(EXPECT);
    let limit = visit.in_force.config.http.max_body_bytes.get();
    let mut body = read_body(request.into_body(), limit, waits).await?;
    if let Some(coding) = coding {
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
async fn read_body(mut body: RequestBody, limit: usize, caller_waits: bool) -> Result<Pieces, ApiError> {
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

/// Only text is compressed: raw tensors of floating-point numbers would gain a tenth, for ten times the work.
fn success(encoded: Encoded, coding: Option<Coding>) -> Response<Body> {
    let coding = coding.filter(|_| encoded.json_length.is_none());
    let packed = coding.and_then(|coding| Some((coding, coding.deflate(&encoded.body)?)));
    let (coding, body) = packed.map_or((None, encoded.body), |(coding, body)| (Some(coding), body));
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    match encoded.json_length {
        Some(length) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        None => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
    }
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, coding.name());
    }
    response
}

/// An error as the protocol writes it: `{"error": "..."}`.
pub(super) fn failure(error: &ApiError) -> Response<Body> {
    let mut response = Response::new(Body::from(codec::complaint(&error.message)));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil().max(1.0) as u64));
    }
    if error.cause == Cause::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // The rest of what is being sent would be taken for the next request.
    if error.cause == Cause::TooSlow {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
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
