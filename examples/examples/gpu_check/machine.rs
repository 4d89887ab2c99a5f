//! What there is to run on: the GPU, as its driver tells, and ONNX Runtime.

use serde_json::json;
use volley_gpu_runtime::{DeviceMonitor, Library, Provider};

use crate::ladder::{Ladder, Step, Verdict};

/// The first GPU, or why there is none.
pub(crate) fn device(ladder: &mut Ladder) -> Result<DeviceMonitor, String> {
    let seen = DeviceMonitor::open(0).and_then(|monitor| Ok((monitor.sample()?, monitor)));
    match seen {
        Ok((sample, monitor)) => {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            let (used, total) = (gigabytes(sample.memory_used_bytes), gigabytes(sample.memory_total_bytes));
            let mut text = format!("{total:.1} GB of memory, {used:.1} in use");
            if let Some(percent) = sample.utilization_percent {
                text += &format!(", {percent:.0} % busy before anything runs");
            }
            ladder.add(Step::Device, "", Verdict::Passed(text));
            Ok(monitor)
        }
        Err(error) => {
            ladder.add(Step::Device, "", Verdict::Skipped(error.to_string()));
            Err(error.to_string())
        }
    }
}

/// ONNX Runtime with `provider`, or why there is none.
pub(crate) fn library(ladder: &mut Ladder, provider: Provider) -> Result<Library, String> {
    let library = match Library::load(None) {
        Ok(library) => library,
        Err(error) => {
            ladder.add(Step::Library, "", Verdict::Skipped(error.to_string()));
            return Err("no ONNX Runtime".to_owned());
        }
    };
    let file = library.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let cuda = if library.was_built_with(Provider::Cuda) { "with" } else { "without" };
    let seen = format!("ONNX Runtime {} ({file}), {cuda} CUDA", library.version());
    ladder.figure("onnxruntime", json!(library.version()));
    if library.was_built_with(provider) {
        ladder.add(Step::Library, "", Verdict::Passed(seen));
        return Ok(library);
    }
    ladder.add(Step::Library, "", Verdict::Skipped(seen));
    Err(format!("ONNX Runtime {} ({file}) was built without {provider}; name one in ORT_DYLIB_PATH", library.version()))
}
