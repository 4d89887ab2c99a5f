//! What is published of the cache's tier that replicas share.

use metrics::{Counter, Gauge};

use crate::names;

/// The value of the label `tier`.
const TIER: &str = "redis";

/// What the shared tier has counted since it started, and how it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SharedCacheReading {
    /// Look-ups that found a value.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
    /// Look-ups that found a value which was invalidated.
    pub stale: u64,
    /// Look-ups that failed, in the order of [`SharedCacheReading::FAILURES`].
    pub failures: [u64; 4],
    /// Look-ups that were answered, and the microseconds they took together.
    pub answered: (u64, u64),
    /// Writes, in the order of [`SharedCacheReading::WRITES`].
    pub writes: [u64; 3],
    /// Values that wait to be written.
    pub queued: u64,
    /// Invalidations made here that others cannot know yet.
    pub pending_invalidations: u64,
    /// Whether the breakers of look-ups and of writes keep them back.
    pub breakers_open: [bool; 2],
    /// Whether there is a connection.
    pub connected: bool,
    /// Seconds since it was last known that no invalidation was missed; nothing if it never was.
    pub confirmed_ago: Option<f64>,
}

impl SharedCacheReading {
    /// Why a look-up failed.
    pub const FAILURES: [&str; 4] = ["corrupt", "timeout", "error", "not_sent"];
    /// What became of a value that was to be written.
    pub const WRITES: [&str; 3] = ["written", "dropped", "refused"];
    const BREAKERS: [&str; 2] = ["lookup", "write"];
}

/// Handles on the shared tier's series. Its readings are published before a scrape.
#[derive(Debug)]
pub struct SharedCacheMetrics {
    hits: Counter,
    misses: Counter,
    stale: Counter,
    failures: [Counter; 4],
    answered: Counter,
    answered_microseconds: Counter,
    writes: [Counter; 3],
    queued: Gauge,
    pending_invalidations: Gauge,
    breakers: [Gauge; 2],
    connected: Gauge,
    confirmed_ago: Gauge,
}

impl SharedCacheMetrics {
    /// Handles with the recorder in force.
    #[must_use]
    pub fn register() -> Self {
        Self {
            hits: names::CACHE_HITS.counter(&[TIER]),
            misses: names::CACHE_MISSES.counter(&[TIER]),
            stale: names::CACHE_STALE.counter(&[TIER]),
            failures: SharedCacheReading::FAILURES.map(|reason| names::CACHE_FAILURES.counter(&[TIER, reason])),
            answered: names::CACHE_LOOKUPS.counter(&[TIER]),
            answered_microseconds: names::CACHE_LOOKUP_MICROSECONDS.counter(&[TIER]),
            writes: SharedCacheReading::WRITES.map(|outcome| names::CACHE_WRITES.counter(&[TIER, outcome])),
            queued: names::CACHE_QUEUED_WRITES.gauge(&[TIER]),
            pending_invalidations: names::CACHE_PENDING_INVALIDATIONS.gauge(&[TIER]),
            breakers: SharedCacheReading::BREAKERS.map(|of| names::CACHE_BREAKER_OPEN.gauge(&[TIER, of])),
            connected: names::CACHE_CONNECTED.gauge(&[TIER]),
            confirmed_ago: names::CACHE_CONFIRMED_AGO.gauge(&[TIER]),
        }
    }

    /// Publishes a reading. Counters keep the largest value seen, so readings may arrive out of order.
    pub fn publish(&self, reading: &SharedCacheReading) {
        self.hits.absolute(reading.hits);
        self.misses.absolute(reading.misses);
        self.stale.absolute(reading.stale);
        for (counter, count) in self.failures.iter().zip(reading.failures) {
            counter.absolute(count);
        }
        let (answered, microseconds) = reading.answered;
        self.answered.absolute(answered);
        self.answered_microseconds.absolute(microseconds);
        for (counter, count) in self.writes.iter().zip(reading.writes) {
            counter.absolute(count);
        }
        self.queued.set(reading.queued as f64);
        self.pending_invalidations.set(reading.pending_invalidations as f64);
        for (gauge, open) in self.breakers.iter().zip(reading.breakers_open) {
            gauge.set(f64::from(u8::from(open)));
        }
        self.connected.set(f64::from(u8::from(reading.connected)));
        self.confirmed_ago.set(reading.confirmed_ago.unwrap_or(f64::INFINITY));
    }
}
