//! The result cache.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;
use super::problem::Complaints;
use super::redis::RedisConfig;
use super::snapshot::SnapshotConfig;
use super::warming::WarmingConfig;

/// The result cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether results are kept at all. `models.<name>.cache` says so of a single model.
    pub enabled: bool,
    /// Bytes kept in memory, with 232 for each result beside its own. One that takes more than 1 MiB, or three quarters of
    /// this where that is less, is not kept.
    pub capacity_bytes: u64,
    /// How long a result is served from memory at most. Results of one model file never change, so a long time makes none
    /// wrong.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive")]
    pub time_to_live: Duration,
    /// What keys are made under: 64 hexadecimal digits, as `openssl rand -hex 32` prints them. Whoever knows them can make
    /// inputs that get another's result. Replicas that share results need the same. Unset: another one at each start.
    #[schemars(extend("writeOnly" = true))]
    pub secret: Option<String>,
    /// The tier that replicas share.
    pub redis: RedisConfig,
    /// The results that outlive the process.
    pub snapshot: SnapshotConfig,
    /// What the cache begins with.
    pub warming: WarmingConfig,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            capacity_bytes: 64 << 20,
            time_to_live: Duration::from_secs(300),
            secret: None,
            redis: RedisConfig::default(),
            snapshot: SnapshotConfig::default(),
            warming: WarmingConfig::default(),
        }
    }
}

impl CacheConfig {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        self.redis.check(complaints);
        if self.secret.is_some() && self.secret_bytes().is_none() {
            complaints.add("cache.secret", "expected 64 hexadecimal digits, as `openssl rand -hex 32` prints them");
            return;
        }
        let needs =
            [("cache.redis.url", self.redis.url.is_some()), ("cache.snapshot.path", self.snapshot.path.is_some())];
        if self.secret.is_none()
            && let Some((name, _)) = needs.into_iter().find(|(_, is_set)| *is_set)
        {
            let problem = format!(
                "missing; `{name}` needs 64 hexadecimal digits, the same at each start and on every replica, as \
                 `openssl rand -hex 32` prints them"
            );
            complaints.add("cache.secret", problem);
        }
    }

    /// The secret, if there is one and it is well written.
    pub(crate) fn secret_bytes(&self) -> Option<[u8; 32]> {
        let digits: &[u8; 64] = self.secret.as_ref()?.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let pair = str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(bytes)
    }
}
