#![doc = include_str!("../README.md")]

mod access;
mod catalog;
mod codec;
mod config;
mod descriptors;
mod engine;
mod error;
mod gauges;
mod http;
mod key;
mod pipeline;
mod rate;
mod reread;
mod server;
mod tls;
mod updates;
mod watch;

pub use config::{
    AdminConfig, CacheConfig, CallerConfig, Change, Config, ConfigError, HttpConfig, LimitsConfig, LogConfig,
    LogFormat, MetricsConfig, Override, Profile, RuntimeConfig, SchedulerConfig, Scope, SecurityConfig, Settings,
    ShutdownConfig, TlsConfig, changes, json_schema, reference, show,
};
pub use key::NewKey;
pub use reread::Reread;
pub use server::{Server, StartError};
