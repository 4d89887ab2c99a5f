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

#[derive(Debug)]
pub(crate) enum LoadReason {
    Unreadable(std::io::Error),
    Refused { provider: Provider, source: ort::Error },
    NoProvider(Vec<(Provider, String)>),
    Interface(String),
    Golden(GoldenError),
    Run(RunError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot serve {}: ", self.path.display())?;
        match &self.reason {
            LoadReason::Unreadable(source) => write!(f, "the file cannot be read: {source}"),
            LoadReason::Refused { provider, source } => write!(f, "ONNX Runtime ({provider}) refused it: {source}"),
            LoadReason::NoProvider(tried) => {
                f.write_str("no execution provider could be used")?;
                for (provider, reason) in tried {
                    write!(f, "; {provider}: {reason}")?;
                }
                Ok(())
            }
            LoadReason::Interface(text) => f.write_str(text),
            LoadReason::Golden(source) => write!(f, "golden check: {source}"),
            LoadReason::Run(source) => write!(f, "first run: {source}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            LoadReason::Unreadable(source) => Some(source),
            LoadReason::Refused { source, .. } => Some(source),
            LoadReason::Golden(source) => Some(source),
            LoadReason::Run(source) => Some(source),
            LoadReason::NoProvider(_) | LoadReason::Interface(_) => None,
        }
    }
}

/// A batch could not be run. Cheap to clone: every request of the batch is told.
#[derive(Debug, Clone)]
pub struct RunError {
    message: Arc<str>,
}

impl RunError {
    pub(crate) fn new(source: &ort::Error) -> Self {
        Self { message: source.to_string().into() }
    }

    /// Whether memory ran out; a smaller batch may then succeed.
    ///
    /// ONNX Runtime has no error code of its own for this, so its message is matched.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        self.message.contains("Failed to allocate memory")
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime failed: {}", self.message)
    }
}

impl std::error::Error for RunError {}
