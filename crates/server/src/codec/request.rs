//! Inference requests of the Open Inference Protocol V2, in JSON and with the binary tensor extension.
//!
//! Reading goes in two steps, because what the tensors must look like depends on the variant that a parameter may name:
//! [`Envelope::read`] takes the JSON apart, [`Envelope::bind`] checks it against a model.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use volley_gpu_runtime::{DataType, TensorSpec};

use super::object::Object;
use super::{Parameters, Pieces, data};
use crate::error::ApiError;

/// A body taken apart, not yet checked against a model.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    json: Json<'a>,
    binary: Pieces,
}

/// A request that fits its model.
#[derive(Debug)]
pub(crate) struct InferRequest {
    /// The caller's own id, echoed.
    pub id: Option<String>,
    /// Values of each model input, in the model's order.
    pub inputs: Arc<[Pieces]>,
    /// Samples in the request.
    pub rows: usize,
    /// Which outputs are wanted and in which form, in the order of the response.
    pub outputs: Vec<WantedOutput>,
}

/// One output of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WantedOutput {
    /// The model's output.
    pub index: usize,
    /// Raw bytes after the JSON, rather than numbers within it.
    pub binary: bool,
}

/// What the request must be checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface<'a> {
    /// The model's inputs.
    pub inputs: &'a [TensorSpec],
    /// The model's outputs.
    pub outputs: &'a [TensorSpec],
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Whether NaN and infinities may be among the inputs.
    pub allow_non_finite: bool,
}

#[derive(Debug, Deserialize)]
struct Json<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, deserialize_with = "null_as_absent")]
    parameters: Object<Parameters>,
    #[serde(borrow)]
    inputs: Vec<Object<Input<'a>>>,
    #[serde(borrow, default, deserialize_with = "null_as_absent")]
    outputs: Vec<Object<Output<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_absent")]
    parameters: Object<TensorParameters>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_absent")]
    parameters: Object<TensorParameters>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct TensorParameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    classification: Option<u64>,
    shared_memory_region: Option<String>,
}

/// Reads `null` as if the member were absent: clients that write out a whole structure of theirs send it.
fn null_as_absent<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Cuts a body in two: the JSON, in one piece, and the raw tensors after it. `json_length` is the value of
/// `Inference-Header-Content-Length`; without that header the whole body is JSON.
///
/// # Errors
/// [`ApiError`] with status 400 when the length does not fit the body.
pub(crate) fn split(mut body: Pieces, json_length: Option<usize>) -> Result<(Bytes, Pieces), ApiError> {
    let total = body.len();
    let json = match json_length {
        Some(length) if length > total => {
            return Err(ApiError::invalid(
                "header Inference-Header-Content-Length",
                format_args!("{length} is more than the body's {total} bytes"),
            ));
        }
        Some(length) => body.split_to(length).into_contiguous(),
        None => std::mem::take(&mut body).into_contiguous(),
    };
    Ok((json, body))
}

impl<'a> Envelope<'a> {
    /// Reads the JSON part of a request; `binary` are the bytes after it.
    ///
    /// # Errors
    /// [`ApiError`] with status 400 when the JSON is not what the protocol says.
    pub(crate) fn read(json: &'a [u8], binary: Pieces) -> Result<Self, ApiError> {
        if json.is_empty() {
            return Err(ApiError::invalid("body", "empty; expected a JSON object with `inputs`"));
        }
        let Object(json) = parse::<Object<Json<'a>>>(json)?;
        json.parameters.check()?;
        Ok(Self { json, binary })
    }

    /// The request's parameters.
    pub(crate) fn parameters(&self) -> &Parameters {
        &self.json.parameters
    }

    /// Checks the request against the model's interface and takes the tensors out.
    ///
    /// # Errors
    /// [`ApiError`] with status 400, naming the field.
    pub(crate) fn bind(mut self, interface: Interface<'_>) -> Result<InferRequest, ApiError> {
        let mut rows = None;
        let mut inputs: Vec<Option<Pieces>> = interface.inputs.iter().map(|_| None).collect();
        for (position, input) in self.json.inputs.iter().enumerate() {
            let at = |field: &str| format!("inputs[{position}].{field}");
            let Some(index) = interface.inputs.iter().position(|spec| spec.name == input.name) else {
                return Err(ApiError::invalid(
                    at("name"),
                    format_args!("the model has no input `{}`; it has {}", input.name, names(interface.inputs)),
                ));
            };
            if inputs[index].is_some() {
                return Err(ApiError::invalid(at("name"), format_args!("input `{}` is given twice", input.name)));
            }
            let spec = &interface.inputs[index];
            let shape =
                checked_shape(input, spec, interface.max_rows).map_err(|(field, e)| ApiError::invalid(at(field), e))?;
            if *rows.get_or_insert(shape[0]) != shape[0] {
                return Err(ApiError::invalid(
                    at("shape"),
                    format_args!("{} rows, where the input before has {}", shape[0], rows.unwrap_or_default()),
                ));
            }
            let values = take_values(input, &mut self.binary, spec, &shape)
                .map_err(|(field, e)| ApiError::invalid(at(field), e))?;
            if !interface.allow_non_finite && spec.dtype == DataType::Fp32 && !all_finite(&values) {
                return Err(ApiError::invalid(at("data"), "holds a NaN or an infinity; expected finite values"));
            }
            inputs[index] = Some(values);
        }
        if self.binary.len() > 0 {
            return Err(ApiError::invalid(
                "body",
                format_args!("{} bytes are left over after the last binary tensor", self.binary.len()),
            ));
        }
        let missing = |spec: &TensorSpec| ApiError::invalid("inputs", format_args!("input `{}` is missing", spec.name));
        let inputs = inputs
            .into_iter()
            .zip(interface.inputs)
            .map(|(values, spec)| values.ok_or_else(|| missing(spec)))
            .collect::<Result<_, _>>()?;
        let outputs = wanted_outputs(&self.json, interface.outputs)?;
        Ok(InferRequest { id: self.json.id, inputs, rows: rows.unwrap_or(0), outputs })
    }
}

fn take_values(
    input: &Input<'_>,
    binary: &mut Pieces,
    spec: &TensorSpec,
    shape: &[usize],
) -> Result<Pieces, (&'static str, String)> {
    if input.parameters.shared_memory_region.is_some() {
        return Err(("parameters.shared_memory_region", "shared memory is not offered; send the values".into()));
    }
    let expected = shape[0] * spec.row_bytes();
    match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => Err(("data", "given beside parameters.binary_data_size; expected one of the two".into())),
        (None, None) => Err(("data", "missing; expected values, or parameters.binary_data_size and raw bytes".into())),
        (None, Some(raw)) => {
            data::parse(raw, spec.dtype, shape).map(|bytes| Bytes::from(bytes).into()).map_err(|e| ("data", e))
        }
        (Some(size), None) => {
            let field = "parameters.binary_data_size";
            if size != expected as u64 {
                return Err((field, format!("{size} bytes, where shape {shape:?} of {} needs {expected}", spec.dtype)));
            }
            if expected > binary.len() {
                return Err((field, format!("{size} bytes, but the body has only {} left", binary.len())));
            }
            Ok(binary.split_to(expected))
        }
    }
}

fn wanted_outputs(json: &Json<'_>, specs: &[TensorSpec]) -> Result<Vec<WantedOutput>, ApiError> {
    let wanted = &json.outputs;
    let default = json.parameters.binary_data_output.unwrap_or(false);
    if wanted.is_empty() {
        return Ok((0..specs.len()).map(|index| WantedOutput { index, binary: default }).collect());
    }
    let mut chosen: Vec<WantedOutput> = Vec::with_capacity(wanted.len());
    for (position, output) in wanted.iter().enumerate() {
        let at = |field: &str| format!("outputs[{position}].{field}");
        let Some(index) = specs.iter().position(|spec| spec.name == output.name) else {
            return Err(ApiError::invalid(
                at("name"),
                format_args!("the model has no output `{}`; it has {}", output.name, names(specs)),
            ));
        };
        if chosen.iter().any(|other| other.index == index) {
            return Err(ApiError::invalid(at("name"), format_args!("output `{}` is asked for twice", output.name)));
        }
        if output.parameters.classification.is_some() {
            return Err(ApiError::invalid(at("parameters.classification"), "not offered; ask for the values"));
        }
        if output.parameters.shared_memory_region.is_some() {
            return Err(ApiError::invalid(at("parameters.shared_memory_region"), "shared memory is not offered"));
        }
        chosen.push(WantedOutput { index, binary: output.parameters.binary_data.unwrap_or(default) });
    }
    Ok(chosen)
}

fn checked_shape(input: &Input<'_>, spec: &TensorSpec, max_rows: usize) -> Result<Vec<usize>, (&'static str, String)> {
    if DataType::from_name(&input.datatype) != Some(spec.dtype) {
        return Err(("datatype", format!("`{}`; expected {}", input.datatype, spec.dtype)));
    }
    let expected = || {
        let row: String = spec.row_shape.iter().map(|axis| format!(",{axis}")).collect();
        format!("[N{row}] with N from 1 to {max_rows}")
    };
    let [rows, row @ ..] = &input.shape[..] else {
        return Err(("shape", format!("empty; expected {}", expected())));
    };
    let row_fits = row.len() == spec.row_shape.len() && row.iter().zip(&spec.row_shape).all(|(&a, &b)| a == b as u64);
    if !row_fits || *rows == 0 || *rows > max_rows as u64 {
        return Err(("shape", format!("{:?}; expected {}", input.shape, expected())));
    }
    Ok(std::iter::once(*rows as usize).chain(spec.row_shape.iter().copied()).collect())
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ")
}

/// Whether every little-endian binary32 is neither NaN nor infinite. Values may straddle pieces.
fn all_finite(values: &Pieces) -> bool {
    let mut held = [0_u8; 4];
    let mut have = 0;
    for piece in values.iter() {
        let mut piece = piece;
        if have > 0 {
            let take = (4 - have).min(piece.len());
            held[have..have + take].copy_from_slice(&piece[..take]);
            have += take;
            piece = &piece[take..];
            if have < 4 {
                continue;
            }
            if !f32::from_le_bytes(held).is_finite() {
                return false;
            }
        }
        let whole = piece.chunks_exact(4);
        let tail = whole.remainder();
        held[..tail.len()].copy_from_slice(tail);
        have = tail.len();
        // A fold without an early exit, so that the compiler can use wide registers.
        let off = whole.fold(0_u32, |off, b| {
            let exponent = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000;
            off | u32::from(exponent == 0x7f80_0000)
        });
        if off != 0 {
            return false;
        }
    }
    true
}

/// Parses JSON; only when that fails, again with the path of the field at fault.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map_err(|plain| {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) else {
            return ApiError::invalid("body", format_args!("not the JSON the protocol asks for: {plain}"));
        };
        // A question mark stands for what the parser was at when it could not tell the field.
        let path = error.path().to_string();
        match path.trim_end_matches('?').trim_end_matches('.') {
            "" => ApiError::invalid("body", format_args!("not the JSON the protocol asks for: {plain}")),
            field => ApiError::invalid(field, error.inner()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> (Vec<TensorSpec>, Vec<TensorSpec>) {
        let spec = |name: &str, row_shape: &[usize]| TensorSpec {
            name: name.into(),
            dtype: DataType::Fp32,
            row_shape: row_shape.to_vec(),
        };
        (vec![spec("input", &[2, 3])], vec![spec("features", &[4]), spec("prediction", &[3])])
    }

    fn bind(body: Pieces, json_length: Option<usize>) -> Result<InferRequest, ApiError> {
        let (inputs, outputs) = specs();
        let interface = Interface { inputs: &inputs, outputs: &outputs, max_rows: 8, allow_non_finite: false };
        let (json, binary) = split(body, json_length)?;
        Envelope::read(&json, binary)?.bind(interface)
    }

    fn json(text: &str) -> Result<InferRequest, ApiError> {
        bind(Bytes::copy_from_slice(text.as_bytes()).into(), None)
    }

    fn binary(json: &str, values: &[f32]) -> (Vec<u8>, usize) {
        let mut body = json.as_bytes().to_vec();
        body.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        (body, json.len())
    }

    const BINARY: &str = r#"{"inputs":[{"name":"input","shape":[1,2,3],"datatype":"FP32","parameters":{"binary_data_size":24}}],"parameters":{"binary_data_output":true}}"#;

    #[test]
    fn json_and_binary_bodies_carry_the_same_values() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.5];
        let (body, length) = binary(BINARY, &values);
        let from_binary = bind(Bytes::from(body).into(), Some(length)).expect("a good request");
        let from_json = json(
            r#"{"id":"7","inputs":[{"name":"input","shape":[1,2,3],"datatype":"FP32","data":[1,2,3,4,5,6.5]}],
                "outputs":[{"name":"prediction"},{"name":"features","parameters":{"binary_data":true}}]}"#,
        )
        .expect("a good request");
        assert_eq!(from_binary.inputs[0].clone().into_contiguous(), from_json.inputs[0].clone().into_contiguous());
        assert_eq!((from_binary.rows, from_json.rows), (1, 1));
        assert!(from_binary.outputs.iter().all(|output| output.binary));
        assert_eq!(from_json.id.as_deref(), Some("7"));
        let wanted: Vec<_> = from_json.outputs.iter().map(|output| (output.index, output.binary)).collect();
        assert_eq!(wanted, [(1, false), (0, true)]);
    }

    #[test]
    fn optional_members_that_are_null_count_as_absent() {
        let request = json(
            r#"{"id":null,"parameters":null,"outputs":null,"inputs":[
                {"name":"input","shape":[1,2,3],"datatype":"FP32","parameters":null,"data":[1,2,3,4,5,6]}]}"#,
        )
        .expect("a good request");
        assert_eq!((request.id, request.rows, request.outputs.len()), (None, 1, 2));
    }

    #[test]
    fn a_body_cut_into_pieces_anywhere_reads_the_same() {
        let (body, length) = binary(BINARY, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let body = Bytes::from(body);
        for cut in 1..body.len() {
            let pieces = Pieces::cut(body.slice(..cut), body.slice(cut..));
            let request = bind(pieces, Some(length)).expect("a good request");
            assert_eq!(request.inputs[0].clone().into_contiguous(), body[length..], "cut at {cut}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_found_wherever_the_body_was_cut() {
        let (body, length) = binary(BINARY, &[1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0]);
        let body = Bytes::from(body);
        for cut in 1..body.len() {
            let pieces = Pieces::cut(body.slice(..cut), body.slice(cut..));
            let error = bind(pieces, Some(length)).expect_err("NaN is refused");
            assert!(error.message.starts_with("inputs[0].data: holds a NaN"), "cut at {cut}: {}", error.message);
        }
    }

    #[test]
    fn errors_name_the_field_that_is_wrong() {
        let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"input",{rest}}}]}}"#);
        let good = r#""shape":[1,2,3],"datatype":"FP32","data":[1,2,3,4,5,6]"#;
        let cases = [
            (String::new(), "body: empty"),
            ("{".into(), "body: not the JSON"),
            ("[]".into(), "body: not the JSON"),
            ("{}".into(), "missing field `inputs`"),
            (r#"{"inputs":[]}"#.into(), "inputs: input `input` is missing"),
            (
                r#"{"inputs":[{"name":"other",SHAPE}]}"#.replace("SHAPE", good),
                "inputs[0].name: the model has no input `other`",
            ),
            (input(r#""shape":[1,2,-3],"datatype":"FP32","data":[]"#), "inputs[0].shape[2]: "),
            (input(r#""shape":[9223372036854775808,2,3],"datatype":"FP32","data":[]"#), "inputs[0].shape: "),
            (input(r#""shape":[18446744073709551616,2,3],"datatype":"FP32","data":[]"#), "inputs[0].shape[0]: "),
            (input(r#""shape":[0,2,3],"datatype":"FP32","data":[]"#), "inputs[0].shape: [0, 2, 3]; expected [N,2,3]"),
            (input(r#""shape":[2,3],"datatype":"FP32","data":[]"#), "inputs[0].shape: "),
            (input(r#""shape":[1,2,3],"datatype":"INT8","data":[]"#), "inputs[0].datatype: `INT8`; expected FP32"),
            (input(r#""shape":[1,2,3],"datatype":"FP32""#), "inputs[0].data: missing"),
            (input(r#""shape":[1,2,3],"datatype":"FP32","data":"x""#), "inputs[0].data: invalid type"),
            (input(&format!(r#"{good},"parameters":{{"binary_data_size":24}}"#)), "inputs[0].data: given beside"),
            (
                input(&format!(r#"{good},"parameters":{{"binary_data_size":-1}}"#)),
                "inputs[0].parameters.binary_data_size: ",
            ),
            (
                input(&format!(r#"{good},"parameters":{{"shared_memory_region":"r"}}"#)),
                "inputs[0].parameters.shared_memory_region",
            ),
            (input(good).replace("}]}", r#"}],"parameters":{"priority":5}}"#), "parameters.priority: invalid value"),
            (
                input(good).replace("}]}", r#"}],"parameters":{"priority":"urgent"}}"#),
                "parameters.priority: invalid value",
            ),
            (input(good).replace("}]}", r#"}],"parameters":{"timeout":-1}}"#), "parameters.timeout: invalid value"),
            (
                input(good).replace("}]}", r#"}],"parameters":{"use_ensemble":false,"return_uncertainty":true}}"#),
                "parameters.return_uncertainty: true, where",
            ),
            (input(good).replace("}]}", r#"}],"parameters":{"sequence_id":3}}"#), "parameters.sequence_id: "),
            (
                input(good).replace("}]}", r#"}],"outputs":[{"name":"nothing"}]}"#),
                "outputs[0].name: the model has no output",
            ),
            (
                input(good).replace("}]}", r#"}],"outputs":[{"name":"features"},{"name":"features"}]}"#),
                "outputs[1].name: ",
            ),
        ];
        for (body, expected) in cases {
            let error = json(&body).expect_err(&body);
            assert!(error.message.contains(expected), "{body}\n  gave: {}\n  not:  {expected}", error.message);
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn binary_sizes_that_do_not_add_up_are_refused() {
        let (body, length) = binary(BINARY, &[1.0; 6]);
        let with = |body: &[u8], length| bind(Bytes::copy_from_slice(body).into(), Some(length)).map(|_| ());
        let message = |result: Result<(), ApiError>| result.expect_err("it does not add up").message;
        assert!(message(with(&body, body.len() + 1)).starts_with("header Inference-Header-Content-Length"));
        assert!(message(with(&body, usize::MAX)).starts_with("header Inference-Header-Content-Length"));
        assert!(message(with(&body[..body.len() - 1], length)).contains("the body has only 23 left"));
        assert!(message(with(&[&body[..], &[0]].concat(), length)).starts_with("body: 1 bytes are left over"));
        let other_size = BINARY.replace("24", "20");
        let (body, length) = binary(&other_size, &[1.0; 5]);
        assert!(message(with(&body, length)).starts_with("inputs[0].parameters.binary_data_size: 20 bytes"));
        assert_eq!(with(binary(BINARY, &[1.0; 6]).0.as_slice(), BINARY.len()), Ok(()));
    }
}
