//! The configuration in force, setting by setting, with where each was said.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::change::masked;
use super::leaves::find;
use super::settings::Settings;

/// All settings that have a value, in the form of the file, each with where it was said. Secrets are not shown.
#[must_use]
pub fn show(settings: &Settings) -> String {
    let line = |path: &Vec<String>, value| format!("{} = {}", path.join("."), masked(path, value));
    let lines: Vec<_> =
        settings.leaves.0.iter().map(|(path, leaf)| (line(path, &leaf.value), leaf.origin.to_string())).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default().min(60);
    let mut text = format!("# profile: {}\n", settings.profile().name());
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}

/// The same for programs: each setting's value (`null` for a secret), where it was said, and whether it can change while the
/// server runs.
pub(crate) fn described(settings: &Settings) -> Value {
    let entry = |(path, leaf): (&Vec<String>, &super::leaves::Leaf)| {
        let (secret, live) = find(path).map_or((false, false), |found| (found.secret, found.live));
        let value = if secret { Value::Null } else { leaf.value.clone() };
        (path.join("."), json!({ "value": value, "from": leaf.origin.to_string(), "live": live }))
    };
    let settings_by_path: Map<String, Value> = settings.leaves.0.iter().map(entry).collect();
    json!({ "profile": settings.profile().name(), "settings": settings_by_path })
}
