//! How much memory there is for another model, beside those that serve.
//!
//! Asked before a model is read and before its sessions are opened, so that a load that does not fit is refused, and does
//! not take down what serves. It is the machine's memory; a GPU's is not looked at.

use std::fs;
use std::path::Path;

use crate::error::LoadReason;

/// The memory limits of a control group: limit, usage, and what of that the system takes back when it needs it.
type Names = (&'static str, &'static str, &'static str);

const VERSION_2: Names = ("memory.max", "memory.current", "inactive_file");
const VERSION_1: Names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");

/// Refuses what needs more bytes than there are. Where the system does not tell how many, nothing is refused.
pub(crate) fn check(needed: u64) -> Result<(), LoadReason> {
    match available(Path::new("/")) {
        Some(available) if needed > available => Err(LoadReason::Memory { needed, available }),
        _ => Ok(()),
    }
}

/// Bytes of memory that this process takes up; 0 where the system does not tell.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmRSS:").unwrap_or(0)
}

/// Bytes that this process could take in addition: those of the machine, or of its control groups if they have fewer.
/// The system's files are under `root`.
fn available(root: &Path) -> Option<u64> {
    let of_machine = kilobytes(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| {
        // A number, controllers (none in version 2), and the group.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, Path::new(parts.next()?.trim_start_matches('/')));
        let (mounted, names) = match controllers {
            "" => ("sys/fs/cgroup", VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", VERSION_1),
            _ => return None,
        };
        // Limits hold for all groups within; in a container, only the last may be there.
        group.ancestors().filter_map(|group| left(&root.join(mounted).join(group), names)).min()
    });
    of_groups.chain([of_machine]).min()
}

/// Bytes left to the control group in `folder`, if it has a limit.
fn left(folder: &Path, (limit, usage, reclaimable): Names) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let of_line = |line: &str| line.strip_prefix(reclaimable)?.trim().parse::<u64>().ok();
    let reclaimable = statistics.lines().find_map(of_line).unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
}

/// The bytes that a line such as `MemAvailable:  12 kB` tells of.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_tightest_of_machine_and_control_groups_is_what_there_is() {
        let root = Scratch::new();
        assert_eq!(available(root.path()), None, "nothing is known");
        root.write("proc/meminfo", b"MemTotal:  4000 kB\nMemAvailable:    2000 kB\n");
        assert_eq!(available(root.path()), Some(2000 * 1024));
        root.write("proc/self/cgroup", b"0::/pods/one\n");
        root.write("sys/fs/cgroup/pods/one/memory.max", b"max\n");
        root.write("sys/fs/cgroup/pods/one/memory.current", b"5\n");
        assert_eq!(available(root.path()), Some(2000 * 1024), "no limit");
        root.write("sys/fs/cgroup/pods/memory.max", b"1000\n");
        root.write("sys/fs/cgroup/pods/memory.current", b"900\n");
        root.write("sys/fs/cgroup/pods/memory.stat", b"anon 5\ninactive_file 300\nactive_file 7\n");
        assert_eq!(available(root.path()), Some(400), "what files take up can be taken back");

        root.write("proc/self/cgroup", b"3:cpu:/x\n2:cpuset,memory:/of/the/host\n");
        root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", b"800\n");
        root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", b"900\n");
        assert_eq!(available(root.path()), Some(0), "of version 1, seen from within a container");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_tells_what_it_has_and_what_is_taken() {
        assert!(available(Path::new("/")).is_some_and(|bytes| bytes > 0) && resident() > 0);
        assert!(check(1).is_ok());
        let error = check(u64::MAX).expect_err("no machine has that");
        assert!(matches!(error, LoadReason::Memory { needed: u64::MAX, .. }), "{error:?}");
    }
}
