#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod admission;
mod cache;
mod coherence;
mod domain;
mod flight;
mod gate;
mod generations;
mod key;
mod lead;
mod local;
mod nh;
mod rank;
mod restore;
mod scope;
#[cfg(feature = "redis")]
mod shared;
mod snapshot;
mod stamp;

pub use admission::Admission;
pub use cache::{Cache, CacheConfig, CacheStats, Lookup};
pub use coherence::Coherence;
pub use domain::Domain;
pub use gate::WhenCutOff;
pub use generations::Generations;
pub use key::{Key, KeyHasher, Keyer};
pub use lead::{Follow, Followed, Lead};
pub use rank::Rank;
pub use restore::{Restore, RestoreError, Restored};
pub use scope::{Scope, ScopeError};
#[cfg(feature = "redis")]
pub use shared::{
    BreakerState, Fetch, Found, Reached, Shared, SharedConfig, SharedConfigError, SharedSettings, SharedStats,
};
pub use snapshot::{Saved, Snapshot};
pub use stamp::Stamp;
