//! How long the cache may take to warm up.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// What the cache begins with: the results of `cache.snapshot`, and those of each model's `warm_inputs`, which are computed at
/// low priority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmingConfig {
    /// For how long the server is not ready for the sake of snapshot and inputs. What is not there by then comes while it serves.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::any")]
    pub hold_ready: Duration,
    /// For how long the inputs of one file are computed at most. They end sooner where the cache is full.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub limit: Duration,
}

impl Default for WarmingConfig {
    fn default() -> Self {
        Self { hold_ready: Duration::ZERO, limit: Duration::from_secs(300) }
    }
}
