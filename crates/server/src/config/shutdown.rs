//! How the server leaves.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// How the server leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Connections that are idle when the server is told to leave may still bring a request for this long. Each is
    /// answered, and told to close. Never more than half of `grace`.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::any")]
    pub linger: Duration,
    /// Longest time to finish what was accepted.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::any")]
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { linger: Duration::from_millis(250), grace: Duration::from_secs(25) }
    }
}
