//! The in-process tier: values bounded by their bytes, least recently used out first.

use crate::domain::Domain;
use crate::key::{BuildPassThrough, Key};
use crate::stamp::Stamp;
use bytes::Bytes;
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an entry costs beside its value, in bytes: key, map slot, recency list and bookkeeping. Measured as growth of
/// resident memory per entry less the value's bytes, with a lifetime: 522 to 541 for values of 16 to 600 bytes, and the
/// allocator's rounding beyond.
pub(crate) const ENTRY_OVERHEAD: u64 = 544;

/// How many entries left the tier, by cause. Written by the maintenance that moka runs inside calls, read by
/// statistics; counts only, so all accesses are relaxed.
#[derive(Debug, Default)]
struct Departures {
    evicted: AtomicU64,
    expired: AtomicU64,
}

/// Recency decides who leaves, not frequency. The same market window is asked for again within moments (retries, several
/// strategies) or never, so a new result must always get in, which an admission filter such as moka's `TinyLFU` denies
/// it. Hit rates over 500,000 look-ups among 100,000 keys, room for 1,000 and for 10,000 entries:
///
/// | replay | LRU | `TinyLFU` |
/// |---|---|---|
/// | Zipf, exponent 0.7 | 0.11, 0.35 | 0.17, 0.44 |
/// | Zipf, exponent 0.9 | 0.34, 0.60 | 0.43, 0.68 |
/// | Zipf, exponent 1.1 | 0.67, 0.84 | 0.73, 0.87 |
/// | half Zipf 0.9, half new and asked for once more within 200 look-ups | 0.42, 0.49 | 0.18, 0.24 |
/// | all new, asked for twice more within 200 look-ups | 0.67, 0.67 | 0.24, 0.24 |
///
/// What frequency gains where popularity lasts is a few points; what it loses in bursts is most of the hits.
#[derive(Debug)]
pub(crate) struct Local {
    entries: moka::sync::Cache<Key, Arc<Entry>, BuildPassThrough>,
    capacity: u64,
    lifetime: Option<Lifetime>,
    departures: Arc<Departures>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    pub(crate) domain: Domain,
    /// What was known of invalidations when its computation began.
    pub(crate) born: Stamp,
    /// After this it is not served; `None` serves it for ever.
    pub(crate) expires: Option<Instant>,
    /// How often it was served. Written by look-ups and read when the hottest are looked for; counts only, so all
    /// accesses are relaxed.
    pub(crate) hits: AtomicU32,
}

impl Entry {
    /// Whether nothing it belongs to was invalidated since. Its own key was not, or it would not be here.
    pub(crate) fn is_fresh(&self, domain: &Domain) -> bool {
        self.born >= domain.generation()
    }

    pub(crate) fn served(&self) -> Bytes {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.value.clone()
    }
}

impl Local {
    pub(crate) fn new(capacity: u64, time_to_live: Option<Duration>, jitter: Duration) -> Self {
        let departures = Arc::new(Departures::default());
        let counts = Arc::clone(&departures);
        let lifetime = time_to_live.map(|longest| Lifetime { longest, jitter });
        let mut builder = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Arc<Entry>| u32::try_from(weight(entry.value.len())).unwrap_or(u32::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Size => _ = counts.evicted.fetch_add(1, Ordering::Relaxed),
                RemovalCause::Expired => _ = counts.expired.fetch_add(1, Ordering::Relaxed),
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            });
        if lifetime.is_some() {
            builder = builder.expire_after(Expires);
        }
        let entries = builder.build_with_hasher(BuildPassThrough::default());
        Self { entries, capacity, lifetime, departures }
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<Entry>> {
        self.entries.get(&key)
    }

    /// When an entry of `key` that is made `now` expires.
    pub(crate) fn expiry(&self, key: Key, now: impl FnOnce() -> Instant) -> Option<Instant> {
        self.lifetime.and_then(|lifetime| now().checked_add(lifetime.of(key)))
    }

    /// Keeps `entry`, unless it alone exceeds the capacity (or 4 GiB, moka's limit on a weight).
    pub(crate) fn insert(&self, key: Key, entry: Entry) {
        if weight(entry.value.len()) <= self.capacity.min(u64::from(u32::MAX)) {
            self.entries.insert(key, Arc::new(entry));
        }
    }

    /// All entries, in no order. Those that are stored or leave meanwhile may be among them or not.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Bytes that can be taken in without an entry's leaving.
    pub(crate) fn room(&self) -> u64 {
        self.settle();
        self.capacity.saturating_sub(self.bytes())
    }

    pub(crate) fn remove(&self, key: Key) {
        self.entries.invalidate(&key);
    }

    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Applies what moka has put off, so that the counts below are exact.
    pub(crate) fn settle(&self) {
        self.entries.run_pending_tasks();
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.entry_count()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.departures.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn expired(&self) -> u64 {
        self.departures.expired.load(Ordering::Relaxed)
    }
}

pub(crate) fn weight(value_bytes: usize) -> u64 {
    value_bytes as u64 + ENTRY_OVERHEAD
}

/// Lifetimes spread over `(longest - jitter, longest]` by the bits of the key, so that entries made in one burst are
/// not all computed anew in another. No random number is drawn: the key is one already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) longest: Duration,
    pub(crate) jitter: Duration,
}

impl Lifetime {
    pub(crate) fn of(self, key: Key) -> Duration {
        let jitter = self.jitter.min(self.longest).as_nanos();
        // The share of the jitter is spread() / 2^64, in fixed point; it saturates at 580 years.
        let off = (jitter.min(u128::from(u64::MAX)) * u128::from(key.spread())) >> 64;
        self.longest.saturating_sub(Duration::from_nanos(u64::try_from(off).unwrap_or(u64::MAX)))
    }
}

/// Tells moka when an entry expires.
#[derive(Debug, Clone, Copy)]
struct Expires;

impl Expiry<Key, Arc<Entry>> for Expires {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        entry.expires.map(|expires| expires.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &Key, entry: &Arc<Entry>, now: Instant, _: Option<Duration>) -> Option<Duration> {
        entry.expires.map(|expires| expires.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keyer;
    use std::sync::LazyLock;

    fn entry(value: impl Into<Bytes>) -> Entry {
        let domain = Domain::new("model", "1", &[]);
        Entry { value: value.into(), domain, born: Stamp::ZERO, expires: None, hits: AtomicU32::new(0) }
    }

    fn key(n: u64) -> Key {
        static KEYER: LazyLock<Keyer> = LazyLock::new(|| Keyer::new([3; 32]));
        let mut hasher = KEYER.hasher();
        hasher.field(&n.to_le_bytes());
        hasher.finish()
    }

    #[test]
    fn bytes_stay_within_the_capacity() {
        let capacity = 100 * (1000 + ENTRY_OVERHEAD);
        let local = Local::new(capacity, None, Duration::ZERO);
        for n in 0..1000 {
            local.insert(key(n), entry(vec![0; 1000]));
        }
        local.settle();
        assert_eq!(local.entries(), 100);
        assert_eq!(local.bytes(), capacity);
        assert_eq!(local.evicted(), 900);
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let local = Local::new(3 * (10 + ENTRY_OVERHEAD), None, Duration::ZERO);
        for n in 0..3 {
            local.insert(key(n), entry(&b"ten bytes!"[..]));
        }
        local.settle();
        assert!(local.get(key(0)).is_some());
        local.insert(key(3), entry(&b"ten bytes!"[..]));
        local.settle();
        assert!(local.get(key(1)).is_none());
        for kept in [0, 2, 3] {
            assert!(local.get(key(kept)).is_some(), "entry {kept} was used later than entry 1");
        }
    }

    #[test]
    fn a_value_larger_than_the_capacity_evicts_nothing() {
        let local = Local::new(1000, None, Duration::ZERO);
        local.insert(key(0), entry(&b"small"[..]));
        local.insert(key(1), entry(vec![0; 1000]));
        local.settle();
        assert!(local.get(key(0)).is_some());
        assert!(local.get(key(1)).is_none());
    }

    #[test]
    fn an_entry_without_lifetime_is_never_served() {
        let local = Local::new(1 << 20, Some(Duration::ZERO), Duration::ZERO);
        let expires = local.expiry(key(0), Instant::now);
        local.insert(key(0), Entry { expires, ..entry(&b"late already"[..]) });
        assert!(local.get(key(0)).is_none());
    }

    #[test]
    fn lifetimes_spread_evenly_over_the_jitter() {
        let lifetime = Lifetime { longest: Duration::from_secs(60), jitter: Duration::from_secs(10) };
        let lives: Vec<Duration> = (0..1000).map(|n| lifetime.of(key(n))).collect();
        assert!(lives.iter().all(|life| (Duration::from_secs(50)..=Duration::from_secs(60)).contains(life)));
        let early = lives.iter().filter(|life| **life < Duration::from_secs(55)).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }

    #[test]
    fn a_jitter_beyond_the_lifetime_never_makes_it_negative() {
        let lifetime = Lifetime { longest: Duration::from_secs(1), jitter: Duration::MAX };
        assert!((0..100).map(|n| lifetime.of(key(n))).all(|life| life <= Duration::from_secs(1)));
    }
}
