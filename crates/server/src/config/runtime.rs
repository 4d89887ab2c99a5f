//! How models are run.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use volley_gpu_runtime::ProviderPreference;

use super::duration;
use super::problem::Complaints;

/// How models are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The ONNX Runtime library. Unset: looked for in the environment, the set-up folder and the system.
    pub library: Option<PathBuf>,
    /// Execution providers, most wanted first: `tensorrt`, `cuda`, `cpu`.
    pub providers: Vec<String>,
    /// Refuse to start on anything but the first provider.
    pub require: bool,
    /// Index of the GPU.
    #[schemars(range(min = 0))]
    pub device: i32,
    /// Threads that run batches, each with its own session. Unset: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Threads within one operator. One is best unless there are fewer workers than cores.
    pub intra_op_threads: NonZeroUsize,
    /// Threads that run operators which do not depend on each other. More than one helps graphs with wide branches only.
    pub inter_op_threads: NonZeroUsize,
    /// Whether ONNX Runtime's threads spin while they wait for work. It costs a core each and gains microseconds.
    pub spinning: bool,
    /// Processors that workers are kept on, in turn. Empty: wherever the system puts them.
    pub cpu_affinity: Vec<usize>,
    /// Bytes of GPU memory that ONNX Runtime may take for each session. Unset: what there is.
    pub gpu_memory_limit: Option<usize>,
    /// Longest time a batch may run. Then it is interrupted, and half of this time later its worker is replaced; either
    /// way its requests are tried once more.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub run_limit: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            library: None,
            providers: vec!["cuda".into(), "cpu".into()],
            require: false,
            device: 0,
            workers: None,
            intra_op_threads: NonZeroUsize::MIN,
            inter_op_threads: NonZeroUsize::MIN,
            spinning: false,
            cpu_affinity: Vec::new(),
            gpu_memory_limit: None,
            run_limit: Duration::from_secs(2),
        }
    }
}

impl RuntimeConfig {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        if let Err(error) = ProviderPreference::of_names(&self.providers, self.require, self.device) {
            complaints.add("runtime.providers", error);
        }
    }
}
