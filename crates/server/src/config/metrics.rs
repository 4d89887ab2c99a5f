//! The listener that answers `/metrics`.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The metrics listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8002 }
    }
}
