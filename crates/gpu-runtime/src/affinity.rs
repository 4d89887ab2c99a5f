//! Keeping a thread on processors.

use std::io;

/// Keeps the calling thread on the processors `cores`, by the numbers that the system gives them. Sessions opened by
/// the thread afterwards inherit it for the threads that they start.
///
/// # Errors
/// When the system has no such processor, or cannot do it at all.
///
/// # Examples
/// ```
/// let first = volley_gpu_runtime::pin_current_thread(&[0]);
/// # #[cfg(target_os = "linux")]
/// assert!(first.is_ok());
/// assert!(volley_gpu_runtime::pin_current_thread(&[]).is_err(), "a thread must run somewhere");
/// ```
pub fn pin_current_thread(cores: &[usize]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let beyond = cores.iter().find(|&&core| core >= libc::CPU_SETSIZE as usize);
        if let Some(core) = beyond {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {core}")));
        }
        // SAFETY: a set of bits, for which zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for &core in cores {
            // SAFETY: the number was checked to be within the set.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        // SAFETY: the set is initialised and its size is given; 0 is the calling thread.
        let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = cores;
        Err(io::ErrorKind::Unsupported.into())
    }
}
