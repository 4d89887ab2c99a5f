//! Inference responses: JSON, with raw tensors after it where the caller asked for them.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use volley_gpu_runtime::{DataType, Outputs, TensorSpec};

use super::binding::InferRequest;
use super::text::Text;

/// Room for the JSON of a few outputs beside their values. What few features and their JSON need together, an allocator
/// has at hand: glibc's does where it is no more than 1032 bytes.
const ROOM: usize = 384;

/// A response body, and how much of it is JSON if raw tensors follow.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The whole body.
    pub body: Bytes,
    /// The value of `Inference-Header-Content-Length`; `None` when the body is JSON alone.
    pub json_length: Option<usize>,
}

/// How many members of an ensemble answered, of how many.
#[derive(Debug, Clone, Copy)]
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

/// A refusal or failure, as the protocol writes it.
pub(crate) fn complaint(message: &str) -> Bytes {
    let mut text = Text::with_room(message.len() + "{\"error\":\"\"}".len());
    text.raw("{\"error\":");
    text.string(message);
    text.raw("}");
    text.into_bytes().freeze()
}

/// Writes the response to `request` with the outputs it asked for.
///
/// # Panics
/// Never: numbers and names always have a JSON form.
pub(crate) fn encode(answerer: Answerer<'_>, request: &InferRequest, outputs: &Outputs) -> Encoded {
    let raw = || request.outputs.iter().filter(|wanted| wanted.binary).map(|wanted| outputs.values(wanted.index));
    let raw_length = raw().map(<[u8]>::len).sum::<usize>();
    let mut json = Text::with_room(ROOM + raw_length);
    json.raw("{");
    if let Some(id) = &request.id {
        json.raw("\"id\":");
        json.string(id);
        json.raw(",");
    }
    json.raw("\"model_name\":");
    json.string(answerer.model);
    json.raw(",\"model_version\":");
    json.string(answerer.version);
    if let Some(Participation { ensemble_members, ensemble_size }) = answerer.participation {
        json.raw(",\"parameters\":{\"ensemble_members\":");
        json.number(ensemble_members);
        json.raw(",\"ensemble_size\":");
        json.number(ensemble_size);
        json.raw("}");
    }
    json.raw(",\"outputs\":");
    let mut before = "[";
    for wanted in &request.outputs {
        json.raw(before);
        before = ",";
        describe(&mut json, &answerer.outputs[wanted.index], request.rows);
        let values = outputs.values(wanted.index);
        if wanted.binary {
            json.raw(",\"parameters\":{\"binary_data_size\":");
            json.number(values.len());
            json.raw("}}");
        } else {
            json.raw(",\"data\":");
            json.value(&Numbers(answerer.outputs[wanted.index].dtype, values));
            json.raw("}");
        }
    }
    json.raw("]}");
    let json_length = json.len();
    let mut body = json.into_bytes();
    raw().for_each(|bytes| body.extend_from_slice(bytes));
    let any_raw = request.outputs.iter().any(|wanted| wanted.binary);
    Encoded { body: body.freeze(), json_length: any_raw.then_some(json_length) }
}

/// Begins an output: its name, type and shape.
fn describe(json: &mut Text, spec: &TensorSpec, rows: usize) {
    json.raw("{\"name\":");
    json.string(&spec.name);
    json.raw(",\"datatype\":");
    json.string(spec.dtype.name());
    json.raw(",\"shape\":[");
    json.number(rows);
    for &axis in &spec.row_shape {
        json.raw(",");
        json.number(axis);
    }
    json.raw("]");
}

/// Values as a JSON list, each number so that it reads back to the same bits; NaN and infinities as `null`.
pub(super) struct Numbers<'a>(pub DataType, pub &'a [u8]);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(dtype, bytes) = self;
        macro_rules! list {
            ($type:ty) => {{
                let (values, _) = bytes.as_chunks();
                serializer.collect_seq(values.iter().map(|&value| <$type>::from_le_bytes(value)))
            }};
        }
        match dtype {
            DataType::Fp32 => list!(f32),
            DataType::Fp64 => list!(f64),
            DataType::Bool => serializer.collect_seq(bytes.iter().map(|&byte| byte != 0)),
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
    }
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
