//! Keys and hits on one thread.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use volley_cache::{Cache, CacheConfig, Domain, Key, Keyer, Lookup, Rank};
use volley_examples::Spread;

/// Bytes of one window, and of the answer to it.
const INPUT: usize = 50 * 60 * 4;
const OUTPUT: usize = (128 + 3) * 4;
const KEYS: u64 = 100_000;
const BLOCK: usize = 1000;
pub(crate) const ANY: Rank = Rank { urgency: 0, deadline: None };

/// The median over blocks of how many bytes a second make keys.
pub(crate) fn hash_gb_s() -> f64 {
    let (model, input) = (Keyer::new([7; 32]).hasher(), vec![1; INPUT]);
    let per_key = median_ns(100, |_| {
        let mut hasher = model.clone();
        hasher.field(black_box(&input));
        black_box(hasher.finish());
    });
    INPUT as f64 / per_key
}

/// The median over blocks of a hit's nanoseconds, each key in its turn.
pub(crate) fn hit_ns() -> f64 {
    let cache = Cache::<()>::new(CacheConfig { capacity_bytes: 256 << 20, ..unlimited() });
    let domain = cache.domain("model", "1", &[]);
    let keyer = Keyer::new([7; 32]);
    let keys: Vec<Key> = (0..KEYS).map(|n| key(&keyer, n)).collect();
    keys.iter().for_each(|key| store(&cache, &domain, *key, Bytes::from(vec![0; OUTPUT])));
    median_ns(KEYS as usize / BLOCK, |step| _ = black_box(cache.lookup(keys[step % keys.len()], &domain, ANY)))
}

fn median_ns(blocks: usize, mut step: impl FnMut(usize)) -> f64 {
    let blocks = (0..blocks).map(|block| {
        let start = Instant::now();
        (block * BLOCK..(block + 1) * BLOCK).for_each(&mut step);
        start.elapsed().as_secs_f64() * 1e9 / BLOCK as f64
    });
    blocks.collect::<Spread>().median()
}

/// A cache of no size whose entries live for ever.
pub(crate) fn unlimited() -> CacheConfig {
    CacheConfig { capacity_bytes: 0, time_to_live: None, ttl_jitter: std::time::Duration::ZERO }
}

pub(crate) fn key(keyer: &Keyer, n: u64) -> Key {
    let mut hasher = keyer.hasher();
    hasher.field(&n.to_le_bytes());
    hasher.finish()
}

/// Looks the key up and stores the value if it is not there.
pub(crate) fn store(cache: &Cache<()>, domain: &Domain, key: Key, value: Bytes) {
    if let Lookup::Lead(lead) = cache.lookup(key, domain, ANY) {
        lead.complete(value);
    }
}
