#![doc = include_str!("../README.md")]

mod affinity;
mod autotune;
mod binding;
mod company;
mod config;
#[cfg(feature = "nvml")]
mod device;
mod ensemble;
mod error;
mod file;
mod golden;
mod headroom;
mod input_file;
mod instances;
mod interrupt;
mod library;
mod memory;
mod model;
mod operators;
mod outputs;
mod pbtxt;
mod provider;
mod record;
mod repository;
#[cfg(test)]
mod scratch;
mod session;
mod tensor;
mod toml_error;
mod triton;

pub use affinity::pin_current_thread;
pub use autotune::Measured;
pub use company::Company;
pub use config::{ConfigError, DeclaredTensor, EnsembleConfig, ModelConfig, VersionPolicy};
#[cfg(feature = "nvml")]
pub use device::{DeviceError, DeviceMonitor, DeviceSample};
pub use ensemble::{Ensemble, EnsembleError, Opinions};
pub use error::{LoadError, RunError};
pub use input_file::{InputFile, InputFileError};
pub use instances::{Instances, Lease};
pub use interrupt::Interrupter;
pub use library::{Library, LibraryError};
pub use model::{Model, ModelOptions};
pub use operators::register_custom_ops;
pub use outputs::Outputs;
pub use provider::{PlacedOperator, Placement, Provider, ProviderPreference};
pub use repository::{BASELINE_VARIANT, ModelFolder, Repository, RepositoryError, VariantFile, VersionFolder};
pub use session::{BatchOutputs, Session};
pub use tensor::{DataType, TensorSpec};
