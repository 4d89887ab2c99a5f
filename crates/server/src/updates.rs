//! Changing the configuration while requests are answered: all of an update, or nothing of it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use volley_telemetry::logs::Filter;

use crate::access::{Access, Tenants};
use crate::catalog::Catalog;
use crate::config::{Change, Config, ConfigError, Settings, changes};
use crate::error::ApiError;

/// What is in force: a request sees one of these from its first byte to its last.
#[derive(Debug)]
pub(crate) struct InForce {
    /// The settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub access: Access,
}

/// Where an update comes from, as the audit lines name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Author {
    /// The file changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin API, and who spoke to it.
    Admin(String),
}

/// Why an update is not made. What was in force stays in force.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The configuration is wrong.
    Wrong(ConfigError),
    /// These can only change with a restart.
    Fixed(Vec<Change>),
    /// A model does not load with its new settings.
    Model(ApiError),
}

/// Puts configurations in force.
#[derive(Debug)]
pub(crate) struct Updates {
    /// What is in force, with where it was said. Written under `updating`.
    settings: ArcSwap<Settings>,
    /// Whoever updates holds it, for as long as models take to load.
    updating: Mutex<()>,
    in_force: Arc<ArcSwap<InForce>>,
    tenants: Tenants,
    catalog: Arc<Catalog>,
    log: Option<Filter>,
}

impl Updates {
    /// Starts from `settings`. Without `log`, the log's filter stays as it is.
    pub(crate) fn new(settings: Settings, tenants: Tenants, catalog: Arc<Catalog>, log: Option<Filter>) -> Self {
        let config = Arc::clone(settings.config());
        let access = Access::of(&config.security, &tenants, None, Instant::now());
        let in_force = Arc::new(ArcSwap::from_pointee(InForce { config, access }));
        Self { settings: ArcSwap::from_pointee(settings), updating: Mutex::default(), in_force, tenants, catalog, log }
    }

    /// What is in force, now and after each update.
    pub(crate) fn in_force(&self) -> &Arc<ArcSwap<InForce>> {
        &self.in_force
    }

    /// The settings in force, with where each was said.
    pub(crate) fn settings(&self) -> Settings {
        Settings::clone(&self.settings.load())
    }

    /// Puts in force what `make` makes of the settings in force, or nothing of it. Returns what has changed. Each change,
    /// and each refusal, is a line of the log. Waits for an update that is under way, and for models to load.
    ///
    /// # Errors
    /// [`Refused`] says why everything stays as it was.
    pub(crate) fn apply(
        &self,
        author: &Author,
        make: impl FnOnce(&Settings) -> Result<Settings, ConfigError>,
    ) -> Result<Vec<Change>, Refused> {
        let result = self.try_apply(make);
        match &result {
            Ok(changes) if changes.is_empty() => tracing::debug!(by = %author, "the configuration is as it was"),
            Ok(changes) => {
                for Change { path, before, after, .. } in changes {
                    tracing::info!(by = %author, path, before, after, "setting changed");
                }
            }
            Err(refused) => {
                tracing::error!(by = %author, reason = %refused, "configuration refused; what was in force stays in force");
            }
        }
        result
    }

    fn try_apply(&self, make: impl FnOnce(&Settings) -> Result<Settings, ConfigError>) -> Result<Vec<Change>, Refused> {
        let _updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = self.settings.load_full();
        let next = make(&settings).map_err(Refused::Wrong)?;
        let changed = changes(&settings, &next);
        let fixed: Vec<Change> = changed.iter().filter(|change| !change.live).cloned().collect();
        if !fixed.is_empty() {
            return Err(Refused::Fixed(fixed));
        }
        if !changed.is_empty() {
            let (before, config) = (settings.config(), next.config());
            if before.models != config.models {
                self.catalog.reconfigure(config.models.clone()).map_err(Refused::Model)?;
            }
            // From here on nothing fails: the filter was checked with the rest.
            if let Some(log) = self.log.as_ref().filter(|_| before.log.filter != config.log.filter) {
                let _ = log.set(&config.log.filter);
            }
            let access =
                Access::of(&config.security, &self.tenants, Some(&self.in_force.load().access), Instant::now());
            self.in_force.store(Arc::new(InForce { config: Arc::clone(config), access }));
        }
        self.settings.store(Arc::new(next));
        Ok(changed)
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Signal => f.write_str("SIGHUP"),
            Self::Admin(name) => write!(f, "admin {name}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(error) => error.fmt(f),
            Self::Fixed(changes) => {
                let changes: BTreeSet<String> = changes.iter().map(Change::to_string).collect();
                let changes: Vec<String> = changes.into_iter().collect();
                write!(f, "these can only change with a restart, so nothing was changed: {}", changes.join("; "))
            }
            Self::Model(error) => f.write_str(&error.message),
        }
    }
}
