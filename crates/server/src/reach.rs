//! Whether Redis answers, said in the log when that changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::results::Results;

/// Beyond the bound on staleness, after which the server itself takes Redis for lost: a reconnection is no news.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was said last.
#[derive(Debug)]
pub(crate) struct Reach {
    start: Instant,
    patience: Duration,
    lost: AtomicBool,
}

impl Reach {
    /// Redis is taken for lost where nothing was heard of it for longer than `max_staleness`.
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self { start: Instant::now(), patience: max_staleness + PATIENCE, lost: AtomicBool::new(false) }
    }

    /// To be called now and then.
    pub(crate) fn look(&self, results: &Results) {
        let Some(reading) = results.shared_reading() else { return };
        let silence = reading.confirmed_ago.map_or_else(|| self.start.elapsed(), Duration::from_secs_f64);
        let lost = silence > self.patience;
        // Relaxed: nothing else hangs on it.
        if self.lost.swap(lost, Ordering::Relaxed) == lost {
            return;
        }
        if lost {
            tracing::warn!(
                silence_ms = silence.as_millis() as u64,
                "Redis (cache.redis.url) does not answer: results are not shared, and invalidations wait for it"
            );
        } else {
            tracing::info!("Redis answers again");
        }
    }
}
