//! What a cache takes from the one before it.

#[expect(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use bytes::Bytes;
use common::{AMPLE, ANY, Error, cache, domain, key, value};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use volley_cache::{Cache, CacheConfig, Domain, Keyer, Lookup, RestoreError, Restored, Scope, Stamp};

/// A file of its own for each test, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("volley-cache-{}-{number}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder.join("cache.snapshot"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().expect("it lies in a folder"));
    }
}

fn keyer() -> Keyer {
    Keyer::new([3; 32])
}

/// Asks for entry `n`, and computes it if need be; whether it was there.
fn ask(cache: &Cache<Error>, domain: &Domain, n: u64) -> bool {
    match cache.lookup(key(n), domain, ANY) {
        Lookup::Hit(found) => {
            assert_eq!(found, value(n));
            true
        }
        Lookup::Lead(lead) => {
            lead.complete(value(n));
            false
        }
        Lookup::Follow(_) => unreachable!("nobody else asks"),
    }
}

fn is_served(cache: &Cache<Error>, n: u64) -> bool {
    match cache.lookup(key(n), &domain(cache), ANY) {
        Lookup::Hit(found) => {
            assert_eq!(found, value(n));
            true
        }
        _ => false,
    }
}

/// A cache of entries 0 to `entries`, of which each was asked for as often as its number says, and its snapshot.
fn saved(path: &Path, entries: u64, max_bytes: u64) -> Cache<Error> {
    let cache = cache(AMPLE);
    let domain = domain(&cache);
    for n in 0..entries {
        (0..=n).for_each(|_| _ = ask(&cache, &domain, n));
    }
    cache.save(&keyer(), path, max_bytes).expect("a snapshot");
    cache
}

fn restored(cache: &Cache<Error>, path: &Path) -> Restored {
    cache.restore(&keyer(), path).expect("a snapshot").last().unwrap_or_default()
}

#[test]
fn the_next_process_serves_what_the_last_one_saved() {
    let file = Scratch::new();
    let before = saved(&file.0, 20, u64::MAX);
    let cache = cache(AMPLE);
    assert_eq!(restored(&cache, &file.0), Restored { total: 20, taken: 20, ..Restored::default() });
    assert!((0..20).all(|n| is_served(&cache, n)));
    assert_eq!(cache.stats().bytes, before.stats().bytes);
}

#[test]
fn a_bound_keeps_the_hottest() {
    let file = Scratch::new();
    for max_bytes in [0, 300, 1000, 2000] {
        let before = saved(&file.0, 20, max_bytes);
        let written = fs::metadata(&file.0).expect("a file").len();
        assert_eq!(before.save(&keyer(), &file.0, max_bytes).expect("a snapshot").bytes, written);
        let cache = cache(AMPLE);
        let taken = restored(&cache, &file.0).taken as u64;
        assert!(written <= max_bytes.max(110), "{written} bytes; the bound was {max_bytes}");
        assert!(written + 100 > max_bytes || taken == 20, "only {written} of {max_bytes} bytes");
        assert!((20 - taken..20).all(|n| is_served(&cache, n)), "not the hottest {taken}");
    }
}

#[test]
fn two_snapshots_side_by_side_are_written_apart() {
    let file = Scratch::new();
    let cache = saved(&file.0, 3, u64::MAX);
    // What a snapshot beside this one is written to.
    fs::create_dir(file.0.with_file_name("results.unfinished")).expect("a folder");
    for name in ["results.1", "results.2"] {
        assert_eq!(cache.save(&keyer(), &file.0.with_file_name(name), u64::MAX).expect("a snapshot").entries, 3);
    }
}

#[test]
fn the_coldest_make_room_first() {
    let file = Scratch::new();
    let full = saved(&file.0, 200, u64::MAX).stats().bytes;
    let cache = cache(full);
    assert_eq!(restored(&cache, &file.0).taken, 200);
    let domain = domain(&cache);
    (200..300).for_each(|n| _ = ask(&cache, &domain, n));
    // A quarter is for what is new and was not asked for again. Values differ in length, so not exactly one in four had to go.
    assert!((60..200).all(|n| is_served(&cache, n)), "hotter ones left");
    assert!(!(0..40).any(|n| is_served(&cache, n)), "colder ones stayed");
    assert!(is_served(&cache, 299), "the newest has not got in");
}

#[test]
fn what_was_invalidated_before_the_snapshot_or_is_known_to_be_since_stays_dead() {
    for scope in [Scope::All, Scope::Model("model".into()), Scope::Tag("tag".into()), Scope::Key(key(1))] {
        let file = Scratch::new();
        let before = saved(&file.0, 2, u64::MAX);
        before.coherence().merge(Stamp::shared(5), []);
        before.invalidate(scope.clone());
        before.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
        let cache = cache(AMPLE);
        restored(&cache, &file.0);
        assert!(!is_served(&cache, 1), "{scope} was invalidated before");
        let at = cache.coherence().generations().of(&scope);
        assert!(at > Stamp::shared(5) && at.is_provisional(), "others have still to hear of it");

        let file = Scratch::new();
        saved(&file.0, 2, u64::MAX);
        let cache = self::cache(AMPLE);
        cache.coherence().merge(Stamp::shared(7), [(scope.clone(), Stamp::shared(7))]);
        let Restored { left_out, damaged, .. } = restored(&cache, &file.0);
        assert!(left_out > 0 && damaged == 0);
        assert!(!is_served(&cache, 1), "{scope} was invalidated since");
    }
}

#[test]
fn what_was_computed_anew_meanwhile_stays() {
    let file = Scratch::new();
    saved(&file.0, 2, u64::MAX);
    let cache = cache(AMPLE);
    let Lookup::Lead(lead) = cache.lookup(key(0), &domain(&cache), ANY) else { panic!("the cache is empty") };
    lead.complete(Bytes::from_static(b"newer"));
    assert_eq!(restored(&cache, &file.0), Restored { total: 2, taken: 1, left_out: 1, damaged: 0 });
    assert!(matches!(cache.lookup(key(0), &domain(&cache), ANY), Lookup::Hit(found) if found == "newer"));
}

#[test]
fn a_smaller_cache_takes_the_hottest_that_it_has_room_for() {
    let file = Scratch::new();
    saved(&file.0, 20, u64::MAX);
    let cache = cache(5 * (232 + 100));
    let Restored { taken, left_out, .. } = restored(&cache, &file.0);
    assert_eq!((taken, left_out), (6, 14));
    assert!((14..20).all(|n| is_served(&cache, n)));
    assert_eq!(cache.stats().evictions, 0);
}

#[test]
fn what_the_cache_now_does_not_keep_is_left_out_and_takes_no_other_s_room() {
    let file = Scratch::new();
    let before = cache(AMPLE);
    let domain = domain(&before);
    for (n, length) in [(0, 1000), (1, 1)] {
        let Lookup::Lead(lead) = before.lookup(key(n), &domain, ANY) else { panic!("the cache is empty") };
        lead.complete(vec![7; length].into());
    }
    before.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    // Both would fit, but one takes more than three quarters.
    let cache = cache(1600);
    assert_eq!(restored(&cache, &file.0), Restored { total: 2, taken: 1, left_out: 1, damaged: 0 });
}

#[test]
fn a_snapshot_pauses_now_and_then_and_has_what_was_there_before_it_began() {
    let file = Scratch::new();
    let cache = cache(64 << 20);
    let domain = domain(&cache);
    (0..2000).for_each(|n| _ = ask(&cache, &domain, n));
    let mut pauses = 0;
    let snapshot = cache.snapshot(|| {
        pauses += 1;
        // Nothing is locked meanwhile.
        cache.invalidate(Scope::Key(key(0)));
        ask(&cache, &domain, 10_000 + pauses);
    });
    assert!((7..=8).contains(&pauses), "{pauses} pauses");
    let saved = snapshot.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    assert!((1999..=2008).contains(&saved.entries), "{} entries", saved.entries);
    let warm = self::cache(64 << 20);
    restored(&warm, &file.0);
    assert!((1..2000).all(|n| is_served(&warm, n)));
    assert!(!is_served(&warm, 0), "it was invalidated meanwhile");
}

#[test]
fn the_hottest_of_a_snapshot_outlive_a_burst_of_what_is_new() {
    let file = Scratch::new();
    let entry = 232 + value(0).len() as u64;
    let cache = cache(1000 * entry);
    let domain = domain(&cache);
    (0..1000).for_each(|n| _ = ask(&cache, &domain, n));
    (0..200).for_each(|n| assert!(ask(&cache, &domain, n)));
    cache.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    let next = self::cache(1000 * entry);
    restored(&next, &file.0);
    let next_domain = self::domain(&next);
    for n in 5000..5600 {
        ask(&next, &next_domain, n);
        ask(&next, &next_domain, n);
    }
    let left = (0..200).filter(|n| is_served(&next, *n)).count();
    assert!(left > 150, "{left} of the 200 hottest are left");
}

#[test]
fn a_snapshot_knows_of_all_that_was_invalidated_while_it_was_taken() {
    let file = Scratch::new();
    let cache = cache(64 << 20);
    let domain = domain(&cache);
    (0..2000).for_each(|n| _ = ask(&cache, &domain, n));
    let mut asked = 10_000;
    let snapshot = cache.snapshot(|| {
        cache.invalidate(Scope::Model("other".into()));
        (0..10).for_each(|n| _ = ask(&cache, &domain, asked + n));
        asked += 10;
    });
    snapshot.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    let next = self::cache(64 << 20);
    restored(&next, &file.0);
    assert!((0..2000).all(|n| is_served(&next, n)));
    // As the first invalidation of a process that has not heard of any but those of the snapshot.
    next.invalidate(Scope::All);
    assert!((0..12_000).all(|n| !is_served(&next, n)));
}

#[test]
fn an_entry_lives_no_longer_than_it_was_to_nor_than_is_configured_now() {
    let file = Scratch::new();
    let config = CacheConfig {
        capacity_bytes: AMPLE,
        time_to_live: Some(Duration::from_secs(3600)),
        ttl_jitter: Duration::ZERO,
    };
    let before = Cache::new(config);
    ask(&before, &domain(&before), 1);
    before.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    let short = Cache::new(CacheConfig { time_to_live: Some(Duration::ZERO), ..config });
    restored(&short, &file.0);
    assert!(!is_served(&short, 1), "the life that is configured now is over");
    let long = cache(AMPLE);
    restored(&long, &file.0);
    assert!(is_served(&long, 1), "the life that it was saved with is not");
    let over = Cache::new(CacheConfig { time_to_live: Some(Duration::from_nanos(1)), ..config });
    ask(&over, &domain(&over), 2);
    let saved = over.save(&keyer(), &file.0, u64::MAX).expect("a snapshot");
    assert_eq!(saved.entries, 0, "what is over is not saved");
}

#[test]
fn a_snapshot_of_another_secret_is_refused_for_that_reason() {
    let file = Scratch::new();
    saved(&file.0, 2, u64::MAX);
    let refused = cache(AMPLE).restore(&Keyer::new([4; 32]), &file.0);
    assert!(matches!(refused, Err(RestoreError::OtherSecret)));
}

#[test]
fn what_is_no_snapshot_or_of_another_version_is_told_so() {
    let file = Scratch::new();
    let why = |bytes: &[u8]| {
        fs::write(&file.0, bytes).expect("written");
        cache(AMPLE).restore(&keyer(), &file.0).expect_err("it is refused").to_string()
    };
    assert_eq!(why(b""), "the file is no snapshot of a cache");
    assert_eq!(why(&[b'x'; 100]), "the file is no snapshot of a cache");
    let newer = [b"VOLLEYC\x02".as_slice(), &[0; 100]].concat();
    assert_eq!(why(&newer), "the snapshot has version 2 of its format; this program reads version 1");
    fs::remove_file(&file.0).expect("it was there");
    assert!(matches!(cache(AMPLE).restore(&keyer(), &file.0), Err(RestoreError::Io(_))));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_snapshot_and_is_not_waited_for() {
    let file = Scratch::new();
    assert!(Command::new("mkfifo").arg(&file.0).status().expect("there is mkfifo").success());
    assert!(matches!(cache(AMPLE).restore(&keyer(), &file.0), Err(RestoreError::NoSnapshot)));
    // Written, it takes its place.
    saved(&file.0, 1, u64::MAX);
    assert_eq!(restored(&cache(AMPLE), &file.0).taken, 1);
}

#[cfg(unix)]
#[test]
fn what_lies_where_a_snapshot_is_begun_goes_and_what_it_leads_to_stays() {
    let file = Scratch::new();
    let other = file.0.with_extension("other");
    fs::write(&other, "of somebody else").expect("written");
    std::os::unix::fs::symlink(&other, file.0.with_extension("snapshot.unfinished")).expect("a link");
    saved(&file.0, 1, u64::MAX);
    assert_eq!(fs::read(&other).expect("it is there"), b"of somebody else");
    assert!(file.0.symlink_metadata().expect("it is there").is_file());
    assert_eq!(restored(&cache(AMPLE), &file.0).taken, 1);
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing_behind() {
    let file = Scratch::new();
    let before = saved(&file.0, 1, u64::MAX);
    let folder = file.0.with_extension("folder");
    fs::create_dir_all(folder.join("full")).expect("a folder");
    before.save(&keyer(), &folder, u64::MAX).expect_err("a folder is in the way");
    let left = fs::read_dir(file.0.parent().expect("a folder")).expect("readable").count();
    assert_eq!(left, 2, "the first snapshot and the folder");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_file_costs_what_is_damaged_and_never_yields_a_wrong_value(
        at in any::<prop::sample::Index>(),
        flip in 0_u8..=255,
    ) {
        let file = Scratch::new();
        saved(&file.0, 5, u64::MAX);
        let mut bytes = fs::read(&file.0).expect("a file");
        let at = at.index(bytes.len());
        // Zero stands for cut off.
        if flip == 0 { bytes.truncate(at) } else { bytes[at] ^= flip }
        fs::write(&file.0, &bytes).expect("written");
        let cache = cache(AMPLE);
        if let Ok(restore) = cache.restore(&keyer(), &file.0) {
            let progress = restore.last().expect("it had entries");
            prop_assert_eq!(progress.total, 5);
            prop_assert!(progress.damaged > 0);
            prop_assert!(flip == 0 || progress.taken == 4, "one byte lost {:?}", progress);
            let served = (0..5).filter(|n| is_served(&cache, *n)).count();
            prop_assert_eq!(served, progress.taken);
        }
    }
}

/// Numbers below `n` of which the smaller come more often (Zipf, exponent 0.9), without a random number's help.
struct Zipf {
    shares: Vec<f64>,
    turn: f64,
}

impl Zipf {
    fn new(n: u64) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-0.9);
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        Self { shares, turn: 0.5 }
    }

    fn next(&mut self) -> u64 {
        // The golden ratio's multiples spread evenly (R. Weyl).
        self.turn = (self.turn + 0.618_033_988_749_894_9).fract();
        self.shares.partition_point(|share| *share < self.turn) as u64
    }
}

#[test]
fn a_restart_with_a_snapshot_reaches_nine_tenths_of_the_hit_rate_at_once() {
    const ASKED: usize = 20_000;
    let capacity = 1000 * (232 + 8);
    let mut asked = Zipf::new(20_000);
    let mut hit_rate = |cache: &Cache<Error>| {
        let domain = domain(cache);
        (0..ASKED).filter(|_| ask(cache, &domain, asked.next())).count() as f64 / ASKED as f64
    };
    let before = cache(capacity);
    hit_rate(&before);
    let usual = hit_rate(&before);
    let file = Scratch::new();
    before.save(&keyer(), &file.0, capacity).expect("a snapshot");
    let (warm, cold) = (cache(capacity), cache(capacity));
    restored(&warm, &file.0);
    let domain = domain(&warm);
    let first = (0..2000).filter(|_| ask(&warm, &domain, asked.next())).count() as f64 / 2000.0;
    assert!(first >= 0.9 * usual, "{first} of the first look-ups hit; before the restart it was {usual}");
    let domain = self::domain(&cold);
    let without = (0..2000).filter(|_| ask(&cold, &domain, asked.next())).count() as f64 / 2000.0;
    assert!(without < 0.9 * usual, "without a snapshot it is {without}, so this test proves nothing");
}
