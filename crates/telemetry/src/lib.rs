#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod host;
pub mod logs;
pub mod names;

mod cache_tier;
mod device;
mod edge;
mod inventory;
mod lane;
mod model;
#[cfg(feature = "prometheus")]
mod recorder;
mod request_id;

pub use cache_tier::{CacheReading, CacheTierMetrics};
pub use device::DeviceMetrics;
pub use edge::{EdgeMetrics, Rejection};
pub use inventory::{model_loaded, model_unloaded};
pub use lane::Lane;
pub use model::{Failure, ModelLabels, ModelMetrics};
#[cfg(feature = "prometheus")]
pub use recorder::{Exporter, InstallError, UPKEEP_INTERVAL};
pub use request_id::RequestId;
