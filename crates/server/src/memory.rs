//! Memory that nobody uses any more.

use std::time::Instant;

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

/// What the process has in memory, in bytes; 0 where the system does not tell.
#[cfg(test)]
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<usize>().ok());
    1024 * kilobytes.unwrap_or(0)
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_between_what_is_used_is_given_back() {
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
