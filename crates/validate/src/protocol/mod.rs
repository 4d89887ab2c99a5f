//! The part of the Open Inference Protocol V2 a client needs, written from the published specification.
//!
//! `metadata` says what the model takes and gives, `request` prepares bodies from it once, `reply`
//! holds every answer against it. Nothing here is shared with a server: a judge that used the judged
//! code would share its mistakes.

mod datatype;
mod encode;
mod metadata;
mod reply;
mod request;

pub use datatype::Datatype;
pub use metadata::{MetadataError, ModelMetadata, TensorMetadata};
pub use request::{CacheUse, Encoding, Priority, PriorityError, RequestError, RequestOptions};

pub(crate) use reply::ReplyContract;
pub(crate) use request::PreparedRequests;

/// Header that tells where the JSON ends and the raw tensors begin.
pub(crate) const JSON_LENGTH_HEADER: &str = "inference-header-content-length";
