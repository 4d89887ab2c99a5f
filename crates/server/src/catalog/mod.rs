//! The models that are served, by name, version and variant, and how they come and go while requests are answered.
//!
//! A load makes a whole model anew beside the one that serves, and puts it in its place in one step. Requests hold what
//! they were resolved to: what was replaced answers those it has, and is unloaded with the last of them. A load that fails
//! leaves everything as it was, and says why in the log, in the repository's index and in the metrics.

mod changes;
mod identity;
mod loader;
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use volley_gpu_runtime::ModelConfig;
use volley_telemetry::{ModelLabels, model_load_failed, model_loaded, model_unloaded};

use crate::error::{ApiError, Cause};

pub(crate) use changes::Changes;
#[cfg(test)]
pub(crate) use identity::{Identity, Part};
pub(crate) use loader::{LoadFailure, Loader, repository_path};
pub(crate) use served::{Kept, Members, Runs, ServedVariant};

/// All that is served.
#[derive(Debug)]
pub(crate) struct Catalog {
    served: ArcSwap<Served>,
    loader: Loader,
    /// Where what is served is changed, and nowhere else.
    turns: Changes,
    /// What went wrong the last time that a model was loaded, by model of the repository. Held for moments.
    failures: Mutex<BTreeMap<String, String>>,
    /// Told when something else is served.
    changed: watch::Sender<()>,
}

type Served = BTreeMap<String, ServedModel>;

/// A model with its versions; at least one.
#[derive(Debug, Clone)]
pub(crate) struct ServedModel {
    versions: BTreeMap<u64, Arc<ServedVersion>>,
    /// The file of inputs that the cache is to begin with.
    warm_inputs: Option<PathBuf>,
}

/// A version with its variants; the first is the default.
#[derive(Debug)]
pub(crate) struct ServedVersion {
    variants: Vec<Arc<ServedVariant>>,
    ensemble: Option<Arc<ServedVariant>>,
}

/// What a request asks for, beside a model.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection<'a> {
    /// The version; the latest if none.
    pub version: Option<&'a str>,
    /// The variant; the default if none.
    pub variant: Option<&'a str>,
    /// The parameter that asks for the ensemble, if one does.
    pub ensemble: Option<&'static str>,
}

/// A line of the repository's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The model.
    pub model: String,
    /// A version of it that is served, or none is.
    pub version: Option<u64>,
    /// Why it is not served, or why it is not served as it lies in the repository.
    pub reason: String,
}

impl Catalog {
    /// Loads every model of the repository.
    ///
    /// # Errors
    /// The first model that could not be loaded, and why.
    pub(crate) fn load(loader: Loader, changes: Changes) -> Result<Self, LoadFailure> {
        let mut served = Served::new();
        loader.find(loader.configured.load().keys())?;
        for name in loader.names()? {
            let model = loader.load(&name).inspect_err(|failure| model_load_failed(&name, failure.reason))?;
            served.insert(name, model);
        }
        announce(&Served::new(), &served);
        Ok(Self {
            served: ArcSwap::from_pointee(served),
            loader,
            turns: changes,
            failures: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Loads `model` as it lies in the repository now, and serves it in place of what is served under that name, whether or
    /// not this is waited for to the end.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for what the repository does not hold, 400 for what cannot be loaded, 503 where too
    /// many loads wait. What was served is served on.
    pub(crate) async fn reload(self: &Arc<Self>, model: String) -> Result<(), ApiError> {
        told(self.change(move |catalog| catalog.load_anew(&model))?.await)
    }

    /// Serves `model` no more, if it is served, whether or not this is waited for to the end. What was asked before is
    /// answered.
    ///
    /// # Errors
    /// [`ApiError`] with status 503 where too many loads wait.
    pub(crate) async fn unload(self: &Arc<Self>, model: String) -> Result<(), ApiError> {
        let take_down = move |catalog: &Self| {
            catalog.take_down(&model);
            Ok(())
        };
        told(self.change(take_down)?.await)
    }

    /// Puts other settings of single models in force: of those that are served, the ones whose settings change are loaded
    /// anew, and all put in place once all are loaded. For a thread that may wait.
    ///
    /// # Errors
    /// [`ApiError`] with status 400 for a model that does not load so, or is not in the repository, 503 where too many
    /// loads wait. What was served is served on, as it was.
    ///
    /// # Panics
    /// On a thread of a runtime.
    pub(crate) fn reconfigure(self: &Arc<Self>, configured: BTreeMap<String, ModelConfig>) -> Result<(), ApiError> {
        told(self.change(move |catalog| catalog.put_settings(configured))?.blocking_recv())
    }

    fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&Self) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<(), ApiError>>, ApiError> {
        let catalog = Arc::clone(self);
        self.turns.make(move || change(&catalog))
    }

    /// In its turn.
    fn load_anew(&self, model: &str) -> Result<(), ApiError> {
        // By its name in the list, so that no path leads out of the repository.
        let names = self.loader.names().map_err(|failure| ApiError::invalid("model repository", failure))?;
        if !names.iter().any(|name| name == model) {
            return Err(ApiError::new(Cause::NotFound, format!("the repository has no model `{model}`")));
        }
        let result = self.loader.load(model);
        let mut failures = self.failures();
        match result {
            Ok(loaded) => {
                failures.remove(model);
                drop(failures);
                self.replace(model, Some(loaded));
                tracing::info!(model, "loaded; it is served from now on");
                Ok(())
            }
            Err(failure) => {
                let serves_on = self.served.load().contains_key(model);
                tracing::error!(model, reason = failure.reason, serves_on, "not loaded: {failure}");
                model_load_failed(model, failure.reason);
                failures.insert(model.to_owned(), failure.to_string());
                Err(ApiError::invalid(format!("failed to load `{model}`"), failure))
            }
        }
    }

    /// In its turn.
    fn put_settings(&self, configured: BTreeMap<String, ModelConfig>) -> Result<(), ApiError> {
        let (before, served) = (self.loader.configured.load_full(), self.served.load_full());
        // One that was there when it was spoken of, and is gone, is no fault of this configuration.
        let news = configured.iter().filter(|(name, config)| before.get(*name) != Some(config)).map(|(name, _)| name);
        self.loader.find(news).map_err(|failure| ApiError::invalid("configuration", failure))?;
        let changed = served.keys().filter(|&name| before.get(name) != configured.get(name));
        let load = |name: &String| match self.loader.load_for(name, &configured) {
            Ok(model) => Ok((name.clone(), model)),
            Err(failure) => Err(ApiError::invalid(format!("models.{name}"), failure)),
        };
        let loaded = changed.map(load).collect::<Result<Vec<_>, _>>()?;
        self.loader.configured.store(Arc::new(configured));
        for (name, model) in loaded {
            self.failures().remove(&name);
            self.replace(&name, Some(model));
            tracing::info!(model = name, "loaded with its new settings");
        }
        Ok(())
    }

    /// In its turn.
    fn take_down(&self, model: &str) {
        if self.served.load().contains_key(model) {
            self.replace(model, None);
            tracing::info!(model, "unloaded");
        }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In its caller's turn.
    fn replace(&self, name: &str, model: Option<ServedModel>) {
        let before = self.served.load_full();
        let mut after = Served::clone(&before);
        match model {
            Some(model) => after.insert(name.to_owned(), model),
            None => after.remove(name),
        };
        let after = Arc::new(after);
        // Before anything is told to be gone: whoever reads gauges reads those of what is served.
        self.served.store(Arc::clone(&after));
        announce(&before, &after);
        self.changed.send_replace(());
    }

    /// What answers a request for `model`.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model or version that is not served, 400 for a variant that is not or an
    /// ensemble that there is not.
    pub(crate) fn find(&self, model: &str, selection: Selection<'_>) -> Result<Arc<ServedVariant>, ApiError> {
        let served = self.served.load();
        let versions = versions(&served, model)?;
        let found = match selection.version {
            None => versions.last_key_value().map(|(_, version)| version),
            // As it is written in the folder's name: `01` is not `1`.
            Some(text) => versions.iter().find(|(number, _)| number.to_string() == text).map(|(_, version)| version),
        };
        let found = found.ok_or_else(|| {
            let served: Vec<String> = versions.keys().map(u64::to_string).collect();
            let asked = selection.version.unwrap_or("latest");
            ApiError::new(
                Cause::NotFound,
                format!("model `{model}` has no version `{asked}`; served: {}", served.join(", ")),
            )
        })?;
        let field = |name| format!("parameters.{name}");
        match (selection.variant, selection.ensemble) {
            (None, None) => Ok(Arc::clone(found.variants.first().expect("a version has at least one variant"))),
            (Some(name), None) => {
                found.variants.iter().find(|served| served.variant == name).cloned().ok_or_else(|| {
                    let served: Vec<&str> = found.variants.iter().map(|served| served.variant.as_str()).collect();
                    let message = format!("`{name}` is not served; expected one of: {}", served.join(", "));
                    ApiError::invalid(field("variant"), message)
                })
            }
            (None, Some(parameter)) => found.ensemble.clone().ok_or_else(|| {
                let message = "this model has no ensemble; its config.toml names none under [ensemble] members";
                ApiError::invalid(field(parameter), message)
            }),
            (Some(name), Some(parameter)) => {
                let message = format!("given beside variant `{name}`; an ensemble has variants of its own");
                Err(ApiError::invalid(field(parameter), message))
            }
        }
    }

    /// Changes when something else is served.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// For each model whose cache is to begin with a file of inputs, that file and what answers who asks for nothing in
    /// particular.
    pub(crate) fn warm_inputs(&self) -> Vec<(PathBuf, Arc<ServedVariant>)> {
        let served = self.served.load();
        served.values().filter_map(|model| Some((model.warm_inputs.clone()?, Arc::clone(model.default()?)))).collect()
    }

    /// Whether it still is `variant` that answers who asks for nothing in particular.
    pub(crate) fn answers_by_default(&self, variant: &Arc<ServedVariant>) -> bool {
        let served = self.served.load();
        let by_default = served.get(&variant.model_name).and_then(ServedModel::default);
        by_default.is_some_and(|default| Arc::ptr_eq(default, variant))
    }

    /// The models that are served, in the order of their names.
    pub(crate) fn model_names(&self) -> Vec<String> {
        self.served.load().keys().cloned().collect()
    }

    /// The versions of `model` that are served, ascending.
    ///
    /// # Errors
    /// [`ApiError`] with status 404 for a model that is not served.
    pub(crate) fn version_names(&self, model: &str) -> Result<Vec<String>, ApiError> {
        Ok(versions(&self.served.load(), model)?.keys().map(u64::to_string).collect())
    }

    /// Every variant of every model, ensembles and their members among them.
    pub(crate) fn variants(&self) -> Vec<Arc<ServedVariant>> {
        all_variants(&self.served.load()).cloned().collect()
    }

    /// Whether everything that can be asked for takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        let served = self.served.load();
        let mut versions = served.values().flat_map(|model| model.versions.values());
        versions.all(|version| version.variants.iter().chain(&version.ensemble).all(|variant| !variant.is_out()))
    }

    /// What the repository holds and what is served of it.
    pub(crate) fn index(&self) -> Vec<IndexEntry> {
        let names = self.loader.names();
        let failures = self.failures();
        let served = self.served.load();
        let mut all: BTreeSet<&String> = served.keys().chain(failures.keys()).collect();
        all.extend(names.iter().flatten());
        let entry = |model: &String, version| {
            let failure = failures.get(model).map(|failure| match version {
                None => failure.clone(),
                Some(_) => format!("served on as it was, because loading it anew failed: {failure}"),
            });
            let unloaded = if version.is_none() { "not loaded" } else { "" };
            IndexEntry { model: model.clone(), version, reason: failure.unwrap_or_else(|| unloaded.into()) }
        };
        all.into_iter()
            .flat_map(|model| match served.get(model) {
                Some(of_model) => of_model.versions.keys().map(|&version| entry(model, Some(version))).collect(),
                None => vec![entry(model, None)],
            })
            .collect()
    }
}

impl ServedModel {
    /// The default variant of the latest version.
    fn default(&self) -> Option<&Arc<ServedVariant>> {
        self.versions.last_key_value().and_then(|(_, version)| version.variants.first())
    }
}

/// What came of a change; it tells nothing if it panicked.
fn told(changed: Result<Result<(), ApiError>, oneshot::error::RecvError>) -> Result<(), ApiError> {
    changed.unwrap_or_else(|_| Err(ApiError::new(Cause::Internal, "the load or unload ended without a word")))
}

fn versions<'a>(served: &'a Served, model: &str) -> Result<&'a BTreeMap<u64, Arc<ServedVersion>>, ApiError> {
    served.get(model).map(|model| &model.versions).ok_or_else(|| {
        let served: Vec<&str> = served.keys().map(String::as_str).collect();
        let served = if served.is_empty() { "nothing".to_owned() } else { served.join(", ") };
        ApiError::new(Cause::NotFound, format!("model `{model}` is not served; served: {served}"))
    })
}

fn all_variants(served: &Served) -> impl Iterator<Item = &Arc<ServedVariant>> {
    let versions = served.values().flat_map(|model| model.versions.values());
    versions.flat_map(|version| {
        // A member may be a variant that can be asked for by itself.
        let of_ensemble = version.ensemble.iter().flat_map(|ensemble| match &ensemble.runs {
            Runs::One(_) => vec![ensemble],
            Runs::Several(several) => {
                let members = several.members.iter().map(|member| &member.variant);
                members
                    .filter(|member| !version.variants.iter().any(|v| Arc::ptr_eq(v, member)))
                    .chain([ensemble])
                    .collect()
            }
        });
        version.variants.iter().chain(of_ensemble)
    })
}

/// Tells the metrics what is served now and was not, and the other way round.
fn announce(before: &Served, after: &Served) {
    fn labels(served: &Served) -> BTreeSet<(ModelLabels<'_>, &'static str)> {
        all_variants(served).map(|variant| (variant.labels(), variant.provider())).collect()
    }
    let (before, after) = (labels(before), labels(after));
    for &(labels, provider) in before.difference(&after) {
        model_unloaded(labels, provider);
    }
    for &(labels, provider) in after.difference(&before) {
        model_loaded(labels, provider);
    }
}
