//! What may stand where: the tree of settings as values are checked against it, made from the schema of the types.
//!
//! Values are checked one by one, before the types read them, so that everything that is wrong is told at once and in the
//! terms of whoever wrote it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{Config, duration};

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Settings by name.
    Table(BTreeMap<String, Field>),
    /// Tables of the same shape, by names that are the operator's own.
    Named(Box<Shape>),
    List(Box<Shape>),
    Text,
    Duration {
        positive: bool,
    },
    Address,
    /// One of these words.
    Choice(Vec<String>),
    Whole {
        least: i64,
        most: i64,
    },
    Number,
    Flag,
    /// Any of these.
    Either(Vec<Shape>),
}

/// A setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub shape: Shape,
    /// What it is for.
    pub about: String,
    /// What it is where nobody says anything.
    pub default: Value,
    /// Whether it can change while the server runs.
    pub live: bool,
    /// Whether its value is for nobody's eyes.
    pub secret: bool,
    /// Whether it may be left unset.
    pub optional: bool,
}

/// The schema of the configuration, as JSON Schema writes it.
pub(super) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// The shape of the whole configuration.
pub(super) fn root() -> &'static Shape {
    static ROOT: LazyLock<Shape> = LazyLock::new(|| Shape::of(&schema()));
    &ROOT
}

impl Shape {
    fn of(schema: &Value) -> Self {
        if let Some(either) = alternatives(schema) {
            let shapes: Vec<Self> = either.iter().filter(|schema| schema["type"] != "null").map(Self::of).collect();
            let words: Vec<String> = shapes.iter().filter_map(Self::words).flatten().cloned().collect();
            return match shapes.len() {
                1 => shapes.into_iter().next().expect("there is one"),
                _ if shapes.iter().all(|shape| shape.words().is_some()) => Self::Choice(words),
                _ => Self::Either(shapes),
            };
        }
        if let Some(word) = schema["const"].as_str() {
            return Self::Choice(vec![word.into()]);
        }
        if let Some(words) = schema["enum"].as_array() {
            return Self::Choice(words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        match (type_of(schema), schema["format"].as_str()) {
            ("object", _) => match &schema["additionalProperties"] {
                values @ Value::Object(_) => Self::Named(Box::new(Self::of(values))),
                _ => Self::Table(fields(schema)),
            },
            ("array", _) => Self::List(Box::new(Self::of(&schema["items"]))),
            ("integer", format) => {
                let narrow =
                    if format == Some("int32") { (i32::MIN.into(), i32::MAX.into()) } else { (i64::MIN, i64::MAX) };
                let bound = |name: &str, bound: i64| schema[name].as_f64().map_or(bound, |value| value as i64);
                Self::Whole { least: bound("minimum", narrow.0), most: bound("maximum", narrow.1) }
            }
            ("number", _) => Self::Number,
            ("boolean", _) => Self::Flag,
            ("string", Some("ip")) => Self::Address,
            ("string", Some(duration::FORMAT)) => Self::Duration { positive: schema["x-positive"] == true },
            ("string", _) => Self::Text,
            (other, _) => unreachable!("no setting has the type `{other}`: {schema}"),
        }
    }

    fn words(&self) -> Option<&Vec<String>> {
        if let Self::Choice(words) = self { Some(words) } else { None }
    }

    /// Whether a secret may lie somewhere within.
    pub(super) fn holds_secret(&self) -> bool {
        match self {
            Self::Table(fields) => fields.values().any(|field| field.secret || field.shape.holds_secret()),
            Self::Named(inner) | Self::List(inner) => inner.holds_secret(),
            Self::Either(shapes) => shapes.iter().any(Self::holds_secret),
            _ => false,
        }
    }

    /// Whether `value` may stand here.
    pub(super) fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Table(fields), Value::Object(table)) => {
                table.iter().all(|(name, value)| fields.get(name).is_some_and(|field| field.shape.admits(value)))
            }
            (Self::Named(shape), Value::Object(table)) => table.values().all(|value| shape.admits(value)),
            (Self::List(shape), Value::Array(values)) => values.iter().all(|value| shape.admits(value)),
            (Self::Duration { positive }, Value::String(text)) => {
                duration::read(text).is_some_and(|duration| !(*positive && duration.is_zero()))
            }
            (Self::Address, Value::String(text)) => text.parse::<IpAddr>().is_ok(),
            (Self::Choice(words), Value::String(text)) => words.contains(text),
            (Self::Whole { least, most }, Value::Number(number)) => {
                number.as_i64().is_some_and(|number| (*least..=*most).contains(&number))
            }
            (Self::Text, Value::String(_)) | (Self::Number, Value::Number(_)) | (Self::Flag, Value::Bool(_)) => true,
            (Self::Either(shapes), value) => shapes.iter().any(|shape| shape.admits(value)),
            _ => false,
        }
    }

    /// The value that `text` means, where only text can be given. What means none is left as it is, for
    /// [`admits`](Self::admits) to find.
    pub(super) fn read(&self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self {
            Self::Text | Self::Duration { .. } | Self::Address | Self::Choice(_) => as_text(),
            Self::Whole { .. } | Self::Number => text.trim().parse().map_or_else(|_| as_text(), Value::Number),
            Self::Flag => text.trim().parse().map_or_else(|_| as_text(), Value::Bool),
            Self::List(of) if !text.trim_start().starts_with('[') => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Value::Array(parts.map(|part| of.read(part)).collect())
            }
            Self::List(_) | Self::Table(_) | Self::Named(_) | Self::Either(_) => {
                let as_toml = toml::from_str::<Map<String, Value>>(&format!("value = {text}"));
                as_toml.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(as_text)
            }
        }
    }
}

/// What would be right: `a whole number from 0 to 65535`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(_) | Self::Named(_) => f.write_str("a table of settings"),
            Self::List(of) => write!(f, "a list, each of it {of}"),
            Self::Text => f.write_str("text in quotes"),
            Self::Duration { positive: false } => {
                f.write_str("a time with its unit, such as \"500us\", \"2ms\" or \"1s\"")
            }
            Self::Duration { positive: true } => {
                f.write_str("a time with its unit and more than zero, such as \"500us\", \"2ms\" or \"1s\"")
            }
            Self::Address => f.write_str("an IP address, such as \"127.0.0.1\" or \"::1\""),
            Self::Choice(words) => f.write_str(&alternatives_in_words(words.iter().map(|word| format!("\"{word}\"")))),
            Self::Whole { least, most: i64::MAX } if *least > i64::MIN => {
                write!(f, "a whole number of at least {least}")
            }
            Self::Whole { least: i64::MIN, .. } => f.write_str("a whole number"),
            Self::Whole { least, most } => write!(f, "a whole number from {least} to {most}"),
            Self::Number => f.write_str("a number"),
            Self::Flag => f.write_str("true or false"),
            Self::Either(shapes) => f.write_str(&alternatives_in_words(shapes.iter().map(|shape| match shape {
                Self::Table(fields) => {
                    let fields: Vec<String> =
                        fields.iter().map(|(name, field)| format!("{name} = {}", field.shape)).collect();
                    format!("{{ {} }}", fields.join(", "))
                }
                other => other.to_string(),
            }))),
        }
    }
}

fn alternatives_in_words(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array())
}

/// The type of a schema, whether or not null is one as well.
fn type_of(schema: &Value) -> &str {
    let of_several = || schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|name| *name != "null");
    schema["type"].as_str().or_else(of_several).unwrap_or_default()
}

fn fields(schema: &Value) -> BTreeMap<String, Field> {
    let fields = schema["properties"].as_object().into_iter().flatten();
    fields.map(|(name, schema)| (name.clone(), field(schema))).collect()
}

fn field(schema: &Value) -> Field {
    let nullable = |schema: &Value| {
        let types = schema["type"].as_array().is_some_and(|types| types.iter().any(|name| name == "null"));
        types || schema["type"] == "null"
    };
    Field {
        shape: Shape::of(schema),
        about: schema["description"].as_str().unwrap_or_default().replace('\n', " "),
        default: schema["default"].clone(),
        live: schema["x-live"] == true,
        secret: schema["writeOnly"] == true,
        optional: nullable(schema) || alternatives(schema).is_some_and(|either| either.iter().any(nullable)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(path: &str) -> &'static Shape {
        path.split('.').fold(root(), |shape, name| match shape {
            Shape::Table(fields) => &fields[name].shape,
            Shape::Named(shape) => shape,
            other => panic!("{path}: {other:?} has no {name}"),
        })
    }

    #[test]
    fn what_is_expected_is_said_in_words_that_need_no_programming_language() {
        assert_eq!(at("http.port").to_string(), "a whole number from 0 to 65535");
        assert_eq!(at("http.threads").to_string(), "a whole number of at least 1");
        assert_eq!(at("http.host").to_string(), "an IP address, such as \"127.0.0.1\" or \"::1\"");
        assert_eq!(at("log.format").to_string(), "\"human\" or \"json\"");
        assert_eq!(at("runtime.providers").to_string(), "a list, each of it text in quotes");
        assert_eq!(
            at("models.net.version_policy").to_string(),
            "\"all\", { latest = a whole number of at least 1 } or { specific = a list, each of it a whole number of at \
             least 0 }"
        );
    }

    #[test]
    fn text_from_a_variable_means_what_its_setting_can_be() {
        assert_eq!(at("http.port").read("9000"), json!(9000));
        assert_eq!(at("log.filter").read("9000"), json!("9000"));
        assert_eq!(at("cache.enabled").read("false"), json!(false));
        assert_eq!(at("runtime.providers").read("cuda, cpu"), json!(["cuda", "cpu"]));
        assert_eq!(at("runtime.providers").read("[\"cpu\"]"), json!(["cpu"]));
        assert_eq!(at("runtime.cpu_affinity").read("0,2"), json!([0, 2]));
        assert_eq!(at("models.net.version_policy").read("{ latest = 2 }"), json!({ "latest": 2 }));
        assert!(!at("http.port").admits(&at("http.port").read("ninety")));
    }
}
