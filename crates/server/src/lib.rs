#![doc = include_str!("../README.md")]

mod catalog;
mod codec;
mod config;
mod engine;
mod error;
mod gauges;
mod grpc;
mod http;
mod low_priority;
mod pipeline;
mod protocol;
mod results;
mod server;
mod warming;

pub use config::{
    CacheConfig, Change, Config, ConfigError, CutOff, GrpcConfig, HttpConfig, LogConfig, LogFormat, MetricsConfig,
    Override, Profile, RedisConfig, RuntimeConfig, SchedulerConfig, Settings, ShutdownConfig, SnapshotConfig, changes,
    json_schema, reference, show,
};
pub use server::{Server, StartError};
