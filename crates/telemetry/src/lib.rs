#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod host;
pub mod logs;
pub mod names;

mod cache_tier;
mod device;
mod edge;
mod exposition;
mod inventory;
mod lane;
mod model;
mod recorder;
mod recovery;
mod request_id;
mod shared_cache;

pub use cache_tier::{CacheReading, CacheTierMetrics};
pub use device::{DeviceMetrics, GpuMetrics, GpuReading};
pub use edge::{EdgeMetrics, Rejection};
pub use exposition::{Exporter, InstallError};
pub use inventory::{model_load_failed, model_loaded, model_unloaded, variant_gone};
pub use lane::Lane;
pub use model::{Failure, ModelLabels, ModelMetrics};
pub use recovery::{Fault, MemberMetrics, RecoveryMetrics};
pub use request_id::RequestId;
pub use shared_cache::{SharedCacheMetrics, SharedCacheReading};
