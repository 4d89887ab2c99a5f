//! The results that outlive the process.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;

/// The results that were asked for most often, written to a file for the next start to begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// The file. It is written when the server leaves, and now and then, and removed when something
    /// is invalidated. Unset: none. Needs `cache.secret`.
    pub path: Option<PathBuf>,
    /// Between two snapshots.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub interval: Duration,
    /// Bytes of the file at most. One that has more is not read.
    pub max_bytes: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { path: None, interval: Duration::from_secs(60), max_bytes: 256 << 20 }
    }
}
