//! Replies, held against what the model's metadata promises.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::{Datatype, ModelMetadata};

/// What a reply to a request for one sample must hold.
///
/// Values are not looked at: whether they are right is for tests with golden outputs, and reading
/// them would make the load generator dearer than the thing it measures.
#[derive(Debug)]
pub(crate) struct ReplyContract {
    outputs: Vec<PromisedOutput>,
}

#[derive(Debug)]
struct PromisedOutput {
    name: String,
    datatype: Datatype,
    /// `None` where the size is free.
    shape: Vec<Option<u64>>,
}

/// How a reply breaks the contract.
#[derive(Debug, Error)]
pub(crate) enum Malformed {
    #[error("header length {given} is not within the body of {body} bytes")]
    HeaderLength { given: u64, body: usize },
    #[error("JSON part does not parse: {0}")]
    Json(#[source] serde_json::Error),
    #[error("output '{0}' is missing")]
    Missing(String),
    #[error("output '{output}' is {given}, not {promised}")]
    Datatype { output: String, given: Datatype, promised: Datatype },
    #[error("output '{output}' has shape {given:?}, not {promised}")]
    Shape { output: String, given: Vec<u64>, promised: String },
    #[error("output '{output}' carries {given} {unit} where its shape needs {needed}")]
    Size { output: String, given: u64, needed: u64, unit: &'static str },
    #[error("output '{0}' carries neither 'data' nor 'binary_data_size'")]
    NoData(String),
    #[error("binary part has {given} bytes where the outputs declare {declared}")]
    BinaryLength { given: u64, declared: u64 },
}

impl ReplyContract {
    pub(crate) fn new(metadata: &ModelMetadata) -> Self {
        let outputs = metadata.outputs.iter().map(|output| PromisedOutput {
            name: output.name.clone(),
            datatype: output.datatype,
            shape: output
                .shape
                .iter()
                .enumerate()
                .map(|(axis, &size)| match (axis, u64::try_from(size)) {
                    (_, Ok(size)) => Some(size),
                    // One sample in, one row out.
                    (0, Err(_)) => Some(1),
                    (_, Err(_)) => None,
                })
                .collect(),
        });
        Self { outputs: outputs.collect() }
    }

    /// Checks one body; `json_length` is the value of the header that tells where its JSON ends.
    pub(crate) fn check(&self, json_length: Option<u64>, body: &[u8]) -> Result<(), Malformed> {
        let json_end = match json_length {
            None => body.len(),
            Some(given) => usize::try_from(given)
                .ok()
                .filter(|&end| end <= body.len())
                .ok_or(Malformed::HeaderLength { given, body: body.len() })?,
        };
        let (json, binary) = body.split_at(json_end);
        let reply: ReplyJson<'_> = serde_json::from_slice(json).map_err(Malformed::Json)?;
        for promised in &self.outputs {
            let given = reply
                .outputs
                .iter()
                .find(|given| given.name == promised.name)
                .ok_or_else(|| Malformed::Missing(promised.name.clone()))?;
            promised.check(given)?;
        }
        let declared =
            reply.outputs.iter().filter_map(|output| output.parameters.binary_data_size).fold(0, u64::saturating_add);
        if declared == binary.len() as u64 {
            Ok(())
        } else {
            Err(Malformed::BinaryLength { given: binary.len() as u64, declared })
        }
    }
}

impl PromisedOutput {
    fn check(&self, given: &OutputJson<'_>) -> Result<(), Malformed> {
        if given.datatype != self.datatype {
            return Err(Malformed::Datatype {
                output: self.name.clone(),
                given: given.datatype,
                promised: self.datatype,
            });
        }
        let fits = |(promised, given): (&Option<u64>, &u64)| promised.is_none_or(|p| p == *given);
        if given.shape.len() != self.shape.len() || !self.shape.iter().zip(&given.shape).all(fits) {
            return Err(Malformed::Shape {
                output: self.name.clone(),
                given: given.shape.clone(),
                promised: self.shape_text(),
            });
        }
        let elements = given.shape.iter().copied().fold(1, u64::saturating_mul);
        let (carried, needed, unit) = match (given.parameters.binary_data_size, &given.data) {
            (Some(bytes), _) => match self.datatype.size() {
                Some(size) => (bytes, elements.saturating_mul(size), "bytes"),
                None => return Ok(()),
            },
            (None, Some(scalars)) => (scalars.0, elements, "values"),
            (None, None) => return Err(Malformed::NoData(self.name.clone())),
        };
        if carried == needed {
            Ok(())
        } else {
            Err(Malformed::Size { output: self.name.clone(), given: carried, needed, unit })
        }
    }

    fn shape_text(&self) -> String {
        let sizes = self.shape.iter().map(|size| match size {
            Some(size) => size.to_string(),
            None => "-1".to_owned(),
        });
        format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
    }
}

#[derive(Deserialize)]
struct ReplyJson<'a> {
    #[serde(borrow)]
    outputs: Vec<OutputJson<'a>>,
}

#[derive(Deserialize)]
struct OutputJson<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    datatype: Datatype,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: OutputParametersJson,
    #[serde(default)]
    data: Option<ScalarCount>,
}

#[derive(Deserialize, Default)]
struct OutputParametersJson {
    binary_data_size: Option<u64>,
}

/// Counts the scalars of an array, flat or nested as the protocol allows, and keeps none.
struct ScalarCount(u64);

impl<'de> Deserialize<'de> for ScalarCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarCounter)
    }
}

struct ScalarCounter;

impl<'de> Visitor<'de> for ScalarCounter {
    type Value = ScalarCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, booleans or strings, flat or in nested arrays")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ScalarCount, A::Error> {
        let mut count = 0;
        while let Some(ScalarCount(inner)) = items.next_element()? {
            count += inner;
        }
        Ok(ScalarCount(count))
    }

    fn visit_bool<E>(self, _: bool) -> Result<ScalarCount, E> {
        Ok(ScalarCount(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<ScalarCount, E> {
        Ok(ScalarCount(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<ScalarCount, E> {
        Ok(ScalarCount(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<ScalarCount, E> {
        Ok(ScalarCount(1))
    }

    fn visit_str<E>(self, _: &str) -> Result<ScalarCount, E> {
        Ok(ScalarCount(1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::TensorMetadata;
    use super::*;

    fn contract() -> ReplyContract {
        let tensor = |name: &str, shape: &[i64]| TensorMetadata {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        ReplyContract::new(&ModelMetadata {
            name: "m".to_owned(),
            inputs: vec![],
            outputs: vec![tensor("features", &[-1, 4]), tensor("prediction", &[-1, 3])],
        })
    }

    fn binary_reply(features: &str, prediction: &str, binary: usize) -> (Option<u64>, Vec<u8>) {
        let mut body = format!(
            r#"{{"model_name":"m","outputs":[{{"name":"features",{features}}},{{"name":"prediction",{prediction}}}]}}"#
        )
        .into_bytes();
        let length = body.len() as u64;
        body.resize(body.len() + binary, 0);
        (Some(length), body)
    }

    const FEATURES: &str = r#""datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}"#;
    const PREDICTION: &str = r#""datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}"#;

    #[test]
    fn a_reply_as_promised_passes_in_binary_in_json_and_in_nested_json() {
        let (length, body) = binary_reply(FEATURES, PREDICTION, 28);
        contract().check(length, &body).unwrap();
        let json = br#"{"outputs":[
            {"name":"prediction","datatype":"FP32","shape":[1,3],"data":[0,-1,2.5]},
            {"name":"features","datatype":"FP32","shape":[1,4],"data":[[1,2,3,4]]}]}"#;
        contract().check(None, json).unwrap();
    }

    #[test]
    fn every_breach_is_told_apart() {
        let cases = [
            (r#""datatype":"FP64","shape":[1,4],"parameters":{"binary_data_size":32}"#, 44, "FP64"),
            (r#""datatype":"FP32","shape":[2,4],"parameters":{"binary_data_size":32}"#, 44, "shape [2, 4], not [1, 4]"),
            (
                r#""datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":8}"#,
                20,
                "8 bytes where its shape needs 16",
            ),
            (r#""datatype":"FP32","shape":[1,4],"data":[1,2]"#, 12, "2 values where its shape needs 4"),
            (r#""datatype":"FP32","shape":[1,4]"#, 12, "neither"),
            (FEATURES, 27, "27 bytes where the outputs declare 28"),
            (r#""datatype":"FP32","shape":[-1,4]"#, 28, "does not parse"),
        ];
        for (features, binary, expected) in cases {
            let (length, body) = binary_reply(features, PREDICTION, binary);
            let message = contract().check(length, &body).unwrap_err().to_string();
            assert!(message.contains(expected), "'{message}' for '{features}' should say '{expected}'");
        }
    }

    #[test]
    fn a_missing_output_and_a_header_beyond_the_body_are_found() {
        let only = br#"{"outputs":[{"name":"features","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}"#;
        let message = contract().check(None, only).unwrap_err().to_string();
        assert_eq!(message, "output 'prediction' is missing");
        let message = contract().check(Some(u64::MAX), only).unwrap_err().to_string();
        assert!(message.contains("not within the body"), "{message}");
        assert!(contract().check(None, b"").is_err());
    }
}
