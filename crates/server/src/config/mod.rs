//! Configuration: built-in defaults, then a profile, then a TOML file, then environment variables, then the command line.
//!
//! The types here are the one description of it: what is checked, what is shown, the reference page and the JSON Schema
//! are made from their fields, their defaults and their words. A new setting is a new field.

mod admin;
mod cache;
mod change;
mod duration;
mod environment;
mod file;
mod grpc;
mod http;
mod leaves;
mod limits;
mod log;
mod metrics;
mod problem;
mod profile;
mod redis;
mod reference;
mod runtime;
mod scheduler;
mod security;
mod settings;
mod shape;
mod show;
mod shutdown;
mod snapshot;
mod tls;
mod warming;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use volley_gpu_runtime::ModelConfig;

pub use admin::AdminConfig;
pub use cache::CacheConfig;
pub use change::{Change, changes};
pub use grpc::GrpcConfig;
pub use http::HttpConfig;
pub use limits::LimitsConfig;
pub use log::{LogConfig, LogFormat};
pub use metrics::MetricsConfig;
pub use problem::ConfigError;
pub use profile::Profile;
pub use redis::{CutOff, RedisConfig};
pub use reference::{json_schema, reference};
pub use runtime::RuntimeConfig;
pub use scheduler::SchedulerConfig;
pub use security::{CallerConfig, Scope, SecurityConfig};
pub(crate) use security::{digest_of_text, is_loopback};
pub use settings::{Override, Settings};
pub(crate) use show::described;
pub use show::show;
pub use shutdown::ShutdownConfig;
pub use snapshot::SnapshotConfig;
pub use tls::TlsConfig;
pub use warming::WarmingConfig;

use problem::Complaints;

/// Everything the server can be told. Durations are written with their unit: `"500us"`, `"2ms"`, `"1s"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of models, laid out as Triton lays it out. Unset: the models that ship with Volley.
    pub model_repository: Option<PathBuf>,
    /// Settings of single models, by name. They go before those of the model's own `config.toml`. A model whose settings
    /// change is loaded anew. Relative paths in them start at the working directory.
    #[schemars(extend("x-live" = true))]
    pub models: BTreeMap<String, ModelConfig>,
    /// The listener that answers inference requests.
    pub http: HttpConfig,
    /// The listener that answers them over gRPC.
    pub grpc: GrpcConfig,
    /// The listener that answers `/metrics`.
    pub metrics: MetricsConfig,
    /// The listener that operators speak to.
    pub admin: AdminConfig,
    /// Encryption of what goes over the listeners.
    pub tls: TlsConfig,
    /// Who may do what.
    pub security: SecurityConfig,
    /// What one caller may take of what is there for all.
    pub limits: LimitsConfig,
    /// How models are run.
    pub runtime: RuntimeConfig,
    /// How requests wait and are gathered.
    pub scheduler: SchedulerConfig,
    /// The result cache.
    pub cache: CacheConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How the server leaves.
    pub shutdown: ShutdownConfig,
}

impl Config {
    /// What the kinds of values cannot tell.
    fn check(&self, complaints: &mut Complaints) {
        self.runtime.check(complaints);
        self.cache.check(complaints);
        self.log.check(complaints);
        self.limits.check(self, complaints);
        self.tls.check(complaints);
        self.security.check(self, complaints);
        for (name, model) in &self.models {
            if let Err(text) = model.check() {
                complaints.add(format!("models.{name}"), text);
            }
        }
    }
}
