//! Settings one by one, by path, each with where it was said: what the layers of a configuration are made of.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::problem::Problem;
use super::shape::{Field, Shape, root};

/// Where a setting was said; in the order of the layers, and in the file of its lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Nowhere.
    Default,
    /// By the choice of a profile.
    Profile(&'static str),
    /// In the configuration file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
    },
    /// By an environment variable of this name.
    Variable(String),
    /// By this option of the command line.
    Option(&'static str),
    /// By the admin API, while the server runs.
    Admin,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(text) => f.write_str(text),
            Self::Option(text) => f.write_str(text),
            Self::Admin => f.write_str("admin API"),
        }
    }
}

/// A setting's path: `["http", "port"]`.
pub(crate) type SettingPath = Vec<String>;

/// A setting's value, and where it was said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaf {
    pub value: Value,
    pub origin: Origin,
}

/// Settings by path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Leaves(pub BTreeMap<SettingPath, Leaf>);

impl Leaves {
    /// Takes in `value` at `path`; what is no setting, or cannot have this value, goes to `problems` instead. `locate`
    /// says where something was said, by its path.
    pub(super) fn take(
        &mut self,
        path: &[String],
        value: &Value,
        locate: &dyn Fn(&[String]) -> Origin,
        problems: &mut Vec<Problem>,
    ) {
        let found = match find(path) {
            Ok(found) => found,
            Err(missing) => return problems.push(missing.problem(locate(path))),
        };
        match (found.shape, value) {
            (Shape::Table(_) | Shape::Named(_), Value::Object(table)) if !table.is_empty() || path.is_empty() => {
                for (name, value) in table {
                    let path = [path, std::slice::from_ref(name)].concat();
                    self.take(&path, value, locate, problems);
                }
            }
            // Nothing is said of anything, except that there is an entry of this name.
            (Shape::Table(_), Value::Object(_)) if !found.entry => {}
            (shape, value) => {
                let origin = locate(path);
                if shape.admits(value) {
                    self.0.insert(path.to_vec(), Leaf { value: value.clone(), origin });
                } else {
                    let hidden = found.secret || shape.holds_secret();
                    let is = if hidden { "the value is not shown".to_owned() } else { shown(value) };
                    problems.push(Problem { origin, path: path.join("."), text: format!("{is}; expected {shape}") });
                }
            }
        }
    }

    /// All of `values`, said in one place, that are settings: defaults and profiles, which are right.
    pub(super) fn of(values: &Value, origin: &Origin) -> Self {
        let (mut leaves, mut problems) = (Self::default(), Vec::new());
        leaves.take(&[], &without_null(values), &|_| origin.clone(), &mut problems);
        debug_assert!(problems.is_empty(), "{problems:?}");
        leaves
    }

    /// Where `path` was said; if it was not, where the nearest of what it is a part of, or has as a part, was.
    pub(super) fn origin_of(&self, path: &str) -> Origin {
        let path: SettingPath = path.split('.').map(str::to_owned).collect();
        let within = (0..=path.len()).rev().find_map(|length| {
            let part = &path[..length];
            self.0.range(part.to_vec()..).next().filter(|(other, _)| length > 0 && other.starts_with(part))
        });
        within.map_or(Origin::Default, |(_, leaf)| leaf.origin.clone())
    }

    /// The values as one tree.
    pub(super) fn to_value(&self) -> Value {
        let mut tree = Map::new();
        for (path, leaf) in &self.0 {
            let Some((last, tables)) = path.split_last() else { continue };
            let table = tables.iter().fold(&mut tree, |table, name| {
                let inner = table.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                inner.as_object_mut().expect("settings are in tables")
            });
            table.insert(last.clone(), leaf.value.clone());
        }
        Value::Object(tree)
    }
}

/// What the tree of settings has at a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(super) shape: &'static Shape,
    /// Whether it is one of several of the same shape, with a name of the operator's own.
    pub(super) entry: bool,
    /// Whether it can change while the server runs.
    pub live: bool,
    /// Whether its value is for nobody's eyes.
    pub secret: bool,
}

/// A path that leads to no setting.
#[derive(Debug)]
pub(super) struct Missing {
    path: String,
    name: String,
    known: Vec<&'static String>,
}

/// The setting at `path`, or the table.
pub(super) fn find(path: &[String]) -> Result<Found, Missing> {
    let mut found = Found { shape: root(), entry: false, live: false, secret: false };
    for (depth, name) in path.iter().enumerate() {
        found = match found.shape {
            Shape::Table(fields) => match fields.get(name) {
                Some(Field { shape, live, secret, .. }) => {
                    Found { shape, entry: false, live: found.live || *live, secret: found.secret || *secret }
                }
                None => {
                    let path = path[..=depth].join(".");
                    return Err(Missing { path, name: name.clone(), known: fields.keys().collect() });
                }
            },
            Shape::Named(shape) => Found { shape, entry: true, ..found },
            _ => return Err(Missing { path: path[..=depth].join("."), name: name.clone(), known: Vec::new() }),
        };
    }
    Ok(found)
}

/// Names of settings are shorter than this.
const LONGEST: usize = 100;

impl Missing {
    /// Its value is not told: what is misspelt may be a secret.
    pub(super) fn problem(self, origin: Origin) -> Problem {
        // A long one is like none, and would take long to compare.
        let known = self.known.iter().filter(|_| self.name.len() <= LONGEST);
        let near = known.map(|known| (strsim::damerau_levenshtein(known, &self.name), known));
        let near = near.min().filter(|(distance, known)| *distance <= 1 + known.len() / 4);
        let text = match (near, &self.known[..]) {
            (Some((_, known)), _) => format!("there is no such setting; did you mean `{known}`?"),
            (None, []) => "there is no such setting; what is above it has no parts".to_owned(),
            (None, _) if self.name.contains('.') && self.name.len() <= LONGEST => {
                let parts: Vec<&str> = self.name.split('.').collect();
                let nested = format!("{{ {} = ... {}", parts.join(" = { "), "}".repeat(parts.len()));
                format!("there is no such setting; one inside of another is a table in a table: {nested}")
            }
            (None, known) => {
                let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
                format!("there is no such setting; expected one of: {}", known.join(", "))
            }
        };
        Problem { origin, path: self.path, text }
    }
}

/// A value as it would be written in the file.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".into(),
        Value::Object(table) => {
            let fields: Vec<String> = table.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect();
            if fields.is_empty() { "{}".into() } else { format!("{{ {} }}", fields.join(", ")) }
        }
        Value::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The same without what is null, which is how what is not set is written.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let set = table.iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name.clone(), without_null(value))).collect())
        }
        other => other.clone(),
    }
}
