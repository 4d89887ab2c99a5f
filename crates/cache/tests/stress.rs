//! Many tasks on several threads, giving up at random.

#[expect(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use bytes::Bytes;
use common::{AMPLE, ANY, Error, cache, key, look_up};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use tokio::task::yield_now;
use volley_cache::{Cache, Followed, Lookup, Scope};

const KEYS: usize = 3;
const TASKS: u64 = 32;
const ROUNDS: u64 = 400;

/// Small numbers in an order without pattern (xorshift64, G. Marsaglia, 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

async fn yields(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

struct Subject {
    cache: Cache<Error>,
    computing: [AtomicBool; KEYS],
    /// What a computation that starts now yields.
    current: [AtomicU64; KEYS],
    /// The least that a look-up that starts now may be answered with.
    least: [AtomicU64; KEYS],
}

/// Looks up at random, as leader completes, fails or hangs up at random, as follower hangs up at random. Ends only if
/// no wake-up is lost.
async fn visit(subject: Arc<Subject>, mut dice: Dice, invalidate: bool) {
    for _ in 0..ROUNDS {
        let n = usize::try_from(dice.roll(KEYS as u64)).expect("a small number");
        let key = key(n as u64);
        let least = subject.least[n].load(SeqCst);
        let lead = match look_up(&subject.cache, key, ANY) {
            Lookup::Hit(found) => {
                assert!(number(&found) >= least, "a hit older than the last invalidation");
                None
            }
            Lookup::Lead(lead) => Some(lead),
            Lookup::Follow(follow) => {
                let patience = dice.roll(20) * dice.roll(20);
                let followed = tokio::select! {
                    followed = follow => Some(followed),
                    () = yields(patience), if patience < 100 => None,
                };
                match followed {
                    Some(Followed::Value(found)) => {
                        assert!(number(&found) >= least, "an answer older than the last invalidation");
                        None
                    }
                    Some(Followed::Lead(lead)) => Some(lead),
                    Some(Followed::Failed(_)) | None => None,
                }
            }
        };
        if let Some(lead) = lead {
            let already = subject.computing[n].swap(true, SeqCst);
            assert!(!already || invalidate, "two leaders of one key");
            let current = subject.current[n].load(SeqCst);
            yields(dice.roll(5)).await;
            subject.computing[n].store(false, SeqCst);
            match dice.roll(4) {
                0 => lead.fail(),
                1 => lead.fail_all("everybody's"),
                _ => lead.complete(Bytes::copy_from_slice(&current.to_le_bytes())),
            }
        }
        if invalidate && dice.roll(4) == 0 {
            let next = subject.current[n].fetch_add(1, SeqCst) + 1;
            if dice.roll(2) == 0 {
                subject.cache.invalidate(Scope::Key(key));
            } else {
                subject.cache.invalidate(Scope::All);
            }
            subject.least[n].fetch_max(next, SeqCst);
        } else if dice.roll(8) == 0 {
            yield_now().await;
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn run(capacity_bytes: u64, invalidate: bool) {
    let subject = Arc::new(Subject {
        cache: cache(capacity_bytes),
        computing: Default::default(),
        current: Default::default(),
        least: Default::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    let visits: Vec<_> = (1..=TASKS)
        .map(|seed| {
            runtime.spawn(visit(Arc::clone(&subject), Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), invalidate))
        })
        .collect();
    for visit in visits {
        runtime.block_on(visit).expect("no assertion failed in the task");
    }
    for n in 0..KEYS {
        assert!(
            !matches!(look_up(&subject.cache, key(n as u64), ANY), Lookup::Follow(_)),
            "a flight is left over though nobody waits"
        );
    }
}

#[test]
fn one_leader_at_a_time_and_no_lost_wake_up_under_concurrency() {
    // Nothing is kept, so every look-up leads or follows.
    run(0, false);
}

#[test]
fn nothing_older_than_the_last_invalidation_is_served_under_concurrency() {
    run(AMPLE, true);
}
