//! Two replicas that share a Redis: what the one computes the other finds, what the one invalidates the other forgets,
//! and what happens to one that is cut off meanwhile.
//!
//! Starts a `redis-server` of its own and ends it. The second replica reaches it through a proxy, which cuts it off:
//!
//! ```sh
//! cargo run --release -p volley-cache --features redis --example replicas
//! ```
//!
//! Each line begins with the seconds since the start. `first tier` is an answer from the replica's own memory, `Redis`
//! one that another replica computed, `computed` one that took a computation.

#[path = "../tests/shared/proxy.rs"]
#[expect(dead_code, reason = "the example needs one way to cut a replica off")]
mod proxy;
#[path = "../tests/shared/redis.rs"]
#[expect(dead_code, reason = "the example needs one server")]
mod redis;

use bytes::Bytes;
use proxy::Proxy;
use redis::{Redis, wait_until};
use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use volley_cache::{Cache, CacheConfig, Domain, Key, Keyer, Lookup, Rank, Reached, Scope, Shared, SharedConfig, Stamp};

const ANY: Rank = Rank { urgency: 0, deadline: None };

/// How many look-ups in Redis are timed.
const LOOKED_UP: u32 = 1000;

/// How many invalidations are timed.
const TIMED: u32 = 200;

struct Replica {
    cache: Cache<()>,
    domain: Domain,
    shared: Shared,
}

impl Replica {
    fn start(url: &str, keyer: &Keyer) -> Result<Self, Box<dyn Error>> {
        let cache =
            Cache::new(CacheConfig { capacity_bytes: 64 << 20, time_to_live: None, ttl_jitter: Duration::ZERO });
        let config = SharedConfig { max_staleness: Duration::from_secs(2), ..SharedConfig::new(url) };
        let shared = Shared::start(&config.validate()?, keyer, cache.coherence().clone())?;
        let domain = cache.domain("prices", "1", &[]);
        Ok(Self { cache, domain, shared })
    }

    /// The answer, and where it is from. A service with a queue asks Redis while the request waits in it, and takes what
    /// comes first.
    async fn answer(&self, key: Key, edition: u32) -> (&'static str, Bytes) {
        let mut lead = match self.cache.lookup(key, &self.domain, ANY) {
            Lookup::Hit(value) => return ("first tier", value),
            Lookup::Lead(lead) => lead,
            Lookup::Follow(_) => unreachable!("one caller at a time"),
        };
        if let Some(found) = self.shared.fetch(key, &self.domain).await {
            match lead.complete_found(found.value.clone(), found.born) {
                Ok(()) => return ("Redis", found.value),
                Err(invalidated) => lead = invalidated,
            }
        }
        let (value, born) = (Bytes::from(format!("edition {edition}")), lead.born());
        lead.complete(value.clone());
        self.shared.store(key, born, value.clone());
        ("computed", value)
    }

    fn generation(&self) -> Stamp {
        self.domain.generation()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut out = io::stdout().lock();
    let keyer = Keyer::new([7; 32]);
    let mut hasher = keyer.hasher();
    hasher.field(b"a question");
    let key = hasher.finish();

    let server = Redis::start(&[]);
    let proxy = Proxy::start(server.port());
    let (a, b) = (Replica::start(&server.url(), &keyer)?, Replica::start(&proxy.url(), &keyer)?);
    let heard = |replica: &Replica| replica.shared.stats().confirmed.is_some();
    wait_until("both have heard from Redis", || heard(&a) && heard(&b));

    let mut say = |what: &str| writeln!(out, "{:6.3}  {what}", start.elapsed().as_secs_f64());
    let told = |name: &str, (from, value): (&str, Bytes)| format!("{name} answers {value:?} ({from})");
    let model = || Scope::Model("prices".into());

    say("both replicas have heard from Redis what was invalidated so far")?;
    say(&told("A", a.answer(key, 1).await))?;
    wait_until("the value is in Redis", || a.shared.stats().written == 1);
    say(&told("B", b.answer(key, 1).await))?;
    say(&told("B", b.answer(key, 1).await))?;

    let before = b.shared.stats();
    for _ in 0..LOOKED_UP {
        _ = b.shared.fetch(key, &b.domain).await;
    }
    let after = b.shared.stats();
    let mean = (after.answered_in - before.answered_in).as_secs_f64() / (after.answered - before.answered) as f64;
    say(&format!("B looks into Redis {LOOKED_UP} times: {:.0} microseconds each", mean * 1e6))?;

    let subscribers = || server.cli(&["pubsub", "numsub", "volley:generations"]);
    wait_until("both are told of news", || subscribers().ends_with('2'));
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..TIMED {
        let (before, invalidated) = (b.generation(), Instant::now());
        _ = a.shared.invalidate(model()).await;
        while b.generation() == before {
            std::thread::yield_now();
        }
        times.push(invalidated.elapsed());
    }
    times.sort_unstable();
    let [.., slowest] = times[..] else { unreachable!("there are some") };
    let typical = times[times.len() / 2];
    say(&format!("A invalidates the model {TIMED} times: B has forgotten after {typical:.1?}, {slowest:.1?} at most"))?;
    say(&told("B", b.answer(key, 2).await))?;

    proxy.cut();
    let reached = a.shared.invalidate(model()).await;
    say(&format!("B is cut off, then A invalidates: it reached {reached:?}, but not B"))?;
    say(&told("B", b.answer(key, 3).await))?;
    wait_until("B's staleness is over", || !matches!(b.cache.lookup(key, &b.domain, ANY), Lookup::Hit(_)));
    say(&told("B", b.answer(key, 3).await))?;
    say("  for 2 s it was allowed to; since then it computes each answer")?;
    let reached = b.shared.invalidate(Scope::Key(key)).await;
    say(&format!("B invalidates the question: it reached {reached:?}"))?;

    proxy.resume();
    wait_until("B's invalidation is in Redis", || b.shared.stats().pending_invalidations == 0);
    wait_until("A has heard of it", || a.cache.coherence().seen() >= b.cache.coherence().seen());
    say("B is back: it has told of its invalidation, and heard of A's")?;
    say(&told("A", a.answer(key, 4).await))?;
    wait_until("the value is in Redis", || a.shared.stats().written == 2);
    say(&told("B", b.answer(key, 4).await))?;
    let left = a.shared.close(Duration::from_secs(1)).await + b.shared.close(Duration::from_secs(1)).await;
    say(&format!("both have closed, with {left} values unwritten"))?;
    assert_eq!(reached, Reached::HereOnly);
    Ok(())
}
