//! Requests, prepared before the run so that sending one costs next to nothing.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use thiserror::Error;

use super::encode::{InputShape, encode_binary, encode_json};
use super::{Datatype, JSON_LENGTH_HEADER, MetadataError, ModelMetadata};
use crate::target::Target;

/// What every request of a run looks like.
#[derive(Debug, Clone)]
pub struct RequestOptions {
    /// How tensors travel.
    pub encoding: Encoding,
    /// The `priority` parameter; none is sent by default.
    pub priority: Option<Priority>,
    /// The `timeout` parameter: the end-to-end deadline the server is asked to keep, sent in whole
    /// microseconds. None by default. What the client itself tolerates is set apart from it.
    pub deadline: Option<Duration>,
    /// Whether the server may answer from its cache.
    pub cache: CacheUse,
    /// How many different inputs are prepared; requests take them in turn. Each costs the memory of
    /// one body (12 kB for a sample of 50 x 60 values).
    pub distinct: NonZeroUsize,
    /// Seed of the inputs: the same seed sends the same bytes.
    pub seed: u64,
}

impl Default for RequestOptions {
    /// Binary tensors, 1024 different inputs, no cache, no priority, no deadline.
    fn default() -> Self {
        Self {
            encoding: Encoding::Binary,
            priority: None,
            deadline: None,
            cache: CacheUse::Bypass,
            distinct: NonZeroUsize::new(1024).expect("1024 is not zero"),
            seed: 1,
        }
    }
}

/// How tensors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// The binary tensor extension: a JSON header, then raw little-endian values.
    #[default]
    Binary,
    /// Numbers in JSON.
    Json,
}

/// Whether the server may answer from its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheUse {
    /// Send the parameter `cache: false`, so that every request is computed.
    #[default]
    Bypass,
    /// Send no parameter: the server does as it is configured.
    Allow,
}

/// The `priority` request parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Priority {
    /// Triton's integers: 1 is the highest, 0 the model's default.
    Level(u32),
    /// A lane by name: `critical`, `high`, `normal` or `low`.
    Lane(String),
}

impl FromStr for Priority {
    type Err = PriorityError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        match given {
            "critical" | "high" | "normal" | "low" => Ok(Self::Lane(given.to_owned())),
            _ => given.parse().map(Self::Level).map_err(|_| PriorityError(given.to_owned())),
        }
    }
}

/// A priority that is neither a number nor a lane.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("priority '{0}' is unknown: use critical, high, normal, low, or a whole number (1 is the highest)")]
pub struct PriorityError(String);

/// Why requests cannot be made for a model.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Its metadata does not say what one sample is.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// An input is of a type that no values are made for.
    #[error("input '{input}' is {datatype}: only FP32 inputs can be generated")]
    Datatype {
        /// The input's name.
        input: String,
        /// Its declared type.
        datatype: Datatype,
    },
    /// An input is larger than any request should be.
    #[error("input '{input}' of shape {shape:?} has more than 2^26 elements, too many for one request")]
    Size {
        /// The input's name.
        input: String,
        /// The shape of one sample.
        shape: Vec<u64>,
    },
    /// The host of the target cannot be a header value, or its path not a URL's.
    #[error("target '{target}' cannot be put into an HTTP request: {source}")]
    Http {
        /// As displayed.
        target: String,
        /// What hyper says.
        source: hyper::http::Error,
    },
}

/// 256 MB of values. Metadata that asks for more is a mistake, and must not take this machine's memory.
const MOST_ELEMENTS: u64 = 1 << 26;

/// Bodies and headers, ready to send in turn.
#[derive(Debug)]
pub(crate) struct PreparedRequests {
    uri: Uri,
    headers: HeaderMap,
    bodies: Vec<Bytes>,
    /// Counts requests handed out, from any connection; only its uniqueness matters, so it is relaxed.
    next: AtomicUsize,
}

impl PreparedRequests {
    pub(crate) fn new(
        target: &Target,
        metadata: &ModelMetadata,
        options: &RequestOptions,
    ) -> Result<Self, RequestError> {
        let inputs = metadata
            .inputs
            .iter()
            .map(|input| {
                if input.datatype != Datatype::Fp32 {
                    return Err(RequestError::Datatype { input: input.name.clone(), datatype: input.datatype });
                }
                let shape = input.shape_of_one()?;
                let elements = shape.iter().copied().fold(1, u64::saturating_mul);
                if elements > MOST_ELEMENTS {
                    return Err(RequestError::Size { input: input.name.clone(), shape });
                }
                Ok(InputShape { name: &input.name, shape })
            })
            .collect::<Result<Vec<_>, _>>()?;

        let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
        let encode = match options.encoding {
            Encoding::Binary => encode_binary,
            Encoding::Json => encode_json,
        };
        let mut json_length = 0;
        let bodies = (0..options.distinct.get())
            .map(|_| {
                let values = inputs.iter().map(|input| input.values(&mut rng)).collect();
                let encoded = encode(&inputs, values, options);
                json_length = encoded.json_length;
                encoded.body
            })
            .collect();

        let http = |source: hyper::http::Error| RequestError::Http { target: target.to_string(), source };
        let mut headers = target.headers().map_err(http)?;
        let content_type = match options.encoding {
            Encoding::Binary => {
                headers.insert(HeaderName::from_static(JSON_LENGTH_HEADER), HeaderValue::from(json_length));
                HeaderValue::from_static("application/octet-stream")
            }
            Encoding::Json => HeaderValue::from_static("application/json"),
        };
        headers.insert(CONTENT_TYPE, content_type);
        Ok(Self {
            uri: Uri::try_from(target.infer_path()).map_err(|e| http(e.into()))?,
            headers,
            bodies,
            next: AtomicUsize::new(0),
        })
    }

    /// The next request; its body is shared, not copied.
    pub(crate) fn next(&self) -> Request<Full<Bytes>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let body = self.bodies[turn % self.bodies.len()].clone();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

#[cfg(test)]
mod tests {
    use super::super::TensorMetadata;
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    fn metadata(datatype: Datatype) -> ModelMetadata {
        let tensor =
            |name: &str, shape: &[i64]| TensorMetadata { name: name.to_owned(), datatype, shape: shape.to_vec() };
        ModelMetadata {
            name: "m".to_owned(),
            inputs: vec![tensor("a", &[-1, 2, 3]), tensor("b", &[1])],
            outputs: vec![tensor("y", &[-1])],
        }
    }

    fn prepared(options: &RequestOptions) -> PreparedRequests {
        let target = Target::new("http://127.0.0.1:8000", "m").unwrap();
        PreparedRequests::new(&target, &metadata(Datatype::Fp32), options).unwrap()
    }

    fn body_of(request: Request<Full<Bytes>>) -> Bytes {
        let mut frame = std::pin::pin!(request.into_body().collect());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match frame.as_mut().poll(&mut context) {
            std::task::Poll::Ready(body) => body.unwrap().to_bytes(),
            std::task::Poll::Pending => unreachable!("a full body is ready at once"),
        }
    }

    #[test]
    fn a_binary_body_is_a_json_header_and_raw_values_in_order() {
        let options = RequestOptions {
            priority: Some("high".parse().unwrap()),
            deadline: Some(Duration::from_millis(80)),
            ..RequestOptions::default()
        };
        let request = prepared(&options).next();
        let length = request.headers()[JSON_LENGTH_HEADER].to_str().unwrap();
        let length: usize = length.parse().unwrap();
        assert_eq!(request.uri().path(), "/v2/models/m/infer");
        let body = body_of(request);
        let header: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(
            header,
            json!({
                "inputs": [
                    {"name": "a", "shape": [1, 2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}},
                    {"name": "b", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
                ],
                "parameters": {"binary_data_output": true, "priority": "high", "timeout": 80_000, "cache": false},
            })
        );
        assert_eq!(body.len(), length + 28);
        for value in body[length..].as_chunks::<4>().0 {
            assert!((-1.0..1.0).contains(&f32::from_le_bytes(*value)));
        }
    }

    #[test]
    fn a_json_body_carries_its_values_and_leaves_the_cache_alone_when_allowed() {
        let options = RequestOptions {
            encoding: Encoding::Json,
            priority: Some(Priority::Level(1)),
            cache: CacheUse::Allow,
            ..RequestOptions::default()
        };
        let request = prepared(&options).next();
        assert!(!request.headers().contains_key(JSON_LENGTH_HEADER));
        let body: Value = serde_json::from_slice(&body_of(request)).unwrap();
        assert_eq!(body["inputs"][0]["data"].as_array().unwrap().len(), 6);
        assert_eq!(body["parameters"], json!({"priority": 1}));
    }

    #[test]
    fn bodies_differ_until_all_were_used_and_repeat_for_the_same_seed() {
        let options = RequestOptions { distinct: NonZeroUsize::new(3).unwrap(), ..RequestOptions::default() };
        let (one, two) = (prepared(&options), prepared(&options));
        let first: Vec<_> = (0..4).map(|_| body_of(one.next())).collect();
        let second: Vec<_> = (0..4).map(|_| body_of(two.next())).collect();
        assert_eq!(first, second);
        assert_eq!(first[0], first[3]);
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
    }

    #[test]
    fn an_input_that_is_not_fp32_is_refused_by_name() {
        let target = Target::new("http://127.0.0.1:8000", "m").unwrap();
        let refused = PreparedRequests::new(&target, &metadata(Datatype::Bytes), &RequestOptions::default());
        assert_eq!(refused.unwrap_err().to_string(), "input 'a' is BYTES: only FP32 inputs can be generated");
    }

    #[test]
    fn an_absurd_size_is_refused_before_memory_is_taken_for_it() {
        let target = Target::new("http://127.0.0.1:8000", "m").unwrap();
        let mut huge = metadata(Datatype::Fp32);
        huge.inputs[1].shape = vec![i64::MAX, i64::MAX, 4];
        let refused = PreparedRequests::new(&target, &huge, &RequestOptions::default());
        let message = refused.unwrap_err().to_string();
        assert!(message.starts_with("input 'b' of shape [9223372036854775807,"), "{message}");
    }

    #[test]
    fn priorities_are_numbers_or_lanes() {
        assert_eq!("2".parse(), Ok(Priority::Level(2)));
        assert_eq!("low".parse(), Ok(Priority::Lane("low".to_owned())));
        assert!("urgent".parse::<Priority>().is_err());
    }
}
