//! Open files, which every connection is one of.

/// Lets the process have as many open files as it may be given. Systems start processes with few for the sake of programs
/// that cannot count beyond 1024; a server's connections are bounded by its own configuration.
///
/// Returns how many it may have, if the system says.
pub(crate) fn raise_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is written to during the call, and not kept.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the struct is read during the call, and not kept.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0;
    Some(if done { raised.rlim_cur } else { limit.rlim_cur })
}
