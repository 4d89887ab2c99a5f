#![doc = include_str!("../README.md")]

mod catalog;
mod codec;
mod config;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
mod gauges;
mod grpc;
mod http;
mod pipeline;
mod protocol;
mod server;
mod statistics;

pub use config::{
    CacheConfig, Config, GrpcConfig, HttpConfig, LogConfig, LogFormat, MetricsConfig, RuntimeConfig, SchedulerConfig,
    ShutdownConfig,
};
pub use server::{Server, StartError};
