//! Bodies of inference requests.

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use serde::Serialize;

use super::Datatype;
use super::request::{CacheUse, Priority, RequestOptions};

/// One input of a request for one sample.
pub(super) struct InputShape<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<u64>,
}

impl InputShape<'_> {
    /// Uniform in [-1, 1): the range of normalised features. No NaN, no infinity.
    pub(super) fn values(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
        let count = self.shape.iter().product();
        (0..count).map(|_| rng.random_range(-1.0_f32..1.0)).collect()
    }
}

pub(super) struct EncodedBody {
    pub(super) body: Bytes,
    /// Length of the JSON part. The same for every binary body: it holds no value.
    pub(super) json_length: usize,
}

#[derive(Serialize)]
struct RequestJson<'a> {
    inputs: Vec<InputJson<'a>>,
    parameters: ParametersJson<'a>,
}

#[derive(Serialize)]
struct InputJson<'a> {
    name: &'a str,
    shape: &'a [u64],
    datatype: Datatype,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<InputParametersJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<f32>>,
}

#[derive(Serialize)]
struct InputParametersJson {
    binary_data_size: usize,
}

#[derive(Serialize)]
struct ParametersJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data_output: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<PriorityJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PriorityJson<'a> {
    Level(u32),
    Lane(&'a str),
}

/// A JSON header, then the raw little-endian values of all inputs in order.
pub(super) fn encode_binary(inputs: &[InputShape<'_>], values: Vec<Vec<f32>>, options: &RequestOptions) -> EncodedBody {
    let raw: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let inputs = inputs.iter().zip(values).map(|(input, values)| InputJson {
        name: input.name,
        shape: &input.shape,
        datatype: Datatype::Fp32,
        parameters: Some(InputParametersJson { binary_data_size: size_of_val(values.as_slice()) }),
        data: None,
    });
    let mut body = to_json(&RequestJson { inputs: inputs.collect(), parameters: parameters(options, Some(true)) });
    let json_length = body.len();
    body.extend_from_slice(&raw);
    EncodedBody { body: body.into(), json_length }
}

/// JSON alone, the values in it.
pub(super) fn encode_json(inputs: &[InputShape<'_>], values: Vec<Vec<f32>>, options: &RequestOptions) -> EncodedBody {
    let inputs = inputs.iter().zip(values).map(|(input, values)| InputJson {
        name: input.name,
        shape: &input.shape,
        datatype: Datatype::Fp32,
        parameters: None,
        data: Some(values),
    });
    let body = to_json(&RequestJson { inputs: inputs.collect(), parameters: parameters(options, None) });
    EncodedBody { json_length: body.len(), body: body.into() }
}

fn parameters(options: &RequestOptions, binary_data_output: Option<bool>) -> ParametersJson<'_> {
    ParametersJson {
        binary_data_output,
        priority: options.priority.as_ref().map(|priority| match priority {
            Priority::Level(level) => PriorityJson::Level(*level),
            Priority::Lane(lane) => PriorityJson::Lane(lane),
        }),
        timeout: options.deadline.map(|deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX)),
        cache: match options.cache {
            CacheUse::Bypass => Some(false),
            CacheUse::Allow => None,
        },
    }
}

fn to_json(request: &RequestJson<'_>) -> Vec<u8> {
    serde_json::to_vec(request).expect("finite numbers and string keys always serialise")
}
