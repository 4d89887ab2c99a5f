//! The cache as its users see it: look up, and answer, lead or follow.

use crate::coherence::Coherence;
use crate::domain::Domain;
use crate::flight::{Flight, Flights, Joined};
use crate::gate::WhenCutOff;
use crate::key::{Key, Keyer};
use crate::lead::{Follow, Lead};
use crate::local::{Entry, Local, weight};
use crate::rank::Rank;
use crate::restore::{Restore, RestoreError};
use crate::scope::Scope;
use crate::snapshot::{Saved, Snapshot};
use crate::stamp::Stamp;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bound on the bytes of all values together with 232 bytes of bookkeeping per entry, kept at each insertion. The
    /// capacity is divided among up to 256 shards of at least 8 MiB. A value that takes more than 1 MiB, or than three
    /// quarters of the capacity where that is less, is not kept. Zero keeps nothing; concurrent look-ups still share one computation.
    pub capacity_bytes: u64,
    /// How long a value may be served at most; `None` serves it until it is evicted or invalidated. A model answers the
    /// same input with the same output for ever, so a limit is of use only where values depend on more than their key.
    pub time_to_live: Option<Duration>,
    /// By how much an entry's life may fall short of `time_to_live`, so that entries made in one burst are not computed
    /// anew in another. A tenth of it is plenty; more than all of it counts as all of it.
    pub ttl_jitter: Duration,
}

/// What the cache has done so far, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups answered from memory.
    pub hits: u64,
    /// Look-ups that had to compute, as leader at once or after following one that gave up.
    pub misses: u64,
    /// Look-ups answered by a computation that another one led.
    pub shared: u64,
    /// Look-ups that found an entry which was invalidated.
    pub stale: u64,
    /// Look-ups while this process may have missed invalidations for longer than it is allowed to. They are served from
    /// memory or not, as [`WhenCutOff`] says.
    pub cut_off: u64,
    /// Invalidations made by this process.
    pub invalidations: u64,
    /// Entries that made room for newer ones.
    pub evictions: u64,
    /// Entries whose time was over when they were asked for, or made room.
    pub expirations: u64,
    /// Entries held now. One that was invalidated with others, or has expired, stays until it is asked for or makes room.
    pub entries: u64,
    /// Bytes held now, counted as [`CacheConfig::capacity_bytes`] counts them.
    pub bytes: u64,
}

/// What a look-up found.
#[derive(Debug)]
#[must_use]
pub enum Lookup<E: Clone> {
    /// The value.
    Hit(Bytes),
    /// Nothing, and nobody computes it: the caller does, and owes the outcome to whoever follows.
    Lead(Lead<E>),
    /// Someone computes it already: wait for that.
    Follow(Follow<E>),
}

/// A cache of byte strings under content-hash keys, in which concurrent look-ups of one key compute it once.
///
/// Clones share the same cache. `E` is the error that a leader may share with its followers. No call waits for a
/// computation. Hits read under the lock of a shard of the entries, which they share with one another; look-ups of
/// different keys that miss take different locks, but for one pair in 64.
pub struct Cache<E: Clone> {
    inner: Arc<Inner<E>>,
}

/// Counters are written by look-ups and followers and read by statistics; counts only, so all accesses are relaxed.
pub(crate) struct Inner<E> {
    local: Arc<Local>,
    pub(crate) coherence: Coherence,
    pub(crate) flights: Flights<E>,
    hits: AtomicU64,
    misses: AtomicU64,
    shared: AtomicU64,
    stale: AtomicU64,
    cut_off: AtomicU64,
}

impl<E: Clone> Cache<E> {
    /// An empty cache.
    #[must_use]
    pub fn new(config: CacheConfig) -> Self {
        let CacheConfig { capacity_bytes, time_to_live, ttl_jitter } = config;
        let local = Arc::new(Local::new(capacity_bytes, time_to_live, ttl_jitter));
        let inner = Inner {
            coherence: Coherence::new(Arc::clone(&local)),
            local,
            flights: Flights::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The domain of these names, for [`lookup`](Self::lookup).
    #[must_use]
    pub fn domain(&self, model: &str, version: &str, tags: &[&str]) -> Domain {
        self.inner.coherence.domain(model, version, tags)
    }

    /// Finds the value of `key`, an entry of `domain`, or joins its computation on behalf of a caller of this `rank`.
    pub fn lookup(&self, key: Key, domain: &Domain, rank: Rank) -> Lookup<E> {
        let inner = &self.inner;
        let bypassed = inner.is_bypassed();
        if !bypassed && let Some(entry) = inner.local.get(key) {
            if entry.is_fresh(domain) {
                return inner.hit(entry.served());
            }
            inner.stale.fetch_add(1, Ordering::Relaxed);
        }
        let find = || {
            let entry = (!bypassed).then(|| inner.local.get(key)).flatten()?;
            entry.is_fresh(domain).then(|| entry.served())
        };
        let born = inner.coherence.seen();
        let is_fresh = |born: Stamp| inner.coherence.is_fresh(key, domain, born);
        match inner.flights.join(key, domain, rank, born, is_fresh, find) {
            Joined::Found(value) => inner.hit(value),
            Joined::Leads(flight) => {
                inner.count_miss();
                Lookup::Lead(Lead::new(Arc::clone(inner), flight))
            }
            Joined::Follows(flight, number) => Lookup::Follow(Follow::new(Arc::clone(inner), flight, number)),
        }
    }

    /// Whether a value of so many bytes can be stored without an entry's leaving that is still served. In a cache of
    /// several shards ([`CacheConfig::capacity_bytes`]) one of them may be full a little before the others.
    ///
    /// Drops what has expired or was invalidated if there is no room else, which takes some 0.1 ms for a thousand entries.
    #[must_use]
    pub fn has_room_for(&self, value_bytes: usize) -> bool {
        self.inner.local.has_room_for(weight(value_bytes))
    }

    /// Whether a value of so many bytes is stored at all: one that takes more than a megabyte, or three quarters of a shard of
    /// a small cache, is not.
    #[must_use]
    pub fn keeps(&self, value_bytes: usize) -> bool {
        self.inner.local.keeps(weight(value_bytes))
    }

    /// Forgets every value of `scope`. A look-up that starts afterwards computes it anew: a computation under way still
    /// answers those who wait for it, but is neither stored nor joined.
    pub fn invalidate(&self, scope: Scope) {
        self.inner.coherence.invalidate(scope);
    }

    /// The side of the cache that whoever keeps replicas coherent talks to.
    #[must_use]
    pub fn coherence(&self) -> &Coherence {
        &self.inner.coherence
    }

    /// Writes the entries that were asked for most often to the file at `path`, of `max_bytes` at most, for
    /// [`restore`](Self::restore). The file appears, or takes the place of the one before, when it is complete.
    ///
    /// What is invalidated later it does not know: unless the next process hears of that otherwise, remove the file then.
    ///
    /// Takes as long as the writing does. For a thread of the priority of those that look up: see
    /// [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    ///
    /// When the file cannot be written; one that was there before stays.
    pub fn save(&self, keyer: &Keyer, path: &Path, max_bytes: u64) -> io::Result<Saved> {
        self.snapshot(|| ()).save(keyer, path, max_bytes)
    }

    /// Takes hold of all entries, for [`Snapshot::save`].
    ///
    /// What has to be done under locks that hits take is done here, and the rest there: if the rest is for a thread of low
    /// priority, this is not, since everybody would wait for that thread as long as it has to wait itself. Instead there is
    /// a `pause` every 256 entries, after some 30 us; what happens meanwhile the snapshot may have or not.
    pub fn snapshot(&self, pause: impl FnMut()) -> Snapshot {
        Snapshot::take(&self.inner.coherence, pause)
    }

    /// Opens the snapshot at `path`. Iterating over what this returns takes its entries into the cache.
    ///
    /// What the snapshot knows to be invalidated is known to the cache when this returns.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says why nothing can be taken from the file.
    pub fn restore(&self, keyer: &Keyer, path: &Path) -> Result<Restore, RestoreError> {
        Restore::open(&self.inner.coherence, keyer, path)
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let Inner { local, coherence, flights: _, hits, misses, shared, stale, cut_off } = &*self.inner;
        CacheStats {
            hits: hits.load(Ordering::Relaxed),
            misses: misses.load(Ordering::Relaxed),
            shared: shared.load(Ordering::Relaxed),
            stale: stale.load(Ordering::Relaxed),
            cut_off: cut_off.load(Ordering::Relaxed),
            invalidations: coherence.invalidations(),
            evictions: local.evicted(),
            expirations: local.expired(),
            entries: local.entries(),
            bytes: local.bytes(),
        }
    }
}

impl<E: Clone> Inner<E> {
    fn is_bypassed(&self) -> bool {
        let cut_off = self.coherence.cut_off();
        if cut_off.is_some() {
            self.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        cut_off == Some(WhenCutOff::Bypass)
    }

    fn hit(&self, value: Bytes) -> Lookup<E> {
        self.hits.fetch_add(1, Ordering::Relaxed);
        Lookup::Hit(value)
    }

    pub(crate) fn land(&self, flight: &Arc<Flight<E>>, value: Bytes, born: Stamp) {
        let (key, domain) = (flight.key(), flight.domain());
        let entry = Entry {
            value: value.clone(),
            domain: domain.clone(),
            born,
            expires: self.local.expiry(key, Instant::now),
            hits: AtomicU32::new(0),
        };
        self.flights.land(flight, Ok(value), || {
            self.coherence.keep_if_fresh(key, domain, born, || self.local.insert(key, entry));
        });
    }

    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }
}

impl<E: Clone> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E: Clone> fmt::Debug for Cache<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.inner.local.entries()).finish_non_exhaustive()
    }
}
