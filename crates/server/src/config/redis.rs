//! The tier of the cache that replicas share.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use volley_cache::{SharedConfig, SharedSettings, WhenCutOff};

use super::duration;
use super::problem::Complaints;

/// The tier that replicas share. Nothing waits for it and nothing fails with it: without Redis, each replica has its
/// memory alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://HOST:PORT`; a cluster, `redis-cluster://HOST:PORT?node=HOST:PORT`; servers behind Sentinel,
    /// `redis-sentinel://HOST:PORT?node=HOST:PORT&sentinelServiceName=NAME`. `rediss` speaks TLS: others must
    /// not answer in Redis' place, since replies that are made for it can end the server. Unset: no such tier.
    #[schemars(extend("writeOnly" = true))]
    pub url: Option<String>,
    /// ACL user. Needs `get`, `set`, `eval`, `subscribe`, `publish`, `time`, `hello`, `ping`, `info`, `client` and the commands
    /// of sorted sets (and `cluster` on a cluster), on keys and channels that begin with `prefix`.
    pub username: Option<String>,
    /// Password.
    #[schemars(extend("writeOnly" = true))]
    pub password: Option<String>,
    /// Certificates (PEM) that the servers' are verified with. Unset: the system's.
    pub ca_file: Option<PathBuf>,
    /// What all names in Redis begin with. Replicas with the same prefix and `cache.secret` share results.
    pub prefix: String,
    /// How long a look-up may take. It runs beside the computation that it may save.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub lookup_budget: Duration,
    /// How long results in memory are served without word from Redis whether any was invalidated; at least a second.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub max_staleness: Duration,
    /// What happens to results in memory after that.
    pub when_cut_off: CutOff,
    /// How long Redis keeps a result.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub time_to_live: Duration,
}

/// What happens to results in memory while others may have invalidated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CutOff {
    /// They are passed over, and requests computed.
    Bypass,
    /// They are served all the same.
    Serve,
}

impl Default for RedisConfig {
    fn default() -> Self {
        let SharedConfig { prefix, lookup_budget, max_staleness, time_to_live, .. } = SharedConfig::new("");
        Self {
            url: None,
            username: None,
            password: None,
            ca_file: None,
            prefix,
            lookup_budget,
            max_staleness,
            when_cut_off: CutOff::Bypass,
            time_to_live,
        }
    }
}

impl RedisConfig {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        if let Some(Err((field, text))) = self.settings() {
            complaints.add(format!("cache.redis.{field}"), text);
        }
    }

    /// The tier's settings, if there is to be one.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub(crate) fn settings(&self) -> Option<Result<SharedSettings, (&'static str, String)>> {
        let config = SharedConfig {
            username: self.username.clone(),
            password: self.password.clone(),
            ca_file: self.ca_file.clone(),
            prefix: self.prefix.clone(),
            lookup_budget: self.lookup_budget,
            max_staleness: self.max_staleness,
            when_cut_off: match self.when_cut_off {
                CutOff::Bypass => WhenCutOff::Bypass,
                CutOff::Serve => WhenCutOff::Serve,
            },
            time_to_live: self.time_to_live,
            // Results that were written in one busy moment do not all expire in another.
            ttl_jitter: self.time_to_live / 10,
            ..SharedConfig::new(self.url.clone()?)
        };
        Some(config.validate().map_err(|error| {
            let (field, text) = (error.field(), error.to_string());
            (field, text.strip_prefix(&format!("{field}: ")).unwrap_or(&text).to_owned())
        }))
    }
}
