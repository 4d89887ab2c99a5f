//! What the program looks at: one version of a model, and how it is run.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use volley_gpu_runtime::{
    BASELINE_VARIANT, Library, LoadError, Model, ModelConfig, ModelOptions, ProviderPreference, VariantFile,
    VersionFolder,
};

/// How models are run.
#[derive(Debug, Args)]
pub(crate) struct Running {
    /// Execution providers in order of preference: tensorrt, cuda, cpu
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAMES")]
    providers: Option<Vec<String>>,
    /// Fail rather than run on another provider than the first
    #[arg(long, global = true)]
    require: bool,
    /// Rows of the largest batch
    #[arg(long, global = true, value_name = "N")]
    max_batch: Option<NonZeroUsize>,
    /// Threads within an operator
    #[arg(long, global = true, default_value_t = NonZeroUsize::MIN, value_name = "N")]
    threads: NonZeroUsize,
    /// The ONNX Runtime library; looked for if not given
    #[arg(long, global = true, value_name = "FILE")]
    library: Option<PathBuf>,
}

/// A version, the library that runs it, and the options.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) version: VersionFolder,
    pub(crate) options: ModelOptions,
    library: Library,
}

impl Subject {
    /// The version in the folder at `path`, or the single variant in the file there.
    pub(crate) fn open(path: &Path, running: &Running) -> Result<Self, Box<dyn Error>> {
        let path = std::path::absolute(path)?;
        if !path.exists() {
            return Err(format!("{}: there is no such file or folder", path.display()).into());
        }
        let folder = if path.is_file() { path.parent().unwrap_or(&path) } else { &path };
        let model = folder.parent().unwrap_or(folder);
        let config = if path.is_file() { ModelConfig::default() } else { ModelConfig::read(model)?.0 };
        let version = if path.is_file() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let variants = vec![VariantFile { name, path: path.clone() }];
            VersionFolder { number: 1, path: folder.into(), variants, golden: None }
        } else {
            VersionFolder::read(&path, config.default_model_filename.as_deref().unwrap_or("model.onnx"))?
        };
        let asked =
            ModelConfig { max_batch: running.max_batch, providers: running.providers.clone(), ..Default::default() };
        let options = ModelOptions {
            intra_op_threads: running.threads,
            providers: ProviderPreference { require: running.require, ..Default::default() },
            ..Default::default()
        };
        let options = options.with(&asked.or(config)).map_err(|text| format!("{}: {text}", model.display()))?;
        Ok(Self { version, options, library: Library::load(running.library.as_deref())? })
    }

    /// Loads a variant, which includes its golden check.
    pub(crate) fn load(&self, variant: &VariantFile) -> Result<Model, LoadError> {
        Model::load(&self.library, &self.version, variant, self.options.clone())
    }

    /// Loads a variant and keeps what was learned of it.
    pub(crate) fn compile(&self, variant: &VariantFile) -> Result<Model, LoadError> {
        Model::compile(&self.library, &self.version, variant, self.options.clone())
    }

    /// Loads every variant, the baseline first; it is the first in the folder if there is no `fp32`.
    pub(crate) fn load_all(&self) -> Result<Vec<Model>, LoadError> {
        let mut variants: Vec<_> = self.version.variants.iter().collect();
        variants.sort_by_key(|variant| variant.name != BASELINE_VARIANT);
        variants.into_iter().map(|variant| self.load(variant)).collect()
    }
}
