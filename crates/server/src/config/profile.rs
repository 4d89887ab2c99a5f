//! Profiles: what is usual for a kind of place, as a layer between the defaults and the file.

use serde_json::{Value, json};

/// Where the server runs. The file may say more of each under `[profile.NAME]`, which goes before the rest of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// A person's machine; the defaults are made for it.
    #[default]
    Development,
    /// What resembles production: log lines are JSON.
    Staging,
    /// As staging.
    Production,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Development, Self::Staging, Self::Production];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// What it changes of the defaults.
    pub(super) fn changes(self) -> Value {
        match self {
            Self::Development => json!({}),
            Self::Staging | Self::Production => json!({ "log": { "format": "json" } }),
        }
    }
}
