//! A restart in the middle of a Zipf-distributed replay, with a snapshot.

use std::error::Error;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use volley_cache::{Cache, CacheConfig, Keyer, Lookup};

use crate::local::{ANY, key, unlimited};

const INPUTS: u64 = 200_000;
const EXPONENT: f64 = 0.9;
const CAPACITY: u64 = 16 << 20;
const ASKED: usize = 200_000;

/// Look-ups a second after the restart, and for how long.
const RATE: u32 = 2_000;
const WITHIN: Duration = Duration::from_secs(10);
/// How many look-ups are the first.
const FIRST: usize = 500;

/// The hit rate after the restart over that before it: of the first look-ups, and of all within ten seconds. Look-ups begin
/// when the snapshot is opened, and go on beside the thread that takes its entries in.
pub(crate) fn hit_rate_shares(report: &mut String) -> Result<(f64, f64), Box<dyn Error>> {
    let keyer = Keyer::new([7; 32]);
    let mut replay = Replay::new();
    let new = || Cache::<()>::new(CacheConfig { capacity_bytes: CAPACITY, ..unlimited() });
    let before = new();
    replay.hits(&before, &keyer, ASKED);
    let usual = replay.hits(&before, &keyer, ASKED) as f64 / ASKED as f64;
    let path = std::env::temp_dir().join(format!("volley-bench-{}.snapshot", std::process::id()));
    let saved = before.save(&keyer, &path, CAPACITY)?;
    let after = new();
    let start = Instant::now();
    let restore = after.restore(&keyer, &path)?;
    let restoring = thread::spawn(move || (restore.inspect(|_| thread::yield_now()).last(), start.elapsed()));
    let asked = (WITHIN.as_secs_f64() * f64::from(RATE)) as usize;
    let (mut hits, mut first) = (0, 0);
    for n in 1..=asked {
        hits += replay.hits(&after, &keyer, 1);
        if n == FIRST {
            first = hits;
        }
        thread::sleep((start + WITHIN * n as u32 / asked as u32).saturating_duration_since(Instant::now()));
    }
    let (restored, took) = restoring.join().map_err(|_| "the restoration panicked")?;
    std::fs::remove_file(&path)?;
    let cold = replay.hits(&new(), &keyer, asked) as f64 / asked as f64;
    let (first, all) = (first as f64 / FIRST as f64, hits as f64 / asked as f64);
    writeln!(
        report,
        "restart                     hit rate {usual:.3} before; with a snapshot {first:.3} in the first {FIRST} look-ups, {all:.3} in \
         {} s at {RATE} a second; {cold:.3} without ({} entries, {:.1} MB, taken in {:.0} ms)",
        WITHIN.as_secs(),
        restored.unwrap_or_default().taken,
        saved.bytes as f64 / 1e6,
        took.as_secs_f64() * 1e3
    )?;
    Ok((first / usual, all / usual))
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

    fn hits(&mut self, cache: &Cache<()>, keyer: &Keyer, asked: usize) -> usize {
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
        hits
    }
}
