//! What is published of a cache tier.

use crate::names;
use metrics::{Counter, Gauge};

/// What a cache tier has counted since it started, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheReading {
    /// Look-ups answered from the tier.
    pub hits: u64,
    /// Look-ups that had to compute.
    pub misses: u64,
    /// Look-ups answered by a computation that another had begun.
    pub shared: u64,
    /// Look-ups that found an entry which was invalidated.
    pub stale: u64,
    /// Look-ups while invalidations made elsewhere may have been missed for longer than allowed.
    pub cut_off: u64,
    /// Invalidations made by this process.
    pub invalidations: u64,
    /// Entries that made room.
    pub evictions: u64,
    /// Entries whose time was over.
    pub expirations: u64,
    /// Entries held now.
    pub entries: u64,
    /// Bytes held now.
    pub bytes: u64,
}

/// Handles on the series of one cache tier. The tier counts for itself; its readings are published before a scrape, so
/// that a look-up pays for one count and not for two.
#[derive(Debug)]
pub struct CacheTierMetrics {
    hits: Counter,
    misses: Counter,
    shared: Counter,
    stale: Counter,
    cut_off: Counter,
    invalidations: Counter,
    evictions: Counter,
    expirations: Counter,
    entries: Gauge,
    bytes: Gauge,
}

impl CacheTierMetrics {
    /// Handles for the tier of this name, such as `local`, with the recorder in force.
    #[must_use]
    pub fn register(tier: &str) -> Self {
        Self {
            hits: names::CACHE_HITS.counter(&[tier]),
            misses: names::CACHE_MISSES.counter(&[tier]),
            shared: names::CACHE_SHARED.counter(&[tier]),
            stale: names::CACHE_STALE.counter(&[tier]),
            cut_off: names::CACHE_CUT_OFF.counter(&[tier]),
            invalidations: names::CACHE_INVALIDATIONS.counter(&[]),
            evictions: names::CACHE_EVICTIONS.counter(&[tier]),
            expirations: names::CACHE_EXPIRATIONS.counter(&[tier]),
            entries: names::CACHE_ENTRIES.gauge(&[tier]),
            bytes: names::CACHE_BYTES.gauge(&[tier]),
        }
    }

    /// Publishes a reading. Counters keep the largest value seen, so readings may arrive out of order.
    pub fn publish(&self, reading: CacheReading) {
        let CacheReading {
            hits,
            misses,
            shared,
            stale,
            cut_off,
            invalidations,
            evictions,
            expirations,
            entries,
            bytes,
        } = reading;
        self.hits.absolute(hits);
        self.misses.absolute(misses);
        self.shared.absolute(shared);
        self.stale.absolute(stale);
        self.cut_off.absolute(cut_off);
        self.invalidations.absolute(invalidations);
        self.evictions.absolute(evictions);
        self.expirations.absolute(expirations);
        self.entries.set(entries as f64);
        self.bytes.set(bytes as f64);
    }
}
