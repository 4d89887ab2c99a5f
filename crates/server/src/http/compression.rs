//! Bodies that are compressed on the way: `Content-Encoding` of requests, `Accept-Encoding` for responses.

use std::io::{Read, Write};

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue};
use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::bodies::Held;
use crate::codec::Pieces;
use crate::error::{ApiError, Cause};

/// A response shorter than this goes as it is: it fits one packet either way.
const WORTH_IT: usize = 1400;

/// So much is inflated before others have their turn.
const STEP: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// zlib's format, as HTTP has it.
    Deflate,
}

impl Coding {
    /// That of a request's body, if it is compressed.
    ///
    /// # Errors
    /// [`ApiError`] with status 415 for one that is not known, and for one that is said in `Transfer-Encoding`.
    pub(super) fn of_body(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let chunked = |coding: &&HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if let Some(coding) = headers.get_all(TRANSFER_ENCODING).iter().find(|coding| !chunked(coding)) {
            let coding = String::from_utf8_lossy(coding.as_bytes());
            let message = format!(
                "header Transfer-Encoding: `{coding}` is not offered; expected chunked, and how the body is compressed in \
                 Content-Encoding"
            );
            return Err(ApiError::new(Cause::UnsupportedEncoding, message));
        }
        let Some(coding) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
        match coding.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" => Ok(None),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            _ => {
                let other = String::from_utf8_lossy(coding.as_bytes());
                let message =
                    format!("header Content-Encoding: `{other}` is not offered; expected gzip, deflate or identity");
                Err(ApiError::new(Cause::UnsupportedEncoding, message))
            }
        }
    }

    /// The first that a caller takes in the response.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
        accepted.split(',').find_map(|element| {
            let (name, weight) = element.split_once(';').unwrap_or((element, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
            match name.trim() {
                _ if refused => None,
                "gzip" => Some(Self::Gzip),
                "deflate" => Some(Self::Deflate),
                _ => None,
            }
        })
    }

    /// The header's value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Restores a body of at most `limit` bytes, and adds them to what is `held`. Others have their turn now and then
    /// meanwhile.
    ///
    /// # Errors
    /// [`ApiError`] with status 413 as soon as more than `limit` bytes come out, 503 where there is no room for
    /// them, 400 for what was not compressed so.
    pub(super) async fn inflate(self, packed: Pieces, limit: usize, held: Option<&Held>) -> Result<Bytes, ApiError> {
        let packed = packed.into_contiguous().reader();
        match self {
            Self::Gzip => inflate(MultiGzDecoder::new(packed), limit, held).await,
            Self::Deflate => inflate(ZlibDecoder::new(packed), limit, held).await,
        }
    }

    /// A response's text, compressed if that is worth it.
    pub(super) fn deflate(self, text: &[u8]) -> Option<Bytes> {
        if text.len() < WORTH_IT {
            return None;
        }
        let room = Vec::with_capacity(text.len() / 2);
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(room, Compression::fast());
                encoder.write_all(text).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(room, Compression::fast());
                encoder.write_all(text).and_then(|()| encoder.finish())
            }
        };
        Some(packed.expect("writing to memory cannot fail").into())
    }
}

async fn inflate(mut decoder: impl Read, limit: usize, held: Option<&Held>) -> Result<Bytes, ApiError> {
    let mut body = Vec::new();
    loop {
        let length = body.len();
        let step = STEP.min(limit + 1 - length);
        body.resize(length + step, 0);
        let read = decoder.read(&mut body[length..]);
        let read = read.map_err(|error| {
            ApiError::invalid("body", format_args!("not compressed as header Content-Encoding says: {error}"))
        })?;
        body.truncate(length + read);
        held.map_or(Ok(()), |held| held.take(read, 0))?;
        match body.len() {
            _ if read == 0 => return Ok(body.into()),
            length if length > limit => {
                let message = format!(
                    "body: more than {limit} bytes once inflated; send fewer rows, or raise http.max_body_bytes"
                );
                return Err(ApiError::new(Cause::TooLarge, message));
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &'static str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
        Coding::accepted(&headers)
    }

    #[test]
    fn a_response_is_compressed_as_the_caller_takes_it() {
        assert_eq!(accepted("gzip"), Some(Coding::Gzip));
        assert_eq!(accepted("br, deflate;q=0.5, gzip"), Some(Coding::Deflate));
        assert_eq!(accepted("gzip;q=0, deflate; q=1"), Some(Coding::Deflate));
        assert_eq!(accepted("identity"), None);
        assert_eq!(accepted("gzip;q=0"), None);
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn a_body_s_coding_is_known_in_any_case_of_letters() {
        let of = |text| Coding::of_body(&[(CONTENT_ENCODING, HeaderValue::from_static(text))].into_iter().collect());
        assert_eq!(of("GZip").expect("it is offered"), Some(Coding::Gzip));
        assert_eq!(of("Identity").expect("it is offered"), None);
        assert!(of("BR").expect_err("it is not").message.contains("`BR` is not offered"));
    }

    #[tokio::test]
    async fn what_is_inflated_is_what_was_deflated_and_never_more_than_the_limit() {
        let text: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = coding.deflate(&text).expect("it is long enough");
            let restored = coding.inflate(packed.clone().into(), text.len(), None).await.expect("it fits");
            assert_eq!(restored, text);
            let error =
                coding.inflate(packed.clone().into(), text.len() - 1, None).await.expect_err("one byte too many");
            assert_eq!(error.status(), 413);
            let cut = packed.slice(..packed.len() / 2);
            assert_eq!(coding.inflate(cut.into(), text.len(), None).await.expect_err("it is cut").status(), 400);
        }
        let garbage = Bytes::from_static(b"no gzip at all");
        assert_eq!(Coding::Gzip.inflate(garbage.into(), 100, None).await.expect_err("garbage").status(), 400);
        assert_eq!(Coding::Gzip.deflate(b"short"), None);
    }
}
