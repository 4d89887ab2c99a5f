//! The tier that replicas share: values and invalidations, through Redis.

mod breaker;
mod config;
mod connection;
mod exchange;
mod frame;
mod queue;
mod stats;
mod writer;

pub use breaker::BreakerState;
pub use config::{SharedConfig, SharedConfigError, SharedSettings};
pub use exchange::Reached;
pub use stats::SharedStats;

use crate::coherence::Coherence;
use crate::domain::Domain;
use crate::key::{Key, Keyer};
use crate::scope::Scope;
use crate::stamp::Stamp;
use breaker::{Breaker, Permit};
use bytes::Bytes;
use exchange::{Exchange, READS_AFTER};
use frame::Sealer;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, KeysInterface};
use parking_lot::Mutex;
use queue::Waiting;
use stats::Counters;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use writer::Writer;

/// A second tier in Redis, beside a [`Cache`](crate::Cache) whose [`Coherence`] it keeps with that of other replicas.
///
/// Nothing waits for it that does not want to, and nothing fails with it: a look-up that Redis cannot answer in time
/// finds nothing, writes happen in the background, an invalidation takes effect here whether Redis is there or not.
/// Whatever Redis does, a value that it returns was sealed under the same key and secret, and was computed after the
/// last invalidation that this process has heard of.
///
/// All work is done by one thread of its own, `volley-redis`; callers may be on any async runtime or none. Clones are
/// the same tier. When the last is dropped the thread ends and what is not written is lost; [`close`](Self::close)
/// writes it first.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
    /// Asks the thread to end; dropping it does, too.
    closing: Arc<Mutex<Option<oneshot::Sender<Closing>>>>,
}

struct Inner {
    client: Client,
    runtime: runtime::Handle,
    exchange: Exchange,
    writer: Writer,
    breaker: Mutex<Breaker>,
    sealer: Sealer,
    prefix: Box<str>,
    budget: Duration,
    coherence: Coherence,
    counters: Arc<Counters>,
}

/// How the thread is to end.
struct Closing {
    within: Duration,
    /// Told how many values were not written.
    left: oneshot::Sender<usize>,
}

/// A value found in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// When its computation began, as far as invalidations go; for
    /// [`Lead::complete_found`](crate::Lead::complete_found).
    pub born: Stamp,
}

/// What a look-up in Redis finds, within its budget; a future for any async runtime. Dropping it does no harm.
#[derive(Debug)]
#[must_use = "the value comes with it"]
pub struct Fetch(Option<JoinHandle<Option<Found>>>);

impl Shared {
    /// Starts the tier. Connects in the background: Redis may be away, now or at any time. `keyer` is the one that made
    /// the cache's keys; `coherence` the cache's, whose first tier is cut off until Redis has been heard of.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread.
    pub fn start(settings: &SharedSettings, keyer: &Keyer, coherence: Coherence) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let counters = Arc::new(Counters::default());
        let sealer = Sealer::new(keyer);
        let inner = Arc::new(Inner {
            client: connection::client(settings),
            runtime: runtime.handle().clone(),
            exchange: Exchange::new(settings, coherence.clone(), Arc::clone(&counters)),
            writer: Writer::new(settings, sealer.clone(), Arc::clone(&counters)),
            breaker: Mutex::new(Breaker::new()),
            sealer,
            prefix: settings.config.prefix.as_str().into(),
            budget: settings.config.lookup_budget,
            coherence,
            counters,
        });
        let (closing, closes) = oneshot::channel();
        let writes = connection::client(settings);
        let background = Arc::clone(&inner);
        thread::Builder::new()
            .name("volley-redis".into())
            .spawn(move || runtime.block_on(background.run(writes, closes)))?;
        Ok(Self { inner, closing: Arc::new(Mutex::new(Some(closing))) })
    }

    /// Looks for the value of `key`, which belongs to `domain`. Nothing is asked, and nothing found at once, while
    /// Redis does not answer or invalidations may have been missed.
    pub fn fetch(&self, key: Key, domain: &Domain) -> Fetch {
        let inner = &self.inner;
        let now = Instant::now();
        let heard = inner.exchange.confirmed().is_some_and(|confirmed| now < confirmed + READS_AFTER);
        let permit = if heard && inner.client.is_connected() { inner.breaker.lock().permit(now) } else { None };
        let Some(permit) = permit else {
            inner.counters.skipped.add(1);
            return Fetch(None);
        };
        Fetch(Some(inner.runtime.spawn(Arc::clone(inner).look_up(key, domain.clone(), permit, now))))
    }

    /// Writes a value in the background; drops it once the tier is [closed](Self::close). `born` is that of the lead it was computed by.
    pub fn store(&self, key: Key, born: Stamp, value: Bytes) {
        self.inner.writer.push(Waiting { key, born: born.number(), value });
    }

    /// Forgets all entries of `scope`: here before this returns, and on the other replicas. The future tells whether
    /// Redis has heard of it, after a second or two at most; dropping it changes nothing.
    pub fn invalidate(&self, scope: Scope) -> impl Future<Output = Reached> + Send + 'static {
        let tells = self.inner.exchange.invalidate(scope);
        // Closed meanwhile: nobody will tell Redis.
        async { tells.await.unwrap_or(Reached::HereOnly) }
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> SharedStats {
        let Inner { counters, exchange, writer, .. } = &*self.inner;
        let (queued, queued_bytes) = writer.queued();
        SharedStats {
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            stale: counters.stale.get(),
            corrupt: counters.corrupt.get(),
            timeouts: counters.timeouts.get(),
            errors: counters.errors.get(),
            skipped: counters.skipped.get(),
            answered: counters.answered.get(),
            answered_in: Duration::from_nanos(counters.answered_nanos.get()),
            written: counters.written.get(),
            dropped: counters.dropped.get(),
            refused: counters.refused.get(),
            queued,
            queued_bytes,
            pending_invalidations: exchange.pending(),
            restorations: counters.restorations.get(),
            lookup_breaker: self.inner.breaker.lock().state(),
            write_breaker: writer.breaker(),
            connected: self.inner.client.is_connected(),
            confirmed: exchange.confirmed().map(|at| at.elapsed()),
        }
    }

    /// Writes what waits, for as long as `within`, and ends; how many values were not written. Look-ups find nothing
    /// afterwards, and what is stored is forgotten. A second call does nothing.
    pub async fn close(&self, within: Duration) -> usize {
        let (left, tells) = oneshot::channel();
        let Some(closing) = self.closing.lock().take() else { return 0 };
        let asked = closing.send(Closing { within, left });
        // Unasked, the thread has ended by a panic.
        if asked.is_err() { self.inner.writer.queued().0 } else { tells.await.unwrap_or(0) }
    }
}

impl Inner {
    async fn run(self: Arc<Self>, writes: Client, closes: oneshot::Receiver<Closing>) {
        let connections = [
            tokio::spawn(connection::keep_connected(self.client.clone())),
            tokio::spawn(connection::keep_connected(writes.clone())),
        ];
        let exchange = tokio::spawn({
            let (inner, client) = (Arc::clone(&self), self.client.clone());
            async move { inner.exchange.run(client).await }
        });
        let mut writer = tokio::spawn({
            let (inner, client) = (Arc::clone(&self), writes.clone());
            async move { inner.writer.run(client).await }
        });
        let closing = closes.await;
        if let Ok(Closing { within, left }) = closing {
            self.writer.finish();
            _ = timeout(within, &mut writer).await;
            // Nobody may wait for it any more.
            _ = left.send(self.writer.queued().0);
        }
        for task in connections.into_iter().chain([exchange, writer]) {
            task.abort();
        }
        self.exchange.close();
        self.writer.close();
    }

    async fn look_up(self: Arc<Self>, key: Key, domain: Domain, permit: Permit, asked: Instant) -> Option<Found> {
        let client = connection::within(&self.client, self.budget);
        let get = client.get::<Option<Bytes>, _>(writer::name(&self.prefix, key));
        let answer = timeout(self.budget, get).await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "")));
        let counters = &self.counters;
        let frame = match answer {
            Ok(frame) => frame,
            Err(error) => {
                self.breaker.lock().fail(permit, Instant::now());
                let failures = if *error.kind() == ErrorKind::Timeout { &counters.timeouts } else { &counters.errors };
                failures.add(1);
                return None;
            }
        };
        self.breaker.lock().succeed(permit);
        counters.answered.add(1);
        counters.answered_nanos.add(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let Some(frame) = frame else {
            counters.misses.add(1);
            return None;
        };
        let Ok((born, value)) = self.sealer.open(key, &frame) else {
            counters.corrupt.add(1);
            return None;
        };
        let born = Stamp::shared(born);
        if !self.coherence.is_fresh(key, &domain, born) {
            counters.stale.add(1);
            return None;
        }
        counters.hits.add(1);
        Some(Found { value, born })
    }
}

impl Future for Fetch {
    type Output = Option<Found>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Found>> {
        let Some(task) = &mut self.0 else { return Poll::Ready(None) };
        // A task fails only if the tier is closed meanwhile.
        Pin::new(task).poll(context).map(|found| found.ok().flatten())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("prefix", &self.inner.prefix)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
