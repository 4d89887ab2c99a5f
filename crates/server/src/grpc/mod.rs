//! The gRPC edge: the same questions as over HTTP, to the same pipeline, on the same threads.

mod gathered;
mod infer;
mod lingering;
mod listener;
mod plain;
mod service;
mod status;
mod timeout;
mod wire;

pub(crate) use listener::serve;
