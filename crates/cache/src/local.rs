//! The in-process tier: values bounded by their bytes; what was asked for again stays longest.

use crate::domain::Domain;
use crate::key::{BuildPassThrough, Key};
use crate::stamp::Stamp;
use bytes::Bytes;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an entry costs beside its value, in bytes: key, map slot, place in a queue and bookkeeping, and its share of the
/// keys that are remembered after their values have left. Measured as growth of resident memory per entry less the
/// value's bytes, with a lifetime: 204 to 230 for values of 16 to 600 bytes, and the allocator's rounding beyond.
pub(crate) const ENTRY_OVERHEAD: u64 = 232;

/// The share of the capacity that is for entries which were asked for again.
///
/// The policy is that of `quick_cache`, a CLOCK-Pro: a new result gets in. It leaves before others unless it is
/// asked for again, or asked for anew soon after it has left. The rest of the capacity is how long it has for that, which
/// must do for a market window that is asked for again within moments (retries, several strategies) or never. Hit rates
/// over 500,000 look-ups among 100,000 keys, room for 1,000 and for 10,000 entries:
///
/// | replay | 0.97 | 0.9 | 0.75 | 0.5 | least recently used |
/// |---|---|---|---|---|---|
/// | Zipf, exponent 0.7 | 0.21, 0.43 | 0.20, 0.42 | 0.20, 0.41 | 0.17, 0.39 | 0.11, 0.35 |
/// | Zipf, exponent 0.9 | 0.46, 0.66 | 0.45, 0.66 | 0.44, 0.65 | 0.41, 0.63 | 0.34, 0.60 |
/// | Zipf, exponent 1.1 | 0.74, 0.86 | 0.73, 0.86 | 0.72, 0.86 | 0.70, 0.85 | 0.67, 0.84 |
/// | a third Zipf 0.9, a third new, a third those once more within 200 look-ups | 0.20, 0.51 | 0.37, 0.51 | 0.40, 0.51 | 0.40, 0.50 | 0.40, 0.51 |
/// | all new, asked for twice more within 200 look-ups | 0.55, 0.67 | 0.67, 0.67 | 0.67, 0.67 | 0.67, 0.67 | 0.67, 0.67 |
const ASKED_FOR_AGAIN: f64 = 0.75;

/// Shards, each with a lock and a share of the capacity of its own: a power of two, as many as have this many bytes, but 256
/// at most. While a cache fills, a shard's table grows a few times, and who needs the shard waits: 0.5 ms at most where it
/// has 8 MiB, and 30 where it had 256 (Zen 3, values of 764 bytes, 4 GiB in 16).
const SHARD_BYTES: u64 = 8 << 20;
const SHARDS: u64 = 256;

/// The weight from which on entries are not kept, where that is less than what a shard has for those that were asked for
/// again. To make room for one, a shard lets go of as many others as it takes while look-ups wait: of small ones 4,500.
const HEAVIEST: u64 = 1 << 20;

/// What values are expected to have at the median. It decides how many keys are remembered of values that have left (half
/// as many as there are entries then).
const TYPICAL_VALUE: u64 = 512;

#[derive(Debug)]
pub(crate) struct Local {
    entries: quick_cache::sync::Cache<Key, Arc<Entry>, Weight, BuildPassThrough, Departures>,
    capacity: u64,
    /// The weight of an entry that fits beside what is for others.
    heaviest: u64,
    lifetime: Option<Lifetime>,
    departures: Departures,
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

    /// Reads the clock only if it can expire.
    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now())
    }

    pub(crate) fn served(&self) -> Bytes {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.value.clone()
    }
}

impl Local {
    pub(crate) fn new(capacity: u64, time_to_live: Option<Duration>, jitter: Duration) -> Self {
        let shards = 1 << (capacity / SHARD_BYTES).clamp(1, SHARDS).ilog2();
        // Each has the same, and what is left of it would be rounded up.
        let capacity = capacity - capacity % shards;
        let items = usize::try_from(capacity / weight_of(TYPICAL_VALUE)).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(items)
            .shards(shards as usize)
            .hot_allocation(ASKED_FOR_AGAIN)
            .build()
            .expect("both capacities are set");
        let departures = Departures::default();
        let hasher = BuildPassThrough::default();
        let entries = quick_cache::sync::Cache::with_options(options, Weight, hasher, departures.clone());
        let heaviest = ((entries.shard_capacity() as f64 * ASKED_FOR_AGAIN) as u64).min(HEAVIEST);
        let lifetime = time_to_live.map(|longest| Lifetime { longest, jitter });
        Self { entries, capacity, heaviest, lifetime, departures }
    }

    pub(crate) fn get(&self, key: Key) -> Option<Arc<Entry>> {
        let entry = self.entries.get(&key)?;
        if !entry.is_expired() {
            return Some(entry);
        }
        self.let_go(key, &entry);
        None
    }

    /// Drops `entry` if it is there still: who else met it may have computed it anew.
    fn let_go(&self, key: Key, entry: &Arc<Entry>) {
        if self.entries.remove_if(&key, |found| Arc::ptr_eq(found, entry)).is_some() {
            self.departures.count(entry);
        }
    }

    /// Drops what is not served any more. A look-up drops what it meets; what nobody asks for takes room until then.
    fn sweep(&self) {
        for (key, entry) in self.entries.iter() {
            if entry.is_expired() || !entry.is_fresh(&entry.domain) {
                self.let_go(key, &entry);
            }
        }
    }

    /// When an entry of `key` that is made `now` expires.
    pub(crate) fn expiry(&self, key: Key, now: impl FnOnce() -> Instant) -> Option<Instant> {
        self.lifetime.and_then(|lifetime| now().checked_add(lifetime.of(key)))
    }

    /// Whether an entry of this weight is kept at all.
    pub(crate) fn keeps(&self, weight: u64) -> bool {
        weight <= self.heaviest
    }

    /// Whether an entry of this weight is kept without another one's leaving that is still served. Looks through all
    /// entries if it seems that it is not.
    pub(crate) fn has_room_for(&self, weight: u64) -> bool {
        if self.keeps(weight) && weight > self.room() {
            self.sweep();
        }
        self.keeps(weight) && weight <= self.room()
    }

    /// Keeps `entry`, unless it is too heavy.
    pub(crate) fn insert(&self, key: Key, entry: Entry) {
        if self.keeps(weight(entry.value.len())) {
            self.entries.insert(key, Arc::new(entry));
        }
    }

    /// All entries, in no order, also those that have expired and were not met since. Those that are stored or leave
    /// meanwhile may be among them or not, and one that is stored anew twice.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Arc<Entry>)> {
        self.entries.iter()
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.peek(&key).is_some_and(|entry| !entry.is_expired())
    }

    /// Bytes that can be taken in before others leave.
    pub(crate) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.bytes())
    }

    pub(crate) fn remove(&self, key: Key) {
        self.entries.remove(&key);
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.departures.0.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn expired(&self) -> u64 {
        self.departures.0.expired.load(Ordering::Relaxed)
    }
}

pub(crate) fn weight(value_bytes: usize) -> u64 {
    weight_of(value_bytes as u64)
}

const fn weight_of(value_bytes: u64) -> u64 {
    value_bytes.saturating_add(ENTRY_OVERHEAD)
}

/// Tells the tier what an entry weighs.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<Key, Arc<Entry>> for Weight {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        weight(entry.value.len())
    }
}

/// How many entries have left, and why. Written under a shard's lock or by who dropped one, and read by statistics; counts
/// only, so all accesses are relaxed.
#[derive(Debug, Clone, Default)]
struct Departures(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Made room for others while they were served still.
    evicted: AtomicU64,
    expired: AtomicU64,
}

impl Departures {
    fn count(&self, entry: &Entry) {
        if entry.is_expired() {
            self.0.expired.fetch_add(1, Ordering::Relaxed);
        } else if entry.is_fresh(&entry.domain) {
            self.0.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lifecycle<Key, Arc<Entry>> for Departures {
    /// What has left is freed after the lock is given back.
    type RequestState = Vec<Arc<Entry>>;

    /// Not called where an entry takes the place of one of the same key.
    fn before_evict(&self, _: &mut Self::RequestState, _: &Key, entry: &mut Arc<Entry>) {
        self.count(entry);
    }

    fn on_evict(&self, gone: &mut Self::RequestState, _: Key, entry: Arc<Entry>) {
        gone.push(entry);
    }
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
        assert_eq!(local.entries(), 100);
        assert_eq!(local.bytes(), capacity);
        assert_eq!(local.evicted(), 900);
    }

    #[test]
    fn a_new_entry_gets_in_and_those_asked_for_again_stay() {
        let local = Local::new(100 * (10 + ENTRY_OVERHEAD), None, Duration::ZERO);
        let insert = |n| local.insert(key(n), entry(&b"ten bytes!"[..]));
        (0..100).for_each(insert);
        let again: Vec<u64> = (0..100).step_by(2).collect();
        assert!(again.iter().all(|n| local.get(key(*n)).is_some()));
        for n in 100..150 {
            insert(n);
            assert!(local.contains(key(n)), "entry {n} is new");
        }
        assert!(again.iter().all(|n| local.contains(key(*n))));
        assert_eq!((local.entries(), local.evicted()), (100, 50));
    }

    #[test]
    fn an_entry_that_takes_the_place_of_one_of_its_key_evicts_nothing() {
        let local = Local::new(1 << 20, None, Duration::ZERO);
        local.insert(key(0), entry(&b"old"[..]));
        local.insert(key(0), entry(&b"newer"[..]));
        assert_eq!(local.get(key(0)).expect("it is there").value, b"newer"[..]);
        assert_eq!((local.entries(), local.bytes(), local.evicted()), (1, weight(5), 0));
    }

    #[test]
    fn a_large_entry_evicts_as_many_as_it_needs_room_for() {
        let local = Local::new(100 * (10 + ENTRY_OVERHEAD), None, Duration::ZERO);
        (0..100).for_each(|n| local.insert(key(n), entry(&b"ten bytes!"[..])));
        local.insert(key(100), entry(vec![0; 10 * (10 + ENTRY_OVERHEAD as usize) - ENTRY_OVERHEAD as usize]));
        assert!(local.contains(key(100)));
        assert_eq!((local.entries(), local.evicted()), (91, 10));
    }

    #[test]
    fn a_value_larger_than_three_quarters_of_the_capacity_evicts_nothing() {
        let local = Local::new(1000, None, Duration::ZERO);
        assert!(local.has_room_for(750) && !local.has_room_for(751));
        local.insert(key(0), entry(&b"small"[..]));
        local.insert(key(1), entry(vec![0; 751 - ENTRY_OVERHEAD as usize]));
        assert!(local.get(key(0)).is_some());
        assert!(local.get(key(1)).is_none());
        local.insert(key(1), entry(vec![0; 750 - ENTRY_OVERHEAD as usize]));
        assert!(local.get(key(1)).is_some());
    }

    #[test]
    fn nothing_is_kept_for_which_thousands_would_have_to_go_at_once() {
        let local = Local::new(1 << 40, None, Duration::ZERO);
        assert!(local.has_room_for(HEAVIEST) && !local.has_room_for(HEAVIEST + 1) && !local.keeps(weight(usize::MAX)));
    }

    #[test]
    fn a_capacity_that_cannot_be_shared_evenly_is_not_exceeded() {
        let capacity = 16 * SHARD_BYTES + 15;
        let local = Local::new(capacity, None, Duration::ZERO);
        assert!(local.entries.capacity() <= capacity && local.capacity <= capacity, "{}", local.entries.capacity());
    }

    #[test]
    fn shards_share_the_capacity_and_none_is_small() {
        for (capacity, shards) in [(0, 1), (SHARD_BYTES - 1, 1), (9 * SHARD_BYTES, 8), (1 << 40, 256)] {
            let local = Local::new(capacity, None, Duration::ZERO);
            assert_eq!(local.entries.num_shards(), shards);
            assert!(local.entries.shard_capacity() >= capacity.min(SHARD_BYTES));
        }
        let capacity = 9 * SHARD_BYTES;
        let local = Local::new(capacity, None, Duration::ZERO);
        (0..2000).for_each(|n| local.insert(key(n), entry(vec![0; 100_000])));
        assert!(local.bytes() <= capacity && local.bytes() > capacity * 9 / 10, "{} bytes", local.bytes());
    }

    #[test]
    fn what_is_not_served_any_more_makes_room_before_others() {
        let local = Local::new(100 * (10 + ENTRY_OVERHEAD), None, Duration::ZERO);
        let ten = weight(10);
        (0..98).for_each(|n| local.insert(key(n), entry(&b"ten bytes!"[..])));
        assert!(local.has_room_for(2 * ten) && !local.has_room_for(3 * ten));
        let invalidated = entry(&b"ten bytes!"[..]);
        let mut generations = crate::generations::Generations::default();
        generations.merge(Stamp::ZERO, [(crate::Scope::All, Stamp::ZERO.next())]);
        invalidated.domain.update(&generations);
        local.insert(key(98), invalidated);
        local.insert(key(99), Entry { expires: Some(Instant::now()), ..entry(&b"ten bytes!"[..]) });
        assert_eq!(local.entries(), 100);
        assert!(local.has_room_for(2 * ten) && !local.has_room_for(3 * ten));
        assert_eq!((local.entries(), local.expired(), local.evicted()), (98, 1, 0));
    }

    #[test]
    fn what_has_expired_and_makes_room_is_not_counted_as_evicted() {
        let local = Local::new(10 * (10 + ENTRY_OVERHEAD), None, Duration::ZERO);
        for n in 0..20 {
            local.insert(key(n), Entry { expires: Some(Instant::now()), ..entry(&b"ten bytes!"[..]) });
        }
        assert_eq!((local.entries(), local.expired(), local.evicted()), (10, 10, 0));
    }

    #[test]
    fn an_entry_without_lifetime_is_never_served() {
        let local = Local::new(1 << 20, Some(Duration::ZERO), Duration::ZERO);
        let expires = local.expiry(key(0), Instant::now);
        local.insert(key(0), Entry { expires, ..entry(&b"late already"[..]) });
        assert!(!local.contains(key(0)));
        assert!(local.get(key(0)).is_none());
        assert_eq!((local.entries(), local.expired(), local.evicted()), (0, 1, 0));
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
