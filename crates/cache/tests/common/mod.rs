//! What several tests need: keys, ranks, and polling by hand.

use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use volley_cache::{Cache, CacheConfig, Domain, Key, Keyer, Lookup, Rank};

pub(crate) type Error = &'static str;

pub(crate) const ANY: Rank = Rank { urgency: 0, deadline: None };

/// Room for all that a test stores.
pub(crate) const AMPLE: u64 = 1 << 20;

pub(crate) fn cache(capacity_bytes: u64) -> Cache<Error> {
    Cache::new(CacheConfig { capacity_bytes, time_to_live: None, ttl_jitter: Duration::ZERO })
}

/// The one that tests put up with who do not care.
pub(crate) fn domain(cache: &Cache<Error>) -> Domain {
    cache.domain("model", "1", &["tag"])
}

pub(crate) fn look_up(cache: &Cache<Error>, key: Key, rank: Rank) -> Lookup<Error> {
    cache.lookup(key, &domain(cache), rank)
}

pub(crate) fn key(n: u64) -> Key {
    static KEYER: LazyLock<Keyer> = LazyLock::new(|| Keyer::new([3; 32]));
    let mut hasher = KEYER.hasher();
    hasher.field(&n.to_le_bytes());
    hasher.finish()
}

pub(crate) fn value(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// Remembers whether it was woken since it was last asked.
#[derive(Default)]
pub(crate) struct Bell(AtomicBool);

impl Bell {
    pub(crate) fn rang(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(self));
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
