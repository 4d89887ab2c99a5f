//! What can go wrong with a model: at load, and in a run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::golden::GoldenError;
use crate::provider::Provider;

/// A model file cannot be served. The message names the file and what was expected of it.
#[derive(Debug)]
pub struct LoadError {
    pub(crate) path: PathBuf,
    pub(crate) reason: LoadReason,
}

impl LoadError {
    /// The reason in one word, for a metric's label: `unreadable` (the file), `external` (a file that tensors of it are
    /// in), `memory` (does not suffice for it beside what there is), `no_operators` (a library of them cannot be read), `refused` (by ONNX Runtime), `no_provider` (none that was asked for starts), `interface` (not the inputs and outputs that can be served, or were declared),
    /// `options` (they contradict each other), `golden` (wrong answers, or no good golden file), `run` (the first runs
    /// failed).
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.reason {
            LoadReason::Unreadable(_) => "unreadable",
            LoadReason::External(_) => "external",
            LoadReason::Memory { .. } => "memory",
            LoadReason::NoOperators(..) => "no_operators",
            LoadReason::Refused { .. } => "refused",
            LoadReason::NoProvider(_) => "no_provider",
            LoadReason::Interface(_) => "interface",
            LoadReason::Options(_) => "options",
            LoadReason::Golden(_) => "golden",
            LoadReason::Run(_) => "run",
        }
    }
}

#[derive(Debug)]
pub(crate) enum LoadReason {
    Unreadable(std::io::Error),
    External(String),
    /// Bytes that it needs, roughly, and that there are.
    Memory {
        needed: u64,
        available: u64,
    },
    NoOperators(PathBuf, std::io::Error),
    Refused {
        provider: Provider,
        source: ort::Error,
    },
    NoProvider(Vec<(Provider, String)>),
    Interface(String),
    Options(String),
    Golden(GoldenError),
    Run(RunError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot serve {}: ", self.path.display())?;
        match &self.reason {
            LoadReason::Unreadable(source) => write!(f, "the file cannot be read: {source}"),
            LoadReason::NoOperators(library, source) => {
                write!(f, "the library of operators {} cannot be read: {source}", library.display())
            }
            LoadReason::Memory { needed, available } => {
                let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
                let (needed, available) = (megabytes(*needed), megabytes(*available));
                write!(
                    f,
                    "memory does not suffice: about {needed} MB are needed beside what serves now, {available} MB are there"
                )
            }
            LoadReason::Refused { provider, source } => write!(f, "ONNX Runtime ({provider}) refused it: {source}"),
            LoadReason::NoProvider(tried) => {
                f.write_str("no execution provider could be used")?;
                for (provider, reason) in tried {
                    write!(f, "; {provider}: {reason}")?;
                }
                Ok(())
            }
            LoadReason::External(text) | LoadReason::Interface(text) | LoadReason::Options(text) => f.write_str(text),
            LoadReason::Golden(source) => write!(f, "golden check: {source}"),
            LoadReason::Run(source) => write!(f, "first run: {source}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            LoadReason::Unreadable(source) | LoadReason::NoOperators(_, source) => Some(source),
            LoadReason::Refused { source, .. } => Some(source),
            LoadReason::Golden(source) => Some(source),
            LoadReason::Run(source) => Some(source),
            LoadReason::Memory { .. }
            | LoadReason::External(_)
            | LoadReason::NoProvider(_)
            | LoadReason::Interface(_)
            | LoadReason::Options(_) => None,
        }
    }
}

/// A batch could not be run. Cheap to clone: every request of the batch is told.
///
/// Unless a predicate says otherwise the session may be broken, and another should take its place.
#[derive(Debug, Clone)]
pub struct RunError {
    kind: RunErrorKind,
    message: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunErrorKind {
    OutOfMemory,
    Interrupted,
    Failed,
}

impl RunErrorKind {
    /// ONNX Runtime has no error codes of their own for these, so its messages are matched.
    fn of(message: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
        // By an arena; by an operator on the CPU; by CUDA; by its libraries of kernels.
        if says(&["Failed to allocate memory", "std::bad_alloc", "out of memory", "_STATUS_ALLOC_FAILED"]) {
            Self::OutOfMemory
        } else if says(&["terminate flag"]) {
            Self::Interrupted
        } else {
            Self::Failed
        }
    }
}

impl RunError {
    pub(crate) fn new(source: &ort::Error) -> Self {
        let message = source.to_string();
        Self { kind: RunErrorKind::of(&message), message: message.into() }
    }

    /// Whether memory did not suffice for a single row, or for new output buffers. Of more rows than one, fewer were
    /// tried.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.kind == RunErrorKind::OutOfMemory
    }

    /// Whether the run was ended by an [`Interrupter`](crate::Interrupter).
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.kind == RunErrorKind::Interrupted
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime failed: {}", self.message)
    }
}

impl std::error::Error for RunError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_onnx_runtime_says_tells_a_shortage_from_a_fault() {
        use RunErrorKind::{Failed, Interrupted, OutOfMemory};
        for (message, kind) in [
            (
                "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 3932160",
                OutOfMemory,
            ),
            ("std::bad_alloc", OutOfMemory),
            ("CUDA failure 2: out of memory ; GPU=0", OutOfMemory),
            ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0", OutOfMemory),
            ("Exiting due to terminate flag being set to true.", Interrupted),
            ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", Failed),
            ("CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED", Failed),
        ] {
            assert_eq!(RunErrorKind::of(message), kind, "{message}");
        }
    }
}
