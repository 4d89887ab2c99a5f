//! How often each variant is right.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use volley_gpu_runtime::{DataType, Model};

use crate::Verdict;
use crate::samples::{Samples, floats};
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(
    subject: &Subject,
    data: &Path,
    labels: &str,
    output: Option<&str>,
) -> Result<Verdict, Box<dyn Error>> {
    let (mut rows, mut figures) = (Vec::new(), serde_json::Map::new());
    for model in subject.load_all()? {
        let samples = Samples::read(data, &model)?;
        let labels = read_labels(data, labels, samples.rows)?;
        let output = classes(&model, output)?;
        let mut session = model.open_session()?;
        let values = samples.run(&mut session, &model, model.max_batch().get())?.swap_remove(output);
        let values: Vec<f32> = floats(&values).collect();
        let answers = values.chunks_exact(model.outputs()[output].row_elements()).map(largest);
        let right = answers.zip(&labels).filter(|(answer, label)| *answer == Some(**label)).count();
        let share = right as f64 / labels.len() as f64;
        rows.push([
            model.variant().to_owned(),
            right.to_string(),
            labels.len().to_string(),
            format!("{:.2} %", share * 100.0),
        ]);
        figures.insert(model.variant().to_owned(), json!({ "right": right, "rows": labels.len(), "accuracy": share }));
    }
    let text = table(["variant", "right", "rows", "accuracy"], &rows);
    writeln!(stdout(), "{text}\n{}", serde_json::Value::Object(figures))?;
    Ok(Verdict::Good)
}

/// The class of the largest value; none where one is not a number.
fn largest(values: &[f32]) -> Option<i64> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let best = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))?.0;
    i64::try_from(best).ok()
}

/// The index of the output that has a value for each class.
fn classes(model: &Model, name: Option<&str>) -> Result<usize, String> {
    let outputs = model.outputs();
    let found = match name {
        Some(name) => outputs.iter().position(|spec| spec.name == name),
        None => outputs.len().checked_sub(1),
    };
    found.filter(|&index| outputs[index].dtype == DataType::Fp32 && outputs[index].row_elements() > 1).ok_or_else(
        || {
            let has: Vec<_> = outputs.iter().map(ToString::to_string).collect();
            let has = has.join(", ");
            format!(
                "`{}` has {has}; expected --output to name an FP32 one with a value for each class",
                model.variant()
            )
        },
    )
}

fn read_labels(file: &Path, name: &str, rows: usize) -> Result<Vec<i64>, Box<dyn Error>> {
    let content = std::fs::read(file)?;
    let tensors = SafeTensors::deserialize(&content)?;
    let tensor = tensors.tensor(name).map_err(|_| format!("{}: no tensor `{name}`", file.display()))?;
    let data = tensor.data();
    let labels: Vec<i64> = match tensor.dtype() {
        Dtype::U8 => data.iter().map(|&label| label.into()).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
        Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
        other => return Err(format!("{}: `{name}` is {other:?}; expected U8, I32 or I64", file.display()).into()),
    };
    if labels.len() != rows {
        return Err(
            format!("{}: `{name}` has {} values; expected {rows}, one a row", file.display(), labels.len()).into()
        );
    }
    Ok(labels)
}
