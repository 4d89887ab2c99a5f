//! How requests wait and are gathered.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// How requests wait and are gathered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Requests each priority lane holds before it refuses more.
    pub lane_capacity: NonZeroUsize,
    /// Longest time a request is held back for the sake of a fuller batch.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::any")]
    pub max_wait: Duration,
    /// A request rises by one lane each time it has waited this long.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub aging_interval: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            lane_capacity: NonZeroUsize::new(4096).expect("it is not zero"),
            max_wait: Duration::from_millis(2),
            aging_interval: Duration::from_millis(50),
        }
    }
}
