#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod flight;
mod key;
mod lead;
mod local;
mod rank;

pub use cache::{Cache, CacheConfig, CacheStats, Lookup};
pub use key::{Key, KeyHasher, Keyer};
pub use lead::{Follow, Followed, Lead};
pub use rank::Rank;
