//! Execution providers: what was asked for, and what really runs a model.
//!
//! ONNX Runtime falls back to the CPU without a word when a provider cannot start. Here each provider is registered so
//! that a failure is an error; the next in the list is then tried with a warning, and the session reports which
//! provider each of its nodes was given to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ort::ep::ExecutionProviderDispatch;
#[cfg(feature = "cuda")]
use ort::ep::{CUDA, ExecutionProvider, TensorRT};
use ort::session::Session;
use ort::{AsPointer, ortsys};

/// A way to execute models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA with cuDNN.
    Cuda,
    /// The processor.
    Cpu,
}

impl Provider {
    /// The name used in configuration and reports: `tensorrt`, `cuda` or `cpu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    /// The provider a name stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::TensorRt, Self::Cuda, Self::Cpu].into_iter().find(|provider| provider.name() == name)
    }

    /// The name ONNX Runtime reports for nodes this provider runs.
    fn onnxruntime_name(self) -> &'static str {
        match self {
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::Cpu => "CPUExecutionProvider",
        }
    }

    /// Why the loaded library cannot have this provider at all, if so.
    pub(crate) fn missing_from_library(self) -> Option<&'static str> {
        #[cfg(feature = "cuda")]
        let compiled_in = match self {
            Self::TensorRt => TensorRT::is_available().unwrap_or(false),
            Self::Cuda => CUDA::is_available().unwrap_or(false),
            Self::Cpu => true,
        };
        #[cfg(not(feature = "cuda"))]
        let compiled_in = self == Self::Cpu;
        (!compiled_in).then_some("the loaded ONNX Runtime library was built without it")
    }

    /// The registrations that make a session run on this provider; the CPU is ONNX Runtime's own last resort.
    ///
    /// `memory_limit` is the CUDA arena's in bytes; `engines` is where TensorRT keeps what it compiles.
    pub(crate) fn dispatch(
        self,
        device: i32,
        memory_limit: Option<usize>,
        engines: Option<&Path>,
    ) -> Vec<ExecutionProviderDispatch> {
        #[cfg(feature = "cuda")]
        {
            let cuda = || {
                let cuda = CUDA::default().with_device_id(device);
                memory_limit.map_or(cuda.clone(), |bytes| cuda.with_memory_limit(bytes)).build().error_on_failure()
            };
            match self {
                Self::TensorRt => {
                    let mut tensorrt = TensorRT::default().with_device_id(device);
                    if let Some(folder) = engines.map(Path::display) {
                        tensorrt = tensorrt.with_engine_cache(true).with_engine_cache_path(folder.to_string());
                        tensorrt = tensorrt.with_timing_cache(true).with_timing_cache_path(folder.to_string());
                    }
                    vec![tensorrt.build().error_on_failure(), cuda()]
                }
                Self::Cuda => vec![cuda()],
                Self::Cpu => vec![],
            }
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (self, device, memory_limit, engines);
            vec![]
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which provider really runs a session: asked of ONNX Runtime after the graph was divided, not assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The provider the session was opened for.
    pub provider: Provider,
    /// Nodes of the optimised graph by the provider that runs them, under ONNX Runtime's own provider names.
    pub nodes: BTreeMap<String, usize>,
    /// The same, by operator. ONNX Runtime tells them as they were when the graph was divided; what it merges later shows
    /// in a graph that was [kept](crate::Model::compile).
    pub operators: Vec<PlacedOperator>,
}

/// How many nodes of one operator a provider runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedOperator {
    /// The provider, under ONNX Runtime's own name.
    pub provider: String,
    /// The operator's type, with its domain before it unless that is ONNX's own: `Conv`, `volley.QLstm`.
    pub operator: String,
    /// Nodes of it.
    pub nodes: usize,
}

impl PlacedOperator {
    /// Whether it multiplies in eight bits. A `QuantizeLinear` or `DequantizeLinear` that stands alone does not.
    #[must_use]
    pub fn runs_in_eight_bits(&self) -> bool {
        let name = self.operator.rsplit('.').next().unwrap_or_default();
        let marks = ["QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QGemm", "QLstm", "QAttention"];
        marks.iter().any(|mark| name.starts_with(mark)) && name != "DynamicQuantizeLinear"
    }
}

impl Placement {
    /// Whether the session's provider runs any node, or the library could not tell.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.nodes.is_empty() || self.nodes.contains_key(self.provider.onnxruntime_name())
    }

    /// The key that makes ONNX Runtime keep the assignment for [`Placement::of`].
    pub(crate) const RECORD_KEY: &'static str = "session.record_ep_graph_assignment_info";

    /// Reads the assignment of a session that was built with [`Self::RECORD_KEY`] set to `1`.
    pub(crate) fn of(session: &Session, provider: Provider) -> ort::Result<Self> {
        let (mut nodes, mut by_operator) = (BTreeMap::new(), BTreeMap::new());
        let mut subgraphs = std::ptr::null();
        let mut count = 0;
        ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut subgraphs, &mut count)?];
        for index in 0..count {
            // SAFETY: ONNX Runtime returned an array of `count` pointers owned by the session, which outlives this.
            let subgraph = unsafe { *subgraphs.add(index) };
            let mut name = std::ptr::null();
            ortsys![unsafe EpAssignedSubgraph_GetEpName(subgraph, &mut name)?];
            let (mut members, mut members_count) = (std::ptr::null(), 0);
            ortsys![unsafe EpAssignedSubgraph_GetNodes(subgraph, &mut members, &mut members_count)?];
            // SAFETY: a NUL-terminated name owned by the session.
            let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned();
            for index in 0..members_count {
                // SAFETY: an array of `members_count` pointers owned by the session.
                let operator = operator(unsafe { *members.add(index) })?;
                *by_operator.entry((name.clone(), operator)).or_insert(0) += 1;
            }
            *nodes.entry(name).or_insert(0) += members_count;
        }
        let placed = |((provider, operator), nodes)| PlacedOperator { provider, operator, nodes };
        Ok(Self { provider, nodes, operators: by_operator.into_iter().map(placed).collect() })
    }
}

/// A node's operator, as [`PlacedOperator::operator`] has it.
fn operator(node: *const ort::sys::OrtEpAssignedNode) -> ort::Result<String> {
    let (mut domain, mut operator) = (std::ptr::null(), std::ptr::null());
    ortsys![unsafe EpAssignedNode_GetDomain(node, &mut domain)?];
    ortsys![unsafe EpAssignedNode_GetOperatorType(node, &mut operator)?];
    // SAFETY: NUL-terminated names owned by the session.
    let [domain, operator] = [domain, operator].map(|name| unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy());
    Ok(if domain.is_empty() || domain == "ai.onnx" { operator.into_owned() } else { format!("{domain}.{operator}") })
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        for (index, (name, count)) in self.nodes.iter().enumerate() {
            write!(f, "{}{count} nodes on {name}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// Providers in order of preference, and whether the first must be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderPreference {
    /// Tried in this order; the first that starts runs the model.
    pub order: Vec<Provider>,
    /// Refuse to run on anything but the first of `order`.
    pub require: bool,
    /// The device's index, for providers that have several.
    pub device: i32,
}

impl ProviderPreference {
    /// The preference that names, as a configuration has them, stand for.
    ///
    /// # Errors
    /// A sentence that says which name stands for none, or that there is not one.
    pub fn of_names(names: &[String], require: bool, device: i32) -> Result<Self, String> {
        let order = names.iter().map(|name| {
            Provider::from_name(name).ok_or_else(|| format!("`{name}` is none; expected tensorrt, cuda or cpu"))
        });
        let order = order.collect::<Result<Vec<_>, _>>()?;
        if order.is_empty() {
            return Err("empty; expected at least one of tensorrt, cuda, cpu".into());
        }
        Ok(Self { order, require, device })
    }
}

impl Default for ProviderPreference {
    /// TensorRT is left out: it compiles an engine for minutes at its first start, which must be asked for.
    fn default() -> Self {
        Self { order: vec![Provider::Cuda, Provider::Cpu], require: false, device: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_without_a_node_on_its_provider_is_not_confirmed() {
        let on = |name: &str| Placement {
            provider: Provider::Cuda,
            nodes: BTreeMap::from([(name.to_owned(), 3)]),
            operators: vec![],
        };
        assert!(on("CUDAExecutionProvider").is_confirmed());
        assert!(!on("CPUExecutionProvider").is_confirmed());
        assert_eq!(on("CPUExecutionProvider").to_string(), "cuda: 3 nodes on CPUExecutionProvider");
    }

    #[test]
    fn only_what_multiplies_in_eight_bits_is_said_to() {
        let of = |operator: &str| PlacedOperator { provider: String::new(), operator: operator.into(), nodes: 1 };
        for operator in ["QLinearConv", "volley.QLstm", "com.microsoft.DynamicQuantizeLSTM", "MatMulInteger"] {
            assert!(of(operator).runs_in_eight_bits(), "{operator}");
        }
        for operator in ["Conv", "LSTM", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"] {
            assert!(!of(operator).runs_in_eight_bits(), "{operator}");
        }
    }

    #[test]
    fn a_name_leads_back_to_its_provider() {
        for provider in [Provider::TensorRt, Provider::Cuda, Provider::Cpu] {
            assert_eq!(Provider::from_name(provider.name()), Some(provider));
        }
        assert_eq!(Provider::from_name("gpu"), None);
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            ProviderPreference::of_names(&names, true, 1).map(|preference| preference.order)
        };
        assert_eq!(of(&["cuda", "cpu"]), Ok(vec![Provider::Cuda, Provider::Cpu]));
        assert_eq!(of(&["cpu", "gpu"]), Err("`gpu` is none; expected tensorrt, cuda or cpu".into()));
        assert!(of(&[]).is_err());
    }
}
