//! The hot route: `POST /v2/models/{model}[/versions/{version}]/infer`.

use std::borrow::Cow;
use std::time::Instant;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use percent_encoding::percent_decode_str;
use volley_scheduler::Handoff;
use volley_telemetry::RequestId;

use super::body::RequestBody;
use super::gate::Visit;
use super::listener::Edge;
use crate::codec::{Encoded, Pieces};
use crate::error::{ApiError, Cause};
use crate::pipeline::Call;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The model an inference request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    model: String,
    version: Option<String>,
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
        let rest = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
        match rest.split_once("/versions/") {
            None if !rest.contains('/') => Some(Self { model: decode(rest)?, version: None }),
            Some((model, version)) if !model.contains('/') && !version.contains('/') => {
                Some(Self { model: decode(model)?, version: Some(decode(version)?) })
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
    arrival: Instant,
) -> Response<Body> {
    let id = RequestId::from_caller(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
    let result = infer(edge, visit, handoff, target, request, arrival).await;
    let mut response = match result {
        Ok(encoded) => success(encoded),
        Err(error) => {
            let status = error.status().as_u16();
            tracing::debug!(request_id = %id, model = target.model, status, error = error.message, "request refused");
            failure(&error)
        }
    };
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn infer(
    edge: &Edge,
    visit: &Visit,
    handoff: &Handoff,
    target: &Target,
    request: Request<RequestBody>,
    arrival: Instant,
) -> Result<Encoded, ApiError> {
    let call = read(visit, target, request, arrival)
        .await
        .inspect_err(|error| edge.pipeline.rejections.request_rejected(error.rejection()))?;
    edge.pipeline.infer(handoff, call).await
}

async fn read<'a>(
    visit: &Visit,
    target: &'a Target,
    request: Request<RequestBody>,
    arrival: Instant,
) -> Result<Call<'a>, ApiError> {
    let json_length = json_length(request.headers())?;
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING).filter(|&value| value != "identity") {
        let message = format!("header Content-Encoding: {encoding:?} is not offered; send the body as it is");
        return Err(ApiError::new(Cause::UnsupportedEncoding, message));
    }
    let waits = request.headers().contains_key(EXPECT);
    let body = read_body(request.into_body(), visit.in_force.config.http.max_body_bytes.get(), waits).await?;
    Ok(Call {
        model: &target.model,
        version: target.version.as_deref(),
        body,
        json_length,
        tenant: visit.tenant(),
        arrival,
    })
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
        if let Ok(data) = frame?.into_data() {
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

fn success(encoded: Encoded) -> Response<Body> {
    let mut response = Response::new(Body::from(encoded.body));
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
    response
}

/// An error as the protocol writes it: `{"error": "..."}`.
pub(super) fn failure(error: &ApiError) -> Response<Body> {
    let body = serde_json::json!({ "error": error.message }).to_string();
    let mut response = Response::new(Body::from(body));
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
            Some(Target { model: model.into(), version: version.map(str::to_owned) })
        };
        assert_eq!(Target::of_path("/v2/models/net/infer"), target("net", None));
        assert_eq!(Target::of_path("/v2/models/net/versions/3/infer"), target("net", Some("3")));
        assert_eq!(Target::of_path("/v2/models/a%20b/infer"), target("a b", None));
        for other in
            ["/v2/models/net", "/v2/models/a/b/infer", "/v2/models/net/versions/1/2/infer", "/v2/models/%ff/infer"]
        {
            assert_eq!(Target::of_path(other), None, "{other}");
        }
    }
}
