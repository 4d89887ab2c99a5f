//! Threads that may take their time.

/// Lets the calling thread take what the workers leave, rather than as much as they.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: plain integers in, nothing kept; 0 is, on Linux, the calling thread.
        let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 15) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a thread in the background keeps its priority");
        }
    }
}
