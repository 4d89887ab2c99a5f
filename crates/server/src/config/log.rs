//! What is logged, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use volley_telemetry::logs;

use super::problem::Complaints;

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Form of log lines: for people, or one JSON object a line.
    pub format: LogFormat,
    /// Levels by target, for example `info` or `warn,volley_server=debug`.
    #[schemars(extend("x-live" = true))]
    pub filter: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: logs::DEFAULT_FILTER.into() }
    }
}

impl LogConfig {
    /// Logs from now on as configured, to standard error. What is returned changes the filter.
    ///
    /// # Errors
    /// A sentence, when the filter cannot be read or the process logs already.
    pub fn start(&self) -> Result<logs::Filter, String> {
        let format = match self.format {
            LogFormat::Human => logs::LogFormat::Human,
            LogFormat::Json => logs::LogFormat::Json,
        };
        logs::init(format, &self.filter).map_err(|error| format!("log.filter: {error}"))
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        if let Err(error) = logs::check_filter(&self.filter) {
            complaints.add("log.filter", error);
        }
    }
}
