//! What is used of Triton's `config.pbtxt`, for models that Triton runs with its ONNX Runtime backend.
//!
//! Whatever would change answers and cannot be done is refused; what only tunes Triton's own machinery is listed as not
//! used. The crate's README has the table.

use std::num::NonZeroUsize;

use crate::config::{DeclaredTensor, ModelConfig, VersionPolicy};
use crate::pbtxt::{Field, Message, PbtxtError, parse};
use crate::tensor::DataType;

/// A file's settings, and a sentence for each that is not used, after its line and column.
#[derive(Debug)]
pub(crate) struct TritonConfig {
    pub(crate) config: ModelConfig,
    pub(crate) unused: Vec<String>,
}

/// Reads the text of a `config.pbtxt` in the folder of the model `model`.
pub(crate) fn read(text: &str, model: &str) -> Result<TritonConfig, PbtxtError> {
    let file = parse(text)?;
    let mut read = TritonConfig { config: ModelConfig::default(), unused: Vec::new() };
    let max_batch = max_batch(&file)?;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for field in &file.fields {
        match field.name.as_str() {
            // Read above.
            "max_batch_size" => {}
            "name" => {
                let name = field.text()?;
                if !name.is_empty() && name != model {
                    return Err(field.expected(&format!("the name of the model's folder, {model:?}")));
                }
            }
            "platform" if matches!(field.text()?, "onnxruntime_onnx" | "") => {}
            "platform" => return Err(field.expected("\"onnxruntime_onnx\", the only platform that is served")),
            "backend" if matches!(field.text()?, "onnxruntime" | "") => {}
            "backend" => return Err(field.expected("\"onnxruntime\", the only backend that is served")),
            "input" => inputs.push(tensor(field, max_batch, &mut read.unused)?),
            "output" => outputs.push(tensor(field, max_batch, &mut read.unused)?),
            "version_policy" => read.config.version_policy = version_policy(field)?,
            "default_model_filename" => {
                read.config.default_model_filename = Some(field.text()?.to_owned()).filter(|name| !name.is_empty());
            }
            "dynamic_batching" => dynamic_batching(field.message()?, &mut read)?,
            "sequence_batching" => return Err(refused(field, "requests are independent of each other here")),
            "ensemble_scheduling" => return Err(refused(field, "models are not chained here")),
            "model_repository_agents" => {
                return Err(refused(field, "what an agent would make of the files is not known"));
            }
            "model_transaction_policy" => {
                for policy in &field.message()?.fields {
                    if policy.name == "decoupled" && policy.word()? != "false" {
                        return Err(refused(policy, "each request gets one response here"));
                    }
                }
            }
            "response_cache" => {
                for part in &field.message()?.fields {
                    match part.name.as_str() {
                        "enable" => {
                            read.config.cache = Some(match part.word()? {
                                "true" | "True" | "t" | "1" => true,
                                "false" | "False" | "f" | "0" => false,
                                _ => return Err(part.expected("true or false")),
                            });
                        }
                        _ => read.unused.push(unused(part, "nothing here answers to it")),
                    }
                }
            }
            "instance_group" => read.unused.push(unused(field, "each worker has a session of its own")),
            "parameters" => {
                let key = field.message()?.fields.iter().find(|entry| entry.name == "key");
                let key = key.map(Field::text).transpose()?.unwrap_or_default();
                read.unused.push(unused(field, &format!("`{key}` is a setting of Triton's backend")));
            }
            "optimization" => read.unused.push(unused(field, "`providers` in config.toml picks execution providers")),
            "model_warmup" => read.unused.push(unused(field, "each batch size is always run before a model is ready")),
            _ => read.unused.push(unused(field, "nothing here answers to it")),
        }
    }
    read.config.max_batch = max_batch;
    read.config.inputs = (!inputs.is_empty()).then_some(inputs);
    read.config.outputs = (!outputs.is_empty()).then_some(outputs);
    Ok(read)
}

/// Rows of the largest batch; `None` where the shapes themselves have the batch axis.
fn max_batch(file: &Message) -> Result<Option<NonZeroUsize>, PbtxtError> {
    let Some(field) = file.fields.iter().rfind(|field| field.name == "max_batch_size") else { return Ok(None) };
    let size = usize::try_from(field.integer()?).map_err(|_| field.expected("an integer of at least 0"))?;
    Ok(NonZeroUsize::new(size))
}

fn tensor(
    field: &Field,
    max_batch: Option<NonZeroUsize>,
    notes: &mut Vec<String>,
) -> Result<DeclaredTensor, PbtxtError> {
    let (mut name, mut data_type, mut dims, mut reshape) = ("", None, Vec::new(), None);
    for part in &field.message()?.fields {
        match part.name.as_str() {
            "name" => name = part.text()?,
            "data_type" => data_type = Some(self::data_type(part)?),
            "dims" => dims.push(dimension(part)?),
            "reshape" => reshape = Some(part),
            "is_shape_tensor" | "allow_ragged_batch" | "optional" if part.word()? != "false" => {
                return Err(refused(
                    part,
                    "every tensor has the batch as its first axis and is part of each request here",
                ));
            }
            "is_shape_tensor" | "allow_ragged_batch" | "optional" => {}
            _ => notes.push(unused(part, "nothing here answers to it")),
        }
    }
    let missing = |what| PbtxtError::new(field.at, format!("this {} has no {what}", field.name));
    if name.is_empty() {
        return Err(missing("name"));
    }
    let data_type = data_type.ok_or_else(|| missing("data_type"))?;
    if let Some(reshape) = reshape {
        let shape = &reshape.message()?.fields;
        let shape = shape.iter().filter(|part| part.name == "shape").map(dimension).collect::<Result<Vec<_>, _>>()?;
        if shape != dims {
            return Err(refused(reshape, "requests have the shapes of the model file here"));
        }
    }
    if max_batch.is_none() {
        // Without a largest batch the first of the dims is the batch axis, if there is one.
        if dims.first() != Some(&-1) {
            let text = format!(
                "{} `{name}` has no batch axis: max_batch_size is 0 and its dims are {dims:?}; expected -1 as the first of \
                 them, or max_batch_size of at least 1",
                field.name
            );
            return Err(PbtxtError::new(field.at, text));
        }
        dims.remove(0);
    }
    Ok(DeclaredTensor { name: name.to_owned(), data_type, row_shape: dims })
}

fn dimension(field: &Field) -> Result<i64, PbtxtError> {
    let size = field.integer()?;
    if size == -1 || size > 0 { Ok(size) } else { Err(field.expected("-1 or at least 1")) }
}

fn data_type(field: &Field) -> Result<DataType, PbtxtError> {
    let name = field.word()?.strip_prefix("TYPE_");
    name.and_then(DataType::from_name)
        .ok_or_else(|| field.expected("a type of fixed size, such as TYPE_FP32 or TYPE_INT64"))
}

fn version_policy(field: &Field) -> Result<Option<VersionPolicy>, PbtxtError> {
    let mut policy = None;
    for choice in &field.message()?.fields {
        let parts = &choice.message()?.fields;
        policy = Some(match choice.name.as_str() {
            "all" => VersionPolicy::All,
            "latest" => {
                let versions = parts.iter().rfind(|part| part.name == "num_versions");
                let count = versions.map_or(Ok(1), Field::integer)?;
                let count = usize::try_from(count).ok().and_then(NonZeroUsize::new);
                VersionPolicy::Latest(count.ok_or_else(|| versions.unwrap_or(choice).expected("at least 1"))?)
            }
            "specific" => {
                let versions = parts.iter().filter(|part| part.name == "versions").map(|part| {
                    u64::try_from(part.integer()?).map_err(|_| part.expected("a version's number, at least 0"))
                });
                VersionPolicy::Specific(versions.collect::<Result<_, _>>()?)
            }
            _ => return Err(PbtxtError::new(choice.at, format!("{} is no version policy", choice.name))),
        });
    }
    Ok(policy)
}

/// Triton sends a batch off once it has a preferred size. The largest of them is here the size beyond which a batch is not
/// held back; smaller ones would only cut batches that callers are waiting to fill.
fn dynamic_batching(batching: &Message, read: &mut TritonConfig) -> Result<(), PbtxtError> {
    let mut largest = None;
    for field in &batching.fields {
        match field.name.as_str() {
            "preferred_batch_size" => {
                let size = usize::try_from(field.integer()?).ok().and_then(NonZeroUsize::new);
                largest = largest.max(Some(size.ok_or_else(|| field.expected("at least 1"))?));
            }
            "max_queue_delay_microseconds" => {
                read.unused.push(unused(field, "the server's scheduler.max_wait holds for all models"));
            }
            name if name.starts_with("priority_") || name.starts_with("default_") => {
                read.unused.push(unused(field, "the server's scheduler has lanes of its own"));
            }
            _ => read.unused.push(unused(field, "nothing here answers to it")),
        }
    }
    read.config.full_batch = largest;
    Ok(())
}

fn refused(field: &Field, why: &str) -> PbtxtError {
    PbtxtError::new(field.at, format!("{} cannot be done: {why}", field.name))
}

fn unused(field: &Field, why: &str) -> String {
    format!("{}: {} is not used: {why}", field.at, field.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPICAL: &str = r#"
name: "net"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NONE dims: [ 50, 60 ] reshape { shape: [ 50, 60 ] } } ]
output [ { name: "features", data_type: TYPE_FP32, dims: [ 128 ], label_filename: "labels.txt" } ]
version_policy { specific { versions: [ 1, 3 ] } }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 2 }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" } ] } }
model_warmup [ { name: "zeros" } ]
"#;

    #[test]
    fn whether_results_may_be_kept_is_taken_from_the_file() {
        let cache = |text: &str| read(text, "net").expect("a good file").config.cache;
        assert_eq!(cache("response_cache { enable: false }"), Some(false));
        assert_eq!(cache("response_cache { enable: true }"), Some(true));
        assert_eq!(cache("response_cache { enable: False }"), Some(false));
        assert_eq!(cache(TYPICAL), None);
        let error = read("response_cache { enable: no }", "net").expect_err("it is neither");
        assert!(format!("{error:?}").contains("true or false"), "{error:?}");
    }

    #[test]
    fn a_typical_file_is_used_where_it_can_be_and_the_rest_is_listed() {
        let TritonConfig { config, unused } = read(TYPICAL, "net").expect("a good file");
        let size = |rows| NonZeroUsize::new(rows);
        assert_eq!((config.max_batch, config.full_batch), (size(16), size(8)));
        assert_eq!(config.version_policy, Some(VersionPolicy::Specific(vec![1, 3])));
        assert_eq!(config.inputs.expect("declared")[0].to_string(), "input FP32[N,50,60]");
        assert_eq!(config.outputs.expect("declared")[0].to_string(), "features FP32[N,128]");
        let names: Vec<_> =
            unused.iter().map(|text| text.split(": ").nth(1).and_then(|t| t.split(' ').next()).unwrap_or("")).collect();
        let expected = [
            "format",
            "label_filename",
            "instance_group",
            "max_queue_delay_microseconds",
            "priority_levels",
            "parameters",
            "optimization",
            "model_warmup",
        ];
        assert_eq!(names, expected);
        assert!(unused[2].starts_with("8:18: instance_group is not used: "), "{}", unused[2]);
    }

    #[test]
    fn without_a_largest_batch_the_shapes_carry_the_batch_axis() {
        let text = |dims| format!("max_batch_size: 0 input {{ name: \"x\" data_type: TYPE_INT64 dims: {dims} }}");
        let config = read(&text("[-1, 50]"), "net").expect("a batch axis").config;
        assert_eq!((config.max_batch, config.inputs.expect("declared")[0].row_shape.clone()), (None, vec![50]));
        let error = read(&text("[1, 50]"), "net").expect_err("a fixed batch").text;
        assert!(error.contains("no batch axis") && error.contains("max_batch_size of at least 1"), "{error}");
    }

    #[test]
    fn what_would_change_answers_and_cannot_be_done_is_refused_with_its_place() {
        let tensor =
            |more: &str| format!("max_batch_size: 1 input {{ name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] {more} }}");
        for (text, expected) in [
            ("name: \"other\"".to_owned(), "1:1: name is \"other\"; expected the name of the model's folder, \"net\""),
            ("platform: \"tensorrt_plan\"".to_owned(), "1:1: platform is \"tensorrt_plan\"; expected"),
            ("backend: \"python\"".to_owned(), "1:1: backend is \"python\"; expected"),
            ("\nsequence_batching { }".to_owned(), "2:1: sequence_batching cannot be done"),
            ("ensemble_scheduling { }".to_owned(), "ensemble_scheduling cannot be done"),
            ("model_repository_agents { }".to_owned(), "model_repository_agents cannot be done"),
            ("model_transaction_policy { decoupled: true }".to_owned(), "decoupled cannot be done"),
            ("version_policy { newest { } }".to_owned(), "newest is no version policy"),
            ("version_policy { latest { num_versions: 0 } }".to_owned(), "num_versions is `0`; expected at least 1"),
            ("dynamic_batching { preferred_batch_size: 0 }".to_owned(), "expected at least 1"),
            (tensor("reshape { shape: [ 2, 2 ] }"), "reshape cannot be done"),
            (tensor("optional: true"), "optional cannot be done"),
            (tensor("data_type: TYPE_STRING"), "data_type is `TYPE_STRING`; expected a type of fixed size"),
            (tensor("dims: 0"), "dims is `0`; expected -1 or at least 1"),
            ("input { data_type: TYPE_FP32 }".to_owned(), "this input has no name"),
        ] {
            let error = read(&text, "net").expect_err(&text);
            let error = format!("{}: {}", error.at, error.text);
            assert!(error.contains(expected), "{error}");
        }
    }
}
