#![doc = include_str!("../README.md")]

mod catalog;
mod codec;
mod config;
mod engine;
mod error;
mod gauges;
mod http;
mod pipeline;
mod server;

pub use config::{
    CacheConfig, Config, HttpConfig, LogConfig, LogFormat, MetricsConfig, RuntimeConfig, SchedulerConfig,
    ShutdownConfig,
};
pub use server::{Server, StartError};
