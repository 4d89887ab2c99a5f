//! A restart in the middle of a Zipf-distributed replay, with a snapshot.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use volley_cache::{Cache, CacheConfig, Keyer, Lookup};

use crate::local::{ANY, key, unlimited};

const INPUTS: u64 = 200_000;
const EXPONENT: f64 = 0.9;
const CAPACITY: u64 = 16 << 20;
const ASKED: usize = 200_000;

/// The hit rate of the first look-ups after the restart over that of the last before it.
pub(crate) fn hit_rate_share(report: &mut String) -> Result<f64, Box<dyn Error>> {
    let keyer = Keyer::new([7; 32]);
    let mut replay = Replay::new();
    let new = || Cache::<()>::new(CacheConfig { capacity_bytes: CAPACITY, ..unlimited() });
    let before = new();
    replay.hit_rate(&before, &keyer, ASKED);
    let usual = replay.hit_rate(&before, &keyer, ASKED);
    let path = std::env::temp_dir().join(format!("volley-bench-{}.snapshot", std::process::id()));
    let saved = before.save(&keyer, &path, CAPACITY)?;
    let after = new();
    let start = Instant::now();
    let restored = after.restore(&keyer, &path)?.last().unwrap_or_default();
    let took = start.elapsed();
    std::fs::remove_file(&path)?;
    let first = replay.hit_rate(&after, &keyer, ASKED / 10);
    let cold = replay.hit_rate(&new(), &keyer, ASKED / 10);
    writeln!(
        report,
        "restart                     hit rate {usual:.3} before; {first:.3} right after with a snapshot ({} entries, {:.1} \
         MB, restored in {:.0} ms); {cold:.3} without",
        restored.taken,
        saved.bytes as f64 / 1e6,
        took.as_secs_f64() * 1e3
    )?;
    Ok(first / usual)
}

struct Replay {
    cumulative: Vec<f64>,
    random: SmallRng,
}

impl Replay {
    fn new() -> Self {
        let mut sum = 0.0;
        let weights = (1..=INPUTS).map(|rank| (rank as f64).powf(-EXPONENT));
        let cumulative = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Self { cumulative, random: SmallRng::seed_from_u64(1) }
    }

    fn hit_rate(&mut self, cache: &Cache<()>, keyer: &Keyer, asked: usize) -> f64 {
        let domain = cache.domain("model", "1", &[]);
        let all = self.cumulative.last().copied().unwrap_or_default();
        let mut hits = 0;
        for _ in 0..asked {
            let at = self.random.random_range(0.0..all);
            let n = self.cumulative.partition_point(|sum| *sum < at) as u64;
            match cache.lookup(key(keyer, n), &domain, ANY) {
                Lookup::Hit(_) => hits += 1,
                Lookup::Lead(lead) => lead.complete(Bytes::from(vec![0; 524])),
                Lookup::Follow(_) => unreachable!("this is the only thread"),
            }
        }
        f64::from(hits) / asked as f64
    }
}
