//! The HTTP edge: threads that accept connections, read requests and write responses.

mod cache;
mod infer;
mod listener;
mod metrics;
mod repository;
mod routes;
mod yielding;

pub(crate) use listener::{Edge, IoThreads, Phase};
pub(crate) use metrics::serve_metrics;
