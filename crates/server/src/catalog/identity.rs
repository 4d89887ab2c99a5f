//! What a variant's answers depend on, beside the question.

use volley_cache::{KeyHasher, Keyer};
use volley_gpu_runtime::Model;

/// A variant, by all that tells its answers from another's.
#[derive(Debug, Clone)]
pub(crate) struct Identity<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version, as the protocol writes it.
    pub version: &'a str,
    /// The variant's name.
    pub variant: &'a str,
    /// The models that answer, in the order in which they do.
    pub parts: Vec<Part<'a>>,
}

/// A model file and what runs it.
#[derive(Debug, Clone)]
pub(crate) struct Part<'a> {
    /// The bytes of its files, and of those it is run with.
    pub files: Vec<&'a [u8]>,
    /// The execution provider.
    pub provider: &'a str,
}

impl Identity<'_> {
    /// The start of the keys of its results.
    pub(crate) fn begin(&self, keyer: &Keyer) -> KeyHasher {
        let mut hasher = keyer.hasher();
        let Self { model, version, variant, parts } = self;
        hasher.field(model.as_bytes()).field(version.as_bytes()).field(variant.as_bytes());
        hasher.field(&parts.len().to_le_bytes());
        for Part { files, provider } in parts {
            hasher.field(provider.as_bytes()).field(&files.len().to_le_bytes());
            files.iter().for_each(|file| _ = hasher.field(file));
        }
        hasher
    }
}

impl<'a> Part<'a> {
    /// A model that was loaded.
    pub(super) fn of(model: &'a Model) -> Self {
        Self {
            files: model.file_bytes().chain(model.runtime_bytes()).collect(),
            provider: model.placement().provider.name(),
        }
    }
}
