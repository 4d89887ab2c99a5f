//! The listener that operators speak to.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address to listen on. Others than this machine's own want a caller with the scope `admin`.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8003 }
    }
}
