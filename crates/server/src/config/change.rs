//! What is different between two configurations.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::leaves::{Leaf, SettingPath, find, shown};
use super::settings::Settings;

/// A setting whose value changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The setting: `http.max_body_bytes`.
    pub path: String,
    /// Its value before; a secret's is not shown.
    pub before: String,
    /// Its value after.
    pub after: String,
    /// Whether it can change while the server runs.
    pub live: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.before, self.after)
    }
}

/// What changes where `after` takes the place of `before`, by path.
#[must_use]
pub fn changes(before: &Settings, after: &Settings) -> Vec<Change> {
    let (before, after) = (&before.leaves.0, &after.leaves.0);
    let paths: BTreeSet<&SettingPath> = before.keys().chain(after.keys()).collect();
    let differing = paths.into_iter().filter_map(|path| {
        let [before, after] = [before, after].map(|leaves| leaves.get(path).map(|leaf: &Leaf| &leaf.value));
        let shown = |value: Option<&Value>| value.map_or_else(|| "unset".into(), |value| masked(path, value));
        (before != after).then(|| Change {
            path: path.join("."),
            before: shown(before),
            after: shown(after),
            live: find(path).is_ok_and(|found| found.live),
        })
    });
    differing.collect()
}

/// A value as a person may see it.
pub(super) fn masked(path: &[String], value: &Value) -> String {
    let secret = find(path).is_ok_and(|found| found.secret);
    if secret { "(secret)".into() } else { shown(value) }
}
