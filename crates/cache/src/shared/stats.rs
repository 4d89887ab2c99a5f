//! What the shared tier has done so far.

use super::breaker::BreakerState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the shared tier has done so far, and how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedStats {
    /// Look-ups that found a value that may be served.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Look-ups that found a value computed before its domain was last invalidated.
    pub stale: u64,
    /// Look-ups that found what was not sealed under the keyer's secret for this key: damaged, moved or forged.
    pub corrupt: u64,
    /// Look-ups that took longer than their budget.
    pub timeouts: u64,
    /// Look-ups that failed otherwise.
    pub errors: u64,
    /// Look-ups that were not sent: the breaker was open, or invalidations may have been missed.
    pub skipped: u64,
    /// Look-ups that were answered, and the time they took together.
    pub answered: u64,
    /// See `answered`.
    pub answered_in: Duration,
    /// Values written.
    pub written: u64,
    /// Values that had to leave the queue for newer ones.
    pub dropped: u64,
    /// Values that Redis did not take.
    pub refused: u64,
    /// Values that wait to be written.
    pub queued: usize,
    /// Their bytes, with bookkeeping.
    pub queued_bytes: usize,
    /// Invalidations made here that Redis does not know yet.
    pub pending_invalidations: usize,
    /// How often Redis had lost invalidations that this replica put back.
    pub restorations: u64,
    /// What look-ups the breaker lets through.
    pub lookup_breaker: BreakerState,
    /// What batches of writes the breaker lets through.
    pub write_breaker: BreakerState,
    /// Whether look-ups have a connection.
    pub connected: bool,
    /// How long ago Redis last said that every invalidation it knows is known here; nothing if it never did.
    pub confirmed: Option<Duration>,
}

/// Counts only, so all accesses are relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Count,
    pub(super) misses: Count,
    pub(super) stale: Count,
    pub(super) corrupt: Count,
    pub(super) timeouts: Count,
    pub(super) errors: Count,
    pub(super) skipped: Count,
    pub(super) answered: Count,
    pub(super) answered_nanos: Count,
    pub(super) written: Count,
    pub(super) dropped: Count,
    pub(super) refused: Count,
    pub(super) restorations: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
