//! Makes what is served out of what lies in the repository.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use volley_cache::{KeyHasher, Keyer};
use volley_gpu_runtime::{
    Company, Ensemble, Instances, Library, LoadError, Model, ModelConfig, ModelFolder, ModelOptions, Repository,
    RepositoryError, VersionFolder,
};
use volley_scheduler::GroupConfig;
use volley_telemetry::{MemberMetrics, ModelLabels, ModelMetrics, RecoveryMetrics};

use super::identity::{Identity, Part};
use super::served::{Groups, Kept, Member, Members, Runs, ServedVariant};
use super::{ServedModel, ServedVersion};
use crate::engine::{DeviceScheduler, Health};
use crate::results::Results;
use crate::statistics::Statistics;

/// The name under which an ensemble is counted among the variants.
const ENSEMBLE: &str = "ensemble";

/// What it takes to load a model.
#[derive(Debug)]
pub(crate) struct Loader {
    /// The folder of models.
    pub repository: PathBuf,
    /// What the server's configuration says of single models; it goes before what their folders say.
    pub configured: ArcSwap<BTreeMap<String, ModelConfig>>,
    /// What it says of all.
    pub options: ModelOptions,
    /// ONNX Runtime.
    pub library: Library,
    /// Where models' requests are queued.
    pub scheduler: DeviceScheduler,
    /// How many run batches.
    pub workers: NonZeroUsize,
    /// Where cache keys begin.
    pub keyer: Keyer,
    /// Where results are kept, if they are.
    pub results: Option<Results>,
}

impl Loader {
    /// The names of the repository's models.
    ///
    /// # Errors
    /// [`LoadFailure`] when the folder cannot be read or holds no model.
    pub(crate) fn names(&self) -> Result<Vec<String>, LoadFailure> {
        Repository::names(&self.repository).map_err(|error| LoadFailure::of_repository(&error))
    }

    /// Makes sure that all models are there of which a configuration speaks.
    ///
    /// # Errors
    /// [`LoadFailure`] when one is not, or as for [`names`](Self::names).
    pub(crate) fn find<'a>(&self, mut configured: impl Iterator<Item = &'a String>) -> Result<(), LoadFailure> {
        let names = self.names()?;
        configured.find(|name| !names.contains(name)).map_or(Ok(()), |name| {
            let path = self.repository.display();
            Err(LoadFailure::new("configuration", format!("models.{name}: the repository {path} has no such model")))
        })
    }

    /// Loads, checks and warms up every version of `name` that its policy serves.
    ///
    /// # Errors
    /// [`LoadFailure`] says what of it cannot be served, and why.
    pub(crate) fn load(&self, name: &str) -> Result<ServedModel, LoadFailure> {
        self.load_for(name, &self.configured.load())
    }

    /// The same, under a configuration that is not in force.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub(crate) fn load_for(
        &self,
        name: &str,
        configured: &BTreeMap<String, ModelConfig>,
    ) -> Result<ServedModel, LoadFailure> {
        let configured = configured.get(name).cloned().unwrap_or_default();
        let folder = ModelFolder::read(&self.repository.join(name), configured)
            .map_err(|error| LoadFailure::of_repository(&error))?;
        for text in &folder.unused {
            tracing::warn!(model = name, "{text}");
        }
        let versions = folder.served().map_err(|error| LoadFailure::of_repository(&error))?;
        let versions = versions
            .into_iter()
            .map(|version| Ok((version.number, Arc::new(self.version(name, version, &folder.config)?))))
            .collect::<Result<_, LoadFailure>>()?;
        Ok(ServedModel { versions, warm_inputs: folder.config.warm_inputs })
    }

    fn version(&self, name: &str, version: &VersionFolder, config: &ModelConfig) -> Result<ServedVersion, LoadFailure> {
        let members = config.ensemble.as_ref().map_or(&[][..], |ensemble| &ensemble.members);
        let offered: Vec<&str> = version.variants.iter().map(|file| file.name.as_str()).collect();
        let known = |field: &str, names: &[String]| {
            names.iter().find(|wanted| !offered.contains(&wanted.as_str())).map_or(Ok(()), |missing| {
                let (number, offered) = (version.number, offered.join(", "));
                let text = format!("{name}: {field}: version {number} has no `{missing}`; it has {offered}");
                Err(LoadFailure::new("configuration", text))
            })
        };
        if let Some(file) = version.variants.iter().find(|file| file.name == ENSEMBLE) {
            let text = format!(
                "{name}: {}: an ensemble is counted as `{ENSEMBLE}`; expected another name",
                file.path.display()
            );
            return Err(LoadFailure::new("configuration", text));
        }
        known("variants", config.variants.as_deref().unwrap_or_default())?;
        known("ensemble.members", members)?;
        let variants = match &config.variants {
            Some(names) => {
                let mut once = names.clone();
                let mut seen = BTreeSet::new();
                once.retain(|variant| seen.insert(variant.clone()));
                once.iter().map(|variant| self.open(name, version, variant, config)).collect::<Result<Vec<_>, _>>()?
            }
            None => vec![self.fastest(name, version, members, config)?],
        };
        let ensemble =
            if members.is_empty() { None } else { Some(self.ensemble(name, version, members, &variants, config)?) };
        Ok(ServedVersion { variants, ensemble })
    }

    /// The variant that does the most rows per second on this machine, of those that pass the golden check. Members of an
    /// ensemble are trained to differ, so but for the first they are no candidates.
    fn fastest(
        &self,
        name: &str,
        version: &VersionFolder,
        members: &[String],
        config: &ModelConfig,
    ) -> Result<Arc<ServedVariant>, LoadFailure> {
        let mut best: Option<Model> = None;
        let mut failure = None;
        for file in version.variants.iter().filter(|file| !members.iter().skip(1).any(|member| *member == file.name)) {
            match self.model(name, version, &file.name, config) {
                Ok(model) if best.as_ref().is_none_or(|best| model.rows_per_second() > best.rows_per_second()) => {
                    best = Some(model);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        model = name,
                        version = version.number,
                        variant = file.name,
                        "no candidate: {error}"
                    );
                    failure = Some(error);
                }
            }
        }
        let nothing =
            || LoadFailure::new("configuration", format!("{name}: every variant is a member of the ensemble"));
        let best = best.ok_or_else(|| failure.unwrap_or_else(nothing))?;
        self.serve(name, version, best, config)
    }

    fn ensemble(
        &self,
        name: &str,
        version: &VersionFolder,
        members: &[String],
        variants: &[Arc<ServedVariant>],
        config: &ModelConfig,
    ) -> Result<Arc<ServedVariant>, LoadFailure> {
        let number = version.number.to_string();
        let members = members
            .iter()
            .map(|member| {
                let open = variants.iter().find(|variant| variant.variant == *member).cloned();
                let variant = open.map_or_else(|| self.open(name, version, member, config), Ok)?;
                let labels = ModelLabels { model: name, version: &number, variant: member };
                Ok(Member { variant, metrics: MemberMetrics::register(labels) })
            })
            .collect::<Result<Vec<_>, LoadFailure>>()?;
        let interface =
            |text: String| LoadFailure::new("interface", format!("{name}: the ensemble of version {number}: {text}"));
        let inputs = members[0].variant.inputs();
        if let Some(other) = members.iter().find(|member| member.variant.inputs() != inputs) {
            return Err(interface(format!("the inputs of `{}` differ from the first member's", other.variant.variant)));
        }
        let ensemble = Ensemble::of(members.iter().map(|member| &**member.variant.outputs()))
            .map_err(|error| interface(error.to_string()))?;
        let models = members.iter().filter_map(|member| match &member.variant.runs {
            Runs::One(instances) => Some(instances.model()),
            Runs::Several(_) => None,
        });
        let parts = models.map(Part::of).collect();
        let identity = Identity { model: name, version: &number, variant: ENSEMBLE, parts }.begin(&self.keyer);
        let full = members.iter().map(|member| member.variant.groups.together.full_rows()).min().unwrap_or(1);
        // One whose results are not kept by itself has none in the ensemble's either.
        let mut config = config.clone();
        if members.iter().any(|member| member.variant.kept.is_none()) {
            config.cache = Some(false);
        }
        let runs = Runs::Several(Members { ensemble, members });
        Ok(self.variant(name, version, ENSEMBLE, runs, identity, full, &config))
    }

    fn open(
        &self,
        name: &str,
        version: &VersionFolder,
        variant: &str,
        config: &ModelConfig,
    ) -> Result<Arc<ServedVariant>, LoadFailure> {
        let model = self.model(name, version, variant, config)?;
        self.serve(name, version, model, config)
    }

    fn model(
        &self,
        name: &str,
        version: &VersionFolder,
        variant: &str,
        config: &ModelConfig,
    ) -> Result<Model, LoadFailure> {
        let file = version.variants.iter().find(|file| file.name == variant).expect("looked for before");
        let options = self
            .options
            .clone()
            .with(config)
            .map_err(|text| LoadFailure::new("configuration", format!("{name}: {text}")))?;
        Model::load(&self.library, version, file, options).map_err(|error| LoadFailure::of_model(&error))
    }

    fn serve(
        &self,
        name: &str,
        version: &VersionFolder,
        model: Model,
        config: &ModelConfig,
    ) -> Result<Arc<ServedVariant>, LoadFailure> {
        let variant = model.variant().to_owned();
        let (number, parts) = (version.number.to_string(), vec![Part::of(&model)]);
        let identity = Identity { model: name, version: &number, variant: &variant, parts }.begin(&self.keyer);
        let (company, best) = (model.company(), model.best_batch());
        let full = config.full_batch.unwrap_or(if company.may_be_shared() { best } else { NonZeroUsize::MIN });
        let mut config = Cow::Borrowed(config);
        // What is kept would be answered to others, who may have had other company, or other luck.
        if (company == Company::Random || (company == Company::Matters && full > NonZeroUsize::MIN))
            && config.cache.is_none()
        {
            config.to_mut().cache = Some(false);
        }
        tell_of_company(company, &ModelLabels { model: name, version: &number, variant: &variant }, full);
        let instances = Instances::open(model, self.workers).map_err(|error| LoadFailure::of_model(&error))?;
        Ok(self.variant(name, version, &variant, Runs::One(instances), identity, full.get(), &config))
    }

    #[expect(clippy::too_many_arguments, reason = "they are what a served variant is made of")]
    fn variant(
        &self,
        name: &str,
        version: &VersionFolder,
        variant: &str,
        runs: Runs,
        identity: KeyHasher,
        full: usize,
        config: &ModelConfig,
    ) -> Arc<ServedVariant> {
        let number = version.number.to_string();
        let labels = ModelLabels { model: name, version: &number, variant };
        let max = config.max_batch.unwrap_or(self.options.max_batch);
        let sizes = || match &config.batch_sizes {
            Some(sizes) => GroupConfig::of_sizes(sizes.iter().copied()),
            None => GroupConfig::up_to(max),
        };
        let full = NonZeroUsize::new(full).unwrap_or(NonZeroUsize::MIN);
        let groups = Groups {
            together: self.scheduler.add_group(sizes().full_at(full)),
            alone: self.scheduler.add_group(sizes().full_at(NonZeroUsize::MIN)),
            scheduler: self.scheduler.clone(),
        };
        Arc::new(ServedVariant {
            metrics: ModelMetrics::register(labels),
            recovery: RecoveryMetrics::register(labels),
            statistics: Statistics::new(groups.together.max_rows()),
            health: Health::default(),
            model_name: name.to_owned(),
            version: number.clone(),
            variant: variant.to_owned(),
            runs,
            max_rows: groups.together.max_rows(),
            groups,
            identity,
            kept: self.kept(name, &number, variant, config),
            allow_non_finite: config.allow_non_finite.unwrap_or(false),
        })
    }

    /// How a variant's results are kept, if they are. The variant's name is one of their tags.
    fn kept(&self, name: &str, version: &str, variant: &str, config: &ModelConfig) -> Option<Kept> {
        let results = self.results.as_ref().filter(|_| config.cache != Some(false))?;
        let tags = config.cache_tags.iter().flatten().map(String::as_str).chain([variant]);
        Some(Kept::new(results.domain(name, version, &tags.collect::<Vec<_>>())))
    }
}

/// Says what becomes of a model whose answers are not those of its rows alone; `full` rows are computed together.
fn tell_of_company(company: Company, of: &ModelLabels<'_>, full: NonZeroUsize) {
    let ModelLabels { model, version, variant } = *of;
    let together = if full > NonZeroUsize::MIN {
        "full_batch says that requests are computed together nevertheless"
    } else {
        "requests are not computed together; full_batch could say that they are nevertheless"
    };
    match company {
        Company::Indifferent => {}
        Company::Matters => {
            tracing::warn!(
                model,
                version,
                variant,
                "a row is answered otherwise among others than by itself: {together}"
            );
        }
        Company::Random => {
            let kept = "results are not kept, unless cache says so";
            tracing::warn!(
                model,
                version,
                variant,
                "a row is not answered alike when it is asked again: {kept}; {together}"
            );
        }
        Company::Unknown => tracing::info!(
            model,
            version,
            variant,
            "whether a row is answered otherwise among others could not be found out by made-up rows; golden rows would say"
        ),
    }
}

/// Why a model is not loaded, in words for its operator.
#[derive(Debug, Clone)]
pub(crate) struct LoadFailure {
    /// One of a few words, for the metrics.
    pub reason: &'static str,
    message: String,
}

impl LoadFailure {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    fn of_model(error: &LoadError) -> Self {
        Self::new(error.reason(), with_sources(error))
    }

    fn of_repository(error: &RepositoryError) -> Self {
        Self::new("repository", with_sources(error))
    }
}

impl fmt::Display for LoadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadFailure {}

/// The configured repository, or the one that ships with Volley: beside the program or its source, or here.
///
/// # Errors
/// A sentence that says where it was looked for.
pub(crate) fn repository_path(configured: Option<&Path>) -> Result<PathBuf, String> {
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
