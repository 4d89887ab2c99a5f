//! The configuration in its layers, and what they come to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::environment::{self, take_text};
use super::file::{ConfigFile, unknown_profile};
use super::leaves::{Leaves, Origin};
use super::problem::{Complaints, ConfigError, Problem};
use super::{Config, Profile};

/// The file that is read where none is named, if it is there.
const DEFAULT_FILE: &str = "volley.toml";

/// A setting that the command line gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The option, as it is written: `--http-port`.
    pub option: &'static str,
    /// The setting: `http.port`.
    pub path: &'static str,
    /// Its value, as it was written.
    pub text: String,
}

/// What there is to read: each layer goes before those above it.
#[derive(Debug, Clone)]
struct Layers {
    profile: Profile,
    /// The file that was named.
    named: Option<PathBuf>,
    file: Option<ConfigFile>,
    variables: Vec<(String, String)>,
    options: Vec<Override>,
    /// What the admin API said; a table.
    admin: Value,
}

/// A configuration that is right, with where each setting was said.
#[derive(Debug, Clone)]
pub struct Settings {
    layers: Layers,
    config: Arc<Config>,
    pub(crate) leaves: Leaves,
}

impl Settings {
    /// Reads the configuration: defaults, then what `profile` changes, then `file` (or `volley.toml` in the working
    /// directory, if it is there), then environment variables named `VOLLEY_<SECTION>__<FIELD>`, then `options`.
    ///
    /// Where no profile is named, `VOLLEY_PROFILE` names it; it is `development` otherwise.
    ///
    /// # Errors
    /// [`ConfigError`] names everything that is wrong, and where it was said.
    pub fn read(file: Option<&Path>, profile: Option<&str>, options: Vec<Override>) -> Result<Self, ConfigError> {
        let variables = environment::variables();
        let mut problems = Vec::new();
        let of_variable = variables.iter().find(|(name, _)| name == environment::PROFILE);
        let chosen = match (profile, of_variable) {
            (Some(name), _) => Some((name, Origin::Option("--profile"))),
            (None, Some((variable, name))) => Some((name.as_str(), Origin::Variable(variable.clone()))),
            (None, None) => None,
        };
        let profile = chosen.map_or(Some(Profile::default()), |(name, origin)| {
            let profile = Profile::of_name(name);
            problems.extend(profile.is_none().then(|| unknown_profile(origin, name)));
            profile
        });
        let named = file.map(Path::to_owned);
        let file = read_file(named.as_deref()).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let profile = profile.unwrap_or_default();
        let layers = Layers { profile, named, file, variables, options, admin: Value::Object(Map::new()) };
        layers.resolve(problems)
    }

    /// The same layers, with the file as it is now.
    ///
    /// # Errors
    /// [`ConfigError`], as for [`read`](Self::read).
    pub fn reread(&self) -> Result<Self, ConfigError> {
        let mut layers = self.layers.clone();
        let read = || match &self.layers.file {
            Some(before) if !before.lasts => Ok(Some(before.clone())),
            _ if exists_and_does_not_last(self.file()) => {
                let (origin, path) = (Origin::Option("--config"), self.file().display().to_string());
                let text = "the configuration file is no file any more; what it said stays in force".into();
                Err(Problem { origin, path, text })
            }
            _ => read_file(layers.named.as_deref()),
        };
        let file = read().and_then(|file| match (file, &self.layers.file) {
            // It may be about to be written anew. What it said is not taken back by its absence.
            (None, Some(before)) => Err(Problem {
                origin: Origin::Option("--config"),
                path: before.path.display().to_string(),
                text: "the configuration file is gone; one that says nothing would be right for the defaults".into(),
            }),
            (file, _) => Ok(file),
        });
        layers.file = file.map_err(|problem| ConfigError { problems: vec![problem] })?;
        layers.resolve(Vec::new())
    }

    /// The same layers, with `settings` as the last: a table of what goes before everything else while the server runs.
    ///
    /// # Errors
    /// [`ConfigError`], as for [`read`](Self::read).
    pub fn with_last_layer(&self, settings: Value) -> Result<Self, ConfigError> {
        Layers { admin: settings, ..self.layers.clone() }.resolve(Vec::new())
    }

    /// What [`with_last_layer`](Self::with_last_layer) was told; an empty table if nothing.
    #[must_use]
    pub fn last_layer(&self) -> &Value {
        &self.layers.admin
    }

    /// The file that is read, if it is there.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.layers.named.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// What the settings come to.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The profile that was chosen.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.layers.profile
    }
}

impl Layers {
    /// `problems` are those that were met on the way here.
    fn resolve(self, mut problems: Vec<Problem>) -> Result<Settings, ConfigError> {
        let defaults = serde_json::to_value(Config::default()).expect("the defaults can be written");
        let mut leaves = Leaves::of(&defaults, &Origin::Default);
        leaves.0.extend(Leaves::of(&self.profile.changes(), &Origin::Profile(self.profile.name())).0);
        for layer in self.file.iter().flat_map(|file| file.read(self.profile, &mut problems)) {
            leaves.0.extend(layer.0);
        }
        leaves.0.extend(environment::read(&self.variables, &mut problems).0);
        let mut of_options = Leaves::default();
        for Override { option, path, text } in &self.options {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            take_text(&mut of_options, &path, text, &Origin::Option(option), &mut problems);
        }
        leaves.0.extend(of_options.0);
        let mut of_admin = Leaves::default();
        of_admin.take(&[], &self.admin, &|_| Origin::Admin, &mut problems);
        leaves.0.extend(of_admin.0);
        // What is wrong was left out, so that the rest can be checked.
        match serde_json::from_value::<Config>(leaves.to_value()) {
            Ok(config) => {
                let mut complaints = Complaints::default();
                config.check(&mut complaints);
                problems.extend(complaints.located(&leaves));
                if problems.is_empty() {
                    return Ok(Settings { layers: self, config: Arc::new(config), leaves });
                }
            }
            // Only if a type and its schema disagree.
            Err(error) if problems.is_empty() => {
                problems.push(Problem { origin: Origin::Default, path: String::new(), text: error.to_string() });
            }
            Err(_) => {}
        }
        // As whoever puts them right comes to them.
        problems.sort_by(|one, other| one.origin.cmp(&other.origin));
        Err(ConfigError { problems })
    }
}

fn exists_and_does_not_last(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file())
}

/// The file that was named, or the default one if it is there.
fn read_file(named: Option<&Path>) -> Result<Option<ConfigFile>, Problem> {
    let path: Arc<Path> = Arc::from(named.unwrap_or(Path::new(DEFAULT_FILE)));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(ConfigFile { lasts: !exists_and_does_not_last(&path), path, text })),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let text = match error.kind() {
                io::ErrorKind::NotFound => "the configuration file does not exist".into(),
                io::ErrorKind::InvalidData => "the configuration file is not UTF-8 text".into(),
                _ => format!("the configuration file cannot be read: {error}"),
            };
            Err(Problem { origin: Origin::Option("--config"), path: path.display().to_string(), text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_file_that_is_gone_takes_back_nothing_of_what_it_said() {
        let layers = |file| Layers {
            profile: Profile::default(),
            named: None,
            file,
            variables: Vec::new(),
            options: Vec::new(),
            admin: Value::Object(Map::new()),
        };
        // There is none where this crate's tests run.
        let file =
            ConfigFile { path: Path::new(DEFAULT_FILE).into(), text: "[limits]\nheaders = 40".into(), lasts: true };
        let before = layers(Some(file)).resolve(Vec::new()).expect("it is right");
        let refusal = before.reread().expect_err("it is gone").to_string();
        assert!(refusal.contains("volley.toml: the configuration file is gone"), "{refusal}");
        let without = layers(None).resolve(Vec::new()).expect("it is right");
        assert!(without.reread().is_ok(), "one that never was is not missed");
        let pipe =
            ConfigFile { path: Path::new("/dev/null").into(), text: "[limits]\nheaders = 40".into(), lasts: false };
        let before = layers(Some(pipe)).resolve(Vec::new()).expect("it is right");
        let after = before.reread().expect("what was no file is not read again");
        assert_eq!(after.config().limits.headers, before.config().limits.headers);
    }
}
