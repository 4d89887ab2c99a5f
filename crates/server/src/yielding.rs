//! HTTP threads, and the thread that watches deadlines, let a worker finish its time slice.
//!
//! Where every core runs a worker, each request that arrives would interrupt a batch: two context switches and cold
//! caches, for a request that can only join the next batch. Under Linux's `SCHED_BATCH` a thread that wakes up does not
//! preempt; it runs on any idle core at once, and otherwise when the time slice of the one that computes is over (some
//! three milliseconds at most), with everything that has come in meanwhile. On one saturated core this is worth
//! about a tenth of the throughput.

/// Puts the calling thread under `SCHED_BATCH`. A system that does not have it, or forbids it, is left as it is.
pub(crate) fn yield_to_workers() {
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
