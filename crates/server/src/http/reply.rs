//! What an inference request or a refusal is answered, in the two forms in which it leaves: a response that hyper writes, and
//! the bytes of one.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use volley_telemetry::RequestId;

use super::compression::Coding;
use super::infer::{JSON_LENGTH, REQUEST_ID, TRACE};
use crate::codec::{self, Encoded};
use crate::error::{ApiError, Cause};

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Bytes,
    json_length: Option<usize>,
    coding: Option<Coding>,
    retry_after: Option<u64>,
    asks_who: bool,
    closes: bool,
    asked_by: Option<(RequestId, Option<HeaderValue>)>,
}

/// A header's value.
enum Value<'a> {
    Text(&'static str),
    Number(u64),
    Id(&'a RequestId),
    Given(&'a HeaderValue),
}

impl Reply {
    /// A result, compressed as the caller takes it. Only text is compressed: raw tensors of floating-point numbers would gain
    /// a tenth, for ten times the work.
    pub(super) fn result(encoded: Encoded, accepted: Option<Coding>) -> Self {
        let coding = accepted.filter(|_| encoded.json_length.is_none());
        let packed = coding.and_then(|coding| Some((coding, coding.deflate(&encoded.body)?)));
        let (coding, body) = packed.map_or((None, encoded.body), |(coding, body)| (Some(coding), body));
        let json_length = encoded.json_length;
        Self { body, json_length, coding, ..Self::of(StatusCode::OK) }
    }

    /// An error as the protocol writes it: `{"error": "..."}`.
    pub(super) fn refusal(error: &ApiError) -> Self {
        let asks_who = error.cause == Cause::Unauthenticated;
        Self {
            body: codec::complaint(&error.message),
            retry_after: error.retry_after().map(|after| after.as_secs_f64().ceil().max(1.0) as u64),
            asks_who,
            // Of who was too slow, the rest of what is being sent would be taken for the next request.
            closes: asks_who || error.cause == Cause::TooSlow,
            ..Self::of(error.status())
        }
    }

    fn of(status: StatusCode) -> Self {
        let (body, json_length, coding, retry_after) = (Bytes::new(), None, None, None);
        Self { status, body, json_length, coding, retry_after, asks_who: false, closes: false, asked_by: None }
    }

    /// With the id and the trace of the request that it answers.
    pub(super) fn to(self, id: RequestId, trace: Option<HeaderValue>) -> Self {
        Self { asked_by: Some((id, trace)), ..self }
    }

    /// Whether its connection ends with it.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Every header that is not the connection's own.
    fn each_header(&self, mut add: impl FnMut(HeaderName, Value<'_>)) {
        match self.json_length {
            Some(length) => {
                add(CONTENT_TYPE, Value::Text("application/octet-stream"));
                add(JSON_LENGTH, Value::Number(length as u64));
            }
            None => add(CONTENT_TYPE, Value::Text("application/json")),
        }
        if let Some(coding) = self.coding {
            add(CONTENT_ENCODING, Value::Text(coding.name()));
        }
        if let Some(after) = self.retry_after {
            add(RETRY_AFTER, Value::Number(after));
        }
        if self.asks_who {
            add(WWW_AUTHENTICATE, Value::Text("Bearer"));
        }
        if let Some((id, trace)) = &self.asked_by {
            add(REQUEST_ID, Value::Id(id));
            if let Some(trace) = trace {
                add(TRACE, Value::Given(trace));
            }
        }
    }

    /// For hyper, which sees to length and date.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        self.each_header(|name, value| {
            let value = match value {
                Value::Text(text) => HeaderValue::from_static(text),
                Value::Number(number) => HeaderValue::from(number),
                Value::Given(value) => value.clone(),
                Value::Id(id) => match HeaderValue::try_from(id.to_string()) {
                    Ok(value) => value,
                    Err(_) => return,
                },
            };
            headers.insert(name, value);
        });
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *response.body_mut() = Body::from(self.body);
        response
    }

    /// Appends it as HTTP/1.1 has it; where it `closes`, it says that nothing more is answered on its connection.
    pub(super) fn write(&self, closes: bool, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        self.each_header(|name, value| {
            begin(out, &name);
            match value {
                Value::Text(text) => out.extend_from_slice(text.as_bytes()),
                Value::Number(number) => out.extend_from_slice(digits.format(number).as_bytes()),
                Value::Given(value) => out.extend_from_slice(value.as_bytes()),
                Value::Id(id) => write!(out, "{id}").expect("memory takes it"),
            }
        });
        if closes {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(digits.format(self.body.len()).as_bytes());
        out.extend_from_slice(b"\r\ndate: ");
        write_date(out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
    }
}

fn begin(out: &mut Vec<u8>, name: &HeaderName) {
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
}

/// Appends the date, which is written anew every second only.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderMap;
    use http_body_util::BodyExt as _;

    use super::*;

    /// The same in both forms: the response, and what the bytes say.
    fn both(reply: impl Fn() -> Reply) -> (Response<Body>, StatusCode, HeaderMap, Vec<u8>) {
        let mut out = Vec::new();
        reply().write(reply().closes(), &mut out);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut headers);
        let head = parsed.parse(&out).expect("it is HTTP").unwrap();
        let status = StatusCode::from_u16(parsed.code.expect("a status")).expect("one there is");
        assert_eq!(parsed.reason, status.canonical_reason());
        let headers = parsed.headers.iter().map(|header| {
            let name: HeaderName = header.name.parse().expect("a name");
            (name, HeaderValue::from_bytes(header.value).expect("a value"))
        });
        (reply().into_response(), status, headers.collect(), out[head..].to_vec())
    }

    #[tokio::test]
    async fn both_forms_say_the_same() {
        let encoded = |json_length| Encoded { body: vec![b'x'; 3000].into(), json_length };
        let id = || RequestId::from_caller(Some(b"mine"));
        let trace = HeaderValue::from_static("00-1-2-03");
        let replies: [&dyn Fn() -> Reply; 6] = [
            &|| Reply::result(encoded(Some(7)), Some(Coding::Gzip)).to(id(), None),
            &|| Reply::result(encoded(None), None).to(id(), Some(trace.clone())),
            &|| Reply::result(encoded(None), Some(Coding::Deflate)),
            &|| Reply::refusal(&ApiError::new(Cause::Unauthenticated, "who?")),
            &|| Reply::refusal(&ApiError::new(Cause::TooSlow, "where?")),
            &|| Reply::refusal(&ApiError::new(Cause::TooOften(Duration::from_millis(1500)), "when?")).to(id(), None),
        ];
        for reply in replies {
            let (response, status, mut headers, body) = both(reply);
            assert_eq!(response.status(), status);
            assert_eq!(headers.remove("content-length").expect("a length"), body.len().to_string().as_str());
            let date = headers.remove("date").expect("a date");
            let date = httpdate::parse_http_date(date.to_str().expect("text")).expect("a date");
            assert!(SystemTime::now().duration_since(date).is_ok_and(|age| age < Duration::from_secs(60)));
            assert_eq!(*response.headers(), headers);
            assert_eq!(response.into_body().collect().await.expect("it is there").to_bytes(), body);
        }
    }
}
