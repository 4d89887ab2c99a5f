//! What the cache costs on one thread, beside the computation it saves: `cargo run --release --example lookup_cost`.
#![expect(clippy::print_stdout, reason = "its output is the example's purpose")]

use bytes::Bytes;
use std::hint::black_box;
use std::time::{Duration, Instant};
use volley_cache::{Cache, CacheConfig, Domain, Key, Keyer, Lookup, Rank};

/// Input of one request and what a model with 128 features and 3 classes answers, in bytes.
const INPUT: usize = 50 * 60 * 4;
const OUTPUT: usize = (128 + 3) * 4;
const KEYS: u32 = 100_000;
const RANK: Rank = Rank { urgency: 0, deadline: None };

fn main() {
    let keyer = Keyer::new([7; 32]);
    let input = vec![1; INPUT];
    report("hash a 12,000-byte input", (0..KEYS).map(|n| _ = black_box(key(&keyer, n, &input))));

    let config = CacheConfig {
        capacity_bytes: 256 << 20,
        time_to_live: Some(Duration::from_secs(600)),
        ttl_jitter: Duration::from_secs(60),
    };
    let keys: Vec<Key> = (0..KEYS).map(|n| key(&keyer, n, b"")).collect();
    let output = [0; OUTPUT];
    let cache = Cache::<()>::new(config);
    let domain = |cache: &Cache<()>| cache.domain("model", "1", &[]);
    let fill = |cache: &Cache<()>, domain: &Domain, key| match cache.lookup(key, domain, RANK) {
        Lookup::Lead(lead) => lead.complete(Bytes::copy_from_slice(&output)),
        Lookup::Hit(_) | Lookup::Follow(_) => unreachable!("each key is new and this is the only thread"),
    };
    let of = domain(&cache);
    report("miss and insertion", keys.iter().map(|key| fill(&cache, &of, *key)));
    report("hit", keys.iter().map(|key| _ = black_box(cache.lookup(*key, &of, RANK))));

    let hot = keys[0];
    report("hit on one hot key", (0..KEYS).map(|_| _ = black_box(cache.lookup(hot, &of, RANK))));

    let full = Cache::<()>::new(CacheConfig { capacity_bytes: 1 << 20, ..config });
    let of = domain(&full);
    report("miss and insertion, full: one evicted each", keys.iter().map(|key| fill(&full, &of, *key)));

    let led = Cache::<()>::new(config);
    let of = domain(&led);
    let _lead = led.lookup(hot, &of, RANK);
    report("follow and leave", (0..KEYS).map(|_| _ = black_box(led.lookup(hot, &of, RANK))));
}

fn key(keyer: &Keyer, n: u32, input: &[u8]) -> Key {
    let mut hasher = keyer.hasher();
    hasher.field(&n.to_le_bytes()).field(input);
    hasher.finish()
}

/// Runs the steps and prints the mean time of one.
fn report(what: &str, steps: impl ExactSizeIterator<Item = ()>) {
    let count = steps.len() as f64;
    let start = Instant::now();
    steps.for_each(drop);
    println!("{what:<44}{:>8.0} ns", start.elapsed().as_secs_f64() * 1e9 / count);
}
