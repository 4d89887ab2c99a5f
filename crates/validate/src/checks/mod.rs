//! Checks: pure functions from what was measured and what was promised to a result.
//!
//! | component | requirements |
//! |---|---|
//! | [`latency`] | `p50_latency`, `p95_latency`, `p99_latency`, `max_latency` |
//! | [`errors`] | `error_rate` |
//! | [`throughput`] | `min_throughput`, `target_throughput` |

pub mod errors;
pub mod latency;
pub mod throughput;
