//! How far resident memory grows past the cache's byte bound, each case in a process of its own.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use volley_cache::{Cache, CacheConfig, Keyer};
use volley_validate::usage::ProcessUsage;

use crate::Options;
use crate::local::{key, store};

const BOUND: u64 = 256 << 20;
/// How often a child looks at its own memory.
const LOOKS: u64 = 500;

/// Lengths of values, in bytes, and for which share of the inserts: large ones take their time.
const CASES: [(&str, u64); 5] =
    [("16", 1), ("128", 1), ("16,64,250,400,600", 1), ("100000", 50), ("16,600,100000", 20)];

/// The worst excess, as a fraction of the bound.
pub(crate) fn over_bound(options: &Options, report: &mut String) -> Result<f64, Box<dyn Error>> {
    let mut worst = f64::NEG_INFINITY;
    for (lengths, share) in CASES {
        let inserts = options.inserts / share;
        let child = Command::new(std::env::current_exe()?)
            .args(["fill", lengths, &inserts.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        let grown: u64 = String::from_utf8(child.stdout)?.trim().parse()?;
        let excess = grown as f64 / BOUND as f64 - 1.0;
        writeln!(
            report,
            "values of {lengths:<18} {:>6.1} MB at most for a bound of {} MB ({:+.1} %), {inserts} inserts",
            grown as f64 / f64::from(1 << 20),
            BOUND >> 20,
            excess * 100.0
        )?;
        worst = worst.max(excess);
    }
    Ok(worst)
}

/// Stores values of these lengths in turn, under as many keys, and prints by how much the process grew at most.
pub(crate) fn fill(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut argument = || arguments.next().ok_or("usage: cache fill LENGTHS INSERTS");
    let lengths = argument()?.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let inserts: u64 = argument()?.parse()?;
    let cache = Cache::new(CacheConfig {
        capacity_bytes: BOUND,
        time_to_live: Some(Duration::from_secs(3600)),
        ttl_jitter: Duration::from_secs(360),
    });
    let (domain, keyer) = (cache.domain("model", "1", &[]), Keyer::new([7; 32]));
    let resident = || ProcessUsage::of(std::process::id()).map(|usage| usage.resident_bytes);
    let before = resident()?;
    let mut most = before;
    for n in 0..inserts {
        // Not in step with the number of shards: lengths are drawn by the keys' own bits.
        let key = key(&keyer, n);
        let length = lengths[usize::from(key.to_bytes()[5]) % lengths.len()];
        store(&cache, &domain, key, Bytes::from(vec![1; length]));
        if n % (inserts / LOOKS + 1) == 0 {
            most = most.max(resident()?);
        }
    }
    most = most.max(resident()?);
    writeln!(stdout(), "{}", most - before)?;
    Ok(())
}
