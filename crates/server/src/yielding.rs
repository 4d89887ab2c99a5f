//! Who gives way to whom on a core that all share.
//!
//! HTTP threads, and the thread that watches deadlines, let a worker finish its time slice.
//! Where every core runs a worker, each request that arrives would interrupt a batch: two context switches and cold
//! caches, for a request that can only join the next batch. Under Linux's `SCHED_BATCH` a thread that wakes up does not
//! preempt; it runs on any idle core at once, and otherwise when the time slice of the one that computes is over (some
//! three milliseconds at most), with everything that has come in meanwhile. On one saturated core this is worth
//! about a tenth of the throughput.
//!
//! Workers let HTTP threads catch up. A thread that wakes up has half of the core beside a busy worker, whatever waits
//! for it: under overload, requests lie unread for longer than they are worth, and what could be refused at once is not.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is ready on a thread waits so long where the thread is behind.
const BEHIND: Duration = Duration::from_millis(2);
/// How long it counts that a thread was.
const RECENT: Duration = Duration::from_millis(10);

thread_local! {
    static YIELDS: Cell<bool> = const { Cell::new(false) };
}

static LAST: LazyLock<Last> = LazyLock::new(Last::now);

/// Puts the calling thread under `SCHED_BATCH`. A system that does not have it, or forbids it, is left as it is.
pub(crate) fn yield_to_workers() {
    YIELDS.set(true);
    #[cfg(target_os = "linux")]
    {
        // SAFETY: plain integers in, nothing kept; pid 0 is the calling thread.
        let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &libc::sched_param { sched_priority: 0 }) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a thread keeps the default scheduling policy");
        }
    }
}

/// What is ready on the calling thread waits for `lag`. Of a thread that yields to workers, they take notice.
pub(crate) fn lags(lag: Duration, now: Instant) {
    if lag >= BEHIND && YIELDS.get() {
        LAST.was_behind(now);
    }
}

/// Lets the threads that yield to workers have the core, if one of them is behind. Which cores they are on nobody knows:
/// where they do not share the caller's, this costs a system call.
pub(crate) fn yield_to_who_is_behind() {
    if LAST.is_recent(Instant::now()) {
        thread::yield_now();
    }
}

/// When a thread was last behind.
struct Last {
    start: Instant,
    /// Microseconds from the start; 0 if none was. Relaxed: nothing else hangs on it.
    at: AtomicU64,
}

impl Last {
    fn now() -> Self {
        Self { start: Instant::now(), at: AtomicU64::new(0) }
    }

    fn was_behind(&self, now: Instant) {
        self.at.fetch_max(self.micros(now).max(1), Ordering::Relaxed);
    }

    fn is_recent(&self, now: Instant) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        at > 0 && self.micros(now) <= at + RECENT.as_micros() as u64
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_as_behind_for_a_while() {
        let last = Last::now();
        let after = |time| last.start + time;
        assert!(!last.is_recent(last.start), "none was");
        last.was_behind(last.start);
        last.was_behind(after(RECENT));
        // One that was interrupted before it said so.
        last.was_behind(after(RECENT / 2));
        assert!(last.is_recent(after(RECENT)) && last.is_recent(after(2 * RECENT)));
        assert!(!last.is_recent(after(2 * RECENT + Duration::from_millis(1))));
    }

    #[test]
    fn only_who_yields_to_workers_and_lags_far_is_noticed() {
        let noticed = || LAST.at.load(Ordering::Relaxed);
        let later = Instant::now() + Duration::from_secs(60);
        lags(BEHIND, later);
        assert!(noticed() < LAST.micros(later), "it does not yield to workers");
        YIELDS.set(true);
        lags(BEHIND - Duration::from_nanos(1), later);
        assert!(noticed() < LAST.micros(later), "it is not late");
        lags(BEHIND, later);
        assert!(noticed() >= LAST.micros(later));
    }
}
