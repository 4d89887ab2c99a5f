//! The gRPC edge: the same questions as over HTTP, to the same pipeline, on the same threads.

mod infer;
mod listener;
mod service;
mod status;
mod timeout;

pub(crate) use listener::serve;
