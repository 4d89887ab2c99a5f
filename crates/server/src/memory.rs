//! Memory that nobody uses any more.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bytes from which on a piece of memory is the system's own, and goes back to it when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 1 << 20;
/// Free bytes at the end of a heap that the allocator keeps for what comes next.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: i32 = 1 << 20;
/// Whether the allocator keeps as many; written before there are threads, so relaxed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
static KEEPS: AtomicBool = AtomicBool::new(false);

/// Tells glibc's allocator what serving models needs. For a program that does nothing else, before it starts a thread.
///
/// It takes the largest piece that was ever freed for one that will be needed again, and from then on has such pieces in
/// its heaps, where small ones that live longer keep the rest from being given back: one large body, and the process is as
/// much larger for good. From here on the bounds are fixed.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: plain numbers in; no other thread allocates yet.
        let done =
            unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) & libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT) };
        debug_assert_eq!(done, 1, "both are within what glibc takes");
        KEEPS.store(true, Ordering::Relaxed);
    }
}

/// Gives back to the system the free end of the calling thread's heap, all but 128 kB, which [`give_back`] leaves where the
/// heap is not the first thread's.
pub(crate) fn give_back_end() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if KEEPS.load(Ordering::Relaxed) {
        // The end is looked at when more than 64 kB in one piece are freed.
        const LOOKED_AT: usize = 100_000;
        // SAFETY: plain numbers in. Other threads read the bound without a lock and may meet either; with the lower one they
        // give back the end of their heap when they free much, as they do at other times. What is freed is what malloc gave.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, 0);
            libc::free(std::hint::black_box(libc::malloc(LOOKED_AT)));
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// Gives back to the system what is free and the allocator keeps for later. After a model was read, checked and measured, or
/// unloaded, that may be more than what serves, in pieces that do not fit what comes next.
///
/// Takes some milliseconds, in which others wait to allocate: not for where requests are answered, nor for a thread of low
/// priority, which others would wait for as well.
pub(crate) fn give_back() {
    let began = Instant::now();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: a plain number in, the bytes to be kept; only what is free is touched.
        unsafe { libc::malloc_trim(0) };
    }
    tracing::debug!(took = ?began.elapsed(), "gave back what memory was free");
}

/// What the process has in memory beside its files, in bytes; 0 where the system does not tell. Counted page by page: the
/// number in `status` lags behind by some hundred pages.
#[cfg(test)]
pub(crate) fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<usize>().ok());
    1024 * kilobytes.unwrap_or(0)
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// All tests of a process have its memory in common.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn the_end_of_a_thread_s_heap_is_given_back() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        tune_allocator();
        let given = std::thread::spawn(|| {
            let pieces: Vec<_> = (0..800).map(|_| vec![1_u8; 1000]).collect();
            drop(pieces);
            give_back();
            let before = resident();
            give_back_end();
            before.saturating_sub(resident())
        });
        let given = given.join().expect("no panic");
        assert!(given > 500_000, "{given} bytes");
    }

    #[test]
    fn what_is_free_between_what_is_used_is_given_back() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Few enough not to disturb the tests beside it that watch memory.
        let mut pieces: Vec<_> = (0..8000).map(|_| vec![1_u8; 1000]).collect();
        let before = resident();
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 1000 == 0
        });
        give_back();
        let given = before.saturating_sub(resident());
        assert!(given > 4_000_000, "{given} bytes");
        assert_eq!(pieces.len(), 8);
    }
}
