//! Inference responses: JSON, with raw tensors after it where the caller asked for them.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use volley_gpu_runtime::{DataType, Outputs, TensorSpec};

use super::binding::InferRequest;

/// A response body, and how much of it is JSON if raw tensors follow.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The whole body.
    pub body: Bytes,
    /// The value of `Inference-Header-Content-Length`; `None` when the body is JSON alone.
    pub json_length: Option<usize>,
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Participation>,
    outputs: Vec<Tensor<'a>>,
}

/// How many members of an ensemble answered, of how many.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Participation {
    /// Those who answered.
    pub ensemble_members: usize,
    /// Those there are.
    pub ensemble_size: usize,
}

/// Who answers, as the response names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answerer<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version, as the protocol writes it.
    pub version: &'a str,
    /// All outputs there are.
    pub outputs: &'a [TensorSpec],
    /// Of an ensemble, who took part.
    pub participation: Option<Participation>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Shape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Binary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Binary {
    binary_data_size: usize,
}

/// A row's shape with the batch axis before it.
struct Shape<'a> {
    rows: usize,
    row: &'a [usize],
}

impl Serialize for Shape<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::once(&self.rows).chain(self.row))
    }
}

/// Writes the response to `request` with the outputs it asked for.
///
/// # Panics
/// Never: numbers and names always have a JSON form.
pub(crate) fn encode(answerer: Answerer<'_>, request: &InferRequest, outputs: &Outputs) -> Encoded {
    let rows = request.rows;
    let tensors: Vec<(bool, Bytes)> =
        request.outputs.iter().map(|wanted| (wanted.binary, outputs.tensor(wanted.index))).collect();
    let described = request.outputs.iter().zip(&tensors).map(|(wanted, (binary, bytes))| {
        let spec = &answerer.outputs[wanted.index];
        Tensor {
            name: &spec.name,
            datatype: spec.dtype.name(),
            shape: Shape { rows, row: &spec.row_shape },
            parameters: binary.then_some(Binary { binary_data_size: bytes.len() }),
            data: (!binary).then(|| numbers(spec.dtype, bytes)),
        }
    });
    let response = Response {
        id: request.id.as_deref(),
        model_name: answerer.model,
        model_version: answerer.version,
        parameters: answerer.participation,
        outputs: described.collect(),
    };
    let raw: usize = tensors.iter().filter(|(binary, _)| *binary).map(|(_, bytes)| bytes.len()).sum();
    let mut body = BytesMut::with_capacity(512 + raw).writer();
    serde_json::to_writer(&mut body, &response).expect("writing to memory cannot fail");
    let mut body = body.into_inner();
    let json_length = body.len();
    let any_binary = tensors.iter().any(|(binary, _)| *binary);
    for (_, bytes) in tensors.iter().filter(|(binary, _)| *binary) {
        body.extend_from_slice(bytes);
    }
    Encoded { body: body.freeze(), json_length: any_binary.then_some(json_length) }
}

/// The values as a JSON list, each number so that it reads back to the same bits; NaN and infinities as `null`.
pub(super) fn numbers(dtype: DataType, bytes: &[u8]) -> Box<RawValue> {
    macro_rules! list {
        ($type:ty) => {
            serde_json::value::to_raw_value(
                &bytes
                    .chunks_exact(size_of::<$type>())
                    .map(|b| <$type>::from_le_bytes(b.try_into().expect("chunks have the type's size")))
                    .collect::<Vec<_>>(),
            )
        };
    }
    match dtype {
        DataType::Fp32 => list!(f32),
        DataType::Fp64 => list!(f64),
        DataType::Bool => serde_json::value::to_raw_value(&bytes.iter().map(|&b| b != 0).collect::<Vec<_>>()),
        DataType::Uint8 => list!(u8),
        DataType::Uint16 => list!(u16),
        DataType::Uint32 => list!(u32),
        DataType::Uint64 => list!(u64),
        DataType::Int8 => list!(i8),
        DataType::Int16 => list!(i16),
        DataType::Int32 => list!(i32),
        DataType::Int64 => list!(i64),
        // Half precision has no JSON form, and is not asked for in one.
        _ => list!(u16),
    }
    .expect("numbers always have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::super::binding::WantedOutput;
    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let spec = |name: &str, width| TensorSpec { name: name.into(), dtype: DataType::Fp32, row_shape: vec![width] };
        vec![spec("features", 2), spec("prediction", 1)]
    }

    fn net(specs: &[TensorSpec]) -> Answerer<'_> {
        Answerer { model: "net", version: "3", outputs: specs, participation: None }
    }

    fn outputs() -> Outputs {
        let bytes: Vec<u8> = [0.1_f32, -2.5, 3.0e-9].iter().flat_map(|value| value.to_le_bytes()).collect();
        Outputs::from_joined(bytes.into(), &specs().into(), 1).expect("three values")
    }

    fn request(outputs: Vec<WantedOutput>) -> InferRequest {
        InferRequest { id: Some("a\"b".into()), inputs: [].into(), rows: 1, outputs }
    }

    #[test]
    fn numbers_read_back_to_the_same_bits() {
        let wanted = vec![WantedOutput { index: 0, binary: false }, WantedOutput { index: 1, binary: false }];
        let encoded = encode(net(&specs()), &request(wanted), &outputs());
        assert_eq!(encoded.json_length, None);
        let json: serde_json::Value = serde_json::from_slice(&encoded.body).expect("it is JSON");
        assert_eq!(
            (&json["id"], &json["model_name"], &json["model_version"]),
            (&"a\"b".into(), &"net".into(), &"3".into())
        );
        assert_eq!(json["outputs"][0]["shape"], serde_json::json!([1, 2]));
        let value = json["outputs"][1]["data"][0].as_f64().expect("a number");
        assert_eq!((value as f32).to_bits(), 3.0e-9_f32.to_bits());
    }

    #[test]
    fn raw_tensors_follow_the_json_in_the_order_asked_for() {
        let wanted = vec![WantedOutput { index: 1, binary: true }, WantedOutput { index: 0, binary: true }];
        let encoded = encode(net(&specs()), &request(wanted), &outputs());
        let length = encoded.json_length.expect("there are raw tensors");
        let json: serde_json::Value = serde_json::from_slice(&encoded.body[..length]).expect("it is JSON");
        assert_eq!(json["outputs"][0]["name"], "prediction");
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 4);
        assert!(json["outputs"][0].get("data").is_none());
        let expected: Vec<u8> = [3.0e-9_f32, 0.1, -2.5].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(encoded.body[length..], expected);
    }
}
