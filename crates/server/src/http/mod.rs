//! The HTTP edge: threads that accept connections, read requests and write responses.

mod accept;
mod admin;
mod bodies;
mod body;
mod cache;
mod compression;
mod connections;
mod fast_path;
mod gate;
mod infer;
mod listener;
mod metrics;
mod openapi;
mod pace;
mod received;
mod reply;
mod repository;
mod routes;

pub(crate) use accept::{BACKLOG, accept, speaks};
pub(crate) use admin::serve_admin;
pub(crate) use bodies::Held;
#[cfg(test)]
pub(crate) use fast_path::is_taken_and_read_as_hyper_reads_it;
pub(crate) use gate::{Arrival, Gate, Visit};
pub(crate) use listener::{Edge, IoThreads, Phase};
pub(crate) use metrics::serve_metrics;
pub(crate) use received::Received;
