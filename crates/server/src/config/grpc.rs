//! The listener that answers inference requests over gRPC.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The gRPC listener. Its threads and the limit on its messages are those of `http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8001 }
    }
}
