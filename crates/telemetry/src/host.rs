//! How busy the host is: the machine, or the container that the process may use.
//!
//! Read from `/proc` and the cgroup (v2) file system directly. The `sysinfo` crate knows a cgroup's memory but not its
//! processor quota, and a container limited to 2 of 64 processors that uses both would be reported as 3 % busy: useless
//! to scale or to alert on. Seven small files say it all. A cgroup of version 1 counts as no limit, and elsewhere than
//! on Linux nothing is known.

use crate::names;
use std::time::Instant;
use std::{fs, io};

/// Samples the host's utilisation and publishes it.
#[derive(Debug, Default)]
pub struct Host {
    before: Option<CpuTime>,
}

/// What a sample found, in percent; `None` where it could not be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostSample {
    /// Share of the available processor time that was used since the sample before; unknown at the first.
    pub cpu_percent: Option<f64>,
    /// Share of the available memory in use now, without file caches that the system would give back.
    pub memory_percent: Option<f64>,
}

/// Processor time up to an instant.
#[derive(Debug, Clone, Copy)]
enum CpuTime {
    /// Of a container limited to `processors`, which may be a fraction.
    Limited { at: Instant, used_micros: u64, processors: f64 },
    /// Of all processors of the machine together, in ticks of the system's clock.
    Machine { busy: u64, total: u64 },
}

impl Host {
    /// A host that was never sampled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the host's counters and publishes, with the recorder in force, the utilisation since the sample before.
    ///
    /// What cannot be told is not published: a zero would read as an idle host. Reads files, which takes some tens of
    /// microseconds: call it every few seconds, from a thread that may block.
    pub fn sample(&mut self, now: Instant) -> HostSample {
        let sample = self.sample_from(now, |path| fs::read_to_string(path));
        if let Some(percent) = sample.cpu_percent {
            names::CPU_UTILIZATION.gauge(&[]).set(percent);
        }
        if let Some(percent) = sample.memory_percent {
            names::MEMORY_UTILIZATION.gauge(&[]).set(percent);
        }
        sample
    }

    fn sample_from(&mut self, now: Instant, read: impl Fn(&str) -> io::Result<String>) -> HostSample {
        let read = |path: &str| read(path).ok();
        let cgroup = read("/proc/self/cgroup").and_then(|text| cgroup_directory(&text));
        let of_cgroup = |file: &str| cgroup.as_ref().and_then(|directory| read(&format!("{directory}/{file}")));

        let limited = || {
            let processors = quota(&of_cgroup("cpu.max")?)?;
            let used_micros = field(&of_cgroup("cpu.stat")?, "usage_usec")?;
            Some(CpuTime::Limited { at: now, used_micros, processors })
        };
        let cpu = limited().or_else(|| ticks(&read("/proc/stat")?));
        let cpu_percent = self.before.zip(cpu).and_then(|(before, after)| busy_percent(before, after));
        self.before = cpu;

        let machine = read("/proc/meminfo").and_then(|text| {
            let total = field(&text, "MemTotal:")? * 1024;
            Some((total.saturating_sub(field(&text, "MemAvailable:")? * 1024), total))
        });
        let limited = || {
            let limit: u64 = of_cgroup("memory.max")?.trim().parse().ok()?;
            let current: u64 = of_cgroup("memory.current")?.trim().parse().ok()?;
            let reclaimable = field(&of_cgroup("memory.stat")?, "inactive_file")?;
            Some((current.saturating_sub(reclaimable), limit))
        };
        // A limit beyond what the machine has limits nothing.
        let limited = limited().filter(|(_, limit)| machine.is_none_or(|(_, total)| *limit < total));
        let memory_percent = limited.or(machine).and_then(|(used, total)| percent(used as f64, total as f64));
        HostSample { cpu_percent, memory_percent }
    }
}

fn busy_percent(before: CpuTime, after: CpuTime) -> Option<f64> {
    match (before, after) {
        (
            CpuTime::Limited { at: from, used_micros: used_before, .. },
            CpuTime::Limited { at: to, used_micros, processors },
        ) => {
            let available = to.saturating_duration_since(from).as_secs_f64() * 1e6 * processors;
            percent(used_micros.saturating_sub(used_before) as f64, available)
        }
        (CpuTime::Machine { busy: busy_before, total: total_before }, CpuTime::Machine { busy, total }) => {
            percent(busy.saturating_sub(busy_before) as f64, total.saturating_sub(total_before) as f64)
        }
        // A limit was set or lifted in between.
        _ => None,
    }
}

/// At most 100: a quota is enforced per period, and a sample may see the end of one and the start of the next.
fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (100.0 * part / whole).min(100.0))
}

/// The directory of the process's own cgroup, from `/proc/self/cgroup`, where version 2 is the line `0::/path`.
fn cgroup_directory(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(format!("/sys/fs/cgroup{}", path.trim_end_matches('/')))
}

/// Processors that `cpu.max` (`quota period`, in microseconds, or `max period`) allows.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests follow, and are in user
/// already. Stolen time counts as busy: it was not to be had.
fn ticks(text: &str) -> Option<CpuTime> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks = line.split_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [user, nice, system, idle, iowait, irq, softirq, steal] = *ticks.as_slice() else { return None };
    let busy = user + nice + system + irq + softirq + steal;
    Some(CpuTime::Machine { busy, total: busy + idle + iowait })
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MEMORY: (&str, &str) = ("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 250 kB\n");

    fn sample(host: &mut Host, now: Instant, files: &[(&str, &str)]) -> HostSample {
        host.sample_from(now, |path| match files.iter().find(|(name, _)| *name == path) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn a_machine_without_limits_is_measured_as_a_whole() {
        let (mut host, now) = (Host::new(), Instant::now());
        let first = [("/proc/stat", "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n"), MEMORY];
        assert_eq!(sample(&mut host, now, &first), HostSample { cpu_percent: None, memory_percent: Some(75.0) });
        let second = [("/proc/stat", "cpu  110 5 110 760 110 1 2 2 60 0\n"), MEMORY];
        assert_eq!(sample(&mut host, now, &second).cpu_percent, Some(30.0));
    }

    #[test]
    fn a_container_is_measured_against_its_limits() {
        let (mut host, now) = (Host::new(), Instant::now());
        let files = |usage| {
            [
                ("/proc/self/cgroup", "0::/pod/server\n"),
                ("/proc/stat", "cpu  1 1 1 1 1 1 1 1 1 1\n"),
                MEMORY,
                ("/sys/fs/cgroup/pod/server/cpu.max", "150000 100000\n"),
                ("/sys/fs/cgroup/pod/server/cpu.stat", usage),
                ("/sys/fs/cgroup/pod/server/memory.max", "500000\n"),
                ("/sys/fs/cgroup/pod/server/memory.current", "400000\n"),
                ("/sys/fs/cgroup/pod/server/memory.stat", "anon 1\ninactive_file 100000\n"),
            ]
        };
        sample(&mut host, now, &files("usage_usec 1000000\nuser_usec 5\n"));
        let second = sample(&mut host, now + Duration::from_secs(2), &files("usage_usec 2500000\nuser_usec 5\n"));
        assert_eq!(second, HostSample { cpu_percent: Some(50.0), memory_percent: Some(60.0) });
    }

    #[test]
    fn a_cgroup_without_limits_is_the_machine() {
        let (mut host, now) = (Host::new(), Instant::now());
        let files = |stat| {
            [
                ("/proc/self/cgroup", "1:memory:/old\n0::/\n"),
                ("/proc/stat", stat),
                MEMORY,
                ("/sys/fs/cgroup/cpu.max", "max 100000\n"),
                ("/sys/fs/cgroup/cpu.stat", "usage_usec 7\n"),
                ("/sys/fs/cgroup/memory.max", "9223372036854771712\n"),
                ("/sys/fs/cgroup/memory.current", "1\n"),
                ("/sys/fs/cgroup/memory.stat", "inactive_file 0\n"),
            ]
        };
        sample(&mut host, now, &files("cpu  0 0 0 0 0 0 0 0 0 0\n"));
        let second = sample(&mut host, now, &files("cpu  1 0 0 3 0 0 0 0 0 0\n"));
        assert_eq!(second, HostSample { cpu_percent: Some(25.0), memory_percent: Some(75.0) });
    }

    #[test]
    fn what_cannot_be_read_or_understood_is_unknown() {
        let (mut host, now) = (Host::new(), Instant::now());
        let unknown = HostSample { cpu_percent: None, memory_percent: None };
        let garbage = [("/proc/stat", "cpu  1 2 x"), ("/proc/meminfo", "MemTotal: many kB"), ("/proc/self/cgroup", "")];
        for files in [&[][..], &garbage] {
            assert_eq!(sample(&mut host, now, files), unknown);
            assert_eq!(sample(&mut host, now, files), unknown);
        }
    }

    #[test]
    fn a_limit_set_between_two_samples_leaves_the_first_share_unknown() {
        let (mut host, now) = (Host::new(), Instant::now());
        let before = [("/proc/stat", "cpu  1 0 0 3 0 0 0 0 0 0\n")];
        let after = [
            ("/proc/self/cgroup", "0::/a"),
            ("/sys/fs/cgroup/a/cpu.max", "100000 100000"),
            ("/sys/fs/cgroup/a/cpu.stat", "usage_usec 5000000"),
        ];
        sample(&mut host, now, &before);
        assert_eq!(sample(&mut host, now + Duration::from_secs(1), &after).cpu_percent, None);
        assert_eq!(sample(&mut host, now + Duration::from_secs(1), &after).cpu_percent, None, "no time has passed");
        assert_eq!(sample(&mut host, now + Duration::from_secs(2), &after).cpu_percent, Some(0.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_its_memory() {
        let sample = Host::new().sample(Instant::now());
        assert!(sample.memory_percent.is_some_and(|percent| percent > 0.0 && percent <= 100.0), "{sample:?}");
    }
}
