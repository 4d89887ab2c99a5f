//! The listener that answers inference requests.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The inference listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address to listen on. The default is this machine only; others want `security.callers` or
    /// `security.allow_anonymous`.
    pub host: IpAddr,
    /// Port; 0 takes a free one, which the log names.
    pub port: u16,
    /// Threads that read requests and write responses. Unset: one for each eight cores.
    pub threads: Option<NonZeroUsize>,
    /// Largest request body, in bytes.
    #[schemars(extend("x-live" = true))]
    pub max_body_bytes: NonZeroUsize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let max_body_bytes = NonZeroUsize::new(16 << 20).expect("it is not zero");
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8000, threads: None, max_body_bytes }
    }
}
