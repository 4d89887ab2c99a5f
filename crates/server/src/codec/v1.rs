//! Predictions of the V1 protocol, as TensorFlow Serving and KServe have it: JSON alone, tensors by row (`instances`) or
//! whole (`inputs`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use volley_gpu_runtime::{DataType, Outputs, TensorSpec};

use super::binding::{Binding, InferRequest, Interface, Unbound};
use super::data;
use super::head::parse;
use super::object::Object;
use super::response::Numbers;
use super::{Answerer, Parameters};
use crate::error::ApiError;

/// A request taken apart, not yet checked against a model.
#[derive(Debug)]
pub(crate) struct Prediction<'a> {
    tensors: Tensors<'a>,
    parameters: Parameters,
}

#[derive(Debug)]
enum Tensors<'a> {
    ByRow(&'a RawValue),
    Whole(&'a RawValue),
}

#[derive(Debug, Deserialize)]
struct Json<'a> {
    #[serde(borrow, default)]
    instances: Option<&'a RawValue>,
    #[serde(borrow, default)]
    inputs: Option<&'a RawValue>,
    #[serde(default)]
    parameters: Option<Object<Parameters>>,
}

/// Tensors, or rows of them, by input.
type Named<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// What an object says of the inputs, and the first name in it that is none of theirs, or there twice.
struct Entries<'a, 'i> {
    inputs: &'i [TensorSpec],
    named: Named<'a>,
    wrong: Option<Cow<'a, str>>,
}

impl<'a> Prediction<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ApiError`] with status 400 when it is not what the protocol says.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        let Object(json) = parse::<Object<Json<'a>>>(body)?;
        let tensors = match (json.instances, json.inputs) {
            (Some(instances), None) => Tensors::ByRow(instances),
            (None, Some(inputs)) => Tensors::Whole(inputs),
            (Some(_), Some(_)) => return Err(ApiError::invalid("inputs", "given beside `instances`; expected one")),
            (None, None) => return Err(ApiError::invalid("body", "neither `instances` nor `inputs`; expected one")),
        };
        let parameters = json.parameters.unwrap_or_default().0;
        parameters.check()?;
        Ok(Self { tensors, parameters })
    }

    /// Whether the answer is to be by row.
    pub(crate) fn by_row(&self) -> bool {
        matches!(self.tensors, Tensors::ByRow(_))
    }
}

impl Unbound for Prediction<'_> {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn bind(self, interface: Interface<'_>) -> Result<InferRequest, ApiError> {
        let (rows, values) = match self.tensors {
            Tensors::ByRow(instances) => by_row(instances, interface)?,
            Tensors::Whole(inputs) => whole(inputs, interface)?,
        };
        let mut binding = Binding::new(interface);
        for (position, (spec, values)) in interface.inputs.iter().zip(values).enumerate() {
            let shape: Vec<u64> = shape(rows, spec).into_iter().map(|axis| axis as u64).collect();
            let slot = binding.describe(position, &spec.name, spec.dtype.name(), &shape)?;
            binding.fill(&slot, bytes::Bytes::from(values).into())?;
        }
        let request = binding.finish(None, false)?;
        match interface.outputs.iter().find(|spec| !data::has_text(spec.dtype)) {
            Some(TensorSpec { name, dtype, .. }) => {
                let message = format!("the model's output `{name}` is {dtype}, which has no form in JSON; use V2");
                Err(ApiError::invalid("body", message))
            }
            None => Ok(request),
        }
    }
}

/// The rows, and the values of each input, of `instances`: a list of rows, or, as it must be where the model has several
/// inputs, of objects with a row for each of them.
fn by_row(instances: &RawValue, interface: Interface<'_>) -> Result<(usize, Vec<Vec<u8>>), ApiError> {
    let list: Vec<&RawValue> = list("instances", instances)?;
    let rows = checked("instances", list.len(), interface)?;
    if let ([only], false) = (interface.inputs, list[0].get().starts_with('{')) {
        let values = values("instances", instances, only, &shape(rows, only))?;
        return Ok((rows, vec![values]));
    }
    let mut all: Vec<Vec<u8>> =
        interface.inputs.iter().map(|spec| Vec::with_capacity(rows * spec.row_bytes())).collect();
    for (row, instance) in list.into_iter().enumerate() {
        let at = format!("instances[{row}]");
        let named = named(&at, instance, interface)?;
        for (spec, all) in interface.inputs.iter().zip(&mut all) {
            let raw = given(&at, &named, spec)?;
            // A row without axes is a number; only lists are read.
            let listed = spec.row_shape.is_empty().then(|| RawValue::from_string(format!("[{}]", raw.get())));
            let raw = listed.as_ref().and_then(|listed| listed.as_deref().ok()).unwrap_or(raw);
            all.extend(values(format_args!("{at}.{}", spec.name), raw, spec, &spec.row_shape)?);
        }
    }
    Ok((rows, all))
}

/// The rows, and the values of each input, of `inputs`: an object with a tensor for each input, or the only input's.
fn whole(inputs: &RawValue, interface: Interface<'_>) -> Result<(usize, Vec<Vec<u8>>), ApiError> {
    let named = match interface.inputs {
        [only] if !inputs.get().starts_with('{') => Named::from([(Cow::from(&only.name), inputs)]),
        _ => named("inputs", inputs, interface)?,
    };
    let mut rows = None;
    let mut all = Vec::with_capacity(interface.inputs.len());
    for spec in interface.inputs {
        let raw = given("inputs", &named, spec)?;
        let at = format!("inputs.{}", spec.name);
        let count = checked(&at, list(&at, raw)?.len(), interface)?;
        let expected = *rows.get_or_insert(count);
        if count != expected {
            return Err(ApiError::invalid(at, format_args!("{count} rows, where the input before has {expected}")));
        }
        all.push(values(at, raw, spec, &shape(count, spec))?);
    }
    Ok((rows.unwrap_or(0), all))
}

fn list<'a>(at: &str, raw: &'a RawValue) -> Result<Vec<&'a RawValue>, ApiError> {
    serde_json::from_str(raw.get()).map_err(|_| ApiError::invalid(at, "expected a list, of a row each"))
}

fn named<'a>(at: &str, raw: &'a RawValue, interface: Interface<'_>) -> Result<Named<'a>, ApiError> {
    let expected = || {
        let names: Vec<_> = interface.inputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        format!("expected an object of {}", names.join(", "))
    };
    let entries = Entries { inputs: interface.inputs, named: Named::new(), wrong: None };
    let read = serde_json::Deserializer::from_str(raw.get()).deserialize_map(entries);
    let Entries { named, wrong, .. } = read.map_err(|_| ApiError::invalid(at, expected()))?;
    match wrong {
        None => Ok(named),
        Some(name) if named.contains_key(&name) => {
            Err(ApiError::invalid(format_args!("{at}.{name}"), "given twice; expected once"))
        }
        Some(name) => Err(ApiError::invalid(format_args!("{at}.{name}"), format_args!("no input; {}", expected()))),
    }
}

impl<'a> Visitor<'a> for Entries<'a, '_> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key::<Cow<'a, str>>()? {
            let is_good = self.inputs.iter().any(|spec| spec.name == name) && !self.named.contains_key(&name);
            if is_good && self.wrong.is_none() {
                self.named.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                self.wrong.get_or_insert(name);
            }
        }
        Ok(self)
    }
}

fn given<'a>(at: &str, named: &Named<'a>, spec: &TensorSpec) -> Result<&'a RawValue, ApiError> {
    let missing = || ApiError::invalid(at, format_args!("input `{}` is missing", spec.name));
    named.get(spec.name.as_str()).copied().ok_or_else(missing)
}

fn checked(at: &str, rows: usize, interface: Interface<'_>) -> Result<usize, ApiError> {
    let most = interface.max_rows;
    if (1..=most).contains(&rows) {
        return Ok(rows);
    }
    Err(ApiError::invalid(at, format_args!("{rows} rows; expected 1 to {most}")))
}

fn values(at: impl fmt::Display, raw: &RawValue, spec: &TensorSpec, shape: &[usize]) -> Result<Vec<u8>, ApiError> {
    data::parse(raw, spec.dtype, shape).map_err(|error| ApiError::invalid(at, error))
}

fn shape(rows: usize, spec: &TensorSpec) -> Vec<usize> {
    std::iter::once(rows).chain(spec.row_shape.iter().copied()).collect()
}

/// Writes the answer. By row: `predictions`, a list with a row of the only output each, or an object with a row of each
/// output. Whole: `outputs`, the only output, or an object of all.
///
/// # Panics
/// Never: numbers and names always have a JSON form.
pub(crate) fn predict(answerer: Answerer<'_>, request: &InferRequest, outputs: &Outputs, by_row: bool) -> bytes::Bytes {
    let tensors: Vec<(&TensorSpec, bytes::Bytes)> =
        request.outputs.iter().map(|wanted| (&answerer.outputs[wanted.index], outputs.tensor(wanted.index))).collect();
    let tensor = |(spec, bytes): &(&'_ TensorSpec, bytes::Bytes)| Nested {
        dtype: spec.dtype,
        shape: shape(request.rows, spec),
        bytes: bytes.clone(),
    };
    let row = |row: usize, (spec, bytes): &(&'_ TensorSpec, bytes::Bytes)| Nested {
        dtype: spec.dtype,
        shape: spec.row_shape.clone(),
        bytes: bytes.slice(row * spec.row_bytes()..(row + 1) * spec.row_bytes()),
    };
    let body = match (&tensors[..], by_row) {
        ([only], true) => serde_json::to_vec(&Predictions {
            predictions: (0..request.rows).map(|r| row(r, only)).collect::<Vec<_>>(),
        }),
        (several, true) => {
            let named = |r| several.iter().map(|tensor| (&tensor.0.name, row(r, tensor))).collect::<BTreeMap<_, _>>();
            serde_json::to_vec(&Predictions { predictions: (0..request.rows).map(named).collect::<Vec<_>>() })
        }
        ([only], false) => serde_json::to_vec(&Whole { outputs: tensor(only) }),
        (several, false) => {
            let named: BTreeMap<_, _> = several.iter().map(|of| (&of.0.name, tensor(of))).collect();
            serde_json::to_vec(&Whole { outputs: named })
        }
    };
    body.expect("numbers and names always have a JSON form").into()
}

#[derive(Serialize)]
struct Predictions<T> {
    predictions: T,
}

#[derive(Serialize)]
struct Whole<T> {
    outputs: T,
}

/// Values as lists nested as deep as their shape.
struct Nested {
    dtype: DataType,
    shape: Vec<usize>,
    bytes: bytes::Bytes,
}

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = Numbers(self.dtype, &self.bytes);
        match &self.shape[..] {
            [] => {
                let list = serde_json::value::to_raw_value(&values).map_err(serde::ser::Error::custom)?;
                let number: &RawValue =
                    serde_json::from_str(list.get().trim_matches(['[', ']'])).map_err(serde::ser::Error::custom)?;
                number.serialize(serializer)
            }
            [_] => values.serialize(serializer),
            [count, rest @ ..] => {
                let each = self.bytes.len() / count.max(&1);
                serializer.collect_seq((0..*count).map(|index| Self {
                    dtype: self.dtype,
                    shape: rest.to_vec(),
                    bytes: self.bytes.slice(index * each..(index + 1) * each),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(name: &str, dtype: DataType, row_shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, row_shape: row_shape.to_vec() }
    }

    fn bind(body: &Value, inputs: &[TensorSpec]) -> Result<InferRequest, ApiError> {
        let outputs = [spec("out", DataType::Fp32, &[1])];
        let interface = Interface { inputs, outputs: &outputs, max_rows: 4, allow_non_finite: false };
        Prediction::read(body.to_string().as_bytes())?.bind(interface)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn rows_and_whole_tensors_mean_the_same() {
        let one = [spec("x", DataType::Fp32, &[2])];
        let expected = floats(&[1.0, 2.0, 3.0, 4.0]);
        for body in [
            json!({ "instances": [[1, 2], [3, 4]] }),
            json!({ "instances": [{ "x": [1, 2] }, { "x": [3, 4] }] }),
            json!({ "inputs": [[1, 2], [3, 4]] }),
            json!({ "inputs": { "x": [[1, 2], [3, 4]] }, "signature_name": "serving_default" }),
        ] {
            let request = bind(&body, &one).unwrap_or_else(|error| panic!("{body}: {}", error.message));
            assert_eq!(
                (request.rows, request.inputs[0].clone().into_contiguous()),
                (2, expected.clone().into()),
                "{body}"
            );
        }
        let two = [spec("x", DataType::Fp32, &[2]), spec("n", DataType::Int8, &[])];
        for body in [
            json!({ "instances": [{ "n": 7, "x": [1, 2] }, { "x": [3, 4], "n": -7 }] }),
            json!({ "inputs": { "n": [7, -7], "x": [[1, 2], [3, 4]] } }),
        ] {
            let request = bind(&body, &two).unwrap_or_else(|error| panic!("{body}: {}", error.message));
            assert_eq!(request.inputs[1].clone().into_contiguous()[..], [7, 249], "{body}");
        }
    }

    #[test]
    fn errors_name_the_row_and_the_input() {
        let two = [spec("x", DataType::Fp32, &[2]), spec("n", DataType::Int8, &[])];
        let cases = [
            (json!({}), "body: neither `instances` nor `inputs`"),
            (json!({ "instances": [], "inputs": [] }), "inputs: given beside `instances`"),
            (json!({ "instances": 7 }), "instances: expected a list"),
            (json!({ "instances": [] }), "instances: 0 rows; expected 1 to 4"),
            (json!({ "instances": [[1, 2]] }), "instances[0]: expected an object of `x`, `n`"),
            (json!({ "instances": [{ "x": [1, 2] }] }), "instances[0]: input `n` is missing"),
            (json!({ "instances": [{ "x": [1, 2], "n": 300 }] }), "instances[0].n: value 300"),
            (json!({ "instances": [{ "x": [1], "n": 3 }] }), "instances[0].x: "),
            (json!({ "instances": [{ "x": [1, 2], "n": 3, "y": 1 }] }), "instances[0].y: no input"),
            (json!({ "inputs": [[1, 2]] }), "inputs: expected an object"),
            (json!({ "inputs": { "x": [[1, 2]], "n": [1, 2] } }), "inputs.n: 2 rows, where the input before has 1"),
            (json!({ "inputs": { "x": vec![[1, 2]; 5], "n": [1] } }), "inputs.x: 5 rows; expected 1 to 4"),
            (json!({ "inputs": { "x": [], "n": [] }, "parameters": { "priority": 9 } }), "parameters.priority"),
        ];
        for (body, expected) in cases {
            let error = bind(&body, &two).expect_err(&body.to_string());
            assert!(error.message.starts_with(expected), "{body}: {}", error.message);
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn an_input_that_is_given_twice_is_none() {
        let two = [spec("x", DataType::Fp32, &[1]), spec("n", DataType::Int8, &[])];
        let interface = Interface { inputs: &two, outputs: &[], max_rows: 4, allow_non_finite: false };
        for (body, expected) in [
            (r#"{"instances":[{"x":[1],"n":2,"x":[3]}]}"#, "instances[0].x: given twice"),
            (r#"{"inputs":{"x":[[1]],"n":[2],"n":[3]}}"#, "inputs.n: given twice"),
        ] {
            let error = Prediction::read(body.as_bytes()).expect("well-formed").bind(interface).expect_err(body);
            assert!(error.message.starts_with(expected), "{}", error.message);
        }
    }

    #[test]
    fn answers_are_nested_as_their_shape_and_named_where_there_are_several() {
        let specs = [spec("wide", DataType::Fp32, &[2, 1]), spec("flag", DataType::Bool, &[])];
        let bytes = [floats(&[1.0, 2.0, 3.0, 4.5]), vec![1, 0]].concat();
        let outputs = Outputs::from_joined(bytes.into(), &specs.clone().into(), 2).expect("they fit");
        let answer = |count: usize, by_row: bool| -> Value {
            let answerer = Answerer { model: "net", version: "1", outputs: &specs, participation: None };
            let outputs_wanted =
                (0..count).map(|index| super::super::binding::WantedOutput { index, binary: false }).collect();
            let request = InferRequest { id: None, inputs: [].into(), rows: 2, outputs: outputs_wanted };
            serde_json::from_slice(&predict(answerer, &request, &outputs, by_row)).expect("JSON")
        };
        assert_eq!(answer(1, true), json!({ "predictions": [[[1.0], [2.0]], [[3.0], [4.5]]] }));
        assert_eq!(answer(1, false), json!({ "outputs": [[[1.0], [2.0]], [[3.0], [4.5]]] }));
        let rows = json!([{ "wide": [[1.0], [2.0]], "flag": true }, { "wide": [[3.0], [4.5]], "flag": false }]);
        assert_eq!(answer(2, true), json!({ "predictions": rows }));
        let whole = json!({ "wide": [[[1.0], [2.0]], [[3.0], [4.5]]], "flag": [true, false] });
        assert_eq!(answer(2, false), json!({ "outputs": whole }));
    }
}
