//! What the protocol says of the server and its models: the same messages in gRPC, with their published field numbers,
//! and in JSON.

mod config;
mod health;
mod metadata;
mod repository;
mod statistics;

pub(crate) use config::{ModelConfig, ModelConfigResponse};
pub(crate) use health::{
    HealthCheckRequest, HealthCheckResponse, ModelReadyResponse, Nothing, ServerLiveResponse, ServerReadyResponse,
    model_is_ready, server_is_ready,
};
pub(crate) use metadata::{ModelMetadata, NamedModel, ServerMetadata};
pub(crate) use repository::{Index, IndexRequest, LoadRequest, UnloadRequest, index, load, unload};
pub(crate) use statistics::ModelStatisticsResponse;
