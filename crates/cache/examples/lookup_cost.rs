//! What the cache costs on one thread, beside the computation it saves: `cargo run --release --example lookup_cost`.
#![expect(clippy::print_stdout, reason = "its output is the example's purpose")]

use bytes::Bytes;
use std::hint::black_box;
use std::time::{Duration, Instant};
use volley_cache::{Cache, CacheConfig, Key, Keyer, Lookup, Rank};

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
    let fill = |cache: &Cache<()>, key| match cache.lookup(key, RANK) {
        Lookup::Lead(lead) => lead.complete(Bytes::copy_from_slice(&output)),
        Lookup::Hit(_) | Lookup::Follow(_) => unreachable!("each key is new and this is the only thread"),
    };
    report("miss and insertion", keys.iter().map(|key| fill(&cache, *key)));
    report("hit", keys.iter().map(|key| _ = black_box(cache.lookup(*key, RANK))));

    let hot = keys[0];
    report("hit on one hot key", (0..KEYS).map(|_| _ = black_box(cache.lookup(hot, RANK))));

    let full = Cache::<()>::new(CacheConfig { capacity_bytes: 1 << 20, ..config });
    report("miss and insertion, full: one evicted each", keys.iter().map(|key| fill(&full, *key)));

    let led = Cache::<()>::new(config);
    let _lead = led.lookup(hot, RANK);
    report("follow and leave", (0..KEYS).map(|_| _ = black_box(led.lookup(hot, RANK))));
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
