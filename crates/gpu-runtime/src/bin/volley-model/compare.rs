//! The variants side by side.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;

use volley_gpu_runtime::{DataType, Model};

use crate::Verdict;
use crate::samples::{Samples, floats};
use crate::subject::Subject;
use crate::table::table;

pub(crate) fn run(subject: &Subject, inputs: Option<PathBuf>) -> Result<Verdict, Box<dyn Error>> {
    let models = subject.load_all()?;
    let baseline = models.first().ok_or("there is no variant")?;
    let file = inputs.or_else(|| subject.version.golden.clone());
    let file = file.ok_or("no inputs to compare on: give a safetensors file with --inputs")?;
    let samples = Samples::read(&file, baseline)?;
    let mut expected = Vec::new();
    let mut rows = Vec::new();
    for model in &models {
        if (model.inputs(), model.outputs()) != (baseline.inputs(), baseline.outputs()) {
            return Err(
                format!("`{}` has other inputs or outputs than `{}`", model.variant(), baseline.variant()).into()
            );
        }
        let mut session = model.open_session()?;
        let together = samples.run(&mut session, model, model.max_batch().get())?;
        let alone = samples.run(&mut session, model, 1)?;
        if expected.is_empty() {
            expected.clone_from(&alone);
        }
        let (largest, mean) = difference(model, &alone, &expected);
        let (company, _) = difference(model, &together, &alone);
        rows.push([
            model.variant().to_owned(),
            format!("{:.0}", model.file_bytes().map(<[u8]>::len).sum::<usize>() as f64 / 1000.0),
            model.best_batch().to_string(),
            format!("{:.0}", model.rows_per_second()),
            format!("{:.2}", model.rows_per_second() / baseline.rows_per_second()),
            format!("{largest:.1e}"),
            format!("{mean:.1e}"),
            format!("{company:.1e}"),
        ]);
    }
    let header = ["variant", "kB", "best batch", "rows/s", "speed", "largest diff", "mean diff", "in company"];
    let (count, name) = (samples.rows, baseline.variant());
    writeln!(stdout(), "{count} rows of {}, differences from {name}\n{}", file.display(), table(header, &rows))?;
    Ok(Verdict::Good)
}

/// The largest and the mean absolute difference over all FP32 outputs; what is not a number on one side counts as infinite.
fn difference(model: &Model, got: &[Vec<u8>], expected: &[Vec<u8>]) -> (f32, f64) {
    let (mut largest, mut sum, mut count) = (0.0_f32, 0.0_f64, 0_usize);
    for (spec, (got, expected)) in model.outputs().iter().zip(got.iter().zip(expected)) {
        if spec.dtype != DataType::Fp32 {
            continue;
        }
        for (a, b) in floats(got).zip(floats(expected)) {
            let diff = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
            let diff = if diff.is_nan() { f32::INFINITY } else { diff };
            largest = largest.max(diff);
            sum += f64::from(diff);
            count += 1;
        }
    }
    (largest, sum / count.max(1) as f64)
}
