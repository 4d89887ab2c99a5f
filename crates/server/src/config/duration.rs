//! Durations as the configuration writes them: with their unit.

use std::time::Duration;

use humantime_serde::re::humantime;
use schemars::{Schema, SchemaGenerator, json_schema};

/// The format that the schema gives a duration.
pub(super) const FORMAT: &str = "duration-with-unit";

/// The schema of a duration.
pub(super) fn any(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": FORMAT })
}

/// The schema of a duration that is not zero.
pub(super) fn positive(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": FORMAT, "x-positive": true })
}

/// Reads `"500us"`, `"2ms"`, `"1m 30s"`.
pub(super) fn read(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}
