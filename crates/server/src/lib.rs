#![doc = include_str!("../README.md")]

mod access;
mod catalog;
mod codec;
mod config;
mod descriptors;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
mod gauges;
mod grpc;
mod http;
mod joining;
mod key;
mod low_priority;
mod memory;
mod pipeline;
mod protocol;
mod rate;
mod reach;
mod reread;
mod results;
mod server;
mod statistics;
mod tls;
mod updates;
mod warming;
mod watch;
mod yielding;

pub use config::{
    AdminConfig, CacheConfig, CallerConfig, Change, Config, ConfigError, CutOff, GrpcConfig, HttpConfig, LimitsConfig,
    LogConfig, LogFormat, MetricsConfig, Override, Profile, RedisConfig, RuntimeConfig, SchedulerConfig, Scope,
    SecurityConfig, Settings, ShutdownConfig, SnapshotConfig, TlsConfig, WarmingConfig, changes, json_schema,
    reference, show,
};
pub use key::NewKey;
pub use memory::tune_allocator;
pub use reread::Reread;
pub use server::{Server, StartError};
