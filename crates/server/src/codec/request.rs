//! Inference requests of the Open Inference Protocol V2, in JSON and with the binary tensor extension.
//!
//! [`Envelope::read`] takes the JSON apart, [`Envelope::bind`] checks it against a model.

use std::fmt;

use bytes::Bytes;
use volley_gpu_runtime::TensorSpec;

use super::binding::{Binding, InferRequest, Interface, Slot, Unbound, WantedOutput};
use super::data::{self, has_text};
use super::head::{self, Input, Known};
use super::{Parameters, Pieces};
use crate::error::ApiError;

/// A body taken apart, not yet checked against a model.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    head: Known<'a>,
    binary: Pieces,
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
        Some(0) if total > 0 => {
            return Err(ApiError::invalid(
                "header Inference-Header-Content-Length",
                "0; a body of raw values alone is not offered; expected a JSON object with `inputs` before them, and its bytes",
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
        // Values in the JSON make it as good as unique.
        let head = if binary.len() > 0 { head::known(json)? } else { Known::New(head::read(json)?) };
        Ok(Self { head, binary })
    }
}

impl Unbound for Envelope<'_> {
    fn parameters(&self) -> &Parameters {
        &self.head.parameters
    }

    fn bind(mut self, interface: Interface<'_>) -> Result<InferRequest, ApiError> {
        let mut binding = Binding::new(interface);
        for (position, input) in self.head.inputs.iter().enumerate() {
            let slot = binding.describe(position, &input.name, &input.datatype, &input.shape)?;
            let values = take_values(input, &mut self.binary, &slot)?;
            binding.fill(&slot, values)?;
        }
        if self.binary.len() > 0 {
            return Err(ApiError::invalid(
                "body",
                format_args!("{} bytes are left over after the last binary tensor", self.binary.len()),
            ));
        }
        let default = self.head.parameters.binary_data_output.unwrap_or(false);
        for (position, output) in self.head.outputs.iter().enumerate() {
            let wrong = |field: &str, message: &str| {
                Err(ApiError::invalid(format_args!("outputs[{position}].parameters.{field}"), message))
            };
            binding.want(position, &output.name, output.parameters.binary_data.unwrap_or(default))?;
            if output.parameters.classification.is_some() {
                return wrong("classification", "not offered; ask for the values");
            }
            if output.parameters.shared_memory_region.is_some() {
                return wrong("shared_memory_region", "shared memory is not offered; take the values");
            }
        }
        let request = binding.finish(self.head.id.clone(), default)?;
        let textless = |wanted: &&WantedOutput| !wanted.binary && !has_text(interface.outputs[wanted.index].dtype);
        if let Some(wanted) = request.outputs.iter().find(textless) {
            let TensorSpec { name, dtype, .. } = &interface.outputs[wanted.index];
            let message = format!("`{name}` is {dtype}, which has no form in JSON; ask for it with binary_data");
            return Err(ApiError::invalid("outputs", message));
        }
        Ok(request)
    }
}

fn take_values(input: &Input<'_>, binary: &mut Pieces, slot: &Slot<'_>) -> Result<Pieces, ApiError> {
    if input.parameters.shared_memory_region.is_some() {
        return Err(slot.wrong("parameters.shared_memory_region", "shared memory is not offered; send the values"));
    }
    let (dtype, expected) = (slot.spec.dtype, slot.bytes());
    match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => {
            Err(slot.wrong("data", "given beside parameters.binary_data_size; expected one of the two"))
        }
        (None, None) => {
            Err(slot.wrong("data", "missing; expected values, or parameters.binary_data_size and raw bytes"))
        }
        (None, Some(raw)) => {
            let values = data::parse(raw, dtype, &slot.shape).map_err(|error| slot.wrong("data", error))?;
            Ok(Bytes::from(values).into())
        }
        (Some(size), None) => {
            let wrong = |message: fmt::Arguments<'_>| Err(slot.wrong("parameters.binary_data_size", message));
            if size != expected as u64 {
                let shape = &slot.shape;
                return wrong(format_args!("{size} bytes, where shape {shape:?} of {dtype} needs {expected}"));
            }
            if expected > binary.len() {
                return wrong(format_args!("{size} bytes, but the body has only {} left", binary.len()));
            }
            Ok(binary.split_to(expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use volley_gpu_runtime::DataType;

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
    fn a_byte_that_is_no_truth_value_is_refused() {
        let specs = [TensorSpec { name: "x".into(), dtype: DataType::Bool, row_shape: vec![3] }];
        let interface = Interface { inputs: &specs, outputs: &specs, max_rows: 8, allow_non_finite: false };
        let json = br#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"BOOL","parameters":{"binary_data_size":3}}]}"#;
        let bound = |raw: &[u8]| Envelope::read(json, Bytes::copy_from_slice(raw).into())?.bind(interface);
        assert!(bound(&[1, 0, 1]).is_ok());
        let error = bound(&[1, 0, 2]).expect_err("it is none");
        assert!(error.message.starts_with("inputs[0].data: holds a byte that is no BOOL"), "{}", error.message);
    }

    #[test]
    fn every_datatype_is_read_from_raw_bytes_and_all_but_half_precision_from_json() {
        let cases: [(DataType, &str, &[u8]); 13] = [
            (DataType::Bool, "true", &[1]),
            (DataType::Uint8, "255", &[255]),
            (DataType::Uint16, "258", &[2, 1]),
            (DataType::Uint32, "258", &[2, 1, 0, 0]),
            (DataType::Uint64, "258", &[2, 1, 0, 0, 0, 0, 0, 0]),
            (DataType::Int8, "-1", &[255]),
            (DataType::Int16, "-2", &[254, 255]),
            (DataType::Int32, "-2", &[254, 255, 255, 255]),
            (DataType::Int64, "-2", &[254, 255, 255, 255, 255, 255, 255, 255]),
            (DataType::Fp16, "1", &[0, 0x3c]),
            (DataType::Fp32, "1", &[0, 0, 0x80, 0x3f]),
            (DataType::Fp64, "1", &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            (DataType::Bf16, "1", &[0x80, 0x3f]),
        ];
        for (dtype, text, bytes) in cases {
            let specs = [TensorSpec { name: "x".into(), dtype, row_shape: vec![] }];
            let interface = Interface { inputs: &specs, outputs: &specs, max_rows: 8, allow_non_finite: false };
            let read = |data: &str, raw: &[u8]| {
                let json = format!(
                    r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"{dtype}",{data}}}],"parameters":{{"binary_data_output":true}}}}"#
                );
                Envelope::read(json.as_bytes(), Bytes::copy_from_slice(raw).into())?.bind(interface)
            };
            let sized = format!(r#""parameters":{{"binary_data_size":{}}}"#, bytes.len());
            let raw = read(&sized, bytes).expect("raw bytes");
            assert_eq!(raw.inputs[0].clone().into_contiguous(), bytes, "{dtype}");
            let listed = read(&format!(r#""data":[{text}]"#), &[]);
            if has_text(dtype) {
                assert_eq!(listed.expect("a list").inputs[0].clone().into_contiguous(), bytes, "{dtype}");
            } else {
                let message = listed.expect_err("it has no form in JSON").message;
                assert!(message.starts_with("inputs[0].data: ") && message.contains("no form in JSON"), "{message}");
            }
            // Ones in all places are a NaN, where there are NaNs, and no truth value.
            let ones = read(&sized, &vec![0xff; bytes.len()]);
            let picky = [DataType::Bool, DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64];
            assert_eq!(ones.is_err(), picky.contains(&dtype), "{dtype}");
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
                input(good).replace("}]}", r#"}],"parameters":{"sequence_id":-1}}"#),
                "parameters.sequence_id: models here keep no state",
            ),
            (
                input(good).replace("}]}", r#"}],"parameters":{"sequence_id":[{"a":[]}]}}"#),
                "parameters.sequence_id: models here keep no state",
            ),
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
