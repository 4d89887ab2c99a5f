//! A replica of a service, as far as its cache goes.

use crate::redis::wait_until;
use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use volley_cache::{
    Cache, CacheConfig, Domain, Key, Keyer, Lookup, Rank, Reached, Scope, Shared, SharedConfig, SharedStats, WhenCutOff,
};

const ANY: Rank = Rank { urgency: 0, deadline: None };

/// Generous, so that no look-up fails because the machine is busy.
const BUDGET: Duration = Duration::from_secs(10);

pub(crate) struct Replica {
    pub(crate) cache: Cache<()>,
    pub(crate) domain: Domain,
    pub(crate) shared: Shared,
}

pub(crate) fn config(url: &str) -> SharedConfig {
    SharedConfig { lookup_budget: BUDGET, ..SharedConfig::new(url) }
}

pub(crate) fn keyer() -> Keyer {
    Keyer::new([7; 32])
}

pub(crate) fn key(n: u64) -> Key {
    let mut hasher = keyer().hasher();
    hasher.field(&n.to_le_bytes());
    hasher.finish()
}

/// The answer to question `n`, in some edition of the model.
pub(crate) fn answer(n: u64, edition: u64) -> Bytes {
    Bytes::from(format!("answer to {n} in edition {edition}"))
}

pub(crate) fn model() -> Scope {
    Scope::Model("m".into())
}

impl Replica {
    /// A replica that has heard from Redis.
    pub(crate) fn join(url: &str) -> Self {
        let replica = Self::start(config(url));
        replica.wait_until_heard();
        replica
    }

    pub(crate) fn start(config: SharedConfig) -> Self {
        let cache = Cache::new(CacheConfig { capacity_bytes: 1 << 20, time_to_live: None, ttl_jitter: Duration::ZERO });
        let domain = cache.domain("m", "1", &["t"]);
        let settings = config.validate().expect("a fine configuration");
        let shared = Shared::start(&settings, &keyer(), cache.coherence().clone()).expect("a thread");
        Self { cache, domain, shared }
    }

    /// Waits for a poll that was sent after this was called.
    pub(crate) fn wait_until_heard(&self) {
        let start = std::time::Instant::now();
        wait_until("a poll is answered", || self.stats().confirmed.is_some_and(|ago| ago < start.elapsed()));
    }

    pub(crate) fn stats(&self) -> SharedStats {
        self.shared.stats()
    }

    /// What a look-up finds now, sent or not.
    pub(crate) fn fetch_now(&self, n: u64) -> Option<Bytes> {
        block_on(self.shared.fetch(key(n), &self.domain)).map(|found| found.value)
    }

    /// What a look-up finds that is sent, if need be after a poll that this machine was too busy for.
    pub(crate) fn fetch(&self, n: u64) -> Option<Bytes> {
        let mut found = None;
        wait_until("a look-up is sent", || {
            let skipped = self.stats().skipped;
            found = self.fetch_now(n);
            self.stats().skipped == skipped
        });
        found
    }

    /// What a caller gets to know: from the first tier, from Redis, or computed in this `edition`.
    pub(crate) fn ask(&self, n: u64, edition: u64) -> Bytes {
        let mut lead = match self.cache.lookup(key(n), &self.domain, ANY) {
            Lookup::Hit(value) => return value,
            Lookup::Lead(lead) => lead,
            Lookup::Follow(_) => unreachable!("one caller at a time"),
        };
        if let Some(found) = block_on(self.shared.fetch(key(n), &self.domain)) {
            match lead.complete_found(found.value.clone(), found.born) {
                Ok(()) => return found.value,
                Err(stale) => lead = stale,
            }
        }
        let (value, born) = (answer(n, edition), lead.born());
        lead.complete(value.clone());
        self.shared.store(key(n), born, value.clone());
        value
    }

    /// What the first tier has.
    pub(crate) fn held(&self, n: u64) -> Option<Bytes> {
        match self.cache.lookup(key(n), &self.domain, ANY) {
            Lookup::Hit(value) => Some(value),
            Lookup::Lead(_) | Lookup::Follow(_) => None,
        }
    }

    pub(crate) fn invalidate(&self, scope: Scope) -> Reached {
        block_on(self.shared.invalidate(scope))
    }

    pub(crate) fn wait_until_written(&self, values: u64) {
        wait_until("values are written", || self.stats().written >= values);
    }

    pub(crate) fn close(&self) -> usize {
        self.close_within(Duration::from_secs(30))
    }

    pub(crate) fn close_within(&self, bound: Duration) -> usize {
        block_on(self.shared.close(bound))
    }
}

pub(crate) fn serving_when_cut_off(url: &str) -> SharedConfig {
    SharedConfig { when_cut_off: WhenCutOff::Serve, ..config(url) }
}

/// Waits for a future with no runtime at all, as the tier promises that one can.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
