//! The reference of all settings, written from the types' own words: a page for people, and a JSON Schema for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Profile;
use super::leaves::shown;
use super::shape::{Field, Shape, root, schema};

const INTRODUCTION: &str = "# Settings

`volley-server config reference` writes this page.

Each layer goes before those above it:

1. the defaults below;
2. the profile, chosen by `--profile` or `VOLLEY_PROFILE`: `development` (the default) changes nothing; `staging` and
   `production` log JSON (`log.format`);
3. the file that `--config` names, or `volley.toml` in the working directory if it is there (TOML); what stands under
   `[profile.NAME]` in it goes before the rest of the file;
4. environment variables named `VOLLEY_<SECTION>__<FIELD>`: `VOLLEY_HTTP__PORT=9000` is `http.port`; a list is written with
   commas;
5. the options of the command line.

`volley-server config check` tells everything that is wrong with them, `config show` what they come to and where each was
said, `config schema` prints a JSON Schema. Times are written with their unit: `\"500us\"`, `\"2ms\"`, `\"1m 30s\"`.

## While the server runs

The file is read again when it changes (within a second or two, a Kubernetes `ConfigMap` that is swapped included) and at
SIGHUP. The admin listener answers `GET /admin/config`; `PATCH /admin/config` with settings as JSON is a sixth layer, which
goes before all others and ends with the process (`null` takes a setting back, `PUT` replaces the whole layer):

```sh
curl -X PATCH http://127.0.0.1:8003/admin/config --data '{\"log\": {\"filter\": \"debug\"}}'
```

An update is in force as a whole or not at all: where one setting is wrong, can only change with a restart, or belongs to a
model that does not load with it, nothing is changed, and the answer and the log say why. A request sees one configuration
from its first byte to its last. Each change is a line of the log, with who made it.

## Who may do what

Whoever is on this machine may do everything, until callers are named. `volley-server key new NAME` shows a key once, and
prints the lines for the file, which hold its SHA-256 only. Callers send the key as `Authorization: Bearer KEY` or `x-api-key: KEY`,
or show a certificate. `/v2/health/live` and `/v2/health/ready` ask nothing. A proxy on this machine makes all its callers
look as if they were on it: name callers behind one.
";

/// The page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let Shape::Table(fields) = root() else { unreachable!("the configuration is a table") };
    let is_section = |field: &Field| matches!(field.shape, Shape::Table(_) | Shape::Named(_));
    let top = fields.iter().filter(|(_, field)| !is_section(field)).map(|(name, field)| (name.clone(), field));
    table(&mut page, top, false);
    for (name, field) in fields.iter().filter(|(_, field)| is_section(field)) {
        section(&mut page, name, field, field.live);
    }
    page
}

/// The JSON Schema of the file.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = schema();
    if let Some(properties) = schema["properties"].as_object_mut() {
        let sections = properties.clone();
        let profiles = Profile::ALL.into_iter().map(|profile| {
            let section = serde_json::json!({
                "type": "object", "properties": sections, "additionalProperties": false,
                "description": format!("What goes before the rest of the file in the profile {}.", profile.name()),
            });
            (profile.name().to_owned(), section)
        });
        let profiles: serde_json::Map<_, _> = profiles.collect();
        properties.insert(
            "profile".into(),
            serde_json::json!({ "type": "object", "properties": profiles, "additionalProperties": false }),
        );
    }
    format!("{schema:#}\n")
}

/// `live` is whether all of it can change while the server runs.
fn section(page: &mut String, name: &str, field: &Field, live: bool) {
    let (heading, fields) = match &field.shape {
        Shape::Table(fields) => (name.to_owned(), fields),
        Shape::Named(of) => match &**of {
            Shape::Table(fields) => (format!("{name}.NAME"), fields),
            _ => return,
        },
        _ => return,
    };
    let _ = write!(page, "\n## `[{heading}]`\n\n{}\n", field.about);
    let is_section = |field: &Field| matches!(field.shape, Shape::Table(_) | Shape::Named(_));
    let plain: BTreeMap<&String, &Field> = fields.iter().filter(|(_, field)| !is_section(field)).collect();
    if !plain.is_empty() {
        table(page, plain.into_iter().map(|(name, field)| (name.clone(), field)), live);
    }
    for (inner, field) in fields.iter().filter(|(_, field)| is_section(field)) {
        section(page, &format!("{heading}.{inner}"), field, live || field.live);
    }
}

fn table<'f>(page: &mut String, fields: impl Iterator<Item = (String, &'f Field)>, all_live: bool) {
    page.push_str("\n| setting | default | what it is | at run time |\n|---|---|---|---|\n");
    for (name, field) in fields {
        let default = if field.default.is_null() { "unset".into() } else { format!("`{}`", shown(&field.default)) };
        let live = if all_live || field.live { "yes" } else { "no" };
        let expected = field.shape.to_string().replace('|', "\\|");
        let _ = writeln!(page, "| `{name}` | {default} | {} *Expected: {expected}.* | {live} |", field.about);
    }
}
