//! Writes values in the background, in batches.

use super::breaker::{Breaker, BreakerState, Permit};
use super::config::SharedSettings;
use super::connection::COMMAND_TIMEOUT;
use super::frame::Sealer;
use super::queue::{Queue, Waiting};
use super::stats::Counters;
use crate::key::Key;
use crate::local::Lifetime;
use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::{Expiration, Value};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How much goes out in one batch: few round trips, and no batch that takes long.
const BATCH_ENTRIES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// How long the writer waits where it may not write, before it asks again.
const PATIENCE: Duration = Duration::from_millis(50);

/// The values that wait to be written, and the loop that writes them.
///
/// Has a breaker of its own: a server that takes no writes, because it is full or a replica, may still answer look-ups.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    /// Rung when something is put into the queue, and when it is to be emptied for the last time.
    bell: Notify,
    /// Set once, by `finish`; read by the loop after it has found the queue empty, and by who would put something into it,
    /// under the queue's lock.
    finishing: AtomicBool,
    breaker: Mutex<Breaker>,
    sealer: Sealer,
    life: Lifetime,
    prefix: Box<str>,
    counters: Arc<Counters>,
}

impl Writer {
    pub(super) fn new(settings: &SharedSettings, sealer: Sealer, counters: Arc<Counters>) -> Self {
        let config = &settings.config;
        Self {
            queue: Mutex::new(Queue::new(config.queue_entries, config.queue_bytes)),
            bell: Notify::new(),
            finishing: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new()),
            sealer,
            life: Lifetime { longest: config.time_to_live, jitter: config.ttl_jitter },
            prefix: config.prefix.as_str().into(),
            counters,
        }
    }

    /// Puts a value into the queue, unless that is to be emptied for the last time.
    pub(super) fn push(&self, waiting: Waiting) {
        let mut queue = self.queue.lock();
        let dropped = if self.finishing.load(Ordering::Acquire) { 1 } else { queue.push(waiting) };
        drop(queue);
        self.counters.dropped.add(dropped as u64);
        self.bell.notify_one();
    }

    /// How many values wait, and their bytes.
    pub(super) fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.len(), queue.bytes())
    }

    pub(super) fn breaker(&self) -> BreakerState {
        self.breaker.lock().state()
    }

    /// Makes [`run`](Self::run) end once the queue is empty.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// Drops what waits, and whatever comes.
    pub(super) fn close(&self) {
        self.finish();
        let dropped = self.queue.lock().take(usize::MAX, usize::MAX).len();
        self.counters.dropped.add(dropped as u64);
    }

    /// Writes what is put into the queue.
    pub(super) async fn run(&self, client: Client) {
        loop {
            if self.queue.lock().len() == 0 {
                if self.finishing.load(Ordering::Acquire) {
                    return;
                }
                self.bell.notified().await;
                continue;
            }
            // Before the batch is taken: what may not be written yet still counts against the queue's bound.
            let permit = if client.is_connected() { self.breaker.lock().permit(Instant::now()) } else { None };
            let Some(permit) = permit else {
                sleep(PATIENCE).await;
                continue;
            };
            let batch = self.queue.lock().take(BATCH_ENTRIES, BATCH_BYTES);
            self.write(&client, batch, permit).await;
        }
    }

    async fn write(&self, client: &Client, batch: Vec<Waiting>, permit: Permit) {
        let values = batch.len();
        let pipeline = client.pipeline();
        for Waiting { key, born, value } in batch {
            let frame = self.sealer.seal(key, born, &value);
            let life = i64::try_from(self.life.of(key).as_millis()).unwrap_or(i64::MAX).max(1);
            // Only queued here: what comes of it comes with the others'.
            let _queued: Result<(), _> =
                pipeline.set(name(&self.prefix, key), frame, Some(Expiration::PX(life)), None, false).await;
        }
        let outcomes = timeout(COMMAND_TIMEOUT, pipeline.try_all::<Value>()).await.unwrap_or_default();
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        self.counters.written.add(written as u64);
        self.counters.refused.add((values - written) as u64);
        let mut breaker = self.breaker.lock();
        if written == values { breaker.succeed(permit) } else { breaker.fail(permit, Instant::now()) }
    }
}

/// What a key's value is called in Redis.
pub(super) fn name(prefix: &str, key: Key) -> String {
    format!("{prefix}:{key}")
}
