//! Where results are kept: in memory, and in Redis where there is one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use volley_cache::{
    BreakerState, Cache, Domain, Fetch, Found, Key, Keyer, Lookup, Rank, Reached, Restore, RestoreError, Saved, Scope,
    Shared, SharedStats, Stamp,
};
use volley_telemetry::{CacheReading, SharedCacheReading};

use crate::config::CacheConfig;
use crate::engine::Computed;
use crate::error::{ApiError, Cause};
use crate::low_priority;

/// How long whoever takes hold of all results leaves to others before each next few.
const BREATH: Duration = Duration::from_micros(200);

/// The tiers of the cache. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    cache: Cache<Unkept>,
    shared: Option<Shared>,
    keyer: Keyer,
    /// The file that outlives the process, if there is one. Held while it is written or removed.
    snapshot: Option<Arc<Mutex<PathBuf>>>,
}

impl Results {
    /// The tiers that `config` wants, if it wants any, and what makes their keys.
    ///
    /// # Errors
    /// A sentence, when the system gives no thread or no random numbers.
    pub(crate) fn open(config: &CacheConfig) -> Result<(Option<Self>, Keyer), OpenError> {
        let secret = match config.secret_bytes() {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| OpenError(error.to_string()))?;
                secret
            }
        };
        let keyer = Keyer::new(secret);
        if !config.enabled {
            return Ok((None, keyer));
        }
        let cache = Cache::new(volley_cache::CacheConfig {
            capacity_bytes: config.capacity_bytes,
            time_to_live: Some(config.time_to_live),
            // Entries of one busy moment do not all expire in another.
            ttl_jitter: config.time_to_live / 10,
        });
        let shared = match config.redis.settings() {
            None => None,
            Some(Err((field, problem))) => return Err(OpenError(format!("cache.redis.{field}: {problem}"))),
            Some(Ok(settings)) => {
                let started = Shared::start(&settings, &keyer, cache.coherence().clone());
                Some(started.map_err(|error| OpenError(format!("the shared cache has no thread: {error}")))?)
            }
        };
        let snapshot = config.snapshot.path.clone().map(|path| Arc::new(Mutex::new(path)));
        Ok((Some(Self { cache, shared, keyer: keyer.clone(), snapshot }), keyer))
    }

    /// What results of this variant of a model belong to.
    pub(crate) fn domain(&self, model: &str, version: &str, tags: &[&str]) -> Domain {
        self.cache.domain(model, version, tags)
    }

    /// What is in memory, or who computes it.
    pub(crate) fn lookup(&self, key: Key, domain: &Domain, rank: Rank) -> Lookup<Unkept> {
        self.cache.lookup(key, domain, rank)
    }

    /// What others have computed; nobody has to wait for it.
    pub(crate) fn fetch(&self, key: Key, domain: &Domain) -> Option<Fetch> {
        self.shared.as_ref().map(|shared| shared.fetch(key, domain))
    }

    /// Gives others what was computed here.
    pub(crate) fn share(&self, key: Key, born: Stamp, outputs: bytes::Bytes) {
        if let Some(shared) = &self.shared {
            shared.store(key, born, outputs);
        }
    }

    /// Forgets what `scope` holds, here before this returns. The future tells whether the other replicas are sure to hear of
    /// it; nothing if there are none to tell. By then the snapshot is gone, so that a crash before the next one brings
    /// nothing of it back.
    ///
    /// # Errors
    /// [`ApiError`] when the snapshot cannot be removed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn invalidate(
        &self,
        scope: Scope,
    ) -> impl Future<Output = Result<Option<Reached>, ApiError>> + Send + 'static {
        let told = match &self.shared {
            Some(shared) => Some(shared.invalidate(scope)),
            None => {
                self.cache.invalidate(scope);
                None
            }
        };
        // One that is being written may not know of it yet, and is waited for. What is written later does.
        let removed = self.snapshot.clone().map(|snapshot| tokio::task::spawn_blocking(move || remove(&snapshot)));
        async {
            if let Some(removed) = removed {
                removed.await.map_err(|error| ApiError::new(Cause::Internal, error.to_string()))??;
            }
            Ok(match told {
                Some(told) => Some(told.await),
                None => None,
            })
        }
    }

    /// Whether a result of so many bytes can be kept without another one's leaving.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.cache.has_room_for(bytes)
    }

    /// Whether a result of so many bytes is kept at all.
    pub(crate) fn keeps(&self, bytes: usize) -> bool {
        self.cache.keeps(bytes)
    }

    /// Opens the snapshot at `path`; iterating takes its results into memory.
    ///
    /// # Errors
    /// Why nothing can be taken from it.
    pub(crate) fn restore(&self, path: &Path) -> Result<Restore, RestoreError> {
        self.cache.restore(&self.keyer, path)
    }

    /// Writes what was asked for most to the snapshot at `path`, which is the configured one. For a thread of usual
    /// priority: requests would wait for another's to be let go on. What they do not wait for is done at a low one.
    ///
    /// # Errors
    /// When the file cannot be written, or there is no thread to do it; one that was there stays.
    pub(crate) fn save(&self, path: &Path, max_bytes: u64) -> io::Result<Saved> {
        let _held = self.snapshot.as_ref().map(|snapshot| snapshot.lock().unwrap_or_else(PoisonError::into_inner));
        let snapshot = self.cache.snapshot(|| thread::sleep(BREATH));
        thread::scope(|scope| {
            let writing = thread::Builder::new().name("volley-writing".into()).spawn_scoped(scope, || {
                low_priority::step_back();
                snapshot.save(&self.keyer, path, max_bytes)
            })?;
            writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Writes the last snapshot, as fast as it goes: nobody asks any more.
    ///
    /// # Errors
    /// As for [`Results::save`].
    pub(crate) fn save_last(&self, path: &Path, max_bytes: u64) -> io::Result<Saved> {
        let _held = self.snapshot.as_ref().map(|snapshot| snapshot.lock().unwrap_or_else(PoisonError::into_inner));
        self.cache.save(&self.keyer, path, max_bytes)
    }

    /// Writes what waits to be shared, for as long as `within`; how many results were not written.
    pub(crate) async fn close(&self, within: Duration) -> usize {
        match &self.shared {
            Some(shared) => shared.close(within).await,
            None => 0,
        }
    }

    /// What the tier in memory has counted.
    pub(crate) fn reading(&self) -> CacheReading {
        let stats = self.cache.stats();
        CacheReading {
            hits: stats.hits,
            misses: stats.misses,
            shared: stats.shared,
            stale: stats.stale,
            cut_off: stats.cut_off,
            invalidations: stats.invalidations,
            evictions: stats.evictions,
            expirations: stats.expirations,
            entries: stats.entries,
            bytes: stats.bytes,
        }
    }

    /// What the shared tier has counted, if there is one.
    pub(crate) fn shared_reading(&self) -> Option<SharedCacheReading> {
        let stats: SharedStats = self.shared.as_ref()?.stats();
        let open = |state| state == BreakerState::Open;
        Some(SharedCacheReading {
            hits: stats.hits,
            misses: stats.misses,
            stale: stats.stale,
            failures: [stats.corrupt, stats.timeouts, stats.errors, stats.skipped],
            answered: (stats.answered, u64::try_from(stats.answered_in.as_micros()).unwrap_or(u64::MAX)),
            writes: [stats.written, stats.dropped, stats.refused],
            queued: stats.queued as u64,
            pending_invalidations: stats.pending_invalidations as u64,
            breakers_open: [open(stats.lookup_breaker), open(stats.write_breaker)],
            connected: stats.connected,
            confirmed_ago: stats.confirmed.map(|ago| ago.as_secs_f64()),
        })
    }
}

/// Removes the snapshot, if there is one by now.
fn remove(snapshot: &Mutex<PathBuf>) -> Result<(), ApiError> {
    let path = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::remove_file(&*path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let path = path.display();
            let message = format!(
                "invalidated, but the snapshot {path} cannot be removed: {error}; a crash before the next one is written \
                 would bring back what it holds"
            );
            Err(ApiError::new(Cause::Internal, message))
        }
        _ => Ok(()),
    }
}

/// Waits for a result from wherever it comes first. What is found elsewhere ends the computation; where that fails, what
/// is found may still save the request.
pub(crate) async fn first<T>(
    fetch: Option<Fetch>,
    computation: impl Future<Output = Result<T, ApiError>>,
) -> Result<First<T>, ApiError> {
    let Some(mut fetch) = fetch else { return computation.await.map(First::Computed) };
    tokio::pin!(computation);
    tokio::select! {
        biased;
        found = &mut fetch => match found {
            Some(found) => Ok(First::Found(found)),
            None => computation.await.map(First::Computed),
        },
        result = &mut computation => match result {
            Ok(computed) => Ok(First::Computed(computed)),
            Err(error) => fetch.await.map(First::Found).ok_or(error),
        },
    }
}

/// What a computation came to that those hear of who wait for it now, and nobody after: nothing of it is kept.
#[derive(Debug, Clone)]
pub(crate) enum Unkept {
    /// It failed, as it would have for each of them.
    Failed(ApiError),
    /// Not every member of the ensemble had a part in it.
    Partial(Computed),
}

/// Where a result came from first.
#[derive(Debug)]
pub(crate) enum First<T> {
    /// From here.
    Computed(T),
    /// From another replica, or an earlier life of this one.
    Found(Found),
}

/// Why results cannot be kept.
#[derive(Debug)]
pub(crate) struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}
