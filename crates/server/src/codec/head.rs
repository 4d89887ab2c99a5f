//! The JSON of inference requests, and a memory for it.
//!
//! Where tensors travel as raw bytes behind it, a caller sends the very same JSON with each request. What was read last is
//! kept for a few callers, so that they pay for a comparison instead of a parse.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Parameters;
use super::object::Object;
use crate::error::ApiError;

/// So many are kept on each thread, those that came last.
const KEPT: usize = 8;
/// A longer one is not kept.
const LONGEST: usize = 1024;

/// The JSON of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "null_as_absent")]
    pub parameters: Object<Parameters>,
    #[serde(borrow)]
    pub inputs: Vec<Object<Input<'a>>>,
    #[serde(borrow, default, deserialize_with = "null_as_absent")]
    pub outputs: Vec<Object<Output<'a>>>,
}

/// One of its inputs.
#[derive(Debug, Deserialize)]
pub(super) struct Input<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    pub shape: Vec<u64>,
    #[serde(borrow)]
    pub datatype: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_absent")]
    pub parameters: Object<TensorParameters>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// An output it asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Output<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_absent")]
    pub parameters: Object<TensorParameters>,
}

/// What is said of one tensor.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct TensorParameters {
    pub binary_data_size: Option<u64>,
    pub binary_data: Option<bool>,
    pub classification: Option<u64>,
    pub shared_memory_region: Option<String>,
}

/// Reads `null` as if the member were absent: clients that write out a whole structure of theirs send it.
fn null_as_absent<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A head that was read now, or earlier.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// Now.
    New(Head<'a>),
    /// Earlier, or kept from now on.
    Kept(Arc<Head<'static>>),
}

impl<'a> Deref for Known<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        match self {
            Self::New(head) => head,
            Self::Kept(head) => head,
        }
    }
}

/// Reads the JSON of a request.
///
/// # Errors
/// [`ApiError`] with status 400 when it is not what the protocol says.
pub(super) fn read(json: &[u8]) -> Result<Head<'_>, ApiError> {
    let Object(head) = parse::<Object<Head<'_>>>(json)?;
    head.parameters.check()?;
    Ok(head)
}

/// As [`read`], for JSON that is likely to come again.
///
/// # Errors
/// As there.
pub(super) fn known(json: &[u8]) -> Result<Known<'_>, ApiError> {
    type Kept = (Box<[u8]>, Arc<Head<'static>>);
    thread_local! {
        static LAST: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    }
    if json.len() > LONGEST {
        return read(json).map(Known::New);
    }
    LAST.with_borrow_mut(|last| {
        if let Some(at) = last.iter().position(|(known, _)| **known == *json) {
            last[..=at].rotate_right(1);
            return Ok(Known::Kept(Arc::clone(&last[0].1)));
        }
        let head = match read(json)?.into_owned() {
            Ok(owned) => Arc::new(owned),
            Err(head) => return Ok(Known::New(head)),
        };
        last.truncate(KEPT - 1);
        last.insert(0, (json.into(), Arc::clone(&head)));
        Ok(Known::Kept(head))
    })
}

impl<'a> Head<'a> {
    /// With names of its own; itself if it has values, which are not kept.
    fn into_owned(self) -> Result<Head<'static>, Self> {
        if self.inputs.iter().any(|input| input.data.is_some()) {
            return Err(self);
        }
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let inputs = self.inputs.into_iter().map(|Object(Input { name, shape, datatype, parameters, .. })| {
            Object(Input { name: own(name), shape, datatype: own(datatype), parameters, data: None })
        });
        let outputs = self
            .outputs
            .into_iter()
            .map(|Object(Output { name, parameters })| Object(Output { name: own(name), parameters }));
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        Ok(Head { id: self.id, parameters: self.parameters, inputs, outputs })
    }
}

/// Parses JSON; only when that fails, again with the path of the field at fault.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
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

    fn json(id: &str, rest: &str) -> String {
        format!(r#"{{"id":"{id}","inputs":[{{"name":"input","shape":[1],"datatype":"FP32"{rest}}}]}}"#)
    }

    #[test]
    fn json_that_comes_again_is_read_once_and_any_other_anew() {
        let again = |json: &str| match known(json.as_bytes()).expect("a good head") {
            Known::Kept(head) => Some((head.id.clone(), Arc::strong_count(&head))),
            Known::New(_) => None,
        };
        let one = json("1", "");
        let held = known(one.as_bytes()).expect("a good head");
        assert_eq!(again(&one), Some((Some("1".into()), 3)), "the very same");
        let differing: Vec<_> = (2..2 + KEPT).map(|id| json(&id.to_string(), "")).collect();
        for (json, id) in differing.iter().zip(2..) {
            assert_eq!(again(json), Some((Some(id.to_string()), 2)));
        }
        assert_eq!(again(&one), Some((Some("1".into()), 2)), "forgotten for those that came later, and read anew");
        drop(held);
        assert_eq!(again(&json("1", r#","data":[1]"#)), None, "values are not kept");
        assert_eq!(again(&json(&"1".repeat(LONGEST), "")), None, "nor are long ones");
    }

    #[test]
    fn what_is_wrong_is_told_every_time() {
        for _ in 0..2 {
            let error = known(json("1", r#","shape":1"#).as_bytes()).expect_err("two shapes");
            assert!(error.message.contains("shape"), "{}", error.message);
        }
    }
}
