//! The configuration file: TOML, whose settings are known by line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::leaves::{Leaves, Origin, SettingPath};
use super::problem::Problem;
use super::profile::Profile;

/// The table of the file that holds what profiles say.
const PROFILES: &str = "profile";

/// A file's text, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigFile {
    pub path: Arc<Path>,
    pub text: String,
    /// Whether it can be read again: a pipe that a shell made cannot.
    pub lasts: bool,
}

impl ConfigFile {
    /// What it says for `profile`: the file first, then its section for the profile. Sections for other profiles are
    /// checked as well, so that what is wrong is known before it is needed.
    pub(super) fn read(&self, profile: Profile, problems: &mut Vec<Problem>) -> [Leaves; 2] {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() {
            problems.extend(errors.iter().map(|error| {
                let origin = self.origin(error.span().map_or(0, |span| span.start));
                Problem {
                    origin,
                    path: String::new(),
                    text: format!("this is not TOML: {}", one_line(error.message())),
                }
            }));
            return Default::default();
        }
        let mut lines = Lines { text: &self.text, at: BTreeMap::new() };
        let mut tree = lines.table(&mut Vec::new(), table.get_ref());
        let locate_in = |outer: SettingPath| {
            let (lines, path) = (&lines.at, &self.path);
            move |setting: &[String]| {
                let whole = [&outer[..], setting].concat();
                let line = (0..=whole.len()).rev().find_map(|length| lines.get(&whole[..length]).copied());
                Origin::File { path: Arc::clone(path), line: line.unwrap_or(1) }
            }
        };
        let mut of_profile = Leaves::default();
        match tree.remove(PROFILES) {
            None => {}
            Some(Value::Object(sections)) => {
                for (name, section) in sections {
                    let outer = vec![PROFILES.to_owned(), name.clone()];
                    let locate = locate_in(outer);
                    let Some(of) = Profile::of_name(&name) else {
                        problems.push(unknown_profile(locate(&[]), &name));
                        continue;
                    };
                    let mut leaves = Leaves::default();
                    leaves.take(&[], &section, &locate, problems);
                    if of == profile {
                        of_profile = leaves;
                    }
                }
            }
            Some(_) => {
                let origin = locate_in(vec![PROFILES.to_owned()])(&[]);
                let text = "expected tables such as [profile.production]; --profile chooses one".into();
                problems.push(Problem { origin, path: PROFILES.into(), text });
            }
        }
        let mut of_all = Leaves::default();
        of_all.take(&[], &Value::Object(tree), &locate_in(Vec::new()), problems);
        [of_all, of_profile]
    }

    fn origin(&self, byte: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: line_of(&self.text, byte) }
    }
}

/// Complains of a profile that there is not.
pub(super) fn unknown_profile(origin: Origin, name: &str) -> Problem {
    let known: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
    Problem { origin, path: PROFILES.into(), text: format!("\"{name}\"; expected one of: {}", known.join(", ")) }
}

/// Turns the file into values, and takes down the line of each.
struct Lines<'t> {
    text: &'t str,
    at: BTreeMap<SettingPath, usize>,
}

impl Lines<'_> {
    fn table(&mut self, path: &mut SettingPath, table: &DeTable<'_>) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let value = self.value(path, key.span(), value);
            path.pop();
            values.insert(key.get_ref().to_string(), value);
        }
        values
    }

    fn value(&mut self, path: &mut SettingPath, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Value {
        self.at.insert(path.clone(), line_of(self.text, key.start));
        match value.get_ref() {
            DeValue::Table(table) => Value::Object(self.table(path, table)),
            other => plain(other),
        }
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| Value::String(digits.to_string()), Value::from),
        DeValue::Float(digits) => digits
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| Value::String(digits.to_string()), Value::Number),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(values) => Value::Array(values.iter().map(|value| plain(value.get_ref())).collect()),
        DeValue::Table(table) => {
            let fields = table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())));
            Value::Object(fields.collect())
        }
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
