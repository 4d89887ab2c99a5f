//! Inference requests and responses of the Open Inference Protocol V2 as gRPC messages, written from the protocol's
//! published field numbers.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::forward_to_deserialize_any;
use volley_gpu_runtime::{DataType, Outputs};

use super::binding::{Binding, InferRequest, Interface, Slot, Unbound};
use super::{Answerer, Parameters, Pieces};
use crate::error::ApiError;

/// An inference request, as it came.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// Empty: the latest.
    #[prost(string, tag = "2")]
    pub model_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<InferInputTensor>,
    #[prost(message, repeated, tag = "6")]
    outputs: Vec<InferRequestedOutputTensor>,
    /// Little-endian values of each input, in the order of `inputs`; or their `contents` are given instead.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferInputTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, InferParameter>,
    #[prost(message, optional, tag = "5")]
    contents: Option<InferTensorContents>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferRequestedOutputTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(map = "string, message", tag = "2")]
    parameters: HashMap<String, InferParameter>,
}

/// Values by type. Narrow integers share a list.
#[derive(Clone, PartialEq, prost::Message)]
struct InferTensorContents {
    #[prost(bool, repeated, tag = "1")]
    bools: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    ints: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    longs: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    uints: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    ulongs: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    floats: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    doubles: Vec<f64>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    strings: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferParameter {
    #[prost(oneof = "Choice", tags = "1, 2, 3, 4, 5")]
    choice: Option<Choice>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

/// An inference response.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "2")]
    model_version: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: HashMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<InferOutputTensor>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    raw_output_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferOutputTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

impl ModelInferResponse {
    /// Nothing but the id of the request that is answered.
    pub(crate) fn of_id(id: String) -> Self {
        Self { id, ..Default::default() }
    }

    /// The same, saying that it is the last for its request, for which callers of Triton's streams look.
    pub(crate) fn last(mut self) -> Self {
        let says = InferParameter { choice: Some(Choice::Bool(true)) };
        self.parameters.insert("triton_final_response".to_owned(), says);
        self
    }
}

/// A request taken apart, not yet checked against a model.
#[derive(Debug)]
pub(crate) struct Message {
    request: ModelInferRequest,
    parameters: Parameters,
}

impl Message {
    /// Takes the request's parameters out.
    ///
    /// # Errors
    /// [`ApiError`] with status 400 for a parameter that is not what it should be.
    pub(crate) fn read(mut request: ModelInferRequest) -> Result<Self, ApiError> {
        let parameters = match std::mem::take(&mut request.parameters) {
            none if none.is_empty() => Parameters::default(),
            some => read_parameters(&some)?,
        };
        parameters.check()?;
        Ok(Self { request, parameters })
    }
}

/// Reads parameters as they are read from JSON; only when that fails, again with the name of the one at fault.
fn read_parameters(given: &HashMap<String, InferParameter>) -> Result<Parameters, ApiError> {
    let all = || MapDeserializer::new(given.iter().map(|(name, parameter)| (name.as_str(), parameter)));
    Parameters::deserialize(all()).map_err(|plain: ValueError| {
        match serde_path_to_error::deserialize::<_, Parameters>(all()) {
            Ok(_) => ApiError::invalid("parameters", plain),
            Err(error) => ApiError::invalid(format_args!("parameters.{}", error.path()), error.inner()),
        }
    })
}

impl<'de> IntoDeserializer<'de, ValueError> for &'de InferParameter {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> serde::Deserializer<'de> for &'de InferParameter {
    type Error = ValueError;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match &self.choice {
            None => visitor.visit_unit(),
            Some(Choice::Bool(value)) => visitor.visit_bool(*value),
            Some(Choice::Int64(value)) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Some(Choice::String(value)) => visitor.visit_borrowed_str(value),
            Some(Choice::Double(value)) => visitor.visit_f64(*value),
            Some(Choice::Uint64(value)) => visitor.visit_u64(*value),
        }
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.choice.is_none() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl Unbound for Message {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn bind(self, interface: Interface<'_>) -> Result<InferRequest, ApiError> {
        let ModelInferRequest { id, inputs, outputs, raw_input_contents, .. } = self.request;
        let raw_given = raw_input_contents.len();
        if raw_given > 0 && raw_given != inputs.len() {
            let message = format!("{raw_given} tensors, where `inputs` describes {}", inputs.len());
            return Err(ApiError::invalid("raw_input_contents", message));
        }
        let mut raw = raw_input_contents.into_iter();
        let mut binding = Binding::new(interface);
        for (position, input) in inputs.into_iter().enumerate() {
            let shape = lengths(&input.shape, position)?;
            let slot = binding.describe(position, &input.name, &input.datatype, &shape)?;
            if input.parameters.contains_key("shared_memory_region") {
                let message = "shared memory is not offered; send the values";
                return Err(slot.wrong("parameters.shared_memory_region", message));
            }
            let values = match (raw.next(), input.contents) {
                (Some(raw), None) => of_size(raw, position, &slot)?,
                (None, Some(contents)) => contents.into_bytes(&slot)?,
                (Some(_), Some(_)) => {
                    return Err(slot.wrong("contents", "given beside raw_input_contents; expected one of the two"));
                }
                (None, None) => return Err(slot.wrong("contents", "missing; expected them, or raw_input_contents")),
            };
            binding.fill(&slot, Pieces::from(values))?;
        }
        for (position, output) in outputs.iter().enumerate() {
            let refused = |field: &str, message: &str| {
                ApiError::invalid(format_args!("outputs[{position}].parameters.{field}"), message)
            };
            binding.want(position, &output.name, true)?;
            if output.parameters.contains_key("classification") {
                return Err(refused("classification", "not offered; ask for the values"));
            }
            if output.parameters.contains_key("shared_memory_region") {
                return Err(refused("shared_memory_region", "shared memory is not offered; take the values"));
            }
        }
        binding.finish(Some(id), true)
    }
}

fn lengths(shape: &[i64], position: usize) -> Result<Vec<u64>, ApiError> {
    let length = |(axis, &length): (usize, &i64)| {
        u64::try_from(length).map_err(|_| {
            ApiError::invalid(
                format_args!("inputs[{position}].shape[{axis}]"),
                format_args!("{length}; expected a length"),
            )
        })
    };
    shape.iter().enumerate().map(length).collect()
}

fn of_size(raw: Bytes, position: usize, slot: &Slot<'_>) -> Result<Bytes, ApiError> {
    let (given, expected) = (raw.len(), slot.bytes());
    if given == expected {
        return Ok(raw);
    }
    let (shape, dtype) = (&slot.shape, slot.spec.dtype);
    Err(ApiError::invalid(
        format_args!("raw_input_contents[{position}]"),
        format_args!("{given} bytes, where shape {shape:?} of {dtype} needs {expected}"),
    ))
}

impl InferTensorContents {
    /// The values of the type that the input has; those of other types must not be there.
    fn into_bytes(self, slot: &Slot<'_>) -> Result<Bytes, ApiError> {
        let dtype = slot.spec.dtype;
        let lists = [
            ("bool_contents", self.bools.len()),
            ("int_contents", self.ints.len()),
            ("int64_contents", self.longs.len()),
            ("uint_contents", self.uints.len()),
            ("uint64_contents", self.ulongs.len()),
            ("fp32_contents", self.floats.len()),
            ("fp64_contents", self.doubles.len()),
            ("bytes_contents", self.strings.len()),
        ];
        let home = match dtype {
            DataType::Bool => "bool_contents",
            DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
            DataType::Int64 => "int64_contents",
            DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
            DataType::Uint64 => "uint64_contents",
            DataType::Fp32 => "fp32_contents",
            DataType::Fp64 => "fp64_contents",
            _ => return Err(slot.wrong("contents", format_args!("none are for {dtype}; send raw_input_contents"))),
        };
        if let Some((other, _)) = lists.iter().find(|(name, count)| *count > 0 && *name != home) {
            let field = format!("contents.{other}");
            return Err(slot.wrong(&field, format_args!("given for an input of {dtype}; expected {home}")));
        }
        let given = lists.iter().map(|(_, count)| count).sum::<usize>();
        let expected = slot.bytes() / dtype.size();
        let field = || format!("contents.{home}");
        if given != expected {
            let shape = &slot.shape;
            return Err(slot.wrong(&field(), format_args!("{given} values, but the shape {shape:?} needs {expected}")));
        }
        let too_wide =
            |value: &dyn std::fmt::Display| slot.wrong(&field(), format_args!("value {value} does not fit {dtype}"));
        macro_rules! bytes {
            ($list:expr) => {{
                let mut bytes = Vec::with_capacity(slot.bytes());
                for value in &$list {
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
                Ok(bytes.into())
            }};
            ($list:expr, $narrow:ty) => {{
                let mut bytes = Vec::with_capacity(slot.bytes());
                for value in &$list {
                    bytes.extend(<$narrow>::try_from(*value).map_err(|_| too_wide(value))?.to_le_bytes());
                }
                Ok(bytes.into())
            }};
        }
        match dtype {
            DataType::Bool => Ok(self.bools.iter().map(|&value| u8::from(value)).collect()),
            DataType::Int8 => bytes!(self.ints, i8),
            DataType::Int16 => bytes!(self.ints, i16),
            DataType::Int32 => bytes!(self.ints),
            DataType::Int64 => bytes!(self.longs),
            DataType::Uint8 => bytes!(self.uints, u8),
            DataType::Uint16 => bytes!(self.uints, u16),
            DataType::Uint32 => bytes!(self.uints),
            DataType::Uint64 => bytes!(self.ulongs),
            DataType::Fp32 => bytes!(self.floats),
            _ => bytes!(self.doubles),
        }
    }
}

/// Writes the response to `request` with the outputs it asked for. The values are not copied.
pub(crate) fn respond(answerer: Answerer<'_>, request: &InferRequest, outputs: &Outputs) -> ModelInferResponse {
    let described = request.outputs.iter().map(|wanted| {
        let spec = &answerer.outputs[wanted.index];
        InferOutputTensor {
            name: spec.name.clone(),
            datatype: spec.dtype.name().to_owned(),
            shape: std::iter::once(&request.rows).chain(&spec.row_shape).map(|&axis| axis as i64).collect(),
        }
    });
    let parameters = answerer.participation.iter().flat_map(|participation| {
        let count = |count: usize| InferParameter { choice: Some(Choice::Int64(count as i64)) };
        [
            ("ensemble_members".to_owned(), count(participation.ensemble_members)),
            ("ensemble_size".to_owned(), count(participation.ensemble_size)),
        ]
    });
    ModelInferResponse {
        model_name: answerer.model.to_owned(),
        model_version: answerer.version.to_owned(),
        parameters: parameters.collect(),
        outputs: described.collect(),
        raw_output_contents: request.outputs.iter().map(|wanted| outputs.tensor(wanted.index)).collect(),
        id: request.id.clone().unwrap_or_default(),
    }
}
