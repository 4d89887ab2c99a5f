//! Processor time and memory of processes.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a process has used so far, from Linux' `/proc/PID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processor time of all its threads, user and system, in steps of a clock tick (mostly 10 ms).
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
}

impl ProcessUsage {
    /// Reads the figures of process `pid`. Its children are not included.
    ///
    /// # Errors
    ///
    /// When there is no such process, or no `/proc` that says so.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        parse_stat(&stat, rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("unexpected form: {stat}")))
    }
}

/// Processor time of this process, all threads.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Fields 14, 15 and 24 of `proc_pid_stat(5)`, counted from one. The second, the program's name in
/// parentheses, may itself hold spaces and parentheses, so counting starts after the last of them.
fn parse_stat(stat: &str, ticks_per_second: u64, page_size: u64) -> Option<ProcessUsage> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    Some(ProcessUsage {
        cpu: Duration::from_secs_f64(ticks as f64 / ticks_per_second as f64),
        resident_bytes: field(24)? * page_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 3 0 100 5000 12 18446744073709551615 1";
        let usage = parse_stat(stat, 100, 4096).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(2));
        assert_eq!(usage.resident_bytes, 12 * 4096);
        assert_eq!(parse_stat("42 (x) S 1", 100, 4096), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_process_that_is_not_there_is_an_error() {
        assert!(ProcessUsage::of(std::process::id()).unwrap().resident_bytes > 0);
        assert!(ProcessUsage::of(u32::MAX).is_err());
    }
}
