//! What one caller may take of what is there for all.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Complaints;
use super::{Config, duration};

/// Below this, requests of ordinary clients would not fit.
const FEWEST_HEADER_BYTES: usize = 1024;
const FEWEST_HEADERS: usize = 8;

/// Limits on connections and requests, the same on every listener; those of operators (`admin` and `metrics`) are counted by
/// themselves. A change is in force for connections made after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections in all. One more is answered 503 and closed.
    #[schemars(extend("x-live" = true))]
    pub connections: NonZeroUsize,
    /// Connections from one address. One more is answered 503 and closed. Callers behind a proxy share its address.
    #[schemars(extend("x-live" = true))]
    pub connections_per_address: NonZeroUsize,
    /// Requests that are read, computed or answered at a time. One more is answered 503.
    #[schemars(extend("x-live" = true))]
    pub requests: NonZeroUsize,
    /// Bytes of bodies that have arrived of requests that are not answered yet, over all of them. Where another would exceed
    /// them, its request is answered 503. At least `http.max_body_bytes`.
    #[schemars(extend("x-live" = true))]
    pub body_bytes: NonZeroUsize,
    /// Bytes of a request's line and headers. More is answered 431.
    #[schemars(extend("x-live" = true))]
    pub header_bytes: NonZeroUsize,
    /// Headers of a request. More is answered 431.
    #[schemars(extend("x-live" = true))]
    pub headers: NonZeroUsize,
    /// Longest time from a request's first byte to the end of its headers, and for a TLS handshake. Then the connection
    /// is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive", extend("x-live" = true))]
    pub header_time: Duration,
    /// Longest time that a request's body may take to arrive. Then it is answered 408, and the connection is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive", extend("x-live" = true))]
    pub body_time: Duration,
    /// Longest time that a caller may leave a response unread. Then the connection is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive", extend("x-live" = true))]
    pub write_time: Duration,
    /// Longest time that a connection may be silent between requests, and before the first. Then it is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "duration::positive", extend("x-live" = true))]
    pub idle_time: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let count = |count| NonZeroUsize::new(count).expect("the defaults are not zero");
        Self {
            connections: count(10_000),
            connections_per_address: count(2_000),
            requests: count(8_192),
            body_bytes: count(512 << 20),
            header_bytes: count(16 << 10),
            headers: count(64),
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(75),
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self, of: &Config, complaints: &mut Complaints) {
        if self.header_bytes.get() < FEWEST_HEADER_BYTES {
            let text = format!("{}; expected at least {FEWEST_HEADER_BYTES}", self.header_bytes);
            complaints.add("limits.header_bytes", text);
        }
        if self.headers.get() < FEWEST_HEADERS {
            complaints.add("limits.headers", format!("{}; expected at least {FEWEST_HEADERS}", self.headers));
        }
        let largest = of.http.max_body_bytes;
        if self.body_bytes < largest {
            let text = format!("{}; expected at least http.max_body_bytes, which is {largest}", self.body_bytes);
            complaints.add("limits.body_bytes", text);
        }
    }
}
