//! The models that are served, by name, version and variant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use volley_cache::{KeyHasher, Keyer};
use volley_gpu_runtime::{
    BASELINE_VARIANT, Library, Model, ModelOptions, Provider, ProviderPreference, Repository, TensorSpec, VersionFolder,
};
use volley_scheduler::{GroupConfig, GroupId};
use volley_telemetry::{ModelLabels, ModelMetrics, model_loaded};

use crate::codec::Interface;
use crate::config::{Config, ModelConfig, RuntimeConfig};
use crate::engine::DeviceScheduler;
use crate::error::{ApiError, Cause};

/// The variant that is served when the configuration names none, if the model has it.
const PREFERRED_VARIANT: &str = "int8";

/// All that is served.
#[derive(Debug)]
pub(crate) struct Catalog {
    models: BTreeMap<String, ServedModel>,
}

/// A model with its versions.
#[derive(Debug)]
pub(crate) struct ServedModel {
    versions: BTreeMap<u64, ServedVersion>,
}

/// A version with its variants; the first is the default.
#[derive(Debug)]
pub(crate) struct ServedVersion {
    variants: Vec<Arc<ServedVariant>>,
}

/// What a request is answered by.
#[derive(Debug)]
pub(crate) struct ServedVariant {
    /// The model's name.
    pub model_name: String,
    /// The version, as the protocol writes it.
    pub version: String,
    /// The variant's name.
    pub variant: String,
    /// The loaded file.
    pub model: Model,
    /// What may share a batch with this.
    pub group: GroupId,
    /// The start of its cache keys: the file, its provider and the variant's name.
    pub identity: KeyHasher,
    /// Where its requests are counted.
    pub metrics: ModelMetrics,
    settings: ModelConfig,
}

impl ServedVariant {
    /// What a request for this variant must look like.
    pub(crate) fn interface(&self) -> Interface<'_> {
        Interface {
            inputs: self.model.inputs(),
            outputs: self.model.outputs(),
            max_rows: self.settings.max_batch.get(),
            allow_non_finite: self.settings.allow_non_finite,
        }
    }

    /// The model's inputs.
    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        self.model.inputs()
    }

    /// The model's outputs.
    pub(crate) fn outputs(&self) -> &Arc<[TensorSpec]> {
        self.model.outputs()
    }
}

impl Catalog {
    /// Loads the latest version of each model of the configured repository and registers it with the scheduler.
    ///
    /// # Errors
    /// A sentence that says which model could not be served, and why.
    pub(crate) fn load(
        config: &Config,
        library: &Library,
        scheduler: &DeviceScheduler,
        keyer: &Keyer,
    ) -> Result<Self, String> {
        let path = repository_path(config.model_repository.as_deref())?;
        let repository = Repository::open(&path).map_err(|e| with_sources(&e))?;
        let unknown: Vec<_> =
            config.models.keys().filter(|name| !repository.models.iter().any(|model| model.name == **name)).collect();
        if let Some(name) = unknown.first() {
            return Err(format!("models.{name}: the repository {} has no such model", path.display()));
        }
        let providers = provider_preference(&config.runtime)?;
        let mut models = BTreeMap::new();
        for folder in &repository.models {
            let settings = config.model(&folder.name);
            let options = ModelOptions {
                max_batch: settings.max_batch,
                intra_op_threads: config.runtime.intra_op_threads,
                providers: providers.clone(),
                golden_tolerance: settings.golden_tolerance,
                ..ModelOptions::default()
            };
            let version = folder.latest();
            let mut variants = Vec::new();
            for name in chosen_variants(&folder.name, version, &settings)? {
                let file = version.variants.iter().find(|file| file.name == name).expect("chosen from these");
                let model =
                    Model::load(library, version, file, options.clone()).map_err(|error| with_sources(&error))?;
                let mut identity = keyer.hasher();
                identity
                    .field(model.file_bytes())
                    .field(model.placement().provider.name().as_bytes())
                    .field(name.as_bytes());
                let full = settings.full_batch.unwrap_or(model.best_batch());
                let number = version.number.to_string();
                let labels = ModelLabels { model: &folder.name, version: &number, variant: name };
                model_loaded(labels, model.placement().provider.name());
                variants.push(Arc::new(ServedVariant {
                    metrics: ModelMetrics::register(labels),
                    model_name: folder.name.clone(),
                    version: number.clone(),
                    variant: name.to_owned(),
                    group: scheduler.add_group(GroupConfig::up_to(settings.max_batch).full_at(full)),
                    identity,
                    settings: settings.clone(),
                    model,
                }));
            }
            let versions = BTreeMap::from([(version.number, ServedVersion { variants })]);
            models.insert(folder.name.clone(), ServedModel { versions });
        }
        Ok(Self { models })
    }

    /// The variant that answers a request for `model`, in `version` if named, else the latest.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model or version that is not served, 400 for a variant that is not.
    pub(crate) fn find(
        &self,
        model: &str,
        version: Option<&str>,
        variant: Option<&str>,
    ) -> Result<&Arc<ServedVariant>, ApiError> {
        let versions = &self.versions(model)?.versions;
        let found = match version {
            None => versions.last_key_value().map(|(_, version)| version),
            // As it is written in the folder's name: `01` is not `1`.
            Some(text) => versions.iter().find(|(number, _)| number.to_string() == text).map(|(_, version)| version),
        };
        let found = found.ok_or_else(|| {
            let served: Vec<String> = versions.keys().map(u64::to_string).collect();
            let asked = version.unwrap_or("latest");
            ApiError::new(
                Cause::NotFound,
                format!("model `{model}` has no version `{asked}`; served: {}", served.join(", ")),
            )
        })?;
        match variant {
            None => Ok(found.variants.first().expect("a version has at least one variant")),
            Some(name) => found.variants.iter().find(|served| served.variant == name).ok_or_else(|| {
                let served: Vec<&str> = found.variants.iter().map(|served| served.variant.as_str()).collect();
                ApiError::invalid(
                    "parameters.variant",
                    format!("`{name}` is not served; expected one of: {}", served.join(", ")),
                )
            }),
        }
    }

    /// The versions of `model` that are served, ascending.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model that is not served.
    pub(crate) fn version_names(&self, model: &str) -> Result<Vec<String>, ApiError> {
        Ok(self.versions(model)?.versions.keys().map(u64::to_string).collect())
    }

    /// Every variant of every model.
    pub(crate) fn variants(&self) -> impl Iterator<Item = &Arc<ServedVariant>> {
        self.models.values().flat_map(|model| model.versions.values()).flat_map(|version| &version.variants)
    }

    fn versions(&self, model: &str) -> Result<&ServedModel, ApiError> {
        self.models.get(model).ok_or_else(|| {
            let served: Vec<&str> = self.models.keys().map(String::as_str).collect();
            ApiError::new(Cause::NotFound, format!("model `{model}` is not served; served: {}", served.join(", ")))
        })
    }
}

/// The configured repository, or the one that ships with Volley: beside the program or its source, or here.
fn repository_path(configured: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = configured {
        return Ok(path.to_path_buf());
    }
    let working = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let starts = [working.as_deref(), program.as_deref().and_then(Path::parent)];
    let candidates: Vec<PathBuf> =
        starts.into_iter().flatten().flat_map(Path::ancestors).map(|folder| folder.join("models/repository")).collect();
    candidates.iter().find(|path| path.is_dir()).cloned().ok_or_else(|| {
        let first = candidates.first().map(|path| path.display().to_string()).unwrap_or_default();
        format!("no model repository: give one with --model-repository DIR; looked for {first} and the same above")
    })
}

fn provider_preference(config: &RuntimeConfig) -> Result<ProviderPreference, String> {
    let order = config
        .providers
        .iter()
        .map(|name| {
            Provider::from_name(name)
                .ok_or_else(|| format!("runtime.providers: `{name}` is none; expected tensorrt, cuda or cpu"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if order.is_empty() {
        return Err("runtime.providers: empty; expected at least one of tensorrt, cuda, cpu".into());
    }
    Ok(ProviderPreference { order, require: config.require, device: config.device })
}

fn chosen_variants<'a>(
    model: &str,
    version: &'a VersionFolder,
    settings: &'a ModelConfig,
) -> Result<Vec<&'a str>, String> {
    let offered: Vec<&str> = version.variants.iter().map(|file| file.name.as_str()).collect();
    if settings.variants.is_empty() {
        let preferred = [PREFERRED_VARIANT, BASELINE_VARIANT, offered[0]];
        return Ok(preferred.into_iter().filter(|name| offered.contains(name)).take(1).collect());
    }
    if let Some(missing) = settings.variants.iter().find(|name| !offered.contains(&name.as_str())) {
        return Err(format!(
            "models.{model}.variants: there is no `{missing}`; the repository has {}",
            offered.join(", ")
        ));
    }
    Ok(settings.variants.iter().map(String::as_str).collect())
}

/// An error with its causes, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
