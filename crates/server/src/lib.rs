#![doc = include_str!("../README.md")]

mod catalog;
mod codec;
mod config;
mod engine;
mod error;
mod gauges;
mod grpc;
mod http;
mod pipeline;
mod protocol;
mod server;

pub use config::{
    CacheConfig, Change, Config, ConfigError, GrpcConfig, HttpConfig, LogConfig, LogFormat, MetricsConfig, Override, Profile,
    RuntimeConfig, SchedulerConfig, Settings, ShutdownConfig, changes, json_schema, reference, show,
};
pub use server::{Server, StartError};
