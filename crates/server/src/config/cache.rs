//! The result cache.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// The result cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether results are kept at all.
    pub enabled: bool,
    /// Bytes kept in memory.
    pub capacity_bytes: u64,
    /// How long a result is kept. Results of one model file never change, so this bounds memory, not error.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub time_to_live: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { enabled: true, capacity_bytes: 64 << 20, time_to_live: Duration::from_secs(300) }
    }
}
