//! Waiting for threads that may not end.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Waits until all of `threads` have ended, or until `deadline`. Returns how many are left; they run on.
pub(crate) fn join_until(mut threads: Vec<JoinHandle<()>>, deadline: Instant) -> usize {
    loop {
        threads.retain(|thread| !thread.is_finished());
        if threads.is_empty() || Instant::now() >= deadline {
            return threads.len();
        }
        thread::sleep(Duration::from_millis(2));
    }
}
